"""Swap slots as kernels before 6.18 keep them: a byte each in swap_map, with more digits chained behind its pages."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U8, U64, Mask
from inspector.errors import LayoutError
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.swap_devices import SwapDevices, entry_offsets, entry_types, records
from inspector.tables.vmalloc import vmalloc_pfns

HAS_CACHE, CONTINUED = 0x40, 0x80
BAD, SHMEM = 0x3F, 0xBF
"""Values and bits of a swap_map byte (include/linux/swap.h)."""

_COUNT = 0x3F
_BASE, _DIGIT = 0x3F, 0x80
"""What the first further digit is worth, and how much more each one after it (mm/swapfile.c, swp_swapcount())."""

_MAX_DIGITS = 5
"""Digits that a count of 31 bits can have."""

_BATCH = 64
"""Entries of a per-CPU slot cache (SWAP_SLOTS_CACHE_SIZE, include/linux/swap_slots.h)."""


@dataclass(frozen=True)
class MapSlots:
    """Slots of one device whose byte is not 0.

    Attributes:
        offset: int64; ascending.
        byte: uint8; as stored.
        count: int64; references, -1 where a digit cannot be read.
        whole: Whether all of the map was read.
    """

    offset: I64
    byte: U8
    count: I64
    whole: bool


def read_map(layout: Layout, devices: SwapDevices, row: int, span: range) -> MapSlots:
    """The slots in use of one device, among a span of them."""
    start = int(devices.swap_map[row])
    offsets: list[I64] = [np.empty(0, np.int64)]
    found: list[U8] = [np.empty(0, np.uint8)]
    seen = 0
    for at, raw, valid in records(layout, start + span.start, len(span), 1):
        used = np.flatnonzero(raw[:, 0])
        offsets.append(span.start + at + used)
        found.append(raw[used, 0])
        seen += int(valid.sum())
    offset, byte = np.concatenate(offsets), np.concatenate(found)
    plain = byte & np.uint8(~HAS_CACHE & 0xFF)
    count = (byte & np.uint8(_COUNT)).astype(np.int64)
    count[(plain == BAD) | (plain == SHMEM)] = 0
    more = np.flatnonzero(((byte & CONTINUED) != 0) & (plain != SHMEM))
    if len(more):
        count[more] = _with_digits(layout, np.uint64(start) + offset[more].astype(np.uint64), count[more])
    return MapSlots(offset, byte, count, seen == len(span))


def _with_digits(layout: Layout, addrs: U64, count: I64) -> I64:
    """Counts with the digits that add_swap_count_continuation() chained behind the pages of the map."""
    memmap, struct = layout.memmap, layout.struct("struct page")
    link = struct.field("lru").offset
    inside = addrs & np.uint64((1 << memmap.page_shift) - 1)
    pfn = vmalloc_pfns(layout, addrs)
    out, going, worth = count.copy(), np.ones(len(addrs), np.bool_), np.int64(_BASE)
    for _ in range(_MAX_DIGITS):
        following, known = layout.memory.words(memmap.page_addrs(pfn) + np.uint64(link))
        pfn = memmap.pfns(following - np.uint64(link))
        where = (np.maximum(pfn, 0).astype(np.uint64) << np.uint64(memmap.page_shift)) + inside
        raw = layout.memory.gather(where, 1, physical=True)
        lost = going & ~(known & raw.valid & (pfn >= 0))
        out[lost] = -1
        going &= ~lost
        digit = raw.bytes[:, 0]
        out[going] += (digit[going] & np.uint8(_DIGIT - 1)).astype(np.int64) * worth
        going &= (digit & np.uint8(CONTINUED)) != 0
        worth *= _DIGIT
        pfn = np.maximum(pfn, 0)
        if not going.any():
            break
    out[going] = -1
    return out


def slot_cache_entries(layout: Layout) -> tuple[U64, Mask]:
    """Slots that CPUs set aside for themselves (mm/swap_slots.c, swp_slots): marked cached without a folio.

    Returns:
        ``(entries, free)``: the entries, and which of them wait to be given back.
    """
    start = layout.target.symbol("swp_slots")
    if not layout.config.has("SWAP") or not layout.has_struct("struct swap_slots_cache"):
        return np.empty(0, np.uint64), np.empty(0, np.bool_)
    if start is None:
        raise LayoutError("the kernel has no symbol swp_slots")
    struct = layout.struct("struct swap_slots_cache")
    raw = layout.memory.gather(np.uint64(start) + layout.per_cpu_offsets, struct.size)
    data = raw.bytes[raw.valid]
    first = struct.field("cur").column(data).astype(np.int64)
    kept = _taken(layout, struct.field("slots").column(data), first, struct.field("nr").column(data).astype(np.int64))
    none = np.zeros(len(data), np.int64)
    back = _taken(layout, struct.field("slots_ret").column(data), none, struct.field("n_ret").column(data))
    return np.concatenate([kept, back]), np.repeat([False, True], [len(kept), len(back)])


def _taken(layout: Layout, arrays: U64, first: I64, nr: I64) -> U64:
    raw = layout.memory.gather(arrays, 8 * _BATCH)
    entries = raw.bytes.view(np.uint64).reshape(len(arrays), _BATCH)
    place = np.arange(_BATCH)[None, :]
    keep = (place >= first[:, None]) & (place < (first + nr)[:, None]) & (raw.valid & (arrays != 0))[:, None]
    found: U64 = entries[keep]
    return found[(entry_types(found) < 32) & (entry_offsets(found) > 0)]
