"""Where pages were mapped whose entries are gone: what holds each place now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64, Mask, Table, page_key, rows_of_unordered
from inspector.records import dataclass
from inspector.walk.rmap import candidates_of

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class LostPlaces(Table):
    """One row an entry that the reverse map of a page leads to and that does not map the page.

    Attributes:
        asked: int64; which of the pages asked about.
        table_idx: int64; row of the page table.
        slot: int64; index in it.
        entry: uint64; what is there, 0 where it could not be read.
    """

    asked: I64
    table_idx: I64
    slot: I64
    entry: U64


def lost_places(s: Snapshot, rows: I64, mms: Mask, level: Level = Level.PTE) -> LostPlaces:
    """The places in some mms where the rmap walk (mm/rmap.c) looks for pages in vain.

    Args:
        s: The snapshot.
        rows: int64[n]; rows of the pages.
        mms: bool by row of the mms; which to look into.
        level: Of the entries: those above the last level led to the tables that mapped the pages.
    """
    head = s.pages.head_row[rows].astype(np.int64)
    found, _ = candidates_of(s, np.maximum(head, 0))
    skip = (rows - head)[found.asked] - found.page
    mm = s.vmas.mm_idx[found.vma_idx]
    at = np.flatnonzero((head[found.asked] >= 0) & (skip >= 0) & (skip < found.nr) & mms[mm])
    found, mm, skip = found.take(at), mm[at], skip[at]
    shift = np.uint64(s.layout.memmap.page_shift)
    shape = next(each for each in s.layout.arch.shapes if each.level == level)
    # Counted in what one entry covers, by which addresses of a table begin at a multiple of its entries.
    place_of = np.uint64(shape.shift) - shift
    page = ((found.va >> shift) + skip.astype(np.uint64)) >> place_of
    t, width = s.tables, np.uint64(shape.entries)
    leaves = np.flatnonzero((t.level == level) & mms[t.mm_idx])
    keys = page_key(t.mm_idx[leaves], t.va[leaves] >> np.uint64(shape.shift))
    which = rows_of_unordered(keys, page_key(mm, page // width * width))
    here = np.flatnonzero(which >= 0)
    table, slot = leaves[which[here]], (page[here] % width).astype(np.int64)
    place = (t.pfn[table].astype(np.uint64) << shift) + slot.astype(np.uint64) * np.uint64(8)
    entry, _ = s.layout.memory.words(place, physical=True)
    asked = found.asked[here].astype(np.int64)
    leaf = s.layout.arch.leaf_mask(shape.level, entry)
    maps_it = leaf & (
        s.layout.arch.leaf_pfn(shape.level, entry).astype(np.int64) == s.pages.memmap.pfns_of_rows(rows)[asked]
    )
    return LostPlaces(asked, table, slot, entry).take(~maps_it)
