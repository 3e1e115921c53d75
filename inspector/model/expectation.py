"""From rebuilt mappings to the values that must be stored, for every accounting scheme.

The closed forms of the steady state: what any sequence of rmap operations leaves behind when none is under way.
mm/rmap.c, __folio_add_rmap() and __folio_remove_rmap(); on 6.1 page_add_anon_rmap(), page_add_file_rmap() and
page_remove_rmap(). In the formulas P is the number of PTEs that map a page, E the number of huge entries that map the
folio as a whole, S the sum of P over its pages, T the number of its pages with P > 0, M = E + S.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.columns import I32, I64, U8, AnyArray, Mask
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme

_PIECE = 1 << 20
"""Pages worked on at a time: temporaries stay at some MiB however large the machine is."""

_MAX_ORDER = 40
"""Orders above are no folio's; cut off so that a corrupt one cannot overflow."""


@dataclass(frozen=True)
class Rebuilt:
    """What the page tables say.

    Attributes:
        page_mappings: int32[pages]; distinct PTE slots that map each page (P).
        head_row: int64[folios]; row among the pages of each large folio's head; its pages follow it.
        order: uint8[folios].
        entire: int32[folios]; distinct huge slots that map the folio (E).
        is_hugetlb, is_anon: bool[folios].
        double_map: bool[folios]; PG_double_map as stored (6.1): it cannot be told from the mappings alone.
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
        page_mapcount_raw: int32[pages]; ``_mapcount``.
        entire_raw: int32[folios]; entire mapcount (E - 1).
        word_raw: int32[folios]; ``_nr_pages_mapped``; 0 where it is not maintained.
        large_raw: int32[folios]; ``_large_mapcount`` (M - 1); -1 where it is not kept.
        nr_mapped_pages: int64[folios]; pages with at least one PTE mapping (T).
        total: int64[folios]; all mappings (M).
    """

    page_mapcount_raw: I32
    entire_raw: I32
    word_raw: I32
    large_raw: I32
    nr_mapped_pages: I64
    total: I64


def expect(scheme: Scheme, rebuilt: Rebuilt, folio_of_page: I32) -> Expected:
    """The steady state of every counter.

    Args:
        scheme: The kernel's accounting.
        rebuilt: The mappings.
        folio_of_page: int32[pages]; row of the large folio each page belongs to, -1 for small pages.

    Raises:
        ValueError: ``folio_of_page`` does not tell of every page.
    """
    if len(folio_of_page) != len(rebuilt.page_mappings):
        msg = f"{len(rebuilt.page_mappings)} pages, but the folios of {len(folio_of_page)}"
        raise ValueError(msg)
    mapped = sum_over_folios(rebuilt.page_mappings > 0, rebuilt)
    total = sum_over_folios(rebuilt.page_mappings, rebuilt) + rebuilt.entire
    page_mapcount = np.empty(len(folio_of_page), np.int32)
    for first in range(0, len(folio_of_page), _PIECE):
        piece = folio_of_page[first : first + _PIECE]
        page_mapcount[first : first + _PIECE] = expect_page_mapcount(scheme, rebuilt, piece, first)
    return Expected(
        page_mapcount_raw=page_mapcount,
        entire_raw=(rebuilt.entire - 1).astype(np.int32),
        word_raw=_word(scheme, rebuilt, mapped),
        large_raw=_large(scheme, rebuilt, total),
        nr_mapped_pages=mapped,
        total=total,
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
    out: I32 = rebuilt.page_mappings[first : first + len(folio_of_page)] - np.int32(1)
    # Both tables end with a row for small pages, which -1 finds.
    untouched = np.append(rebuilt.is_hugetlb | (not scheme.has_page_mapcount), False)
    if untouched.any():
        out[untouched[folio_of_page]] = -1
    if scheme.double_map:
        out += np.append(_extra(rebuilt), np.int32(0))[folio_of_page]
    return out


def _extra(rebuilt: Rebuilt) -> I32:
    """What 6.1 adds in every page: each PMD mapping for a file THP, one for a doubly mapped anonymous one.

    mm/rmap.c, page_add_file_rmap(); mm/huge_memory.c, __split_huge_pmd_locked().
    """
    extra = np.where(rebuilt.is_anon, rebuilt.double_map, rebuilt.entire)
    return np.where(rebuilt.is_hugetlb, 0, extra).astype(np.int32)


def _word(scheme: Scheme, rebuilt: Rebuilt, mapped: I64) -> I32:
    """T, and the bit that says "as a whole"; hugetlb never uses the word (hugetlb_add_file_rmap())."""
    if not scheme.has_pages_mapped_word:
        return np.zeros(len(mapped), np.int32)
    word = mapped + np.where(rebuilt.entire > 0, ENTIRELY_MAPPED, 0)
    return np.where(rebuilt.is_hugetlb, 0, word).astype(np.int32)


def _large(scheme: Scheme, rebuilt: Rebuilt, total: I64) -> I32:
    """M - 1; hugetlb counts its huge entries alone."""
    if not scheme.has_large_mapcount:
        return np.full(len(total), -1, np.int32)
    return (np.where(rebuilt.is_hugetlb, rebuilt.entire, total) - 1).astype(np.int32)


def sum_over_folios(column: AnyArray, rebuilt: Rebuilt) -> I64:
    """Sum of a page column over the pages of each folio; pages beyond the end of the column count nothing.

    The work is one pass over the column, whatever the folios claim to be: corrupt ones may overlap.
    """
    begin = np.minimum(rebuilt.head_row, len(column))
    end = np.minimum(rebuilt.head_row + rebuilt.nr_pages, len(column))
    sums = _prefix_sums(column, np.concatenate([begin, end]))
    return sums[len(begin) :] - sums[: len(begin)]


def _prefix_sums(column: AnyArray, at: I64) -> I64:
    """Sum of the column before each of the given rows, in any order."""
    out = np.zeros(len(at), np.int64)
    order = np.argsort(at, kind="stable")
    places = at[order]
    before = np.int64(0)
    running = np.zeros(min(_PIECE, len(column)) + 1, np.int64)
    for first in range(0, len(column), _PIECE):
        piece = column[first : first + _PIECE]
        np.cumsum(piece, dtype=np.int64, out=running[1 : len(piece) + 1])
        low, high = np.searchsorted(places, [first + 1, first + len(piece) + 1])
        out[order[low:high]] = before + running[places[low:high] - first]
        before += running[len(piece)]
    return out
