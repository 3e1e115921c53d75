"""Pieces of the large tables that rules about single entries are predicates over.

Those of pages are in `inspector.rules.page_pieces`.

A predicate is given a piece and returns which of its rows are wrong; evidence is gathered afterwards, for these alone.
So it does not matter how the table is cut: pieces are small enough that what is computed for one stays in the cache,
and a walk that streams can give them as it goes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from inspector.arch.base import Bit, Kind, Level
from inspector.columns import I32, I64, U8, U32, U64, AnyArray, Column, Mask, S, count_up, group_starts, take_or
from inspector.records import cached_property, dataclass
from inspector.violations import Details, Unread, Violations, cannot_check, together
from inspector.walk.batches import Collector, EntryBatch, Kinds
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import Mappings
from inspector.workers import InOrder

if TYPE_CHECKING:
    import numpy.typing as npt

    from inspector.snapshot import Snapshot

_VM_SHADOW_STACK = 1 << 37
"""VM_SHADOW_STACK of x86 (6.6 and later; the bit had another use before)."""

RUNS_AT_ONCE = 1 << 16
"""Rows of a piece: what a predicate computes for one fits into the caches, and its memory is bounded."""


class Judged(NamedTuple):
    """What a predicate finds in a piece.

    Attributes:
        wrong: bool[n]; rows that break the rule.
        checked: How many subjects were checked: a mask of rows, or a number where a row is several.
        unread: How many could not be, and why.
    """

    wrong: Mask
    checked: Mask | int
    unread: Unread = Unread()


@dataclass(frozen=True)
class TablePiece:
    """Rows ``[start, stop)`` of a table.

    Attributes:
        s: The snapshot, for its small tables: folios, VMAs, mms.
        start, stop: Rows of the table.
    """

    s: Snapshot
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> I64:
        """Rows of the table."""
        return np.arange(self.start, self.stop)

    @property
    def nothing(self) -> Mask:
        """No row at all."""
        return np.zeros(len(self), np.bool_)

    def subjects(self, wrong: Mask) -> I64:
        """The numbers by which violations name some of the rows."""
        return np.flatnonzero(wrong) + self.start

    def count(self, some: Mask) -> int:
        """How many subjects some of the rows are."""
        return int(some.sum())

    def _cut(self, column: npt.NDArray[S] | Column[S]) -> npt.NDArray[S]:
        return column[self.start : self.stop]


@dataclass(frozen=True)
class _EntriesOfVmas(TablePiece, ABC):
    """Page-table entries with the words of their VMAs: what leaf entries and others have in common."""

    @property
    @abstractmethod
    def vma_idx(self) -> I32:
        """Row of the VMA, -1 for none."""

    @property
    @abstractmethod
    def mm_idx(self) -> I32:
        """Row of the mm."""

    @property
    @abstractmethod
    def head_row(self) -> I32:
        """Row in the memory map of the head of the folio that each entry names, -1 for none."""

    @cached_property
    def in_vma(self) -> Mask:
        """Entries inside a VMA."""
        return self.vma_idx >= 0

    @cached_property
    def vma_lost(self) -> Mask:
        """Entries in no VMA of an mm whose VMAs are not all known: they may be in one."""
        return ~self.in_vma & ~self.s.vma_tree_sound[self.mm_idx]

    def of_vma(self, column: npt.NDArray[S], none: int) -> npt.NDArray[S]:
        """A column of the table of VMAs at each entry's VMA, ``none`` outside of any."""
        return take_or(column, self.vma_idx, none)

    @cached_property
    def vma_flags(self) -> U64:
        """vm_flags of each entry's VMA, 0 outside of any."""
        return self.of_vma(self.s.vmas.flags, 0)

    def vma_has(self, flag: int) -> Mask:
        """Entries in a VMA with any bit of ``flag``."""
        return (self.vma_flags & np.uint64(flag)) != 0

    def of_head(self, column: str) -> AnyArray:
        """A column of `inspector.tables.pages.Pages` at the head of the folio named; any value where there is none."""
        values: AnyArray = getattr(self.s.pages, column)
        return values[np.maximum(self.head_row, 0)]

    def head_has(self, flag: str) -> Mask:
        """Entries that name a folio whose head has a page flag."""
        return self.s.layout.flags.test(self.of_head("flags"), flag) & (self.head_row >= 0)


