"""`numpy.where` as NumPy 2.5 has it: a number that the type of the other choice cannot hold is an error.

Earlier versions widen the type, so that -1 beside a column of bytes goes unnoticed on the Pythons for which there is no
later NumPy.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

_where = np.where
_STRICT = ("inspector", "tui", "scripts", "tests")


def strict_where(condition: Any, *choices: Any) -> Any:
    """`numpy.where`.

    Raises:
        OverflowError: A number does not fit, in code of this project.
    """
    if sys._getframe(1).f_globals.get("__name__", "").partition(".")[0] in _STRICT:
        for number, column in (choices, choices[::-1]) if choices else ():
            if type(number) is int and isinstance(column, np.ndarray | np.generic) and column.dtype.kind in "iu":
                bounds = np.iinfo(column.dtype)
                if not bounds.min <= number <= bounds.max:
                    msg = f"Python integer {number} out of bounds for {column.dtype}"
                    raise OverflowError(msg)
    return _where(condition, *choices)


def register() -> None:
    """Put it in the place of NumPy's."""
    vars(np)["where"] = strict_where
