"""Slots, entries and caches of swap to plant faults in."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask
from inspector.snapshot import Snapshot
from inspector.tables.swap_devices import slots_per_cluster
from tests.faults.overlay import Patch, add, put, word


def has_table(s: Snapshot) -> bool:
    return s.swap.counts_shmem


def slot_address(s: Snapshot, row: int) -> int:
    """Address of the byte or word of a slot."""
    slots, devices = s.swap.slots, s.swap.devices
    device, offset = int(slots.device_idx[row]), int(slots.offset[row])
    if not has_table(s):
        return int(devices.swap_map[device]) + offset
    per = slots_per_cluster(s.layout)
    return word(s, cluster_address(s, device, offset, "table")) + 8 * (offset % per)


def cluster_address(s: Snapshot, device: int, offset: int, member: str) -> int:
    struct = s.layout.struct("struct swap_cluster_info")
    base = int(s.swap.devices.cluster_info[device])
    return base + offset // slots_per_cluster(s.layout) * struct.size + struct.field(member).offset


def count_changed(s: Snapshot, row: int, delta: int) -> Patch:
    """The count of a slot changed."""
    return add(s, slot_address(s, row), delta << 60) if has_table(s) else add(s, slot_address(s, row), delta, 1)


def slots_used_by(s: Snapshot, *, users: int, cached: bool | None = None) -> I64:
    """Slots with so many page-table entries and no other user."""
    slots, refs = s.swap.slots, s.swap_refs
    wanted: Mask = (refs.pte_refs == users) & (refs.shmem_refs == 0) & ~slots.is_bad
    if cached is not None:
        wanted &= (slots.cache_pfn >= 0) == cached
    rows = np.flatnonzero(wanted)
    assert len(rows), "no such slot in this dump"
    return rows


def entry_changed(s: Snapshot, row: int, bits: int) -> Patch:
    """Bits of a non-present entry turned over."""
    n = s.nonpresent
    address = (int(s.tables.pfn[n.table_idx[row]]) << 12) + 8 * int(n.slot[row])
    return Patch(address, (int(n.entry[row]) ^ bits).to_bytes(8, "little"), True)


def users_of(s: Snapshot, slot: int) -> I64:
    users = s.swap_refs.users
    return users.nonpresent_row[(users.slot_idx == slot) & (users.nonpresent_row >= 0)]


def swapper_patch(s: Snapshot, one: int, other: int) -> Patch:
    """The entry of one slot in its swapper address_space replaced by the folio of another."""
    slots, spaces = s.swap.slots, s.files.address_spaces
    device = int(s.swap.devices.type_[slots.device_idx[one]])
    offset = int(slots.offset[one])
    space = np.flatnonzero((spaces.swap_type == device) & (spaces.first_slot == offset & ~0x3FFF))
    page = s.layout.memmap.page_addr
    old, new = (page(int(slots.cache_pfn[i])) for i in (one, other))
    node = int(spaces.head[space[0]])
    struct = s.layout.struct("struct xa_node")
    index = offset if s.layout.scheme.scheme and offset < 0x4000 else offset & 0x3FFF
    while True:
        base = node & ~3
        shift = word(s, base + struct.field("shift").offset, 1)
        at = base + struct.field("slots").offset + 8 * (index >> shift & 63)
        node = word(s, at)
        if shift == 0:
            assert node == old
            return put(s, at, new)