@dataclass(frozen=True)
class EntryPiece(_EntriesOfVmas):
    """Runs of leaf entries with the words of their VMAs and of the pages that they map: a row a kind of runs.

    Attributes:
        found: The runs.
        kinds: Their kinds.
    """

    found: Mappings
    kinds: Kinds

    @classmethod
    def of(cls, batch: EntryBatch) -> EntryPiece:
        """A batch as one piece."""
        return cls(batch.s, batch.number, batch.number + len(batch.m), batch.m, batch.kinds)

    def __len__(self) -> int:
        return len(self.kinds.m)

    def subjects(self, wrong: Mask) -> I64:
        """The numbers of the entries of some kinds."""
        return self.found.entry_id[wrong[self.kinds.kind]] if wrong.any() else np.empty(0, np.int64)

    def count(self, some: Mask) -> int:
        """How many runs are of some kinds."""
        return int(self.kinds.runs[some].sum())

    @property
    def m(self) -> Mappings:
        """The first run of each kind."""
        return self.kinds.m

    @property
    def level(self) -> U8:
        """`inspector.arch.base.Level`."""
        return self.m.level

    @property
    def mm_idx(self) -> I32:
        """Row of the mm."""
        return self.m.mm_idx

    @property
    def vma_idx(self) -> I32:
        """Row of the VMA, -1 for none."""
        return self.m.vma_idx

    @property
    def entry_class(self) -> U8:
        """`inspector.walk.counts.EntryClass`: what each entry maps."""
        return self.m.entry_class

    @cached_property
    def is_normal(self) -> Mask:
        """Entries of pages that the rmap keeps count of."""
        return self.entry_class == EntryClass.NORMAL

    @property
    def bits(self) -> AnyArray:
        """`inspector.arch.base.Bit` flags of each entry."""
        return self.m.bits

    @property
    def head_row(self) -> I32:
        """Row in the memory map of the head of the folio mapped, -1 for none."""
        return self.m.head_row

    @cached_property
    def in_hugetlb_folio(self) -> Mask:
        """Runs that map a hugetlb folio."""
        return take_or(self.s.folios.is_hugetlb, self.s.folio_of_page[np.maximum(self.head_row, 0)], False)

    def has(self, bits: int) -> Mask:
        """Entries with any of some `inspector.arch.base.Bit` flags."""
        return (self.bits & bits) != 0

    @cached_property
    def writable(self) -> Mask:
        """Entries that let user space write: the RW bit, or a shadow stack's entry in a VMA for that.

        The bit is ignored in entries that are present for the mm only (PROT_NONE, NUMA hints).
        """
        out = self.has(Bit.WRITE)
        # Only kernels that know shadow stacks keep the dirty bit of read-only entries elsewhere (bit 58).
        if getattr(self.s.layout.arch, "saved_dirty", False):
            out |= self.vma_has(_VM_SHADOW_STACK) & self.has(Bit.SHADOW_STACK)
        return out & ~self.has(Bit.PROT_NONE)

    @property
    def everything(self) -> Mask:
        """All rows."""
        return np.ones(len(self), np.bool_)

    def entries(self, among: Mask) -> int:
        """How many entries are of some kinds."""
        return int(self.kinds.entries[among].sum())

    def pages(self, among: Mask) -> MappedPages:
        """The pages that runs of some kinds map, pages that are alike once; each must have a struct page."""
        here, m = np.flatnonzero(among), self.m
        alike = self.kinds.alike[here]
        nr = np.where(alike, np.uint32(1), m.nr[here])
        run, row = _mapped_rows(self.s, m.level[here], m.page_row[here], nr)
        weight = np.where(alike, self.kinds.entries[here], 1)[run]
        return MappedPages(self.s, here[run], row, weight)

    def with_any(self, pages: MappedPages) -> Mask:
        """Runs with at least one of these pages of theirs."""
        out = self.nothing
        out[pages.run] = True
        return out

    @cached_property
    def unread(self) -> Unread:
        """Entries whose struct page is not in the dump."""
        missing = self.count(self.entry_class == EntryClass.UNREADABLE)
        return cannot_check(missing, "struct pages behind some entries are missing")


