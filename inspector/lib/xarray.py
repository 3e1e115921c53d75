"""XArrays and IDRs (lib/xarray.c) of many owners walked together, one gather a level."""

from __future__ import annotations

import time

import drgn
import numpy as np

from inspector.columns import I32, U64, Mask
from inspector.layout.offsets import Struct
from inspector.memory import Memory
from inspector.records import dataclass

_MAX_DEPTH = 12
_INTERNAL = np.uint64(2)
_SIBLING_MAX = np.uint64(63)
"""Siblings name a slot below this one: the last slot may repeat the one before it (xa_is_sibling())."""
_RETRY = np.uint64((256 << 2) | 2)
_ZERO = np.uint64((257 << 2) | 2)


@dataclass(frozen=True)
class XArrayEntries:
    """What the arrays hold.

    Attributes:
        root: int32[n]; row of the array.
        index: uint64[n]; first index of the entry.
        nr: uint64[n]; indices it covers: a power of two.
        value: uint64[n]; a pointer, or a value entry (low bit set).
        unreadable, broken: int32[k]; arrays with nodes that could not be read, or that made no sense.
    """

    root: I32
    index: U64
    nr: U64
    value: U64
    unreadable: I32
    broken: I32


def _is_node(entry: U64) -> Mask:
    return ((entry & np.uint64(3)) == _INTERNAL) & (entry > np.uint64(4096))


def walk_xarrays(prog: drgn.Program, memory: Memory, heads: U64, only: tuple[int, int] | None = None) -> XArrayEntries:
    """All entries of all arrays, ordered by array, then index.

    Sibling entries are folded into the entry they belong to. Reserved internal entries (retry, zero) are left out.

    Args:
        prog: For struct xa_node.
        memory: For the nodes.
        heads: uint64[n]; the ``xa_head`` word of each array.
        only: First and last index that are wanted: no node beside them is read. None for all.
    """
    struct = Struct(prog, "struct xa_node")
    shift_field, slots_field = struct.field("shift"), struct.field("slots")
    found: list[tuple[I32, U64, U64, U64]] = []
    unreadable: list[I32] = []
    broken: list[I32] = []
    tree = np.arange(len(heads), dtype=np.int32)
    node_mask = _is_node(heads)
    single = ~node_mask & (heads != 0)
    zero = np.zeros(int(single.sum()), np.uint64)
    found.append((tree[single], zero, zero + np.uint64(1), heads[single]))
    tree, node = tree[node_mask], heads[node_mask]
    base = np.zeros(len(node), np.uint64)
    above = np.full(len(node), 127, np.uint8)
    deadline = memory.deadline()
    for _ in range(_MAX_DEPTH):
        if time.monotonic() > deadline:
            unreadable.append(tree)
            tree, node = tree[:0], node[:0]
        if not len(node):
            break
        raw = memory.gather(node & np.uint64(~3 & 0xFFFFFFFFFFFFFFFF), struct.size)
        shift = shift_field.column(raw.bytes)
        # Shifts fall strictly from level to level, which is what makes a walk of a damaged array end.
        sane = raw.valid & (shift < above) & (shift % 6 == 0)
        unreadable.append(tree[~raw.valid])
        broken.append(tree[raw.valid & ~sane])
        tree, base, shift = tree[sane], base[sane], shift[sane]
        slots = slots_field.matrix(raw.bytes[sane]).view(np.uint64)
        width = slots.shape[1]
        internal = (slots & np.uint64(3)) == _INTERNAL
        sibling = internal & (slots < np.uint64(_SIBLING_MAX << np.uint64(2)))
        row, col = np.nonzero((slots != 0) & ~sibling)
        value = slots[row, col]
        index = base[row] + (col.astype(np.uint64) << shift[row].astype(np.uint64))
        # An entry of higher order repeats itself as siblings in the slots that follow.
        following = np.zeros((len(slots), width + 1), np.int64)
        for at in range(width - 1, -1, -1):
            following[:, at] = np.where(sibling[:, at], following[:, at + 1] + 1, 0)
        span = (following[row, col + 1] + 1).astype(np.uint64) << shift[row].astype(np.uint64)
        if only is not None:
            near = (index <= np.uint64(only[1])) & (index + span > np.uint64(only[0]))
            row, value, index, span = row[near], value[near], index[near], span[near]
        child = _is_node(value) & (shift[row] > 0)
        leaf = ~child & (value != _RETRY) & (value != _ZERO)
        found.append((tree[row[leaf]], index[leaf], span[leaf], value[leaf]))
        above = shift[row[child]]
        tree, base, node = tree[row[child]], index[child], value[child]
    broken.append(tree if len(node) else tree[:0])
    root, index, nr, value = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((index, root))
    return XArrayEntries(
        root[order],
        index[order],
        nr[order],
        value[order],
        np.concatenate([*unreadable, tree[:0]]),
        np.concatenate(broken),
    )
