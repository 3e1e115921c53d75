"""Large folios by how they are mapped: how many, and how many mappings and processes each has.

$ drgn -c tests/fixtures/7.3.kdump scripts/mapcounts.py
kind     order  folios  PMD-mapped  PTE-mapped  both  most mappings  most mms
hugetlb      9      18          18           0     0              3         3
anon         2       2           0           2     0              4         1
anon         3       4           0           4     0              8         1
anon         4       6           0           6     0             48         3
anon         5       4           0           4     0             32         1
anon         6       2           0           2     0             64         1
anon         7       2           0           2     0            128         1
anon         8       2           0           2     0            256         1
anon         9      25          13          10     2           1024         4
file         2      48           0          48     0              4         1
file         4       2           0           2     0             32         2
file         9       4           2           0     2             26         4
"""

import inspector

snapshot = inspector.Snapshot(inspector.from_program())
folios, counts, totals = snapshot.folios, snapshot.counts, snapshot.folio_totals
kinds = (("hugetlb", folios.is_hugetlb), ("anon", folios.is_anon & ~folios.is_hugetlb))
print("kind     order  folios  PMD-mapped  PTE-mapped  both  most mappings  most mms")
for kind, chosen in (*kinds, ("file", folios.is_rmappable & ~folios.is_anon)):
    for order in sorted(set(folios.order[chosen & (totals > 0)].tolist())):
        rows = (chosen & (folios.order == order) & (totals > 0)).nonzero()[0]
        entire, ptes = counts.entire[rows] > 0, totals[rows] > counts.entire[rows]
        print(
            f"{kind:8} {order:5} {len(rows):7} {(entire & ~ptes).sum():11} {(ptes & ~entire).sum():11} "
            f"{(ptes & entire).sum():5} {totals[rows].max():14} {counts.nr_mms[rows].max():9}"
        )
