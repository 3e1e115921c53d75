"""Faults of the counters of memory nodes and zones, and of the lists of free pages."""

from __future__ import annotations

import numpy as np

from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_SWAP
from inspector.tables.pageblocks import lists_follow_blocks, pageblock_types
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, add, flags_xor, page_word, pfn_of, put, word
from tests.faults.plants import MissingError, Planted, folio_at, head_field, pick, small_anon

_POISON = 0xDEAD000000000100
"""LIST_POISON1: what list_del() leaves behind."""


def node_item(s: Snapshot, name: str, delta: int) -> Patch:
    """The global word of an item of enum node_stat_item changed."""
    start = s.layout.target.symbol("vm_node_stat")
    if start is None:
        raise MissingError("vm_node_stat")
    return add(s, start + 8 * s.layout.enum("enum node_stat_item")[name], delta)


@fault
def total_of_mapped_anonymous_pages_raised(s: Snapshot) -> Planted:
    return Planted((node_item(s, "NR_ANON_MAPPED", 3),), ("node-mapped-mismatch",), None, "warn")


@fault
def total_of_mapped_anonymous_pages_lowered(s: Snapshot) -> Planted:
    return Planted((node_item(s, "NR_ANON_MAPPED", -1),), ("node-mapped-mismatch",), None, "warn")


@fault
def total_of_mapped_file_pages_raised(s: Snapshot) -> Planted:
    return Planted((node_item(s, "NR_FILE_MAPPED", 1),), ("node-mapped-mismatch",), None, "warn")


@fault
def total_of_mapped_thps_raised(s: Snapshot) -> Planted:
    return Planted((node_item(s, "NR_ANON_THPS", 512),), ("node-mapped-mismatch",), None, "warn")


@fault
def total_of_huge_mapped_shmem_lowered(s: Snapshot) -> Planted:
    return Planted((node_item(s, "NR_SHMEM_PMDMAPPED", -512),), ("node-mapped-mismatch",), None, "warn")


@fault
def total_of_huge_mapped_files_raised(s: Snapshot) -> Planted:
    return Planted((node_item(s, "NR_FILE_PMDMAPPED", 512),), ("node-mapped-mismatch",), None, "warn")


@fault
def share_of_a_node_raised(s: Snapshot) -> Planted:
    """Added to a node and not to the machine."""
    return Planted((share(s, "NR_ANON_MAPPED", 50),), ("node-share-mismatch",), None, "warn")


def share(s: Snapshot, item: str, delta: int, node: int = 0) -> Patch:
    """An item of one node changed, and not that of the machine."""
    pgdat = word(s, s.layout.symbol("node_data") + 8 * node)
    at = pgdat + s.layout.struct("struct pglist_data").field("vm_stat").offset
    return add(s, at + 8 * s.layout.enum("enum node_stat_item")[item], delta)


@fault
def total_of_huge_cached_shmem_raised(s: Snapshot) -> Planted:
    return Planted((node_item(s, "NR_SHMEM_THPS", 512),), ("cache-counters-mismatch",), None, "warn")


@fault
def total_of_huge_cached_files_lowered(s: Snapshot) -> Planted:
    return Planted((node_item(s, "NR_FILE_THPS", -512),), ("cache-counters-mismatch",), None, "warn")


@fault
def total_of_cached_pages_raised(s: Snapshot) -> Planted:
    return Planted((node_item(s, "NR_FILE_PAGES", 50),), ("cache-counters-mismatch",), None, "warn")


@fault
def share_of_a_node_in_the_swap_cache_raised(s: Snapshot) -> Planted:
    return Planted((share(s, "NR_SWAPCACHE", 50),), ("cache-share-mismatch",), None, "warn")


@fault
def share_of_a_node_in_cached_pages_raised(s: Snapshot) -> Planted:
    if not s.layout.struct("struct vm_area_struct").has("__vm_anon_pgoff_lo"):
        raise MissingError("cached pages that are counted on their node alone")
    return Planted((share(s, "NR_SHMEM", 50),), ("cache-share-mismatch",), None, "warn")


