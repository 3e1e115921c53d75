"""Families of anon_vmas: who descends from whom, and what their counters must be."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask, Table, rows_of, union
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.anon_vmas import AnonRmap
from inspector.tables.vmas import Vmas


@dataclass(frozen=True, slots=True)
class Family(Table):
    """One row an anon_vma of one family, the root first and each before its children.

    Attributes:
        row: int64; in `AnonVmas`.
        depth: int64; generations below the root, -1 for those whose parents do not lead to it.
        children, active_vmas, chains: int64; rebuilt: anon_vmas below it (a root counts itself), VMAs whose own it
            is, and chains in its interval tree.
    """

    row: I64
    depth: I64
    children: I64
    active_vmas: I64
    chains: I64


def family_of(rmap: AnonRmap, vmas: Vmas, row: int) -> Family:
    """The family of one anon_vma (mm/rmap.c, anon_vma_fork(): all have one root)."""
    table, n = rmap.anon_vmas, len(rmap.anon_vmas)
    root = int(table.root_idx[row]) if table.root_idx[row] >= 0 else row
    members = union(np.flatnonzero(table.root_idx == root), np.array([root, row]))
    order, depth = _in_order(table.parent_idx[members].tolist(), members.tolist(), root)
    own = rows_of(table.addr, vmas.anon_vma)
    alive = (table.tree != 0) & (table.parent_idx >= 0)
    children = np.bincount(table.parent_idx[alive], minlength=n)
    active = np.bincount(own[own >= 0], minlength=n)
    chains = np.bincount(rmap.avcs.tree_idx[rmap.avcs.tree_idx >= 0], minlength=n)
    return Family(order, depth, children[order], active[order], chains[order])


def _in_order(parents: list[int], members: list[int], root: int) -> tuple[I64, I64]:
    """Members from the root down, children by address under their parent, and the depth of each."""
    below: dict[int, list[int]] = {}
    for parent, member in zip(parents, members, strict=True):
        if member != root:
            below.setdefault(parent, []).append(member)
    order, depth, left = [root], [0], [(c, 1) for c in reversed(below.pop(root, []))]
    while left:
        member, level = left.pop()
        order.append(member)
        depth.append(level)
        left += [(c, level + 1) for c in reversed(below.pop(member, []))]
    # What is left descends from no member: a parent that has gone, or parents in a circle.
    known = set(order)
    lost = [m for m in members if m not in known]
    return np.array(order + lost, np.int64), np.array(depth + [-1] * len(lost), np.int64)


def red_chains(layout: Layout, rmap: AnonRmap, rows: I64) -> Mask:
    """Which chains are red nodes of their trees (RB_RED, include/linux/rbtree_augmented.h)."""
    field = layout.struct("struct anon_vma_chain").field("rb.__rb_parent_color")
    words, known = layout.memory.words(rmap.avcs.addr[rows] + np.uint64(field.offset))
    return known & ((words & np.uint64(1)) == 0)
