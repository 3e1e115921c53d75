"""stdout: text or JSON, bytes always the same whether a terminal, a file or a pipe receives them (but for colour)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from inspector.cli.diagnostics import BrokenOutput, OutputError

if TYPE_CHECKING:
    from inspector.report.screen import Screen


class Output:
    """Writes to stdout as UTF-8, whatever the locale.

    Args:
        no_color: Whether colour was refused on the command line.
    """

    def __init__(self, *, no_color: bool = False) -> None:
        self._no_color = no_color

    @property
    def screen(self) -> Screen:
        """What the text goes to."""
        from inspector.report.screen import Screen  # noqa: PLC0415  (not needed for JSON or help)

        if not _is_terminal(sys.stdout):
            return Screen()
        import shutil  # noqa: PLC0415  (with every packer that Python knows; not needed for files and pipes)

        plain = self._no_color or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return Screen(color=not plain, width=shutil.get_terminal_size().columns)

    def lines(self, lines: Iterable[str]) -> None:
        """Write lines of text."""
        batch: list[str] = []
        terminal = self.screen if _is_terminal(sys.stdout) else None
        for line in lines:
            batch.extend([line] if terminal is None else terminal.fold(line))
            if len(batch) >= 512:
                self._write("\n".join(batch) + "\n")
                batch.clear()
        if batch:
            self._write("\n".join(batch) + "\n")

    def json(self, value: object) -> None:
        """Write one object as one line of JSON."""
        from inspector.hex_json import encode_json  # noqa: PLC0415  (msgspec, not needed for text)

        self._write(encode_json(value).decode() + "\n")

    def flush(self) -> None:
        """Make sure that what was written has arrived."""
        if sys.stdout is not None:
            self._guard(sys.stdout.flush)

    def _write(self, text: str) -> None:
        if sys.stdout is None:
            raise OutputError("the output cannot be written", "stdout is closed", "")
        data = text.encode("utf-8", "backslashreplace")
        buffer = getattr(sys.stdout, "buffer", None)
        if buffer is None:
            self._guard(lambda: sys.stdout.write(data.decode()))
        else:
            self._guard(lambda: buffer.write(data))

    @staticmethod
    def _guard(write: object) -> None:
        try:
            write()  # type: ignore[operator]  # a callable without arguments
        except BrokenPipeError:
            silence()
            raise BrokenOutput from None
        except OSError as error:
            silence()
            raise OutputError("the output cannot be written", error.strerror or str(error), "") from None


def silence() -> None:
    """Point stdout nowhere, so that the interpreter does not complain when it flushes at exit."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # any stream, or None when it is closed
    except (AttributeError, ValueError):
        return False
