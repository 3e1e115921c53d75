"""Array aliases, the base of every table (named columns of equal length), and what tables are joined with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Generic, Self, TypeVar, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
AnyArray = npt.NDArray[Any]


T = TypeVar("T", bound="Table")
S = TypeVar("S", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Table:
    """A frozen bundle of one-dimensional columns, all of the same length; row i is one thing.

    Absent values are marked by a mask column or by -1, never by None.
    """

    def __post_init__(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(lengths.values())) > 1:
            msg = f"{type(self).__name__}: columns of unequal length {lengths}"
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def take(self, rows: AnyArray | slice) -> Self:
        """The table of the given rows (indices, a mask or a slice), in that order."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def concat(cls, parts: list[Self]) -> Self:
        """The rows of all ``parts``, in order; there must be at least one part."""
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    @classmethod
    def empty(cls, **columns: AnyArray) -> Self:
        """The table without a row, its columns of the types that the class names.

        Args:
            columns: Empty columns whose type it does not name (``AnyArray``).
        """
        types = get_type_hints(cls)
        made = {
            f.name: np.empty(0, get_args(get_args(types[f.name])[1])[0]) for f in fields(cls) if f.name not in columns
        }
        return cls(**made, **columns)

    @property
    def nbytes(self) -> int:
        """Bytes held by the columns."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))


_MAX_RESERVE = 1 << 24
"""Rows that a builder makes room for before they come."""


class Builder(Generic[T]):
    """Gathers the rows of a table part by part, each row written once into columns that grow ahead of them.

    Args:
        kind: The table's class.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._columns: dict[str, AnyArray] = {}
        self._length = 0
        self._wanted = 0

    def reserve(self, rows: int) -> None:
        """Announce how many rows at most are still to come: columns then grow once."""
        self._wanted = self._length + min(rows, _MAX_RESERVE)

    def add(self, part: T) -> None:
        """Append rows."""
        end = self._length + len(part)
        for field in fields(part):
            column = getattr(part, field.name)
            have = self._columns.get(field.name)
            if have is None or end > len(have):
                # Room that is not written to costs no memory, so columns may grow generously.
                grown = np.empty(max(2 * end, 1 << 16) if end > self._wanted else self._wanted, column.dtype)
                if have is not None:
                    grown[: self._length] = have[: self._length]
                self._columns[field.name] = have = grown
            have[self._length : end] = column
        self._length = end

    def table(self) -> T | None:
        """The rows so far, None when there is none."""
        if not self._columns:
            return None
        return self._kind(**{name: column[: self._length] for name, column in self._columns.items()})


def group_starts(sorted_keys: AnyArray) -> I64:
    """Index of the first row of each run of equal keys in a sorted key column."""
    if not len(sorted_keys):
        return np.empty(0, np.int64)
    edge = np.flatnonzero(sorted_keys[1:] != sorted_keys[:-1]) + 1
    return np.concatenate([np.zeros(1, np.int64), edge])


def rows_of(ordered: AnyArray, wanted: AnyArray) -> I32:
    """Row of each wanted value in an ascending column; -1 where it is absent."""
    if not len(ordered):
        return np.full(len(wanted), -1, np.int32)
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[at] == wanted, at, -1).astype(np.int32)


def rows_of_unordered(column: AnyArray, wanted: AnyArray) -> I32:
    """The first row of each wanted value in a column in any order; -1 where it is absent."""
    order = np.argsort(column, kind="stable").astype(np.int32)
    return take_or(order, rows_of(column[order], wanted), -1)


def rows_covering(starts: AnyArray, ends: AnyArray, values: AnyArray) -> I64:
    """Row of the range [start, end) that holds each value, -1 where none does; ranges ascend and do not overlap.

    Example: of the ranges [10, 14) and [20, 21), 13 is in row 0, 20 in row 1, and 14 in none.
    """
    at = np.searchsorted(starts, values, "right") - 1
    if not len(starts):
        return at
    return np.where((at >= 0) & (starts[at] <= values) & (values < ends[at]), at, -1)


def matches(ordered: AnyArray, wanted: AnyArray) -> tuple[I64, I64]:
    """Every pair of a wanted value and a row of an ascending column that holds it.

    Returns:
        ``(which, row)``: places in ``wanted``, ascending, and rows. ``matches([3, 5, 5], [5, 4, 3])`` gives
        ``([0, 0, 2], [1, 2, 0])``.
    """
    low = np.searchsorted(ordered, wanted, "left")
    count = np.searchsorted(ordered, wanted, "right") - low
    which = np.repeat(np.arange(len(wanted)), count)
    return which, low[which] + count_up(count)


def count_up(counts: AnyArray) -> I64:
    """``0, 1, ... counts[0] - 1, 0, 1, ... counts[1] - 1, ...`` as one array."""
    counts = counts.astype(np.int64, copy=False)
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) - np.repeat(before, counts)


def take_or(column: npt.NDArray[S], rows: AnyArray, absent: float | bytes | str) -> npt.NDArray[S]:
    """``column[rows]`` with ``absent`` where a row is -1, in the type of the column.

    Example: ``take_or(folios.is_hugetlb, folio_of_page[rows], False)`` gives which pages are in hugetlb folios, also
    where there is no large folio at all.
    """
    if not len(column):
        return np.full((len(rows), *column.shape[1:]), absent, column.dtype)
    taken = column[rows]
    taken[rows < 0] = absent
    return taken


MAX_MMS = 1 << 20
"""Mms that a target may have: their rows must fit beside a page number in one word."""

_PAGE_BITS = np.uint64(44)
"""Bits of a page number of the user half: 56 bits of address, 12 of them within the page."""

