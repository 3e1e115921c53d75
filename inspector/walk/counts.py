"""Every mapping judged, and the good ones counted: by page, by folio, by folio and mm."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, Bit, Level
from inspector.columns import (
    I32,
    I64,
    MAX_MMS,
    U8,
    U32,
    U64,
    AnyArray,
    Column,
    expand_runs,
    group_starts,
    rows_of,
    take_or,
)
from inspector.errors import TargetError
from inspector.layout.flags import VM_HUGETLB, VM_MAYSHARE, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED, type_code
from inspector.layout.kernel import Layout
from inspector.loops import OddClasses, PageRows, count_runs, cut_runs, is_compiled, judge_runs
from inspector.records import dataclass
from inspector.scratch import long_zeros, settled
from inspector.tables.folios import Folios
from inspector.tables.pages import MAX_PAGES, Pages
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


REJECTED = (EntryClass.FREE, EntryClass.TYPED, EntryClass.BROKEN)
"""Entries that map a page which none may map: the kernel's rmap walk finds them, and no count has them."""

CLASS, LINK_BORDER, LINKED, INDEX_UNKNOWN, UNLIKE, BORDER = 0x07, 0x08, 0x10, 0x20, 0x40, 0x80
"""Bits of `Ground.codes`."""

_LARGE = UNLIKE
"""Pages of large folios, while the codes are made."""

_PIECE = 1 << 18
"""Pages worked on at a time, so that temporaries are bounded."""


@dataclass(frozen=True)
class Ground:
    """What leaf entries are judged by.

    Attributes:
        layout, pages, folios, vmas: As in the snapshot.
        folio_of_page: int32 per page row; row in ``folios``, -1 for small pages.
        codes: uint8 per page row; bits `CLASS`: the `EntryClass` of a plain PTE that maps the page; `BORDER`: a run of
            entries must not go on from the page before into this one, because the large folio or the class changes, or
            another page frame is before it; `UNLIKE`: it has other words than that page, or is of another compound
            page; `LINKED`: head of a folio of which a normal entry in a VMA maps something,
            set by `Counter`; `LINK_BORDER`, `INDEX_UNKNOWN`: the index of folios does not run on, or could not be read,
            set by `inspector.walk.linear.read_page_index`.
    """

    layout: Layout
    pages: Pages
    folios: Folios
    folio_of_page: I32
    vmas: Vmas
    codes: U8

    @classmethod
    def of(  # noqa: PLR0913, PLR0917  (five tables)
        cls,
        layout: Layout,
        pages: Pages,
        folios: Folios,
        folio_of_page: I32,
        vmas: Vmas,
        *,
        shared: bool = False,
    ) -> Ground:
        """Judge all pages, a piece of the memory map at a time.

        Args:
            layout: As of the class.
            pages: Likewise.
            folios: Likewise.
            folio_of_page: Likewise.
            vmas: Likewise.
            shared: Whether workers set codes.

        Raises:
            TargetError: There are more pages than rows can number.
        """
        n = len(pages)
        if n > MAX_PAGES:
            raise TargetError("the target has more memory than pages can be numbered for", f"{n:,} struct pages")
        codes = long_zeros(n, np.uint8, shared=shared)
        for first in range(0, n, _PIECE):
            codes[first : first + _PIECE] |= page_classes(pages, first, min(first + _PIECE, n))
            head = pages.head_row[first : first + _PIECE]
            tails = np.flatnonzero(head != np.arange(first, first + len(head), dtype=np.int32))
            codes[first + tails] |= np.uint8(_LARGE)
            codes[head[tails]] |= np.uint8(_LARGE)
        for first in range(1, n, _PIECE):
            here = slice(first, min(first + _PIECE, n))
            before = slice(first - 1, here.stop - 1)
            code, last = codes[here], codes[before] & ~np.uint8(BORDER)
            head = pages.head_row[before.start : here.stop]
            border = (head[1:] != head[:-1]) & (((code | last) & np.uint8(_LARGE)) != 0)
            border |= ((code ^ last) & np.uint8(CLASS)) != 0
            codes[here] |= np.where(border, np.uint8(BORDER), np.uint8(0))
        for first in range(0, n, _PIECE):
            begin, stop = max(first - 1, 0), min(first + _PIECE, n)
            number, compound = pages.number[begin:stop], pages.compound[begin:stop]
            unlike = np.full(stop - first, UNLIKE, np.uint8)
            same = (number[1:] == number[:-1]) & (compound[1:] == compound[:-1])
            unlike[begin + 1 - first :][same] = 0
            codes[first:stop] = (codes[first:stop] & ~np.uint8(_LARGE)) | unlike
        codes[pages.memmap.rows(pages.memmap.starts)] |= np.uint8(BORDER)
        return cls(layout, pages, folios, folio_of_page, vmas, codes)

    @property
    def page_rows(self) -> PageRows:
        """How compiled loops find pages."""
        memmap, pages = self.pages.memmap, self.pages
        return PageRows(memmap.row_delta, memmap.row_shift, self.codes, CLASS, pages.compound, pages.heads)

    @property
    def odd_classes(self) -> OddClasses:
        """What overrides the class of the page that a PTE maps (vm_normal_page())."""
        return OddClasses(
            EntryClass.NO_PAGE, EntryClass.SPECIAL, EntryClass.ZERO, Bit.SPECIAL | Bit.DEVMAP, self.layout.zero_pfn
        )


