"""Who maps the folio that a page belongs to.

$ drgn -c tests/fixtures/7.3.kdump scripts/folio.py 0x7200
folio 0x7200, order 9: 512 mappings; _entire_mapcount 0 stored, 0 rebuilt
    254 thp-pte          0x7fcc8d200000 PTE
"""

import sys

from drgn import get_default_prog

from inspector.snapshot import Snapshot
from inspector.subjects import describe_mapping
from inspector.target.target import from_program
from inspector.text import parse_number

pfn = parse_number(sys.argv[1]) if len(sys.argv) == 2 else None
snapshot = Snapshot(from_program(get_default_prog()))
if pfn is None or (row := snapshot.pages.memmap.row(pfn)) < 0:
    sys.exit("usage: folio.py PFN, a page frame number that has a struct page")
folio, first, nr = int(snapshot.folio_of_page[row]), pfn, 1
if folio < 0:
    stored, rebuilt = int(snapshot.pages.mapcount_raw[row]) + 1, int(snapshot.counts.page_mappings[row])
    print(f"page {pfn:#x}: _mapcount {stored} stored, {rebuilt} rebuilt")
else:
    first, nr = int(snapshot.folios.pfn[folio]), int(snapshot.folios.nr_pages[folio])
    stored, rebuilt = int(snapshot.folios.entire_raw[folio]) + 1, int(snapshot.counts.entire[folio])
    print(
        f"folio {first:#x}, order {snapshot.folios.order[folio]}: {snapshot.folio_totals[folio]} mappings; "
        f"_entire_mapcount {stored} stored, {rebuilt} rebuilt"
    )
for run in snapshot.mappings_of(first, nr).tolist():
    mapping = describe_mapping(snapshot, run, pfn=first)
    print(f"{mapping.pid or '-':>7} {mapping.comm or '':16} {mapping.va:#x} {mapping.level}")
