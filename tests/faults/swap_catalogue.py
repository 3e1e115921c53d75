"""Faults of swap: counts of slots, the cache, entries that lead nowhere, migrations that nobody ends."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Kind
from inspector.snapshot import Snapshot
from inspector.tables.files import SHMEM
from inspector.tables.mms import RSS_ANON, RSS_SWAP
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, add, flags_xor, page_word, pfn_of, put, word
from tests.faults.plants import (
    MissingError,
    Planted,
    entry_address,
    mapcount_at,
    mapping_of_page,
    pick,
    small_anon,
    swap_pte,
)
from tests.faults.swap_plants import (
    count_changed,
    entry_changed,
    has_table,
    slot_address,
    slots_used_by,
    swapper_patch,
    users_of,
)


@fault
def swap_count_raised(s: Snapshot) -> Planted:
    row = int(slots_used_by(s, users=1, cached=False)[0])
    return Planted((count_changed(s, row, 1),), ("swap-count-high",), None)


@fault
def swap_count_of_a_cached_slot_raised(s: Snapshot) -> Planted:
    row = int(slots_used_by(s, users=1, cached=True)[0])
    return Planted((count_changed(s, row, 1),), ("swap-count-high",), None)


@fault
def swap_count_lowered(s: Snapshot) -> Planted:
    row = int(slots_used_by(s, users=2, cached=False)[0])
    return Planted((count_changed(s, row, -1),), ("swap-count-low",), None)


@fault
def last_swap_count_lost(s: Snapshot) -> Planted:
    row = int(slots_used_by(s, users=1, cached=False)[0])
    return Planted((count_changed(s, row, -1),), ("swap-count-low",), None)


@fault
def swap_entry_of_a_shared_slot_exclusive(s: Snapshot) -> Planted:
    slot = int(slots_used_by(s, users=3)[0])
    patch = entry_changed(s, int(users_of(s, slot)[0]), 1 << 3)
    return Planted((patch,), ("exclusive-swap-entry-sharing-unexpected",), None)


@fault
def swap_entry_beyond_the_device(s: Snapshot) -> Planted:
    row = int(users_of(s, int(slots_used_by(s, users=1, cached=False)[0]))[0])
    return Planted((entry_changed(s, row, 1 << 40),), ("swap-entry-slot-invalid",), None)


@fault
def swap_entry_of_a_device_that_is_not_there(s: Snapshot) -> Planted:
    row = int(users_of(s, int(slots_used_by(s, users=1, cached=False)[0]))[0])
    return Planted((entry_changed(s, row, 4 << 59),), ("swap-entry-slot-invalid",), None)


@fault
def swap_entry_moved_to_another_slot(s: Snapshot) -> Planted:
    slots, rows = s.swap.slots, slots_used_by(s, users=1, cached=False)
    one, other = int(rows[0]), int(rows[5])
    bits = (int(slots.offset[one]) ^ int(slots.offset[other])) << 9
    return Planted((entry_changed(s, int(users_of(s, one)[0]), bits),), ("swap-count-low",), None)


@fault
def swap_cache_slot_given_to_another_folio(s: Snapshot) -> Planted:
    cache = s.swap.slots.cache_pfn
    cached = np.flatnonzero(cache >= 0)
    one, other = int(cached[0]), int(cached[-1])
    if has_table(s):
        address = slot_address(s, one)
        patch = put(s, address, word(s, address) + ((int(cache[other]) - int(cache[one])) << 2))
    else:
        patch = swapper_patch(s, one, other)
    return Planted((patch,), ("swapcache-slot-mismatch",), None)


@fault
def swap_cache_folio_without_its_flag(s: Snapshot) -> Planted:
    pfn = int(s.swap.slots.cache_pfn.max())
    return Planted((flags_xor(s, pfn, "swapcache"),), ("swapcache-slot-mismatch",), None)


@fault
def swap_entry_of_a_cached_folio_wrong(s: Snapshot) -> Planted:
    pfn = int(s.swap.slots.cache_pfn.max())
    return Planted((add(s, page_word(s, pfn, "private"), 1),), ("swapcache-slot-mismatch",), None)


@fault
def index_of_a_swap_cache_folio_shifted(s: Snapshot) -> Planted:
    """The folio was moved to another address, its index stayed behind."""
    cached = s.layout.flags.test(s.pages.flags, "swapcache") & s.layout.flags.test(s.pages.flags, "swapbacked")
    rows = np.flatnonzero(cached & (s.folio_of_page < 0) & (s.counts.page_mappings == 1) & (s.pages.type_ == 0))
    pfn = pfn_of(s, pick(rows, "a mapped swap-cache page"))
    return Planted((add(s, page_word(s, pfn, "__folio_index", "index"), 5),), ("anon-index-mismatch",), pfn)


@fault
def swap_slot_marked_as_cached(s: Snapshot) -> Planted:
    if has_table(s):
        raise MissingError("a mark: a swap table names the folio")
    row = int(slots_used_by(s, users=1, cached=False)[0])
    return Planted((add(s, slot_address(s, row), 0x40, 1),), ("swap-slot-user-missing",), None, "warn")


@fault
def slots_in_use_miscounted(s: Snapshot) -> Planted:
    field = s.layout.struct("struct swap_info_struct").field("inuse_pages.counter", "inuse_pages")
    patch = add(s, int(s.swap.devices.addr[0]) + field.offset, 1, field.size)
    return Planted((patch,), ("swap-inuse-mismatch",), None)


@fault
def free_swap_miscounted(s: Snapshot) -> Planted:
    return Planted((add(s, s.layout.symbol("nr_swap_pages"), 3),), ("swap-free-mismatch",), None, "warn")


@fault
def swapped_pages_of_a_file_miscounted(s: Snapshot) -> Planted:
    spaces = s.files.address_spaces
    row = pick(np.flatnonzero((spaces.kind == SHMEM) & (spaces.swapped > 0)), "a swapped shmem file")
    info = s.layout.struct("struct shmem_inode_info")
    address = int(spaces.host[row]) - info.field("vfs_inode").offset + info.field("swapped").offset
    return Planted((add(s, address, 1),), ("shmem-swapped-mismatch",), None)


@fault
def lazyfree_folio_in_the_swap_cache(s: Snapshot) -> Planted:
    pfn = int(s.swap.slots.cache_pfn.max())
    return Planted((flags_xor(s, pfn, "swapbacked"),), ("lazyfree-swapcache-unexpected",), None)


@fault
def migration_entry_left_behind(s: Snapshot) -> Planted:
    """An rmap walk missed the entry when the migration ended: the page is unlocked, the entry still stands."""
    row = pick(small_anon(s, 1), "a private page", 13)
    pfn = pfn_of(s, row)
    entry = Patch(entry_address(s, *mapping_of_page(s, row)), swap_pte(s, Kind.MIGRATION_READ, pfn), True)
    return Planted((entry, put(s, mapcount_at(s, row), -1, 4)), ("migration-target-lock-missing",), None)


@fault
def migration_entry_to_a_free_page(s: Snapshot) -> Planted:
    """The entry's number was shifted by an operation meant for present entries."""
    row = pick(small_anon(s, 1), "a private page", 15)
    free = pfn_of(s, pick(s.buddy_pages, "a free page", 700))
    entry = Patch(entry_address(s, *mapping_of_page(s, row)), swap_pte(s, Kind.MIGRATION_READ, free), True)
    return Planted((entry, put(s, mapcount_at(s, row), -1, 4)), ("nonpresent-target-invalid",), None)


