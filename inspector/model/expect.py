"""From rebuilt mappings to the values that must be stored, for every accounting scheme.

The closed forms of the steady state: what any sequence of rmap operations leaves behind when none is under way.
mm/rmap.c, __folio_add_rmap() and __folio_remove_rmap(); on 6.1 page_add_anon_rmap(), page_add_file_rmap() and
page_remove_rmap().
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.columns import I32, I64, U8, AnyArray, Mask
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme


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


@dataclass(frozen=True)
class Expected:
    """What must be stored, in the kernel's own -1 based form where it uses one.

    Attributes:
        page_mapcount_raw: int32[pages]; ``_mapcount``.
        entire_raw: int32[folios]; entire mapcount.
        word_raw: int32[folios]; ``_nr_pages_mapped``.
        large_raw: int32[folios]; ``_large_mapcount``.
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
    """
    pte_total = sum_over_folios(rebuilt.page_mappings, rebuilt)
    mapped = sum_over_folios(rebuilt.page_mappings > 0, rebuilt)
    entire = rebuilt.entire.astype(np.int64)
    total = pte_total + entire
    own = ~rebuilt.is_hugetlb
    word = np.zeros(len(entire), np.int64)
    if scheme.has_pages_mapped_word:
        word = np.where(own, mapped + np.where(entire > 0, ENTIRELY_MAPPED, 0), 0)
    large = np.where(own, total, entire) - 1 if scheme.has_large_mapcount else np.full(len(entire), -1, np.int64)
    return Expected(
        page_mapcount_raw=_page_mapcount(scheme, rebuilt, folio_of_page),
        entire_raw=(rebuilt.entire - 1).astype(np.int32),
        word_raw=word.astype(np.int32),
        large_raw=large.astype(np.int32),
        nr_mapped_pages=mapped,
        total=total,
    )


def sum_over_folios(column: AnyArray, rebuilt: Rebuilt) -> I64:
    """Sum of a page column over the pages of each folio; pages beyond the end of the column count nothing."""
    n = len(column)
    size = np.int64(1) << np.minimum(rebuilt.order, 40).astype(np.int64)
    end = np.minimum(rebuilt.head_row + size, n)
    running = np.zeros(n + 1, np.int64)
    np.cumsum(column, out=running[1:])
    return running[end] - running[rebuilt.head_row]


def _page_mapcount(scheme: Scheme, rebuilt: Rebuilt, folio_of_page: I32) -> I32:
    """P - 1 for every page, but for what 6.1 adds and CONFIG_NO_PAGE_MAPCOUNT leaves out."""
    out: I32 = rebuilt.page_mappings - np.int32(1)
    if not len(rebuilt.entire):
        return out
    if scheme is Scheme.OLD:
        # A file THP counts each PMD mapping in every page; a doubly mapped anon THP one more in every page.
        extra = np.where(rebuilt.is_anon, rebuilt.double_map.astype(np.int32), rebuilt.entire)
        extra = np.where(rebuilt.is_hugetlb, 0, extra)
        large = np.flatnonzero(folio_of_page >= 0)
        out[large] += extra[folio_of_page[large]].astype(np.int32)
    elif not scheme.has_page_mapcount:
        large = np.flatnonzero(folio_of_page >= 0)
        out[large[~rebuilt.is_hugetlb[folio_of_page[large]]]] = -1
    return out
