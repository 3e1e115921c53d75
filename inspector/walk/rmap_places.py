"""What is at each place that the rmap walk of a folio searches, and why the walk misses a mapping.

Example: a folio of 4 pages is searched for at 0x7000 to 0xb000 of a VMA (one candidate, nr=4), where the page tables
have a run of two PTEs of its pages 0 and 1, then a migration entry, then nothing:

- the four pages of the place are looked for among the runs of leaf entries by (mm, page): pages 0 and 1 are covered, by
  an entry of the page that is sought: `MAPS` twice, two entries;
- the others are looked for among non-present entries: `MIGRATION` for page 2, `EMPTY` for page 3;
- the row of `PlaceContents` is entries=2, pages=[2, 0, 0, 1, 0, 1], level=PTE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Kind, Level
from inspector.columns import (
    I32,
    I64,
    U8,
    U64,
    AnyArray,
    Mask,
    Table,
    count_up,
    matches,
    page_key,
    rows_covering,
    rows_of,
    take_or,
)
from inspector.layout.flags import MAPPING_TAGS
from inspector.records import dataclass
from inspector.tables.ksm import CHAIN
from inspector.walk.counts import REJECTED, EntryClass
from inspector.walk.mappings import entry_pages
from inspector.walk.rmap import ANON, FILE, KSM, Candidates

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

MAPS, OTHER_PAGE, SWAP, MIGRATION, OTHER_ENTRY, EMPTY = range(6)
"""What one page of a place holds."""

CONTENTS = ("maps it", "other page", "swap entry", "migration entry", "other entry", "empty")

_ANY = np.uint64(0xFFFFFFFFFFFFFFFF)

_MAX_PAGES = 1 << 20
"""Pages of places examined together."""


@dataclass(frozen=True, slots=True)
class PlaceContents(Table):
    """What is at each place; a row a place.

    Attributes:
        entries: int64; entries that map the folio: a huge one counts once.
        pages: int64[n, 6]; pages of the place by what they hold, `MAPS` ... `EMPTY`.
        level: uint8; the largest `inspector.arch.base.Level` that maps the folio there, 0 for none.
    """

    entries: I64
    pages: AnyArray
    level: U8


def ksm_places(s: Snapshot, head: int) -> Candidates:
    """Where rmap_walk_ksm() (mm/ksm.c) looks for one page: for each rmap_item, every VMA of its anon_vma's tree.

    A VMA that several items lead to at one address has one row.
    """
    ksm, table, vmas = s.ksm, s.anon_rmap, s.vmas
    pointer = s.pages.mapping[head : head + 1] & ~np.uint64(MAPPING_TAGS)
    node = int(rows_of(ksm.nodes.addr, pointer)[0])
    usable = node >= 0 and ksm.nodes.kind[node] != CHAIN
    items = np.flatnonzero(ksm.items.node_idx == node) if usable else np.empty(0, np.int64)
    tree = rows_of(table.anon_vmas.addr, ksm.items.anon_vma[items])
    items, tree = items[tree >= 0], tree[tree >= 0]
    inside = np.flatnonzero((table.avcs.tree_idx >= 0) & (table.avcs.vma_idx >= 0))
    inside = inside[np.argsort(table.avcs.tree_idx[inside], kind="stable")]
    which, at = matches(table.avcs.tree_idx[inside], tree)
    avc = inside[at]
    item, vma = items[which], table.avcs.vma_idx[avc]
    va, index = ksm.items.va[item], ksm.items.linear_index[item]
    fits = (vmas.start[vma] <= va) & (va < vmas.end[vma])
    fits &= (index == _ANY) | ((table.avcs.first[avc] <= index) & (index <= table.avcs.last[avc]))
    item, vma, va = item[fits], vma[fits], va[fits]
    once = np.unique(np.stack([vma.astype(np.uint64), va]), axis=1, return_index=True)[1]
    n = len(once)
    one, none = np.ones(n, np.int64), np.zeros(n, np.int64)
    return Candidates(
        none.astype(np.int32), vma[once].astype(np.int32), va[once], none, one, ksm.items.addr[item[once]]
    )


def contents_at(s: Snapshot, c: Candidates, head: int) -> PlaceContents:
    """What is at each place of one folio (page_vma_mapped_walk(), mm/page_vma_mapped.c).

    Args:
        s: The snapshot.
        c: Places of one folio.
        head: Row of its head.
    """
    made = []
    ends, done = np.cumsum(c.nr), 0
    while done < len(c):
        start = int(ends[done - 1]) if done else 0
        stop = max(done + 1, int(np.searchsorted(ends, start + _MAX_PAGES, "right")))
        made.append(_contents(s, c.take(np.arange(done, stop)), head))
        done = stop
    empty = PlaceContents(np.empty(0, np.int64), np.empty((0, len(CONTENTS)), np.int64), np.empty(0, np.uint8))
    return PlaceContents.concat(made) if made else empty


def _contents(s: Snapshot, c: Candidates, head: int) -> PlaceContents:
    shift = np.uint64(s.layout.arch.page_shift)
    who, skip = np.repeat(np.arange(len(c)), c.nr), count_up(c.nr)
    va = c.va[who] + (skip.astype(np.uint64) << shift)
    mm = s.vmas.mm_idx[c.vma_idx[who]]
    m = s.mappings
    rows = np.flatnonzero(np.isin(m.mm_idx, mm))
    sizes = m.nr[rows] * entry_pages(s.layout, m.level[rows])
    at, distance = _covering(m.mm_idx[rows], m.va[rows] >> shift, sizes, mm, va >> shift)
    row = rows[at[at >= 0]]
    here = at >= 0
    same = s.pages.memmap.rows(m.pfn[row] + distance[here]) == (head + c.page[who] + skip)[here]
    # The kernel's walk compares page frames alone: it finds entries, too, that may not be there.
    same &= np.isin(s.mappings.entry_class[row], (EntryClass.NORMAL, *REJECTED))
    what = _absent(s, mm, va >> shift)
    what[here] = np.where(same, MAPS, OTHER_PAGE)
    pages = np.bincount(who * len(CONTENTS) + what, minlength=len(c) * len(CONTENTS)).reshape(-1, len(CONTENTS))
    # A huge entry is one mapping: it counts at its first page.
    counted: Mask = same & ((m.level[row] == Level.PTE) | (distance[here] == 0))
    level = np.zeros(len(c), np.uint8)
    np.maximum.at(level, who[here][same], m.level[row[same]])
    return PlaceContents(np.bincount(who[here][counted], minlength=len(c)).astype(np.int64), pages, level)


def _absent(s: Snapshot, mm: I32, page: U64) -> I64:
    """What non-present entries are at each page: `SWAP`, `MIGRATION`, `OTHER_ENTRY` or `EMPTY`."""
    away, shift = s.nonpresent, np.uint64(s.layout.arch.page_shift)
    rows = np.flatnonzero(np.isin(away.mm_idx, mm))
    sizes = entry_pages(s.layout, away.level[rows])
    at, _ = _covering(away.mm_idx[rows], away.va[rows] >> shift, sizes, mm, page)
    what = np.full(len(page), EMPTY, np.int64)
    kind = away.kind[rows[at[at >= 0]]]
    found = np.where(kind == Kind.SWAP, SWAP, OTHER_ENTRY)
    what[at >= 0] = np.where(np.isin(kind, MIGRATION_KINDS), MIGRATION, found)
    return what


def _covering(owner: I32, first: U64, nr: I64, mm: I32, page: U64) -> tuple[I64, I64]:
    """Which of the ranges ``[first, first + nr)`` of each mm holds a page, -1 for none, and how far into it."""
    start = page_key(owner, first)
    order = np.argsort(start, kind="stable")
    at = rows_covering(start[order], start[order] + nr[order].astype(np.uint64), page_key(mm, page))
    found = take_or(order, at, -1)
    return found, (page - take_or(first, found, 0)).astype(np.int64)


def why_lost(s: Snapshot, kind: int, head: int, vma: int, linear: U64) -> str:
    """Why the rmap walk of a folio misses a mapping of it.

    Args:
        s: The snapshot.
        kind: `inspector.walk.rmap.ANON`, `FILE` or `KSM`, 0 where no walk is possible.
        head: Row of the folio's head.
        vma: Row of the VMA that maps it, -1 for none.
        linear: uint64[2]; page offset that the mapping is at, and the one that the page's index gives.
    """
    if kind == 0:
        return "folio->mapping leads nowhere: no walk can begin"
    if vma < 0:
        return "it lies in no VMA"
    pointer = s.pages.mapping[head] & ~np.uint64(MAPPING_TAGS)
    lost = _KINDS[kind](s, pointer, vma)
    if lost or kind == KSM:
        return lost or "no rmap_item of the stable node leads to this address"
    return f"wrong index: the page says offset {int(linear[1]):#x}, its VMA has it at {int(linear[0]):#x}"


def _lost_anon(s: Snapshot, pointer: np.uint64, vma: int) -> str:
    """What is wrong between a folio's anon_vma and a VMA; "" when a chain joins them."""
    table, avcs = s.anon_rmap.anon_vmas, s.anon_rmap.avcs
    row = int(rows_of(table.addr, np.array([pointer], np.uint64))[0])
    if row < 0 or not table.readable[row]:
        return f"the folio's anon_vma {int(pointer):#x} is not in the dump, or is none"
    if ((avcs.vma_idx == vma) & (avcs.tree_idx == row)).any():
        return ""
    if row in s.anon_rmap.broken_trees:
        return "the interval tree of the folio's anon_vma is broken: it cannot be followed to the end"
    dangling = np.flatnonzero((avcs.list_vma_idx == vma) & (avcs.anon_vma_idx == row))
    if len(dangling):
        return f"the chain {int(avcs.addr[dangling[0]]):#x} of its VMA is not in the interval tree"
    own = s.vmas.anon_vma[vma]
    if not own:
        return "anon_vma unreachable: its VMA has none"
    mine = int(rows_of(table.addr, s.vmas.anon_vma[vma : vma + 1])[0])
    same = mine >= 0 and table.root[mine] == table.root[row]
    return f"anon_vma unreachable: no chain of its VMA leads to it; the VMA's own, {int(own):#x}, is of " + (
        "the same family" if same else "another family"
    )


