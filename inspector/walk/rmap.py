"""Where the rmap walk of a folio searches (mm/rmap.c), for many folios at once.

The kernel goes from a folio to the VMAs that may map it, and looks into the page tables of each. Here the first half is
`candidates_of`: the VMAs, and the addresses in them. `inspector.walk.rmap_places` is the second: what is there.

Example: an anonymous folio of 4 pages with index 0x10, mapped by parent and child after a fork:

- folio->mapping names an anon_vma; in its interval tree are two chains that overlap offsets 0x10 to 0x13: two VMAs;
- vma_address(): the parent's VMA begins at offset 0, so the folio is 0x10 pages into it: a candidate of 4 pages; the
  child's VMA was cut and begins at 0x12: a candidate from its first page on, with page=2 and nr=2;
- with the page tables, `contents_at` finds 4 entries of the folio at the first place and 2 at the second: all 6 that
  the walk of the page tables counted for it, so that the rmap walk misses none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import (
    I32,
    I64,
    U8,
    U64,
    AnyArray,
    Table,
    matches,
    rows_of,
    take_or,
)
from inspector.layout.flags import MAPPING_ANON, MAPPING_TAGS
from inspector.records import dataclass
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


ANON, FILE, KSM = 1, 2, 3


def candidates_of(s: Snapshot, head_rows: AnyArray) -> tuple[Candidates, AnyArray]:
    """Where rmap_walk_anon() and rmap_walk_file() (mm/rmap.c) look for folios.

    Args:
        s: The snapshot.
        head_rows: Rows of the folios' heads.

    Returns:
        The places, and the kind of each folio (see `RmapView`); KSM pages have no places here.
    """
    pages = s.pages
    pointer = pages.mapping[head_rows] & ~np.uint64(MAPPING_TAGS)
    folio = s.folio_of_page[head_rows]
    nr = np.int64(1) << take_or(s.folios.order, folio, 0).astype(np.int64)
    kind = rmap_kinds(s, head_rows)
    index, _ = read_index(s.layout, pages, s.folios, head_rows, folio)
    anon = _anon_places(s, np.flatnonzero(kind == ANON), pointer, index, nr)
    file = _file_places(s, np.flatnonzero(kind == FILE), pointer, index, nr)
    return Candidates.concat([anon, file]), kind


def rmap_kinds(s: Snapshot, head_rows: AnyArray) -> U8:
    """Which walk starts from each folio: `ANON`, `FILE`, `KSM`, or 0 where its mapping word leads nowhere."""
    pages = s.pages
    mapping = pages.mapping[head_rows]
    tag, pointer = mapping & np.uint64(MAPPING_TAGS), mapping & ~np.uint64(MAPPING_TAGS)
    hugetlb = take_or(s.folios.is_hugetlb, s.folio_of_page[head_rows], False)
    untyped = (pages.type_[head_rows] == 0) | hugetlb
    kind = np.where(tag == MAPPING_ANON, ANON, np.where(tag == 3, KSM, np.where((tag == 0) & (pointer != 0), FILE, 0)))
    return np.where(untyped, kind, 0).astype(np.uint8)


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
