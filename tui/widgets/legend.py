"""Legends and switches: each glyph in its colour beside what it means; views to choose from, by key or mouse."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from inspector.text import cell_width
from tui.widgets.palette import shade_style


class Legend(Static):
    """A legend in the colours of the theme, whichever it becomes."""

    _entries: tuple[tuple[str, str, str], ...] = ()

    def on_mount(self) -> None:
        """Follow the theme."""
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.show(self._entries))

    def show(self, entries: Iterable[tuple[str, str, str]]) -> None:
        """Show glyph, shade and meaning of some cells."""
        self._entries = tuple(entries)
        self.update(legend_text(self, self._entries))


def legend_text(widget: Widget, entries: Iterable[tuple[str, str, str]]) -> Text:
    """Glyph, shade and meaning of some cells, none of them torn at the end of a line."""
    ground, dark = widget.background_colors[1].hex6, widget.app.current_theme.dark
    room = max(20, widget.app.size.width - 3)
    text, used = Text(), 0
    for glyph, shade, meaning in entries:
        width = cell_width(glyph) + 1 + cell_width(meaning)
        if used and used + 2 + width > room:
            text.append("\n")
            used = 0
        elif used:
            text.append("  ")
            used += 2
        text.append(glyph, shade_style(shade, ground, dark=dark))
        text.append(f" {meaning}")
        used += width
    return text


def switch(views: Iterable[tuple[str, str]], here: str, rest: str = "") -> Content:
    """Views in a row, the one that is shown set off; a click shows another (``action_view`` of the screen).

    Args:
        views: Name and title of each.
        here: Name of the one shown.
        rest: What else the line shows.
    """
    parts: list[Content] = []
    for name, title in views:
        style = "bold reverse" if name == here else f"$text-muted @click=screen.view('{name}')"
        parts += [Content.styled(f" {title} ", style), Content(" ")]
    return Content.assemble(Content.styled("v ", "$accent"), *parts, Content.styled(rest, "$text-muted"))
