"""Rules of trees that contain loops or invalid nodes."""

from __future__ import annotations

import numpy as np

from inspector.rules.needs import ANON_VMAS, FILES, PAGES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import ADDRESS_SPACE, ANON_VMA, MM, address_space_ids
from inspector.violations import Violations, one, violations
from inspector.windows.window import Effect


@rule(
    "vma-tree-damaged",
    MM,
    "vma",
    Phase.WORDS,
    after=("user-page-table-mismatch",),
    effect=Effect.VMAS,
    decides="73",
    was="vma-tree-broken",
)
def vma_tree_damaged(s: Snapshot) -> Violations:
    """An mm's maple tree has invalid nodes: of unknown type, too deep, or reached twice.

    Invariant: a maple tree's nodes have one of four types, are deeper by one at each step, and have one parent.
    Why: lib/maple_tree.c, mas_start() and mt_validate().
    Consequence: page faults and munmap loop or read other memory; the VMAs below the invalid node are lost.
    Exceptions: the mm is being built, changed or torn down.
    See also: folioscope vmas PID
    """
    rows = np.unique(s.vma_trees.broken).astype(np.int64)
    nodes = np.bincount(s.vma_trees.broken, minlength=len(s.mms))[rows]
    return violations(
        rows,
        observed={"impossible_nodes": nodes},
        expected={"impossible_nodes": 0},
        checked=len(s.mms),
        claims=one("mm", rows),
        transient=s.mm_in_motion[rows],
    )


@rule(
    "anon-vma-tree-loop-unexpected",
    ANON_VMA,
    "anon-rmap",
    Phase.STRUCTURES,
    effect=Effect.ANON_RMAP,
    needs=VMAS | PAGES | ANON_VMAS,
    decides="I17 49",
    was="anon-vma-tree-cyclic",
)
def anon_vma_tree_loop_unexpected(s: Snapshot) -> Violations:
    """The interval tree of an anon_vma contains a loop.

    Invariant: every node of a tree is reached once.
    Why: lib/rbtree.c; mm/interval_tree.c, anon_vma_interval_tree_iter_first() does not detect loops.
    Consequence: the next rmap walk over one of its pages never ends: soft lockup with the page locked.
    Exceptions: the root's lock is held for writing.
    See also: folioscope anon-vma ADDRESS
    """
    rmap = s.anon_rmap
    rows = rmap.cyclic_trees.astype(np.int64)
    return violations(
        rows,
        observed={"leads_back": True},
        expected={"leads_back": False},
        checked=len(rmap.anon_vmas),
        claims=one("anon_vma", rows) + one("tree", rows),
        transient=s.anon_vma_locked[rows],
    )


@rule(
    "i-mmap-tree-loop-unexpected",
    ADDRESS_SPACE,
    "file-rmap",
    Phase.STRUCTURES,
    effect=Effect.FILE_RMAP,
    needs=VMAS | PAGES | FILES,
    decides="I17 59",
    was="i-mmap-tree-cyclic",
)
def i_mmap_tree_loop_unexpected(s: Snapshot) -> Violations:
    """A file's i_mmap tree contains a loop.

    Invariant: every node of a tree is reached once.
    Why: lib/rbtree.c; mm/interval_tree.c, vma_interval_tree_iter_first() does not detect loops.
    Consequence: the next truncation or reclaim of the file never ends.
    Exceptions: i_mmap_rwsem is held: a node that is erased hangs below its successor until that has taken its place, so
        that what was below it is reached twice (include/linux/rbtree_augmented.h, __rb_erase_augmented()).
    See also: folioscope file ADDRESS
    """
    rmap = s.file_rmap
    rows = rmap.cyclic_trees.astype(np.int64)
    ids = address_space_ids(rmap.address_spaces.addr[rows])
    return violations(
        ids,
        observed={"leads_back": True},
        expected={"leads_back": False},
        checked=len(rmap.address_spaces),
        claims=one("address_space", ids) + one("i_mmap", rows),
        transient=s.i_mmap_locked[rows],
    )
