"""The rmap walk of many folios at once (mm/rmap.c), and what it finds beside what the page tables hold.

The kernel goes from a folio to the VMAs that may map it, and looks into the page tables of each. Here the first half is
`candidates_of`: the VMAs, and the addresses in them. The second is `entries_at`: the entries there, not read again but
looked up among all mappings that the walk of the page tables gave. `compare_views` counts both.

Example: an anonymous folio of 4 pages with index 0x10, mapped by parent and child after a fork:

- folio->mapping names an anon_vma; in its interval tree are two chains that overlap offsets 0x10 to 0x13: two VMAs;
- vma_address(): the parent's VMA begins at offset 0, so the folio is 0x10 pages into it: a candidate of 4 pages; the
  child's VMA was cut and begins at 0x12: a candidate from its first page on, with page=2 and nr=2;
- each page of a candidate becomes a `page_key` of its mm and is looked for among the runs of entries, ordered by the
  same key; an entry counts when its page frame is the page's: 4 entries in the parent, 2 in the child;
- by_rmap is 6. All page tables have 6 entries of the folio too: by_tables is 6, and rmap misses none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import (
    I32,
    I64,
    U64,
    AnyArray,
    Mask,
    Table,
    count_up,
    matches,
    page_key,
    rows_covering,
    rows_of,
    rows_of_unordered,
    take_or,
)
from inspector.layout.flags import MAPPING_ANON, MAPPING_TAGS
from inspector.walk.counts import EntryClass
from inspector.walk.linear import read_index, vma_address

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Candidates(Table):
    """One row a place where the rmap walk searches for a folio: a VMA, and the pages in it that may map the folio.

    Attributes:
        asked: int32; which of the folios asked about.
        vma_idx: int32; row of the VMA.
        va: uint64; where the folio would begin to show in it.
        page: int64; which of the folio's pages that is.
        nr: int64; pages that fit in the VMA.
        via: uint64; the avc (anonymous) or address_space (file) that led there.
    """

    asked: I32
    vma_idx: I32
    va: U64
    page: I64
    nr: I64
    via: U64


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


ANON, FILE, KSM = 1, 2, 3
_CHUNK = 1 << 20


def candidates_of(s: Snapshot, head_rows: AnyArray) -> tuple[Candidates, AnyArray]:
    """Where rmap_walk_anon() and rmap_walk_file() (mm/rmap.c) look for folios.

    Args:
        s: The snapshot.
        head_rows: Rows of the folios' heads.

    Returns:
        The places, and the kind of each folio (see `RmapView`); KSM pages have no places here.
    """
    pages = s.pages
    mapping = pages.mapping[head_rows]
    tag, pointer = mapping & np.uint64(MAPPING_TAGS), mapping & ~np.uint64(MAPPING_TAGS)
    folio = s.folio_of_page[head_rows]
    hugetlb = take_or(s.folios.is_hugetlb, folio, False)
    nr = np.int64(1) << take_or(s.folios.order, folio, 0).astype(np.int64)
    untyped = (pages.type_[head_rows] == 0) | hugetlb
    kind = np.where(tag == MAPPING_ANON, ANON, np.where(tag == 3, KSM, np.where((tag == 0) & (pointer != 0), FILE, 0)))
    kind = np.where(untyped, kind, 0).astype(np.uint8)
    index, _ = read_index(s.layout, pages, s.folios, head_rows, folio)
    anon = _anon_places(s, np.flatnonzero(kind == ANON), pointer, index, nr)
    file = _file_places(s, np.flatnonzero(kind == FILE), pointer, index, nr)
    return Candidates.concat([anon, file]), kind


def _anon_places(s: Snapshot, asked: I64, pointer: U64, index: U64, nr: I64) -> Candidates:
    """Chains in the tree of each folio's anon_vma that overlap its offsets."""
    avcs = s.anon_rmap.avcs
    inside = np.flatnonzero((avcs.tree_idx >= 0) & (avcs.vma_idx >= 0))
    inside = inside[np.argsort(avcs.tree_idx[inside], kind="stable")]
    tree = rows_of(s.anon_rmap.anon_vmas.addr, pointer[asked])
    which, at = matches(avcs.tree_idx[inside], tree)
    who, entry = asked[which], inside[at]
    found = _Overlap(who, avcs.vma_idx[entry], avcs.first[entry], avcs.last[entry], avcs.addr[entry])
    return _places(s, found, index, nr, anon=True)


def _file_places(s: Snapshot, asked: I64, pointer: U64, index: U64, nr: I64) -> Candidates:
    """VMAs in the i_mmap tree of each folio's file that overlap its offsets."""
    nodes, spaces = s.file_rmap.nodes, s.file_rmap.address_spaces
    inside = np.flatnonzero(nodes.vma_idx >= 0)
    inside = inside[np.argsort(nodes.address_space_idx[inside], kind="stable")]
    tree = rows_of(spaces.addr, pointer[asked])
    which, at = matches(nodes.address_space_idx[inside], tree)
    who, entry = asked[which], inside[at]
    via = spaces.addr[nodes.address_space_idx[entry]]
    found = _Overlap(who, nodes.vma_idx[entry], nodes.first[entry], nodes.last[entry], via)
    return _places(s, found, index, nr, anon=False)


@dataclass(frozen=True, slots=True)
class _Overlap(Table):
    """Members of the trees that folios lead to: whose, which VMA, its page offsets, and what led there."""

    who: I64
    vma_idx: I32
    first: U64
    last: U64
    via: U64


def _places(s: Snapshot, found: _Overlap, index: U64, nr: I64, *, anon: bool) -> Candidates:
    """Addresses of the overlapping ones (vma_address())."""
    end = index[found.who] + nr[found.who].astype(np.uint64) - np.uint64(1)
    found = found.take(np.flatnonzero((found.first <= end) & (found.last >= index[found.who])))
    who, vma_idx, via = found.who, found.vma_idx, found.via
    kind = np.full(len(who), anon)
    pages = nr[who].astype(np.uint64)
    va, valid = vma_address(s.vmas, vma_idx, index[who], pages, kind, s.layout.memmap.page_shift)
    base = (s.vmas.anon_pgoff if anon else s.vmas.pgoff)[vma_idx]
    page = np.where(base > index[who], base - index[who], np.uint64(0)).astype(np.int64)
    room = ((s.vmas.end[vma_idx] - va) >> np.uint64(s.layout.memmap.page_shift)).astype(np.int64)
    fit = np.minimum(room, nr[who] - page)
    return Candidates(who.astype(np.int32), vma_idx.astype(np.int32), va, page, np.maximum(fit, 0), via).take(valid)


def entries_at(s: Snapshot, c: Candidates, head_rows: AnyArray) -> I64:
    """Entries that map the folio at each place (page_vma_mapped_walk(), mm/page_vma_mapped.c)."""
    m = s.mappings
    good = np.flatnonzero(s.counts.entry_class == EntryClass.NORMAL)
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
    m, counts = s.mappings, s.counts
    rows = np.flatnonzero(counts.entry_class == EntryClass.NORMAL)
    head, nr = counts.head_row[rows], m.nr[rows]
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
