"""Rules of the per-page ``_mapcount``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.columns import I64, Mask
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS
from inspector.model.scheme import Scheme
from inspector.rules.diagnosis import miscounted
from inspector.rules.page_pieces import PagePiece
from inspector.rules.pieces import Judged
from inspector.rules.registry import Phase, page_rule
from inspector.snapshot import Snapshot
from inspector.violations import Details, cannot_check, details, lower_bound, together
from inspector.windows.grading import count_in_flight
from inspector.windows.window import Effect

_KEPT = tuple(s for s in Scheme if s is not Scheme.NO_PAGE_MAPCOUNT)


def keeps_mapcount(p: PagePiece) -> Mask:
    """Pages whose word is a count: neither typed nor used by its owner for other data."""
    ok = p.readable & p.has_head & p.of_head("readable") & (p.of_head("type_") == 0)
    # Before 6.10 zsmalloc keeps the first object's offset in this word of its movable pages (mm/zsmalloc.c,
    # set_first_obj_offset()); they have the mapping tag and are never mapped to user space.
    own_word = (p.of_head("mapping") & np.uint64(MAPPING_TAGS)) == MAPPING_MOVABLE
    return ok & ~(own_word & (p.mapped == 0))


def _too_low(s: Snapshot, rows: I64) -> Details:
    assert s.expected is not None
    return details(
        rows,
        observed={"_mapcount": s.pages.mapcount_raw[rows]},
        expected={"_mapcount": s.expected.page_mapcount_raw[rows]},
        facts={"mappings": s.counts.page_mappings[rows]},
    )


def _too_high(s: Snapshot, rows: I64) -> Details:
    """Only a count that is too high can be work in flight: it is raised before an entry is written."""
    return replace(_too_low(s, rows), transient=count_in_flight(s, s.pages.head_row[rows]))


def _high(p: PagePiece, among: Mask) -> Judged:
    """Counts that are too high, of pages whose every mapping is known."""
    kept = keeps_mapcount(p)
    unknown = cannot_check(p.count(kept & p.maybe_mapped_unseen), lower_bound(p.s))
    kept &= ~p.maybe_mapped_unseen
    return Judged(kept & among & (p.mapcount_raw > p.expected_mapcount), kept, together(unknown, p.unread))


@page_rule(
    "mapcount-too-low",
    _too_low,
    "mapcount",
    Phase.PAGE_COUNTS,
    effect=Effect.PAGE,
    decides="I1 16 19 21 150",
    schemes=_KEPT,
    diagnose=miscounted,
)
def mapcount_too_low(p: PagePiece) -> Judged:
    """_mapcount is lower than the number of PTEs that map the page.

    Invariant: page->_mapcount + 1 is the number of PTEs that map the page, counted over all page tables (P). On 6.1 the
        pages of a file THP also count each PMD mapping, and those of a doubly mapped anon THP one more.
    Why: the count is raised before an entry is written and lowered after it is cleared, so that it can lag behind the
        page tables only on the high side. mm/rmap.c, __folio_add_rmap() and __folio_remove_rmap().
    Consequence: the last unmap but one frees a page that is still mapped: use after free, "Bad page map", "Bad page
        state".
    Exceptions: the page has a type (slab, buddy ...), or is hugetlb.
    See also: folioscope folio PFN; every mapping behind the count is listed.
    """
    return p.judge(p.mapcount_raw < p.expected_mapcount, keeps_mapcount(p))


@page_rule(
    "mapcount-too-high",
    _too_high,
    "mapcount",
    Phase.PAGE_COUNTS,
    effect=Effect.PAGE,
    decides="I1 16 19 21 149",
    schemes=_KEPT,
    diagnose=miscounted,
)
def mapcount_too_high(p: PagePiece) -> Judged:
    """_mapcount is higher than the number of PTEs that map the page.

    Invariant: page->_mapcount + 1 is the number of PTEs that map the page, counted over all page tables (P).
    Why: an entry vanished without folio_remove_rmap_*(), or a mapping was counted that was never made. mm/rmap.c,
        __folio_remove_rmap(); mm/memory.c, zap_present_ptes().
    Consequence: the folio can never be freed or migrated; at exit "Bad rss-counter" or a leak.
    Exceptions: the page has a type, or is hugetlb. Not checked of pages that page tables which are missing or damaged
        may map.
    See also: folioscope folio PFN; compare its reference count: one reference too many as well means that the whole
        mapping was leaked, otherwise only the count was.
    """
    return _high(p, p.expected_mapcount >= 0)


@page_rule(
    "mapcount-mapping-missing",
    _too_high,
    "mapcount",
    Phase.PAGE_COUNTS,
    effect=Effect.PAGE,
    decides="16 19 28",
    schemes=_KEPT,
    was="mapcount-without-mapping",
    diagnose=miscounted,
)
def mapcount_mapping_missing(p: PagePiece) -> Judged:
    """_mapcount counts mappings of a page that no page table maps.

    Invariant: a page that nothing maps has _mapcount -1.
    Why: its last entry was lost, with its page table or by a stray write, or the count was never lowered. Only a sweep
        of the whole memory map can see it: no page table leads to such a page.
    Consequence: the page is leaked for good; "Bad rss-counter" when the process that owned it exits.
    Exceptions: the page has a type; the page belongs to zsmalloc of kernels before 6.10, which keeps an offset in the
        same word. Not checked of pages that page tables which are missing or damaged may map.
    See also: folioscope page PFN; folioscope ps shows whose rss is off by as much.
    """
    return _high(p, p.expected_mapcount < 0)
