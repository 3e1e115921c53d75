"""Large folios of which some pages are mapped and some are not: memory that splitting an anonymous one would free.

$ drgn -c tests/fixtures/7.3.kdump scripts/partly_mapped.py
     pfn  kind  order  mapped  unmapped  on the split queue
  0x6e00  anon      9     412       100  yes
  0x34a0  anon      5      24         8  yes
  0x35a0  anon      5      27         5  yes
 0x16400  anon      9     510         2  yes
  0x7000  anon      9     511         1  yes
5 folios; splitting the 5 anonymous ones frees 464 kB
"""

import numpy as np

import inspector

snapshot = inspector.Snapshot(inspector.from_program())
folios, counts = snapshot.folios, snapshot.counts
in_folio = np.flatnonzero((snapshot.folio_of_page >= 0) & (counts.page_mappings > 0))
by_ptes = np.bincount(snapshot.folio_of_page[in_folio], minlength=len(folios))
pages = 1 << folios.order.astype(np.int64)
partly = (folios.is_anon | folios.is_rmappable) & ~folios.is_hugetlb & (counts.entire == 0)
partly &= (by_ptes > 0) & (by_ptes < pages)
rows = np.flatnonzero(partly)
rows = rows[np.argsort((by_ptes - pages)[rows], kind="stable")]
print("     pfn  kind  order  mapped  unmapped  on the split queue")
queued = np.isin(rows, snapshot.split_links.folio[snapshot.split_links.queued])
for row, on_queue in zip(rows[:30].tolist(), queued, strict=False):
    kind = "anon" if folios.is_anon[row] else "file"
    free = pages[row] - by_ptes[row]
    print(
        f"{folios.pfn[row]:#8x}  {kind}  {folios.order[row]:5} {by_ptes[row]:7} {free:9}  {'yes' if on_queue else 'no'}"
    )
if len(rows) > 30:
    print(f"... and {len(rows) - 30} more")
anon = rows[folios.is_anon[rows]]
print(f"{len(rows)} folios; splitting the {len(anon)} anonymous ones frees {4 * (pages - by_ptes)[anon].sum()} kB")
