"""Large folios by how they are mapped: how many, and how many mappings and processes each has.

$ drgn -c tests/fixtures/7.3.kdump scripts/mapcounts.py
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
