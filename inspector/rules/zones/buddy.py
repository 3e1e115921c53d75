"""Rules of the buddy allocator: blocks, their lists, the counters beside them, and the per-CPU lists in front."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, AnyArray, rows_of
from inspector.model.scheme import Scheme
from inspector.rules.diagnosis import double_free
from inspector.rules.needs import PAGES, ZONES
from inspector.rules.pages.free_pages import free_state, in_use_flags
from inspector.rules.registry import Phase, rule
from inspector.rules.settling import settle_by_links
from inspector.snapshot import Snapshot
from inspector.subjects import CPU_LIST, FREE_LIST, PAGE, ZONE
from inspector.tables.buddy import Buddy
from inspector.tables.pageblocks import lists_follow_blocks
from inspector.violations import Violations, cannot_check, one, several, violations

_ORDERS = 64
_WHY_NOT = "zones or their lists are not in the dump"
_MOVED = "free lists changed while they were read"


def _area(zone: AnyArray, order: AnyArray) -> I64:
    """A zone's free_area as one number, by which causes are joined; -1 for no zone."""
    return np.where(zone >= 0, zone.astype(np.int64) * _ORDERS + np.clip(order, 0, _ORDERS - 1), -1)


@rule(
    "free-list-damaged",
    FREE_LIST,
    "buddy",
    Phase.LINKS,
    needs=PAGES | ZONES,
    decides="129",
    settle=settle_by_links,
)
def free_list_damaged(s: Snapshot) -> Violations:
    """A free list of the buddy allocator leads to a page that is no free block, or its links disagree.

    Invariant: each entry of zone->free_area[order].free_list[migratetype] is the lru member of a page of type buddy;
        the next one's back link names it.
    Why: include/linux/list.h, __list_add(); mm/page_alloc.c, __add_to_free_list() and __del_page_from_free_list().
    Consequence: the next allocation follows the link: it hands out memory that is in use, or list_del() finds
        corruption.
    Exceptions: zone->lock is held.
    See also: folioscope page PFN
    """
    b = s.buddy
    rows = np.flatnonzero(b.lists.damaged)
    zone, order = b.lists.zone_idx[rows], b.lists.order[rows]
    return violations(
        rows,
        observed={"first_wrong_link": b.lists.first_wrong[rows]},
        expected={},
        checked=len(b.lists),
        unread=cannot_check(b.unreadable, _WHY_NOT),
        claims=one("free_area", _area(zone, order)),
        transient=b.zones.locked[zone],
    )


@rule(
    "free-block-list-mismatch",
    PAGE,
    "buddy",
    Phase.LINKS,
    after=("free-list-damaged",),
    needs=PAGES | ZONES,
    decides="129",
    was="free-block-misplaced",
)
def free_block_list_mismatch(s: Snapshot) -> Violations:
    """A page of type buddy is on no free list, or on one of another order or zone.

    Invariant: a page has the buddy type exactly while it is the first of a block on the list of its zone and of the
        order in its private; its page frame is a multiple of the block's size.
    Why: mm/page_alloc.c, set_buddy_order() and __add_to_free_list(); __free_one_page() joins blocks by these.
    Consequence: the block is lost, or joined with memory that is not free.
    Exceptions: the lock of a zone is held. Of a kernel that ran on while it was read, a list changes before it is read
        to its end: blocks behind that place, whose neighbours name them, are not checked.
    See also: folioscope page PFN
    """
    b = s.buddy
    blocks, lists, zones = b.blocks, b.lists, b.zones
    pfn = s.pages.memmap.pfns_of_rows(blocks.row)
    on = np.maximum(blocks.list_idx, 0)
    zone = _zone_of(b, pfn)
    listed = blocks.list_idx >= 0
    wrong = (~listed & ~blocks.behind) | (zone < 0)
    size = np.int64(1) << np.clip(blocks.order, 0, 40)
    wrong |= pfn % size != 0
    if len(lists):
        wrong |= listed & ((blocks.order != lists.order[on]) | (_span(b, lists.zone_idx[on], pfn)))
    rows = np.flatnonzero(wrong) if not b.unreadable else np.empty(0, np.int64)
    nr_behind = int(blocks.behind.sum())
    stored, expected = blocks.order[rows], lists.order[on[rows]] if len(lists) else blocks.order[rows]
    return violations(
        blocks.row[rows],
        observed={"order": stored, "on_a_list": listed[rows]},
        expected={"order": np.where(listed[rows], expected, stored), "on_a_list": np.ones(len(rows), np.bool_)},
        checked=len(blocks) - nr_behind,
        unread=cannot_check(nr_behind, _MOVED) if nr_behind else cannot_check(b.unreadable, _WHY_NOT),
        claims=one("free_area", _area(zone[rows], np.where(listed[rows], expected, stored))),
        depends=one("free_area", _area(zone[rows], stored)),
        transient=np.full(len(rows), bool(zones.locked.any())),
    )


