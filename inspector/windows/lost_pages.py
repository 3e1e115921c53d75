"""Pages without references that are on no free list and can be part of no allocation.

Many pages in use have no references: the pages of an allocation of several without __GFP_COMP, of which only the first
is counted (mm/page_alloc.c, prep_new_page()). Such an allocation begins at a multiple of its size, and all of it is
alike: what lies behind a page of the kernel as far as the largest block that may begin there is left alone. A page in
use by a process, of the page cache, or of a compound page is no such beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, Mask, Table, group_starts, rows_covering, rows_of, rows_where, take_or
from inspector.layout.flags import MAPPING_ANON, type_code
from inspector.records import dataclass
from inspector.windows.holders import who_names
from inspector.windows.window import named

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_LARGEST_RUN = 1 << 13
"""Pages side by side without references that are taken for lost at most: a memory block that was taken offline
(mm/memory_hotplug.c, offline_pages()) is at least four times as many, and no block of the allocator as many."""

_IN_HAND = named(
    "get_page_from_freelist __alloc_pages __alloc_pages_noprof __alloc_pages_bulk alloc_pages_bulk_noprof"
    " __alloc_frozen_pages_noprof prep_new_page post_alloc_hook rmqueue rmqueue_bulk __rmqueue_pcplist"
    " free_unref_page free_unref_page_prepare free_unref_page_commit free_unref_page_list free_unref_folios"
    " free_pages_prepare __free_pages_prepare free_tail_page_prepare free_frozen_pages __free_frozen_pages"
    " __free_pages_ok free_one_page __free_one_page free_pcppages_bulk free_large_kmalloc __free_pages"
    " free_pages_exact drain_pages drain_pages_zone drain_zone_pages decay_pcp_high destroy_large_folio"
    " release_pages folios_put_refs __folio_put __put_page __page_cache_release free_page_and_swap_cache"
    " compact_zone isolate_freepages isolate_freepages_block isolate_freepages_range split_map_pages"
    " release_freepages compaction_alloc alloc_contig_range alloc_contig_range_noprof alloc_contig_frozen_range_noprof"
    " free_contig_range split_free_page page_reporting_process page_reporting_cycle offline_pages online_pages"
    " memory_failure soft_offline_page take_page_off_buddy dissolve_free_huge_page dissolve_free_hugetlb_folio"
    " accept_page __accept_page shrink_folio_list shrink_page_list"
)
"""Functions that have pages in hand which are free no more, or not free yet: mm/page_alloc.c, mm/swap.c, mm/vmscan.c,
mm/compaction.c, mm/page_reporting.c, mm/memory_hotplug.c, mm/memory-failure.c."""


@dataclass(frozen=True, slots=True)
class LostPages(Table):
    """One row a run of neighbouring lost pages.

    Attributes:
        row: int64; the first of them in the memory map.
        nr: int64; how many they are.
        in_hand: bool; someone names one of them, or a task is in a function that has such pages in hand.
    """

    row: I64
    nr: I64
    in_hand: Mask


def find_lost_pages(s: Snapshot) -> LostPages:
    """Find them."""
    rows = unowned_pages(s)
    rows = rows[~rest_of_allocations(s, rows)]
    rows = rows[~(_in_doubt(s, rows) | _reached(s, rows))]
    first, nr = _runs(s, rows)
    rows = rows[np.repeat(nr < _LARGEST_RUN, nr)]
    if not len(rows):
        return LostPages.empty()
    first, nr = _runs(s, rows)
    # A block is named by its first page, or by any: it is in hand as a whole.
    in_hand = np.repeat(_named(s, rows[first], nr), nr) | _is_at_work(s)
    keep = ~_left_alone(s, rows, _listed(s, rows))
    rows, in_hand = rows[keep], in_hand[keep]
    first, nr = _runs(s, rows)
    found = LostPages(rows[first], nr, in_hand[first])
    return found.take(np.flatnonzero(_in_zone(s, s.pages.memmap.pfns_of_rows(found.row))))


def rest_of_allocations(s: Snapshot, rows: I64) -> Mask:
    """Which of some pages without references may be of an allocation that begins before them."""
    return _left_alone(s, rows, np.isin(rows, s.buddy.cpu_page_row))


def _runs(s: Snapshot, rows: I64) -> tuple[I64, I64]:
    """Where runs of neighbours among some rows begin, and how long they are."""
    first = group_starts(s.pages.memmap.pfns_of_rows(rows) - np.arange(len(rows)))
    return first, np.diff(first, append=len(rows))


def unowned_pages(s: Snapshot) -> I64:
    """Rows of pages without references that are in no free block, on no CPU's list, and of no type."""
    pages, flags = s.pages, s.layout.flags
    words = pages.words
    plain = words.readable & (words.refcount == 0) & (words.type_ == 0)
    for name in ("locked", "head", "reserved", "hwpoison"):
        plain &= ~flags.test(words.flags, name)
    if not plain.any():
        return np.empty(0, np.int64)
    free = s.in_free_block

    def wanted(piece: slice) -> Mask:
        found = plain[pages.number[piece]]
        if found.any():
            at = np.flatnonzero(found) + piece.start
            found[at - piece.start] = ~pages.is_tail[at] & ~free[at]
        return found

    return rows_where(len(pages), wanted)


