"""Pages on LRU lists by zone and kind of list, as their own flags have it."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64
from inspector.layout.kernel import Layout
from inspector.tables.buddy import LRU_ITEMS, Zones
from inspector.tables.folios import Folios
from inspector.tables.pages import Pages


def uses_generations(layout: Layout, pages: Pages) -> bool:
    """Whether folios are on the lists of multi-generation LRU: most that can be evicted have a generation."""
    words, test, bits = pages.words, layout.flags.test, np.uint64(layout.lru_gen_bits)
    able = words.readable & test(words.flags, "lru") & ~test(words.flags, "unevictable")
    with_one = able & ((words.flags & bits) != 0)
    return bool(2 * words.nr[with_one].sum() > words.nr[able].sum())


def pages_on_lru(layout: Layout, pages: Pages, folios: Folios, zones: Zones) -> I64:
    """int64[zones, 6]; pages with PG_lru in each zone by the list that their flags say (folio_lru_list()), and mlocked.

    The columns are those of `LRU_ITEMS`. Each distinct set of words is judged once, and of large folios the head's.
    """
    words = pages.words
    links = layout.zone_links(zones.node.astype(np.int64), zones.number.astype(np.int64))
    small = np.where(words.readable, words.nr, 0)
    large = np.where(folios.readable, folios.nr_pages - 1, 0).astype(np.int64)
    return _by_list(layout, words.flags, small, links) + _by_list(layout, pages.flags[folios.row], large, links)


def _by_list(layout: Layout, flags: U64, nr: I64, links: U64) -> I64:
    test = layout.flags.test
    kind = np.where(test(flags, "swapbacked"), 0, 2) + test(flags, "active")
    kind = np.where(test(flags, "unevictable"), 4, kind)
    on_list, mlocked = np.where(test(flags, "lru"), nr, 0), np.where(test(flags, "mlocked"), nr, 0)
    out = np.zeros((len(links), len(LRU_ITEMS)), np.int64)
    named = flags & np.uint64(layout.zone_bits)
    for zone, link in enumerate(links):
        here = named == link
        out[zone, :5] = np.bincount(kind[here], weights=on_list[here], minlength=5).astype(np.int64)
        out[zone, 5] = mlocked[here].sum()
    return out
