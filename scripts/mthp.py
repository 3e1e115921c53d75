"""Large folios of a process by kind and order: how many it maps, by PMD or by PTEs, and how much of them.

$ drgn -c tests/fixtures/7.3.kdump scripts/mthp.py
process 164 (file-large)
kind     order  folios  by PMD  by PTEs   mapped kB   of kB
file         2      48       0       48         768     768
"""

import sys

import numpy as np

import inspector

snapshot = inspector.Snapshot(inspector.from_program())
mappings, folios, mms = snapshot.mappings, snapshot.folios, snapshot.mms
folio = np.where(mappings.page_row >= 0, snapshot.folio_of_page[mappings.page_row], -1)
large = mappings.counted & (folio >= 0)
if len(sys.argv) > 1:
    chosen = np.flatnonzero(mms.pid == int(sys.argv[1]))
else:
    # The process that maps the most different large folios.
    pairs = np.unique(np.stack([mappings.mm_idx[large], folio[large]]), axis=1)
    chosen = np.array([np.bincount(pairs[0]).argmax()])
if not len(chosen):
    sys.exit(f"no process {sys.argv[1]} has an address space")
mine = large & (mappings.mm_idx == chosen[0])
pages = mappings.nr.astype(np.int64) * np.where(mappings.level == 2, 512, 1)
print(f"process {mms.pid[chosen[0]]} ({mms.comm[chosen[0]].decode()})")
print("kind     order  folios  by PMD  by PTEs   mapped kB   of kB")
for kind, of_kind in (("hugetlb", folios.is_hugetlb), ("anon", folios.is_anon), ("file", ~folios.is_anon)):
    for order in range(1, 19):
        rows = mine & of_kind[folio] & (folios.order[folio] == order)
        if kind != "hugetlb":
            rows &= ~folios.is_hugetlb[folio]
        distinct = np.unique(folio[rows])
        if len(distinct):
            by_pmd, by_ptes = (len(np.unique(folio[rows & at])) for at in (mappings.level > 1, mappings.level == 1))
            sizes = f"{4 * pages[rows].sum():11} {4 * len(distinct) << order:7}"
            print(f"{kind:8} {order:5} {len(distinct):7} {by_pmd:7} {by_ptes:8} {sizes}")
