"""Swap slots of all devices: references, and the folio of the swap cache that holds the content of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.columns import I64, U8, U64, Mask, Table, distinct, expand_runs, rows_of
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.files import Files
from inspector.tables.swap_devices import (
    SwapDevices,
    build_devices,
    entry_offsets,
    entry_types,
    slots_per_cluster,
    swap_entries,
)
from inspector.tables.swap_map import BAD, HAS_CACHE, SHMEM, read_map, slot_cache_entries
from inspector.tables.swap_table import has_swap_table, read_tables


@dataclass(frozen=True, slots=True)
class SwapSlots(Table):
    """One row a slot that is in use, bad, cached or referred to, ordered by device and offset.

    Attributes:
        entry: uint64; swap type and offset as one (swp_entry_t).
        device_idx: int64; row of the device.
        offset: int64.
        raw: uint64; the swap_map byte, or the word of the swap table; 0 for a free slot.
        count: int64; references as stored, continuations added; -1 when they cannot be read, 0 for shmem's before 6.18.
        extended: int64; the slot's entry in the extend table of its cluster, 0 where there is none, -1 unreadable.
        is_bad: bool; never to be used.
        is_shmem: bool; owned by shmem, without a count (SWAP_MAP_SHMEM).
        has_cache: bool; marked as in the swap cache (SWAP_HAS_CACHE, or the table names a folio).
        cache_pfn: int64; page frame of the folio there, -1 for none.
        set_aside: bool; in a CPU's own cache of slots.
        is_zero: bool; filled with zeros, by the flag in the swap table.
    """

    entry: U64
    device_idx: I64
    offset: I64
    raw: U64
    count: I64
    extended: I64
    is_bad: Mask
    is_shmem: Mask
    has_cache: Mask
    cache_pfn: I64
    set_aside: Mask
    is_zero: Mask

    @property
    def in_use(self) -> Mask:
        """Slots that are neither free nor bad."""
        return (self.raw != 0) & ~self.is_bad


@dataclass(frozen=True)
class Swap:
    """Everything about swap.

    Attributes:
        devices, slots: The tables.
        whole: bool by device; whether all of its slots were read.
        counts_shmem: Whether a slot's count includes shmem's reference (swap table).
        unreadable: Devices of which something could not be read.
    """

    devices: SwapDevices
    slots: SwapSlots
    whole: Mask
    counts_shmem: bool
    unreadable: int


def build_swap(layout: Layout, files: Files, referred: U64, one: tuple[int, int] | None = None) -> Swap:
    """Read all slots (mm/swapfile.c, mm/swap_state.c).

    Args:
        layout: The kernel's layout.
        files: Where kernels before 6.18 keep the swap cache.
        referred: uint64; entries that get a row although their slot is free, such as those in page tables.
        one: Swap type and offset of the only slot that is wanted: no more than its cluster is read. None for all.
    """
    devices = build_devices(layout)
    tables = has_swap_table(layout)
    cached, cached_pfn = _cached(files, 1 << layout.pmd_order)
    aside = np.unique(slot_cache_entries(layout)[0])
    whole = devices.readable.copy()
    parts = [SwapSlots.empty()]
    for row in np.flatnonzero(devices.type_ == one[0]).tolist() if one else range(len(devices)):
        span = _span(layout, devices, row, one)
        part, whole[row] = _device_slots(layout, devices, row, np.concatenate([cached, aside, referred]), span)
        parts.append(part)
    slots = SwapSlots.concat(parts)
    at = rows_of(cached, slots.entry)
    slots.cache_pfn[at >= 0] = cached_pfn[at[at >= 0]]
    counts_shmem = tables and not layout.struct("struct swap_info_struct").has("swap_map")
    slots = replace(slots, set_aside=rows_of(aside, slots.entry) >= 0)
    return Swap(devices, slots, whole, counts_shmem, int((~whole & devices.may_be_used).sum()))


def _cached(files: Files, most: int) -> tuple[U64, I64]:
    """Each slot that a swapper address_space has a folio for, and that folio.

    Until 6.11 the index is the offset, since then what is left of it in its address_space. The space's first slot
    distinguishes both.
    """
    spaces, entries = files.address_spaces, files.swap_cache
    space = entries.address_space_idx
    nr = np.minimum(entries.nr, most)
    index = expand_runs(entries.index, nr).astype(np.int64)
    first, pfn = np.repeat(spaces.first_slot[space], nr), np.repeat(entries.pfn, nr)
    inside = index - first
    offset = np.where((inside >= 0) & (inside < (1 << 14)), index, first + index)
    entry, keep = np.unique(swap_entries(np.repeat(spaces.swap_type[space], nr), offset), return_index=True)
    return entry, pfn[keep]


def _span(layout: Layout, devices: SwapDevices, row: int, one: tuple[int, int] | None) -> range:
    """The slots of a device to read: all, or the cluster of one."""
    slots, per = range(int(devices.max[row])), slots_per_cluster(layout)
    return slots if one is None else slots[one[1] - one[1] % per :][:per]


def _device_slots(layout: Layout, devices: SwapDevices, row: int, others: U64, span: range) -> tuple[SwapSlots, bool]:
    """The slots of one device that are in a span of them, and whether all of them were read."""
    mine = others[entry_types(others) == devices.type_[row]]
    largest = int(devices.max[row]) if devices.in_use[row] else 0
    offsets = [entry_offsets(mine)]
    in_map = read_map(layout, devices, row, span) if devices.swap_map[row] and largest else None
    in_table = None
    if largest and devices.cluster_info[row] and has_swap_table(layout):
        in_table = read_tables(layout, devices, row, span)
    offsets += [part.offset for part in (in_map, in_table) if part is not None]
    offset = distinct(np.concatenate(offsets))
    offset = offset[(offset >= span.start) & (offset < min(span.stop, largest))]
    slots = _blank(devices, row, offset)
    if in_table is not None:
        at = np.searchsorted(offset, in_table.offset)
        slots.raw[at], slots.count[at], slots.cache_pfn[at] = in_table.word, in_table.count, in_table.pfn
        slots.extended[at] = in_table.extended
        slots.is_bad[at], slots.is_zero[at], slots.has_cache[at] = in_table.is_bad, in_table.is_zero, in_table.pfn >= 0
    if in_map is not None:
        at = np.searchsorted(offset, in_map.offset)
        plain = in_map.byte & np.uint8(~HAS_CACHE & 0xFF)
        slots.raw[:], slots.count[:] = 0, 0
        slots.raw[at], slots.count[at] = in_map.byte, in_map.count
        slots.is_bad[at], slots.is_shmem[at] = plain == BAD, plain == SHMEM
        slots.has_cache[at] |= (in_map.byte & HAS_CACHE) != 0
    read = [part.whole for part in (in_map, in_table) if part is not None]
    return slots, bool(devices.readable[row]) and (not largest or (len(read) > 0 and all(read)))


def _blank(devices: SwapDevices, row: int, offset: I64) -> SwapSlots:
    n = len(offset)

    def no() -> Mask:
        return np.zeros(n, np.bool_)

    types: U8 = np.full(n, devices.type_[row], np.uint8)
    return SwapSlots(
        entry=swap_entries(types, offset),
        device_idx=np.full(n, row, np.int64),
        offset=offset,
        raw=np.zeros(n, np.uint64),
        count=np.zeros(n, np.int64),
        extended=np.zeros(n, np.int64),
        is_bad=no(),
        is_shmem=no(),
        has_cache=no(),
        cache_pfn=np.full(n, -1, np.int64),
        set_aside=no(),
        is_zero=no(),
    )
