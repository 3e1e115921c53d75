"""All page tables of all mms walked together, level by level, a gather for many tables at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from inspector.arch.base import PFN_KINDS, Arch, Kind, Level, LevelShape
from inspector.columns import (
    I32,
    I64,
    U64,
    Builder,
    Mask,
    Stretches,
    distinct,
    expand_runs,
    page_key,
    rows_covering,
    take_or,
)
from inspector.layout.flags import type_code
from inspector.layout.kernel import Layout
from inspector.tables.mms import Mms
from inspector.tables.pages import Pages
from inspector.tables.vmas import Vmas
from inspector.walk.mappings import (
    TABLE_NO_PAGE,
    TABLE_NOT_A_TABLE,
    TABLE_OK,
    TABLE_TWICE_IN_MM,
    TABLE_UNREADABLE,
    Mappings,
    NonPresent,
    PageTables,
    Walk,
)

_BATCH = 256
"""Tables decoded together: 1 MiB of entries, so that the passes over them stay in a core's own cache."""

_MIXED = -2
"""In place of the VMA of a table: its addresses are not all in one VMA."""

_NOT_A_TABLE = tuple(type_code(name) for name in ("buddy", "offline", "hugetlb", "slab", "zsmalloc", "large_kmalloc"))


@dataclass
class _Found:
    attribute: _Attributor
    mappings: Builder[Mappings]
    nonpresent: list[NonPresent]
    tables: list[PageTables]
    only: Stretches | None
    nr_tables: int = 0


def walk_page_tables(
    layout: Layout, pages: Callable[[I64], Pages], mms: Mms, vmas: Vmas, only: Stretches | None = None
) -> Walk:
    """Walk the user half of every mm's page tables.

    A table reached a second time (hugetlb's shared PMD tables) is decoded for each mm, but only the first row counts as
    a mapping. A table whose page is free or of another kind is not entered: its content is other data.

    Args:
        layout: The kernel's layout.
        pages: Struct pages, those of the given page frames among them: for the state of the table pages, a level at a
            time.
        mms: Whose tables to walk; an mm without a usable pgd is skipped.
        vmas: To attribute each entry to a VMA; runs are split at their borders.
        only: Addresses, by row of the mm, whose entries are wanted: no other entry is read. None for all.
    """
    arch = layout.arch
    attribute = _Attributor(arch, vmas)
    found = _Found(attribute, Builder(Mappings), [], [], only)
    rows = np.flatnonzero(mms.pgd_pfn >= 0)
    tables = PageTables(
        pfn=mms.pgd_pfn[rows],
        level=np.full(len(rows), arch.shapes[0].level, np.uint8),
        mm_idx=rows.astype(np.int32),
        va=np.zeros(len(rows), np.uint64),
        parent=np.full(len(rows), -1, np.int32),
        slot=np.zeros(len(rows), np.uint16),
        first=np.ones(len(rows), np.bool_),
        state=np.zeros(len(rows), np.uint8),
    )
    for shape in arch.shapes:
        tables = _judge(pages(tables.pfn), tables, found.attribute)
        start = found.nr_tables
        found.nr_tables += len(tables)
        found.tables.append(tables)
        below: list[PageTables] = []
        usable = np.flatnonzero(tables.state == TABLE_OK)
        # Ascending page frames, so that one batch is one stretch of the dump.
        usable = usable[np.argsort(tables.pfn[usable], kind="stable")]
        if shape.level == Level.PTE and only is None:
            found.mappings.reserve(len(usable) * shape.user_entries)
        for at in range(0, len(usable), _BATCH):
            below.extend(_decode(layout, shape, tables, usable[at : at + _BATCH], start, found))
        if not below:
            break
        tables = PageTables.concat(below)
    mappings = found.mappings.table() or Mappings.empty()
    nonpresent = NonPresent.concat([NonPresent.empty(), *found.nonpresent])
    return Walk(
        mappings,
        replace(nonpresent, vma_idx=attribute.vma_idx(nonpresent.mm_idx, nonpresent.va)),
        PageTables.concat(found.tables),
    )


