"""What each mm's rss counters must be, rebuilt from its entries."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Kind, Level
from inspector.columns import I64, Mask
from inspector.layout.kernel import Layout
from inspector.tables.mms import RSS_ANON, RSS_FILE, RSS_SHMEM, RSS_SWAP
from inspector.tables.pages import Pages
from inspector.walk.census import Sort
from inspector.walk.parts import Counted


def entry_pages(layout: Layout, levels: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> I64:
    """Base pages that one entry of each level maps."""
    out = np.ones(len(levels), np.int64)
    for shape in layout.arch.shapes:
        if shape.level != Level.PTE:
            out[levels == shape.level] = 1 << (shape.shift - layout.arch.page_shift)
    return out


def rss_class(layout: Layout, pages: Pages, head_row: I64) -> I64:
    """Which rss counter a folio counts in (include/linux/mm.h, mm_counter() and mm_counter_file())."""
    anon = pages.is_anon(head_row)
    swapbacked = layout.flags.test(pages.flags[head_row], "swapbacked")
    return np.where(anon, RSS_ANON, np.where(swapbacked, RSS_SHMEM, RSS_FILE)).astype(np.int64)


def rebuild_rss(parts: Counted) -> tuple[I64, Mask]:
    """Pages of each class in each mm.

    Counted are normal leaves, and migration and device entries by the folio they stand for; hugetlb is not. Swap
    entries count one each.

    Args:
        parts: The tables of a snapshot.

    Returns:
        ``(rss, known)``: int64[mms, 4] and bool[mms]; an mm is not known when an entry's page cannot be read.
    """
    layout, pages, folios, vmas = parts.layout, parts.pages, parts.folios, parts.vmas
    mms, mappings, census, nonpresent = parts.mms, parts.mappings, parts.census, parts.nonpresent
    folio_of_page = parts.folio_of_page
    n = len(mms)
    rss = np.zeros((n, 4), np.int64)
    known = np.ones(n, np.bool_)

    def add(mm: I64, head: I64, count: I64) -> None:
        kind = rss_class(layout, pages, head)
        rss[:] += np.bincount(mm * 4 + kind, weights=count, minlength=n * 4).reshape(n, 4).astype(np.int64)

    def hugetlb(head: I64) -> Mask:
        folio = folio_of_page[head]
        return (folio >= 0) & folios.is_hugetlb[np.maximum(folio, 0)] if len(folios) else folio >= 0

    rows = np.flatnonzero(census.sort == Sort.NORMAL)
    head = census.head_row[rows].astype(np.int64)
    rows, head = rows[~hugetlb(head)], head[~hugetlb(head)]
    add(
        mappings.mm_idx[rows].astype(np.int64),
        head,
        mappings.nr[rows] * entry_pages(layout, mappings.level[rows]),
    )
    known[mappings.mm_idx[census.sort == Sort.UNREADABLE]] = False

    standing = np.isin(
        nonpresent.kind, np.array([*MIGRATION_KINDS, Kind.DEVICE_READ, Kind.DEVICE_WRITE, Kind.DEVICE_EXCLUSIVE])
    )
    in_hugetlb = np.zeros(len(nonpresent), np.bool_)
    if len(vmas):
        in_hugetlb = (nonpresent.vma_idx >= 0) & vmas.is_hugetlb[np.maximum(nonpresent.vma_idx, 0)]
    rows = np.flatnonzero(standing & ~in_hugetlb)
    row = pages.memmap.rows(nonpresent.pfn[rows])
    rows, row = rows[row >= 0], row[row >= 0]
    head = pages.head_row[row].astype(np.int64)
    fine = (head >= 0) & pages.readable[np.maximum(head, 0)]
    known[nonpresent.mm_idx[rows[~fine]]] = False
    rows, head = rows[fine], head[fine]
    add(nonpresent.mm_idx[rows].astype(np.int64), head, entry_pages(layout, nonpresent.level[rows]))

    swap = (nonpresent.kind == Kind.SWAP) & ~in_hugetlb
    rss[:, RSS_SWAP] = np.bincount(nonpresent.mm_idx[swap], minlength=n)
    return rss, known
