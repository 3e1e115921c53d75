"""Windows in which swap slots, their users and the swap cache may legally differ in a stopped kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, Mask
from inspector.tables.files import SHMEM
from inspector.tables.swap_devices import SWP_SYNCHRONOUS_IO
from inspector.windows.locks import mm_in_flight, pages_locked, tables_locked

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


def reclaim_in_flight(s: Snapshot) -> bool:
    """Whether any swap-backed folio is locked: being swapped out or in, perhaps not in the swap cache just now."""
    flags, words = s.layout.flags, s.pages.words
    word = flags.mask("locked") | flags.mask("swapbacked")
    return bool((((words.flags & word) == word) & (words.type_ == 0) & (words.refcount > 0)).any())


def read_past_cache(s: Snapshot, slots: I64) -> Mask:
    """Slots that a page fault may be reading without the swap cache, marked as cached meanwhile.

    From devices that answer at once (SWP_SYNCHRONOUS_IO) do_swap_page() in mm/memory.c reads what has one user left
    into a folio that only it knows: swapcache_prepare() sets the mark, before the folio is allocated (6.1) or after,
    and swapcache_clear() takes it away when the folio is mapped and unlocked. A task is in do_swap_page() all the
    while; where a stack is not known, the mark is all there is.
    """
    table = s.swap.slots
    at_once = (s.swap.devices.flags[table.device_idx[slots]] & np.uint64(SWP_SYNCHRONOUS_IO)) != 0
    able: Mask = at_once & table.has_cache[slots] & (table.cache_pfn[slots] < 0) & (table.count[slots] <= 1)
    if s.stacks.incomplete or not able.any():
        return able
    frames, functions = s.stacks.frames, s.stacks.functions
    inside = np.array([name == "do_swap_page" for name in functions], np.bool_)
    faults = np.unique(frames.task_idx[inside[frames.function]])
    flight = s.in_flight
    busy = np.zeros(len(s.mms), np.bool_)
    for row in np.flatnonzero(np.isin(flight.task_idx, faults)).tolist():
        busy[flight.mms[row]] = True
    # The entry is replaced, and its reference given back, before the mark is taken away.
    alone = (s.swap_refs.pte_refs + s.swap_refs.shmem_refs)[slots] == 0
    return able & (slots_by_user(s, busy[s.nonpresent.mm_idx])[slots] | (alone & bool(len(faults))))


def slots_by_user(s: Snapshot, marked: Mask) -> Mask:
    """Slots with a user among the marked non-present entries (by row)."""
    users = s.swap_refs.users
    out = np.zeros(len(s.swap.slots), np.bool_)
    hit = (users.nonpresent_row >= 0) & (users.slot_idx >= 0)
    hit[hit] = marked[users.nonpresent_row[hit]]
    out[users.slot_idx[hit]] = True
    return out


def slot_tables_locked(s: Snapshot, slots: I64) -> Mask:
    """Slots of which an entry lies in a locked page table."""
    users = s.swap_refs.users
    wanted = np.zeros(len(s.swap.slots) + 1, np.bool_)
    wanted[slots] = True
    mine = np.flatnonzero((users.nonpresent_row >= 0) & wanted[users.slot_idx])
    marked = np.zeros(len(s.swap.slots), np.bool_)
    held = tables_locked(s, s.nonpresent.table_idx[users.nonpresent_row[mine]])
    marked[users.slot_idx[mine[held]]] = True
    return marked[slots]


def user_gone(s: Snapshot, slots: I64) -> Mask:
    """Slots of which a user may be between two places, or not there yet.

    fork() counts the child's entry before it writes it and mremap() moves entries, both under the mmap_lock; a folio
    is counted before its entries are replaced, under its lock; truncation of shmem takes entries out first.
    """
    table = s.swap.slots
    head = s.pages.memmap.rows(table.cache_pfn[slots])
    busy = mm_in_flight(s)
    out = pages_locked(s, head) | slots_by_user(s, busy[s.nonpresent.mm_idx])[slots]
    alone = (s.swap_refs.pte_refs + s.swap_refs.shmem_refs)[slots] == 0
    with_vmas = np.zeros(len(s.mms), np.bool_)
    with_vmas[s.vmas.mm_idx] = True
    spaces = s.files.address_spaces
    anywhere = bool((busy & with_vmas).any()) or bool((spaces.in_motion & (spaces.kind == SHMEM)).any())
    return out | (alone & anywhere) | slot_tables_locked(s, slots)
