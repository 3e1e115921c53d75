"""Explain a folio: who holds its references, what the kernel would do with it now, and what a fork would change.

$ drgn -c tests/fixtures/7.3.kdump scripts/explain.py 0x7200
0x7200 taken for a page frame number (the highest is 0x27fff)
pfn 0x7200 (29184), struct page 0xfffff8b8c01c8000, physical 0x7200000, direct map
    0xffff896047200000

folio 0x7200, order 9: 512 pages, 2 MiB, anon
  Anonymous memory of processes, found again through an anon_vma.
  flags      referenced uptodate dirty lru head owner_2 swapbacked young idle
  mapping    0xffff896043ad7ba1
  mapped by  512 entries (0 PMDs, 512 PTEs) in 1 address space, counted over all page tables

counters
  ok           _entire_mapcount + 1 = PMD 0 = 0
  ok           _large_mapcount + 1 = PTE 512 + PMD 0 = 512
  ok           _nr_pages_mapped = pages mapped by PTEs 512 = 512
...
verdict  consistent
"""

import sys

import inspector

snapshot = inspector.Snapshot(inspector.from_program())
folios = snapshot.folios
# Without an argument: an anonymous large folio, or any large one.
place = sys.argv[1] if len(sys.argv) > 1 else int(folios.pfn[folios.is_anon if folios.is_anon.any() else ...][0])
try:
    print(inspector.as_text(inspector.explain(snapshot, place, operations=sys.argv[2:])))
except inspector.UsageError as error:
    sys.exit(str(error))
