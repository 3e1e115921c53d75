"""Lists and trees that lead back to where they came from: found, told and left behind."""

from __future__ import annotations

import numpy as np

from inspector.snapshot import Snapshot
from tests.faults.catalogue import fault
from tests.faults.overlay import put, word
from tests.faults.plants import MissingError, Planted, pick


@fault
def list_of_chains_in_a_circle(s: Snapshot) -> Planted:
    """The first chain of a VMA names itself as the next."""
    link = s.layout.struct("struct anon_vma_chain").field("same_vma").offset
    avcs = s.anon_rmap.avcs
    per = np.bincount(avcs.list_vma_idx[avcs.list_vma_idx >= 0], minlength=len(s.vmas))
    vma = pick(np.flatnonzero((per > 2) & ~s.mm_in_motion[s.vmas.mm_idx]), "a VMA with three chains", 2)
    first = word(s, int(s.vmas.addr[vma]) + s.layout.struct("struct vm_area_struct").field("anon_vma_chain").offset)
    assert first - link in avcs.addr.tolist()
    return Planted((put(s, first, first),), ("anon-vma-chain-damaged",), None)


@fault
def tree_of_an_anon_vma_in_a_circle(s: Snapshot) -> Planted:
    row = pick(np.flatnonzero(s.anon_rmap.anon_vmas.tree != 0), "an anon_vma with a tree", 9)
    node = int(s.anon_rmap.anon_vmas.tree[row])
    return Planted((put(s, node + 16, node),), ("anon-vma-tree-loop-unexpected",), None)


@fault
def tree_of_a_file_in_a_circle(s: Snapshot) -> Planted:
    row = pick(np.flatnonzero(s.file_rmap.address_spaces.tree != 0), "a mapped file", 9)
    node = int(s.file_rmap.address_spaces.tree[row])
    return Planted((put(s, node + 16, node),), ("i-mmap-tree-loop-unexpected",), None)


@fault
def tree_of_vmas_in_a_circle(s: Snapshot) -> Planted:
    """A leaf of a maple tree names the tree's root node as a VMA's neighbour."""
    v = s.vmas
    per = np.bincount(v.mm_idx, minlength=len(s.mms))
    for mm in np.flatnonzero((per > 15) & (s.mms.nr_tasks == 1) & ~s.mm_in_motion).tolist():
        tree = int(s.mms.addr[mm]) + s.layout.struct("struct mm_struct").field("mm_mt").offset
        root = word(s, tree + s.layout.struct("struct maple_tree").field("ma_root").offset)
        base = root & ~0xFF
        for at in range(base, base + 256, 8):
            value = word(s, at)
            if value & 0x87 == 4 and value > 1 << 63 and value & ~0xFF != base:
                return Planted((put(s, at, root & ~2 | 4),), ("vma-tree-damaged",), None)
    raise MissingError("a maple tree of two levels")