@fault
def page_tables_of_a_node_miscounted(s: Snapshot) -> Planted:
    return Planted((share(s, "NR_PAGETABLE", 50),), ("page-table-counter-mismatch",), None, "warn")


@fault
def pins_given_back_twice(s: Snapshot) -> Planted:
    """Counted, and not taken off the pages."""
    return Planted((share(s, "NR_FOLL_PIN_RELEASED", 50),), ("pin-counter-mismatch",), None, "warn")


@fault
def pin_of_a_large_folio_lost(s: Snapshot) -> Planted:
    """_pincount and the references of the pin are gone, the counter says that it was never given back."""
    pinned = np.flatnonzero((s.folios.pincount > 0) & ~s.folios.is_hugetlb & (s.pages.type_[s.folios.row] == 0))
    folio = pick(pinned, "a pinned large folio")
    field = head_field(s, "_pincount.counter", "_pincount", tail=("compound_pincount.counter",))
    patch = add(s, folio_at(s, folio, field), -1, 4)
    return Planted((patch,), ("pin-counter-mismatch",), None, "warn")


def listed_block(s: Snapshot, order: int) -> int:
    """Row of a free block of that order or above which has neighbours on its list on both sides."""
    b = s.buddy
    nr = np.bincount(b.blocks.list_idx, minlength=len(b.lists))
    fine = (b.blocks.order >= order) & (nr[b.blocks.list_idx] >= 2)
    return pick(np.flatnonzero(fine), "a free list with several blocks")


def block_links(s: Snapshot, block: int) -> tuple[int, int, int]:
    """Address of a block's list_head, and what it says: the next and the previous one."""
    at = page_word(s, pfn_of(s, int(s.buddy.blocks.row[block])), "lru")
    return at, word(s, at), word(s, at + 8)


def zone_word(s: Snapshot, zone: int, *names: str) -> int:
    return int(s.buddy.zones.addr[zone]) + s.layout.struct("struct zone").field(*names).offset


@fault
def free_block_passed_over_by_its_list(s: Snapshot) -> Planted:
    _, after, before = block_links(s, listed_block(s, 0))
    return Planted((put(s, before, after),), ("free-list-damaged",), None)


@fault
def free_list_leads_to_a_page_in_use(s: Snapshot) -> Planted:
    _, _, before = block_links(s, listed_block(s, 0))
    other = page_word(s, pfn_of(s, pick(small_anon(s, 1), "an anonymous page")), "lru")
    return Planted((put(s, before, other),), ("free-list-damaged",), None)


@fault
def free_block_taken_off_its_list_but_not_out(s: Snapshot) -> Planted:
    """list_del() without the rest: type and count stay."""
    block = listed_block(s, 0)
    at, after, before = block_links(s, block)
    patches = (put(s, before, after), put(s, after + 8, before), put(s, at, _POISON), put(s, at + 8, _POISON + 0x22))
    return Planted(patches, ("free-block-list-mismatch",), pfn_of(s, int(s.buddy.blocks.row[block])))


@fault
def free_block_of_another_order_than_its_list(s: Snapshot) -> Planted:
    row = int(s.buddy.blocks.row[listed_block(s, 1)])
    patch = put(s, page_word(s, pfn_of(s, row), "private"), 0)
    return Planted((patch,), ("free-block-list-mismatch",), pfn_of(s, row))


@fault
def order_of_a_free_block_too_great_for_its_place(s: Snapshot) -> Planted:
    """The order of a block is raised past the alignment of its page frame."""
    b = s.buddy
    odd = np.flatnonzero((b.blocks.order == 0) & (s.pages.memmap.pfns_of_rows(b.blocks.row) % 2 == 1))
    row = int(b.blocks.row[pick(odd, "a free page at an odd page frame")])
    patch = put(s, page_word(s, pfn_of(s, row), "private"), 1)
    return Planted((patch,), ("free-block-list-mismatch",), pfn_of(s, row))