@fault
def swapped_in_page_of_another_slot(s: Snapshot) -> Planted:
    """A fault took a folio that had left the swap cache for the slot's: mapped and counted, but somebody else's."""
    n = s.nonpresent
    slot = int(slots_used_by(s, users=2, cached=False)[0])
    row = int(users_of(s, slot)[0])
    address = (int(s.tables.pfn[n.table_idx[row]]) << 12) + 8 * int(n.slot[row])
    page = pick(small_anon(s, 2, more=True), "a shared anonymous page", 3)
    pfn = pfn_of(s, page)
    mm = int(s.mms.addr[n.mm_idx[row]])
    struct = s.layout.struct("struct mm_struct")
    rss = [
        (struct.find(f"rss_stat[{kind}].count") or struct.field(f"rss_stat.count[{kind}]"), delta)
        for kind, delta in ((RSS_ANON, 1), (RSS_SWAP, -1))
    ]
    patches = (
        Patch(address, ((pfn << 12) | 0x8000000000000025).to_bytes(8, "little"), True),
        add(s, mapcount_at(s, page), 1, 4),
        add(s, page_word(s, pfn, "_refcount.counter", "_refcount"), 1, 4),
        *(add(s, mm + field.offset, delta) for field, delta in rss),
    )
    return Planted((*patches, count_changed(s, slot, -1)), ("anon-vma-unreachable",), pfn)
