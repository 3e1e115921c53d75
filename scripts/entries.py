"""PMD and PTE mappings of a range of a process: runs of entries that map consecutive pages alike.

$ drgn -c tests/fixtures/7.3.kdump scripts/entries.py 1 0x7fcc8cc00000 0x800000000000
process 1 (keeper): 7 runs
address         level  entries       pfn  first entry
0x7fcc8d200000  PMD          1   0x27800  0x80000000278008c7
0x7fcc8d954000  PTE          1   0x2351e  0x000000002351e025
0x7ffe1ab0f000  PTE          1   0x26c9b  0x8400000026c9b825
0x7ffe1ab10000  PTE          1   0x26c9d  0x8400000026c9d825
0x7ffe1ab11000  PTE          1   0x26c9a  0x8400000026c9a825
0x7ffe1ab12000  PTE          1   0x26c9e  0x8000000026c9e867
...
PTE: 6 entries, 24 kB
"""

import sys

import numpy as np

import inspector

snapshot = inspector.Snapshot(inspector.from_program())
mappings, mms = snapshot.mappings, snapshot.mms
if len(sys.argv) > 1:
    chosen = np.flatnonzero(mms.pid == int(sys.argv[1]))
    if not len(chosen):
        sys.exit(f"no process {sys.argv[1]} has an address space")
    mm = int(chosen[0])
else:
    # The process with the most PMD mappings.
    mm = int(np.bincount(mappings.mm_idx[mappings.level == 2], minlength=len(mms)).argmax())
start, end = (int(word, 0) for word in (sys.argv[2:] + ["0", "0x800000000000"][len(sys.argv[2:]) :])[:2])
span = np.where(mappings.level == 1, 1 << 12, np.where(mappings.level == 2, 1 << 21, 1 << 30)).astype(np.uint64)
stop = mappings.va + mappings.nr * span
rows = np.flatnonzero((mappings.mm_idx == mm) & (mappings.va < np.uint64(end)) & (stop > np.uint64(start)))
rows = rows[np.argsort(mappings.va[rows])]
print(f"process {mms.pid[mm]} ({mms.comm[mm].decode()}): {len(rows)} runs")
print("address         level  entries       pfn  first entry")
for row in rows[:40].tolist():
    level = {1: "PTE", 2: "PMD", 3: "PUD"}[int(mappings.level[row])]
    print(
        f"{mappings.va[row]:#014x}  {level:5} {mappings.nr[row]:8} {mappings.pfn[row]:#9x}  {mappings.entry[row]:#018x}"
    )
if len(rows) > 40:
    print(f"... and {len(rows) - 40} more")
for name, code in (("PMD", 2), ("PTE", 1)):
    at = rows[mappings.level[rows] == code]
    print(f"{name}: {mappings.nr[at].sum()} entries, {(mappings.nr[at] * span[at]).sum() >> np.uint64(10)} kB")
