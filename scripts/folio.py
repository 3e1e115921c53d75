"""Who maps the folio that a page belongs to, and what each of its counters should be.

$ drgn -c tests/fixtures/7.3.kdump scripts/folio.py 0x7200
folio 0x7200, order 9: 512 mappings
    _entire_mapcount: -1 stored; _entire_mapcount + 1 = PMD 0 = 0
    _large_mapcount: 511 stored; _large_mapcount + 1 = PTE 512 + PMD 0 = 512
    _nr_pages_mapped: 512 stored; _nr_pages_mapped = pages mapped by PTEs 512 = 512
    _mapcount: 0 stored; _mapcount + 1 = PTE 1 = 1
    _pincount: 0 stored; _pincount = 0
    _refcount: 512 stored; _refcount = page-table entries 512 = 512
    FOLIO_MM_IDS_SHARED: 0 stored; FOLIO_MM_IDS_SHARED may be either: 1 address space maps the folio; it is clear
    254 thp-pte          0x7fcc8d200000 PTE 33 pages
    254 thp-pte          0x7fcc8d221000 PTE 1 pages
    254 thp-pte          0x7fcc8d222000 PTE 478 pages
"""

import sys

import inspector

snapshot = inspector.Snapshot(inspector.from_program())
# A page frame number or an address; without one the large folio with the most mappings.
place = sys.argv[1] if len(sys.argv) > 1 else int(snapshot.folios.pfn[snapshot.folio_totals.argmax()])
try:
    folio = inspector.explain(snapshot, place, check=False)
except inspector.UsageError as error:
    sys.exit(str(error))
first = folio.place.pfn - folio.page_index
print(f"folio {first:#x}, order {folio.order}: {folio.pmd + folio.pud + folio.pte} mappings")
for line in folio.ledger:
    print(f"    {line.counter}: {line.stored} stored; {line.formula}")
for mapping in folio.mappings:
    print(f"{mapping.pid or '-':>7} {mapping.comm or '':16} {mapping.va:#x} {mapping.level} {mapping.pages} pages")
