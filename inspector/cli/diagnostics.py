"""What goes to stderr: one line an error, notes; and the exit code that goes with each."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

import click

from inspector.errors import Exit, FolioscopeError, UsageError, known_error
from inspector.text import clean

if TYPE_CHECKING:
    from inspector.cli.params import Settings

INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""

BROKEN_PIPE = 141
"""128 + SIGPIPE, as shells say it."""


class BrokenOutput(Exception):  # noqa: N818  (not an error of ours)
    """The reader of stdout is gone; the program ends silently."""


def say(line: str) -> None:
    """Write one line to stderr; control characters never pass."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(clean(line) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # stderr is closed: there is no reader


def report_error(error: Exception, settings: Settings) -> int:
    """Report an exception to the user in one line.

    With ``--log-level debug`` the traceback follows. With ``--format json`` the same goes to stdout as an object.

    Returns:
        The exit code.
    """
    known = as_known(error)
    say(f"folioscope: error: {one_line(known)}")
    if settings.log_level == "debug":
        for line in "".join(traceback.format_exception(error)).splitlines():
            say(line)
    if settings.format == "json" and not isinstance(error, OutputError):
        from inspector.report.errors import error_report  # noqa: PLC0415  (msgspec, only here)

        try:
            settings.output.json(error_report(known, settings.target_name))
            settings.output.flush()
        except (BrokenOutput, OutputError):
            pass
    return int(known.exit_code)


class OutputError(FolioscopeError):
    """stdout cannot be written."""

    exit_code = Exit.TARGET


def as_known(error: Exception) -> FolioscopeError:
    """Any exception as one that can be shown: what, where, what to do."""
    return _usage(error) if isinstance(error, click.ClickException) else known_error(error)


def one_line(error: FolioscopeError) -> str:
    """An error as ``what: where. what to do.``."""
    text = clean(str(error))
    return text if text.endswith((".", "?", "!")) else text + "."


def _usage(error: click.ClickException) -> UsageError:
    """Click's own complaints in our form."""
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "folioscope"
    if isinstance(error, click.NoSuchOption):
        near = list(error.possibilities or ())[:1]
        todo = f"Did you mean {near[0]}?" if near else f"See {command} --help"
        return UsageError("there is no such option", error.option_name, todo)
    words = error.format_message().rstrip(".")
    return UsageError(words[:1].lower() + words[1:], "", f"See {command} --help")
