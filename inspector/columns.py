"""Array aliases, the base of every table (named columns of equal length), and what tables are joined with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from typing import Any, ClassVar, Generic, Self, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from inspector.errors import LayoutError
from inspector.records import dataclass

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
AnyArray = npt.NDArray[Any]

_SCALARS: dict[str, type[np.generic]] = {
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "Mask": np.bool_,
}
"""What the columns of each alias hold, by its name: annotations are strings, and to resolve them takes milliseconds."""


class UnknownColumn:
    """A column of which no value is known, because this kernel's struct lacks the member as we know it.

    Whatever is worked out from it is unknown as well; to use it as an array is a `LayoutError` that says why. So a
    table has all its other columns, and only what needs this one is lost.

    Args:
        why: What is lacking, a sentence without a full stop.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, why: str) -> None:
        self.why = why

    def _still(self, *_: object, **__: object) -> UnknownColumn:
        return self

    def _refuse(self, *_: object, **__: object) -> Any:
        raise LayoutError(self.why)

    def __array_ufunc__(self, _ufunc: np.ufunc, method: str, *_: object, **named: object) -> UnknownColumn:
        if method != "__call__" or named.get("out") is not None:
            raise LayoutError(self.why)
        return self

    __getitem__ = astype = view = copy = reshape = ravel = _still
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = __neg__ = _still
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __mod__ = _still
    __lshift__ = __rshift__ = __rlshift__ = __rrshift__ = _still
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _still  # type: ignore[assignment]
    __array__ = __len__ = __bool__ = __int__ = __index__ = __float__ = __iter__ = __setitem__ = _refuse

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise LayoutError(self.why)


T = TypeVar("T", bound="Table")
S = TypeVar("S", bound=np.generic)


