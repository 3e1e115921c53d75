"""What the node counters of mapped memory and the rss counters of an mm must add up to.

mm/rmap.c, __folio_mod_stat() (lruvec and node updates of every rmap operation); include/linux/mm.h, mm_counter() and
mm_counter_file(). Everything is counted in base pages.
"""

from __future__ import annotations

from dataclasses import fields
from enum import IntEnum

import numpy as np

from inspector.columns import I32, I64, U8, AnyArray, Column, Mask, spans
from inspector.model.expectation import Expected, Rebuilt
from inspector.model.scheme import Scheme
from inspector.records import dataclass

HPAGE_PMD_ORDER = 9
"""Order of a folio that one PMD maps, with 4 KiB pages."""


class RssKind(IntEnum):
    """The rss counters of an mm, in the kernel's order (include/linux/mm_types_task.h)."""

    FILE = 0
    ANON = 1
    SWAP = 2
    SHMEM = 3


@dataclass(frozen=True)
class PagePlacement:
    """Where the pages and folios of a `Rebuilt` are, and of what kind.

    Attributes:
        folio_of_page: int32[pages]; row of the large folio each page belongs to, -1 for small pages.
        page_node: int[pages]; NUMA node.
        page_is_anon: bool[pages]; read for small pages only.
        folio_node: int[folios]; NUMA node.
        folio_is_swapbacked: bool[folios]; PG_swapbacked: set for shmem, clear for other files.
    """

    folio_of_page: I32
    page_node: AnyArray | Column[np.uint8] | Column[np.int64]
    page_is_anon: Mask | Column[np.bool_]
    folio_node: AnyArray
    folio_is_swapbacked: Mask


@dataclass(frozen=True)
class NodeStats:
    """Totals per NUMA node, int64[nodes] each, in pages.

    Attributes:
        nr_anon_mapped: NR_ANON_MAPPED.
        nr_file_mapped: NR_FILE_MAPPED.
        nr_anon_thps: NR_ANON_THPS: anonymous folios while a PMD maps them.
        nr_shmem_pmdmapped: NR_SHMEM_PMDMAPPED.
        nr_file_pmdmapped: NR_FILE_PMDMAPPED.
    """

    nr_anon_mapped: I64
    nr_file_mapped: I64
    nr_anon_thps: I64
    nr_shmem_pmdmapped: I64
    nr_file_pmdmapped: I64

    def __add__(self, other: NodeStats) -> NodeStats:
        return NodeStats(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def mapped_pages(scheme: Scheme, rebuilt: Rebuilt, expected: Expected) -> I64:
    """int64[folios]; a large folio's share of NR_ANON_MAPPED or NR_FILE_MAPPED.

    All its pages while a huge entry maps it, else those that a PTE maps. Without page counts, all its pages as soon as
    anything maps it. hugetlb has no share.
    """
    if scheme.has_page_mapcount:
        share = np.where(rebuilt.entire > 0, rebuilt.nr_pages, expected.nr_mapped_pages)
    else:
        share = np.where(expected.total > 0, rebuilt.nr_pages, 0)
    return np.where(rebuilt.is_hugetlb, 0, share)


def pmd_mapped_pages(rebuilt: Rebuilt, pmd_order: int = HPAGE_PMD_ORDER) -> I64:
    """int64[folios]; a folio's share of NR_ANON_THPS, NR_SHMEM_PMDMAPPED or NR_FILE_PMDMAPPED.

    Only a folio of just that order can be mapped by a PMD; a PUD leaf (7.x) adds nothing.

    Args:
        rebuilt: The mappings.
        pmd_order: Order of the folio that one PMD maps.
    """
    by_pmd = (rebuilt.entire > 0) & (rebuilt.order == pmd_order) & ~rebuilt.is_hugetlb
    return np.where(by_pmd, rebuilt.nr_pages, 0)


def expect_node_stats(
    scheme: Scheme,
    rebuilt: Rebuilt,
    expected: Expected,
    places: PagePlacement,
    nr_nodes: int,
    pmd_order: int = HPAGE_PMD_ORDER,
) -> NodeStats:
    """What each node's counters must add up to.

    Exact on a kernel at rest; while pages are mapped and unmapped the counters may be off either way. On 6.1 one
    anonymous THP mapped by a PMD here and by PTEs there can be counted twice after it was migrated.

    Args:
        scheme: The kernel's accounting.
        rebuilt: The mappings; zero pages, special entries and typed pages left out.
        expected: What `expect` made of them.
        places: Where and what the pages are.
        nr_nodes: How many nodes there are.
        pmd_order: Order of the folio that one PMD maps.
    """
    small = {True: np.zeros(nr_nodes, np.int64), False: np.zeros(nr_nodes, np.int64)}
    for rows in spans(len(rebuilt.page_mappings)):
        mapped = (places.folio_of_page[rows] < 0) & (rebuilt.page_mappings[rows] > 0)
        at = np.flatnonzero(mapped) + rows.start
        node, anon = places.page_node[at], places.page_is_anon[at]
        for kind, total in small.items():
            total += np.bincount(node[anon == kind], minlength=nr_nodes)
    share, huge = mapped_pages(scheme, rebuilt, expected), pmd_mapped_pages(rebuilt, pmd_order)

    def large(pages: I64, rows: Mask) -> I64:
        return sum_by(places.folio_node[rows], pages[rows], nr_nodes)

    is_anon, swapbacked = rebuilt.is_anon, places.folio_is_swapbacked
    return NodeStats(
        nr_anon_mapped=large(share, is_anon) + small[True],
        nr_file_mapped=large(share, ~is_anon) + small[False],
        nr_anon_thps=large(huge, is_anon),
        nr_shmem_pmdmapped=large(huge, ~is_anon & swapbacked),
        nr_file_pmdmapped=large(huge, ~is_anon & ~swapbacked),
    )


def rss_kind(is_anon: Mask, is_swapbacked: Mask) -> U8:
    """uint8; the `RssKind` in which the pages of a folio count; anonymous ones with PG_swapbacked set or clear."""
    of_file = np.where(is_swapbacked, np.uint8(RssKind.SHMEM), np.uint8(RssKind.FILE))
    return np.where(is_anon, np.uint8(RssKind.ANON), of_file)


def expect_rss(mm_idx: AnyArray, kind: AnyArray, nr_pages: AnyArray, nr_mms: int) -> I64:
    """int64[mms, 4]; what the rss counters of each mm must add up to.

    Args:
        mm_idx: Row of the mm, for each entry: normal leaves, migration and device entries of folios other than
            hugetlb, swap entries.
        kind: `RssKind` of each entry.
        nr_pages: Base pages of each; 1 for a swap entry.
        nr_mms: How many mms there are.
    """
    cell = mm_idx.astype(np.int64) * len(RssKind) + kind
    return sum_by(cell, nr_pages, nr_mms * len(RssKind)).reshape(nr_mms, len(RssKind))


def sum_by(cell: AnyArray, pages: AnyArray, nr_cells: int) -> I64:
    """int64[cells]; sum of the pages of each cell; exact while no sum reaches 2**53."""
    return np.bincount(cell, weights=pages, minlength=nr_cells).astype(np.int64)