@dataclass(frozen=True)
class MappedPages:
    """Pages under some runs of leaf entries, one by one; under a huge entry the head represents all.

    Attributes:
        s: The snapshot.
        run: int64[n]; place of the run that maps each, ascending.
        row: int64[n]; row of each in the memory map.
        weight: int64[n]; how many pages each represents.
    """

    s: Snapshot
    run: I64
    row: I64
    weight: I64

    def __len__(self) -> int:
        return len(self.row)

    def where(self, keep: Mask) -> MappedPages:
        """Some of them."""
        return MappedPages(self.s, self.run[keep], self.row[keep], self.weight[keep])

    def count(self, some: Mask) -> int:
        """How many pages some of them represent."""
        return int(self.weight[some].sum())

    @property
    def is_anon(self) -> Mask:
        """Pages of anonymous folios, hugetlb and KSM included."""
        return self.s.anon_pages[self.row]

    @property
    def is_file(self) -> Mask:
        """Pages of folios that name an address_space, hugetlb included."""
        return self.s.file_pages[self.row]

    @property
    def first(self) -> I64:
        """Row of the first of them in each run that has any."""
        return self.row[group_starts(self.run)]

    @property
    def runs(self) -> I64:
        """Each run that has any of them, once."""
        return self.run[group_starts(self.run)]

    @property
    def nr(self) -> I64:
        """How many of them each run has that has any."""
        return np.diff(group_starts(self.run), append=len(self.run))

    def head_has(self, flag: str) -> Mask:
        """Pages whose folio's head has a page flag; each must have one."""
        pages = self.s.pages
        return self.s.layout.flags.test(pages.flags[pages.head_row[self.row]], flag)

    def has(self, flag: str) -> Mask:
        """Pages with a page flag of their own."""
        return self.s.layout.flags.test(self.s.pages.flags[self.row], flag)


def mapped_pages(s: Snapshot, m: Mappings) -> MappedPages:
    """The pages that runs of leaf entries map, one by one; ``run`` gives places in ``m``."""
    run, row = _mapped_rows(s, m.level, m.page_row, m.nr)
    return MappedPages(s, run, row, np.ones(len(row), np.int64))


def _mapped_rows(s: Snapshot, level: U8, page_row: I32, nr: U32) -> tuple[I64, I64]:
    """`MappedPages.run` and ``row`` of the pages of some runs."""
    pages = np.where(level == Level.PTE, nr, np.uint32(1)).astype(np.int64)
    run = np.repeat(np.arange(len(pages)), pages)
    first = np.maximum(page_row, 0).astype(np.int64)
    return run, np.minimum(first[run] + count_up(pages), len(s.pages) - 1)


