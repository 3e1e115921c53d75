"""Every exception a user can meet, with its exit code and what to do about it."""

from __future__ import annotations

import errno
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command; documented in the README and in ``folioscope --help``."""

    CLEAN = 0
    """Everything asked for was checked and is consistent."""
    FINDINGS = 1
    """At least one finding graded ``fail`` or ``warn``."""
    USAGE = 2
    """The command line cannot be understood, or names something that does not exist."""
    TARGET = 3
    """The target cannot be opened or read."""
    INCOMPLETE = 4
    """Checked and nothing found, but data was missing: not the same as clean."""


class FolioscopeError(Exception):
    """A failure to be shown to the user as one line.

    Args:
        what: What went wrong, in a few words, without a full stop.
        where: The path, address or word it went wrong at.
        todo: What the user can do about it, one sentence.
    """

    exit_code: Exit = Exit.TARGET

    def __init__(self, what: str, where: str = "", todo: str = "") -> None:
        super().__init__(what, where, todo)
        self.what = what
        self.where = where
        self.todo = todo

    def __str__(self) -> str:
        at = f": {self.where}" if self.where else ""
        todo = f". {self.todo}" if self.todo else ""
        return f"{self.what}{at}{todo}"


class TargetError(FolioscopeError):
    """The target cannot be opened, identified or read."""

    exit_code = Exit.TARGET


class LayoutError(TargetError):
    """The kernel lacks a type, member or symbol that the asked-for work cannot do without."""


class IncompleteError(FolioscopeError):
    """What the user named is not in the dump, or may be among what is not."""

    exit_code = Exit.INCOMPLETE


class UsageError(FolioscopeError):
    """The user named something that does not exist or cannot be understood."""

    exit_code = Exit.USAGE


def known_error(error: Exception) -> FolioscopeError:
    """Any exception as one that can be shown: what, where, what to do."""
    if isinstance(error, FolioscopeError):
        return error
    if isinstance(error, MemoryError):
        return TargetError("there is not enough memory for this target", "", "Give the process more")
    if type(error).__module__ == "_drgn" and type(error).__name__ == "FaultError":
        return TargetError(f"the target cannot be read ({_first_line(error)})", "", "It may be damaged")
    if isinstance(error, OSError) and error.errno != errno.EPIPE:
        return TargetError(error.strerror or _first_line(error), str(error.filename or ""), "")
    what = f"unexpected {type(error).__name__}: {_first_line(error)}"
    return TargetError(what, "", "Please report this; --log-level debug shows where it happened")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no message"])[0]
