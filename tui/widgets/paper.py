"""Text of a report on a screen: the same lines as on the command line, wrapped anew for every width."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from inspector.report.screen import Screen as Paper

Writer = Callable[[Paper], Iterable[str]]
"""Writes a report on a page of some width."""

_NARROWEST = 40


class PaperView(VerticalScroll, can_focus=True):
    """The text, scrolled with the arrows."""

    _writer: Writer | None = None
    _width = 0

    def compose(self) -> ComposeResult:
        """One long text."""
        yield Static()

    def show(self, writer: Writer) -> None:
        """Show another text."""
        self._writer, self._width = writer, 0
        self._write()

    def on_resize(self) -> None:
        """Wrap it anew."""
        self._write()

    def _write(self) -> None:
        # A column is left for the scroll bar, so that its coming and going changes nothing.
        width = max(_NARROWEST, self.scrollable_content_region.width + (0 if self.show_vertical_scrollbar else -1))
        if self._writer is None or width == self._width:
            return
        self._width = width
        self.query_one(Static).update(Text.from_ansi("\n".join(self._writer(Paper(color=True, width=width)))))
