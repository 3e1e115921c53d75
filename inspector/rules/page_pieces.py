"""Pieces of the memory map, in stretches of pages that are alike: what rules about single pages are predicates over.

Most pages of a machine are like their neighbours: free, or of one file or process and mapped alike. A predicate is
given the first page of each stretch, and what it says holds for all of it. So a piece of a million pages has some
thousands of rows, and all rules about pages judge it together, before the next one is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from inspector.columns import I32, I64, U8, U64, AnyArray, Column, Mask, S, expand_runs, rows_of, take_or
from inspector.errors import LayoutError
from inspector.layout.flags import MAPPING_KSM, MAPPING_TAGS
from inspector.records import cached_property, dataclass
from inspector.rules.pieces import FoundInPieces, Judged, Judgement, Pieces, Predicate, TablePiece
from inspector.tables.pages import FIRST_PLAIN_TAIL
from inspector.violations import Unread, Violations, cannot_check

if TYPE_CHECKING:
    import numpy.typing as npt

    from inspector.snapshot import Snapshot

G = TypeVar("G")

STRETCHES_AT_ONCE = 1 << 17
"""Rows of a piece at most: what predicates work out for one has a bound, and mostly fits into the caches."""

_AT_ONCE = 1 << 18
"""Pages of the memory map that one process cuts and judges at a time; more of a large machine's."""

_WORTH_SHARING = 4
"""How many times as many pages take longer to judge than processes to start."""

_TIMES = 64
"""How many times as many a large machine's pages are."""

_LONGEST = 16
"""Pages of a piece, in as many times the rows: of memory that is all alike one piece holds more."""


