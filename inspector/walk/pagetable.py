"""All page tables of all mms walked together, level by level, a gather for many tables at once.

The first walk finds the tables. It hands on the leaf entries as runs, a batch of tables at a time, and keeps none of
them: all or some of the tables that are known by then can be walked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from inspector.arch.base import PFN_KINDS, Arch, Kind, Level, LevelShape
from inspector.columns import (
    I32,
    I64,
    MAX_MMS,
    U32,
    U64,
    AnyArray,
    Builder,
    Mask,
    Stretches,
    distinct,
    expand_runs,
    page_key,
    rows_covering,
    take_or,
)
from inspector.errors import TargetError
from inspector.layout.flags import type_code
from inspector.layout.kernel import Layout
from inspector.loops import RunColumns, TableRows, TablesOfVmas, fill_runs, is_compiled
from inspector.loops import leaf_runs as merge_leaves
from inspector.memory import Memory
from inspector.records import dataclass
from inspector.scratch import shared_zeros
from inspector.tables.mms import Mms
from inspector.tables.pages import Pages
from inspector.tables.vmas import Vmas
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import (
    ENTERED,
    ENTRY_ID_SLOT_BITS,
    TABLE_MOVED,
    TABLE_NO_PAGE,
    TABLE_NOT_A_TABLE,
    TABLE_OK,
    TABLE_PARTLY,
    TABLE_TWICE_IN_MM,
    TABLE_UNREADABLE,
    Mappings,
    NonPresent,
    PageTables,
    Walk,
)
from inspector.workers import InOrder, Share, share_out
from inspector.workers import sharing as in_processes

_BATCH = 256
"""Tables decoded together: 1 MiB of entries, so that the passes over them stay in a core's own cache."""

_AT_FULL_SIZE = 2
"""Workers that each have such a batch in hand; more of them share what these take."""

_LEAST = 64
"""Tables of the smallest batches: fewer cost more calls than they save memory."""

_NOT_A_TABLE = tuple(type_code(name) for name in ("buddy", "offline", "hugetlb", "slab", "zsmalloc", "large_kmalloc"))


_WORTH_SHARING = 16
"""Batches of one level that take longer than processes to start."""


@dataclass(frozen=True)
class Sharing:
    """How the leaf entries of a walk are taken in several processes.

    Attributes:
        nr_workers: Processes at most.
        divide: Called here before others take batches.
        begin: Called in each of the others before its first batch, with what says whether there are more.
        gathered: Called in each of them behind the last one: what its share came to.
        merge: Called with that, here.
    """

    nr_workers: int
    divide: Callable[[], None] = lambda: None
    begin: Callable[[Callable[[], bool]], None] = lambda _: None
    gathered: Callable[[], Any] = lambda: None
    merge: Callable[[Any], None] = lambda _: None


