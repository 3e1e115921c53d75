"""Folios with PG_swapcache and what the swap cache holds, each with the swap entry that the folio names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, U64, Mask
from inspector.records import dataclass
from inspector.tables.pages import page_words
from inspector.walk.page_cache import folio_pages

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True)
class SwapCache:
    """Both views of the swap cache.

    Attributes:
        head: int64; rows of the heads of folios that carry PG_swapcache.
        first: uint64; swap entry of the first page of each.
        nr: int64; pages of each.
        slot: int64; rows of the slots that the swap cache has a folio for.
        row: int64; row in the memory map of the page that it has for each, -1 for no page.
        named: uint64; swap entry that this page's private word names.
    """

    head: I64
    first: U64
    nr: I64
    slot: I64
    row: I64
    named: U64


def read_swap_cache(s: Snapshot) -> SwapCache:
    """Read the swap entries of the folios of both views (folio->swap is kept in page->private)."""
    pages, slots = s.pages, s.swap.slots
    words, flags = pages.words, s.layout.flags
    cached = flags.test(words.flags, "swapcache") & flags.test(words.flags, "swapbacked") & (words.type_ == 0)
    head = pages.heads_where(cached & words.readable & (words.refcount > 0))
    first, _ = page_words(s.layout, pages, head, "private")
    slot = np.flatnonzero(slots.cache_pfn >= 0)
    row = pages.memmap.rows(slots.cache_pfn[slot])
    named, _ = page_words(s.layout, pages, np.maximum(row, 0), "private")
    return SwapCache(head, first, np.minimum(folio_pages(s, head), 1 << s.layout.pmd_order), slot, row, named)


def has_swapcache_bit(s: Snapshot, rows: I64) -> Mask:
    """Heads without a type that carry the bit of PG_swapcache, which means other things without PG_swapbacked."""
    marked: Mask = s.layout.flags.test(s.pages.flags[rows], "swapcache") & (s.pages.type_[rows] == 0)
    return marked


def is_swap_cached(s: Snapshot, rows: I64) -> Mask:
    """Heads that are in the swap cache by their flags (folio_test_swapcache(), include/linux/page-flags.h)."""
    return has_swapcache_bit(s, rows) & s.layout.flags.test(s.pages.flags[rows], "swapbacked")
