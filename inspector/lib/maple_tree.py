"""Maple trees (lib/maple_tree.c) of many owners walked together, one gather a level."""

from __future__ import annotations

import time

import drgn
import numpy as np

from inspector.columns import I32, U8, U64, Mask, Seen, Stretches
from inspector.layout.offsets import Struct, enumerators
from inspector.memory import Memory, Nowhere, Raw
from inspector.records import dataclass

_MAX_DEPTH = 16
"""Deeper than any maple tree can grow on 64-bit; a longer chain is a cycle."""

_NODE_MASK = np.uint64(~0xFF & 0xFFFFFFFFFFFFFFFF)
_TYPE_MASK = np.uint64(0xF)
_TYPE_SHIFT = np.uint64(3)
_PAGE_SHIFT = np.uint64(12)
"""Of the page numbers of `Stretches`; trees of VMAs are indexed by address."""
_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class MapleEntries:
    """The non-empty ranges of the trees, and what went wrong on the way.

    Attributes:
        root: int32[n]; row of the tree each range was found in.
        first, last: uint64[n]; inclusive range of indices.
        value: uint64[n]; what is stored there.
        unreadable: int32[k]; tree of each node that could not be read.
        broken: int32[k]; tree of each node of impossible type or depth.
    """

    root: I32
    first: U64
    last: U64
    value: U64
    unreadable: I32
    broken: I32


@dataclass(frozen=True)
class _NodeShape:
    pivots_offset: int
    nr_pivots: int
    slots_offset: int
    nr_slots: int
    leaf: bool


def _shapes(prog: drgn.Program) -> dict[int, _NodeShape]:
    types = enumerators(prog, "enum maple_type")
    shapes = {}
    for name, struct_name in (
        ("maple_leaf_64", "struct maple_range_64"),
        ("maple_range_64", "struct maple_range_64"),
        ("maple_arange_64", "struct maple_arange_64"),
    ):
        struct = Struct(prog, struct_name)
        pivot, slot = struct.field("pivot"), struct.field("slot")
        shapes[types[name]] = _NodeShape(pivot.offset, pivot.length, slot.offset, slot.length, name == "maple_leaf_64")
    return shapes


def _is_node(entry: U64) -> Mask:
    # xa_is_node(): an internal entry that is too large to be one of the reserved small values.
    return ((entry & np.uint64(3)) == 2) & (entry > np.uint64(4096))


