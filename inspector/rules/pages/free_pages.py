"""Rules of free pages: what the kernel itself tests when it frees and allocates."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.rules.diagnosis import freed_in_use
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO, PAGE
from inspector.violations import Violations, unread_folios, unread_pages, violations
from inspector.windows.window import Effect


@rule(
    "free-page-mapcount-unexpected",
    PAGE,
    "free",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    decides="I18 131",
    was="free-page-with-count",
    diagnose=freed_in_use,
)
def free_page_mapcount_unexpected(s: Snapshot) -> Violations:
    """A page without references still carries a mapcount.

    Invariant: when the last reference of a page goes, its _mapcount is -1.
    Why: mm/page_alloc.c, free_page_is_bad() and page_expected_state() print "Bad page state" over it.
    Consequence: the page was freed while it was counted as mapped, or written to after it was freed.
    Exceptions: the page has a type; it is a tail of a compound page (rules of its folio).
    See also: folioscope page PFN
    """
    pages = s.pages
    free = pages.readable & (pages.refcount == 0) & (pages.type_ == 0) & ~pages.is_tail
    rows: I64 = np.flatnonzero(free & (pages.mapcount_raw != -1))
    return violations(
        rows,
        observed={"_mapcount": pages.mapcount_raw[rows]},
        expected={"_mapcount": np.full(len(rows), -1)},
        checked=int(free.sum()),
        unread=unread_pages(s),
    )


@rule(
    "free-page-state-unexpected",
    PAGE,
    "free",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    decides="I18 129",
    was="free-page-in-use",
    diagnose=freed_in_use,
)
def free_page_state_unexpected(s: Snapshot) -> Violations:
    """A page inside a free block of the buddy allocator has a mapping, a reference or a flag of a page in use.

    Invariant: every page of a free block has no reference, no mapping pointer, none of the flags that say who works
        with the page (locked, lru, active, unevictable, mlocked, writeback, private, reserved) and, but for the block's
        first page that carries the buddy type, _mapcount -1.
    Why: mm/page_alloc.c, free_pages_prepare() tests PAGE_FLAGS_CHECK_AT_FREE and clears PAGE_FLAGS_CHECK_AT_PREP;
        __free_one_page() joins blocks of such pages.
    Consequence: the page was freed while in use: it will be handed out a second time.
    Exceptions: the block's pages are not all in the dump.
    See also: folioscope page PFN
    """
    pages = s.pages
    inside: I64 = s.buddy_pages
    marked = pages.flags[inside] & in_use_flags(s)
    bad = (pages.refcount[inside] != 0) | (pages.mapping[inside] != 0) | (marked != 0)
    wrong = np.flatnonzero(bad & pages.readable[inside])
    rows, words = inside[wrong], marked[wrong]
    flags = np.array([",".join(s.layout.flags.names(word)) for word in words.tolist()], dtype=np.str_)
    return violations(
        rows,
        observed={"_refcount": pages.refcount[rows], "mapping": pages.mapping[rows], "flags": flags},
        expected={
            "_refcount": np.zeros(len(rows), np.int64),
            "mapping": np.zeros(len(rows), np.int64),
            "flags": np.full(len(rows), ""),
        },
        checked=len(inside),
        unread=unread_pages(s),
    )


_IN_USE = ("locked", "lru", "active", "unevictable", "mlocked", "writeback", "private", "private_2", "reserved")


def in_use_flags(s: Snapshot) -> np.uint64:
    """The flags of PAGE_FLAGS_CHECK_AT_FREE that this kernel has (include/linux/page-flags.h)."""
    mask = np.uint64(0)
    for name in _IN_USE:
        mask |= s.layout.flags.mask(name)
    return mask


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
    """A compound page without references still counts pins.

    Invariant: _pincount of a compound page without references is 0.
    Why: each pin holds a reference. mm/gup.c, try_grab_folio(); mm/page_alloc.c, free_tail_page_prepare() tests it.
    Consequence: a device may still write to a page that belongs to somebody else.
    Exceptions: the compound page is a slab or another typed page.
    See also: folioscope folio PFN
    """
    folios, pages = s.folios, s.pages
    free = folios.readable & (pages.refcount[folios.row] == 0) & ((pages.type_[folios.row] == 0) | folios.is_hugetlb)
    rows = np.flatnonzero(free & (folios.pincount != 0))
    return violations(
        rows,
        observed={"_pincount": folios.pincount[rows]},
        expected={"_pincount": np.zeros(len(rows), np.int64)},
        checked=int(free.sum()),
        unread=unread_folios(s),
    )
