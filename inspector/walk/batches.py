"""Leaf entries seen a batch at a time: what is gathered from all of them without keeping any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, cast

import numpy as np

from inspector.arch.base import Bit, Level
from inspector.columns import I32, I64, AnyArray, Mask, count_up, mixed, rows_covering, rows_of, take_or
from inspector.loops import AlikePages, JudgedRuns, cut_runs, distinct_rows, entry_kinds, is_compiled
from inspector.records import cached_property, dataclass
from inspector.walk.counts import UNLIKE, Ground, judge, pieces_of_runs
from inspector.walk.linear import LinkKinds, link_kinds
from inspector.walk.mappings import ENTRY_ID_SLOT_BITS, Mappings, entry_pages
from inspector.walk.pagetable import SecondWalk, empty_entries
from inspector.workers import InOrder

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


V = TypeVar("V")

MAX_LISTED = 16
"""Runs of entries kept for each stretch of pages that is asked about; their full number is known as well."""

RUNS_AT_ONCE = 1 << 16
"""Rows of a piece of mappings that are all at hand."""

WORTH_SHARING = 8
"""Batches of tables that take longer than processes to start."""

RUNS_KEPT = 1 << 18
"""Rows that a walk keeps, so that small targets need be walked only once: at most 16 MiB."""


class JudgedWalk:
    """A second walk whose leaf entries are judged.

    Args:
        ground: What they are judged by.
        walk: The walk.
    """

    def __init__(self, ground: Ground, walk: SecondWalk) -> None:
        self._ground, self._walk = ground, walk

    def __len__(self) -> int:
        return len(self._walk)

    def __getitem__(self, number: int) -> Mappings:
        """The leaf entries of a batch of tables; none at all of some."""
        return judge(self._ground, self._walk[number])


EntryWalk = list[Mappings] | JudgedWalk
"""Batches of leaf entries by number."""


class KeptMappings:
    """Leaf entries kept as they come, as long as they are few; else none of them.

    Attributes:
        whole: Whether all that came are kept.
    """

    def __init__(self) -> None:
        self._parts: list[Mappings] = []
        self._nr = 0
        self.whole = True

    @classmethod
    def of(cls, m: Mappings) -> KeptMappings:
        """Mappings that are all at hand."""
        kept = cls()
        kept._parts = [m.take(slice(at, at + RUNS_AT_ONCE)) for at in range(0, len(m), RUNS_AT_ONCE)]
        return kept

    def add(self, batch: Mappings) -> None:
        """Keep a batch, if there are not too many."""
        self._nr += len(batch)
        self.whole &= self._nr <= RUNS_KEPT
        if self.whole:
            self._parts.append(batch)
        else:
            self._parts.clear()

    def give_up(self) -> None:
        """Keep none: other processes see some of what comes."""
        self.whole = False
        self._parts.clear()

    def batches(self, tables: AnyArray | None) -> Iterator[Mappings]:
        """What is kept; of some tables alone where these are given."""
        for part in self._parts:
            yield part if tables is None else part.take(np.isin(part.table_idx, tables))


@dataclass(frozen=True)
class Kinds:
    """Runs of leaf entries by kind: alike in everything but where they are, how long, and in which compound page.

    Runs of one kind are in one VMA, or of one mm outside of all, have the same level, bits and class, and map pages
    with the same words (`inspector.tables.pages.Pages.number`), of folios with the same words, all of hugetlb or none.
    A run whose own pages differ is a kind of its own, and so is one with bits that only its entries name (`Bit.ODD`).

    Attributes:
        m: The first run of each kind.
        kind: int32 by run; its row in ``m``.
        runs: int64; how many runs are of each kind.
        entries: int64; how many entries these have.
        alike: bool; whether all pages that they map have the same words.
    """

    m: Mappings
    kind: I32
    runs: I64
    entries: I64
    alike: Mask

    @classmethod
    def of(cls, s: Snapshot, m: Mappings) -> Kinds:
        """The kinds of some runs."""
        kind, first, runs, entries = _each_odd_one(m, _kinds_compiled(s, m) if is_compiled() else _kinds(s, m))
        other = np.flatnonzero(kind < 0)
        nr, one = len(first), np.ones(len(other), np.int64)
        kind[other] = np.arange(nr, nr + len(other))
        return cls(
            m.take(np.concatenate([first, other])),
            kind,
            np.concatenate([runs, one]),
            np.concatenate([entries, m.nr[other].astype(np.int64)]),
            np.arange(nr + len(other)) < nr,
        )

    @classmethod
    def each(cls, m: Mappings) -> Kinds:
        """Every run as a kind of its own."""
        n = len(m)
        one = np.ones(n, np.int64)
        return cls(m, np.arange(n, dtype=np.int32), one, m.nr.astype(np.int64), np.zeros(n, np.bool_))


_ByKind = tuple[I32, I64, I64, I64]
"""What `inspector.loops.entry_kinds` returns."""


def _kinds_compiled(s: Snapshot, m: Mappings) -> _ByKind:
    pages = AlikePages(s.counts.codes, UNLIKE, s.pages.number, s.pages.compound, s.folios.is_hugetlb)
    columns = m.level, m.bits, m.entry_class, m.mm_idx, m.vma_idx, m.head_row, m.page_row, m.nr
    return entry_kinds(JudgedRuns(*columns), pages)


def _kinds(s: Snapshot, m: Mappings) -> _ByKind:
    pages, n = s.pages, len(m)
    long = np.flatnonzero((m.nr > 1) & (m.page_row >= 0))
    owner, _, _ = cut_runs(s.counts.codes, m.page_row[long].astype(np.int64), m.nr[long].astype(np.int64), UNLIKE)
    alike = np.ones(n, np.bool_)
    alike[long[np.bincount(owner, minlength=len(long)) > 1]] = False
    low = m.bits.astype(np.int32) << 16 | m.entry_class.astype(np.int32) << 8 | m.level
    if s.folios.is_hugetlb.any():
        low |= take_or(s.folios.is_hugetlb, take_or(s.folio_of_page, m.page_row, -1), False).astype(np.int32) << 7
    words = np.empty((n, 4), np.int32)
    words[:, 0] = low
    words[:, 1] = m.vma_idx
    outside = np.flatnonzero(m.vma_idx < 0)
    words[outside, 1] = -2 - m.mm_idx[outside]
    words[:, 2], words[:, 3] = take_or(pages.number, m.head_row, -1), take_or(pages.number, m.page_row, -1)
    kinds, kind, nr = distinct_rows(2), np.full(n, -1, np.int32), m.nr.astype(np.int64)
    kind[alike] = kinds.codes(words.view(np.uint64)[alike], nr[alike])
    first = np.empty(len(kinds), np.int64)
    some = np.flatnonzero(alike)[::-1]
    first[kind[some]] = some
    return kind, first, np.bincount(kind[some], minlength=len(first)), kinds.weights


def _each_odd_one(m: Mappings, found: _ByKind) -> _ByKind:
    """Those kinds taken apart whose runs have bits that only their entries name."""
    kind, first, runs, entries = found
    plain = (m.bits[first] & Bit.ODD) == 0
    if plain.all():
        return found
    number = np.where(plain, np.cumsum(plain, dtype=np.int32) - 1, -1).astype(np.int32)
    return take_or(number, kind, -1), first[plain], runs[plain], entries[plain]


@dataclass(frozen=True)
class EntryBatch:
    """Some leaf entries, judged, and what is worked out about them once for all that see the batch.

    Attributes:
        s: The snapshot.
        m: The entries.
        number: Higher than that of any batch before this one.
    """

    s: Snapshot
    m: Mappings
    number: int
    _views: dict[object, object] = field(default_factory=dict)

    @cached_property
    def kinds(self) -> Kinds:
        """The kinds of runs: what a rule says of one run of a kind, it says of all."""
        return Kinds.of(self.s, self.m)

    @cached_property
    def link_kinds(self) -> LinkKinds:
        """The links by kind."""
        return link_kinds(self.s, self.m)

    def view(self, make: Callable[[EntryBatch], V]) -> V:
        """What ``make`` makes of the batch, made once."""
        if make not in self._views:
            self._views[make] = make(self)
        return cast("V", self._views[make])


class Collector(ABC):
    """Sees all batches and keeps sums, distinct values or a few rows, never something for each entry.

    Of several that are alike, each may see some of the batches, in any order; one of them then takes in what the others
    gathered.

    Args:
        s: The snapshot.
    """

    gathers: ClassVar[tuple[str, ...]]
    """The attributes that hold what was gathered: numbers, arrays of them, masks, `InOrder`."""

    looks_in: ClassVar[tuple[str, ...]] = ()
    """Tables of the snapshot that `take` looks things up in: built before there are workers, which each would."""

    def __init__(self, s: Snapshot) -> None:
        self.s = s

    @abstractmethod
    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""

    def gathered(self) -> list[Any]:
        """What was gathered, for `merge`."""
        return [getattr(self, name) for name in self.gathers]

    def merge(self, gathered: list[Any]) -> None:
        """Take in what another of the same kind gathered from other batches."""
        for name, theirs in zip(self.gathers, gathered, strict=True):
            own = getattr(self, name)
            if isinstance(own, InOrder):
                own.merge(theirs)
            elif isinstance(own, np.ndarray):
                (np.logical_or if own.dtype == np.bool_ else np.add)(own, theirs, out=own)
            else:
                setattr(self, name, own + theirs)

    def finish(self) -> None:  # noqa: B027  (few need it)
        """All batches were seen, here or elsewhere."""


MakeCollector = Callable[["Snapshot"], Collector]
"""A class of collectors, or another way to make one: what `inspector.snapshot.Snapshot.collected` is asked for."""


def run_collectors(s: Snapshot, collectors: list[Collector], tables: I64 | None = None) -> None:
    """Let collectors see all leaf entries, or those of some tables, in one walk."""
    if not collectors:
        return
    walk, found = s.entry_walk(tables), _Together(collectors)

    def see(numbers: Iterable[int]) -> None:
        for number in numbers:
            _show(s, collectors, walk[number], number)

    def rehearse() -> None:
        for name in sorted({name for collector in collectors for name in collector.looks_in}):
            getattr(s, name)

    s.share_out(len(walk), see, found, WORTH_SHARING, rehearse)
    for collector in collectors:
        collector.finish()


@dataclass(frozen=True)
class _Together:
    """What several collectors gather."""

    collectors: list[Collector]

    def gathered(self) -> list[list[Any]]:
        """That of each."""
        return [collector.gathered() for collector in self.collectors]

    def merge(self, gathered: list[list[Any]]) -> None:
        """Give each what others of its kind gathered."""
        for collector, part in zip(self.collectors, gathered, strict=True):
            collector.merge(part)


def _show(s: Snapshot, collectors: list[Collector], m: Mappings, number: int) -> None:
    """Let collectors see a batch, which is not kept while the next one is made."""
    if len(m):
        batch = EntryBatch(s, m, number)
        for collector in collectors:
            collector.take(batch)


class PagesByMm(Collector):
    """Adds up the pages of some entries by mm.

    Attributes:
        pages: int64[mms].
    """

    gathers = ("pages",)

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        self.pages = np.zeros(len(s.mms), np.int64)

    @abstractmethod
    def some(self, m: Mappings) -> Mask:
        """Which entries count: the same for all runs of a kind."""

    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""
        kinds = batch.kinds
        rows = np.flatnonzero(self.some(kinds.m))
        m = kinds.m.take(rows)
        np.add.at(self.pages, m.mm_idx, kinds.entries[rows] * entry_pages(self.s.layout, m.level))


class MappingsOfPages(Collector):
    """The runs that map any page of some stretches of page frames.

    Args:
        s: The snapshot.
        first, nr: int64[n]; the stretches.
        limit: Runs to keep for each stretch, the first ones; all when not given.
        shared: Whether entries of a shared table count for each mm that reaches it.

    Attributes:
        nr_entries: int64[n]; entries that map something in each stretch, shared ones counted once.
        mappers: uint64[n]; a sum over who maps each stretch where: the same in another walk whenever the same pages are
            mapped at the same addresses of the same mms, and only then.
    """

    gathers = ("nr_entries", "mappers", "_found")

    def __init__(self, s: Snapshot, first: I64, nr: I64, *, limit: int | None = None, shared: bool = False) -> None:
        super().__init__(s)
        self._shared = shared
        self._first, self._end, self._limit = first, first + nr, limit
        self.nr_entries = np.zeros(len(first), np.int64)
        self.mappers = np.zeros(len(first), np.uint64)
        self._kept = np.zeros(len(first), np.int64)
        self._found: InOrder[tuple[I64, Mappings]] = InOrder()
        # Stretches that overlap one another are looked up as one.
        order = np.argsort(first, kind="stable")
        reach = np.maximum.accumulate(self._end[order]) if len(order) else order
        begin = np.ones(len(order), np.bool_)
        begin[1:] = first[order[1:]] >= reach[:-1]
        self._order, self._groups = order, np.flatnonzero(begin)
        self._group_first = first[order[self._groups]]
        self._group_end = reach[np.append(self._groups[1:], len(order)) - 1] if len(order) else reach
        self._group_nr = np.diff(self._groups, append=len(order))

    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""
        m = batch.m
        end = m.pfn + m.nr * entry_pages(self.s.layout, m.level)
        low = np.searchsorted(self._group_end, m.pfn, "right")
        high = np.searchsorted(self._group_first, end, "left")
        rows = np.flatnonzero((m.counted | self._shared) & (low < high))
        if not len(rows):
            return
        row = np.repeat(rows, high[rows] - low[rows])
        group = low[row] + count_up(high[rows] - low[rows])
        owner = np.repeat(row, self._group_nr[group])
        which = self._order[np.repeat(self._groups[group], self._group_nr[group]) + count_up(self._group_nr[group])]
        hit = (m.pfn[owner] < self._end[which]) & (end[owner] > self._first[which])
        owner, which = owner[hit], which[hit]
        begin = np.maximum(m.pfn[owner], self._first[which])
        pages = np.minimum(end[owner], self._end[which]) - begin
        np.add.at(self.nr_entries, which, np.where(m.level[owner] == Level.PTE, pages, 1))
        shift = np.uint64(self.s.layout.memmap.page_shift)
        at = m.va[owner] - (m.pfn[owner].astype(np.uint64) << shift)
        way = mixed(self.s.mms.addr[m.mm_idx[owner]] ^ mixed(at))
        place = begin.astype(np.uint64)
        # A difference, so that it is the same however the entries of a table are cut into runs.
        np.add.at(self.mappers, which, mixed(way ^ (place + pages.astype(np.uint64))) - mixed(way ^ place))
        order = np.argsort(which, kind="stable")
        owner, which = owner[order], which[order]
        if self._limit is not None:
            wanted = self._wanted(which)
            owner, which = owner[wanted], which[wanted]
        if len(which):
            self._found.add(batch.number, (which, m.take(owner)))

    def _wanted(self, which: I64) -> Mask:
        """Which of these are among the first of their stretch."""
        nr = np.bincount(which, minlength=len(self._kept))
        place = count_up(nr[nr > 0]) + self._kept[which]
        self._kept += nr
        out: Mask = place < (self._limit or 0)
        return out

    def runs(self) -> list[Mappings]:
        """The runs of each stretch."""
        which = np.concatenate([np.empty(0, np.int64), *(w for w, _ in self._found)])
        order = np.argsort(which, kind="stable")
        found = Mappings.concat([Mappings.empty(), *(m for _, m in self._found)]).take(order)
        borders = np.searchsorted(which[order], np.arange(len(self._first) + 1)).tolist()
        ends = borders[1:] if self._limit is None else [min(a + self._limit, b) for a, b in pairwise(borders)]
        return [found.take(slice(a, b)) for a, b in zip(borders[:-1], ends, strict=True)]


class MappedStretch(NamedTuple):
    """What maps a stretch of page frames.

    Attributes:
        runs: The first `MAX_LISTED`.
        nr_entries: All entries that map any of it.
        mappers: `MappingsOfPages.mappers`.
    """

    runs: Mappings
    nr_entries: int
    mappers: int


class KnownEntries:
    """Leaf entries that were asked for by number, kept so that each is read once.

    Args:
        s: The snapshot.
    """

    def __init__(self, s: Snapshot) -> None:
        self._s = s
        self._known = Mappings.empty()
        self._ids = np.empty(0, np.int64)
        self._of_pages: dict[tuple[int, int], MappedStretch] = {}

    def add(self, m: Mappings) -> None:
        """Remember entries that are at hand."""
        ids = np.concatenate([self._ids, m.entry_id])
        self._ids, first = np.unique(ids, return_index=True)
        self._known = Mappings.concat([self._known, m]).take(first)

    def get(self, ids: I64) -> Mappings:
        """The runs that begin with the entries of some numbers (`Mappings.entry_id`), in that order.

        Those that are not known are looked up in their page tables. One that is no entry by then maps nothing: its
        page frame is -1.
        """
        at = rows_of(self._ids, ids)
        if (at < 0).any():
            missing = np.unique(ids[at < 0])
            for m in self._s.entry_batches(np.unique(missing >> ENTRY_ID_SLOT_BITS)):
                self.add(self._beginning_at(missing, m))
            # Of a kernel that runs on: what was an entry when it was numbered is none any more.
            gone = missing[rows_of(self._ids, missing) < 0]
            if len(gone):
                self.add(empty_entries(self._s.layout, self._s.vmas, self._s.tables, gone))
            at = rows_of(self._ids, ids)
        return self._known.take(at)

    def _beginning_at(self, ids: I64, m: Mappings) -> Mappings:
        """What begins with the wanted entries among some runs.

        Where the kernel runs on a run may begin earlier than when its entries were numbered.
        """
        if not self._s.layout.memory.runs_on:
            return m.take(np.isin(m.entry_id, ids))
        m = m.take(np.argsort(m.entry_id, kind="stable"))
        first = m.entry_id
        row = rows_covering(first, first + m.nr.astype(np.int64), ids)
        skip = (ids - take_or(first, row, 0))[row >= 0]
        m = m.take(row[row >= 0])
        page_row = np.where(m.page_row >= 0, m.page_row + skip, -1).astype(np.int32)
        head_row = take_or(self._s.pages.head_row, page_row, -1)
        parts = pieces_of_runs(self._s.layout, m, skip, (m.nr - skip).astype(np.uint32))
        return replace(parts, page_row=page_row, head_row=head_row)

    def of_pages(self, stretches: Iterable[tuple[int, int]]) -> list[MappedStretch]:
        """What maps any of some stretches of page frames, first and number.

        Those that are not known are looked for together in one walk of all page tables.
        """
        wanted = list(stretches)
        new = [each for each in dict.fromkeys(wanted) if each not in self._of_pages]
        if new:
            first, nr = (np.array([each[i] for each in new], np.int64) for i in (0, 1))
            found = MappingsOfPages(self._s, first, nr, limit=MAX_LISTED)
            run_collectors(self._s, [found])
            each = map(MappedStretch, found.runs(), found.nr_entries.tolist(), found.mappers.tolist())
            self._of_pages.update(zip(new, each, strict=True))
        return [self._of_pages[each] for each in wanted]
