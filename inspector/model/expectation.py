"""From rebuilt mappings to the values that must be stored, for every accounting scheme.

The closed forms of the steady state: what any sequence of rmap operations leaves behind when none is under way.
mm/rmap.c, __folio_add_rmap() and __folio_remove_rmap(); on 6.1 page_add_anon_rmap(), page_add_file_rmap() and
page_remove_rmap(). In the formulas P is the number of PTEs that map a page, E the number of huge entries that map the
folio as a whole, S the sum of P over its pages, T the number of its pages with P > 0, M = E + S.

`folio_terms` and `page_terms` state each formula once, term by term: `expect` adds the terms up for all folios,
`inspector.model.formulas` writes them out for one. A THP that one process maps by a PMD and another by 3 PTEs (P = 1),
on 6.12: E 1, S 3, T 3, so ::

    _entire_mapcount + 1 = huge entries 1                              stored 0
    _large_mapcount + 1  = PTE 3 + huge entries 1 = 4                  stored 3
    _nr_pages_mapped     = pages 3 + mapped as a whole 0x800000        stored 0x800003
    _mapcount + 1        = PTE 1 (0 on the pages that no PTE maps)     stored 0 (-1)
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import reduce

import numpy as np

from inspector.columns import I32, I64, U8, AnyArray, Column, Mask, prefix_sums
from inspector.model.counters import RmapCounter
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.records import dataclass

_PIECE = 1 << 18
"""Pages worked on at a time: temporaries stay at some MiB however large the machine is."""

_MAX_ORDER = 40
"""Orders above are no folio's; cut off so that a corrupt one cannot overflow."""


@dataclass(frozen=True)
class Rebuilt:
    """Mappings rebuilt from the page tables.

    Attributes:
        page_mappings: int32[pages]; distinct PTE slots that map each page (P).
        head_row: int64[folios]; row among the pages of each large folio's head; its pages follow it.
        order: uint8[folios].
        entire: int32[folios]; distinct huge slots that map the folio (E).
        is_hugetlb, is_anon: bool[folios].
        double_map: bool[folios]; PG_double_map as stored (6.1): the mappings alone do not determine it.
    """

    page_mappings: I32
    head_row: I64
    order: U8
    entire: I32
    is_hugetlb: Mask
    is_anon: Mask
    double_map: Mask

    @property
    def nr_pages(self) -> I64:
        """int64[folios]; pages of each folio, by its order (N)."""
        return np.int64(1) << np.minimum(self.order, _MAX_ORDER).astype(np.int64)


@dataclass(frozen=True)
class Expected:
    """What must be stored, in the kernel's own -1 based form where it uses one.

    Attributes:
        page_mapcount_raw: int32[pages]; ``_mapcount``, worked out for the pages asked for.
        entire_raw: int32[folios]; entire mapcount (E - 1).
        word_raw: int32[folios]; ``_nr_pages_mapped``; 0 where it is not maintained.
        large_raw: int32[folios]; ``_large_mapcount`` (M - 1); -1 where it is not kept.
        nr_mapped_pages: int64[folios]; pages with at least one PTE mapping (T).
        total: int64[folios]; all mappings (M).
    """

    page_mapcount_raw: Column[np.int32] | I32
    entire_raw: I32
    word_raw: I32
    large_raw: I32
    nr_mapped_pages: I64
    total: I64


class CountTerm(Enum):
    """What a counter of a folio is made of."""

    PTE = "PTE"
    """S of a folio, P of a page."""
    HUGE = "huge entries"
    """E."""
    PAGES = "pages mapped by PTEs"
    """T."""
    WHOLE = "mapped as a whole"
    """The bit `ENTIRELY_MAPPED`, where E > 0."""
    DOUBLE_MAP = "PG_double_map"
    """One for every page of an anonymous THP with that flag (6.1)."""


Terms = dict[CountTerm, I64]
"""int64[folios] each; their sum is the count."""

BIAS = {RmapCounter.PAGE: 1, RmapCounter.ENTIRE: 1, RmapCounter.LARGE: 1, RmapCounter.NR_PAGES_MAPPED: 0}
"""What is added to a stored value to get the count: 1 where the kernel counts from -1."""


def folio_terms(scheme: Scheme, entire: I32, ptes: I64, mapped: I64, is_hugetlb: Mask) -> dict[RmapCounter, Terms]:
    """The counters that large folios keep as a whole; those that the scheme does not keep are left out.

    hugetlb counts its huge entries alone and never uses _nr_pages_mapped (hugetlb_add_file_rmap()).

    Args:
        scheme: The kernel's accounting.
        entire: int32[folios]; E.
        ptes: int64[folios]; S.
        mapped: int64[folios]; T.
        is_hugetlb: bool[folios].
    """
    huge, by_page = entire.astype(np.int64), ~is_hugetlb
    if not by_page.all():
        ptes, mapped = ptes * by_page, mapped * by_page
    out = {RmapCounter.ENTIRE: {CountTerm.HUGE: huge}}
    if scheme.has_large_mapcount:
        out[RmapCounter.LARGE] = {CountTerm.PTE: ptes, CountTerm.HUGE: huge}
    if scheme.has_pages_mapped_word:
        whole = ((entire > 0) & by_page) * np.int64(ENTIRELY_MAPPED)
        out[RmapCounter.NR_PAGES_MAPPED] = {CountTerm.PAGES: mapped, CountTerm.WHOLE: whole}
    return out


@dataclass(frozen=True)
class PageTerms:
    """What goes into ``_mapcount`` of every page of a large folio.

    Attributes:
        counts_ptes: bool[folios]; whether the PTEs of the page (P) do.
        of_folio: The terms that are the same for all its pages.
    """

    counts_ptes: Mask
    of_folio: Terms