def moved_block(s: Snapshot, block: int, types: tuple[str, ...]) -> tuple[Patch, ...]:
    """Patches that take a block off its list and put it on that of one of the other types, links and all."""
    b = s.buddy
    own = int(b.blocks.list_idx[block])
    numbers = [s.layout.enum("enum migratetype").get(name, -1) for name in types]
    near = (b.lists.zone_idx == b.lists.zone_idx[own]) & (b.lists.order == b.lists.order[own])
    other = pick(np.flatnonzero(near & np.isin(b.lists.migratetype, numbers)), "a list of that type")
    assert other != own
    at, after, before = block_links(s, block)
    head = int(b.lists.addr[other])
    first = word(s, head)
    patches = [put(s, before, after), put(s, after + 8, before), put(s, head, at), put(s, first + 8, at)]
    return (*patches, put(s, at, first), put(s, at + 8, head))


def _needs_types(s: Snapshot) -> None:
    if not lists_follow_blocks(s.layout):
        raise MissingError("lists that follow the types of page blocks")


@fault
def free_block_on_the_list_of_another_type(s: Snapshot) -> Planted:
    _needs_types(s)
    block = listed_block(s, 1)
    own = int(s.buddy.lists.migratetype[s.buddy.blocks.list_idx[block]])
    other = (
        "MIGRATE_RECLAIMABLE" if own != s.layout.enum("enum migratetype")["MIGRATE_RECLAIMABLE"] else "MIGRATE_MOVABLE"
    )
    pfn = pfn_of(s, int(s.buddy.blocks.row[block]))
    return Planted(moved_block(s, block, (other,)), ("free-block-type-mismatch",), pfn)


@fault
def free_block_on_the_list_of_isolated_ones(s: Snapshot) -> Planted:
    """Also the zone's count of free pages no longer fits: isolated pages are none of them."""
    _needs_types(s)
    block = listed_block(s, 1)
    pfn = pfn_of(s, int(s.buddy.blocks.row[block]))
    return Planted(moved_block(s, block, ("MIGRATE_ISOLATE",)), ("free-block-type-mismatch",), pfn)


@fault
def type_of_a_page_block_changed(s: Snapshot) -> Planted:
    """The blocks stay on the list of the type that the page block had."""
    _needs_types(s)
    rows = s.buddy.blocks.row
    types = pageblock_types(s.layout, s.pages.memmap.pfns_of_rows(rows))
    movable = s.layout.enum("enum migratetype")["MIGRATE_MOVABLE"]
    crowded = np.bincount(types.block)[types.block] >= 2
    at = pick(np.flatnonzero(crowded & (types.migratetype == movable)), "a movable page block with free blocks")
    patch = put(s, int(types.word[at]), word(s, int(types.word[at])) ^ (movable << int(types.shift[at])))
    return Planted((patch,), ("free-block-type-mismatch",), None)


@fault
def number_of_free_blocks_raised(s: Snapshot) -> Planted:
    at = zone_word(s, len(s.buddy.zones) - 1, "free_area[3].nr_free")
    return Planted((add(s, at, 1),), ("free-area-count-mismatch",), None)


@fault
def free_pages_of_a_zone_miscounted(s: Snapshot) -> Planted:
    item = s.layout.enum("enum zone_stat_item")["NR_FREE_PAGES"]
    at = zone_word(s, len(s.buddy.zones) - 1, "vm_stat") + 8 * item
    return Planted((add(s, at, -32),), ("zone-free-pages-mismatch",), None, "warn")


def cpu_page(s: Snapshot) -> int:
    """Row of a page on a CPU's list."""
    return pick(s.buddy.cpu_page_row, "a page on a CPU's free list", 5)


