"""The loops that NumPy alone is slow at, compiled where the install had a compiler, and in NumPy elsewhere.

Both ways give the same, row for row; ``FOLIOSCOPE_COMPILED=no`` in the environment takes NumPy.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Protocol

import numpy as np

from inspector.columns import I32, I64, U8, U16, U32, U64, Mask, expand_runs
from inspector.records import dataclass

_VERSION = 9
"""Of the extension that the functions here call: one that an older install left is not used."""


def _load() -> ModuleType | None:
    if os.environ.get("FOLIOSCOPE_COMPILED", "") in ("no", "0"):
        return None
    try:
        from inspector import _loops  # noqa: PLC0415  (the extension may not be there)
    except ImportError:
        return None
    return _loops if getattr(_loops, "VERSION", 0) == _VERSION else None


_COMPILED = _load()


def is_compiled() -> bool:
    """Whether the compiled loops are used."""
    return _COMPILED is not None


class Distinct(Protocol):
    """The distinct rows of some words met so far, each with a number, in the order in which they were first met.

    Of a large machine's struct pages and entries only hundreds or thousands differ: what is true of one row is true of
    all that are equal to it, so a question is asked once a distinct row and answered for all by their numbers.
    """

    def __len__(self) -> int:
        """How many distinct rows there are."""

    @property
    def values(self) -> U64:
        """uint64[distinct, width]; the rows."""

    @property
    def weights(self) -> I64:
        """int64[distinct]; how often each was met, or the sum of the weights that came with it."""

    def codes(self, rows: U64, weights: I64 | None = None) -> I32:
        """Number rows, new ones after all those before.

        Args:
            rows: uint64[n, width].
            weights: int64[n]; what each row counts for, 1 when not given.

        Returns:
            int32[n]; row in `values` of each.
        """


def distinct_rows(width: int) -> Distinct:
    """An empty `Distinct` for rows of ``width`` words."""
    return _NumPyDistinct(width) if _COMPILED is None else _CompiledDistinct(_COMPILED, width)


class _CompiledDistinct:
    def __init__(self, compiled: ModuleType, width: int) -> None:
        self._table = compiled.Distinct(width)

    def __len__(self) -> int:
        return int(self._table.length)

    @property
    def values(self) -> U64:
        return self._table.values

    @property
    def weights(self) -> I64:
        return self._table.weights

    def codes(self, rows: U64, weights: I64 | None = None) -> I32:
        out = np.empty(len(rows), np.int32)
        self._table.codes(np.ascontiguousarray(rows), np.empty(0, np.int64) if weights is None else weights, out)
        return out


class _NumPyDistinct:
    def __init__(self, width: int) -> None:
        self._width = width
        self._numbers: dict[bytes, int] = {}
        self._weights = np.zeros(1 << 10, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def values(self) -> U64:
        return np.frombuffer(b"".join(self._numbers), np.uint64).reshape(-1, self._width)

    @property
    def weights(self) -> I64:
        return self._weights[: len(self)].copy()

    def codes(self, rows: U64, weights: I64 | None = None) -> I32:
        n = len(rows)
        if not n:
            return np.empty(0, np.int32)
        # Neighbours are alike more often than not, and sorting is what costs.
        fresh = np.ones(n, np.bool_)
        fresh[1:] = (rows[1:] != rows[:-1]).any(axis=1)
        here = np.flatnonzero(fresh)
        words = np.ascontiguousarray(rows[here])
        as_bytes = words.view(np.dtype((np.void, words.itemsize * self._width))).reshape(-1)
        first, inverse = _first_and_inverse(words)
        order = np.argsort(first, kind="stable")
        numbers = np.empty(len(first), np.int32)
        for at in order.tolist():
            numbers[at] = self._numbers.setdefault(bytes(as_bytes[first[at]]), len(self._numbers))
        out = np.repeat(numbers[inverse], np.diff(here, append=n))
        if len(self) > len(self._weights):
            self._weights = np.concatenate([self._weights, np.zeros(len(self), np.int64)])
        np.add.at(self._weights, out, 1 if weights is None else weights)
        return out


def _first_and_inverse(words: U64) -> tuple[I64, I64]:
    """The first of each kind of row, and which kind each row is of."""
    if words.shape[1] == 1:
        _, first, inverse = np.unique(words[:, 0], return_index=True, return_inverse=True)
        return first, inverse
    order = np.lexsort(words.T[::-1])
    ordered = words[order]
    starts = np.ones(len(words), np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    inverse = np.empty(len(words), np.int64)
    inverse[order] = np.cumsum(starts) - 1
    # lexsort is stable: the first of equals comes first.
    return order[starts], inverse


def cut_runs(border: U8 | Mask, first: I64, nr: I64, bit: int = 1) -> tuple[I64, I64, I64]:
    """Cut runs of rows wherever a border lies inside.

    Example: six pages, of which rows 2 to 4 are one large folio, so that a run must not go on into rows 2 and 5::

        border = [0, 0, 1, 0, 0, 1, 0]     # rows 0 to 5, and the end
        first, nr = [1, 3], [4, 2]         # runs over rows 1 to 4, and over rows 3 and 4
        owner = [0, 0, 1]                  # the first run is cut at row 2 into two pieces, the second stays whole
        skip, nr = [0, 1, 0], [1, 3, 2]    # rows 1; 2 to 4; 3 and 4

    Args:
        border: By row of a page, and one more for the end; whether a run must not go on from the row before into it.
        first: First row of each run.
        nr: Rows of each run, at least 1.
        bit: Which bit of ``border`` says so.

    Returns:
        ``(owner, skip, nr)`` of each piece: which run, how many rows into it, and how many rows long; ordered by run.
    """
    if _COMPILED is not None:
        first, nr = (np.ascontiguousarray(column, np.int64) for column in (first, nr))
        room, pieces = len(first) + len(first) // 8 + 64, -1
        while pieces < 0:
            owner, skip, length = (np.empty(room, np.int64) for _ in range(3))
            pieces, room = _COMPILED.cut_runs(border.view(np.uint8), bit, first, nr, owner, skip, length), 4 * room
        return owner[:pieces], skip[:pieces], length[:pieces]
    border_at = border[np.minimum(expand_runs(first, nr).astype(np.int64), len(border) - 1)]
    place = np.cumsum(nr) - nr
    begins = (border_at & bit) != 0
    begins[place] = True
    at = np.flatnonzero(begins)
    owner = np.repeat(np.arange(len(first)), np.add.reduceat(begins.astype(np.int64), place) if len(place) else place)
    return owner, at - place[owner], np.diff(at, append=len(begins))


def count_runs(counts: I32, row: I32, nr: U32, *, together: bool = False) -> None:
    """Add one to each row that a run covers, in place.

    Args:
        counts: int32 by row.
        row: First row of each run; not negative.
        nr: Rows of each run; those behind the end are left out.
        together: Whether other processes add to the same counts meanwhile; only where `is_compiled`.
    """
    if _COMPILED is not None:
        _COMPILED.count_runs(counts, np.ascontiguousarray(row), np.ascontiguousarray(nr), together)
        return
    assert not together
    n = len(counts)
    alone = nr == 1
    np.add.at(counts, row[alone], np.int32(1))
    steps = np.zeros(n + 1, np.int32)
    first = row[~alone].astype(np.int64)
    np.add.at(steps, first, np.int32(1))
    np.subtract.at(steps, np.minimum(first + nr[~alone], n), np.int32(1))
    counts += np.cumsum(steps[:-1], dtype=np.int32)


@dataclass(frozen=True)
class LeafWords:
    """How a leaf PTE differs from other entries, and how neighbours differ.

    Attributes:
        is_leaf: An entry with any of these bits is a leaf.
        is_plain: In a leaf without this bit the page frame is stored inverted, so that it counts down.
        page_shift: log2 of the page size; page frames are in the bits from there on.
        address: The bits of the page frame.
        low, high: uint16; `inspector.arch.base.Bit` by the lowest and by the highest bits of a leaf, both powers of two
            long.
    """

    is_leaf: int
    is_plain: int
    page_shift: int
    address: int
    low: U16
    high: U16


@dataclass(frozen=True)
class TablesOfVmas:
    """Some page tables of the lowest level and the VMAs that they may serve.

    Attributes:
        words: uint64[tables * entries]; their entries.
        va: uint64[tables]; the first address of each.
        low, high: int32[tables]; rows [low, high) of the VMAs of its mm, or of those that it can cover.
        start, end: uint64[vmas]; addresses of all VMAs, by mm and ascending.
    """

    words: U64
    va: U64
    low: I32
    high: I32
    start: U64
    end: U64


def leaf_runs(tables: TablesOfVmas, leaf: LeafWords) -> tuple[I64, U32, I32, I64]:
    """What `inspector.walk.pagetable.leaf_runs` gives for tables of PTEs, compiled; only where `is_compiled`.

    Returns:
        ``(at, nr, vma_idx, other)`` as `inspector.walk.pagetable.LeafRuns` has them.
    """
    assert _COMPILED is not None
    n = len(tables.words)
    width = n // max(len(tables.va), 1)
    at, nr, vma, other = np.empty(n, np.int64), np.empty(n, np.uint32), np.empty(n, np.int32), np.empty(n, np.int64)
    runs, others = _COMPILED.leaf_runs(
        tables.words,
        width.bit_length() - 1,
        leaf.is_leaf,
        leaf.is_plain,
        leaf.page_shift,
        tables.low,
        tables.high,
        tables.va,
        tables.start,
        tables.end,
        at,
        nr,
        vma,
        other,
    )
    return at[:runs], nr[:runs], vma[:runs], other[:others]


@dataclass(frozen=True)
class TableRows:
    """Where the page tables of a batch are among all.

    Attributes:
        row: int64; row of each in the columns that follow.
        mm_idx: int32; row of the mm.
        va: uint64; first address.
        first: bool; whether it is met for the first time.
        start: What to add to a row to number it among all tables.
    """

    row: I64
    mm_idx: I32
    va: U64
    first: Mask
    start: int


@dataclass(frozen=True)
class RunColumns:
    """What entries and their tables say of runs of leaves; columns as in `inspector.walk.mappings.Mappings`."""

    mm_idx: I32
    va: U64
    pfn: I64
    entry: U64
    table_idx: I32
    slot: U16
    counted: Mask
    bits: U16


def fill_runs(words: U64, at: I64, leaf: LeafWords, tables: TableRows) -> RunColumns:
    """The columns of runs of PTEs that begin at some positions, compiled; only where `is_compiled`."""
    assert _COMPILED is not None
    n, width = len(at), len(words) // max(len(tables.row), 1)
    out = RunColumns(
        np.empty(n, np.int32),
        np.empty(n, np.uint64),
        np.empty(n, np.int64),
        np.empty(n, np.uint64),
        np.empty(n, np.int32),
        np.empty(n, np.uint16),
        np.empty(n, np.bool_),
        np.empty(n, np.uint16),
    )
    _COMPILED.fill_runs(
        words,
        width.bit_length() - 1,
        at,
        leaf.is_plain,
        leaf.address,
        leaf.page_shift,
        leaf.low,
        leaf.high,
        tables.row,
        tables.mm_idx,
        tables.va,
        tables.first.view(np.uint8),
        tables.start,
        out.mm_idx,
        out.va,
        out.pfn,
        out.entry,
        out.table_idx,
        out.slot,
        out.counted.view(np.uint8),
        out.bits,
    )
    return out


@dataclass(frozen=True)
class PageRows:
    """How page frames and what is known of their pages are looked up.

    Attributes:
        delta: int64; what to add to a page frame to get its row, by ``page frame >> shift``; very low where none is.
        shift: See there.
        codes: uint8 by row; in the bits of ``mask`` the class of a page.
        mask: See there.
        compound, heads: As in `inspector.tables.pages.Pages`.
    """

    delta: I64
    shift: int
    codes: U8
    mask: int
    compound: I32
    heads: I32


@dataclass(frozen=True)
class OddClasses:
    """What overrides the class of an entry's page.

    Attributes:
        no_page, special, zero: The classes.
        special_bits: `inspector.arch.base.Bit` flags of special entries.
        zero_pfn: Page frame of the zero page.
    """

    no_page: int
    special: int
    zero: int
    special_bits: int
    zero_pfn: int


def judge_runs(pfn: I64, bits: U16, pages: PageRows, odd: OddClasses) -> tuple[U8, I32, I32]:
    """What runs of PTEs map, compiled; only where `is_compiled`.

    Returns:
        ``(entry_class, page_row, head_row)`` as in `inspector.walk.mappings.Mappings`.
    """
    assert _COMPILED is not None
    n = len(pfn)
    entry_class, page_row, head_row = np.empty(n, np.uint8), np.empty(n, np.int32), np.empty(n, np.int32)
    _COMPILED.judge_runs(
        np.ascontiguousarray(pfn),
        np.ascontiguousarray(bits),
        pages.delta,
        pages.shift,
        pages.codes,
        pages.mask,
        pages.compound,
        pages.heads,
        odd.special_bits,
        odd.zero_pfn,
        np.array([odd.no_page, odd.special, odd.zero], np.uint8),
        entry_class,
        page_row,
        head_row,
    )
    return entry_class, page_row, head_row


@dataclass(frozen=True)
class LinkedRuns:
    """Columns of runs of entries, as in `inspector.walk.mappings.Mappings`; ``normal``: the class of those wanted."""

    entry_class: U8
    vma_idx: I32
    page_row: I32
    nr: U32
    va: U64
    normal: int


@dataclass(frozen=True)
class LinkedPages:
    """What is known of pages.

    Attributes:
        codes: uint8 by row; bits ``border`` and ``unknown``.
        border: The index of the folio does not run on from the page before.
        unknown: The index of the folio that a page heads could not be read.
        number, compound, heads: As in `inspector.tables.pages.Pages`.
        index: uint64 by row; index of the folio that a page heads.
        mapping: uint64 by number; the ``mapping`` word.
        kind: uint8 by number; bits of `inspector.walk.linear.Links.kind`, and 0x80 for pages with a type.
        is_hugetlb: As in `inspector.tables.folios.Folios`.
        bits: uint8[3]; the bits of an anonymous folio, of a hugetlb folio, and of an unknown index.
    """

    codes: U8
    border: int
    unknown: int
    number: I32
    compound: I32
    heads: I32
    index: U64
    mapping: U64
    kind: U8
    is_hugetlb: Mask
    bits: U8


@dataclass(frozen=True)
class LinkedVmas:
    """Columns of `inspector.tables.vmas.Vmas`, and log2 of the page size."""

    start: U64
    pgoff: U64
    anon_pgoff: U64
    page_shift: int


class LinksByKind:
    """Links of runs, as `inspector.walk.linear.links_of` has them, by kind, compiled; only where `is_compiled`.

    Args:
        m: The runs.
        pages: The pages that they map.
        vmas: The VMAs.

    Attributes:
        nr: int64 a kind; links of it.
    """

    def __init__(self, m: LinkedRuns, pages: LinkedPages, vmas: LinkedVmas) -> None:
        self._m, self._pages, self._vmas = m, pages, vmas
        self._examples, self.nr = self._put_out(np.empty(0, np.bool_), _FEW_KINDS)

    def examples(self) -> tuple[I32, I32, I32]:
        """The first link of each kind: which run it is of, how many entries into it, and how many it is long."""
        return self._examples

    def links(self, some: Mask) -> tuple[I32, I32, I32]:
        """Likewise all links of some kinds."""
        return self._put_out(some, int(self.nr[some].sum()))[0]

    def _put_out(self, some: Mask, room: int) -> tuple[tuple[I32, I32, I32], I64]:
        assert _COMPILED is not None
        m, pages, vmas = self._m, self._pages, self._vmas
        while True:
            kinds = _COMPILED.Distinct(3)
            owner, skip, length = (np.empty(room, np.int32) for _ in range(3))
            n = _COMPILED.link_kinds(
                m.entry_class,
                m.normal,
                m.vma_idx,
                m.page_row,
                m.nr,
                m.va,
                pages.codes,
                pages.border,
                pages.unknown,
                pages.number,
                pages.compound,
                pages.heads,
                pages.index,
                pages.mapping,
                pages.kind,
                pages.is_hugetlb.view(np.uint8),
                pages.bits,
                vmas.start,
                vmas.pgoff,
                vmas.anon_pgoff,
                vmas.page_shift,
                kinds,
                some.view(np.uint8),
                owner,
                skip,
                length,
            )
            if n >= 0:
                return (owner[:n], skip[:n], length[:n]), kinds.weights
            room *= _MORE


_FEW_KINDS = 1 << 12
"""Kinds of rows that there is room for at first."""

_MORE = 8
"""How many times as many there is room for when there are more."""


@dataclass(frozen=True)
class JudgedRuns:
    """Columns of runs of entries, as in `inspector.walk.mappings.Mappings`."""

    level: U8
    bits: U16
    entry_class: U8
    mm_idx: I32
    vma_idx: I32
    head_row: I32
    page_row: I32
    nr: U32


@dataclass(frozen=True)
class AlikePages:
    """What is known of pages.

    Attributes:
        codes: uint8 by row; bit ``unlike``.
        unlike: The page has other words than the one before it.
        number, compound: As in `inspector.tables.pages.Pages`.
        is_hugetlb: As in `inspector.tables.folios.Folios`.
    """

    codes: U8
    unlike: int
    number: I32
    compound: I32
    is_hugetlb: Mask


def entry_kinds(m: JudgedRuns, pages: AlikePages) -> tuple[I32, I64, I64, I64]:
    """Runs by kind, as `inspector.walk.batches.Kinds` has them, compiled; only where `is_compiled`.

    Returns:
        ``(kind, first, runs, entries)``: of each run its kind, -1 where its own pages differ; of each kind its first
        run, and how many runs and entries it has.
    """
    assert _COMPILED is not None
    room = _FEW_KINDS
    kind = np.empty(len(m.nr), np.int32)
    while True:
        kinds = _COMPILED.Distinct(2)
        first, runs = (np.empty(room, np.int64) for _ in range(2))
        n = _COMPILED.entry_kinds(
            m.level,
            m.bits,
            m.entry_class,
            m.mm_idx,
            m.vma_idx,
            m.head_row,
            m.page_row,
            m.nr,
            pages.codes,
            pages.unlike,
            pages.number,
            pages.compound,
            pages.is_hugetlb.view(np.uint8),
            kinds,
            kind,
            first,
            runs,
        )
        if n >= 0:
            return kind, first[:n], runs[:n], kinds.weights
        room *= _MORE


def list_misfits(rows: I32, following: I32, before: I32) -> U8:
    """Which nodes of lists do not fit their neighbours.

    Args:
        rows: The nodes.
        following: By row of a page: row plus 1 of the node that its link leads to, 0 for none that is known,
            negative for something that is no page.
        before: The same of the other link.

    Returns:
        uint8 a node; 1: what it leads to as the next one has another one before it, or is itself; 2: the same the other
        way round.
    """
    out = np.zeros(len(rows), np.uint8)
    if _COMPILED is not None:
        _COMPILED.list_misfits(np.ascontiguousarray(rows), following, before, out)
        return out
    for link, back, bit in ((following, before, 1), (before, following, 2)):
        other = link[rows]
        known = np.flatnonzero(other > 0)
        own = rows[known] + 1
        out[known[(back[other[known] - 1] != own) | (other[known] == own)]] |= bit
    return out


def list_owners(rows: I32, before: I32, owner: I32) -> None:
    """The list of each node, found backwards.

    Args:
        rows: The nodes, ascending.
        before: As of `list_misfits`: a negative number is that of the list, counted from -1.
        owner: Takes by row of a page the number of the list, counted from 1, 0 for a node whose links lead back to what
            is no node, or in a circle. It holds 0 for all that are no nodes.
    """
    if _COMPILED is not None:
        _COMPILED.list_owners(np.ascontiguousarray(rows), before, owner)
        return
    n = len(rows)
    behind = before[rows]
    at = np.searchsorted(rows, behind - 1).astype(np.int64)
    known = (behind > 0) & (at < n)
    known[known] = rows[at[known]] == behind[known] - 1
    step = np.where(known, at, np.arange(n))
    for _ in range(max(n, 2).bit_length()):
        step = step[step]
    owner[rows] = np.where(behind[step] < 0, -behind[step], 0)


_TURN, _STIR, _SPREAD = (np.uint64(k) for k in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93))
"""Odd numbers that mix the bits of what they are multiplied with."""


def _mixed(x: U64) -> U64:
    x = (x ^ (x >> np.uint64(33))) * _SPREAD
    return x ^ (x >> np.uint64(29))


def node_sums(nodes: I64) -> U64:
    """A number for each node, as good as random: sums of them are equal for the same nodes, and hardly for others."""
    return _mixed(nodes.view(np.uint64) * _TURN)


def pair_sum(one: I64, other: I64) -> int:
    """The sum of such numbers for pairs of nodes, to be compared modulo 2^64."""
    mixed = _mixed(one.view(np.uint64) * _TURN + _mixed(other.view(np.uint64) * _STIR))
    return int(np.add.reduce(mixed, dtype=np.uint64))


def list_sums(following: I32, first: I64, nr: int) -> U64 | None:
    """Follow lists from their heads, and add up `node_sums` of the nodes of each, compiled; only where `is_compiled`.

    Args:
        following: By row of a page: row plus 1 of the next node, -1 - the number of the list at its end.
        first: int64[lists]; the same of its head.
        nr: How many nodes there are.

    Returns:
        uint64[lists]; None where a list does not end at its head, or not all nodes are on one.
    """
    assert _COMPILED is not None
    sums = np.zeros(len(first), np.uint64)
    done = _COMPILED.list_sums(following, np.ascontiguousarray(first), sums, nr, int(_TURN), int(_SPREAD))
    return sums if done == nr else None
