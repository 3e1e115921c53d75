"""Who refers to each swap slot: entries of page tables, and shmem files through their page cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Bit, Kind
from inspector.columns import I64, U64, AnyArray, Mask, Table, count_up, distinct, mixed, rows_of, take_or
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.files import Files
from inspector.tables.swap import SwapSlots
from inspector.tables.swap_devices import TYPE_SHIFT, max_swapfiles, swap_entries
from inspector.walk.mappings import NonPresent

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class SwapUsers(Table):
    """One row a reference to a swap slot.

    Attributes:
        entry: uint64; the slot referred to (swp_entry_t).
        slot_idx: int32; its row in `SwapSlots`, -1 when there is no such slot.
        nonpresent_row: int64; the page-table entry that refers to it, -1 for shmem.
        address_space_idx: int32; the shmem file that does, a row of `AddressSpaces`, -1 for page tables.
        index: uint64; page offset in that file.
        exclusive: bool; the page-table entry is marked exclusive: the page belonged to one process alone.
    """

    entry: U64
    slot_idx: AnyArray
    nonpresent_row: I64
    address_space_idx: AnyArray
    index: U64
    exclusive: Mask


@dataclass(frozen=True)
class SwapRefs:
    """References rebuilt.

    Attributes:
        users: Table of references.
        pte_refs: int64 by slot; page-table entries.
        shmem_refs: int64 by slot; pages of shmem files.
    """

    users: SwapUsers
    pte_refs: I64
    shmem_refs: I64


def swap_rows(nonpresent: NonPresent) -> I64:
    """Rows of swap entries, tables reached twice counted once."""
    return np.flatnonzero((nonpresent.kind == Kind.SWAP) & nonpresent.counted)


def shmem_swap(layout: Layout, files: Files) -> tuple[AnyArray, U64, U64]:
    """Every page of a shmem file that is in swap: row of the address_space, page offset and swap entry.

    An entry of higher order is for a run of slots (mm/shmem.c, shmem_swap_alloc_folio()). Entries of types that
    are no device's mark failed swap-ins.
    """
    first = files.swapped.value >> np.uint64(1)
    device = (first >> TYPE_SHIFT) < np.uint64(max_swapfiles(layout))
    entries, first = files.swapped.take(np.flatnonzero(device)), first[device]
    nr = np.minimum(entries.nr, 1 << layout.pmd_order)  # no folio that is swapped whole is larger
    step = count_up(nr).astype(np.uint64)
    return (
        np.repeat(entries.address_space_idx, nr),
        np.repeat(entries.index, nr) + step,
        np.repeat(first, nr) + step,
    )


def referred_entries(layout: Layout, nonpresent: NonPresent, files: Files) -> U64:
    """Entries that anything refers to, each once."""
    rows = swap_rows(nonpresent)
    in_tables = swap_entries(nonpresent.swap_type[rows], nonpresent.swap_offset[rows])
    return distinct(np.concatenate([in_tables, shmem_swap(layout, files)[2]]))


def rebuild_swap_refs(s: Snapshot) -> SwapRefs:
    """All references to slots, and how many each has."""
    nonpresent, slots = s.nonpresent, s.swap.slots
    rows = swap_rows(nonpresent)
    space, index, shmem = shmem_swap(s.layout, s.files)
    entry = np.concatenate([swap_entries(nonpresent.swap_type[rows], nonpresent.swap_offset[rows]), shmem])
    n, k = len(rows), len(shmem)
    bits = np.zeros(n, np.uint16)
    for shape in s.layout.arch.shapes:
        here = nonpresent.level[rows] == shape.level
        bits[here] = s.layout.arch.nonpresent_bits(shape.level, nonpresent.entry[rows[here]])
    users = SwapUsers(
        entry=entry,
        slot_idx=rows_of(slots.entry, entry),
        nonpresent_row=np.concatenate([rows, np.full(k, -1, np.int64)]),
        address_space_idx=np.concatenate([np.full(n, -1, np.int32), space]),
        index=np.concatenate([np.zeros(n, np.uint64), index]),
        exclusive=np.concatenate([(bits & Bit.EXCLUSIVE) != 0, np.zeros(k, np.bool_)]),
    )
    in_table = users.nonpresent_row >= 0
    return SwapRefs(users, _count(slots, users, in_table), _count(slots, users, ~in_table))


def _count(slots: SwapSlots, users: SwapUsers, which: Mask) -> I64:
    known = users.slot_idx[which & (users.slot_idx >= 0)]
    return np.bincount(known, minlength=len(slots)).astype(np.int64)


def slot_users(s: Snapshot, slots: I64) -> U64:
    """A sum over who refers to each of some slots: the same in another walk only if the same do, at the same addresses.

    Args:
        s: The snapshot.
        slots: Rows in ``s.swap.slots``, each once.
    """
    users, n, spaces = s.swap_refs.users, s.nonpresent, s.files.address_spaces
    at = np.full(len(s.swap.slots), -1, np.int64)
    at[slots] = np.arange(len(slots))
    which = take_or(at, users.slot_idx, -1)
    by_entry = np.flatnonzero((which >= 0) & (users.nonpresent_row >= 0))
    by_file = np.flatnonzero((which >= 0) & (users.address_space_idx >= 0))
    row = users.nonpresent_row[by_entry]
    out = np.zeros(len(slots), np.uint64)
    np.add.at(out, which[by_entry], mixed(s.mms.addr[n.mm_idx[row]] ^ mixed(n.va[row])))
    np.add.at(out, which[by_file], mixed(spaces.addr[users.address_space_idx[by_file]] ^ mixed(users.index[by_file])))
    return out