@fault
def cpu_counts_a_free_page_too_few(s: Snapshot) -> Planted:
    table = s.buddy.cpu_lists
    at = int(table.addr[pick(np.flatnonzero(table.count > 1), "a CPU with free pages")])
    count = s.layout.struct("struct per_cpu_pages").field("count").offset
    return Planted((add(s, at + count, -1, 4),), ("cpu-free-list-mismatch",), None)


@fault
def cpu_list_of_free_pages_in_disorder(s: Snapshot) -> Planted:
    at = page_word(s, pfn_of(s, cpu_page(s)), "lru")
    return Planted((put(s, at + 8, word(s, at)),), ("cpu-free-list-mismatch",), None)


@fault
def reference_left_on_a_page_of_a_cpu_list(s: Snapshot) -> Planted:
    pfn = pfn_of(s, cpu_page(s))
    patch = put(s, page_word(s, pfn, "_refcount.counter", "_refcount"), 1, 4)
    return Planted((patch,), ("cpu-free-page-state-unexpected",), pfn)


@fault
def swap_counter_in_the_words_of_another_mm(s: Snapshot) -> Planted:
    """Both hold zero there: no sum is wrong yet."""
    rows = np.flatnonzero((s.mms.nr_tasks == 1) & ~s.mms.locked & (s.mms.rss[:, RSS_SWAP] == 0))
    mm, other = pick(rows, "an mm without swap entries", 4), pick(rows, "another", 2)
    words = int(s.mms.rss_words[other, RSS_SWAP])
    if not words:
        raise MissingError("per-CPU parts of rss counters")
    field = s.layout.struct("struct mm_struct").field(f"rss_stat[{RSS_SWAP}].counters")
    return Planted((put(s, int(s.mms.addr[mm]) + field.offset, words),), ("rss-words-mismatch",), None)


@fault
def page_of_a_cpu_list_still_charged(s: Snapshot) -> Planted:
    pfn = pfn_of(s, cpu_page(s))
    patch = put(s, page_word(s, pfn, "memcg_data"), s.layout.memory.direct_map_base + 0x1000)
    return Planted((patch,), ("cpu-free-page-state-unexpected",), pfn)


@fault
def writeback_of_a_page_of_a_cpu_list(s: Snapshot) -> Planted:
    pfn = pfn_of(s, cpu_page(s))
    return Planted((flags_xor(s, pfn, "writeback"),), ("cpu-free-page-state-unexpected",), pfn)


def _zone_item(s: Snapshot, name: str, delta: int) -> Patch:
    """The global word of an item of enum zone_stat_item of the last zone changed."""
    field = s.layout.struct("struct zone").field("vm_stat")
    return add(s, int(s.buddy.zones.addr[-1]) + field.offset + 8 * s.layout.enum("enum zone_stat_item")[name], delta)


@fault
def file_pages_on_lru_lists_miscounted(s: Snapshot) -> Planted:
    return Planted((_zone_item(s, "NR_ZONE_INACTIVE_FILE", -1),), ("lru-size-mismatch",), None, "warn")


@fault
def mlocked_pages_miscounted(s: Snapshot) -> Planted:
    return Planted((_zone_item(s, "NR_MLOCK", 1),), ("lru-size-mismatch",), None, "warn")


@fault
def anonymous_page_lost_from_its_lru_list(s: Snapshot) -> Planted:
    """PG_swapbacked is gone: the page is taken off the lists of files, on which it was never put."""
    row = pick(small_anon(s, 1), "an anonymous page", 41)
    return Planted((flags_xor(s, pfn_of(s, row), "swapbacked"),), ("lru-list-mismatch",), pfn_of(s, row))


@fault
def page_of_a_generation_on_no_lru_list(s: Snapshot) -> Planted:
    if not s.uses_generations:
        raise MissingError("pages of generations")
    row = pick(small_anon(s, 1), "an anonymous page", 42)
    return Planted((flags_xor(s, pfn_of(s, row), "lru"),), ("lru-folio-unexpected",), pfn_of(s, row))