def walk_maple_trees(
    prog: drgn.Program, memory: Memory, roots: U64, only: Stretches | None = None, nowhere: Nowhere | None = None
) -> MapleEntries:
    """All stored ranges of all trees.

    Args:
        prog: For the node layout.
        memory: For the nodes.
        roots: uint64[n]; the ``ma_root`` word of each tree.
        only: Indices, as addresses by tree, around which ranges are wanted: no other node is read. None for all.
        nowhere: Which addresses that cannot be read can be none of a node; what leads there is broken, not missing.

    Returns:
        The ranges ordered by tree, then by first index. Damage never raises: it is in ``unreadable`` and
        ``broken``. A node is entered at most once a tree, so that a cycle ends.
    """
    shapes = _shapes(prog)
    node_size = Struct(prog, "struct maple_node").size
    tree = np.arange(len(roots), dtype=np.int32)
    unreadable: list[I32] = [tree[:0]]
    broken: list[I32] = []
    # A root that is no node is a single entry at index 0, which no mm uses (mas_root_expand()).
    is_node = _is_node(roots)
    single = ~is_node & (roots != 0)
    zero = np.zeros(single.sum(), np.uint64)
    found: list[tuple[I32, U64, U64, U64]] = [(tree[single], zero, zero, roots[single])]
    tree, node = tree[is_node], roots[is_node]
    low, high = np.zeros(len(node), np.uint64), np.full(len(node), _FULL)
    seen, deadline = Seen(), memory.deadline()
    seen.take(node & _NODE_MASK)
    for _ in range(_MAX_DEPTH):
        if time.monotonic() > deadline:
            unreadable.append(tree)
            tree, node = tree[:0], node[:0]
        if not len(node):
            break
        raw = memory.gather(node & _NODE_MASK, node_size)
        lost, astray = _apart(raw, nowhere)
        unreadable.append(tree[lost])
        kind = (node >> _TYPE_SHIFT) & _TYPE_MASK
        bad = astray | raw.valid & ~np.isin(kind, np.array(list(shapes), np.uint64))
        broken.append(tree[bad])
        below: list[tuple[I32, U64, U64, U64]] = []
        for type_, shape in shapes.items():
            if not len(rows := np.flatnonzero(raw.valid & (kind == type_))):
                continue
            row, first, last, value = _decode(raw.bytes[rows], shape, low[rows], high[rows])
            entries = (tree[rows[row]], first, last, value)
            if only is not None:
                entries = _near(only, entries)
                value = entries[3]
            if shape.leaf:
                found.append(entries)
            else:
                # mt_mk_node(): below the root a node is not tagged as an internal entry, only typed.
                child = value > np.uint64(4096)
                broken.append(entries[0][~child])
                below.append(tuple(column[child] for column in entries))  # type: ignore[arg-type]
        if not below:
            tree, node = tree[:0], node[:0]
            break
        tree, low, high, node = (np.concatenate(parts) for parts in zip(*below, strict=True))
        address = node & _NODE_MASK
        again = seen.take(address)
        broken.append(tree[again])
        tree, low, high, node = tree[~again], low[~again], high[~again], node[~again]
    broken.append(tree)
    root, first, last, value = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((first, root))
    return MapleEntries(
        root[order], first[order], last[order], value[order], np.concatenate(unreadable), np.concatenate(broken)
    )


def _apart(raw: Raw, nowhere: Nowhere | None) -> tuple[Mask, Mask]:
    """Nodes that could not be read: which are missing, and which cannot be there."""
    lost = ~raw.valid
    astray = np.zeros(len(lost), np.bool_)
    if nowhere is not None and lost.any():
        astray[lost] = nowhere(raw.addr[lost])
    return lost & ~astray, astray


def _near(only: Stretches, entries: tuple[I32, U64, U64, U64]) -> tuple[I32, U64, U64, U64]:
    """Those of some ranges that touch the wanted ones."""
    tree, first, last, value = entries
    low, high = only.overlapping(tree, first >> _PAGE_SHIFT, last >> _PAGE_SHIFT)
    keep = high > low
    return tree[keep], first[keep], last[keep], value[keep]


def _decode(nodes: U8, shape: _NodeShape, low: U64, high: U64) -> tuple[U64, U64, U64, U64]:
    """Slots of nodes of one shape: ``(row, first, last, value)`` of each slot that holds something."""
    n = len(nodes)
    pivots = np.full((n, shape.nr_slots), _FULL)
    words = np.ascontiguousarray(nodes[:, shape.pivots_offset : shape.pivots_offset + 8 * shape.nr_pivots])
    pivots[:, : shape.nr_pivots] = words.view(np.uint64)
    slots = np.ascontiguousarray(nodes[:, shape.slots_offset : shape.slots_offset + 8 * shape.nr_slots])
    value = slots.view(np.uint64)
    # A zero pivot after the first slot means "up to the node's end" (ma_data_end()).
    pivots[:, 1:][pivots[:, 1:] == 0] = _FULL
    last = np.minimum(pivots, high[:, None])
    first = np.empty_like(last)
    first[:, 0] = low
    first[:, 1:] = last[:, :-1] + np.uint64(1)
    open_ = np.ones((n, shape.nr_slots), np.bool_)
    open_[:, 1:] = np.logical_and.accumulate(last[:, :-1] < high[:, None], axis=1)
    row, slot = np.nonzero(open_ & (value != 0) & (first <= last))
    return row, first[row, slot], last[row, slot], value[row, slot]  # type: ignore[return-value]
