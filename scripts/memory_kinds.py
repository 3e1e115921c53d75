"""Memory by kind, from the struct pages alone: counts over whole columns, nothing a page in Python.

$ drgn -c tests/fixtures/7.3.kdump scripts/memory_kinds.py
kind             pages         kB  in large folios
hugetlb          12288      49152            12288
anonymous        17360      69440            13960
page cache        5858      23432             2272
free             92872     371488                0
large_kmalloc      712       2848              712
slab              4264      17056             2594
table             1948       7792                0
zsmalloc          1015       4060                0
other            27523     110092              524
"""

import numpy as np

import inspector

snapshot = inspector.Snapshot(inspector.from_program())
pages = np.arange(len(snapshot.pages))
# The type of a compound page is in its head.
heads = snapshot.pages.head_row[pages]
type_name = np.where(heads >= 0, snapshot.page_type_names(heads), "none")
folio = snapshot.folio_of_page[pages]
large = folio >= 0
hugetlb = large & snapshot.folios.is_hugetlb[folio]
anon, file = snapshot.anon_pages[pages], snapshot.file_pages[pages]
free = np.isin(pages, snapshot.buddy_pages)
left = np.ones(len(pages), bool)
print("kind             pages         kB  in large folios")
kinds = [("hugetlb", hugetlb), ("anonymous", anon & ~hugetlb), ("page cache", file & ~hugetlb), ("free", free)]
kinds += [
    (name, type_name == name) for name in np.unique(type_name[~(hugetlb | free) & (type_name != "none")]).tolist()
]
for name, chosen in [*kinds, ("other", left.copy())]:
    chosen = chosen & left
    left = left & ~chosen
    print(f"{name:14} {chosen.sum():7} {4 * chosen.sum():10} {(chosen & large).sum():16}")