def _lost_file(s: Snapshot, pointer: np.uint64, vma: int) -> str:
    """What is wrong between a folio's address_space and a VMA; "" when the VMA is in its tree."""
    rmap = s.file_rmap
    row = int(rows_of(rmap.address_spaces.addr, np.array([pointer], np.uint64))[0])
    if row < 0 or not rmap.address_spaces.readable[row]:
        return f"the folio's address_space {int(pointer):#x} is not in the dump, or is none"
    own = int(rmap.address_space_of_vma[vma])
    if own < 0:
        return "its VMA maps no file"
    if own != row:
        return f"its VMA maps another file, of address_space {int(rmap.address_spaces.addr[own]):#x}"
    if rmap.in_tree[vma]:
        return ""
    broken = row in rmap.broken_trees
    return "its file's i_mmap tree is broken" if broken else "its VMA is not in the file's i_mmap tree"


def _lost_ksm(s: Snapshot, pointer: np.uint64, _vma: int) -> str:
    """What is wrong with the stable node that a page names; "" when there is one."""
    row = int(rows_of(s.ksm.nodes.addr, np.array([pointer], np.uint64))[0])
    return "" if row >= 0 else f"the page's stable node {int(pointer):#x} is not among KSM's"


_KINDS = {ANON: _lost_anon, FILE: _lost_file, KSM: _lost_ksm}