def walk_page_tables(  # noqa: PLR0913  (where to walk, and what for)
    layout: Layout,
    pages: Callable[[I64], Pages],
    mms: Mms,
    vmas: Vmas,
    take: Callable[[Mappings], None] | None = None,
    *,
    only: Stretches | None = None,
    ptes: Callable[[U64], Mask] | None = None,
    sharing: Sharing | None = None,
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
        take: Called with the leaf entries of each batch of tables, which nothing else keeps then.
        only: Addresses, by row of the mm, whose entries are wanted: no other entry is read. None for all.
        ptes: Says which entries of the last level are wanted; None for all.
        sharing: How others than this process may take batches; None where they may not.

    Raises:
        TargetError: There are more mms than rows can number.
    """
    arch = layout.arch
    if len(mms) > MAX_MMS:
        raise TargetError("the target has more address spaces than can be numbered", f"{len(mms):,} mms")
    every: Builder[Mappings] = Builder(Mappings)
    walk = _FirstWalk(layout, mms, Attributor(arch.page_shift, vmas), take or every.add, only, ptes, sharing)
    found: list[PageTables] = []
    nonpresent = [NonPresent.empty()]
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
        level = _Level(shape, _judge(pages(tables.pfn), tables, walk.attribute), found)
        walk.down(level)
        found.append(level.tables)
        nonpresent += level.nonpresent
        below = list(level.below)
        if not below:
            break
        tables = PageTables.concat(below)
    return Walk(every.table() or Mappings.empty(), NonPresent.concat(nonpresent), PageTables.concat(found))


class _Level:
    """The tables of one level, and what is found in them."""

    def __init__(self, shape: LevelShape, tables: PageTables, above: list[PageTables]) -> None:
        self.shape, self.tables, self.start = shape, tables, sum(map(len, above))
        # Of each table the page frame of the one above it, which is of the last level.
        before = self.start - len(above[-1]) if above else 0
        self.above = take_or(above[-1].pfn, tables.parent - before, -1) if above else np.full(len(tables), -1, np.int64)
        self.nonpresent: InOrder[NonPresent] = InOrder()
        self.below: InOrder[PageTables] = InOrder()


@dataclass(frozen=True)
class _FirstWalk:
    """Arguments of `walk_page_tables`, and how they are used at each level."""

    layout: Layout
    mms: Mms
    attribute: Attributor
    take: Callable[[Mappings], None]
    only: Stretches | None
    ptes: Callable[[U64], Mask] | None
    sharing: Sharing | None

    def down(self, level: _Level) -> None:
        """Read all tables of a level that are to be entered."""
        sharing = self.sharing
        most = 1 if sharing is None else sharing.nr_workers
        batches = list(_batches(level.tables, np.flatnonzero(level.tables.state == TABLE_OK), most))
        nr = 1 if sharing is None else in_processes(len(batches), sharing.nr_workers, _WORTH_SHARING)
        if sharing is None or nr == 1:
            self._look(level, batches, range(len(batches)))
            return
        state = shared_zeros(len(level.tables), np.uint8)
        state[:] = level.tables.state
        level.tables = replace(level.tables, state=state)

        def here(numbers: Share) -> None:
            self._look(level, batches, numbers)

        def there(numbers: Share) -> tuple[InOrder[NonPresent], InOrder[PageTables], Any]:
            sharing.begin(numbers.some_left)
            self._look(level, batches, numbers)
            return level.nonpresent, level.below, sharing.gathered()

        sharing.divide()
        for nonpresent, below, taken in share_out(len(batches), here, there, nr):
            level.nonpresent.merge(nonpresent)
            level.below.merge(below)
            sharing.merge(taken)

    def _look(self, level: _Level, batches: list[I64], numbers: Iterable[int]) -> None:
        for number in numbers:
            self._look_at(level, batches[number], number)

    def _look_at(self, level: _Level, rows: I64, number: int) -> None:
        """Read a batch, which is not kept while the next one is read."""
        batch = _read(self.layout, level.shape, level.tables, rows, level.start, self.only)
        if self.layout.memory.runs_on:
            batch = _without_moved(self.layout, self.mms, batch, level.above[rows])
        if self.ptes is not None and level.shape.level == Level.PTE:
            batch = replace(batch, words=np.where(self.ptes(batch.words), batch.words, np.uint64(0)))
        runs = leaf_runs(self.layout.arch, self.attribute, batch)
        if len(runs.at):
            self.take(_mappings(self.layout.arch, batch, runs))
        if len(runs.other):
            nonpresent, below = _other(self.attribute, self.layout, batch, runs.other)
            if nonpresent is not None:
                level.nonpresent.add(number, nonpresent)
            if below is not None:
                level.below.add(number, below)


def mark_moved(layout: Layout, mms: Mms, tables: PageTables) -> None:
    """Of tables that a walk did not enter, mark those that nothing leads to any more: the kernel runs on."""
    rows = np.flatnonzero(np.isin(tables.state, (TABLE_NO_PAGE, TABLE_NOT_A_TABLE, TABLE_TWICE_IN_MM)))
    if len(rows):
        some = tables.take(rows)
        above = take_or(tables.pfn, some.parent, -1)
        tables.state[rows[_moved(layout, mms, some, above, "mm_users.counter")]] = TABLE_MOVED


def _moved(layout: Layout, mms: Mms, tables: PageTables, above: I64, held_by: str) -> Mask:
    """Tables that nothing leads to any more, so that their pages may hold anything by now.

    The entry above such a table leads elsewhere: free_pgtables() clears it before the table is freed, and
    gup_fast_pte_range() (mm/gup.c) reads it again for the same reason. Or its mm is held by nothing any more, or has
    another top table because the mm_struct serves another process.

    Args:
        layout: The kernel's layout.
        mms: Whose tables they are.
        tables: The tables.
        above: int64[n]; page frame of the table above each, -1 for a top table.
        held_by: The count of struct mm_struct: without users the tables are being freed (mm/mmap.c, exit_mmap()), and
            without references the top one is as well (kernel/fork.c, __mmdrop()).
    """
    struct = layout.struct("struct mm_struct")
    mm = distinct(tables.mm_idx)
    at = np.searchsorted(mm, tables.mm_idx)
    raw = layout.memory.gather(mms.addr[mm], struct.size)
    holds = struct.field(held_by).column(raw.bytes).astype(np.int32)
    pfn = layout.direct_map_pfns(struct.field("pgd").column(raw.bytes))
    moved: Mask = (~raw.valid | (holds <= 0) | (pfn != mms.pgd_pfn[mm]))[at]
    below = np.flatnonzero(above >= 0)
    slots = (above[below].astype(np.uint64) << np.uint64(layout.memmap.page_shift)) + tables.slot[below] * np.uint64(8)
    entry, _ = layout.memory.words(slots, physical=True)
    moved[below] |= layout.arch.table_pfn(entry).astype(np.int64) != tables.pfn[below]
    return moved


class SecondWalk:
    """The leaf entries of tables that a walk has found, as it handed them on, each batch when it is asked for.

    Args:
        layout: The kernel's layout.
        mms: Whose tables they are.
        vmas: To attribute each entry to a VMA.
        tables: All tables that the first walk found.
        some: Rows of the tables to walk, in any order and without those below them; all when not given.
        nr_workers: Processes that batches will be asked for in, at most.
    """

    def __init__(
        self,
        layout: Layout,
        mms: Mms,
        vmas: Vmas,
        tables: PageTables,
        some: AnyArray | None = None,
        nr_workers: int = 1,
    ) -> None:
        self._layout, self._mms, self._tables = layout, mms, tables
        self._attribute = Attributor(layout.arch.page_shift, vmas)
        entered = np.isin(tables.state, ENTERED)
        if some is not None:
            chosen = np.zeros(len(tables), np.bool_)
            chosen[some] = True
            entered &= chosen
        self._batches = [
            (shape, rows)
            for shape in layout.arch.shapes
            if shape.can_leaf
            for rows in _batches(tables, np.flatnonzero(entered & (tables.level == shape.level)), nr_workers)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Mappings:
        """The leaf entries of a batch of tables."""
        shape, rows = self._batches[number]
        batch = _read(self._layout, shape, self._tables, rows, 0, None)
        if self._layout.memory.runs_on:
            above = take_or(self._tables.pfn, self._tables.parent[rows], -1)
            batch = _without_moved(self._layout, self._mms, batch, above)
        runs = leaf_runs(self._layout.arch, self._attribute, batch)
        return _mappings(self._layout.arch, batch, runs) if len(runs.at) else Mappings.empty()


def empty_entries(layout: Layout, vmas: Vmas, tables: PageTables, ids: I64) -> Mappings:
    """Entries that map nothing any more, by their numbers (`Mappings.entry_id`)."""
    n, table, slot = len(ids), ids >> ENTRY_ID_SLOT_BITS, ids & ((1 << ENTRY_ID_SLOT_BITS) - 1)
    level, mm = tables.level[table], tables.mm_idx[table]
    shift = np.zeros(n, np.uint64)
    for shape in layout.arch.shapes:
        shift[level == shape.level] = shape.shift
    va = tables.va[table] + (slot.astype(np.uint64) << shift)
    nowhere = np.full(n, -1, np.int32)
    return Mappings(
        mm_idx=mm,
        vma_idx=Attributor(layout.arch.page_shift, vmas).vma_idx(mm, va),
        va=va,
        level=level,
        nr=np.ones(n, np.uint32),
        pfn=nowhere.astype(np.int64),
        entry=np.zeros(n, np.uint64),
        table_idx=table.astype(np.int32),
        slot=slot.astype(np.uint16),
        counted=tables.first[table],
        bits=np.zeros(n, np.uint16),
        entry_class=np.full(n, EntryClass.NO_PAGE, np.uint8),
        page_row=nowhere,
        head_row=nowhere,
    )


def tables_over(layout: Layout, vmas: Vmas, tables: PageTables) -> Mask:
    """Which tables cover addresses of any of some VMAs, which are ordered as all are."""
    attribute, out = Attributor(layout.arch.page_shift, vmas), np.zeros(len(tables), np.bool_)
    for shape in layout.arch.shapes:
        rows = np.flatnonzero(tables.level == shape.level)
        out[rows] = attribute.overlaps(tables.mm_idx[rows], tables.va[rows], shape.user_entries << shape.shift)
    return out


def _batches(tables: PageTables, rows: I64, nr_workers: int) -> Iterator[I64]:
    """Tables of one level in ascending order of page frames, so that one batch is one stretch of the dump.

    What all workers have in hand together is bounded, however many they are.
    """
    rows = rows[np.argsort(tables.pfn[rows], kind="stable")]
    size = max(_BATCH * _AT_FULL_SIZE // max(nr_workers, _AT_FULL_SIZE), min(_BATCH, _LEAST))
    for at in range(0, len(rows), size):
        yield rows[at : at + size]


def _judge(pages: Pages, tables: PageTables, attribute: Attributor) -> PageTables:
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
    key = page_key(tables.mm_idx, tables.pfn.astype(np.uint64))
    once = np.zeros(len(tables), np.bool_)
    once[np.unique(key, return_index=True)[1]] = True
    again = (state == TABLE_OK) & ~once
    again[again] &= ~((tables.level[again] == Level.PMD) & attribute.in_hugetlb(tables.mm_idx[again], tables.va[again]))
    state[again] = TABLE_TWICE_IN_MM
    return replace(tables, first=first, state=state)


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
class Batch:
    """Some tables of one level and what they hold; turns positions in its entries into addresses, tables and mms.

    Attributes:
        tables: A table of tables.
        rows: int64[n]; which of its rows these are.
        start: Row of the first of ``tables`` among all tables.
        shape: The level.
        words: uint64[n * user_entries]; the entries, 0 where they could not be read.
    """

    tables: PageTables
    rows: I64
    start: int
    shape: LevelShape
    words: U64

    @property
    def _width(self) -> int:
        """Log2 of the entries of one table: always a power of two."""
        return self.shape.user_entries.bit_length() - 1

    def place(self, at: I64) -> I64:
        """Which of the batch's tables."""
        return at >> self._width

    def table(self, at: I64) -> I64:
        """Row of the table in ``tables``."""
        return self.rows[self.place(at)]

    def slot(self, at: I64) -> I64:
        """Index in the table."""
        return at & (self.shape.user_entries - 1)

    def va(self, table: I64, slot: I64) -> U64:
        """The user address that entries of some tables translate."""
        return self.tables.va[table] + (slot.astype(np.uint64) << np.uint64(self.shape.shift))


def _read(  # noqa: PLR0913, PLR0917  (which tables, and what of them)
    layout: Layout, shape: LevelShape, tables: PageTables, rows: I64, start: int, only: Stretches | None
) -> Batch:
    """Read some tables, whole or the entries that cover the wanted addresses; marks those that cannot be read."""
    width = shape.user_entries
    addresses = tables.pfn[rows].astype(np.uint64) << np.uint64(layout.memmap.page_shift)
    if only is None:
        raw = layout.memory.gather(addresses, width * 8, physical=True)
        words, unreadable = raw.bytes.view(np.uint64).ravel(), rows[~raw.valid]
        if layout.memory.overwritten:
            words, unreadable = _without_overwritten(layout.memory, tables, rows, words.reshape(len(rows), width))
    else:
        at = _wanted(layout, shape, tables.take(rows), only)
        place = at // width
        words = np.zeros(len(rows) * width, np.uint64)
        words[at], valid = layout.memory.words(
            addresses[place] + (at % width).astype(np.uint64) * np.uint64(8), physical=True
        )
        unreadable = rows[place[~valid]]
    tables.state[unreadable] = TABLE_UNREADABLE
    return Batch(tables, rows, start, shape, words)


def _without_moved(layout: Layout, mms: Mms, batch: Batch, above: I64) -> Batch:
    """The batch without what was read of tables that had moved by then; marks them.

    Args:
        layout: The kernel's layout.
        mms: Whose tables they are.
        batch: What was read, of a kernel that runs on.
        above: int64[n]; page frame of the table above each, -1 for a top table.
    """
    gone = _moved(layout, mms, batch.tables.take(batch.rows), above, "mm_count.counter")
    if not gone.any():
        return batch
    batch.tables.state[batch.rows[gone]] = TABLE_MOVED
    words = batch.words.reshape(len(batch.rows), -1).copy()
    words[gone] = 0
    return replace(batch, words=words.ravel())


def _without_overwritten(memory: Memory, tables: PageTables, rows: I64, words: U64) -> tuple[U64, I64]:
    """Of tables in parts of which something else was written the other entries; marks these tables.

    Args:
        memory: The target's.
        tables: A table of tables.
        rows: int64[n]; which of its rows these are.
        words: uint64[n, entries]; what could be read of whole tables.

    Returns:
        uint64[n * entries], and the rows that are not in the dump.
    """
    words = words.copy()
    unreadable = []
    for place in np.flatnonzero(~words.any(axis=1)).tolist():
        address, size = int(tables.pfn[rows[place]]) << 12, words.shape[1] * 8
        if memory.read(address, size, physical=True) is not None:
            continue
        if not memory.is_overwritten(address, size, physical=True):
            unreadable.append(int(rows[place]))
            continue
        slots = np.uint64(address) + np.arange(words.shape[1], dtype=np.uint64) * np.uint64(8)
        words[place], _ = memory.words(slots, physical=True)
        tables.state[rows[place]] = TABLE_PARTLY
    return words.ravel(), np.array(unreadable, np.int64)


@dataclass(frozen=True)
class LeafRuns:
    """The leaf entries of a batch as runs, and what else is in its tables.

    Attributes:
        at: int64[n]; position of the first entry of each run.
        nr: uint32[n]; entries.
        vma_idx: int32[n]; row of the VMA, -1 for none.
        other: int64[k]; positions of entries that are neither empty nor leaves.
    """

    at: I64
    nr: U32
    vma_idx: I32
    other: I64


def leaf_runs(arch: Arch, attribute: Attributor, batch: Batch) -> LeafRuns:
    """Find leaves and merge neighbouring PTEs of consecutive page frames; entries of higher levels stay single.

    A run ends where a VMA begins or ends. Example: an mm with the VMAs A [0x1000,
    0x3000) and B [0x5000, 0x6000), and six PTEs of consecutive pages from 0x1000 on, those outside the VMAs left by
    mistake: [0x1000, 0x3000) in A, [0x3000, 0x5000) in none, [0x5000, 0x6000) in B, [0x6000, 0x7000) in none.
    """
    level = batch.shape.level
    if level == Level.PTE and is_compiled():
        return LeafRuns(*merge_leaves(attribute.tables_of_vmas(batch), arch.leaf_words))
    at = np.flatnonzero(batch.words)
    entry = batch.words[at]
    leaf = arch.leaf_mask(level, entry)
    other = at[:0]
    if not leaf.all():
        other, at = at[~leaf], at[leaf]
        entry = entry[leaf]
    mm, va = batch.tables.mm_idx, batch.tables.va
    if level != Level.PTE:
        table = batch.table(at)
        vma = attribute.vma_idx(mm[table], batch.va(table, batch.slot(at)))
        return LeafRuns(at, np.ones(len(at), np.uint32), vma, other)
    if not len(at):
        return LeafRuns(at, np.empty(0, np.uint32), np.empty(0, np.int32), other)
    fresh = np.empty(len(at), np.bool_)
    fresh[0] = True
    np.not_equal(entry[1:] - entry[:-1], arch.leaf_step(level, entry[:-1]), out=fresh[1:])
    fresh[1:] |= (at[1:] - at[:-1]) != 1
    fresh |= batch.slot(at) == 0
    # Most tables lie in one VMA whole: one look-up for all of their entries, and no run to be cut.
    span = np.uint64((batch.shape.user_entries - 1) << batch.shape.shift)
    only, mixed = attribute.only_vma(mm[batch.rows], va[batch.rows], span)
    place = batch.place(at)
    vma = only[place]
    here = np.flatnonzero(mixed[place])
    if len(here):
        table = batch.rows[place[here]]
        vma[here] = attribute.vma_idx(mm[table], batch.va(table, batch.slot(at[here])))
        fresh[1:] |= vma[1:] != vma[:-1]
    begin = np.flatnonzero(fresh)
    return LeafRuns(at[begin], np.diff(begin, append=len(at)).astype(np.uint32), vma[begin], other)


def _mappings(arch: Arch, batch: Batch, runs: LeafRuns) -> Mappings:
    """Runs with what their entries and tables say."""
    level, n = batch.shape.level, len(runs.at)
    if level == Level.PTE and is_compiled():
        tables = batch.tables
        rows = TableRows(batch.rows, tables.mm_idx, tables.va, tables.first, batch.start)
        columns = fill_runs(batch.words, runs.at, arch.leaf_words, rows)
    else:
        columns = _run_columns(arch, batch, runs.at)
    return Mappings(
        mm_idx=columns.mm_idx,
        vma_idx=runs.vma_idx,
        va=columns.va,
        level=np.full(n, level, np.uint8),
        nr=runs.nr,
        pfn=columns.pfn,
        entry=columns.entry,
        table_idx=columns.table_idx,
        slot=columns.slot,
        counted=columns.counted,
        bits=columns.bits,
        entry_class=np.full(n, EntryClass.NO_PAGE, np.uint8),
        page_row=np.full(n, -1, np.int32),
        head_row=np.full(n, -1, np.int32),
    )


def _run_columns(arch: Arch, batch: Batch, at: I64) -> RunColumns:
    """What the entries at some positions and their tables say."""
    level, entry = batch.shape.level, batch.words[at]
    table, slot = batch.table(at), batch.slot(at)
    return RunColumns(
        mm_idx=batch.tables.mm_idx[table],
        va=batch.va(table, slot),
        pfn=arch.leaf_pfn(level, entry).astype(np.int64),
        entry=entry,
        table_idx=(table + batch.start).astype(np.int32),
        slot=slot.astype(np.uint16),
        counted=batch.tables.first[table],
        bits=arch.leaf_bits(level, entry),
    )


def _other(attribute: Attributor, layout: Layout, batch: Batch, at: I64) -> tuple[NonPresent | None, PageTables | None]:
    """Entries that are no leaves: non-present entries, and tables of the next level."""
    arch, level, entry = layout.arch, batch.shape.level, batch.words[at]
    below = None
    if level != Level.PTE:
        table = arch.table_mask(level, entry)
        if table.any():
            below = _children(layout, batch, at[table], entry[table])
        at, entry = at[~table], entry[~table]
    kind = arch.classify(level, entry)
    other = kind != Kind.NONE
    return _nonpresent(layout, attribute, batch, at[other], kind[other]) if other.any() else None, below


def _children(layout: Layout, batch: Batch, at: I64, entry: U64) -> PageTables:
    table, slot, shapes = batch.table(at), batch.slot(at), layout.arch.shapes
    below = shapes[[s.level for s in shapes].index(batch.shape.level) + 1]
    n = len(at)
    return PageTables(
        pfn=layout.arch.table_pfn(entry).astype(np.int64),
        level=np.full(n, below.level, np.uint8),
        mm_idx=batch.tables.mm_idx[table],
        va=batch.va(table, slot),
        parent=(table + batch.start).astype(np.int32),
        slot=slot.astype(np.uint16),
        first=np.ones(n, np.bool_),
        state=np.zeros(n, np.uint8),
    )


def _nonpresent(layout: Layout, attribute: Attributor, batch: Batch, at: I64, kind: AnyArray) -> NonPresent:
    arch, table, slot, entry = layout.arch, batch.table(at), batch.slot(at), batch.words[at]
    mm, va = batch.tables.mm_idx[table], batch.va(table, slot)
    carries = np.isin(kind, np.array(PFN_KINDS, np.uint8))
    return NonPresent(
        mm_idx=mm,
        vma_idx=attribute.vma_idx(mm, va),
        va=va,
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


class Attributor:
    """Finds the VMA of each entry; VMAs are ordered by mm, then address, and do not overlap."""

    def __init__(self, page_shift: int, vmas: Vmas) -> None:
        self._vmas = vmas
        self._shift = np.uint64(page_shift)
        self._starts = self._key(vmas.mm_idx, vmas.start)
        self._ends = self._key(vmas.mm_idx, np.maximum(vmas.end, np.uint64(1)) - np.uint64(1)) + np.uint64(1)

    def _key(self, mm_idx: I32, va: U64) -> U64:
        return page_key(mm_idx, va >> self._shift)

    def vma_idx(self, mm_idx: I32, va: U64) -> I32:
        """Row of the VMA that holds each address, -1 where none does."""
        return rows_covering(self._starts, self._ends, self._key(mm_idx, va)).astype(np.int32)

    def tables_of_vmas(self, batch: Batch) -> TablesOfVmas:
        """The tables of a batch of the lowest level, and which VMAs each can serve."""
        tables, rows, vmas = batch.tables, batch.rows, self._vmas
        mm, va = tables.mm_idx[rows], tables.va[rows]
        last = va + np.uint64((batch.shape.user_entries - 1) << batch.shape.shift)
        low = np.searchsorted(self._ends, self._key(mm, va), "right").astype(np.int32)
        high = np.searchsorted(self._starts, self._key(mm, last), "right").astype(np.int32)
        return TablesOfVmas(batch.words, va, low, high, vmas.start, vmas.end)

    def only_vma(self, mm_idx: I32, va: U64, span: np.uint64) -> tuple[I32, Mask]:
        """The VMA of ``va``, and whether an address from there to ``va + span`` may be in another or in none."""
        vma = self.vma_idx(mm_idx, va)
        return vma, ~(va + span < take_or(self._vmas.end, vma, 0))

    def overlaps(self, mm_idx: I32, va: U64, size: int) -> Mask:
        """Whether any VMA has addresses in [va, va + size)."""
        first = self._key(mm_idx, va)
        at = np.searchsorted(self._ends, first, "right")
        start = take_or(self._starts, np.where(at < len(self._ends), at, -1), (1 << 64) - 1)
        return start < first + (np.uint64(size) >> self._shift)

    def in_hugetlb(self, mm_idx: I32, va: U64) -> Mask:
        """Whether the first address of each table, or the last, lies in a hugetlb VMA."""
        out = np.zeros(len(va), np.bool_)
        for distance in (0, (1 << 30) - 1):
            out |= take_or(self._vmas.is_hugetlb, self.vma_idx(mm_idx, va + np.uint64(distance)), False)
        return out