_LAST_PAGE = np.uint64((1 << 44) - 1)


def page_key(mm_idx: AnyArray, page: U64) -> U64:
    """One word for a page of a process: by mm, then by address, so that one search finds a page of any mm.

    Args:
        mm_idx: Rows of mms, less than `MAX_MMS`.
        page: uint64; user addresses shifted right by the page shift. Numbers that no user page has (a damaged VMA's)
            are taken for the last one: they stay behind all others of their mm and out of those of the next.
    """
    if len(mm_idx) and int(mm_idx.max()) >= MAX_MMS:
        msg = f"{int(mm_idx.max()):,} is no row of an mm"
        raise ValueError(msg)
    return (mm_idx.astype(np.uint64) << _PAGE_BITS) | np.minimum(page, _LAST_PAGE)


@dataclass(frozen=True)
class Stretches:
    """Stretches of user addresses of some owners, usually mms: what a question is about, and no more than that is read.

    Attributes:
        owner: int32[n]; less than `MAX_MMS`.
        first, last: uint64[n]; page numbers, both included; ascending by owner and page, and apart.
    """

    owner: I32
    first: U64
    last: U64

    @classmethod
    def of(cls, owner: I32, start: U64, end: U64, page_shift: int) -> Stretches:
        """From address ranges [start, end) in any order, which may overlap; empty ones are left out.

        Args:
            owner: Of each range.
            start: First address.
            end: Behind the last.
            page_shift: log2 of the page size.
        """
        keep = end > start
        owner, shift = owner[keep], np.uint64(page_shift)
        low = page_key(owner, start[keep] >> shift)
        high = page_key(owner, (end[keep] - np.uint64(1)) >> shift)
        order = np.argsort(low, kind="stable")
        low, high = low[order], np.maximum.accumulate(high[order])
        fresh = np.ones(len(low), np.bool_)
        fresh[1:] = low[1:] > high[:-1] + np.uint64(1)
        fresh[1:] |= low[1:] >> _PAGE_BITS != low[:-1] >> _PAGE_BITS
        begin = np.flatnonzero(fresh)
        ends = high[np.append(begin[1:], len(low)) - 1] if len(low) else high
        return cls(
            (low[begin] >> _PAGE_BITS).astype(np.int32),
            low[begin] & _LAST_PAGE,
            ends & _LAST_PAGE,
        )

    def __len__(self) -> int:
        return len(self.owner)

    def overlapping(self, owner: I32, first: U64, last: U64) -> tuple[I64, I64]:
        """The stretches that each range of pages touches.

        Args:
            owner: Of each range.
            first: First page.
            last: Last page, included.

        Returns:
            ``(low, high)``: they are the rows [low, high) of each range; none where the two are equal.
        """
        low = np.searchsorted(page_key(self.owner, self.last), page_key(owner, first), "left")
        high = np.searchsorted(page_key(self.owner, self.first), page_key(owner, last), "right")
        return low.astype(np.int64), np.maximum(low, high).astype(np.int64)


def distinct(column: AnyArray) -> AnyArray:
    """The values of a column, ascending, each once; quick where the column is in order already (np.unique hashes)."""
    ordered = np.sort(column, kind="stable")
    return ordered[group_starts(ordered)]


def stable_order(values: AnyArray) -> I64:
    """What ``np.argsort(values, kind="stable")`` gives, sooner.

    NumPy sorts numbers of 16 bits by counting; integers that span less than 32 bits are sorted as two of those.
    """
    if values.dtype.kind not in "iu" or len(values) < _FEW:
        return np.argsort(values, kind="stable").astype(np.int64)
    if bool((values[1:] >= values[:-1]).all()):
        return np.arange(len(values))
    if bool((values[1:] < values[:-1]).all()):
        return np.arange(len(values))[::-1]
    low = values.min()
    span = int(values.max()) - int(low)
    if span >= 1 << 32:
        return np.argsort(values, kind="stable").astype(np.int64)
    above = (values - low).astype(np.uint32)
    order = np.argsort((above & np.uint32(0xFFFF)).astype(np.uint16), kind="stable")
    if span >= 1 << 16:
        high = (above >> np.uint32(16)).astype(np.uint16)
        order = order[np.argsort(high[order], kind="stable")]
    return order.astype(np.int64)


_FEW = 1 << 12


class Seen:
    """Addresses met so far on a walk that goes down level by level, so that a loop ends it."""

    def __init__(self) -> None:
        self._known = np.empty(0, np.uint64)

    def take(self, addresses: U64) -> Mask:
        """Take more addresses: bool[n], which of them were met before or are repeated among these."""
        order = np.argsort(addresses, kind="stable")
        ordered = addresses[order]
        again = np.zeros(len(addresses), np.bool_)
        again[order[1:]] = ordered[1:] == ordered[:-1]
        again |= rows_of(self._known, addresses) >= 0
        self._known = np.sort(np.concatenate([self._known, addresses[~again]]), kind="stable")
        return again


def expand_runs(starts: AnyArray, counts: AnyArray) -> U64:
    """``starts[0], starts[0]+1, ... (counts[0] of them), starts[1], ...`` as one array."""
    counts = counts.astype(np.int64)
    total = int(counts.sum())
    out = np.ones(total, np.int64)
    keep = counts > 0
    starts, counts = starts.astype(np.int64)[keep], counts[keep]
    if not len(counts):
        return np.empty(0, np.uint64)
    first = np.cumsum(counts) - counts
    out[first[0]] = starts[0]
    out[first[1:]] = starts[1:] - (starts[:-1] + counts[:-1] - 1)
    return np.cumsum(out).astype(np.uint64)
