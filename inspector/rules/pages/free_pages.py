"""Rules of free pages: what the kernel itself tests when it frees and allocates."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, rows_of, take_or
from inspector.layout.flags import type_code
from inspector.rules.diagnosis import freed_in_use
from inspector.rules.page_pieces import PagePiece
from inspector.rules.pieces import Judged
from inspector.rules.registry import Phase, page_rule, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO
from inspector.violations import Details, Violations, details, unread_folios, violations
from inspector.windows.window import Effect


def _mapcount(s: Snapshot, rows: I64) -> Details:
    return details(rows, observed={"_mapcount": s.pages.mapcount_raw[rows]}, expected={"_mapcount": -1})


@page_rule(
    "free-page-mapcount-unexpected",
    _mapcount,
    "free",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    decides="I18 131",
    was="free-page-with-count",
    diagnose=freed_in_use,
)
def free_page_mapcount_unexpected(p: PagePiece) -> Judged:
    """A page without references has a _mapcount other than -1.

    Invariant: when the last reference of a page goes, its _mapcount is -1.
    Why: mm/page_alloc.c, free_page_is_bad() and page_expected_state() print "Bad page state" over it.
    Consequence: the page was freed while it was counted as mapped, or written to after it was freed.
    Exceptions: the page has a type; it is a tail of a compound page (rules of its folio).
    See also: folioscope page PFN
    """
    free = p.readable & (p.refcount == 0) & (p.type == 0) & ~p.is_tail
    return p.judge(p.mapcount_raw != -1, free)


_KEPT = ("head", "hwpoison")
"""Flags that are not asked of free pages: the rules of compound pages find the first, and broken memory keeps the other
(mm/page_alloc.c, check_new_page_bad())."""


def in_use_flags(s: Snapshot) -> np.uint64:
    """The flags that no free page has, PAGE_FLAGS_CHECK_AT_PREP (include/linux/page-flags.h)."""
    flags, mask = s.layout.flags, np.uint64(s.layout.lru_bits)
    for bit in flags.bits.values():
        mask |= np.uint64(1) << np.uint64(bit)
    for name in _KEPT:
        mask &= ~flags.mask(name)
    return mask


def free_state(s: Snapshot, rows: I64) -> Details:
    """What page_expected_state() tests of free pages (mm/page_alloc.c), but for _mapcount."""
    pages, claimed = s.pages, s.claimed_pages
    at = rows_of(claimed.row, rows)
    return details(
        rows,
        observed={
            "_refcount": pages.refcount[rows],
            "mapping": pages.mapping[rows],
            "flags": s.layout.flags.listed(pages.flags[rows] & in_use_flags(s)),
            "memcg_data": take_or(claimed.memcg_data, at, 0),
            "page_pool": take_or(claimed.is_pooled, at, False),
        },
        expected={"_refcount": 0, "mapping": 0, "flags": "", "memcg_data": 0, "page_pool": False},
    )


@page_rule(
    "free-page-state-unexpected",
    free_state,
    "free",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    decides="I18 129",
    was="free-page-in-use",
    diagnose=freed_in_use,
)
def free_page_state_unexpected(p: PagePiece) -> Judged:
    """A page in a free block has a reference, a mapping, an owner or a flag of a page in use.

    Invariant: every page of a free block has no reference, no mapping pointer, no page flag, no generation of an LRU
        list and, but for the block's first page that carries the buddy type, _mapcount -1. No memory cgroup is charged
        for it (memcg_data), and it belongs to no page pool (pp_magic).
    Why: mm/page_alloc.c, page_expected_state(), by which free_pages_prepare() and check_new_page() print "Bad page
        state", the latter over PAGE_FLAGS_CHECK_AT_PREP, which freeing clears; __free_one_page() joins blocks of such
        pages. include/linux/mm.h, page_pool_page_is_pp().
    Consequence: the page was freed while in use: it will be allocated a second time.
    Exceptions: the block's pages are not all in the dump; PG_reported of a block's first page (mm/page_reporting.c);
        PG_hwpoison.
    See also: folioscope page PFN
    """
    flags = p.flags & in_use_flags(p.s)
    flags[p.type == type_code("buddy")] &= ~p.s.layout.flags.mask("reported")
    in_use = (p.refcount != 0) | (p.mapping != 0) | (flags != 0) | p.is_claimed
    return Judged(in_use & p.in_free_block & p.readable, p.in_free_block, p.unread)


@rule(
    "free-folio-pincount-unexpected",
    FOLIO,
    "free",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    decides="I18 70",
    was="free-folio-with-pins",
    diagnose=freed_in_use,
)
def free_folio_pincount_unexpected(s: Snapshot) -> Violations:
    """A compound page without references has a _pincount other than 0.

    Invariant: _pincount of a compound page without references is 0.
    Why: each pin holds a reference. mm/gup.c, try_grab_folio(); mm/page_alloc.c, free_tail_page_prepare() tests it.
    Consequence: a device may still write to the page after it was allocated to another owner.
    Exceptions: the compound page is a slab or another typed page.
    See also: folioscope folio PFN
    """
    folios, pages = s.folios, s.pages
    free = folios.readable & (pages.refcount[folios.row] == 0) & ((pages.type_[folios.row] == 0) | folios.is_hugetlb)
    rows = np.flatnonzero(free & (folios.pincount != 0))
    return violations(
        rows,
        observed={"_pincount": folios.pincount[rows]},
        expected={"_pincount": 0},
        checked=free,
        unread=unread_folios(s),
    )