@dataclass(frozen=True)
class NonPresentPiece(_EntriesOfVmas):
    """Non-present entries with the words of their VMAs and of the pages that they name: a row an entry."""

    @cached_property
    def kind(self) -> U8:
        """`inspector.arch.base.Kind`."""
        return self._cut(self.s.nonpresent.kind)

    @cached_property
    def level(self) -> U8:
        """`inspector.arch.base.Level`."""
        return self._cut(self.s.nonpresent.level)

    @property
    def mm_idx(self) -> I32:
        """Row of the mm."""
        return self._cut(self.s.nonpresent.mm_idx)

    @property
    def vma_idx(self) -> I32:
        """Row of the VMA, -1 for none."""
        return self._cut(self.s.nonpresent.vma_idx)

    @cached_property
    def entry(self) -> U64:
        """Each as stored."""
        return self._cut(self.s.nonpresent.entry)

    @property
    def counted(self) -> Mask:
        """Entries but those that were reached before, through a shared table."""
        return self._cut(self.s.nonpresent.counted)

    @cached_property
    def swap_offset(self) -> U64:
        """The offset that each holds, for markers their bits."""
        return self._cut(self.s.nonpresent.swap_offset)

    @cached_property
    def page_row(self) -> I64:
        """Row in the memory map of the page that each entry names, -1 for none."""
        return self.s.pages.memmap.rows(self._cut(self.s.nonpresent.pfn))

    @property
    def head_row(self) -> I32:
        """Row in the memory map of the head of the folio named, -1 for none."""
        return take_or(self.s.pages.head_row, self.page_row, -1)

    @cached_property
    def folio(self) -> I32:
        """Row in the table of large folios, -1 for small pages and where no page is named."""
        return take_or(self.s.folio_of_page, self.page_row, -1)

    def is_one_of(self, *kinds: Kind) -> Mask:
        """Entries of some kinds; one reached twice through a shared table counts once."""
        return np.isin(self.kind, np.array(kinds, np.uint8)) & self.counted

    def page_has(self, flag: str) -> Mask:
        """Entries that name a page with a page flag of its own."""
        return self.s.layout.flags.test(self.of_page("flags"), flag) & (self.page_row >= 0)

    def of_page(self, column: str) -> AnyArray:
        """A column of `inspector.tables.pages.Pages` at the page named; any value where there is none."""
        values: AnyArray = getattr(self.s.pages, column)
        return values[np.maximum(self.page_row, 0)]

    def of_folio(self, column: npt.NDArray[S], small: int) -> npt.NDArray[S]:
        """A column of the table of large folios at each entry's folio, ``small`` for others."""
        return take_or(column, self.folio, small)


AnyPiece = TypeVar("AnyPiece", bound=TablePiece)


@dataclass(frozen=True)
class Pieces(Generic[AnyPiece]):
    """How a table is cut: ``cut(s, most)`` gives pieces of about ``most`` rows."""

    cut: Callable[[Snapshot, int], Iterator[AnyPiece]]
    most: int


def _entry_pieces(s: Snapshot, most: int) -> Iterator[EntryPiece]:
    start = 0
    for m in s.entry_batches():
        for at in range(0, len(m), most):
            part = EntryBatch(s, m.take(slice(at, at + most)), start)
            yield EntryPiece.of(part)
            start += len(part.m)


def _nonpresent_pieces(s: Snapshot, most: int) -> Iterator[NonPresentPiece]:
    for start in range(0, len(s.nonpresent), most):
        yield NonPresentPiece(s, start, min(start + most, len(s.nonpresent)))


ENTRIES = Pieces(_entry_pieces, RUNS_AT_ONCE)
"""The runs of leaf entries."""
NONPRESENT_ENTRIES = Pieces(_nonpresent_pieces, RUNS_AT_ONCE)
"""The non-present entries."""


@dataclass(frozen=True)
class Predicate(Generic[AnyPiece]):
    """A rule as a predicate over pieces of a table.

    Attributes:
        pieces: Of which table, and how it is cut.
        judge: What is wrong with a piece.
        evidence: What to show of offenders, given their rows.
    """

    pieces: Pieces[AnyPiece]
    judge: Callable[[AnyPiece], Judged]
    evidence: Callable[[Snapshot, I64], Details]

    def run(self, s: Snapshot, most: int = 0) -> Violations:
        """Judge the whole table piece by piece, then gather the evidence of the offenders.

        Args:
            s: The snapshot.
            most: Rows of a piece; 0 for as many as are quickest.
        """
        judgement = Judgement(self.judge)
        for piece in self.pieces.cut(s, most or self.pieces.most):
            judgement.add(piece)
        return self.violations(s, judgement)

    def violations(self, s: Snapshot, found: Judgement[AnyPiece]) -> Violations:
        """What was found in all pieces, with its evidence."""
        return Violations(found.rows, self.evidence(s, found.rows), found.checked, found.unread)


