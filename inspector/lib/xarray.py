"""XArrays and IDRs (lib/xarray.c) of many owners walked together, one gather a level."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import drgn
import numpy as np

from inspector.columns import I32, I64, U8, U64, AnyArray, Mask, Table, distinct, expand_runs
from inspector.layout.offsets import Struct
from inspector.memory import Memory
from inspector.records import dataclass

_MAX_DEPTH = 12
_ABOVE_LOWEST = np.uint8(6)
"""Shift of the parents of nodes of the lowest level; theirs is less."""
_ENTRIES = 1 << 15
"""Entries of a piece, or a few more."""
_KEPT = 1 << 17
"""So many entries are kept; of more each piece is read again when it is wanted."""
_PIECE = 1 << 9
"""Nodes looked into together: temporaries are bounded, however many there are."""
_INTERNAL = np.uint64(2)
_SIBLING_MAX = np.uint64(63)
"""Siblings name a slot below this one: the last slot may repeat the one before it (xa_is_sibling())."""
_RETRY = np.uint64((256 << 2) | 2)
_ZERO = np.uint64((257 << 2) | 2)


@dataclass(frozen=True, slots=True)
class XArrayEntries(Table):
    """What arrays hold.

    Attributes:
        root: int32; row of the array.
        index: uint64; first index of the entry.
        nr: uint64; indices it covers: a power of two.
        value: uint64; a pointer, or a value entry (low bit set).
    """

    root: I32
    index: U64
    nr: U64
    value: U64


def _is_node(entry: U64) -> Mask:
    return ((entry & np.uint64(3)) == _INTERNAL) & (entry > np.uint64(4096))


@dataclass(frozen=True, slots=True)
class _Holders(Table):
    """What holds entries, ordered by array and index: nodes of the lowest level, and single entries of all others.

    Attributes:
        root: int32; row of the array.
        index: uint64; of the entry, or the first that the node may hold.
        word: uint64; the entry, or the node as stored in its parent.
        nr: uint64; indices that the entry covers, 0 for a node.
        count: uint8; entries.
    """

    root: I32
    index: U64
    word: U64
    nr: U64
    count: U8


class XArrays:
    """Arrays that were walked once. Their entries are kept where they are few, and else read again, some at a time.

    Of each node of the lowest level, which holds up to 64 entries, a row is kept.

    Attributes:
        unreadable, broken: int32[k]; arrays with nodes that could not be read, or that made no sense.
        length: How many entries there are.
    """

    def __init__(self, read: Callable[[_Nodes], _Found], holders: _Holders, unreadable: I32, broken: I32) -> None:
        self._read, self._holders = read, holders
        self.unreadable, self.broken = unreadable, broken
        counts = holders.count.astype(np.int64)
        ends = np.cumsum(counts)
        self.length = int(ends[-1]) if len(ends) else 0
        self._kept: XArrayEntries | None = None
        # A piece ends with the holder in which it gets its last entry.
        last = np.searchsorted(ends, np.arange(_ENTRIES, self.length + _ENTRIES, _ENTRIES))
        cuts = distinct(np.minimum(last + 1, len(holders)))
        self._cuts = np.concatenate([np.zeros(1, np.int64), cuts])
        self._rows = np.concatenate([np.zeros(1, np.int64), ends[cuts - 1]]) if len(cuts) else np.zeros(1, np.int64)

    def keep(self, entries: list[XArrayEntries]) -> None:
        """Keep all entries, given in any order."""
        self._kept = _in_order(entries)

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return len(self._cuts) - 1

    def start(self, piece: int) -> int:
        """How many entries are before a piece."""
        return int(self._rows[piece])

    def piece_of(self, rows: I64) -> I64:
        """Which piece each entry is in, by its number."""
        return np.searchsorted(self._rows, rows, "right") - 1

    def pieces_of(self, roots: AnyArray) -> I64:
        """Pieces that have entries of some arrays, ascending."""
        first, last = (np.searchsorted(self._holders.root, roots, side) for side in ("left", "right"))
        some = last > first
        low, high = (np.searchsorted(self._cuts, at[some], "right") - 1 for at in (first, last - 1))
        return distinct(expand_runs(low, high - low + 1).astype(np.int64))

    def piece(self, number: int) -> XArrayEntries:
        """The entries of a piece, ordered by array, then index. Where the kernel runs on there may be fewer by now."""
        if self._kept is not None:
            return self._kept.take(slice(self._rows[number], self._rows[number + 1]))
        some = self._holders.take(slice(self._cuts[number], self._cuts[number + 1]))
        single, nodes = some.take(np.flatnonzero(some.nr > 0)), some.take(np.flatnonzero(some.nr == 0))
        found = [XArrayEntries(single.root, single.index, single.nr, single.word)]
        lowest = _Nodes(nodes.root, nodes.word, nodes.index, np.full(len(nodes), _ABOVE_LOWEST, np.uint8))
        found += [self._read(lowest.take(slice(at, at + _PIECE))).entries for at in range(0, len(nodes), _PIECE)]
        return _in_order(found)

    def all(self) -> XArrayEntries:
        """Every entry at once."""
        return XArrayEntries.concat([XArrayEntries.empty(), *(self.piece(number) for number in range(self.pieces))])


def walk_xarrays(
    prog: drgn.Program,
    memory: Memory,
    heads: U64,
    only: tuple[int, int] | None = None,
    look: Callable[[XArrayEntries], None] = lambda _: None,
) -> XArrays:
    """Walk arrays.

    Sibling entries are folded into the entry they belong to. Reserved internal entries (retry, zero) are left out.

    Args:
        prog: For struct xa_node.
        memory: For the nodes.
        heads: uint64[n]; the ``xa_head`` word of each array.
        only: First and last index that are wanted: no node beside them is read. None for all.
        look: Sees all entries, some at a time, in no order.
    """
    struct = Struct(prog, "struct xa_node")
    unreadable: list[I32] = []
    broken: list[I32] = []
    kept: list[XArrayEntries] | None = []
    holders = [_Holders.empty()]
    nr_kept = 0

    def read(nodes: _Nodes) -> _Found:
        return _look_into(struct, memory, nodes, only)

    def take(some: XArrayEntries) -> None:
        nonlocal kept, nr_kept
        look(some)
        nr_kept += len(some)
        if nr_kept > _KEPT:
            kept = None
        if kept is not None:
            kept.append(some)

    tree = np.arange(len(heads), dtype=np.int32)
    node_mask = _is_node(heads)
    single = ~node_mask & (heads != 0)
    zero = np.zeros(int(single.sum()), np.uint64)
    alone = XArrayEntries(tree[single], zero, zero + np.uint64(1), heads[single])
    take(alone)
    holders.append(_single(alone))
    tree = tree[node_mask]
    level = _Nodes(tree, heads[node_mask], np.zeros(len(tree), np.uint64), np.full(len(tree), 127, np.uint8))
    deadline = memory.deadline()
    for _ in range(_MAX_DEPTH):
        below = [_Nodes.empty()]
        for at in range(0, len(level), _PIECE):
            if time.monotonic() > deadline:
                unreadable.append(level.tree[at:])
                break
            found = read(level.take(slice(at, at + _PIECE)))
            take(found.entries)
            holders += [found.lowest, _single(found.above_lowest)]
            below.append(found.below)
            unreadable.append(found.lost)
            broken.append(found.damaged)
        level = _Nodes.concat(below)
        if not len(level):
            break
    broken.append(level.tree)
    none = np.empty(0, np.int32)
    every = _Holders.concat(holders)
    holders.clear()
    every = every.take(np.lexsort((every.index, every.root)))
    arrays = XArrays(read, every, np.concatenate([*unreadable, none]), np.concatenate([*broken, none]))
    if kept is not None:
        arrays.keep(kept)
    return arrays


def _single(entries: XArrayEntries) -> _Holders:
    return _Holders(entries.root, entries.index, entries.value, entries.nr, np.ones(len(entries), np.uint8))


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


class _Found(NamedTuple):
    """What some nodes hold.

    Attributes:
        entries: All entries.
        lowest: The nodes of the lowest level that have any.
        above_lowest: The entries of the others.
        below: Further nodes.
        lost, damaged: Arrays with nodes unread, and with nodes that make no sense.
    """

    entries: XArrayEntries
    lowest: _Holders
    above_lowest: XArrayEntries
    below: _Nodes
    lost: I32
    damaged: I32


def _look_into(struct: Struct, memory: Memory, nodes: _Nodes, only: tuple[int, int] | None) -> _Found:
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
    row, index, span, value = row[leaf], index[leaf], span[leaf], value[leaf]
    entries, high = XArrayEntries(tree[row], index, span, value), shift[row] > 0
    count = np.bincount(row[~high], minlength=len(tree))
    some = count > 0
    # A node of the lowest level holds no nodes: all that is in it is found where it is read again.
    lowest = _Holders(
        tree[some],
        base[some],
        nodes.node[sane][some],
        np.zeros(int(some.sum()), np.uint64),
        count[some].astype(np.uint8),
    )
    return _Found(entries, lowest, entries.take(np.flatnonzero(high)), below, lost, damaged)


def _in_order(found: list[XArrayEntries]) -> XArrayEntries:
    """The parts as columns, ordered by array, then index; each part is given up when its column is made."""
    roots, indices, spans, values = (
        [getattr(part, name) for part in found] for name in ("root", "index", "nr", "value")
    )
    found.clear()

    def joined(parts: list[AnyArray]) -> AnyArray:
        column = np.concatenate(parts)
        parts.clear()
        return column

    root, index = joined(roots), joined(indices)
    order = np.lexsort((index, root))
    root = root[order]
    index = index[order]
    return XArrayEntries(root, index, joined(spans)[order], joined(values)[order])


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
