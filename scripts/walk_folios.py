"""Walk the memory map folio by folio in plain drgn, and compare with what inspector read at one go.

A compound page's head gives its order; the walk goes on behind it. So single folios are asked about; for all of
memory there are the columns of inspector.

$ drgn -c tests/fixtures/7.3.kdump scripts/walk_folios.py 0x7000 0x1000
compound pages in pfn 0x7000-0x7fff, 0 struct pages unreadable
kind   order  number
anon       9       7
inspector has the same compound pages
"""

import sys
from collections import Counter

from drgn import FaultError, cast
from drgn.helpers.linux.mm import PageHead, PageSlab, compound_order, pfn_to_page

import inspector

target = inspector.from_program()
first, count = (int(word, 0) for word in (sys.argv[1:] + ["0x4000", "0x8000"][len(sys.argv) - 1 :])[:2])
heads, unreadable, pfn = [], 0, first
found: Counter[tuple[str, int]] = Counter()
while pfn < first + count:
    page = pfn_to_page(target.prog, pfn)
    pages = 1
    try:
        if PageHead(page):
            order = compound_order(page).value_()
            # The low bits of folio->mapping say what it points to: 1 an anon_vma, 0 an address_space.
            tag = cast("struct folio *", page).mapping.value_() & 3
            kind = "slab" if PageSlab(page) else "anon" if tag == 1 else "other"
            found[kind, order] += 1
            heads.append(pfn)
            pages = 1 << order
    except FaultError:
        unreadable += 1
    pfn += pages
print(f"compound pages in pfn {first:#x}-{first + count - 1:#x}, {unreadable} struct pages unreadable")
print("kind   order  number")
for (kind, order), number in sorted(found.items()):
    print(f"{kind:6} {order:5} {number:7}")
table = inspector.Snapshot(target).folios
same = heads == [pfn for pfn in table.pfn.tolist() if first <= pfn < first + count]
print(f"inspector has {'the same' if same else 'OTHER'} compound pages")
