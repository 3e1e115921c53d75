"""Tables for the screen: columns of values, formatted only where seen, sorted and filtered as whole columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from inspector.columns import I64, AnyArray, Mask, stable_order
from tui.places import Place
from tui.views.changes import Changes, compare
from tui.views.filters import filter_mask


@dataclass(frozen=True)
class ViewColumn:
    """What a table shows of a column.

    Attributes:
        title: Its heading.
        right: Whether it is flush right.
        drop: Where the terminal is narrow, columns of the highest number go behind the right edge first; 0 stays.
        unit: Of its values as programs are given them.
        least: Width that it may shrink to before columns go there; 0 for one that is shown whole.
        stays: Whether it stays in sight, beside the first, where the others are scrolled sideways.
    """

    title: str
    right: bool = False
    drop: int = 0
    unit: str = ""
    least: int = 0
    stays: bool = False

    @property
    def exported(self) -> str:
        """Its heading in a file."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


class RowSource(Protocol):
    """Rows in the order shown; all indices are places in that order."""

    @property
    def columns(self) -> Sequence[ViewColumn]:
        """The columns."""

    def __len__(self) -> int: ...

    @property
    def total(self) -> int:
        """Rows without the filter."""

    def cells(self, row: int) -> list[tuple[str, str]]:
        """Text and shade of each cell."""

    def row(self, place: int) -> int:
        """Row of the data of a row shown."""

    def find(self, row: int) -> int:
        """Place of a row of the data among those shown; 0 when it is not."""

    def place(self, row: int) -> Place | None:
        """Where a row leads."""

    def values(self, row: int) -> list[Any]:
        """Value of each cell, for programs."""

    def sort(self, column: int, *, descending: bool) -> None:
        """Order by a column."""

    def filter(self, words: str) -> None:
        """Show only rows that all words fit.

        Raises:
            UsageError: A word is not understood.
        """

    def sorting(self, column: int, *, descending: bool) -> Callable[[], None]:
        """The work of `sort`, for another thread; what it gives is then called to show the order."""

    def filtering(self, words: str) -> Callable[[], None]:
        """The same for `filter`.

        Raises:
            UsageError: A word is not understood.
        """


Text = Callable[[Any], str]


@dataclass(frozen=True)
class ColumnData:
    """One column with its values.

    Attributes:
        column: How it is shown.
        values: One a row; numbers, text, or places in ``words``.
        text: How a value is written.
        words: For codes: what each means.
        shade: Colour of a value by name.
        blank: The number that means nothing is there.
        marked: Whether a change is marked when the target was read again.
        unit: Bytes of 1 of a size, of which -1 is one that is not known; 0 for other numbers.
    """

    column: ViewColumn
    values: AnyArray
    text: Text = str
    words: tuple[str, ...] = ()
    shade: Callable[[Any], str] | None = None
    blank: int | None = None
    marked: bool = True
    unit: int = 0

    @property
    def name(self) -> str:
        """What it is called in a filter."""
        return self.column.title.lower().replace(" ", "-")

    def written(self, row: int) -> str:
        """One value for people."""
        value = self.values[row].item()
        return self.words[value] if self.words else self.text(value)

    def value(self, row: int) -> Any:
        """One value for programs: numbers as they are, sizes in bytes, addresses in hex, None for nothing."""
        value = self.values[row].item()
        if self.words or isinstance(value, str):
            return self.written(row)
        if self.unit:
            return value * self.unit if value >= 0 else None
        if value == self.blank:
            return None
        text = self.text(value)
        return text if text.startswith("0x") else value

    def contains(self, word: str) -> Mask | None:
        """Which values have a word in them; None for a column of numbers."""
        if self.words:
            return np.array([word in w.lower() for w in self.words], np.bool_)[self.values]
        if self.values.dtype.kind != "U":
            return None
        return np.char.find(np.char.lower(self.values), word) >= 0


def number(  # noqa: PLR0913
    title: str,
    values: AnyArray,
    text: Text | None = None,
    *,
    drop: int = 0,
    blank: int | None = None,
    shade: Callable[[Any], str] | None = None,
    marked: bool = True,
) -> ColumnData:
    """A column of numbers, flush right; ``blank`` is the value that is left out."""
    write = text or (lambda n: f"{n:,}")
    return ColumnData(
        ViewColumn(title, True, drop), values, lambda n: "" if n == blank else write(n), (), shade, blank, marked
    )


def sizes(  # noqa: PLR0913
    title: str,
    values: AnyArray,
    unit: int,
    *,
    drop: int = 0,
    blank: int | None = None,
    shade: Callable[[Any], str] | None = None,
) -> ColumnData:
    """A column of sizes, each so many units of bytes; -1 is unknown, ``blank`` is left out on the screen."""

    def text(value: int) -> str:
        return "" if value == blank else "?" if value < 0 else short(value * unit)

    return ColumnData(ViewColumn(title, True, drop, "bytes"), values, text, (), shade, None, unit=unit)