FoundInPieces = tuple[InOrder[I64], int, Unread]
"""Offenders by piece, and the other two of `Judged`."""


class Judgement(Generic[AnyPiece]):
    """What a predicate finds in all pieces.

    Args:
        judge: The predicate.

    Attributes:
        checked, unread: As in `Judged`, over all pieces.
    """

    def __init__(self, judge: Callable[[AnyPiece], Judged]) -> None:
        self._judge: Callable[[AnyPiece], Judged] = judge
        self._wrong: InOrder[I64] = InOrder()
        self.checked = 0
        self.unread = Unread()

    @property
    def rows(self) -> I64:
        """int64; the subjects that break the rule."""
        return np.concatenate([np.empty(0, np.int64), *self._wrong])

    def rehearse(self, piece: AnyPiece) -> None:
        """Judge a piece in vain."""
        self._judge(piece)

    def add(self, piece: AnyPiece) -> Mask:
        """Judge a piece; gives which of its rows are wrong."""
        judged = self._judge(piece)
        if judged.wrong.any():
            self._wrong.add(piece.start, piece.subjects(judged.wrong))
        self.checked += judged.checked if isinstance(judged.checked, int) else piece.count(judged.checked)
        self._add_unread(judged.unread)
        return judged.wrong

    def gathered(self) -> FoundInPieces:
        """What was found, for `merge`."""
        return self._wrong, self.checked, self.unread

    def merge(self, gathered: FoundInPieces) -> None:
        """Take in what was found in other pieces."""
        wrong, checked, unread = gathered
        self._wrong.merge(wrong)
        self.checked += checked
        self._add_unread(unread)

    def _add_unread(self, more: Unread) -> None:
        if more.nr:
            self.unread = together(self.unread, more)


class EntryJudgement(Collector):
    """What a predicate over leaf entries finds; offenders are kept, so that their evidence needs no other walk."""

    looks_in = ("anon_pages", "file_pages", "vma_finds_pages", "vma_tree_sound")

    def __init__(self, s: Snapshot, judge: Callable[[EntryPiece], Judged]) -> None:
        super().__init__(s)
        self.found = Judgement(judge)
        self._offenders: InOrder[Mappings] = InOrder()

    def take(self, batch: EntryBatch) -> None:
        """Judge a batch."""
        piece = batch.view(EntryPiece.of)
        wrong = self.found.add(piece)
        if wrong.any():
            self._offenders.add(batch.number, batch.m.take(wrong[batch.kinds.kind]))

    def gathered(self) -> list[Any]:
        """As `Collector.gathered`."""
        return [self.found.gathered(), self._offenders]

    def merge(self, gathered: list[Any]) -> None:
        """As `Collector.merge`."""
        found, offenders = gathered
        self.found.merge(found)
        self._offenders.merge(offenders)

    def finish(self) -> None:
        """As `Collector.finish`."""
        for m in self._offenders:
            self.s.known_entries.add(m)
        self._offenders = InOrder()


@dataclass(frozen=True)
class CollectedPredicate(Predicate[EntryPiece]):
    """A rule as a predicate over leaf entries, which several rules may judge in one walk."""

    def collect(self, s: Snapshot) -> EntryJudgement:
        """A collector that judges the entries as they come."""
        return EntryJudgement(s, self.judge)

    def run(self, s: Snapshot, most: int = 0) -> Violations:
        """As `Predicate.run`; entries that `inspector.snapshot.Snapshot.collect` has shown are not seen again."""
        return super().run(s, most) if most else self.violations(s, s.collected(self.collect).found)
