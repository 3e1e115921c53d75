"""Walk the i_mmap tree of a file: every VMA that maps it, with its pages of the file and its process.

$ drgn -c tests/fixtures/7.3.kdump scripts/i_mmap.py
address_space 0xffff896041bed238 of bin/keeper
VMA                     first   last  flags  mm                  comm
0xffff89605436b180      0x0    0x0  r---   0xffff896054cf4600  keeper
0xffff8960557baf00      0x0    0x0  r---   0xffff8960556ba300  recorder
0xffff8960557bbc00      0x0    0x0  r---   0xffff8960556bcd00  text-poked
...
805 VMAs; i_mmap_writable 0
"""

import sys

from drgn import Object
from drgn.helpers.linux.fs import inode_path
from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry

import inspector

target = inspector.from_program()
if len(sys.argv) > 1:
    space = Object(target.prog, "struct address_space *", int(sys.argv[1], 0))
else:
    # The one that most VMAs map.
    table = inspector.Snapshot(target).file_rmap
    rows = table.nodes.address_space_idx.tolist()
    space = Object(target.prog, "struct address_space *", int(table.address_spaces.addr[max(rows, key=rows.count)]))
path = inode_path(space.host)
print(f"address_space {space.value_():#x} of {path.decode() if path else 'a file without a name'}")
print("VMA                     first   last  flags  mm                  comm")
number = 0
tree = space.i_mmap.rb_root.address_of_()
for number, vma in enumerate(rbtree_inorder_for_each_entry("struct vm_area_struct", tree, "shared.rb"), 1):
    first = vma.vm_pgoff.value_()
    last = first + ((vma.vm_end - vma.vm_start).value_() >> 12) - 1
    flags = "".join(letter if vma.vm_flags.value_() >> bit & 1 else "-" for bit, letter in enumerate("rwxs"))
    owner = vma.vm_mm.owner.comm.string_().decode() if vma.vm_mm.owner else "-"
    if number <= 20:
        print(f"{vma.value_():#x} {first:#8x} {last:#6x}  {flags}   {vma.vm_mm.value_():#x}  {owner}")
print(f"{number} VMAs; i_mmap_writable {space.i_mmap_writable.counter.value_()}")
