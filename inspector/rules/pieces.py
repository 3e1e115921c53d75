"""Pieces of the large tables that rules about single pages and entries are predicates over.

A predicate is given a piece and says which of its rows are wrong; evidence is gathered afterwards, for these alone. So
it does not matter how the table is cut: today a piece is a whole table, and a walk that streams can give many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from inspector.arch.base import Bit
from inspector.columns import I32, I64, U8, U64, AnyArray, Mask
from inspector.violations import Details, Unread, Violations

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_VM_SHADOW_STACK = 1 << 37
"""VM_SHADOW_STACK of x86 (6.6 and later; the bit had another use before)."""


class Judged(NamedTuple):
    """What a predicate says about a piece.

    Attributes:
        wrong: bool[n]; rows that break the rule.
        checked: How many subjects were checked: a mask of rows, or a number where a row is several.
        unread: How many could not be, and why.
    """

    wrong: Mask
    checked: Mask | int
    unread: Unread = Unread()


@dataclass(frozen=True)
class _Piece:
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

    def _cut(self, column: AnyArray) -> AnyArray:
        return column[self.start : self.stop]


@dataclass(frozen=True)
class PagePiece(_Piece):
    """A stretch of the memory map that cuts no compound page in two: a row a struct page."""

    @cached_property
    def readable(self) -> Mask:
        """Struct pages that are in the dump."""
        return self._cut(self.s.pages.readable)

    @cached_property
    def flags(self) -> U64:
        """page->flags."""
        return self._cut(self.s.pages.flags)

    @cached_property
    def refcount(self) -> I32:
        """_refcount."""
        return self._cut(self.s.pages.refcount)

    @cached_property
    def mapcount_raw(self) -> I32:
        """_mapcount as stored, or the page type that lies in the same word."""
        return self._cut(self.s.pages.mapcount_raw)

    @cached_property
    def mapping(self) -> U64:
        """page->mapping with its tags."""
        return self._cut(self.s.pages.mapping)

    @cached_property
    def type(self) -> U8:
        """Number of the page type, 0 for none."""
        return self._cut(self.s.pages.type_)

    @cached_property
    def is_tail(self) -> Mask:
        """Tails of compound pages."""
        return self._cut(self.s.pages.is_tail)

    @cached_property
    def head_row(self) -> I64:
        """Row of the head in the memory map, the page's own for small pages, -1 for a tail without one."""
        return self._cut(self.s.pages.head_row).astype(np.int64)

    @cached_property
    def has_head(self) -> Mask:
        """Pages whose head is known."""
        return self.head_row >= 0

    @cached_property
    def folio(self) -> I32:
        """Row in the table of large folios, -1 for small pages."""
        return self._cut(self.s.folio_of_page)

    @cached_property
    def mapped(self) -> I32:
        """PTEs that map each page (P)."""
        return self._cut(self.s.counts.page_mappings)

    @cached_property
    def entire(self) -> I64:
        """Huge entries that map the page's folio as a whole (E), 0 for small pages."""
        return self.of_folio(self.s.counts.entire, 0).astype(np.int64)

    @cached_property
    def expected_mapcount(self) -> I32:
        """_mapcount that the model expects; the accounting scheme must be known."""
        assert self.s.expected is not None
        return self._cut(self.s.expected.page_mapcount_raw)

    def has(self, flag: str) -> Mask:
        """Pages with a page flag."""
        return self.s.layout.flags.test(self.flags, flag)

    def of_head(self, column: str) -> AnyArray:
        """A column of `inspector.tables.pages.Pages` at each page's head; the page's own where it has none."""
        values: AnyArray = getattr(self.s.pages, column)
        return values[np.where(self.has_head, self.head_row, self.rows)]

    def head_has(self, flag: str) -> Mask:
        """Pages whose head has a page flag."""
        return self.s.layout.flags.test(self.of_head("flags"), flag)

    def of_folio(self, column: AnyArray, small: int) -> AnyArray:
        """A column of the table of large folios at each page's folio, ``small`` for small pages."""
        if not len(column):
            return np.full(len(self), small, column.dtype)
        return np.where(self.folio >= 0, column[np.maximum(self.folio, 0)], np.array(small, column.dtype))

    @cached_property
    def is_anon(self) -> Mask:
        """Pages of anonymous folios, hugetlb and KSM included."""
        head_alone = ((self.of_head("mapping") & np.uint64(1)) != 0) & (self.of_head("type_") == 0)
        large = self.of_folio(self.s.folios.is_anon, 0).astype(np.bool_)
        return np.where(self.folio >= 0, large, head_alone) & self.has_head & self.of_head("readable")

    @cached_property
    def unread(self) -> Unread:
        """Struct pages of the piece that are not in the dump."""
        missing = int((~self.readable).sum())
        return Unread(missing, "struct pages are missing") if missing else Unread()

    def judge(self, wrong: Mask, among: Mask | int) -> Judged:
        """Rows of ``wrong``, where ``among`` were checked and unreadable struct pages could not be."""
        return Judged(wrong, among, self.unread)


