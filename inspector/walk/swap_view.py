"""Swap at a glance: the devices, and one slot with all that refers to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, U8, U64, AnyArray, Mask, Table, rows_of, take_or
from inspector.records import dataclass
from inspector.tables.swap import Swap
from inspector.tables.swap_devices import swap_entries
from inspector.walk.names import file_paths

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class DeviceView(Table):
    """One row a swap device in use, by swap type.

    Attributes:
        type_: uint8; number in swap entries.
        addr: uint64; swap_info_struct.
        path: str; as /proc/swaps shows it.
        is_partition: bool; a block device, else a file.
        prio: int32.
        size_kb, used_kb: int64; as /proc/swaps shows them.
        used: int64; slots in use, counted from the slots.
        inuse_pages: int64; as stored.
        bad, cached, set_aside, shmem, shared, zero: int64; slots that are bad (the header among them), have a folio in
            the swap cache, lie in per-CPU caches, belong to shmem files, have several users, hold zeros (7.x).
        pte_refs, shmem_refs: int64; page-table entries and pages of shmem files that refer to its slots.
        whole: bool; whether all slots were read.
    """

    type_: U8
    addr: U64
    path: AnyArray
    is_partition: Mask
    prio: I32
    size_kb: I64
    used_kb: I64
    used: I64
    inuse_pages: I64
    bad: I64
    cached: I64
    set_aside: I64
    shmem: I64
    shared: I64
    zero: I64
    pte_refs: I64
    shmem_refs: I64
    whole: Mask


def swap_devices(s: Snapshot) -> DeviceView:
    """All devices in use with what their slots add up to."""
    swap, refs = s.swap, s.swap_refs
    devices, slots = swap.devices, swap.slots
    rows = np.flatnonzero(devices.in_use)
    kb = 1 << (s.layout.memmap.page_shift - 10)

    def count(which: Mask | I64) -> I64:
        weights = which.astype(np.float64)
        return np.bincount(slots.device_idx, weights=weights, minlength=len(devices)).astype(np.int64)[rows]

    return DeviceView(
        type_=devices.type_[rows],
        addr=devices.addr[rows],
        path=np.array(file_paths(s.layout, devices.swap_file[rows]), dtype=np.str_),
        is_partition=devices.bdev[rows] != 0,
        prio=devices.prio[rows],
        size_kb=devices.pages[rows] * kb,
        used_kb=devices.inuse[rows] * kb,
        used=count(slots.in_use),
        inuse_pages=devices.inuse[rows],
        bad=count(slots.is_bad),
        cached=count(slots.cache_pfn >= 0),
        set_aside=count(slots.set_aside),
        shmem=count(refs.shmem_refs > 0),
        shared=count(refs.pte_refs + refs.shmem_refs > 1),
        zero=count(slots.is_zero),
        pte_refs=count(refs.pte_refs),
        shmem_refs=count(refs.shmem_refs),
        whole=swap.whole[rows],
    )


@dataclass(frozen=True, slots=True)
class SlotUsersView(Table):
    """One row a reference to one slot.

    Attributes:
        is_shmem: bool; a page of a shmem file, else an entry of a page table.
        mm, va, entry: uint64; where the page-table entry is and what it holds; 0 for shmem.
        pid: int32; first task of that mm, -1 for none.
        comm: bytes; its name.
        exclusive: bool; the entry is marked exclusive.
        space, ino, index: uint64; address_space, inode number and page offset of the shmem page; 0 for page tables.
    """

    is_shmem: Mask
    mm: U64
    va: U64
    entry: U64
    pid: I32
    comm: AnyArray
    exclusive: Mask
    space: U64
    ino: U64
    index: U64


def find_slot(swap: Swap, type_: int, offset: int) -> int:
    """Row of a slot, -1 when it is free and unused or does not exist; `slot_exists` distinguishes these."""
    entry = swap_entries(np.array([type_], np.int64), np.array([offset], np.int64))
    return int(rows_of(swap.slots.entry, entry)[0])


def slot_exists(swap: Swap, type_: int, offset: int) -> bool:
    """Whether a device in use has such a slot."""
    return swap.devices.have_slot(type_, offset)


def slot_users(s: Snapshot, slot_row: int) -> SlotUsersView:
    """All references to a slot: page tables by mm and address, then shmem files by address_space and index."""
    users, n, spaces, mms = s.swap_refs.users, s.nonpresent, s.files.address_spaces, s.mms
    mine = np.flatnonzero(users.slot_idx == slot_row)
    row, space = users.nonpresent_row[mine], users.address_space_idx[mine]
    places = take_or(n.va, row, 0), take_or(mms.addr, take_or(n.mm_idx, row, -1), 0)
    order = np.lexsort((users.index[mine], take_or(spaces.addr, space, 0), *places, row < 0))
    mine, row, space = mine[order], row[order], space[order]
    mm_idx = take_or(n.mm_idx, row, -1)
    return SlotUsersView(
        is_shmem=row < 0,
        mm=take_or(mms.addr, mm_idx, 0),
        va=take_or(n.va, row, 0),
        entry=take_or(n.entry, row, 0),
        pid=take_or(mms.pid, mm_idx, -1),
        comm=take_or(mms.comm, mm_idx, b""),
        exclusive=users.exclusive[mine],
        space=take_or(spaces.addr, space, 0),
        ino=take_or(spaces.ino, space, 0),
        index=users.index[mine],
    )
