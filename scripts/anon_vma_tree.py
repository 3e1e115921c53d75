"""Walk the interval tree of an anon_vma: each anon_vma_chain with the page offsets of its VMA, indented by depth.

The tree is ordered by the first offset. Each node keeps the greatest last offset below it (rb_subtree_last), so that a
search for an offset leaves out whole branches. Here it is computed anew beside the stored value.

$ drgn -c tests/fixtures/7.3.kdump scripts/anon_vma_tree.py
anon_vma 0xffff896043936d20, root 0xffff896043936d20, refcount 15
      0x7fcc8d936-0x7fcc8d94d avc 0xffff8960438d33c0 vma 0xffff896043920cc0 fork-tree subtree_last 0x7fcc8d94d
      0x7fcc8d936-0x7fcc8d94d avc 0xffff8960676fbb40 vma 0xffff896055b40240 fork-leaf subtree_last 0x7fcc8d94d
    0x7fcc8d936-0x7fcc8d94d avc 0xffff8960438d3b80 vma 0xffff896043920240 fork-leaf subtree_last 0x7fcc8d94d
        0x7fcc8d936-0x7fcc8d94d avc 0xffff89604391bc80 vma 0xffff89604391fcc0 fork-leaf subtree_last 0x7fcc8d94d
        0x7fcc8d936-0x7fcc8d94d avc 0xffff8960439a0100 vma 0xffff89604399c780 fork-leaf subtree_last 0x7fcc8d94d
...
  0x7fcc8d936-0x7fcc8d94d avc 0xffff896043975900 vma 0xffff89604391fd80 fork-leaf subtree_last 0x7fcc8d94d
"""

import sys

import numpy as np
from drgn import Object, container_of

import inspector

target = inspector.from_program()
prog = target.prog
if len(sys.argv) > 1:
    anon_vma = Object(prog, "struct anon_vma *", int(sys.argv[1], 0))
else:
    # A tree that fits on a screen: the largest of at most 15 VMAs.
    table = inspector.Snapshot(target).anon_rmap
    members = np.bincount(table.avcs.tree_idx[table.avcs.tree_idx >= 0])
    anon_vma = Object(
        prog, "struct anon_vma *", int(table.anon_vmas.addr[np.where(members <= 15, members, 0).argmax()])
    )
split = prog.type("struct vm_area_struct").has_member("__vm_anon_pgoff_lo")


def offsets(vma: Object) -> tuple[int, int]:
    """First and last page offset of a VMA, as anonymous folios are indexed."""
    first = vma.vm_pgoff.value_()
    if split:  # from 7.3 on
        first = vma.member_("__vm_anon_pgoff_lo").value_() | vma.member_("__vm_anon_pgoff_hi").value_() << 32
    return int(first), int(first) + ((vma.vm_end - vma.vm_start).value_() >> 12) - 1


def show(node: Object, depth: int) -> int:
    """Print a node and all below it; give the greatest last offset among them."""
    if not node:
        return 0
    chain = container_of(node, "struct anon_vma_chain", "rb")
    first, last = offsets(chain.vma)
    left = show(node.rb_left, depth + 1)
    owner = chain.vma.vm_mm.owner.comm.string_().decode() if chain.vma.vm_mm.owner else "-"
    line = f"{'  ' * depth}{first:#x}-{last:#x} avc {chain.value_():#x} vma {chain.vma.value_():#x} {owner}"
    greatest = max(left, last, show(node.rb_right, depth + 1))
    stored = chain.rb_subtree_last.value_()
    print(f"{line} subtree_last {stored:#x}" + ("" if stored == greatest else f", MUST BE {greatest:#x}"))
    return int(greatest)


print(
    f"anon_vma {anon_vma.value_():#x}, root {anon_vma.root.value_():#x}, refcount {anon_vma.refcount.counter.value_()}"
)
show(anon_vma.rb_root.rb_root.rb_node, 1)
