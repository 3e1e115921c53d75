"""XArrays and IDRs (lib/xarray.c) of many owners walked together, one gather a level."""

from __future__ import annotations

import time

import drgn
import numpy as np

from inspector.columns import I32, U8, U64, AnyArray, Mask, Table
from inspector.layout.offsets import Struct
from inspector.memory import Memory
from inspector.records import dataclass

_MAX_DEPTH = 12
_PIECE = 1 << 10
"""Nodes looked into together: temporaries are bounded, however many there are."""
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
    found: list[tuple[I32, U64, U64, U64]] = []
    unreadable: list[I32] = []
    broken: list[I32] = []
    tree = np.arange(len(heads), dtype=np.int32)
    node_mask = _is_node(heads)
    single = ~node_mask & (heads != 0)
    zero = np.zeros(int(single.sum()), np.uint64)
    found.append((tree[single], zero, zero + np.uint64(1), heads[single]))
    tree = tree[node_mask]
    level = _Nodes(tree, heads[node_mask], np.zeros(len(tree), np.uint64), np.full(len(tree), 127, np.uint8))
    deadline = memory.deadline()
    for _ in range(_MAX_DEPTH):
        below = [_Nodes.empty()]
        for at in range(0, len(level), _PIECE):
            if time.monotonic() > deadline:
                unreadable.append(level.tree[at:])
                break
            entries, children, lost, damaged = _look_into(struct, memory, level.take(slice(at, at + _PIECE)), only)
            found.append(entries)
            below.append(children)
            unreadable.append(lost)
            broken.append(damaged)
        level = _Nodes.concat(below)
        if not len(level):
            break
    broken.append(level.tree)
    none = np.empty(0, np.int32)
    return XArrayEntries(*_in_order(found), np.concatenate([*unreadable, none]), np.concatenate([*broken, none]))


@dataclass(frozen=True, slots=True)
class _Nodes(Table):
    """Nodes of one level.

    Attributes:
        tree: int32; row of the array.
        node: uint64; as stored in the parent.
        base: uint64; first index below the node.
        above: uint8; shift of its parent.
    """

    tree: I32
    node: U64
    base: U64
    above: U8


def _look_into(
    struct: Struct, memory: Memory, nodes: _Nodes, only: tuple[int, int] | None
) -> tuple[tuple[I32, U64, U64, U64], _Nodes, I32, I32]:
    """What some nodes hold: entries and further nodes; and the arrays with nodes unread, and with nodes damaged."""
    raw = memory.gather(nodes.node & np.uint64(~3 & 0xFFFFFFFFFFFFFFFF), struct.size)
    shift = struct.field("shift").column(raw.bytes)
    # Shifts fall strictly from level to level, which is what makes a walk of a damaged array end.
    sane = raw.valid & (shift < nodes.above) & (shift % 6 == 0)
    lost, damaged = nodes.tree[~raw.valid], nodes.tree[raw.valid & ~sane]
    tree, base, shift = nodes.tree[sane], nodes.base[sane], shift[sane]
    slots = struct.field("slots").matrix(raw.bytes[sane]).view(np.uint64)
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
    below = _Nodes(tree[row[child]], value[child], index[child], shift[row[child]])
    return (tree[row[leaf]], index[leaf], span[leaf], value[leaf]), below, lost, damaged


def _in_order(found: list[tuple[I32, U64, U64, U64]]) -> tuple[I32, U64, U64, U64]:
    """The parts as columns, ordered by array, then index; each part is given up when its column is made."""
    roots, indices, spans, values = (list(column) for column in zip(*found, strict=True))
    found.clear()

    def joined(parts: list[AnyArray]) -> AnyArray:
        column = np.concatenate(parts)
        parts.clear()
        return column

    root, index = joined(roots), joined(indices)
    order = np.lexsort((index, root))
    root = root[order]
    index = index[order]
    return root, index, joined(spans)[order], joined(values)[order]


_MARKS = 3
"""Marks that an entry may have (XA_MAX_MARKS)."""
_FLAG_BITS = 24
"""Below what the flags of an array have for the mark of its only entry: XA_FLAGS_MARK() begins above all GFP flags."""


def read_marks(prog: drgn.Program, memory: Memory, arrays: U64, flags: AnyArray, index: U64) -> tuple[U8, Mask]:
    """The marks of one entry each (xas_get_mark()).

    Args:
        prog: For struct xa_node.
        memory: For the nodes.
        arrays: uint64[n]; the ``xa_head`` word of the array of each.
        flags: [n]; its ``xa_flags``. An array of one entry has no node, and the entry's mark is in there, above the GFP
            flags, whose number is in no type: any bit up there counts as each of the marks.
        index: uint64[n]; first index of the entry.

    Returns:
        uint8[n], bit i for mark i; and which are known: the entry was found.
    """
    struct = Struct(prog, "struct xa_node")
    place = struct.field("marks")
    marks, known = np.zeros(len(arrays), np.uint8), np.zeros(len(arrays), np.bool_)
    single = (arrays != 0) & ~_is_node(arrays)
    known[single] = index[single] == 0
    marks[single & ((flags.astype(np.uint64) >> np.uint64(_FLAG_BITS)) != 0)] = (1 << _MARKS) - 1
    rows, node = np.flatnonzero(_is_node(arrays)), arrays[_is_node(arrays)]
    above = np.full(len(rows), 127, np.uint8)
    while len(rows):
        raw = memory.gather(node & np.uint64(~3 & 0xFFFFFFFFFFFFFFFF), struct.size)
        shift = struct.field("shift").column(raw.bytes)
        sane = raw.valid & (shift < above) & (shift % 6 == 0)
        rows, shift, data = rows[sane], shift[sane], raw.bytes[sane]
        slots = struct.field("slots").matrix(data).view(np.uint64)
        at = ((index[rows] >> shift.astype(np.uint64)) & np.uint64(slots.shape[1] - 1)).astype(np.int64)
        line = np.arange(len(rows))
        entry = slots[line, at]
        # A sibling names the slot of its entry.
        sibling = ((entry & np.uint64(3)) == _INTERNAL) & (entry < np.uint64(_SIBLING_MAX << np.uint64(2)))
        at[sibling] = (entry[sibling] >> np.uint64(2)).astype(np.int64)
        entry = slots[line, at]
        down = _is_node(entry) & (shift > 0)
        leaf = ~down & (entry != 0)
        words = np.ascontiguousarray(data[:, place.offset : place.offset + place.size]).view(np.uint64)
        words = words.reshape(len(rows), _MARKS, place.size // 8 // _MARKS)
        for mark in range(_MARKS):
            bit = (words[line, mark, at // 64] >> (at % 64).astype(np.uint64)) & np.uint64(1)
            marks[rows[leaf]] |= bit[leaf].astype(np.uint8) << np.uint8(mark)
        known[rows[leaf]] = True
        rows, node, above = rows[down], entry[down], shift[down]
    return marks, known