def _judge(pages: Pages, tables: PageTables, attribute: _Attributor) -> PageTables:
    """Decide which tables to enter, and which rows are repetitions.

    One mm may reach a PMD table twice only where hugetlb shares it: a file that is mapped at two places
    (mm/hugetlb.c, huge_pmd_share()). Anything else that is met again in one mm is a loop.
    """
    if not len(tables):
        return tables
    state = tables.state.copy()
    row = pages.memmap.rows(tables.pfn)
    no_page = row < 0
    at = np.maximum(row, 0)
    wrong = np.isin(pages.type_[at], _NOT_A_TABLE) | (pages.refcount[at] <= 0)
    wrong |= pages.head_row[at] != at
    wrong &= pages.readable[at]
    state[no_page] = TABLE_NO_PAGE
    state[~no_page & wrong] = TABLE_NOT_A_TABLE
    first = np.zeros(len(tables), np.bool_)
    first[np.unique(tables.pfn, return_index=True)[1]] = True
    key = (tables.pfn.astype(np.uint64) << np.uint64(20)) | tables.mm_idx.astype(np.uint64)
    once = np.zeros(len(tables), np.bool_)
    once[np.unique(key, return_index=True)[1]] = True
    again = (state == TABLE_OK) & ~once
    again[again] &= ~((tables.level[again] == Level.PMD) & attribute.in_hugetlb(tables.mm_idx[again], tables.va[again]))
    state[again] = TABLE_TWICE_IN_MM
    return replace(tables, first=first, state=state)


def _decode(
    layout: Layout, shape: LevelShape, tables: PageTables, rows: I64, start: int, found: _Found
) -> list[PageTables]:
    """Decode one batch of tables of one level; leaves and non-present entries go to ``found``, tables are returned."""
    arch, level = layout.arch, shape.level
    at, entry, unreadable = _read(layout, shape, tables, rows, found.only)
    tables.state[rows[unreadable]] = TABLE_UNREADABLE
    if not len(at):
        return []
    leaf = arch.leaf_mask(level, entry)
    batch = _Batch(tables, rows, start, shape)
    if leaf.all():
        found.mappings.add(_leaves(found.attribute, batch, at, entry))
        return []
    if leaf.any():
        found.mappings.add(_leaves(found.attribute, batch, at[leaf], entry[leaf]))
    rest = ~leaf
    at, entry = at[rest], entry[rest]
    below: list[PageTables] = []
    if level != Level.PTE:
        table = arch.table_mask(level, entry)
        if table.any():
            below.append(_children(arch, batch, at[table], entry[table], arch.shapes))
        at, entry = at[~table], entry[~table]
    kind = arch.classify(level, entry)
    other = kind != Kind.NONE
    if other.any():
        found.nonpresent.append(_nonpresent(arch, batch, at[other], entry[other], kind[other]))
    return below


def _read(
    layout: Layout, shape: LevelShape, tables: PageTables, rows: I64, only: Stretches | None
) -> tuple[I64, U64, I64]:
    """The non-empty entries of some tables: their positions in the tables laid end to end, and the entries.

    Returns:
        ``(at, entry, unreadable)``, the last as places in ``rows``.
    """
    width = shape.user_entries
    addresses = tables.pfn[rows].astype(np.uint64) << np.uint64(layout.memmap.page_shift)
    if only is None:
        raw = layout.memory.gather(addresses, width * 8, physical=True)
        words, at = raw.bytes.view(np.uint64).ravel(), None
        unreadable = np.flatnonzero(~raw.valid)
    else:
        at = _wanted(layout, shape, tables.take(rows), only)
        place = at // width
        words, valid = layout.memory.words(
            addresses[place] + (at % width).astype(np.uint64) * np.uint64(8), physical=True
        )
        unreadable = distinct(place[~valid])
    some = np.flatnonzero(words)
    return some if at is None else at[some], words[some], unreadable


def _wanted(layout: Layout, shape: LevelShape, tables: PageTables, only: Stretches) -> I64:
    """Positions of the entries that cover any of the wanted addresses, ascending."""
    per_entry = np.uint64(shape.shift - layout.arch.page_shift)
    base = tables.va >> np.uint64(layout.arch.page_shift)
    end = base + (np.uint64(shape.user_entries) << per_entry) - np.uint64(1)
    low, high = only.overlapping(tables.mm_idx, base, end)
    place = np.repeat(np.arange(len(tables)), high - low)
    stretch = expand_runs(low, high - low).astype(np.int64)
    first = (np.maximum(only.first[stretch], base[place]) - base[place]) >> per_entry
    last = (np.minimum(only.last[stretch], end[place]) - base[place]) >> per_entry
    nr = (last - first).astype(np.int64) + 1
    slots = expand_runs(first.astype(np.int64), nr).astype(np.int64)
    return distinct(np.repeat(place, nr) * shape.user_entries + slots)


