"""Every mapping judged, and the good ones counted: by page, by folio, by folio and mm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Bit, Level
from inspector.columns import I32, I64, U8, AnyArray, Mask, expand_runs, group_starts, take_or
from inspector.layout.flags import VM_HUGETLB, VM_MAYSHARE, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED, type_code
from inspector.layout.kernel import Layout
from inspector.tables.folios import Folios
from inspector.tables.pages import Pages
from inspector.tables.vmas import Vmas
from inspector.walk.mappings import Mappings, NonPresent


class EntryClass(IntEnum):
    """What a leaf entry maps, which decides whether it counts."""

    NORMAL = 0
    """A page that the rmap keeps count of."""
    ZERO = 1
    """The shared zero page or the huge zero folio."""
    SPECIAL = 2
    """Memory that vm_normal_page() hides: pte_special, VM_PFNMAP, DAX."""
    NO_PAGE = 3
    """A page frame without struct page, not marked special."""
    UNREADABLE = 4
    """The struct page is not in the dump."""
    FREE = 5
    """A page in the hands of the page allocator."""
    TYPED = 6
    """A slab, a page table or another page of a type that is never mapped."""
    BROKEN = 7
    """A tail whose head cannot be found, or a huge entry that is not at the head of a folio of its size."""


_PIECE = 1 << 17
"""Mappings judged at a time, so that temporaries stay in the cache."""


@dataclass(frozen=True)
class MappingCounts:
    """Counts rebuilt from the page tables.

    Attributes:
        entry_class: uint8 per mapping; `EntryClass` (of its first page: a run with pages of several is cut before).
        bits: uint16 per mapping; `inspector.arch.base.Bit`.
        head_row: int32 per mapping; row of the folio's head in `Pages`, -1 when there is none.
        page_mappings: int32 per page row; distinct PTE slots that map it (P_i).
        entire: int32 per folio row; distinct PMD and PUD slots that map it (E).
        pair_folio, pair_mm, pair_count: one row each (large folio, mm) with mappings: rows and entries.
        nr_mms: int32 per folio row; distinct mms that map it.
        unreadable_tables: whether anything may be missing from the counts.
    """

    entry_class: U8
    bits: AnyArray
    head_row: I32
    page_mappings: I32
    entire: I32
    pair_folio: I64
    pair_mm: I64
    pair_count: I64
    nr_mms: I32


def page_classes(pages: Pages) -> U8:
    """For each page row, the `EntryClass` of a plain PTE that maps it."""
    entry_class = np.full(len(pages), EntryClass.NORMAL, np.uint8)
    head = np.maximum(pages.head_row, 0)
    type_ = pages.type_[head]
    hugetlb = type_ == type_code("hugetlb")
    unreferenced = pages.refcount[head] <= 0
    entry_class[unreferenced] = EntryClass.FREE
    entry_class[(type_ != 0) & ~hugetlb] = EntryClass.TYPED
    entry_class[type_ == type_code("buddy")] = EntryClass.FREE
    entry_class[pages.head_row < 0] = EntryClass.BROKEN
    entry_class[~pages.readable | ~pages.readable[head]] = EntryClass.UNREADABLE
    return entry_class


def count_mappings(
    layout: Layout, pages: Pages, folios: Folios, vmas: Vmas, found: Mappings
) -> tuple[Mappings, MappingCounts]:
    """Judge and count all mappings. Slots reached twice through a shared table count once.

    Returns:
        The mappings, runs cut so that none crosses the border of a large folio or of a stretch of pages of one
        class, and the counts of these.
    """
    classes = page_classes(pages)
    mappings = _cut_at_borders(layout, pages, classes, found)
    n, nr_pages = len(mappings), len(pages)
    entry_class, bits, head = np.empty(n, np.uint8), np.empty(n, np.uint16), np.empty(n, np.int32)
    folio_rows = _folio_rows(folios, nr_pages)
    page_mappings = np.zeros(nr_pages, np.int32)
    steps = np.zeros(nr_pages + 1, np.int32)
    entire = np.zeros(len(folios), np.int64)
    of_folios = []
    for at in range(0, n, _PIECE):
        here = slice(at, at + _PIECE)
        part = mappings.take(here)
        row = pages.memmap.rows(part.pfn)
        bits[here] = _bits(layout, part)
        head[here] = np.where(row >= 0, pages.head_row[row], -1)
        folio = folio_rows[head[here]]
        entry_class[here] = _entry_classes(
            layout, folios, vmas, part, _PiecePages(row, head[here], folio, bits[here], classes)
        )
        good = (entry_class[here] == EntryClass.NORMAL) & part.counted
        pte = part.level == Level.PTE
        _count(page_mappings, steps, row, part.nr, good & pte)
        entire += np.bincount(folio[good & ~pte], minlength=len(folios))
        of_folios.append(at + np.flatnonzero(good & (folio >= 0)))
    page_mappings += np.cumsum(steps[:-1], dtype=np.int32)
    rows = np.concatenate([*of_folios, np.empty(0, np.int64)]).astype(np.int64)
    pair_folio, pair_mm, pair_count = _pairs(folio_rows[head[rows]], mappings.mm_idx[rows], mappings.nr[rows])
    return mappings, MappingCounts(
        entry_class,
        bits,
        head,
        page_mappings,
        entire.astype(np.int32),
        pair_folio,
        pair_mm,
        pair_count,
        np.bincount(pair_folio, minlength=len(folios)).astype(np.int32),
    )


@dataclass(frozen=True)
class _PiecePages:
    """What lies behind some mappings: page row, its folio's head and row, the entry's bits; and all pages' classes."""

    row: I64
    head: I32
    folio: I32
    bits: AnyArray
    classes: U8