class Table:
    """A frozen bundle of one-dimensional columns, all of the same length; row i is one thing.

    Each table is a frozen dataclass. Absent values are marked by a mask column or by -1, never by None.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    """The columns by name: dataclasses.fields() works them out anew, and tables are made and cut thousands of times."""

    def __post_init__(self) -> None:
        columns = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        lengths = {name: len(column) for name, column in columns if not isinstance(column, UnknownColumn)}
        if len(set(lengths.values())) > 1:
            msg = f"{type(self).__name__}: columns of unequal length {lengths}"
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(getattr(self, next(iter(self.__dataclass_fields__))))

    def take(self, rows: AnyArray | slice) -> Self:
        """The table of the given rows (indices, a mask or a slice), in that order."""
        return type(self)(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    @classmethod
    def concat(cls, parts: list[Self]) -> Self:
        """The rows of all ``parts``, in order; there must be at least one part."""
        return cls(**{name: _joined([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__})

    @classmethod
    def empty(cls, **columns: AnyArray) -> Self:
        """The table without a row, its columns of the types that the class names.

        Args:
            columns: Empty columns whose type it does not name (``AnyArray``).
        """
        missing = ((name, f) for name, f in cls.__dataclass_fields__.items() if name not in columns)
        made = {name: np.empty(0, _SCALARS[str(f.type)]) for name, f in missing}
        return cls(**made, **columns)

    @property
    def nbytes(self) -> int:
        """Bytes held by the columns."""
        columns = (getattr(self, name) for name in self.__dataclass_fields__)
        return sum(column.nbytes for column in columns if not isinstance(column, UnknownColumn))


def _joined(parts: list[AnyArray]) -> AnyArray:
    unknown = next((part for part in parts if isinstance(part, UnknownColumn)), None)
    return np.concatenate(parts) if unknown is None else unknown


class Column(NDArrayOperatorsMixin, Generic[S]):
    """A column of which each value is worked out when it is asked for: ``column[rows]`` holds those rows alone.

    NumPy takes it for an array, and works out all of it then: that is for tests and small targets.

    Args:
        take: The values at some rows: an array of them or a slice.
        length: Rows of the table.
    """

    def __init__(self, take: Callable[[AnyArray | slice], npt.NDArray[S]], length: int) -> None:
        self._take = take
        self._length = length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, rows: AnyArray | slice | list[int]) -> npt.NDArray[S]: ...
    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> S: ...
    def __getitem__(self, rows: AnyArray | slice | list[int] | int | np.integer[Any]) -> npt.NDArray[S] | S:
        if isinstance(rows, slice):
            return self._take(rows)
        if isinstance(rows, (int, np.integer)):
            return cast("S", self._take(np.array([rows]))[0])
        at = np.asarray(rows)
        return self._take(np.flatnonzero(at) if at.dtype == np.bool_ else at)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        return self._take(slice(None)).astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **how: Any) -> Any:  # noqa: ANN401  (NumPy)
        whole = [np.asarray(x) if isinstance(x, Column) else x for x in inputs]
        return getattr(ufunc, method)(*whole, **how)

    @property
    def dtype(self) -> np.dtype[S]:
        """Type of the values."""
        return self._take(slice(0, 0)).dtype

    def astype(self, dtype: npt.DTypeLike) -> AnyArray:
        """All of it, in another type."""
        return np.asarray(self).astype(dtype)

    def tolist(self) -> list[Any]:
        """All of it as Python objects."""
        return np.asarray(self).tolist()


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
        for name in part.__dataclass_fields__:
            column = getattr(part, name)
            have = self._columns.get(name)
            if have is None or end > len(have):
                # Room that is not written to costs no memory, so columns may grow generously.
                grown = np.empty(max(2 * end, 1 << 16) if end > self._wanted else self._wanted, column.dtype)
                if have is not None:
                    grown[: self._length] = have[: self._length]
                self._columns[name] = have = grown
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


AT_ONCE = 1 << 16
"""Rows of a long table that are worked on at a time, so that temporaries stay in the cache and memory is bounded."""


def spans(length: int, most: int = AT_ONCE) -> list[slice]:
    """The rows of a table of that length in pieces of at most ``most``."""
    return [slice(at, min(at + most, length)) for at in range(0, length, most)]


def rows_where(length: int, holds: Callable[[slice], Mask]) -> I64:
    """Rows of a long table for which something holds, which is worked out for a piece of the table at a time."""
    found = [np.flatnonzero(holds(rows)) + rows.start for rows in spans(length)]
    return np.concatenate([*found, np.empty(0, np.int64)]).astype(np.int64, copy=False)


def prefix_sums(length: int, values: Callable[[slice], AnyArray], at: I64, most: int = AT_ONCE) -> I64:
    """Sum of a long column before each of some rows, in any order; the column is worked out a piece at a time.

    Args:
        length: Of the column.
        values: The column's numbers, or bool, at a slice of it.
        at: int64[n]; rows, of which ``length`` is the last.
        most: Rows of a piece.

    Returns:
        int64[n].
    """
    out = np.zeros(len(at), np.int64)
    order = np.argsort(at, kind="stable")
    places = at[order]
    before = np.int64(0)
    for rows in spans(length, most):
        running = np.concatenate([np.zeros(1, np.int64), np.cumsum(values(rows), dtype=np.int64)])
        low, high = np.searchsorted(places, [rows.start + 1, rows.stop + 1])
        out[order[low:high]] = before + running[places[low:high] - rows.start]
        before += running[-1]
    return out


@dataclass(frozen=True, slots=True)
class RowSet:
    """Some rows of a long table, one bit a row.

    Attributes:
        bits: uint8; eight rows a byte, the lowest bit first.
        length: Rows of the table.
    """

    bits: U8
    length: int

    @classmethod
    def none(cls, length: int) -> RowSet:
        """An empty one, to be filled with `add`."""
        return cls(np.zeros(-(-length // 8), np.uint8), length)

    def add(self, rows: AnyArray) -> None:
        """Put some rows into the set."""
        np.bitwise_or.at(self.bits, rows >> 3, np.uint8(1) << (rows & 7).astype(np.uint8))

    def __getitem__(self, rows: AnyArray | slice) -> Mask:
        """Whether each of these rows is in the set."""
        if not isinstance(rows, slice):
            return (self.bits[rows >> 3] >> (rows & 7).astype(np.uint8) & np.uint8(1)).astype(np.bool_)
        start, stop, _ = rows.indices(self.length)
        first = start >> 3
        inside = np.unpackbits(self.bits[first : -(-stop // 8)], bitorder="little")
        return inside[start - 8 * first : stop - 8 * first].view(np.bool_)

    @property
    def rows(self) -> I64:
        """int64; the rows, ascending."""
        return rows_where(self.length, self.__getitem__)


def rows_inside(starts: I32, orders: U8, length: int, max_order: int) -> RowSet:
    """The rows of a table that lie in any of some blocks.

    Args:
        starts: int32; first row of each block, ascending; blocks may overlap and reach beyond the table.
        orders: uint8; log2 of the rows of each.
        length: Rows of the table.
        max_order: No order is higher.
    """
    bits = np.zeros(-(-length // 8), np.uint8)
    for rows in spans(length):
        nr = rows.stop - rows.start
        low, high = np.searchsorted(starts, [rows.start - (1 << max_order), rows.stop])
        if low == high:
            continue
        begin = starts[low:high].astype(np.int64) - rows.start
        end = np.clip(begin + (np.int64(1) << orders[low:high].astype(np.int64)), 0, nr)
        begin = np.maximum(begin, 0)
        depth = np.cumsum(np.bincount(begin, minlength=nr + 1) - np.bincount(end, minlength=nr + 1))
        bits[rows.start // 8 : -(-rows.stop // 8)] = np.packbits(depth[:nr] > 0, bitorder="little")
    return RowSet(bits, length)


def flipped_bit(one: U64, other: U64) -> I64:
    """The number of the only bit in which two columns of words differ, -1 where they differ in none or in several."""
    apart = one ^ other
    single = (apart != 0) & ((apart & (apart - np.uint64(1))) == 0)
    # A power of two is a float64 exactly.
    return np.where(single, np.log2(np.maximum(apart, np.uint64(1)).astype(np.float64)), -1).astype(np.int64)


def count_up(counts: AnyArray) -> I64:
    """``0, 1, ... counts[0] - 1, 0, 1, ... counts[1] - 1, ...`` as one array."""
    counts = counts.astype(np.int64, copy=False)
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) - np.repeat(before, counts)


def mixed(values: U64) -> U64:
    """Numbers that differ in many bits where the values differ in any."""
    for shift in (32, 29):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(0x9E37_79B9_7F4A_7C15)
    out: U64 = values ^ (values >> np.uint64(32))
    return out


def take_or(column: npt.NDArray[S] | Column[S], rows: AnyArray, absent: float | bytes | str) -> npt.NDArray[S]:
    """``column[rows]`` with ``absent`` where a row is -1, in the type of the column.

    Example: ``take_or(folios.is_hugetlb, folio_of_page[rows], False)`` gives which pages are in hugetlb folios, also
    where there is no large folio at all.
    """
    if isinstance(column, UnknownColumn):
        return column
    if not len(column):
        shape = (len(rows),) if isinstance(column, Column) else (len(rows), *column.shape[1:])
        return np.full(shape, absent, column.dtype)
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


def union(one: AnyArray, other: AnyArray) -> AnyArray:
    """The values of either column, ascending, each once.

    As np.union1d, but that the like of it, where NumPy may hash, imports numpy.ma: a twentieth of what a start takes.
    """
    return distinct(np.concatenate([one, other]))


def difference(one: AnyArray, other: AnyArray) -> AnyArray:
    """The values of the first column that are not in the other, ascending, each once (np.setdiff1d; see `union`)."""
    own = distinct(one)
    return own[~is_among(own, other)]


def is_among(column: AnyArray, others: AnyArray) -> Mask:
    """Which values of a column are among others (np.isin; see `union`)."""
    return rows_of(distinct(others), column) >= 0


def sorts_rightly() -> bool:
    """Whether NumPy's vector code puts numbers into order here: on emulated processors it may not.

    The AVX2 code of argsort() gave 247 of 300 wrong orders on QEMU's emulated CPUs; look-ups and joins are wrong then.
    """
    for length in (700, 1500, 3000):
        values = np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        for ordered in (values[np.argsort(values)], np.sort(values)):
            if bool((ordered[1:] <= ordered[:-1]).any()):
                return False
    return True


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
