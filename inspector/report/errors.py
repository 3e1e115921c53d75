"""An error as an object, for programs that read JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

from inspector.errors import FolioscopeError
from inspector.text import clean

ERROR_SCHEMA: Literal["folioscope.error/1"] = "folioscope.error/1"


class ErrorReport(msgspec.Struct, frozen=True):
    """What is printed in place of a report when there can be none."""

    schema: Literal["folioscope.error/1"]
    target: str
    """The path or address that was to be opened; empty when it did not come to that."""
    error: str
    """What went wrong."""
    where: str
    todo: str
    """What can be done about it."""
    exit_code: int


def error_report(error: FolioscopeError, target: str) -> ErrorReport:
    """The object for an error."""
    return ErrorReport(
        ERROR_SCHEMA, clean(target), clean(error.what), clean(error.where), clean(error.todo), int(error.exit_code)
    )