def _entry_classes(layout: Layout, folios: Folios, vmas: Vmas, m: Mappings, of: _PiecePages) -> U8:
    """The `EntryClass` of each mapping."""
    entry_class = np.where(of.row >= 0, of.classes[of.row], np.uint8(EntryClass.NO_PAGE)).astype(np.uint8, copy=False)
    big = np.flatnonzero(m.level != Level.PTE)
    misfit = _misfits(layout, folios, m.take(big), of.folio[big], of.head[big] == of.row[big])
    entry_class[big[misfit & (entry_class[big] == EntryClass.NORMAL)]] = EntryClass.BROKEN
    entry_class[_is_special(vmas, m, of.bits, big)] = EntryClass.SPECIAL
    zero = (m.pfn == layout.zero_pfn) & (m.level == Level.PTE)
    if layout.huge_zero_pfn >= 0:
        zero |= (m.pfn == layout.huge_zero_pfn) & (m.level == Level.PMD)
    entry_class[zero] = EntryClass.ZERO
    return entry_class


def _count(single: I32, steps: I32, row: I64, nr: AnyArray, good: Mask) -> None:
    """Count runs over page rows: single entries where they are, longer runs by where they begin and end."""
    alone = nr == 1
    here = row[good & alone]
    np.add.at(single, here, np.int32(1))
    runs = np.flatnonzero(good & ~alone)
    np.add.at(steps, row[runs], np.int32(1))
    np.subtract.at(steps, np.minimum(row[runs] + nr[runs].astype(np.int64), len(single)), np.int32(1))


def _cut_at_borders(layout: Layout, pages: Pages, classes: U8, m: Mappings) -> Mappings:
    """Cut runs where the large folio or the class of page changes under them."""
    n = len(pages)
    border = np.zeros(n + 1, np.bool_)
    large = np.zeros(n, np.bool_)
    tails = np.flatnonzero(pages.is_tail)
    large[tails] = True
    large[pages.head_row[tails]] = True
    border[1:n] = (pages.head_row[1:] != pages.head_row[:-1]) & (large[1:] | large[:-1])
    border[1:n] |= classes[1:] != classes[:-1]
    runs = np.flatnonzero(m.nr > 1)
    first = pages.memmap.rows(m.pfn[runs])
    runs, first = runs[first >= 0], first[first >= 0]
    owner, skip, nr = cut_runs(border, first, m.nr[runs])
    if len(owner) == len(runs):
        return m
    parts = m.take(runs[owner])
    step = skip.astype(np.uint64)
    parts = replace(
        parts,
        va=parts.va + step * np.uint64(1 << pages.memmap.page_shift),
        nr=nr.astype(np.uint32),
        pfn=parts.pfn + skip,
        entry=parts.entry + step * layout.arch.leaf_step(Level.PTE, parts.entry),
        slot=(parts.slot + skip).astype(np.uint16),
    )
    whole = np.ones(len(m), np.bool_)
    whole[runs] = False
    return Mappings.concat([m.take(whole), parts])


