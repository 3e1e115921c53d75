"""Rows about dumps that could not be checked."""

from __future__ import annotations

from typing import Any

import inspector
from inspector.errors import Exit
from inspector.fleet.job import DumpFailure, DumpTables
from inspector.fleet.schema import DUMPS, columns_of


def failed_dump(dump: str, size: int | None, failure: DumpFailure, known: dict[str, Any] | None = None) -> DumpTables:
    """The row of a dump that was not checked.

    Args:
        dump: Its identity.
        size: Of the file in bytes; None of one that cannot be read.
        failure: Why.
        known: What else is known.
    """
    row = {
        "checked_by": inspector.__version__,
        "file_bytes": size,
        **(known or {}),
        "dump": dump,
        "state": "unreadable" if size is None else "failed",
        "exit_code": int(Exit.TARGET),
        "error": failure.kind,
        "error_text": failure.text,
        "notes": [],
    }
    return {DUMPS.name: columns_of(DUMPS, [row])}