@dataclass(frozen=True)
class EntryPiece(_Piece):
    """Runs of leaf entries with the words of their VMAs and of the pages that they map: a row a run."""

    @cached_property
    def entry(self) -> U64:
        """The first entry of each run as the page table holds it."""
        return self._cut(self.s.mappings.entry)

    @cached_property
    def level(self) -> U8:
        """`inspector.arch.base.Level`."""
        return self._cut(self.s.mappings.level)

    @cached_property
    def nr(self) -> I32:
        """Entries of each run."""
        return self._cut(self.s.mappings.nr)

    @cached_property
    def va(self) -> U64:
        """User address of the first entry."""
        return self._cut(self.s.mappings.va)

    @cached_property
    def mm_idx(self) -> I32:
        """Row of the mm."""
        return self._cut(self.s.mappings.mm_idx)

    @cached_property
    def vma_idx(self) -> I32:
        """Row of the VMA, -1 for none."""
        return self._cut(self.s.mappings.vma_idx)

    @cached_property
    def in_vma(self) -> Mask:
        """Entries inside a VMA."""
        return self.vma_idx >= 0

    @cached_property
    def entry_class(self) -> U8:
        """`inspector.walk.counts.EntryClass`: what each entry maps."""
        return self._cut(self.s.counts.entry_class)

    @cached_property
    def bits(self) -> AnyArray:
        """`inspector.arch.base.Bit` flags of each entry."""
        return self._cut(self.s.counts.bits)

    @cached_property
    def head_row(self) -> I32:
        """Row in the memory map of the head of the folio mapped, -1 for none."""
        return self._cut(self.s.counts.head_row)

    def of_vma(self, column: AnyArray, none: int) -> AnyArray:
        """A column of the table of VMAs at each entry's VMA, ``none`` outside of any."""
        if not len(column):
            return np.full(len(self), none, column.dtype)
        return np.where(self.in_vma, column[np.maximum(self.vma_idx, 0)], np.array(none, column.dtype))

    @cached_property
    def vma_flags(self) -> U64:
        """vm_flags of each entry's VMA, 0 outside of any."""
        return self.of_vma(self.s.vmas.flags, 0)

    def vma_has(self, flag: int) -> Mask:
        """Entries in a VMA with all bits of ``flag``."""
        return (self.vma_flags & np.uint64(flag)) == np.uint64(flag)

    def of_head(self, column: str) -> AnyArray:
        """A column of `inspector.tables.pages.Pages` at the head of the folio mapped; any value where there is none."""
        values: AnyArray = getattr(self.s.pages, column)
        return values[np.maximum(self.head_row, 0)]

    @cached_property
    def writable(self) -> Mask:
        """Entries that let user space write: the RW bit, or a shadow stack's entry in a VMA for that.

        The bit is not looked at in entries that are present for the mm only (PROT_NONE, NUMA hints).
        """
        out: Mask = (self.bits & Bit.WRITE) != 0
        # Only kernels that know shadow stacks keep the dirty bit of read-only entries elsewhere (bit 58).
        if getattr(self.s.layout.arch, "saved_dirty", False):
            out |= self.vma_has(_VM_SHADOW_STACK) & ((self.bits & Bit.SHADOW_STACK) != 0)
        return out & ((self.bits & Bit.PROT_NONE) == 0)

    def entries(self, among: Mask) -> int:
        """How many entries the runs of ``among`` are."""
        return int(self.nr[among].sum())


AnyPiece = TypeVar("AnyPiece", PagePiece, EntryPiece)


def page_pieces(s: Snapshot, most: int) -> Iterator[PagePiece]:
    """The memory map in pieces of about ``most`` struct pages, cut between compound pages."""
    n, start = len(s.pages), 0
    while start < n:
        stop = min(start + most, n)
        while stop < n and s.folio_of_page[stop] >= 0 and s.pages.head_row[stop] != stop:
            folio = int(s.folio_of_page[stop])
            stop = min(n, max(stop + 1, int(s.folios.row[folio]) + int(s.folios.nr_pages[folio])))
        yield PagePiece(s, start, stop)
        start = stop


def entry_pieces(s: Snapshot, most: int) -> Iterator[EntryPiece]:
    """The leaf entries in pieces of at most ``most`` runs."""
    for start in range(0, len(s.mappings), most):
        yield EntryPiece(s, start, min(start + most, len(s.mappings)))


def judge_pages(
    s: Snapshot,
    predicate: Callable[[PagePiece], Judged],
    evidence: Callable[[Snapshot, I64], Details],
    most: int | None = None,
) -> Violations:
    """Run a predicate over the memory map and gather the evidence of its offenders.

    Args:
        s: The snapshot.
        predicate: The rule.
        evidence: What to show of the pages at the given rows.
        most: Struct pages in a piece; all when None.
    """
    return _judge(s, predicate, evidence, page_pieces(s, most or max(1, len(s.pages))))


def judge_entries(
    s: Snapshot,
    predicate: Callable[[EntryPiece], Judged],
    evidence: Callable[[Snapshot, I64], Details],
    most: int | None = None,
) -> Violations:
    """The same over the leaf entries."""
    return _judge(s, predicate, evidence, entry_pieces(s, most or max(1, len(s.mappings))))


def _judge(
    s: Snapshot,
    predicate: Callable[[AnyPiece], Judged],
    evidence: Callable[[Snapshot, I64], Details],
    pieces: Iterator[AnyPiece],
) -> Violations:
    wrong, checked, unread = [np.empty(0, np.int64)], 0, Unread()
    for piece in pieces:
        judged = predicate(piece)
        wrong.append(np.flatnonzero(judged.wrong) + piece.start)
        checked += judged.checked if isinstance(judged.checked, int) else int(judged.checked.sum())
        unread = Unread(unread.nr + judged.unread.nr, judged.unread.why or unread.why)
    rows = np.concatenate(wrong)
    return Violations(rows, evidence(s, rows), checked, unread)