def _left_alone(s: Snapshot, rows: I64, begins: Mask) -> Mask:
    """Pages that may be of an allocation, or of a block on a list, that begins with them or before them.

    Args:
        s: The snapshot.
        rows: int64[n]; rows of pages without references, ascending.
        begins: bool[n]; those that begin a block.
    """
    if not len(rows):
        return begins
    pfn = s.pages.memmap.pfns_of_rows(rows)
    # Before each run of neighbours is a page that is not among them.
    run = np.zeros(len(rows), np.bool_)
    run[0] = True
    run[1:] = pfn[1:] != pfn[:-1] + 1
    starts = np.flatnonzero(run)
    before = np.maximum(rows[starts] - 1, 0)
    is_first = (rows[starts] > 0) & (s.pages.memmap.pfns_of_rows(before) == pfn[starts] - 1) & _of_kernel(s, before)
    beginning = np.full(len(rows), -1, np.int64)
    beginning[starts] = np.where(is_first, pfn[starts] - 1, -2)
    beginning[begins] = pfn[begins]
    # The nearest one counts: no allocation reaches past the first page of another.
    at = np.maximum.accumulate(np.where(beginning != -1, np.arange(len(rows)), 0))
    head = beginning[at]
    largest = np.int64(1) << int(s.buddy.lists.order.max(initial=0))
    size = np.where(head > 0, np.minimum(head & -head, largest), largest)
    return (head >= 0) & (pfn < head + size)


def _of_kernel(s: Snapshot, rows: I64) -> Mask:
    """Which pages may be the first of several that the kernel allocated for itself."""
    pages, flags = s.pages, s.layout.flags
    own = (pages.refcount[rows] > 0) & np.isin(pages.type_[rows], (0, type_code("table")))
    of_user = flags.test(pages.flags[rows], "lru") | ((pages.mapping[rows] & np.uint64(MAPPING_ANON)) != 0)
    return own & ~of_user & ~pages.is_tail[rows]


def _in_doubt(s: Snapshot, rows: I64) -> Mask:
    """Pages behind a free block that its list has as a larger one than it says itself: which is right is not known."""
    b = s.buddy
    of_list = take_or(b.lists.order, b.blocks.list_idx, -1).astype(np.int64)
    odd = np.flatnonzero(of_list > b.blocks.order)
    odd = odd[np.argsort(b.blocks.row[odd])]
    start = b.blocks.row[odd]
    return rows_covering(start, start + (np.int64(1) << of_list[odd]), rows) >= 0


def _reached(s: Snapshot, rows: I64) -> Mask:
    """Pages that entries map, or that are page tables of some mm: what is wrong with them is a matter of these."""
    tables = s.pages.memmap.rows(s.tables.pfn)
    return (s.counts.page_mappings[rows] > 0) | np.isin(rows, tables)


def _listed(s: Snapshot, rows: I64) -> Mask:
    """Which of some pages, ascending, are on a list: their links lead to something else, and from there back.

    What lies in a page that is on no list any more may lead round among such pages.
    """
    field = s.layout.struct("struct page").field("lru")
    own = s.layout.memmap.page_addrs(s.pages.memmap.pfns_of_rows(rows)) + np.uint64(field.offset)
    raw = s.layout.memory.gather(own, 16)
    following = raw.bytes.view(np.uint64).reshape(-1, 2)[:, 0]
    back, known = s.layout.memory.words(following + np.uint64(8))
    sound = raw.valid & known & (back == own)
    at = rows_of(own, following)
    end = np.where(sound & (at >= 0), at, np.arange(len(rows)))
    for _ in range(len(rows).bit_length()):
        end = end[end]
    # Of a ring of such pages alone no end is one.
    return sound[end] & (at[end] < 0)


def _in_zone(s: Snapshot, pfns: I64) -> Mask:
    """Which page frames are in one zone alone, whose lists are not being changed and which has no other free pages."""
    zones, struct = s.buddy.zones, s.layout.struct("struct zone")
    late = struct.find("trylock_free_pages.first")
    aside = np.zeros(len(zones), np.bool_)
    if late is not None:
        # Pages that could not be freed at once wait there (free_frozen_pages_nolock()).
        waiting, known = s.layout.memory.words(zones.addr + np.uint64(late.offset))
        aside = (waiting != 0) | ~known
    aside |= zones.locked | (zones.unaccepted > 0)
    inside = (pfns[:, None] >= zones.first_pfn) & (pfns[:, None] < zones.end_pfn)
    return (inside.sum(axis=1) == 1) & ~(inside & aside).any(axis=1)


def _named(s: Snapshot, rows: I64, nr: I64) -> Mask:
    """Which runs someone names."""
    start = s.layout.memmap.page_addrs(s.pages.memmap.pfns_of_rows(rows))
    found, _ = who_names(s, start, start + (nr * s.layout.memmap.page_size).astype(np.uint64))
    out = np.zeros(len(rows), np.bool_)
    out[found] = True
    return out


def _is_at_work(s: Snapshot) -> bool:
    """Whether a task is in a function that has pages in hand."""
    return s.stacks.any_in(_IN_HAND)
