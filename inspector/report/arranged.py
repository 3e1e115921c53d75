"""Lists of reports in another order, or the first of them: the same for text and JSON."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from inspector.errors import UsageError

R = TypeVar("R", bound=msgspec.Struct)

_UNIT = "_kb"


def arranged(report: R, member: str, by: str | None, limit: int | None) -> tuple[R, int]:
    """A report with one of its lists sorted and cut.

    Args:
        report: It.
        member: Name of the list.
        by: Member of its rows to sort by, numbers with the most first and text from A on; ``-`` before it turns the
            order round. None leaves the order.
        limit: How many rows to keep; None or 0 for all.

    Returns:
        The report, and how many rows the list had.

    Raises:
        UsageError: Rows have no such member, or it is no number and no text.
    """
    rows: list[Any] = getattr(report, member)
    total = len(rows)
    if by is not None:
        rows = _in_order(report, member, rows, by)
    if limit:
        rows = rows[:limit]
    return msgspec.structs.replace(report, **{member: rows}), total


def _in_order(report: msgspec.Struct, member: str, rows: list[Any], by: str) -> list[Any]:
    turned, name = by.startswith("-"), by.lstrip("-").replace("-", "_").lower()
    declared = next(f.type for f in msgspec.structs.fields(report) if f.name == member)
    known = [f.name for f in msgspec.structs.fields(declared.__args__[0])]
    name = name if name in known else name + _UNIT
    if name not in known:
        listed = ", ".join(one.removesuffix(_UNIT) for one in known)
        raise UsageError("rows have no such column", by, f"There are {listed}")
    found = [(row, getattr(row, name)) for row in rows]
    there = [(row, value) for row, value in found if value is not None]
    absent = [row for row, value in found if value is None]
    if all(isinstance(value, str) for _, value in there):
        there.sort(key=lambda pair: pair[1], reverse=turned)
    elif all(isinstance(value, (int, float)) for _, value in there):
        there.sort(key=lambda pair: pair[1], reverse=not turned)
    else:
        raise UsageError("rows cannot be sorted by this", by, "Give a column of numbers or of text")
    return [row for row, _ in there] + absent
