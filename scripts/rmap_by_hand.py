"""Find who maps a folio as the kernel's rmap walk does, step by step in plain drgn, and compare with inspector.

folio->mapping leads to an anon_vma or an address_space, each has an interval tree of VMAs, and a VMA whose range of
page offsets covers the folio gives the address at which its page tables are asked.

$ drgn -c tests/fixtures/7.3.kdump scripts/rmap_by_hand.py 0x7200
folio 0x7200, 512 pages, mapping 0xffff896043ad7ba1, index 0x7fcc8d200: 3 VMAs in the tree
    VMA 0x7fcc8d200000-0x7fcc8d221000 of mm 0xffff896055f8bf00: 33 pages
    VMA 0x7fcc8d221000-0x7fcc8d222000 of mm 0xffff896055f8bf00: 1 pages
    VMA 0x7fcc8d222000-0x7fcc8d400000 of mm 0xffff896055f8bf00: 478 pages
512 pages mapped; from the page tables inspector has 512: the same
"""

import sys

from drgn import FaultError, cast
from drgn.helpers.linux.mm import compound_head, compound_nr, follow_pfn, page_to_pfn, pfn_to_page
from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry

import inspector

target = inspector.from_program()
snapshot = inspector.Snapshot(target)
folios = snapshot.folios
# Without an argument: the first anonymous large folio.
pfn = int(sys.argv[1], 0) if len(sys.argv) > 1 else int(folios.pfn[folios.is_anon][0])
page = compound_head(pfn_to_page(target.prog, pfn))
first, pages = page_to_pfn(page).value_(), compound_nr(page).value_()
folio = cast("struct folio *", page)
mapping, index = folio.mapping.value_(), folio.index.value_()
if mapping & 3 == 1:
    anon_vma = cast("struct anon_vma *", cast("unsigned long", folio.mapping) - 1)
    chains = rbtree_inorder_for_each_entry("struct anon_vma_chain", anon_vma.rb_root.rb_root.address_of_(), "rb")
    vmas = [chain.vma for chain in chains]
elif mapping and mapping & 3 == 0:
    tree = folio.mapping.i_mmap.rb_root.address_of_()
    vmas = list(rbtree_inorder_for_each_entry("struct vm_area_struct", tree, "shared.rb"))
else:
    sys.exit(f"pfn {first:#x}: folio->mapping {mapping:#x} leads to no interval tree (KSM, or nothing maps it)")
print(f"folio {first:#x}, {pages} pages, mapping {mapping:#x}, index {index:#x}: {len(vmas)} VMAs in the tree")
by_hand = set()
for vma in vmas:
    offset = vma.vm_pgoff.value_()
    if mapping & 1 and target.prog.type("struct vm_area_struct").has_member("__vm_anon_pgoff_lo"):
        # From 7.3 on anonymous folios of private file mappings have an offset of their own.
        offset = vma.member_("__vm_anon_pgoff_lo").value_() | vma.member_("__vm_anon_pgoff_hi").value_() << 32
    start, end, here = vma.vm_start.value_(), vma.vm_end.value_(), 0
    for number in range(pages):
        address = start + ((index + number - offset) << 12)
        try:
            if start <= address < end and follow_pfn(vma.vm_mm, address).value_() == first + number:
                by_hand.add((vma.vm_mm.value_(), address))
                here += 1
        except FaultError:
            pass  # nothing is mapped there
    print(f"    VMA {start:#x}-{end:#x} of mm {vma.vm_mm.value_():#x}: {here} pages")
account = inspector.explain(snapshot, first, check=False)
walked = {(row.mm, row.va + (n << 12)) for row in account.mappings for n in range(row.pages)}
print(f"{len(by_hand)} pages mapped; from the page tables inspector has {len(walked)}: ", end="")
print("the same" if by_hand == walked else "NOT the same")
