"""The rmap walk of every mapped folio beside the page tables: entries that each of them finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.columns import I32, I64, U64, AnyArray, Mask, Table, count_up, page_key, rows_covering, rows_of_unordered
from inspector.snapshot import Snapshot
from inspector.walk.counts import EntryClass
from inspector.walk.rmap import Candidates, candidates_of

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class RmapView(Table):
    """What the rmap walk finds and what the page tables hold, for each folio asked about.

    Attributes:
        head_row: int32; the folio.
        kind: uint8; 1 anonymous, 2 file, 3 KSM, 0 none: no rmap walk is possible.
        candidates: int64; places that the walk searches.
        by_rmap: int64; entries found at these places that map the folio.
        by_tables: int64; entries that map the folio in all page tables.
    """

    head_row: I32
    kind: AnyArray
    candidates: I64
    by_rmap: I64
    by_tables: I64


def entries_at(s: Snapshot, c: Candidates, head_rows: AnyArray) -> I64:
    """Entries that map the folio at each place (page_vma_mapped_walk(), mm/page_vma_mapped.c)."""
    m = s.mappings
    good = np.flatnonzero(s.mappings.entry_class == EntryClass.NORMAL)
    key = page_key(m.mm_idx[good], m.va[good] >> np.uint64(s.layout.memmap.page_shift))
    order = np.argsort(key, kind="stable")
    key, good = key[order], good[order]
    out = np.zeros(len(c), np.int64)
    done = 0
    ends = np.cumsum(c.nr)
    while done < len(c):
        stop = max(done + 1, int(np.searchsorted(ends, (ends[done - 1] if done else 0) + _CHUNK)))
        out[done:stop] = _count(s, c.take(np.arange(done, min(stop, len(c)))), head_rows, key, good)
        done = stop
    return out


def _count(s: Snapshot, c: Candidates, head_rows: AnyArray, key: U64, good: I64) -> I64:
    """The same for some places; ``good`` are the rows of the normal entries in the order of their ``key``."""
    m, shift = s.mappings, np.uint64(s.layout.memmap.page_shift)
    who, skip = np.repeat(np.arange(len(c)), c.nr), count_up(c.nr)
    page = (c.va[who] >> shift) + skip.astype(np.uint64)
    at = rows_covering(key, key + m.nr[good], page_key(s.vmas.mm_idx[c.vma_idx[who]], page))
    here = np.flatnonzero(at >= 0)
    who, skip, row = who[here], skip[here], good[at[here]]
    distance = (page[here] - (m.va[row] >> shift)).astype(np.int64)
    page_row = head_rows[c.asked[who]].astype(np.int64) + c.page[who] + skip
    hit = s.pages.memmap.rows(m.pfn[row] + distance) == page_row
    return np.bincount(who[hit], minlength=len(c)).astype(np.int64)


def compare_views(s: Snapshot, head_rows: I32) -> RmapView:
    """Both views of the given folios: entries that the rmap walk finds, and entries in all page tables.

    Entries under a page table that several mms share are counted in each: the walk searches each of them.
    """
    c, kind = candidates_of(s, head_rows)
    found = entries_at(s, c, head_rows)
    n = len(head_rows)
    m = s.mappings
    rows = np.flatnonzero(m.entry_class == EntryClass.NORMAL)
    head, nr = m.head_row[rows], m.nr[rows]
    asked = rows_of_unordered(head_rows, head)
    single = s.folio_of_page[np.maximum(head, 0)] < 0
    # Runs of small pages cover several folios: each page is one.
    pages = np.repeat(head[single], nr[single]) + count_up(nr[single])
    small = rows_of_unordered(head_rows, pages)
    tables = np.bincount(small[small >= 0], minlength=n)
    large = ~single & (asked >= 0)
    tables = tables + np.bincount(asked[large], weights=nr[large], minlength=n).astype(np.int64)
    return RmapView(
        head_row=head_rows,
        kind=kind,
        candidates=np.bincount(c.asked, minlength=n).astype(np.int64),
        by_rmap=np.bincount(c.asked, weights=found, minlength=n).astype(np.int64),
        by_tables=tables,
    )


def mapped_heads(s: Snapshot) -> I32:
    """Head rows of all folios that at least one normal entry maps."""
    mark: Mask = np.zeros(len(s.pages), np.bool_)
    mark[np.flatnonzero(s.counts.page_mappings > 0)] = True
    huge = np.flatnonzero(s.counts.entire > 0)
    mark[s.folios.row[huge]] = True
    return np.unique(s.pages.head_row[np.flatnonzero(mark)]).astype(np.int32)
