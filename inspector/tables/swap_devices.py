"""Swap devices and files: what was given to swapon() and how much of it is in use."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.columns import I32, I64, U8, U64, Mask, Table
from inspector.errors import LayoutError
from inspector.layout.kernel import Layout
from inspector.memory import CHUNK, HOLE
from inspector.records import dataclass
from inspector.tables.locks import held

SWP_USED, SWP_WRITEOK, SWP_BLKDEV, SWP_SYNCHRONOUS_IO, SWP_HIBERNATION = 1 << 0, 1 << 1, 1 << 6, 1 << 12, 1 << 13
"""Flags of a device (include/linux/swap.h), the same from 6.1 to 7.3 where they exist."""

TYPE_SHIFT = np.uint64(58)
"""SWP_TYPE_SHIFT, include/linux/swapops.h: an entry is its type above, its offset below this bit."""

_OFFSET = (1 << 58) - 1
_OFF_LIST = 1 << 62
"""SWAP_USAGE_OFFLIST_BIT, mm/swapfile.c: the device is on no list of available ones (6.13 and later)."""


@dataclass(frozen=True, slots=True)
class SwapDevices(Table):
    """One row a swap_info_struct, ordered by swap type.

    Attributes:
        type_: uint8; number in swap entries.
        addr: uint64.
        flags: uint64; SWP_ bits. A device that was turned off keeps its struct without SWP_USED.
        prio: int32.
        max: int64; slots, the header and bad ones included.
        pages: int64; slots that can be used.
        inuse: int64; inuse_pages: slots in use.
        swap_map, cluster_info: uint64; arrays, 0 where there is none.
        swap_file, bdev: uint64; struct file, struct block_device.
        locked: bool; its lock or one of its clusters' is held: it may be half changed.
        readable: bool.
    """

    type_: U8
    addr: U64
    flags: U64
    prio: I32
    max: I64
    pages: I64
    inuse: I64
    swap_map: U64
    cluster_info: U64
    swap_file: U64
    bdev: U64
    locked: Mask
    readable: Mask

    @property
    def in_use(self) -> Mask:
        """Devices that entries may point to."""
        return (self.flags & np.uint64(SWP_USED)) != 0

    @property
    def may_be_used(self) -> Mask:
        """Those, and devices of which nothing is known."""
        return self.in_use | ~self.readable

    def have_slot(self, type_: int, offset: int) -> bool:
        """Whether a device in use has a slot."""
        return offset >= 0 and bool((self.in_use & (self.type_ == type_) & (self.max > offset)).any())


def max_swapfiles(layout: Layout) -> int:
    """MAX_SWAPFILES: swap types below it are devices."""
    types = getattr(layout.arch, "swap_types", None)
    return int(types.max_swapfiles) if types is not None else 0


def swap_entries(types: U8 | I64, offsets: U64 | I64) -> U64:
    """Entries as the kernel keeps them outside page tables (swp_entry(), include/linux/swapops.h)."""
    return (types.astype(np.uint64) << TYPE_SHIFT) | (offsets.astype(np.uint64) & np.uint64(_OFFSET))


def entry_types(entries: U64) -> U8:
    """Swap type of each such entry."""
    return (entries >> TYPE_SHIFT).astype(np.uint8)


def entry_offsets(entries: U64) -> I64:
    """Slot of each such entry on its device."""
    return (entries & np.uint64(_OFFSET)).astype(np.int64)


def records(layout: Layout, address: int, nr: int, size: int) -> Iterator[tuple[int, U8, Mask]]:
    """An array of equal-sized records, a bounded piece at a time.

    Yields ``(first, bytes, valid)``: number of the first record, uint8[n, size] and bool[n]. It ends early at a
    piece that is not in the dump at all: a length that makes no sense costs one failed read.
    """
    step = max(1, CHUNK // size)
    for at in range(0, nr, step):
        n = min(step, nr - at)
        data, valid = layout.memory.read_range(address + at * size, n * size)
        if not valid.any():
            return
        begin = np.arange(n, dtype=np.int64) * size
        yield at, data.reshape(n, size), valid[begin // HOLE] & valid[(begin + size - 1) // HOLE]


def build_devices(layout: Layout) -> SwapDevices:
    """Read the devices (mm/swapfile.c, swap_info)."""
    start = layout.target.symbol("swap_info")
    if not layout.config.has("SWAP"):
        return SwapDevices.empty()
    if start is None:
        raise LayoutError("the kernel has no symbol swap_info")
    pointers, known = layout.memory.read_range(start, 8 * max_swapfiles(layout))
    addr = pointers.view(np.uint64)
    types = np.flatnonzero((addr != 0) | ~known[8 * np.arange(len(addr)) // HOLE]).astype(np.uint8)
    addr = addr[types]
    struct = layout.struct("struct swap_info_struct")
    raw = layout.memory.gather(addr, struct.size)

    def column(*names: str) -> I64:
        # From 7.2 on there is no swap_map.
        if names == ("swap_map",) and not struct.has(*names):
            return np.zeros(len(addr), np.int64)
        return struct.field(*names).column(raw.bytes).astype(np.int64)

    largest = column("max")
    clusters = column("cluster_info").view(np.uint64)
    locked = held(struct, "lock", raw.bytes)
    for row in np.flatnonzero(clusters).tolist():
        locked[row] |= _clusters_locked(layout, int(clusters[row]), int(largest[row]))
    return SwapDevices(
        type_=types,
        addr=addr,
        flags=column("flags").view(np.uint64),
        prio=column("prio").astype(np.int32),
        max=largest,
        pages=column("pages"),
        inuse=column("inuse_pages.counter", "inuse_pages") & ~np.int64(_OFF_LIST),
        swap_map=column("swap_map").view(np.uint64),
        cluster_info=clusters,
        swap_file=column("swap_file").view(np.uint64),
        bdev=column("bdev").view(np.uint64),
        locked=locked,
        readable=raw.valid,
    )


_SLOTS_WITHOUT_THP = 256


def slots_per_cluster(layout: Layout) -> int:
    """SWAPFILE_CLUSTER, mm/swap.h: as many as a PMD has entries with CONFIG_THP_SWAP, else 256."""
    if layout.has_struct("struct swap_table"):
        return max(1, layout.struct("struct swap_table").field("entries").length)
    return 1 << layout.pmd_order if layout.config.thp_swap else _SLOTS_WITHOUT_THP


def slot_place(layout: Layout, devices: SwapDevices, entry: int) -> tuple[int, int] | None:
    """Address and size of what is stored of a slot: its byte of swap_map, or its word of its cluster's table.

    Args:
        layout: The kernel's layout.
        devices: All of them.
        entry: swp_entry_t; of a slot that a device has.

    Returns:
        None for a slot of no device, and where the cluster has no table, or one that cannot be read.
    """
    one = np.array([entry], np.uint64)
    row = np.flatnonzero(devices.type_ == entry_types(one)[0])
    offset = int(entry_offsets(one)[0])
    if not len(row):
        return None
    start = int(devices.swap_map[row[0]])
    if start:
        return start + offset, 1
    per, struct = slots_per_cluster(layout), layout.struct("struct swap_cluster_info")
    table = struct.find("table")
    if table is None or not devices.cluster_info[row[0]]:
        return None
    number, inside = divmod(offset, per)
    address = layout.memory.read_u64(int(devices.cluster_info[row[0]]) + number * struct.size + table.offset)
    return (address + 8 * inside, 8) if address else None


def _clusters_locked(layout: Layout, address: int, slots: int) -> bool:
    struct = layout.struct("struct swap_cluster_info")
    nr = -(-slots // slots_per_cluster(layout))
    return any(held(struct, "lock", raw).any() for _, raw, _ in records(layout, address, nr, struct.size))
