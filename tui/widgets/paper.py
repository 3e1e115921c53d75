"""Text of a report on a screen: the same lines as on the command line, wrapped anew for every width."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Region
from textual.message import Message
from textual.widgets import Static

from inspector.report.screen import Screen as Paper
from tui.places import Place
from tui.views.links import TextLink

Writer = Callable[[Paper], Iterable[str]]
"""Writes a report on a page of some width."""

_NARROWEST = 40


Linker = Callable[[str], Sequence[TextLink]]
"""Finds the links of a text."""

_LINK, _CHOSEN = Style(underline=True), Style(reverse=True, bold=True)


class PaperView(VerticalScroll, can_focus=True):
    """The text, scrolled with the arrows up and down; right and left choose one of its links, Enter goes there."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll_down", "Down", show=False),
        Binding("up,k", "scroll_up", "Up", show=False),
        Binding("right", "link(1)", "Link", key_display="→"),
        Binding("left", "link(-1)", "Link before", show=False),
        Binding("enter", "follow", "Open"),
    ]

    class Followed(Message):
        """A link was chosen."""

        def __init__(self, place: Place) -> None:
            self.place = place
            super().__init__()

    _writer: Writer | None = None
    _linker: Linker | None = None
    _width = 0
    _text = Text()
    _links: Sequence[TextLink] = ()
    _at = -1

    def compose(self) -> ComposeResult:
        """One long text."""
        yield Static()

    def show(self, writer: Writer, linker: Linker | None = None) -> None:
        """Show another text."""
        self._writer, self._linker, self._width = writer, linker, 0
        self._write()

    def on_resize(self) -> None:
        """Wrap it anew."""
        self._write()

    def _write(self) -> None:
        # A column is left for the scroll bar, so that its coming and going changes nothing.
        width = max(_NARROWEST, self.scrollable_content_region.width + (0 if self.show_vertical_scrollbar else -1))
        if self._writer is None or width == self._width or not self.size.width:
            # Before it is laid out it has no width; what is written then would be written again at once.
            return
        self._width = width
        self._text = Text.from_ansi("\n".join(self._writer(Paper(color=True, width=width))))
        self._links = self._linker(self._text.plain) if self._linker is not None else ()
        self._at = min(self._at, len(self._links) - 1)
        self._paint()
        self.refresh_bindings()

    def _paint(self) -> None:
        text = self._text.copy()
        for at, link in enumerate(self._links):
            text.stylize(_CHOSEN if at == self._at else _LINK, link.start, link.end)
        self.query_one(Static).update(text)

    @property
    def chosen(self) -> Place | None:
        """Where the chosen link leads."""
        return self._links[self._at].place if self._at >= 0 else None

    def _line(self, link: TextLink) -> int:
        return self._text.plain.count("\n", 0, link.start)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Links are offered where there are some."""
        return (action != "link" or bool(self._links)) and (action != "follow" or self._at >= 0)

    def action_link(self, step: int) -> None:
        """To the next link: the first in sight, when none is chosen."""
        if self._at < 0:
            top = self.scroll_offset.y
            inside = [at for at, link in enumerate(self._links) if self._line(link) >= top]
            self._at = (inside[0] if inside else 0) if step > 0 else len(self._links) - 1
        else:
            self._at = (self._at + step) % len(self._links)
        self._paint()
        region = Region(0, self._line(self._links[self._at]), 1, 1)
        self.scroll_to_region(region, animate=False, force=True, x_axis=False)
        self.refresh_bindings()

    def action_follow(self) -> None:
        """Go where the chosen link leads."""
        self.post_message(self.Followed(self._links[self._at].place))

    def on_click(self, event: events.Click) -> None:
        """A click on a link goes there."""
        where = event.get_content_offset(self.query_one(Static)) if event.widget is not None else None
        if where is None:
            return
        lines = self._text.plain.split("\n")
        if where.y >= len(lines):
            return
        at = sum(len(line) + 1 for line in lines[: where.y]) + where.x
        for link in self._links:
            if link.start <= at < link.end and where.x < len(lines[where.y]):
                self.post_message(self.Followed(link.place))