def page_classes(pages: Pages, first: int, stop: int) -> U8:
    """For each page of rows [first, stop), the `EntryClass` of a plain PTE that maps it."""
    here, words = slice(first, stop), pages.words
    by_words = np.full(len(words), EntryClass.NORMAL, np.uint8)
    by_words[words.refcount <= 0] = EntryClass.FREE
    by_words[(words.type_ != 0) & (words.type_ != type_code("hugetlb"))] = EntryClass.TYPED
    by_words[words.type_ == type_code("buddy")] = EntryClass.FREE
    own = pages.head_row[here]
    number = pages.number[np.maximum(own, 0)]
    entry_class: U8 = by_words[number]
    entry_class[own < 0] = EntryClass.BROKEN
    if not words.readable.all():
        entry_class[~words.readable[pages.number[here]] | ~words.readable[number]] = EntryClass.UNREADABLE
    return entry_class


def judge(ground: Ground, found: Mappings) -> Mappings:
    """Cut runs at the borders of folios and of stretches of pages of one class, and say what each maps."""
    m = _cut_at_borders(ground, found)
    pages = ground.pages
    if is_compiled() and not pages.memmap.is_sparse and (m.level == Level.PTE).all():
        entry_class, page_row, head_row = judge_runs(m.pfn, m.bits, ground.page_rows, ground.odd_classes)
        return replace(m, entry_class=entry_class, page_row=page_row, head_row=head_row)
    row = pages.memmap.rows(m.pfn)
    return replace(
        m,
        entry_class=_entry_classes(ground, m, row),
        page_row=row.astype(np.int32),
        head_row=take_or(pages.head_row, row, -1),
    )


def _cut_at_borders(ground: Ground, m: Mappings) -> Mappings:
    """Cut runs where the large folio or the class of page changes under them, the pieces in place of the whole."""
    runs = np.flatnonzero(m.nr > 1)
    row = ground.pages.memmap.rows(m.pfn[runs])
    if (row < 0).any():
        runs, row = runs[row >= 0], row[row >= 0]
    owner, skip, nr = cut_runs(ground.codes, row, m.nr[runs].astype(np.int64), BORDER)
    if len(owner) == len(runs):
        return m
    pieces = np.ones(len(m), np.int64)
    pieces[runs] = np.bincount(owner, minlength=len(runs))
    parts = m.take(np.repeat(np.arange(len(m)), pieces))
    cut = np.zeros(len(m), np.bool_)
    cut[runs] = True
    here = np.repeat(cut, pieces)
    step, length = np.zeros(len(parts), np.int64), parts.nr.copy()
    step[here], length[here] = skip, nr
    return pieces_of_runs(ground.layout, parts, step, length)


def pieces_of_runs(layout: Layout, m: Mappings, skip: I64, nr: U32) -> Mappings:
    """A piece of each run of entries, its page and folio still those of the run.

    Args:
        layout: The kernel's layout.
        m: The runs; one of a single entry may be of any level.
        skip: int64[n]; entries before the piece.
        nr: uint32[n]; entries in it.
    """
    far = skip.astype(np.uint64)
    return replace(
        m,
        va=m.va + (far << np.uint64(layout.memmap.page_shift)),
        nr=nr,
        pfn=m.pfn + skip,
        entry=m.entry + far * layout.arch.leaf_step(Level.PTE, m.entry),
        slot=(m.slot + skip).astype(np.uint16),
    )