@dataclass(frozen=True)
class PagePiece(TablePiece):
    """A part of the memory map that cuts no compound page in two: a row a stretch of pages that are alike.

    Alike are neighbours with the same words, in the same compound page or in none, mapped by as many PTEs, all of them
    in free blocks or none. Of a compound page the head is alone, and tails below and above the places at which
    something begins for tails are in stretches of their own (`_places_in`), so that the number of the first page within
    it serves for all of them. What depends on the very page, as what is found about it in a tree, is asked only of
    pages that are alone: `_are_alone`.

    Attributes:
        first: int64; row in the memory map of the first page of each stretch.
        nr: int64; pages of each.
    """

    first: I64
    nr: I64

    def __len__(self) -> int:
        return len(self.first)

    @property
    def rows(self) -> I64:
        """Row in the memory map of the first page of each stretch."""
        return self.first

    def subjects(self, wrong: Mask) -> I64:
        """Rows in the memory map of the pages of some stretches."""
        return expand_runs(self.first[wrong], self.nr[wrong]).astype(np.int64)

    def count(self, some: Mask) -> int:
        """How many pages some stretches are."""
        return int(self.nr[some].sum())

    def _cut(self, column: npt.NDArray[S] | Column[S]) -> npt.NDArray[S]:
        return column[self.first]

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
        """_mapcount as stored, or the page type that is in the same word."""
        return self._cut(self.s.pages.mapcount_raw)

    @cached_property
    def mapping(self) -> U64:
        """page->mapping with its tags."""
        return self._cut(self.s.pages.mapping)

    @cached_property
    def type(self) -> U8:
        """Number of the page type, 0 for none; heads and small pages only."""
        return self._cut(self.s.pages.type_)

    @cached_property
    def maybe_mapped_unseen(self) -> Mask:
        """Pages that entries which are not known may map (`inspector.snapshot.Snapshot.may_be_mapped_unseen`)."""
        return self.s.may_be_mapped_unseen(self.first)

    @cached_property
    def head_row(self) -> I64:
        """Row of the head in the memory map, the page's own for small pages, -1 for a tail without one."""
        return self._cut(self.s.pages.head_row).astype(np.int64)

    @cached_property
    def has_head(self) -> Mask:
        """Pages whose head is known."""
        return self.head_row >= 0

    @cached_property
    def index(self) -> I64:
        """Number of the page within its compound page, 0 for heads and small pages."""
        return self.rows - self.head_row

    @cached_property
    def is_tail(self) -> Mask:
        """Tails of compound pages."""
        return self._cut(self.s.pages.is_tail)

    @cached_property
    def folio(self) -> I32:
        """Row in the table of large folios, -1 for small pages."""
        return self._cut(self.s.folio_of_page)

    @cached_property
    def is_large(self) -> Mask:
        """Pages of large folios."""
        return self.folio >= 0

    @cached_property
    def is_hugetlb(self) -> Mask:
        """Pages of hugetlb folios."""
        return self.of_folio(self.s.folios.is_hugetlb, 0)

    @cached_property
    def is_anon(self) -> Mask:
        """Pages of anonymous folios, hugetlb and KSM included."""
        return self._cut(self.s.anon_pages)

    @cached_property
    def is_ksm(self) -> Mask:
        """Pages whose head has the tags of KSM and no page type."""
        tags = self.of_head("mapping") & np.uint64(MAPPING_TAGS)
        return (tags == MAPPING_KSM) & (self.of_head("type_") == 0) & self.has_head

    @cached_property
    def mapped(self) -> I32:
        """PTEs that map each page (P)."""
        return self._cut(self.s.counts.page_mappings)

    @cached_property
    def entire(self) -> I32:
        """Huge entries that map the page's folio as a whole (E), 0 for small pages."""
        return self.of_folio(self.s.counts.entire, 0)

    @cached_property
    def is_mapped(self) -> Mask:
        """Pages that an entry maps, under a huge entry all of its folio."""
        return ((self.mapped > 0) | (self.entire > 0)) & self.readable

    @cached_property
    def in_free_block(self) -> Mask:
        """Pages inside free blocks of the buddy allocator."""
        return self.s.in_free_block[self.first]

    @cached_property
    def is_claimed(self) -> Mask:
        """Pages without references that a memory cgroup or a page pool counts as its own."""
        return rows_of(self.s.claimed_pages.row, self.first) >= 0

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

    def of_folio(self, column: npt.NDArray[S], small: int) -> npt.NDArray[S]:
        """A column of the table of large folios at each page's folio, ``small`` for small pages."""
        return take_or(column, self.folio, small)

    @cached_property
    def unread(self) -> Unread:
        """Struct pages of the piece that are not in the dump."""
        return cannot_check(self.count(~self.readable), "struct pages are missing")

    def judge(self, wrong: Mask, among: Mask) -> Judged:
        """Rows of ``wrong`` that are ``among`` those that can be checked; unreadable struct pages cannot be."""
        return Judged(wrong & among, among, self.unread)


def _are_alone(s: Snapshot) -> Mask:
    """By row of `Pages.words`: pages that are never taken for alike, because more than their words is asked of them.

    Of pages of a file that are on no LRU list the page cache's tree is asked (`inspector.walk.references`).
    """
    words, flags = s.pages.words, s.layout.flags
    return words.names_file & ~flags.test(words.flags, "lru") & ~flags.test(words.flags, "unevictable")


def _places_in(s: Snapshot, start: int, stop: int) -> I64:
    """Rows at which something begins in compound pages with heads in [start, stop)."""
    folios, memmap = s.folios, s.layout.memmap
    low, high = np.searchsorted(folios.row, (start, stop))
    row = folios.row[low:high]
    # The head, the first tails, the first one that may have no struct page of its own, and the end.
    places = [row + k for k in (0, 1, 2, FIRST_PLAIN_TAIL, memmap.structs_a_page)]
    places.append(row + (np.int64(1) << np.minimum(folios.order[low:high], 40).astype(np.int64)))
    return np.concatenate(places)


def _zone_borders(s: Snapshot) -> I64:
    """Rows at which a zone begins or has ended."""
    return s.pages.memmap.rows(np.concatenate([s.zone_spans.first_pfn, s.zone_spans.end_pfn]))


