"""Rules of the per-page ``_mapcount``."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS
from inspector.model.scheme import Scheme
from inspector.rules.diagnosis import miscounted
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.violations import Violations, cannot_check, violations
from inspector.windows.grading import count_in_flight
from inspector.windows.window import Effect

_KEPT = tuple(s for s in Scheme if s is not Scheme.NO_PAGE_MAPCOUNT)


def keeps_mapcount(s: Snapshot) -> Mask:
    """Pages whose word is a count: neither typed nor lent to an owner that keeps other things in it."""
    pages = s.pages
    head = np.maximum(pages.head_row, 0)
    ok: Mask = pages.readable & pages.readable[head] & (pages.type_[head] == 0) & (pages.head_row >= 0)
    # Before 6.10 zsmalloc keeps the first object's offset in this word of its movable pages (mm/zsmalloc.c,
    # set_first_obj_offset()); they are told by the mapping tag and never mapped to user space.
    own_word = (pages.mapping[head] & np.uint64(MAPPING_TAGS)) == MAPPING_MOVABLE
    return ok & ~(own_word & (s.counts.page_mappings == 0))


def _compare(s: Snapshot, wrong: Mask, *, bounded: bool) -> Violations:
    """Violations of the pages in ``wrong``; ``bounded`` rules need every page table to have been read."""
    assert s.expected is not None
    checkable = keeps_mapcount(s)
    unchecked = int((~s.pages.readable).sum())
    why = "struct pages are missing" if unchecked else ""
    if bounded and not s.tables_complete:
        return violations(
            np.empty(0, np.int64),
            observed={},
            expected={},
            checked=0,
            unread=cannot_check(
                int(checkable.sum()), "page tables are missing: a count can only be shown to be too low"
            ),
        )
    rows: I64 = np.flatnonzero(wrong & checkable)
    # Only a count that is too high can be work in flight: see rules/windows.py.
    return violations(
        rows,
        observed={"_mapcount": s.pages.mapcount_raw[rows]},
        expected={"_mapcount": s.expected.page_mapcount_raw[rows]},
        checked=int(checkable.sum()),
        unread=cannot_check(unchecked, why),
        facts={"mappings": s.counts.page_mappings[rows]},
        transient=count_in_flight(s, s.pages.head_row[rows]) if bounded else None,
    )


@rule(
    "mapcount-too-low",
    PAGE,
    "mapcount",
    Phase.PAGE_COUNTS,
    effect=Effect.PAGE,
    decides="I1 16 19 21 150",
    schemes=_KEPT,
    diagnose=miscounted,
)
def mapcount_too_low(s: Snapshot) -> Violations:
    """A page is mapped by more page-table entries than its `_mapcount` admits.

    Invariant: page->_mapcount + 1 is the number of PTEs that map the page, counted over all page tables (P). On 6.1 the
        pages of a file THP also count each PMD mapping, and those of a doubly mapped anon THP one more.
    Why: the count is raised before an entry is written and lowered after it is cleared, so that it can lag behind the
        page tables only on the high side. mm/rmap.c, __folio_add_rmap() and __folio_remove_rmap().
    Consequence: the last unmap but one frees a page that is still mapped: use after free, "Bad page map", "Bad page
        state".
    Exceptions: the page has a type (slab, buddy ...), or is hugetlb.
    See also: folioscope folio PFN; every mapping behind the count is listed.
    """
    assert s.expected is not None
    return _compare(s, s.pages.mapcount_raw < s.expected.page_mapcount_raw, bounded=False)


@rule(
    "mapcount-too-high",
    PAGE,
    "mapcount",
    Phase.PAGE_COUNTS,
    effect=Effect.PAGE,
    decides="I1 16 19 21 149",
    schemes=_KEPT,
    diagnose=miscounted,
)
def mapcount_too_high(s: Snapshot) -> Violations:
    """A page's `_mapcount` counts more mappings than the page tables hold.

    Invariant: page->_mapcount + 1 is the number of PTEs that map the page, counted over all page tables (P).
    Why: an entry vanished without folio_remove_rmap_*(), or a mapping was counted that was never made. mm/rmap.c,
        __folio_remove_rmap(); mm/memory.c, zap_present_ptes().
    Consequence: the folio can never be freed or migrated; at exit "Bad rss-counter" or a leak.
    Exceptions: the page has a type, or is hugetlb. Not checked when page tables are missing from the dump.
    See also: folioscope folio PFN; compare its reference count: one reference too many as well means that the whole
        mapping was leaked, otherwise only the count was.
    """
    assert s.expected is not None
    high = s.pages.mapcount_raw > s.expected.page_mapcount_raw
    return _compare(s, high & (s.expected.page_mapcount_raw >= 0), bounded=True)


@rule(
    "mapcount-mapping-missing",
    PAGE,
    "mapcount",
    Phase.PAGE_COUNTS,
    effect=Effect.PAGE,
    decides="16 19 28",
    schemes=_KEPT,
    was="mapcount-without-mapping",
    diagnose=miscounted,
)
def mapcount_mapping_missing(s: Snapshot) -> Violations:
    """A page claims to be mapped but no page table maps it.

    Invariant: a page that nothing maps has _mapcount -1.
    Why: its last entry was lost, with its page table or by a stray write, or the count was never lowered. Only a sweep
        of the whole memory map can see it: no page table leads to such a page.
    Consequence: the page is leaked for good; "Bad rss-counter" when the process that owned it exits.
    Exceptions: the page has a type; the page belongs to zsmalloc of kernels before 6.10, which keeps an offset in the
        same word. Not checked when page tables are missing from the dump.
    See also: folioscope page PFN; folioscope ps shows whose rss is off by as much.
    """
    assert s.expected is not None
    high = s.pages.mapcount_raw > s.expected.page_mapcount_raw
    return _compare(s, high & (s.expected.page_mapcount_raw < 0), bounded=True)