def _entry_classes(ground: Ground, m: Mappings, row: I64) -> U8:
    """The `EntryClass` of each run, given the row of its first page."""
    layout, folios = ground.layout, ground.folios
    entry_class = np.full(len(m), EntryClass.NO_PAGE, np.uint8)
    known = row >= 0
    entry_class[known] = ground.codes[row[known]] & np.uint8(CLASS)
    # vm_normal_page() and vm_normal_page_pmd() take these for memory without a counted page.
    special = (m.bits & (Bit.SPECIAL | Bit.DEVMAP)) != 0
    zero = m.pfn == layout.zero_pfn
    big = np.flatnonzero(m.level != Level.PTE)
    if len(big):
        # A huge leaf begins at the first page of a folio at least as large as what it maps. A hugetlb folio may be
        # larger than one PMD only where the architecture joins several entries; x86 does not.
        folio = take_or(ground.folio_of_page, row[big], -1)
        span = np.zeros(len(big), np.int64)
        for shape in layout.arch.shapes:
            span[m.level[big] == shape.level] = shape.shift - layout.arch.page_shift
        misfit = (folio < 0) | (take_or(folios.order, folio, 0) < span)
        misfit |= take_or(ground.pages.head_row, row[big], -1) != row[big]
        entry_class[big[misfit & (entry_class[big] == EntryClass.NORMAL)]] = EntryClass.BROKEN
        # Huge leaves had no special bit of their own before 6.12: there the VMA decides (vm_normal_page_pmd()).
        flags = take_or(ground.vmas.flags, m.vma_idx[big], 0)
        pfnmap = (flags & np.uint64(VM_PFNMAP | VM_MIXEDMAP | VM_HUGETLB)) == VM_PFNMAP
        special[big[pfnmap & ((flags & np.uint64(VM_SHARED | VM_MAYSHARE)) != 0)]] = True
        huge_zero = (m.level[big] == Level.PMD) & (m.pfn[big] == layout.huge_zero_pfn)
        zero[big] = huge_zero & (layout.huge_zero_pfn >= 0)
    entry_class[special] = EntryClass.SPECIAL
    entry_class[zero] = EntryClass.ZERO
    return entry_class


@dataclass(frozen=True)
class MappingCounts:
    """Counts rebuilt from the page tables. Slots reached twice through a shared table count once.

    Attributes:
        page_mappings: int32 per page row; distinct PTE slots that map it (P_i).
        entire: int32 per folio row; distinct PMD and PUD slots that map it (E).
        pair_folio, pair_mm, pair_count: one row each (large folio, mm) with mappings: rows and entries.
        nr_mms: int32 per folio row; distinct mms that map it.
        nr_entries: Leaf entries in all, of every class.
        codes: `Ground.codes` with `LINKED`.
    """

    page_mappings: I32
    entire: I32
    pair_folio: I64
    pair_mm: I64
    pair_count: I64
    nr_mms: I32
    nr_entries: int
    codes: U8


Counted = tuple[tuple[U64, I64], int, bool]
"""Entries by folio and mm, entries in all, and whether any is outside of VMAs."""