def _stretches(s: Snapshot, cuts: I64, alone: Mask) -> list[PagePiece]:
    """The pages of rows [cuts[0], cuts[-1]), a piece from each cut to the next."""
    start, stop = int(cuts[0]), int(cuts[-1])
    pages, here = s.pages, slice(start, stop)
    number, compound = pages.number[here], pages.compound[here]
    fresh = np.ones(stop - start, np.bool_)
    fresh[1:] = (number[1:] != number[:-1]) | (compound[1:] != compound[:-1])
    # A snapshot of one folio does not know free blocks: they may begin elsewhere.
    free = [s.in_free_block[here]] if s.knows("in_free_block") else []
    for column in (s.counts.page_mappings[here], *free):
        fresh[1:] |= column[1:] != column[:-1]
    odd = alone[number] if alone.any() else np.zeros(len(number), np.bool_)
    # Tails that name no head of a compound page.
    odd |= compound < -1
    claimed = s.claimed_pages.row
    odd[claimed[np.searchsorted(claimed, start) : np.searchsorted(claimed, stop)] - start] = True
    fresh |= odd
    fresh[1:] |= odd[:-1]
    places = _places_in(s, start, stop)
    fresh[places[places < stop] - start] = True
    borders = _zone_borders(s)
    fresh[borders[(borders >= start) & (borders < stop)] - start] = True
    fresh[cuts[:-1] - start] = True
    first = np.flatnonzero(fresh)
    nr = np.diff(first, append=len(fresh))
    first += start
    at = np.searchsorted(first, cuts).tolist()
    bounds = zip(cuts[:-1].tolist(), cuts[1:].tolist(), at[:-1], at[1:], strict=True)
    return [PagePiece(s, low, high, first[i:j], nr[i:j]) for low, high, i, j in bounds]


@dataclass(frozen=True)
class _Borders:
    """Where the memory map can be cut.

    Attributes:
        heads: int64; rows of the heads of compound pages.
        reach: int64; row behind the last page of any compound page up to each, by its order, whether or not its tails
            agree.
        alone: `_are_alone`.
    """

    heads: I64
    reach: I64
    alone: Mask

    @classmethod
    def of(cls, s: Snapshot) -> _Borders:
        """Those of all pages."""
        folios = s.folios
        nr = np.where(folios.readable, np.int64(1) << np.minimum(folios.order, 40).astype(np.int64), 1)
        return cls(folios.row, np.maximum.accumulate(folios.row + nr), _are_alone(s))

    def after(self, row: int) -> int:
        """The first row from this one on before which all compound pages end."""
        before = int(np.searchsorted(self.heads, row)) - 1
        while before >= 0 and self.reach[before] > row:
            row = int(self.reach[before])
            before = int(np.searchsorted(self.heads, row)) - 1
        return row

    def cuts(self, start: int, stop: int, step: int) -> Iterator[int]:
        """Rows from ``start`` to ``stop``, at least ``step`` from one to the next but for the last."""
        yield start
        while start < stop:
            start = min(self.after(start + step), stop)
            yield start


def _page_pieces(s: Snapshot, most: int) -> Iterator[PagePiece]:
    """The memory map, cut between compound pages."""
    return _pieces_of(s, _Borders.of(s), 0, len(s.pages), most)


def _pieces_of(s: Snapshot, borders: _Borders, start: int, stop: int, most: int) -> Iterator[PagePiece]:
    """Rows of the memory map, cut between compound pages; neighbouring parts of few stretches are one piece."""
    parts: list[PagePiece] = []
    rows = 0
    for part in _parts(s, borders, start, stop, most):
        if parts and (rows + len(part) > most or part.stop - parts[0].start > _LONGEST * most):
            yield _joined(parts)
            parts, rows = [], 0
        parts.append(part)
        rows += len(part)
    if parts:
        yield _joined(parts)


def _joined(parts: list[PagePiece]) -> PagePiece:
    if len(parts) == 1:
        return parts[0]
    first, nr = (np.concatenate([getattr(part, name) for part in parts]) for name in ("first", "nr"))
    return PagePiece(parts[0].s, parts[0].start, parts[-1].stop, first, nr)


