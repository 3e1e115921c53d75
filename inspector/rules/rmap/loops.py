"""Rules of trees that lead back to where they came from, or into nothing that a tree could be made of."""

from __future__ import annotations

import numpy as np

from inspector.rules.registry import Violations, rule
from inspector.snapshot import Snapshot


@rule("vma-tree-damaged", was="vma-tree-broken", group="vma", invariant="V1", rank=6)
def vma_tree_broken(s: Snapshot) -> Violations:
    """An mm's tree of VMAs holds nodes that cannot be: of no known type, too deep, or met twice.

    True:  a maple tree's nodes have one of four types, lie deeper by one at each step, and hang in one place.
    Why:   lib/maple_tree.c, mas_start() and mt_validate().
    Then:  page faults and munmap run in a circle or into foreign memory; what lies behind the bad node is lost.
    Silent when: the mm is being built, changed or torn down.
    Look further: folioscope vmas PID
    """
    rows = np.unique(s.vma_trees.broken).astype(np.int64)
    nodes = np.bincount(s.vma_trees.broken, minlength=len(s.mms))[rows] if len(rows) else rows
    return Violations(
        "mm",
        rows,
        {"impossible_nodes": nodes},
        {"impossible_nodes": np.zeros(len(rows), np.int64)},
        len(s.mms),
        claims=(("mm", rows),),
        transient=s.mm_in_motion[rows],
    )


@rule("anon-vma-tree-loop-unexpected", was="anon-vma-tree-cyclic", group="anon-rmap", invariant="I17", rank=11)
def anon_vma_tree_cyclic(s: Snapshot) -> Violations:
    """The interval tree of an anon_vma leads back to one of its own nodes.

    True:  every node of a tree is reached once.
    Why:   lib/rbtree.c; mm/interval_tree.c, anon_vma_interval_tree_iter_first() descends without looking back.
    Then:  the next rmap walk over one of its pages never ends: soft lockup with the page locked.
    Silent when: the root's lock is held for writing.
    Look further: folioscope anon-vma ADDRESS
    """
    rmap = s.anon_rmap
    rows = rmap.cyclic_trees.astype(np.int64)
    return Violations(
        "anon_vma",
        rows,
        {"leads_back": np.ones(len(rows), np.bool_)},
        {"leads_back": np.zeros(len(rows), np.bool_)},
        len(rmap.anon_vmas),
        claims=(("anon_vma", rows), ("tree", rows)),
        transient=s.anon_vma_locked[rows],
    )


@rule("i-mmap-tree-loop-unexpected", was="i-mmap-tree-cyclic", group="file-rmap", invariant="I17", rank=11)
def i_mmap_tree_cyclic(s: Snapshot) -> Violations:
    """A file's interval tree of VMAs leads back to one of its own nodes.

    True:  every node of a tree is reached once.
    Why:   lib/rbtree.c; mm/interval_tree.c, vma_interval_tree_iter_first() descends without looking back.
    Then:  the next truncation or reclaim of the file never ends.
    Silent when: never: the tree changes only under i_mmap_rwsem, and each step of a change leaves a tree.
    Look further: folioscope file ADDRESS
    """
    rmap = s.file_rmap
    rows = rmap.cyclic_trees.astype(np.int64)
    return Violations(
        "space",
        rows,
        {"leads_back": np.ones(len(rows), np.bool_)},
        {"leads_back": np.zeros(len(rows), np.bool_)},
        len(rmap.spaces),
        claims=(("space", rows), ("i_mmap", rows)),
    )
