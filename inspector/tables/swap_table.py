"""Swap slots as kernels from 6.18 on keep them: a word each in the swap table of their cluster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.columns import I64, U64, Mask
from inspector.layout.kernel import Layout
from inspector.tables.swap_devices import SwapDevices, records, slots_per_cluster

BAD = np.uint64(0xFFFFFFFFFFFFFFF8)
"""SWP_TB_BAD, mm/swap_table.h."""

_COUNT_SHIFT = np.uint64(60)
_COUNT_MAX = 15
"""SWP_TB_COUNT_BITS is 4 wherever a word has room for it: a count of 15 is continued in the extend table."""

_ZERO_FLAG = np.uint64(1 << 59)
_PIECE = 1024
"""Tables read at a time."""


@dataclass(frozen=True)
class TableSlots:
    """Slots of one device whose word is not 0.

    Attributes:
        offset: int64; ascending.
        word: uint64; as stored.
        count: int64; references, -1 where the extend table cannot be read.
        pfn: int64; page frame of the folio that holds the content, -1 for none.
        is_bad, is_zero: bool; never to be used; known to be filled with zeros and not on the device.
        whole: Whether all tables were read.
    """

    offset: I64
    word: U64
    count: I64
    pfn: I64
    is_bad: Mask
    is_zero: Mask
    whole: bool


def has_swap_table(layout: Layout) -> bool:
    """Whether this kernel keeps a table in each cluster."""
    return layout.has_struct("struct swap_cluster_info") and layout.struct("struct swap_cluster_info").has("table")


def read_tables(layout: Layout, devices: SwapDevices, row: int) -> TableSlots:
    """The slots in use of one device (mm/swap_table.h)."""
    struct, per = layout.struct("struct swap_cluster_info"), slots_per_cluster(layout)
    nr = -(-int(devices.max[row]) // per)
    tables, extended = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    extend_field = struct.find("extend_table")
    whole, seen = True, 0
    for _, raw, valid in records(layout, int(devices.cluster_info[row]), nr, struct.size):
        tables = np.concatenate([tables, struct.field("table").column(raw)])
        more = np.zeros(len(raw), np.uint64) if extend_field is None else extend_field.column(raw)
        extended = np.concatenate([extended, more])
        whole, seen = whole and bool(valid.all()), seen + len(raw)
    offset, word, all_read = _words(layout, tables, per)
    inside = offset < devices.max[row]
    offset, word = offset[inside], word[inside]
    bad = word == BAD
    flags = _flags_mask(layout)
    low = word & np.uint64(7)
    cached = (word & np.uint64(3)) == np.uint64(2)
    pfn = np.where(cached, ((word & ~flags) >> np.uint64(2)).astype(np.int64), -1)
    # The first kernels with tables (6.18) keep the folio's address.
    pointer = (low == 0) & ~bad
    pfn[pointer] = layout.memmap.pfns(word[pointer])
    count = np.where(bad | pointer, 0, (word >> _COUNT_SHIFT).astype(np.int64))
    full = np.flatnonzero(count == _COUNT_MAX)
    count[full] = _extended(layout, extended[offset[full] // per], offset[full] % per)
    zero = ((word & _ZERO_FLAG) != 0) & ~bad & ~pointer & (flags & _ZERO_FLAG != 0)
    return TableSlots(offset, word, count, pfn, bad, zero, whole and all_read and seen == nr)


def _flags_mask(layout: Layout) -> np.uint64:
    """Bits above page frame and shadow: the count, and the zero flag unless a bitmap of its own tells zeros."""
    zeros_elsewhere = layout.struct("struct swap_info_struct").has("zeromap")
    zeros_elsewhere |= layout.struct("struct swap_cluster_info").has("zero_bitmap")
    return np.uint64((0xF0 if zeros_elsewhere else 0xF8) << 56)


def _words(layout: Layout, tables: U64, per: int) -> tuple[I64, U64, bool]:
    """Offset and word of every slot that is not free."""
    used = np.flatnonzero(tables)
    offsets: list[I64] = [np.empty(0, np.int64)]
    words: list[U64] = [np.empty(0, np.uint64)]
    whole = True
    for at in range(0, len(used), _PIECE):
        part = used[at : at + _PIECE]
        raw = layout.memory.gather(tables[part], 8 * per)
        entries = raw.bytes.view(np.uint64).reshape(len(part), per)
        row, col = np.nonzero(entries)
        offsets.append(part[row] * per + col)
        words.append(entries[row, col])
        whole &= bool(raw.valid.all())
    return np.concatenate(offsets), np.concatenate(words), whole


def _extended(layout: Layout, tables: U64, place: I64) -> I64:
    """Counts that need more than four bits (swap_extend_table_alloc(), mm/swapfile.c)."""
    raw = layout.memory.gather(tables + place.astype(np.uint64) * np.uint64(4), 4)
    counts = raw.bytes.view(np.uint32).reshape(-1).astype(np.int64)
    return np.where(tables == 0, _COUNT_MAX, np.where(raw.valid, counts, -1))
