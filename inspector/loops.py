"""The loops that NumPy alone is slow at, compiled where the install had a compiler, and in NumPy elsewhere.

Both ways give the same, row for row; ``FOLIOSCOPE_COMPILED=no`` in the environment takes NumPy.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Protocol

import numpy as np

from inspector.columns import I32, I64, U64


def _load() -> ModuleType | None:
    if os.environ.get("FOLIOSCOPE_COMPILED", "") in ("no", "0"):
        return None
    try:
        from inspector import _loops  # noqa: PLC0415  (the extension may not be there)
    except ImportError:
        return None
    return _loops


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