def page_terms(scheme: Scheme, entire: I32, is_hugetlb: Mask, is_anon: Mask, double_map: Mask) -> PageTerms:
    """The pages of large folios; a small page counts its PTEs alone.

    6.1 adds each PMD mapping to every page of a file THP, and one to every page of a doubly mapped anonymous THP:
    mm/rmap.c, page_add_file_rmap(); mm/huge_memory.c, __split_huge_pmd_locked().

    Args:
        scheme: The kernel's accounting.
        entire: int32[folios]; E.
        is_hugetlb: bool[folios].
        is_anon: bool[folios].
        double_map: bool[folios]; PG_double_map as stored.
    """
    counts = ~is_hugetlb if scheme.has_page_mapcount else np.zeros(len(is_hugetlb), np.bool_)
    if not scheme.double_map:
        return PageTerms(counts, {})
    doubly = (double_map & is_anon & counts).astype(np.int64)
    return PageTerms(counts, {CountTerm.DOUBLE_MAP: doubly, CountTerm.HUGE: np.where(counts & ~is_anon, entire, 0)})


def expect(scheme: Scheme, rebuilt: Rebuilt, folio_of_page: I32) -> Expected:
    """The steady state of every counter.

    Args:
        scheme: The kernel's accounting.
        rebuilt: The mappings.
        folio_of_page: int32[pages]; row of the large folio each page belongs to, -1 for small pages.

    Raises:
        ValueError: ``folio_of_page`` has not one row a page.
    """
    if len(folio_of_page) != len(rebuilt.page_mappings):
        msg = f"{len(rebuilt.page_mappings)} pages, but the folios of {len(folio_of_page)}"
        raise ValueError(msg)
    count = rebuilt.page_mappings
    mapped = _sum_over_folios(len(count), lambda rows: count[rows] > 0, rebuilt)
    ptes = sum_over_folios(count, rebuilt)
    terms = folio_terms(scheme, rebuilt.entire, ptes, mapped, rebuilt.is_hugetlb)
    stored = _page_mapcounts(scheme, rebuilt)
    return Expected(
        page_mapcount_raw=Column(lambda at: stored(folio_of_page[at], count[at]), len(count)),
        entire_raw=_stored(terms, RmapCounter.ENTIRE, len(mapped)),
        word_raw=_stored(terms, RmapCounter.NR_PAGES_MAPPED, len(mapped)),
        large_raw=_stored(terms, RmapCounter.LARGE, len(mapped)),
        nr_mapped_pages=mapped,
        total=ptes + rebuilt.entire,
    )


def expect_page_mapcount(scheme: Scheme, rebuilt: Rebuilt, folio_of_page: I32, first: int = 0) -> I32:
    """What ``_mapcount`` must be for neighbouring pages: P - 1, plus what the scheme adds for the folio.

    Args:
        scheme: The kernel's accounting.
        rebuilt: The mappings; ``page_mappings`` of all pages.
        folio_of_page: int32[n]; row of the large folio of each page wanted, -1 for small pages.
        first: Row of the first of them.

    Returns:
        int32[n]; as stored, -1 for a page that nothing maps. Pages of hugetlb folios never count, pages of any large
        folio do not on CONFIG_NO_PAGE_MAPCOUNT.
    """
    return _page_mapcounts(scheme, rebuilt)(folio_of_page, rebuilt.page_mappings[first : first + len(folio_of_page)])


def _page_mapcounts(scheme: Scheme, rebuilt: Rebuilt) -> Callable[[I32, I32], I32]:
    """From the folios of pages and P of each to what ``_mapcount`` must be."""
    terms = page_terms(scheme, rebuilt.entire, rebuilt.is_hugetlb, rebuilt.is_anon, rebuilt.double_map)
    # Both tables end with a row for small pages, which -1 finds.
    untouched = np.append(~terms.counts_ptes, False)
    of_folio: list[I64] = list(terms.of_folio.values())
    extra = np.append(reduce(np.add, of_folio), 0).astype(np.int32) if of_folio else None
    bias = np.int32(BIAS[RmapCounter.PAGE])

    def stored(folio: I32, mappings: I32) -> I32:
        out: I32 = mappings - bias
        if untouched.any():
            out[untouched[folio]] = -bias
        if extra is not None:
            out += extra[folio]
        return out

    return stored


def _stored(terms: dict[RmapCounter, Terms], counter: RmapCounter, nr: int) -> I32:
    """int32[nr]; the counter as it must be stored; as in a new folio where the scheme does not keep it."""
    if counter not in terms:
        return np.full(nr, -BIAS[counter], np.int32)
    total: I64 = reduce(np.add, terms[counter].values())
    return (total - BIAS[counter]).astype(np.int32)


def sum_over_folios(column: AnyArray, rebuilt: Rebuilt) -> I64:
    """Sum of a page column over the pages of each folio; pages beyond the end of the column count nothing.

    The work is one pass over the column, whatever their orders: corrupt folios may overlap.
    """
    return _sum_over_folios(len(column), column.__getitem__, rebuilt)


def _sum_over_folios(length: int, values: Callable[[slice], AnyArray], rebuilt: Rebuilt) -> I64:
    begin = np.minimum(rebuilt.head_row, length)
    end = np.minimum(rebuilt.head_row + rebuilt.nr_pages, length)
    sums = prefix_sums(length, values, np.concatenate([begin, end]), _PIECE)
    return sums[len(begin) :] - sums[: len(begin)]