@dataclass(frozen=True)
class _Batch:
    """Turns positions in a batch's flattened entries into addresses, tables and mms."""

    tables: PageTables
    rows: I64
    start: int
    shape: LevelShape

    @property
    def _width(self) -> int:
        """Log2 of the entries of one table: always a power of two."""
        return self.shape.user_entries.bit_length() - 1

    def place(self, at: I64) -> I64:
        """Which of the batch's tables."""
        return at >> self._width

    def table(self, at: I64) -> I64:
        return self.rows[self.place(at)]

    def slot(self, at: I64) -> I64:
        return at & (self.shape.user_entries - 1)

    def va(self, table: I64, slot: I64) -> U64:
        return self.tables.va[table] + (slot.astype(np.uint64) << np.uint64(self.shape.shift))


def _leaves(attribute: _Attributor, batch: _Batch, at: I64, entry: U64) -> Mappings:
    """Leaf entries as runs, each in its VMA."""
    only = np.full(len(batch.rows), _MIXED, np.int32)
    if batch.shape.level == Level.PTE:
        # Most tables lie in one VMA whole: one look-up for all of their entries, and no run to be cut.
        span = np.uint64((batch.shape.user_entries - 1) << batch.shape.shift)
        only = attribute.only_vma(batch.tables.mm_idx[batch.rows], batch.tables.va[batch.rows], span)
    return attribute.mappings(_runs(attribute.arch, batch, at, entry, only))


def _runs(arch: Arch, batch: _Batch, at: I64, entry: U64, only: I32) -> Mappings:
    """Merge neighbouring PTEs of consecutive page frames; entries of higher levels stay single."""
    level = batch.shape.level
    if level == Level.PTE:
        step = arch.leaf_step(level, entry[:-1])
        fresh = np.empty(len(at), np.bool_)
        fresh[0] = True
        np.not_equal(entry[1:] - entry[:-1], step, out=fresh[1:])
        fresh[1:] |= (at[1:] - at[:-1]) != 1
        fresh |= batch.slot(at) == 0
        begin = np.flatnonzero(fresh)
        nr = np.diff(begin, append=len(at)).astype(np.uint32)
        at, entry = at[begin], entry[begin]
    else:
        nr = np.ones(len(at), np.uint32)
    place, slot = batch.place(at), batch.slot(at)
    table = batch.rows[place]
    return Mappings(
        mm_idx=batch.tables.mm_idx[table],
        vma_idx=only[place],
        va=batch.va(table, slot),
        level=np.full(len(at), level, np.uint8),
        nr=nr,
        pfn=arch.leaf_pfn(level, entry).astype(np.int64),
        entry=entry,
        table_idx=(table + batch.start).astype(np.int32),
        slot=slot.astype(np.uint16),
        counted=batch.tables.first[table],
    )


def _children(arch: Arch, batch: _Batch, at: I64, entry: U64, shapes: tuple[LevelShape, ...]) -> PageTables:
    table, slot = batch.table(at), batch.slot(at)
    below = shapes[[s.level for s in shapes].index(batch.shape.level) + 1]
    n = len(at)
    return PageTables(
        pfn=arch.table_pfn(entry).astype(np.int64),
        level=np.full(n, below.level, np.uint8),
        mm_idx=batch.tables.mm_idx[table],
        va=batch.va(table, slot),
        parent=(table + batch.start).astype(np.int32),
        slot=slot.astype(np.uint16),
        first=np.ones(n, np.bool_),
        state=np.zeros(n, np.uint8),
    )


def _nonpresent(arch: Arch, batch: _Batch, at: I64, entry: U64, kind: Mask) -> NonPresent:
    table, slot = batch.table(at), batch.slot(at)
    carries = np.isin(kind, np.array(PFN_KINDS, np.uint8))
    return NonPresent(
        mm_idx=batch.tables.mm_idx[table],
        vma_idx=np.full(len(at), -1, np.int32),
        va=batch.va(table, slot),
        level=np.full(len(at), batch.shape.level, np.uint8),
        kind=kind.astype(np.uint8),
        pfn=np.where(carries, arch.nonpresent_pfn(entry).astype(np.int64), -1),
        swap_type=arch.swap_type(entry),
        swap_offset=arch.swap_offset(entry),
        entry=entry,
        table_idx=(table + batch.start).astype(np.int32),
        slot=slot.astype(np.uint16),
        counted=batch.tables.first[table],
    )