@rule(
    "free-block-type-mismatch",
    PAGE,
    "buddy",
    Phase.LINKS,
    after=("free-block-list-mismatch",),
    needs=PAGES | ZONES,
    decides="129",
    schemes=(Scheme.LARGE, Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT),
    was="free-block-of-another-type",
)
def free_block_type_mismatch(s: Snapshot) -> Violations:
    """A free block is on the list of another migration type than its page block has.

    Invariant: the list of a free block is that of the type in its page block's bits (pageblock_flags); isolated page
        blocks have a list of their own. Kernels before 6.10 do not keep this and are not checked.
    Why: mm/page_alloc.c, __add_to_free_list() and move_to_free_list() warn where it is not so; blocks are moved before
        the type is changed (__move_freepages_block()).
    Consequence: kernel memory that cannot move settles among movable pages, or isolated memory is handed out; free
        pages are counted for the wrong type.
    Exceptions: zone->lock is held.
    See also: folioscope page PFN
    """
    b, blocks, lists = s.buddy, s.buddy.blocks, s.buddy.lists
    at = np.flatnonzero(blocks.list_idx >= 0) if lists_follow_blocks(s.layout) else np.empty(0, np.int64)
    on = blocks.list_idx[at]
    types = s.free_block_types.take(at)
    unread = int((~types.known).sum())
    wrong = np.flatnonzero(types.known & (types.migratetype != lists.migratetype[on]))
    names = _migratetype_names(s)
    zone, order = lists.zone_idx[on[wrong]], lists.order[on[wrong]]
    area = _area(zone, order)
    apart = _counted_apart(s, types.migratetype[wrong]) | _counted_apart(s, lists.migratetype[on[wrong]])
    return violations(
        blocks.row[at[wrong]],
        observed={"on_the_list_of": names[lists.migratetype[on[wrong]]]},
        expected={"on_the_list_of": names[types.migratetype[wrong]]},
        checked=len(at) - unread,
        unread=cannot_check(unread, "bits of page blocks are not in the dump"),
        facts={"order": order, "page_block": types.block[wrong]},
        claims=one("page_block", types.block[wrong]) + one("free_type", np.where(apart, area, -1)),
        depends=one("free_area", area),
        transient=b.zones.locked[zone],
    )


def _migratetype_names(s: Snapshot) -> AnyArray:
    """By number of a migration type its name."""
    names = np.full(256, "?", dtype="<U32")
    for name, number in s.layout.enum("enum migratetype").items():
        if 0 <= number < len(names) and not name.endswith(("TYPES", "TYPE_END")):
            names[number] = name.removeprefix("MIGRATE_")
    return names


def _counted_apart(s: Snapshot, migratetypes: AnyArray) -> AnyArray:
    """Types whose pages are not simply free ones: isolated ones, and those of CMA."""
    types = s.layout.enum("enum migratetype")
    apart = [types[name] for name in ("MIGRATE_ISOLATE", "MIGRATE_CMA") if name in types]
    return np.isin(migratetypes, apart)


def _zone_of(b: Buddy, pfn: I64) -> I64:
    """Row of the zone that spans each page frame; of a block that is listed its list's, as spans may overlap."""
    out = np.full(len(pfn), -1, np.int64)
    for row, (first, end) in enumerate(zip(b.zones.first_pfn.tolist(), b.zones.end_pfn.tolist(), strict=True)):
        out[(pfn >= first) & (pfn < end)] = row
    if len(b.lists):
        listed = b.blocks.list_idx >= 0
        out[listed] = b.lists.zone_idx[b.blocks.list_idx[listed]]
    return out


