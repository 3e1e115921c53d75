"""Red-black and interval trees (lib/rbtree.c, lib/interval_tree.c) of many owners walked together by depth."""

from __future__ import annotations

import time

import numpy as np

from inspector.columns import I32, U8, U64, Mask, Seen, distinct
from inspector.memory import Memory, Nowhere
from inspector.records import dataclass

_MAX_DEPTH = 130
"""Twice the logarithm of the address space: no sound tree is deeper."""

_COLOUR = np.uint64(1)
_PARENT = np.uint64(~3 & 0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class RbNodes:
    """The nodes of many trees, parents before children.

    Attributes:
        root: int32[n]; which tree.
        addr: uint64[n]; address of the containing struct.
        raw: uint8[n, size]; its bytes.
        parent: int32[n]; row of the parent, -1 for the root node.
        left: bool[n]; whether it is its parent's left child.
        depth: int32[n].
        leftmost: bool[n]; whether it is the first node of its tree in order.
        black: bool[n].
        mislinked: bool[n]; the node's own parent pointer names another node, or a child is none.
        unreadable, cyclic: int32[k]; trees with nodes that could not be read, or were reached twice.
        astray: int32[k]; trees with links to where there is no node.
    """

    root: I32
    addr: U64
    raw: U8
    parent: I32
    left: Mask
    depth: I32
    leftmost: Mask
    black: Mask
    mislinked: Mask
    unreadable: I32
    cyclic: I32
    astray: I32

    def __len__(self) -> int:
        return len(self.root)


def walk_rbtrees(memory: Memory, roots: U64, size: int, link: int, nowhere: Nowhere | None = None) -> RbNodes:
    """Walk trees from their root nodes.

    Args:
        memory: For the nodes.
        roots: uint64[n]; ``rb_root.rb_node`` of each tree: the address of the root's rb_node, 0 for an empty tree.
            Low bits (a mark of mm_take_all_locks()) are ignored.
        size: Bytes of the containing struct.
        link: Offset of the rb_node in it.
        nowhere: Which addresses that cannot be read can be none of a node. Where it is not given, a node that cannot be
            read is missing.
    """
    root = np.flatnonzero(roots & _PARENT).astype(np.int32)
    node = roots[root] & _PARENT
    parent = np.full(len(root), -1, np.int32)
    left, edge = np.ones(len(root), np.bool_), np.ones(len(root), np.bool_)
    parents_node = np.zeros(len(root), np.uint64)
    parts: list[tuple[I32, U64, U8, I32, Mask, I32, Mask, Mask, Mask]] = []
    unreadable: list[I32] = []
    cyclic: list[I32] = []
    astray: list[I32] = []
    misled: list[I32] = []
    total, seen = 0, Seen()
    deadline = memory.deadline()
    for depth in range(_MAX_DEPTH):
        if time.monotonic() > deadline:
            unreadable.append(root)
            root, node = root[:0], node[:0]
        if not len(node):
            break
        raw = memory.gather(node - np.uint64(link), size)
        ok = raw.valid
        lost = np.zeros(len(root), np.bool_)
        if nowhere is not None and not ok.all():
            lost[~ok] = nowhere(node[~ok])
        astray.append(root[lost])
        misled.append(parent[lost])
        unreadable.append(root[~ok & ~lost])
        again = np.zeros(len(node), np.bool_)
        again[ok] = seen.take(node[ok])
        cyclic.append(root[again])
        ok &= ~again
        root, node, parent, left, edge = root[ok], node[ok], parent[ok], left[ok], edge[ok]
        parents_node, data = parents_node[ok], raw.bytes[ok]
        words = np.ascontiguousarray(data[:, link : link + 24]).view(np.uint64)
        right_child, left_child = words[:, 1], words[:, 2]
        parts.append(
            (
                root,
                raw.addr[ok],
                data,
                parent,
                left,
                np.full(len(root), depth, np.int32),
                edge & (left_child == 0),
                (words[:, 0] & _COLOUR) != 0,
                (words[:, 0] & _PARENT) != parents_node,
            )
        )
        rows = np.arange(total, total + len(node), dtype=np.int32)
        total += len(node)
        has_left, has_right = left_child != 0, right_child != 0
        root = np.concatenate([root[has_left], root[has_right]])
        parent = np.concatenate([rows[has_left], rows[has_right]])
        parents_node = np.concatenate([node[has_left], node[has_right]])
        edge = np.concatenate([edge[has_left], np.zeros(int(has_right.sum()), np.bool_)])
        left = np.concatenate([np.ones(int(has_left.sum()), np.bool_), np.zeros(int(has_right.sum()), np.bool_)])
        node = np.concatenate([left_child[has_left], right_child[has_right]])
    cyclic.append(root if len(node) else root[:0])
    if not parts:
        return _empty(size, unreadable, cyclic, astray)
    c = [np.concatenate(column) for column in zip(*parts, strict=True)]
    above = np.concatenate(misled)
    c[8][above[above >= 0]] = True
    trees = [distinct(np.concatenate([*some, root[:0]])) for some in (unreadable, cyclic, astray)]
    return RbNodes(c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], *trees)


def _empty(size: int, *trees: list[I32]) -> RbNodes:
    none, no = np.empty(0, np.int32), np.empty(0, np.bool_)
    lost = [distinct(np.concatenate([*rows, none])) for rows in trees]
    return RbNodes(none, np.empty(0, np.uint64), np.empty((0, size), np.uint8), none, no, none, no, no, no, *lost)


def check_order(nodes: RbNodes, key: U64) -> Mask:
    """Nodes on the wrong side of an ancestor: their key is out of order."""
    low, high = np.zeros(len(nodes), np.uint64), np.full(len(nodes), np.uint64(0xFFFFFFFFFFFFFFFF))
    for rows in _levels(nodes):
        above = nodes.parent[rows]
        low[rows] = np.where(nodes.left[rows], low[above], key[above])
        high[rows] = np.where(nodes.left[rows], key[above], high[above])
    return (key < low) | (key > high)


def subtree_max(nodes: RbNodes, last: U64) -> U64:
    """The greatest ``last`` in the subtree of each node: what ``rb_subtree_last`` must be."""
    out = last.copy()
    for rows in reversed(list(_levels(nodes))):
        np.maximum.at(out, nodes.parent[rows], out[rows])
    return out


def check_colours(nodes: RbNodes) -> Mask:
    """Red nodes with a red parent."""
    bad = np.zeros(len(nodes), np.bool_)
    inner = nodes.parent >= 0
    bad[inner] = ~nodes.black[inner] & ~nodes.black[nodes.parent[inner]]
    return bad


def _levels(nodes: RbNodes) -> list[I32]:
    """Rows of each depth below the roots."""
    if not len(nodes):
        return []
    return [np.flatnonzero(nodes.depth == d).astype(np.int32) for d in range(1, int(nodes.depth.max()) + 1)]