def cut_runs(border: Mask, first: I64, nr: AnyArray) -> tuple[I64, I64, I64]:
    """Cut runs of page rows wherever a border lies inside.

    Example: six pages, of which rows 2 to 4 are one large folio, so that a run must not go on into rows 2 and 5::

        border = [0, 0, 1, 0, 0, 1, 0]     # rows 0 to 5, and the end
        first, nr = [1, 3], [4, 2]         # runs over rows 1 to 4, and over rows 3 and 4
        owner = [0, 0, 1]                  # the first run is cut at row 2 into two pieces, the second stays whole
        skip, nr = [0, 1, 0], [1, 3, 2]    # rows 1; 2 to 4; 3 and 4

    The cumulated border gives how many cuts lie inside each run, and which borders those are: no loop over runs.

    Args:
        border: bool[pages + 1]; whether a run must not go on from the row before into this one.
        first: First row of each run.
        nr: Rows of each run, at least 1.

    Returns:
        ``(owner, skip, nr)`` of each piece: which run, how many rows into it, and how many rows long; ordered by run.
    """
    before = np.cumsum(border, dtype=np.int32)
    last = np.minimum(first + nr - 1, len(border) - 2)
    cuts = (before[last] - before[first]).astype(np.int64)
    owner = np.repeat(np.arange(len(first)), cuts + 1)
    place = np.cumsum(cuts + 1) - (cuts + 1)
    begin = first[owner]
    some = np.flatnonzero(cuts)
    inner = np.ones(len(owner), np.bool_)
    inner[place] = False
    begin[inner] = np.flatnonzero(border)[expand_runs(before[first[some]], cuts[some]).astype(np.int64)]
    end = np.empty_like(begin)
    end[:-1] = begin[1:]
    end[place + cuts] = first + nr
    return owner, begin - first[owner], end - begin


def _misfits(layout: Layout, folios: Folios, m: Mappings, folio: I32, at_head: Mask) -> Mask:
    """Huge leaves that do not begin at the first page of a folio at least as large as what they map."""
    span = np.zeros(len(m), np.int64)
    for shape in layout.arch.shapes:
        span[m.level == shape.level] = shape.shift - layout.arch.page_shift
    order = take_or(folios.order, folio, 0)
    # A hugetlb folio may be larger than one PMD only where the architecture joins several entries; x86 does not.
    return (folio < 0) | (order < span) | ~at_head


def _bits(layout: Layout, mappings: Mappings) -> AnyArray:
    bits = np.zeros(len(mappings), np.uint16)
    for shape in layout.arch.shapes:
        here = mappings.level == shape.level
        if here.all():
            return layout.arch.leaf_bits(shape.level, mappings.entry)
        if shape.can_leaf and here.any():
            bits[here] = layout.arch.leaf_bits(shape.level, mappings.entry[here])
    return bits


def _is_special(vmas: Vmas, m: Mappings, bits: AnyArray, big: I64) -> Mask:
    """Entries that vm_normal_page() and vm_normal_page_pmd() take for memory without a counted page."""
    special = (bits & (Bit.SPECIAL | Bit.DEVMAP)) != 0
    if len(big):
        # Huge leaves had no special bit of their own before 6.12: there the VMA decides (vm_normal_page_pmd()).
        flags = take_or(vmas.flags, m.vma_idx[big], 0)
        pfnmap = (flags & np.uint64(VM_PFNMAP | VM_MIXEDMAP | VM_HUGETLB)) == VM_PFNMAP
        special[big[pfnmap & ((flags & np.uint64(VM_SHARED | VM_MAYSHARE)) != 0)]] = True
    return special


def count_migration_entries(pages: Pages, nonpresent: NonPresent) -> I32:
    """int32 per page row; migration entries that name each page. Slots reached twice count once."""
    migrating = np.isin(nonpresent.kind, np.array(MIGRATION_KINDS, np.uint8)) & nonpresent.counted
    row = pages.memmap.rows(nonpresent.pfn[migrating])
    return np.bincount(row[row >= 0], minlength=len(pages)).astype(np.int32)


def _folio_rows(folios: Folios, nr_pages: int) -> I32:
    """By head row, the row in `Folios`; -1 for small pages, and at the end for heads of -1."""
    row = np.full(nr_pages + 1, -1, np.int32)
    row[folios.row] = np.arange(len(folios), dtype=np.int32)
    return row


def _pairs(folio: I32, mm_idx: I32, nr: AnyArray) -> tuple[I64, I64, I64]:
    """Entries by (large folio, mm)."""
    key = (folio.astype(np.uint64) << np.uint64(24)) | mm_idx.astype(np.uint64)
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = group_starts(key)
    count = np.add.reduceat(nr[order].astype(np.int64), starts) if len(starts) else starts
    key = key[starts]
    return (key >> np.uint64(24)).astype(np.int64), (key & np.uint64((1 << 24) - 1)).astype(np.int64), count