def words(
    title: str,
    values: Sequence[str],
    *,
    drop: int = 0,
    shade: Callable[[Any], str] | None = None,
    least: int = 0,
    stays: bool = False,
) -> ColumnData:
    """A column of text; kept as places in the list of its different words, which is quick to sort and to search."""
    known, codes = np.unique(np.array(list(values) or [""], np.str_), return_inverse=True)
    column = ViewColumn(title, False, drop, least=least, stays=stays)
    if shade is None:
        return ColumnData(column, codes[: len(values)], str, tuple(known.tolist()))
    shades = [shade(word) for word in known.tolist()]
    return ColumnData(column, codes[: len(values)], str, tuple(known.tolist()), lambda code: shades[code])


def coded(title: str, codes: AnyArray, word: Callable[[int], str], *, drop: int = 0) -> ColumnData:
    """A column of few distinct values, each written once."""
    distinct, place = np.unique(codes, return_inverse=True)
    written = tuple(word(int(code)) for code in distinct.tolist())
    return ColumnData(ViewColumn(title, False, drop), place.astype(np.int32), str, written)


def short(nr_bytes: int) -> str:
    """A size in at most five columns: ``812K``, ``1.4G``."""
    if nr_bytes < 1 << 10:
        return str(nr_bytes) if nr_bytes else "0"
    value, unit = nr_bytes / 1024, "K"
    for bigger in "MGTPE":
        if value < 1000:
            break
        value, unit = value / 1024, bigger
    return f"{value:.1f}{unit}" if value < 9.95 and unit != "K" else f"{value:.0f}{unit}"


def bang(count: int) -> str:
    """A number of findings, marked as such."""
    return f"! {count}"


@dataclass
class Rows:
    """A table made of fields.

    Attributes:
        fields: Its columns.
        leads: Where a row leads, by its row in the columns.
        key: What makes a row the same when the target is read again: a value that no two rows share.
    """

    fields: Sequence[ColumnData]
    leads: Callable[[int], Place | None]
    key: AnyArray | None = None
    _changes: Changes | None = field(init=False, default=None)
    _order: I64 = field(init=False)
    _sorted: I64 = field(init=False)
    _mask: Mask | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._order = self._sorted = np.arange(self.total)

    @property
    def columns(self) -> Sequence[ViewColumn]:
        """The columns."""
        return [f.column for f in self.fields]

    def __len__(self) -> int:
        return len(self._order)

    @property
    def total(self) -> int:
        """Rows without the filter."""
        return len(self.fields[0].values)

    def row(self, place: int) -> int:
        """Row in the columns of a row shown."""
        return int(self._order[place])

    def find(self, row: int) -> int:
        """Place of a row of the columns among those shown; 0 when it is not."""
        at = np.flatnonzero(self._order == row)
        return int(at[0]) if len(at) else 0

    def cells(self, row: int) -> list[tuple[str, str]]:
        """Text and shade of each cell."""
        at, changes = self.row(row), self._changes
        cells = [(f.written(at), f.shade(f.values[at].item()) if f.shade else "") for f in self.fields]
        if changes is None:
            return cells
        return [(changes.mark(at, i, text), shade) for i, (text, shade) in enumerate(cells)]

    def mark_since(self, older: Rows) -> None:
        """Mark what became different since, in rows of the same kind."""
        if self.key is not None and older.key is not None:
            self._changes = compare((older.key, older.fields), (self.key, self.fields))

    def find_same(self, older: Rows, row: int) -> int:
        """Place of the row that another table of the same kind shows at ``row``; the same place when it is gone."""
        if self.key is None or older.key is None or row >= len(older):
            return row
        same = np.flatnonzero(self.key == older.key[older.row(row)])
        return self.find(int(same[0])) if len(same) else row

    def place(self, row: int) -> Place | None:
        """Where a row leads."""
        return self.leads(self.row(row))

    def values(self, row: int) -> list[Any]:
        """Value of each cell, for programs."""
        at = self.row(row)
        return [f.value(at) for f in self.fields]

    def sort(self, column: int, *, descending: bool) -> None:
        """Order by a column; equal ones keep their order."""
        self.sorting(column, descending=descending)()

    def filter(self, words: str) -> None:  # noqa: D102 - described in RowSource
        self.filtering(words)()

    def sorting(self, column: int, *, descending: bool) -> Callable[[], None]:
        """The work of `sort`, for another thread; what is not known comes last either way."""
        field = self.fields[column]
        values = field.values
        order = stable_order(values)
        if descending:
            order = len(values) - 1 - stable_order(values[::-1])[::-1]
        if field.unit or field.blank == -1:
            known = values[order] != -1
            order = np.concatenate([order[known], order[~known]])
        return self._shown(order, self._mask)

    def filtering(self, words: str) -> Callable[[], None]:  # noqa: D102 - described in RowSource
        return self._shown(self._sorted, filter_mask(self.fields, words) if words.strip() else None)

    def _shown(self, order: I64, mask: Mask | None) -> Callable[[], None]:
        shown = order if mask is None else order[mask[order]]

        def show() -> None:
            self._sorted, self._mask, self._order = order, mask, shown

        return show
