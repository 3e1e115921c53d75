"""Who maps the folio that a page belongs to, and what each of its counters should be.

$ drgn -c tests/fixtures/7.3.kdump scripts/folio.py 0x7200
folio 0x7200, order 9: 512 mappings
    _large_mapcount: 511 stored; _large_mapcount + 1 = PTE 512 + PMD 0 = 512
"""

import sys

import inspector

if len(sys.argv) != 2:
    sys.exit("usage: folio.py PAGE, a page frame number or an address")
snapshot = inspector.Snapshot(inspector.from_program())
try:
    folio = inspector.explain(snapshot, sys.argv[1], check=False)
except inspector.UsageError as error:
    sys.exit(str(error))
first = folio.place.pfn - folio.page_index
print(f"folio {first:#x}, order {folio.order}: {folio.pmd + folio.pud + folio.pte} mappings")
for line in folio.ledger:
    print(f"    {line.counter}: {line.stored} stored; {line.formula}")
for mapping in folio.mappings:
    print(f"{mapping.pid or '-':>7} {mapping.comm or '':16} {mapping.va:#x} {mapping.level} {mapping.pages} pages")