def _parts(s: Snapshot, borders: _Borders, start: int, stop: int, most: int) -> Iterator[PagePiece]:
    """Parts of ``most`` pages, but that no compound page is cut."""
    cuts: list[int] = []
    for cut in borders.cuts(start, stop, most):
        cuts.append(cut)
        if cut > start and (cut - cuts[0] >= STRETCHES_AT_ONCE or cut == stop):
            yield from _stretches(s, np.array(cuts, np.int64), borders.alone)
            cuts = cuts[-1:]


PAGE_PIECES = Pieces(_page_pieces, STRETCHES_AT_ONCE)
"""The memory map, cut between compound pages."""


class PagesPredicate(Predicate[PagePiece]):
    """A rule as a predicate over pages, which others may judge in the same pass over the memory map."""

    def run(self, s: Snapshot, most: int = 0) -> Violations:
        """As `Predicate.run`; what `judge_together` has found is not looked for again."""
        known = s.judged_pages.get(self)
        return super().run(s, most) if known is None or most else self.violations(s, known)


def judge_together(s: Snapshot, predicates: Iterable[PagesPredicate]) -> None:
    """Let some rules judge all pages in one pass, and keep what they find in the snapshot for `PagesPredicate.run`."""
    todo = [p for p in predicates if p not in s.judged_pages]
    try:
        s.judged_pages.update(_judged(s, todo))
    except LayoutError:
        # Each by itself: the one that fails does so again, and says why, when it is run alone.
        for predicate in todo:
            with suppress(LayoutError):
                s.judged_pages.update(_judged(s, [predicate]))


def _judged(s: Snapshot, predicates: list[PagesPredicate]) -> dict[PagesPredicate, Judgement[PagePiece]]:
    """What some rules find in one pass."""
    made = {predicate: Judgement(predicate.judge) for predicate in predicates}
    if made:
        look_through_pages(s, Judgements([*made.values()]))
    return made


class PageLook(Protocol[G]):
    """What looks through pieces of the memory map, some of which others may look through."""

    def add(self, piece: PagePiece) -> object:
        """Look through a piece."""

    def rehearse(self, piece: PagePiece) -> None:
        """Look through a piece in vain."""

    def gathered(self) -> G:
        """What was found here."""

    def merge(self, gathered: G) -> None:
        """Take in what was found elsewhere."""


@dataclass(frozen=True)
class Judgements:
    """Several rules about pages."""

    each: list[Judgement[PagePiece]]

    def rehearse(self, piece: PagePiece) -> None:
        """As `Judgement.rehearse`."""
        for judgement in self.each:
            judgement.rehearse(piece)

    def add(self, piece: PagePiece) -> None:
        """Judge a piece."""
        for judgement in self.each:
            judgement.add(piece)

    def gathered(self) -> list[FoundInPieces]:
        """As `Judgement.gathered`."""
        return [judgement.gathered() for judgement in self.each]

    def merge(self, gathered: list[FoundInPieces]) -> None:
        """As `Judgement.merge`."""
        for judgement, part in zip(self.each, gathered, strict=True):
            judgement.merge(part)


def look_through_pages(s: Snapshot, found: PageLook[G]) -> None:
    """Look through all pages, a piece at a time."""
    borders = _Borders.of(s)
    cuts = list(borders.cuts(0, len(s.pages), max(_AT_ONCE, len(s.pages) // _TIMES)))

    def look(numbers: Iterable[int]) -> None:
        for number in numbers:
            for piece in _pieces_of(s, borders, cuts[number], cuts[number + 1], PAGE_PIECES.most):
                found.add(piece)

    def rehearse() -> None:
        for piece in islice(_pieces_of(s, borders, cuts[0], cuts[1], PAGE_PIECES.most), 1):
            found.rehearse(piece)

    s.share_out(len(cuts) - 1, look, found, _WORTH_SHARING, rehearse)
