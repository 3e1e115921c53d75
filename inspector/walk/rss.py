"""What each mm's rss counters must be, rebuilt from its entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Kind, Level
from inspector.columns import I64, U8, AnyArray, Mask, take_or
from inspector.layout.flags import MAPPING_ANON
from inspector.layout.kernel import Layout
from inspector.model.stats import expect_rss, rss_kind, sum_by
from inspector.tables.mms import RSS_SWAP
from inspector.tables.pages import Pages
from inspector.walk.counts import EntryClass

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_NR_PLACES = 8
_HUGETLB, _UNKNOWN = 4, 5
"""Beside the four counters: pages that count in none, and entries whose page cannot be read."""

_PIECE = 1 << 18
"""Mappings worked on at a time, so that temporaries stay in the cache."""


def entry_pages(layout: Layout, levels: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> I64:
    """Base pages that one entry of each level maps."""
    out = np.ones(len(levels), np.int64)
    for shape in layout.arch.shapes:
        if shape.level != Level.PTE:
            out[levels == shape.level] = 1 << (shape.shift - layout.arch.page_shift)
    return out


def rss_class(layout: Layout, pages: Pages, head_row: I64) -> I64:
    """Which rss counter a folio counts in (include/linux/mm.h, mm_counter() and mm_counter_file())."""
    swapbacked = layout.flags.test(pages.flags[head_row], "swapbacked")
    return rss_kind(pages.is_anon(head_row), swapbacked).astype(np.int64)


def rebuild_rss(s: Snapshot) -> tuple[I64, Mask]:
    """Pages of each class in each mm.

    Counted are normal leaves, and migration and device entries by the folio they name; hugetlb is not. Swap
    entries count one each.

    Args:
        s: The snapshot.

    Returns:
        ``(rss, known)``: int64[mms, 4] and bool[mms]; an mm is not known when an entry's page cannot be read.
    """
    layout, pages, vmas, mms, nonpresent = s.layout, s.pages, s.vmas, s.mms, s.nonpresent
    n = len(mms)
    rss, known = _present(s)
    counted = np.isin(
        nonpresent.kind, np.array([*MIGRATION_KINDS, Kind.DEVICE_READ, Kind.DEVICE_WRITE, Kind.DEVICE_EXCLUSIVE])
    )
    in_hugetlb = take_or(vmas.is_hugetlb, nonpresent.vma_idx, False)
    rows = np.flatnonzero(counted & ~in_hugetlb)
    row = pages.memmap.rows(nonpresent.pfn[rows])
    rows, row = rows[row >= 0], row[row >= 0]
    head = pages.head_row[row].astype(np.int64)
    fine = take_or(pages.readable, head, False)
    known[nonpresent.mm_idx[rows[~fine]]] = False
    # An entry that names free memory was counted by what the page was before, which is no longer known.
    fine &= (pages.refcount[head] > 0) | layout.flags.test(pages.flags[head], "locked")
    rows, head = rows[fine], head[fine]
    sizes = entry_pages(layout, nonpresent.level[rows])
    rss += expect_rss(nonpresent.mm_idx[rows], rss_class(layout, pages, head), sizes, n)

    swap = (nonpresent.kind == Kind.SWAP) & (nonpresent.level == Level.PTE) & ~in_hugetlb
    rss[:, RSS_SWAP] = np.bincount(nonpresent.mm_idx[swap], minlength=n)
    return rss, known


def _present(s: Snapshot) -> tuple[I64, Mask]:
    """Pages of each class that leaves map in each mm, and which mms have no leaf whose page cannot be read."""
    layout, m, n = s.layout, s.mappings, len(s.mms)
    kinds, sums = _page_classes(s), np.zeros(n * _NR_PLACES, np.int64)
    huge_vma = s.vmas.is_hugetlb if len(s.vmas) and s.vmas.is_hugetlb.any() else None
    for at in range(0, len(m), _PIECE):
        here = slice(at, at + _PIECE)
        what = m.entry_class[here]
        # A row of -1 finds the last page's class, but only a normal entry keeps it.
        place = np.where(what == EntryClass.NORMAL, kinds[m.head_row[here]], _HUGETLB)
        if huge_vma is not None:
            # mm/hugetlb.c keeps accounts of its own, whatever its entries map.
            place[huge_vma[m.vma_idx[here]] & (m.vma_idx[here] >= 0)] = _HUGETLB
        place[what == EntryClass.UNREADABLE] = _UNKNOWN
        nr: AnyArray = m.nr[here]
        if (m.level[here] != Level.PTE).any():
            nr = nr * entry_pages(layout, m.level[here])
        sums += sum_by(m.mm_idx[here].astype(np.int64) * _NR_PLACES + place, nr, len(sums))
    table = sums.reshape(n, _NR_PLACES)
    return table[:, :4].copy(), table[:, _UNKNOWN] == 0


def _page_classes(s: Snapshot) -> U8:
    """The rss counter that each page counts in when it heads a folio, `_HUGETLB` when in none."""
    pages, folios = s.pages, s.folios
    anon = ((pages.mapping & np.uint64(MAPPING_ANON)) != 0) & (pages.type_ == 0)
    kinds = rss_kind(anon, s.layout.flags.test(pages.flags, "swapbacked"))
    kinds[folios.row[folios.is_hugetlb]] = _HUGETLB
    return kinds
