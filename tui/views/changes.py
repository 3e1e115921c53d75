"""What became different in a table when a kernel that runs on was read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inspector.columns import AnyArray, Mask

if TYPE_CHECKING:
    from tui.views.rows import ColumnData

SAME, MORE, LESS, OTHER = 0, 1, 2, 3
MARKS = ("", "↑", "↓", "~")
"""The mark after a value, by how it changed."""
NEW = "+"
"""The mark before a row that was not there."""


@dataclass(frozen=True)
class Changes:
    """What became different.

    Attributes:
        new: bool[n]; rows that were not there before.
        cells: For each column uint8[n] of `SAME`, `MORE`, `LESS` or `OTHER`; None where changes are not marked.
    """

    new: Mask
    cells: Sequence[npt.NDArray[np.uint8] | None]

    def mark(self, row: int, column: int, text: str) -> str:
        """A cell's text with its mark; columns that are empty now are marked all the same."""
        codes = self.cells[column]
        marked = text if codes is None else text + MARKS[int(codes[row])]
        return NEW + marked if column == 0 and self.new[row] else marked


def compare(old: tuple[AnyArray, Sequence[ColumnData]], new: tuple[AnyArray, Sequence[ColumnData]]) -> Changes:
    """Compare a table with the same one before.

    Args:
        old: What makes a row the same (a value that no two rows share), and the columns.
        new: The same of the newer one.
    """
    (old_key, old_fields), (key, fields) = old, new
    order = np.argsort(old_key, kind="stable")
    at = np.searchsorted(old_key[order], key)
    at = np.minimum(at, max(len(order) - 1, 0))
    if not len(order):
        return Changes(np.ones(len(key), np.bool_), [None] * len(fields))
    was = order[at]
    known = old_key[was] == key
    before = {f.column.title: f for f in old_fields}
    return Changes(~known, [_changed(before.get(f.column.title), f, was, known) for f in fields])


def _changed(old: ColumnData | None, new: ColumnData, was: AnyArray, known: Mask) -> npt.NDArray[np.uint8] | None:
    if old is None or not new.marked:
        return None
    out = np.zeros(len(known), np.uint8)
    if new.words or new.values.dtype.kind == "U":
        out[known & (_texts(old)[was] != _texts(new))] = OTHER
        return out
    then = old.values[was]
    out[known & (new.values > then)] = MORE
    out[known & (new.values < then)] = LESS
    return out


def _texts(field: ColumnData) -> AnyArray:
    return np.array(field.words, np.str_)[field.values] if field.words else field.values
