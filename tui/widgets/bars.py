"""Bars: how much of memory is of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from inspector.text import cell_width, size
from tui.widgets.palette import shade_style


class BarLike(Protocol):
    """One bar."""

    @property
    def label(self) -> str:
        """What."""

    @property
    def shade(self) -> str:
        """Its colour by name."""

    @property
    def pages(self) -> int:
        """How many pages."""

    @property
    def share(self) -> float:
        """Of all, 0 to 1."""


class BarChart(Widget, can_focus=True):
    """A line a bar: name, bar, amount, share; arrows move, Enter or a click sends which."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("enter", "choose", "Open"),
    ]

    cursor: reactive[int] = reactive(0)

    class Chosen(Message):
        """A bar was clicked."""

        def __init__(self, chart: BarChart, label: str) -> None:
            self.chart, self.label = chart, label
            super().__init__()

        @property
        def control(self) -> BarChart:
            """Who says so."""
            return self.chart

    class AtEdge(Message):
        """The cursor was to go beyond the first bar (-1) or the last (1)."""

        def __init__(self, step: int) -> None:
            self.step = step
            super().__init__()

    _bars: Sequence[BarLike] = ()

    def show(self, bars: Sequence[BarLike], page_size: int) -> None:
        """Show bars."""
        self._bars, self._page = bars, page_size
        self.cursor = min(self.cursor, max(len(bars) - 1, 0))
        self.styles.height = max(len(bars), 1)
        self.refresh(layout=True)

    def render_line(self, y: int) -> Strip:
        """One bar."""
        width = self.size.width
        ground = self.background_colors[1].hex6
        dark = self.app.current_theme.dark
        plain, quiet = shade_style("", ground, dark=dark), shade_style("free", ground, dark=dark)
        if y >= len(self._bars):
            return Strip.blank(width, plain)
        one = self._bars[y]
        names = max(cell_width(b.label) for b in self._bars)
        room = max(width - names - 21, 4)
        longest = max(b.share for b in self._bars) or 1
        filled = one.share / longest * room
        full, eighth = int(filled), int(filled * 8) % 8
        drawn = "█" * full + (" ▏▎▍▌▋▊▉"[eighth] if eighth and full < room else "")
        drawn = drawn or "▏"
        share = f"{one.share * 100:.1f}%" if one.share >= 0.001 else "<0.1%"
        here = self.has_focus and y == self.cursor
        if here:
            plain, quiet = plain + Style(bold=True, reverse=True), quiet + Style(bold=True)
        ink = Style(color=shade_style(one.shade, ground, dark=dark).color, bgcolor=plain.bgcolor)
        return Strip(
            [
                Segment(one.label.ljust(names), plain),
                Segment("  ", quiet),
                Segment(drawn.ljust(room), quiet if one.shade == "free" else ink),
                Segment(f"{size(one.pages * self._page):>11}", plain),
                Segment(f"{share:>7} ", quiet),
            ]
        ).adjust_cell_length(width, plain)

    def on_focus(self) -> None:
        """The cursor appears."""
        self.refresh()

    def on_blur(self) -> None:
        """The cursor goes away."""
        self.refresh()

    def action_move(self, bars: int) -> None:
        """To another bar."""
        before, self.cursor = self.cursor, max(0, min(self.cursor + bars, len(self._bars) - 1))
        if self.cursor == before:
            self.post_message(self.AtEdge(bars))

    def action_choose(self) -> None:
        """Send the bar under the cursor."""
        if self._bars:
            self.post_message(self.Chosen(self, self._bars[self.cursor].label))

    def on_click(self, event: events.Click) -> None:
        """Send which bar."""
        where = event.get_content_offset(self)
        if where is not None and where.y < len(self._bars):
            self.post_message(self.Chosen(self, self._bars[where.y].label))
