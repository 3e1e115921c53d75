"""stdout: text or JSON, bytes always the same whether a terminal, a file or a pipe receives them (but for colour)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING

from inspector.cli.diagnostics import BrokenOutput, OutputError

if TYPE_CHECKING:
    from inspector.report.screen import Screen


PAGER_VARIABLE = "FOLIOSCOPE_PAGER"
"""Environment variable with the pager; it goes before PAGER, and no words are none."""


class Output:
    """Writes to stdout as UTF-8, whatever the locale.

    Args:
        color: When colour is wanted: auto, always or never.
        pager: Whether long text on a terminal may go through a pager.
    """

    def __init__(self, color: str = "auto", *, pager: bool = True) -> None:
        self._color, self._may_page = color, pager

    @property
    def screen(self) -> Screen:
        """What the text goes to."""
        from inspector.report.screen import Screen  # noqa: PLC0415  (not needed for JSON or help)

        if not _is_terminal(sys.stdout):
            return Screen(color=self._color == "always")
        import shutil  # noqa: PLC0415  (with every packer that Python knows; not needed for files and pipes)

        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        color = self._color == "always" or (self._color == "auto" and not plain)
        return Screen(color=color, width=shutil.get_terminal_size().columns)

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

    def paged(self, lines: Iterable[str]) -> None:
        """Write lines of text, through a pager where they are more than a terminal shows."""
        pager = _pager() if self._may_page else []
        if not pager:
            self.lines(lines)
            return
        import shutil  # noqa: PLC0415

        screen, rows = self.screen, shutil.get_terminal_size().lines
        folded = (part for line in lines for part in screen.fold(line))
        first = list(islice(folded, rows))
        if len(first) < rows:
            self.lines(first)
            return
        self.flush()
        _show_in(pager, chain(first, folded))

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


def _pager() -> list[str]:
    """The words of the pager to use; none where none is wanted, or no terminal is there."""
    if not (_is_terminal(sys.stdout) and _is_terminal(sys.stdin)) or os.environ.get("TERM", "dumb") == "dumb":
        return []
    import shlex  # noqa: PLC0415  (for terminals only)
    import shutil  # noqa: PLC0415

    words = shlex.split(os.environ.get(PAGER_VARIABLE, os.environ.get("PAGER", "less")))
    return words if words and words[0] != "cat" and shutil.which(words[0]) else []


def _show_in(pager: list[str], lines: Iterable[str]) -> None:
    """Give lines to a pager and wait until its user has seen enough."""
    import subprocess  # noqa: PLC0415  (for terminals only)

    # As git has it: colours pass, the text stays on the terminal.
    environment = {"LESS": "FRX", "LV": "-c", **os.environ}
    with subprocess.Popen(pager, stdin=subprocess.PIPE, env=environment) as shown:
        assert shown.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            for line in lines:
                shown.stdin.write(line.encode("utf-8", "backslashreplace") + b"\n")
        with contextlib.suppress(BrokenPipeError):
            shown.stdin.close()
        while True:
            # Ctrl+C is the pager's business.
            try:
                shown.wait()
                return
            except KeyboardInterrupt:
                continue


def silence() -> None:
    """Point stdout nowhere, so that the interpreter does not complain when it flushes at exit."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # any stream, or None when it is closed
    except (AttributeError, ValueError):
        return False
