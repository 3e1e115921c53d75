"""References that a folio must have at least: those of its mappings, of its cache and of its private data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, Mask
from inspector.layout.flags import MAPPING_TAGS

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


def cache_and_private(s: Snapshot, rows: I64, nr: I64, hugetlb: Mask) -> tuple[I64, I64]:
    """References that the page cache or swap cache, and a private pointer, must hold on folios headed by ``rows``."""
    pages, flags = s.pages, s.layout.flags
    mapping, word = pages.mapping[rows], pages.flags[rows]
    on_lru = flags.test(word, "lru") | flags.test(word, "unevictable")
    file = (mapping != 0) & ((mapping & np.uint64(MAPPING_TAGS)) == 0) & on_lru & ~hugetlb
    swap = flags.test(word, "swapcache") & flags.test(word, "swapbacked") & ~hugetlb
    swap &= ((mapping & np.uint64(MAPPING_TAGS)) == 1) | (mapping == 0)
    private = flags.test(word, "private") & file
    return np.where(file | (swap & on_lru), nr, 0), private.astype(np.int64)


def spare_references(s: Snapshot, at: int) -> int | None:
    """References of a page's folio beyond those of mappings, cache and private data; None where that is not known.

    The references that the page cache holds on a hugetlb folio differ by kernel.
    """
    head = int(s.pages.head_row[at])
    if head < 0 or not s.tables_complete:
        return None
    folio = int(s.folio_of_page[head])
    large = folio >= 0
    mapped = int(s.folio_totals[folio]) if large else int(s.counts.page_mappings[head])
    nr = int(s.folios.nr_pages[folio]) if large else 1
    if large and s.folios.is_hugetlb[folio]:
        return None
    cache, private = cache_and_private(s, np.array([head]), np.array([nr]), np.zeros(1, np.bool_))
    return int(s.pages.refcount[head]) - mapped - int(cache[0]) - int(private[0])
