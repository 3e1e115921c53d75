"""Swap slots as kernels from 6.18 on keep them: a word each in the swap table of their cluster."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.swap_devices import SwapDevices, records, slots_per_cluster

BAD = np.uint64(0xFFFFFFFFFFFFFFF8)
"""SWP_TB_BAD, mm/swap_table.h."""

_COUNT_SHIFT = np.uint64(60)
COUNT_MAX = 15
"""SWP_TB_COUNT_BITS is 4 wherever a word has room for it: a count of 15 is continued in the extend table."""

_ZERO_FLAG = np.uint64(1 << 59)
_PIECE = 1024
"""Tables read at a time."""


@dataclass(frozen=True)
class TableSlots:
    """Slots of one device whose word, or whose entry in the extend table, is not 0.

    Attributes:
        offset: int64; ascending.
        word: uint64; as stored.
        count: int64; references, -1 where the extend table cannot be read.
        extended: int64; entry of the cluster's extend table, 0 where it has none, -1 where it cannot be read.
        pfn: int64; page frame of the folio that holds the content, -1 for none.
        is_bad, is_zero: bool; never to be used; known to be filled with zeros and not on the device.
        whole: Whether all tables were read.
    """

    offset: I64
    word: U64
    count: I64
    extended: I64
    pfn: I64
    is_bad: Mask
    is_zero: Mask
    whole: bool


def has_swap_table(layout: Layout) -> bool:
    """Whether this kernel keeps a table in each cluster."""
    return layout.has_struct("struct swap_cluster_info") and layout.struct("struct swap_cluster_info").has("table")


def read_tables(layout: Layout, devices: SwapDevices, row: int, span: range) -> TableSlots:
    """The slots in use of one device, in the clusters that a span of slots is in (mm/swap_table.h)."""
    struct, per = layout.struct("struct swap_cluster_info"), slots_per_cluster(layout)
    skip = span.start // per
    nr = -(-span.stop // per) - skip
    tables, extended = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    extend_field = struct.find("extend_table")
    whole, seen = True, 0
    for _, raw, valid in records(layout, int(devices.cluster_info[row]) + skip * struct.size, nr, struct.size):
        tables = np.concatenate([tables, struct.field("table").column(raw)])
        more = np.zeros(len(raw), np.uint64) if extend_field is None else extend_field.column(raw)
        extended = np.concatenate([extended, more])
        whole, seen = whole and bool(valid.all()), seen + len(raw)
    offset, word, extended_count, all_read = _words(layout, tables, extended, per)
    inside = offset + skip * per < devices.max[row]
    offset, word, extended_count = offset[inside], word[inside], extended_count[inside]
    bad = word == BAD
    flags = _flags_mask(layout)
    low = word & np.uint64(7)
    cached = (word & np.uint64(3)) == np.uint64(2)
    pfn = np.where(cached, ((word & ~flags) >> np.uint64(2)).astype(np.int64), -1)
    # The first kernels with tables (6.18) keep the folio's address.
    pointer = (low == 0) & ~bad & (word != 0)
    pfn[pointer] = layout.memmap.pfns(word[pointer])
    count = np.where(bad | pointer, 0, (word >> _COUNT_SHIFT).astype(np.int64))
    full = np.flatnonzero(count == COUNT_MAX)
    count[full] = np.where(extended[offset[full] // per] == 0, COUNT_MAX, extended_count[full])
    zero = ((word & _ZERO_FLAG) != 0) & ~bad & ~pointer & (flags & _ZERO_FLAG != 0)
    return TableSlots(
        offset + skip * per, word, count, extended_count, pfn, bad, zero, whole and all_read and seen == nr
    )


def _flags_mask(layout: Layout) -> np.uint64:
    """Bits above page frame and shadow: the count, and the zero flag unless zeros have a bitmap of their own."""
    zeros_elsewhere = layout.struct("struct swap_info_struct").has("zeromap")
    zeros_elsewhere |= layout.struct("struct swap_cluster_info").has("zero_bitmap")
    return np.uint64((0xF0 if zeros_elsewhere else 0xF8) << 56)


def _words(layout: Layout, tables: U64, extended: U64, per: int) -> tuple[I64, U64, I64, bool]:
    """Offset, word and entry in the extend table of every slot that is not free in both."""
    offset, word, lost = _nonzero(layout, tables, per, 8)
    more, count, gone = _nonzero(layout, extended, per, 4)
    both = np.union1d(offset, more)
    words, counts = np.zeros(len(both), np.uint64), np.zeros(len(both), np.int64)
    words[np.searchsorted(both, offset)] = word
    counts[np.searchsorted(both, more)] = count.astype(np.int64)
    counts[np.isin(both // per, gone)] = -1
    return both, words, counts, not len(lost)


def _nonzero(layout: Layout, tables: U64, per: int, size: int) -> tuple[I64, U64, I64]:
    """Offset and value of every entry of ``size`` bytes that is not 0, and the clusters whose table is unreadable."""
    used = np.flatnonzero(tables)
    offsets: list[I64] = [np.empty(0, np.int64)]
    words: list[U64] = [np.empty(0, np.uint64)]
    lost: list[I64] = [np.empty(0, np.int64)]
    for at in range(0, len(used), _PIECE):
        part = used[at : at + _PIECE]
        raw = layout.memory.gather(tables[part], size * per)
        entries = raw.bytes.view(np.dtype(f"<u{size}")).reshape(len(part), per)
        row, col = np.nonzero(entries)
        offsets.append(part[row] * per + col)
        words.append(entries[row, col].astype(np.uint64))
        lost.append(part[~raw.valid])
    return np.concatenate(offsets), np.concatenate(words), np.concatenate(lost)