class _Attributor:
    """Finds the VMA of each entry; VMAs are ordered by mm, then address, and do not overlap.

    Runs are cut where a VMA begins or ends. Example: an mm with the VMAs A [0x1000, 0x3000) and B [0x5000, 0x6000), and
    a run of six PTEs from 0x1000 on, those outside the VMAs left by mistake:

    - 0x1000 is in A, which has room for 2 pages: the run is cut into [0x1000, 0x3000) in A and a rest of 4;
    - the rest begins at 0x3000 in no VMA; B begins 2 pages on: [0x3000, 0x5000) gets VMA -1;
    - the rest of 2 begins in B, which has room for 1: [0x5000, 0x6000) in B;
    - the last page is in no VMA and none follows: [0x6000, 0x7000) gets VMA -1.
    """

    def __init__(self, arch: Arch, vmas: Vmas) -> None:
        self.arch = arch
        self._vmas = vmas
        self._shift = np.uint64(arch.page_shift)
        self._starts = self._key(vmas.mm_idx, vmas.start)
        self._ends = self._key(vmas.mm_idx, np.maximum(vmas.end, np.uint64(1)) - np.uint64(1)) + np.uint64(1)

    def _key(self, mm_idx: I32, va: U64) -> U64:
        return page_key(mm_idx, va >> self._shift)

    def vma_idx(self, mm_idx: I32, va: U64) -> I32:
        return rows_covering(self._starts, self._ends, self._key(mm_idx, va)).astype(np.int32)

    def only_vma(self, mm_idx: I32, va: U64, span: np.uint64) -> I32:
        """The VMA that all addresses from ``va`` to ``va + span`` lie in, `_MIXED` where there is no such VMA."""
        vma = self.vma_idx(mm_idx, va)
        if not len(self._vmas):
            return vma
        return np.where(va + span < take_or(self._vmas.end, vma, 0), vma, _MIXED).astype(np.int32)

    def in_hugetlb(self, mm_idx: I32, va: U64) -> Mask:
        """Whether the first address of each table, or the last, lies in a hugetlb VMA."""
        out = np.zeros(len(va), np.bool_)
        for distance in (0, (1 << 30) - 1):
            out |= take_or(self._vmas.is_hugetlb, self.vma_idx(mm_idx, va + np.uint64(distance)), False)
        return out

    def mappings(self, mappings: Mappings) -> Mappings:
        """Attribute the runs whose VMA is `_MIXED`, cutting those that cross the border of a VMA."""
        done = []
        rest = mappings
        while len(rest):
            vma = rest.vma_idx.copy()
            mixed = np.flatnonzero(vma == _MIXED)
            vma[mixed] = self.vma_idx(rest.mm_idx[mixed], rest.va[mixed])
            rest = replace(rest, vma_idx=vma)
            runs = mixed[rest.nr[mixed] > 1]
            room = self._room(rest.mm_idx[runs], rest.va[runs], vma[runs])
            over = rest.nr[runs] > room
            long, room = runs[over], room[over]
            if not len(long):
                done.append(rest)
                break
            fit = room.astype(np.uint32)
            nr = rest.nr.copy()
            nr[long] = fit
            done.append(replace(rest, nr=nr))
            tail = rest.take(long)
            rest = replace(
                tail,
                vma_idx=np.full(len(long), _MIXED, np.int32),
                va=tail.va + (fit.astype(np.uint64) << self._shift),
                nr=tail.nr - fit,
                pfn=tail.pfn + fit,
                entry=tail.entry + fit * self.arch.leaf_step(Level.PTE, tail.entry),
                slot=(tail.slot + fit).astype(np.uint16),
            )
        return done[0] if len(done) == 1 else Mappings.concat(done) if done else mappings

    def _room(self, mm_idx: I32, va: U64, vma: I32) -> U64:
        """Pages from each address to the end of its VMA, or to the beginning of the next one."""
        n = len(self._vmas)
        if not n:
            return np.full(len(va), 1 << 31, np.uint64)
        nxt = np.minimum(np.searchsorted(self._starts, self._key(mm_idx, va), "right"), n - 1)
        limit = np.where(vma >= 0, self._vmas.end[vma], self._vmas.start[nxt])
        bounded = (vma >= 0) | ((self._vmas.mm_idx[nxt] == mm_idx) & (self._vmas.start[nxt] > va))
        pages = np.where(bounded, (limit - va) >> self._shift, np.uint64(1 << 31))
        return np.maximum(pages, np.uint64(1)).astype(np.uint64)
