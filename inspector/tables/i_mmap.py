"""The interval trees of VMAs that map each file: how an rmap walk finds mappings of page-cache folios."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from inspector.columns import I32, I64, U64, Mask, Table, distinct, rows_of
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Field
from inspector.lib.rbtree import check_colours, check_order, subtree_max, walk_rbtrees
from inspector.records import dataclass
from inspector.tables.inodes import read_inodes
from inspector.tables.locks import RwSemaphore
from inspector.tables.slabs import lead_nowhere
from inspector.tables.vmas import Vmas, vma_rows


@dataclass(frozen=True, slots=True)
class MappedAddressSpaces(Table):
    """One row an address_space that a VMA or a mapped folio names, ordered by address.

    Attributes:
        addr: uint64; address_space.
        host: uint64; its inode, 0 for none.
        tree: uint64; rb_node at the top of i_mmap, 0 when nothing maps the file.
        leftmost: uint64; the cached first rb_node.
        writable: int32; i_mmap_writable.
        readable: bool.
        owned: bool; the file of a VMA, or its own inode, names it. Of others no tree is followed.
    """

    addr: U64
    host: U64
    tree: U64
    leftmost: U64
    writable: I32
    readable: Mask
    owned: Mask


@dataclass(frozen=True, slots=True)
class IMmapNodes(Table):
    """One row a VMA found in an i_mmap tree.

    Attributes:
        vma: uint64; its address.
        vma_idx: int32; its row, -1 when it is in no mm's tree of VMAs.
        address_space_idx: int32; whose tree.
        vm_mm: uint64; the mm it names.
        first, last: uint64; page offsets that the tree is ordered by.
        subtree_last, true_subtree_last: uint64; as stored, and rebuilt.
        misordered, red_red, mislinked, is_leftmost: bool.
    """

    vma: U64
    vma_idx: I32
    address_space_idx: I32
    vm_mm: U64
    first: U64
    last: U64
    subtree_last: U64
    true_subtree_last: U64
    misordered: Mask
    red_red: Mask
    mislinked: Mask
    is_leftmost: Mask


@dataclass(frozen=True)
class FileRmap:
    """Everything about reverse mapping of files.

    Attributes:
        address_spaces: Their table.
        nodes: Table of the VMAs in their trees.
        address_space_of_vma: int32; row of the address_space of each VMA's file, -1 for VMAs without.
        in_tree: bool; whether each VMA is in that tree.
        broken_trees: int32; rows of spaces whose tree has nodes that cannot be read or are met twice.
        cyclic_trees: int32; those of them whose tree leads back to a node.
        unreadable: How many things could not be read.
    """

    address_spaces: MappedAddressSpaces
    nodes: IMmapNodes
    address_space_of_vma: I32
    in_tree: Mask
    broken_trees: I32
    cyclic_trees: I32
    unreadable: int


def build_file_rmap(layout: Layout, vmas: Vmas, extra: U64) -> FileRmap:
    """Read the i_mmap trees of all mapped files (mm/interval_tree.c, mm/mmap.c __vma_link_file()).

    Args:
        layout: The kernel's layout.
        vmas: Whose files are wanted.
        extra: uint64; addresses of further address_spaces, such as those that mapped folios name.
    """
    file_struct = layout.struct("struct file")
    has_file = np.flatnonzero(vmas.file)
    files, back = np.unique(vmas.file[has_file], return_inverse=True)
    raw_files = layout.memory.gather(files, file_struct.size)
    f_mapping = np.where(raw_files.valid, file_struct.field("f_mapping").column(raw_files.bytes), 0)
    space_addr = np.zeros(len(vmas), np.uint64)
    space_addr[has_file] = f_mapping[back]
    spaces = _read_spaces(layout, distinct(np.concatenate([space_addr, extra])))
    # What folios alone name is one if its inode says so. Of what is none nothing is followed, and nothing is missing.
    owned = np.isin(spaces.addr, space_addr)
    inodes = read_inodes(layout, np.where(owned, np.uint64(0), spaces.host))
    owned |= spaces.readable & inodes.readable & ((inodes.mapping == spaces.addr) | (inodes.data == spaces.addr))
    spaces = replace(spaces, tree=np.where(owned, spaces.tree, np.uint64(0)), owned=owned)
    address_space_of_vma = rows_of(spaces.addr, space_addr)
    address_space_of_vma[space_addr == 0] = -1
    struct = layout.struct("struct vm_area_struct")
    nowhere = partial(lead_nowhere, layout)
    found = walk_rbtrees(layout.memory, spaces.tree, struct.size, struct.field("shared.rb").offset, nowhere)
    start, end = struct.field("vm_start").column(found.raw), struct.field("vm_end").column(found.raw)
    first = struct.field("vm_pgoff").column(found.raw)
    last = first + ((end - start) >> np.uint64(layout.memmap.page_shift)) - np.uint64(1)
    vma_idx = vma_rows(vmas, found.addr)
    nodes = IMmapNodes(
        vma=found.addr,
        vma_idx=vma_idx,
        address_space_idx=found.root,
        vm_mm=struct.field("vm_mm").column(found.raw),
        first=first,
        last=last,
        subtree_last=struct.field("shared.rb_subtree_last").column(found.raw),
        true_subtree_last=subtree_max(found, last),
        misordered=check_order(found, first),
        red_red=check_colours(found),
        mislinked=found.mislinked,
        is_leftmost=found.leftmost,
    )
    in_tree = np.zeros(len(vmas), np.bool_)
    known = vma_idx >= 0
    in_tree[vma_idx[known]] = address_space_of_vma[vma_idx[known]] == found.root[known]
    lost = [files[~raw_files.valid], spaces.addr[owned & ~spaces.readable]]
    missing = np.concatenate(lost)
    unreadable = len(found.unreadable) + (int((~nowhere(missing)).sum()) if len(missing) else 0)
    broken = distinct(np.concatenate([found.unreadable, found.cyclic, found.astray])).astype(np.int32)
    return FileRmap(spaces, nodes, address_space_of_vma, in_tree, broken, distinct(found.cyclic), unreadable)


def _read_spaces(layout: Layout, addrs: U64) -> MappedAddressSpaces:
    struct = layout.struct("struct address_space")
    addrs = addrs[addrs != 0]
    raw = layout.memory.gather(addrs, struct.size)
    return MappedAddressSpaces(
        addr=addrs,
        host=struct.field("host").column(raw.bytes),
        tree=struct.field("i_mmap.rb_root.rb_node").column(raw.bytes),
        leftmost=struct.field("i_mmap.rb_leftmost").column(raw.bytes),
        writable=struct.field("i_mmap_writable.counter").column(raw.bytes).astype(np.int32),
        readable=raw.valid,
        owned=raw.valid,
    )


def writable_shares(vmas: Vmas, rmap: FileRmap, shared_maywrite: int) -> I64:
    """VMAs of each address_space that may write to the file (mapping_map_writable())."""
    wants = (rmap.address_space_of_vma >= 0) & vmas.has(shared_maywrite) & rmap.in_tree
    return np.bincount(rmap.address_space_of_vma[wants], minlength=len(rmap.address_spaces)).astype(np.int64)


def read_i_mmap_locks(layout: Layout, spaces: U64) -> Mask:
    """Whether the i_mmap_rwsem of each address_space is held, for reading or writing, or waited for."""
    semaphore = RwSemaphore.of(layout.struct("struct address_space"), "i_mmap_rwsem")
    word = Field(0, semaphore.word.size)
    raw = layout.memory.gather(spaces + np.uint64(semaphore.word.offset), word.size)
    return raw.valid & ~semaphore.is_free(word.column(raw.bytes))