def _span(b: Buddy, zone: AnyArray, pfn: I64) -> AnyArray:
    """Page frames outside the span of the given zones."""
    return (pfn < b.zones.first_pfn[zone]) | (pfn >= b.zones.end_pfn[zone])


def _pages_of(b: Buddy, migratetypes: list[int], *, without: bool) -> I64:
    """int64[zones]; pages in blocks on the lists of some migration types, or on all but theirs."""
    on = b.blocks.list_idx[b.blocks.list_idx >= 0]
    wanted = np.isin(b.lists.migratetype[on], migratetypes) != without
    on = on[wanted]
    pages = np.int64(1) << b.lists.order[on].astype(np.int64)
    return np.bincount(b.lists.zone_idx[on], weights=pages.astype(np.float64), minlength=len(b.zones)).astype(np.int64)


@rule(
    "free-area-count-mismatch",
    ZONE,
    "buddy",
    Phase.TOTALS,
    needs=PAGES | ZONES,
    decides="129",
)
def free_area_count_mismatch(s: Snapshot) -> Violations:
    """nr_free of a zone's free_area is not the number of blocks on its lists.

    Invariant: free_area[order].nr_free is the number of blocks on the lists of all migration types of that order.
    Why: mm/page_alloc.c, __add_to_free_list() and __del_page_from_free_list().
    Consequence: the watermark test passes for an order that has no block, or fails although there are some.
    Exceptions: zone->lock is held.
    See also: folioscope info
    """
    b = s.buddy
    lists = b.lists
    orders = int(lists.order.max(initial=-1)) + 1
    on = b.blocks.list_idx[b.blocks.list_idx >= 0]
    cell = lists.zone_idx.astype(np.int64) * orders + lists.order
    found = np.bincount(cell[on], minlength=len(b.zones) * orders).astype(np.int64)
    stored = np.zeros(len(b.zones) * orders, np.int64)
    stored[cell] = lists.nr_free
    rows = np.flatnonzero(found != stored) if not b.unreadable else np.empty(0, np.int64)
    zone, order = (rows // orders, rows % orders) if orders else (rows, rows)
    return violations(
        zone,
        observed={"nr_free": stored[rows]},
        expected={"nr_free": found[rows]},
        checked=len(found),
        unread=cannot_check(b.unreadable, _WHY_NOT),
        facts={"order": order},
        claims=one("zone_free", zone),
        depends=one("free_area", _area(zone, order)),
        transient=b.zones.locked[zone],
    )


@rule(
    "zone-free-pages-mismatch",
    ZONE,
    "buddy",
    Phase.TOTALS,
    after=("free-area-count-mismatch",),
    needs=PAGES | ZONES,
    decides="130",
    severity="warn",
)
def zone_free_pages_mismatch(s: Snapshot) -> Violations:
    """NR_FREE_PAGES of a zone is not the number of pages on its free lists.

    Invariant: NR_FREE_PAGES, its per-CPU parts added, is the number of pages in the blocks of all lists but those of
        isolated page blocks, and memory not accepted yet; NR_FREE_CMA_PAGES those of the CMA lists. Pages on per-CPU
        lists count in neither.
    Why: mm/page_alloc.c, account_freepages() (__mod_zone_freepage_state() before 6.10).
    Consequence: reclaim begins too early or too late; MemFree is wrong.
    Exceptions: zone->lock is held.
    See also: folioscope info
    """
    b = s.buddy
    types = s.layout.enum("enum migratetype")
    isolated = [types[name] for name in ("MIGRATE_ISOLATE",) if name in types]
    cma = [types[name] for name in ("MIGRATE_CMA",) if name in types]
    free = _pages_of(b, isolated, without=True) + b.zones.unaccepted
    free_cma = _pages_of(b, cma, without=False)
    wrong = (free != b.zones.free_pages) | (free_cma != b.zones.free_cma)
    rows = np.flatnonzero(wrong) if not b.unreadable else np.empty(0, np.int64)
    orders = int(b.lists.order.max(initial=-1)) + 1
    at = np.repeat(np.arange(len(rows)), orders)
    areas = _area(rows[at], np.tile(np.arange(orders), len(rows)))
    causes = several("free_area", at, areas) + several("free_type", at, areas)
    return violations(
        rows,
        observed={"NR_FREE_PAGES": b.zones.free_pages[rows], "NR_FREE_CMA_PAGES": b.zones.free_cma[rows]},
        expected={"NR_FREE_PAGES": free[rows], "NR_FREE_CMA_PAGES": free_cma[rows]},
        checked=len(b.zones),
        unread=cannot_check(b.unreadable, _WHY_NOT),
        depends=one("zone_free", rows) + causes,
        transient=b.zones.locked[rows],
    )


@rule(
    "cpu-free-list-mismatch",
    CPU_LIST,
    "buddy",
    Phase.LINKS,
    needs=PAGES | ZONES,
    decides="130",
)
def cpu_free_list_mismatch(s: Snapshot) -> Violations:
    """A CPU's list of free pages is damaged, or its count is not the number of pages on it.

    Invariant: per_cpu_pages->count is the number of pages in the blocks on its lists; their links agree.
    Why: mm/page_alloc.c, free_frozen_page_commit() (free_unref_page_commit()) and free_pcppages_bulk().
    Consequence: draining frees too little or runs into an empty list; a list that leads astray hands out foreign
        memory.
    Exceptions: the lock of the lists is held.
    See also: folioscope info
    """
    b = s.buddy
    table = b.cpu_lists
    wrong = (table.broken | (table.count != table.held)) & ~table.unread
    nr_unread = int(table.unread.sum())
    why = "struct pages are missing" if s.pages.nr_unreadable else _MOVED
    rows = np.flatnonzero(wrong) if not b.unreadable else np.empty(0, np.int64)
    return violations(
        rows,
        observed={"count": table.count[rows], "damaged": table.broken[rows]},
        expected={"count": table.held[rows], "damaged": np.zeros(len(rows), np.bool_)},
        checked=len(table) - nr_unread,
        unread=cannot_check(nr_unread, why) if nr_unread else cannot_check(b.unreadable, _WHY_NOT),
        transient=table.locked[rows],
    )


@rule(
    "cpu-free-page-state-unexpected",
    PAGE,
    "buddy",
    Phase.STRUCTURES,
    needs=PAGES | ZONES,
    decides="131",
    was="cpu-free-page-in-use",
    diagnose=double_free,
)
def cpu_free_page_state_unexpected(s: Snapshot) -> Violations:
    """A page on a CPU's list of free pages is referenced, typed, or marked as in use.

    Invariant: pages are tested before they are put on these lists: no reference, no mapping pointer, no page type, none
        of the flags that say who works with the page, no memory cgroup that is charged, no page pool.
    Why: mm/page_alloc.c, free_pages_prepare(); check_new_pages() tests again when they are handed out.
    Consequence: the page was freed while in use: the next allocation on that CPU hands it out a second time.
    Exceptions: the lock of the lists is held.
    See also: folioscope page PFN
    """
    b, pages = s.buddy, s.pages
    at = np.flatnonzero(b.cpu_page_row >= 0)
    head = b.cpu_page_row[at]
    marked = pages.flags[head] & in_use_flags(s)
    bad = (pages.refcount[head] != 0) | (pages.mapping[head] != 0) | (marked != 0) | (pages.type_[head] != 0)
    wrong = np.flatnonzero((bad | (rows_of(s.claimed_pages.row, head) >= 0)) & pages.readable[head])
    rows = head[wrong]
    state = free_state(s, rows)
    return violations(
        rows,
        observed=state.observed,
        expected=state.expected,
        checked=len(at),
        unread=cannot_check(b.unreadable, _WHY_NOT),
        facts={"type": s.page_type_names(rows)},
        transient=b.cpu_lists.locked[b.cpu_page_list[at[wrong]]],
    )
