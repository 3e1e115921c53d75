"""The filter line: words and comparisons, understood as a whole or not at all."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from inspector.errors import UsageError

if TYPE_CHECKING:
    from inspector.columns import AnyArray, Mask

SYNTAX = "anon order>=4, size>2M, comm=init, !partial, one or other"
"""What can be typed, by example."""

PAGE = 4096
"""Bytes of a page, for sizes given in pages."""

_COMPARE: dict[str, Callable[[AnyArray, float], Mask]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_OPERATOR = re.compile(r"(>=|<=|!=|==|=|>|<)")
_TOKEN = re.compile(r'(?:"[^"]*"?|[^\s"])+')
_VALUE = re.compile(r"(-?(?:0x[0-9a-f]+|[\d,_]+(?:\.\d+)?))([a-z]*)")
_UNITS = {unit + end: 1024**n for n, unit in enumerate("kmgt", 1) for end in ("", "b", "ib")}
_UNITS |= {"b": 1, "bytes": 1, "p": PAGE, "page": PAGE, "pages": PAGE}
_FEW = 12
"""So many different words of a column are listed when none is the one asked for."""


class Searched(Protocol):
    """What a filter asks of a column; see `tui.views.rows.ColumnData`."""

    @property
    def values(self) -> AnyArray:
        """One a row."""

    @property
    def words(self) -> tuple[str, ...]:
        """For codes: what each means."""

    @property
    def unit(self) -> int:
        """Bytes of 1 of a size; 0 for other numbers."""

    @property
    def name(self) -> str:
        """What it is called in a filter."""

    def contains(self, word: str) -> Mask | None:
        """Which values have a word in them; None for a column of numbers."""


def filter_mask(fields: Sequence[Searched], text: str) -> Mask:
    """Rows that fit: all words of one of the alternatives.

    A word is in some column of text; ``order>=4`` compares a column; ``!`` before either turns it round; ``or`` parts
    alternatives. A size is in bytes, or in K, M, G, T or pages.

    Raises:
        UsageError: Something is not understood.
    """
    keep: Mask | None = None
    for alternative in _alternatives(text):
        fits = np.ones(len(fields[0].values), np.bool_)
        for word in alternative:
            fits &= _term(fields, word)
        keep = fits if keep is None else keep | fits
    return np.ones(len(fields[0].values), np.bool_) if keep is None else keep


def _alternatives(text: str) -> Iterator[list[str]]:
    tight = re.sub(r"\s*(>=|<=|!=|==|=|>|<)\s*", r"\1", text.lower())
    tokens = [t for t in _TOKEN.findall(re.sub(r"(^|\s)(!|not\s)\s*", r"\1!", tight)) if t not in ("and", "&")]
    words: list[str] = []
    for token in tokens:
        if token in ("or", "|"):
            if not words:
                raise UsageError("this needs something on both sides", token, "")
            yield words
            words = []
        else:
            words.append(token)
    if tokens and not words:
        raise UsageError("this needs something on both sides", tokens[-1], "")
    if words:
        yield words


def _term(fields: Sequence[Searched], word: str) -> Mask:
    if word.startswith("!") and not word.startswith("!="):
        if word == "!":
            raise UsageError("this needs a word or a comparison after it", "!", "")
        return ~_term(fields, word[1:])
    parts = _OPERATOR.split(word, maxsplit=1)
    if len(parts) == 1:
        return _any_text(fields, word.replace('"', ""))
    name, compare, value = parts[0].replace('"', ""), parts[1].replace("==", "="), parts[2].replace('"', "")
    column = next((f for f in fields if f.name and f.name == name), None)
    if column is None:
        raise UsageError("there is no such column", name or word, f"There are {', '.join(names(fields))}")
    if not value:
        raise UsageError("this needs a value to compare with", word, "")
    if not column.words and column.values.dtype.kind in "iufb":
        return _numbers(column, compare, value)
    return _text(column, compare, value)


def names(fields: Sequence[Searched]) -> list[str]:
    """What the columns are called."""
    return [f.name for f in fields if f.name]


def _any_text(fields: Sequence[Searched], word: str) -> Mask:
    fits = np.zeros(len(fields[0].values), np.bool_)
    for one in fields:
        found = one.contains(word)
        if found is not None:
            fits |= found
    return fits


def _numbers(column: Searched, compare: str, text: str) -> Mask:
    found = _VALUE.fullmatch(text)
    if found is None:
        raise UsageError("this is no number", text, "Give decimal, or hex that begins with 0x")
    digits, unit = found[1].replace(",", "").replace("_", ""), found[2]
    if unit and unit not in _UNITS:
        raise UsageError("there is no such unit", unit, "There are K, M, G, T and pages")
    if unit and not column.unit:
        raise UsageError("this column is no size", column.name, f"Compare it with a number without {unit}")
    try:
        value: float = float(digits) if "." in digits else int(digits, 0 if "x" in digits else 10)
    except ValueError:
        raise UsageError("this is no number", text, "Give decimal, or hex that begins with 0x") from None
    if not column.unit:
        return _COMPARE[compare](column.values, value)
    # Sizes that are unknown are -1, and fit nothing.
    wanted = value * _UNITS.get(unit, 1) / column.unit
    return _COMPARE[compare](column.values, wanted) & (column.values >= 0)


def _text(column: Searched, compare: str, value: str) -> Mask:
    known = [word.lower() for word in column.words]
    if compare not in ("=", "!="):
        raise UsageError("this column holds words", column.name, f"Use {column.name}= or {column.name}!=")
    if column.words and value not in known and len(known) <= _FEW:
        some = ", ".join(word for word in column.words if word)
        raise UsageError("no row has that", f"{column.name}{compare}{value}", f"There is {some}" if some else "")
    if column.words:
        same = np.array([word == value for word in known], np.bool_)[column.values]
    else:
        same = np.char.lower(column.values) == value
    return same if compare == "=" else ~same


def completed(fields: Sequence[Searched], text: str) -> str | None:
    """The text with the column's name that its last word begins; None where there is none, or more is needed."""
    head, last = re.fullmatch(r"(.*?)(\S*)", text, re.DOTALL).groups()  # type: ignore[union-attr]  # fits anything
    mark = "!" if last.startswith("!") else ""
    start = last.removeprefix("!").lower()
    if not start:
        return None
    found = [name for name in names(fields) if name.startswith(start) and name != start]
    return f"{head}{mark}{found[0]}" if found else None