class Counter:
    """Counts leaf entries as they come: by page, by folio, by folio and mm.

    Args:
        ground: What they were judged by.
        shared: Whether workers count as well, into the same columns; only where `inspector.loops.is_compiled`.
    """

    def __init__(self, ground: Ground, *, shared: bool = False) -> None:
        self._ground = ground
        self._shared = shared
        self._single, self._entire = self._columns()
        # Memory that is never written to is never there.
        self._outside = self._columns() if shared else None
        self._any_outside = False
        self.begin()

    def _columns(self) -> tuple[I32, I32]:
        """int32 by page, and by folio."""
        pages, folios = len(self._ground.pages), len(self._ground.folios)
        return long_zeros(pages, np.int32, shared=self._shared), long_zeros(folios, np.int32, shared=self._shared)

    def begin(self) -> None:
        """Begin a share of the work: what was counted before is not given by `gathered`."""
        self._pairs = [_NO_PAIRS]
        self._pending = 0
        self._nr_entries = 0

    def gathered(self) -> Counted:
        """What was counted since `begin` and is not in the shared columns, for `merge`."""
        self._merge()
        return self._pairs[0], self._nr_entries, self._any_outside

    def merge(self, gathered: Counted) -> None:
        """Take in what a worker counted."""
        pairs, nr_entries, any_outside = gathered
        self._pairs.append(pairs)
        self._nr_entries += nr_entries
        self._any_outside |= any_outside

    def take(self, m: Mappings) -> None:
        """Count a batch."""
        self._nr_entries += int(m.nr.sum())
        normal = m.entry_class == EntryClass.NORMAL
        stray = normal & ((m.vma_idx < 0) | ~m.counted)
        if stray.any():
            self._take_strays(m.take(stray))
        good = np.flatnonzero(normal & m.counted)
        row, nr = m.page_row[good], m.nr[good]
        folio = self._count(m.level[good], row, nr, (self._single, self._entire))
        large = np.flatnonzero(folio >= 0)
        if len(large):
            self._pairs.append(_add_up(_pair_keys(folio[large], m.mm_idx[good[large]]), nr[large].astype(np.int64)))
            self._pending += len(self._pairs[-1][0])
            if self._pending > max(len(self._pairs[0][0]), _PIECE):
                self._merge()

    def _take_strays(self, m: Mappings) -> None:
        """Normal entries outside of VMAs, which make no links, and those of shared tables, which do but do not count.

        The pages of a run of small folios are all heads.
        """
        again = m.take((m.vma_idx >= 0) & ~m.counted)
        codes, small = self._ground.codes, self._ground.folio_of_page[again.page_row] < 0
        codes[again.head_row] |= np.uint8(LINKED)
        codes[expand_runs(again.page_row[small], again.nr[small]).astype(np.int64)] |= np.uint8(LINKED)
        outside = m.take((m.vma_idx < 0) & m.counted)
        if self._outside is None:
            self._outside = self._columns()
        self._any_outside |= len(outside) > 0
        self._count(outside.level, outside.page_row, outside.nr, self._outside)

    def _count(self, level: U8, row: I32, nr: U32, counts: tuple[I32, I32]) -> I32:
        """Count entries into counts by page and by folio; gives the row of the folio of each, -1 for small pages."""
        folio = self._ground.folio_of_page[row]
        huge = level != Level.PTE
        if huge.any():
            whole = folio[huge]
            count_runs(counts[1], whole, np.ones(len(whole), np.uint32), together=self._shared)
            row, nr = row[~huge], nr[~huge]
        count_runs(counts[0], row, nr, together=self._shared)
        return folio

    def _link(self) -> None:
        """Mark the heads of what is mapped in VMAs."""
        ground, mark, single = self._ground, np.uint8(LINKED), self._single
        outside = self._outside if self._any_outside else None
        pages, codes = ground.pages, ground.codes
        for first in range(0, len(single), _PIECE):
            here = slice(first, first + _PIECE)
            inside = single[here] if outside is None else single[here] - outside[0][here]
            is_mapped, compound = inside != 0, pages.compound[here]
            is_small = compound == -1
            codes[here] |= (is_mapped & is_small).view(np.uint8) * mark
            codes[pages.heads[compound[is_mapped & ~is_small]]] |= mark
        entire = self._entire if outside is None else self._entire - outside[1]
        codes[ground.folios.row[entire > 0]] |= mark

    def _merge(self) -> None:
        keys, counts = (np.concatenate([part[i] for part in self._pairs]) for i in (0, 1))
        self._pairs, self._pending = [_add_up(keys, counts)], 0

    def counts(self) -> MappingCounts:
        """The counts, once all batches were taken."""
        self._merge()
        self._link()
        key, count = self._pairs[0]
        folio = (key >> np.uint64(_MM_BITS)).astype(np.int64)
        return MappingCounts(
            page_mappings=settled(self._single),
            entire=self._entire,
            pair_folio=folio,
            pair_mm=(key & np.uint64((1 << _MM_BITS) - 1)).astype(np.int64),
            pair_count=count,
            nr_mms=np.bincount(folio, minlength=len(self._entire)).astype(np.int32),
            nr_entries=self._nr_entries,
            codes=self._ground.codes,
        )


_MM_BITS = MAX_MMS.bit_length() - 1
_NO_PAIRS = (np.empty(0, np.uint64), np.empty(0, np.int64))


def _pair_keys(folio: I32, mm_idx: I32) -> U64:
    return (folio.astype(np.uint64) << np.uint64(_MM_BITS)) | mm_idx.astype(np.uint64)


def _add_up(key: U64, count: I64) -> tuple[U64, I64]:
    """Each key once, ascending, with the sum of its counts."""
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = group_starts(key)
    return key[starts], np.add.reduceat(count[order], starts) if len(starts) else starts


def count_migration_entries(pages: Pages, nonpresent: NonPresent) -> Column[np.int32]:
    """int32 per page row; migration entries that name each page. Slots reached twice count once."""
    migrating = np.isin(nonpresent.kind, np.array(MIGRATION_KINDS, np.uint8)) & nonpresent.counted
    row = pages.memmap.rows(nonpresent.pfn[migrating])
    named, nr = np.unique(row[row >= 0], return_counts=True)

    def count(at: AnyArray | slice) -> I32:
        rows = np.arange(*at.indices(len(pages))) if isinstance(at, slice) else at
        return take_or(nr.astype(np.int32), rows_of(named, rows), 0)

    return Column(count, len(pages))
