"""What each mm's rss counters must be, rebuilt from its entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Kind, Level
from inspector.columns import I64, U8, AnyArray, Column, Mask, take_or
from inspector.layout.kernel import Layout
from inspector.model.stats import expect_rss, rss_kind, sum_by
from inspector.tables.mms import RSS_SWAP
from inspector.tables.pages import Pages
from inspector.walk.batches import Collector, EntryBatch
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import entry_pages

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_NR_PLACES = 8
_HUGETLB, _UNKNOWN = 4, 5
"""Beside the four counters: pages that count in none, and entries whose page cannot be read."""


def rss_class(layout: Layout, pages: Pages, head_row: I64) -> I64:
    """Which rss counter a folio counts in (include/linux/mm.h, mm_counter() and mm_counter_file())."""
    swapbacked = layout.flags.test(pages.flags[head_row], "swapbacked")
    return rss_kind(pages.is_anon(head_row), swapbacked).astype(np.int64)


def rebuild_rss(s: Snapshot) -> tuple[I64, I64]:
    """Pages of each class in each mm.

    Counted are normal leaves, and migration and device entries by the folio they name; hugetlb is not. Swap
    entries count one each.

    Args:
        s: The snapshot.

    Returns:
        ``(rss, unread)``: int64[mms, 4] and int64[mms]; pages in entries whose struct page cannot be read: each counts
        in one of the first, second and fourth, or in none.
    """
    layout, pages, vmas, mms, nonpresent = s.layout, s.pages, s.vmas, s.mms, s.nonpresent
    n = len(mms)
    rss, unread = s.collected(PresentPages).by_class()
    counted = np.isin(
        nonpresent.kind, np.array([*MIGRATION_KINDS, Kind.DEVICE_READ, Kind.DEVICE_WRITE, Kind.DEVICE_EXCLUSIVE])
    )
    in_hugetlb = take_or(vmas.is_hugetlb, nonpresent.vma_idx, False)
    rows = np.flatnonzero(counted & ~in_hugetlb)
    row = pages.memmap.rows(nonpresent.pfn[rows])
    rows, row = rows[row >= 0], row[row >= 0]
    head = pages.head_row[row].astype(np.int64)
    fine = take_or(pages.readable, head, False)
    np.add.at(unread, nonpresent.mm_idx[rows[~fine]], entry_pages(layout, nonpresent.level[rows[~fine]]))
    # An entry that names free memory was counted by what the page was before, which is no longer known.
    fine &= (pages.refcount[head] > 0) | layout.flags.test(pages.flags[head], "locked")
    rows, head = rows[fine], head[fine]
    sizes = entry_pages(layout, nonpresent.level[rows])
    rss += expect_rss(nonpresent.mm_idx[rows], rss_class(layout, pages, head), sizes, n)

    swap = (nonpresent.kind == Kind.SWAP) & (nonpresent.level == Level.PTE) & ~in_hugetlb
    rss[:, RSS_SWAP] = np.bincount(nonpresent.mm_idx[swap], minlength=n)
    return rss, unread


def rss_differs(s: Snapshot) -> Mask:
    """Which mms' counters are not what their entries map, whatever counters the pages that cannot be read count in."""
    rebuilt, unread = s.rss
    excess = s.mms.rss - rebuilt
    may_be = (excess >= 0).all(axis=1) & (excess[:, RSS_SWAP] == 0) & (excess.sum(axis=1) <= unread)
    out: Mask = ~may_be & s.mms.rss_valid
    return out


class PresentPages(Collector):
    """Adds up the pages that leaves map, by mm and rss counter."""

    gathers = ("_sums",)

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        self._kinds = _page_classes(s)
        self._sums = np.zeros(len(s.mms) * _NR_PLACES, np.int64)
        self._huge_vma = s.vmas.is_hugetlb if len(s.vmas) and s.vmas.is_hugetlb.any() else None

    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""
        kinds, m = batch.kinds, batch.kinds.m
        # A row of -1 finds the last page's class, but only a normal entry keeps it.
        place = np.where(m.entry_class == EntryClass.NORMAL, self._kinds[m.head_row], _HUGETLB)
        if self._huge_vma is not None:
            # mm/hugetlb.c keeps accounts of its own, whatever its entries map.
            place[self._huge_vma[m.vma_idx] & (m.vma_idx >= 0)] = _HUGETLB
        place[m.entry_class == EntryClass.UNREADABLE] = _UNKNOWN
        nr = kinds.entries
        if (m.level != Level.PTE).any():
            nr = nr * entry_pages(self.s.layout, m.level)
        self._sums += sum_by(m.mm_idx.astype(np.int64) * _NR_PLACES + place, nr, len(self._sums))

    def by_class(self) -> tuple[I64, I64]:
        """int64[mms, 4] pages of each class, and int64[mms] pages in leaves whose struct page cannot be read."""
        table = self._sums.reshape(-1, _NR_PLACES)
        return table[:, :4].copy(), table[:, _UNKNOWN].copy()


def _page_classes(s: Snapshot) -> Column[np.uint8]:
    """The rss counter that each page counts in when it heads a folio, `_HUGETLB` when in none."""
    pages, hugetlb = s.pages, s.folios.is_hugetlb
    kinds = rss_kind(pages.words.is_anon, s.layout.flags.test(pages.words.flags, "swapbacked"))

    def take(at: AnyArray | slice) -> U8:
        out: U8 = kinds[pages.number[at]]
        if hugetlb.any():
            out[take_or(hugetlb, s.folio_of_page[at], False)] = _HUGETLB
        return out

    return Column(take, len(pages))
