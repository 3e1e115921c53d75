"""Names with values under one another, wrapped to the width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget
from textual.widgets import Static

from inspector.text import cell_width


class Facts(Static):
    """Names in quiet ink, values beside them; long values are wrapped under themselves."""

    _facts: Sequence[tuple[str, str]] = ()

    def show(self, facts: Sequence[tuple[str, str]]) -> None:
        """Show names and values."""
        self._facts = facts
        self._lay_out()

    def on_resize(self) -> None:
        """Wrap for the new width."""
        self._lay_out()

    def _lay_out(self) -> None:
        width = max((cell_width(name) for name, _ in self._facts), default=0)
        room = max((self.content_size.width or 80) - width - 2, 10)
        parts: list[Content] = []
        for name, value in self._facts:
            lines = wrapped(value, room)
            head = Content.styled(name + " " * (width + 2 - cell_width(name)), "$quiet")
            parts += [Content.assemble(head, Content(lines[0]))]
            parts += [Content(" " * (width + 2) + line) for line in lines[1:]]
        self.update(Content("\n").join(parts))


class Phrases(Widget):
    """Things in a row, two blanks between them; a line ends between two of them, never within one that fits.

    The style of the first is that of the line. Lines are broken as the width is known: a height that was right for
    another width would stay.
    """

    DEFAULT_CSS = "Phrases { height: auto; }"

    _phrases: Sequence[str | Text] = ()

    def show(self, *pieces: str | Text) -> None:
        """Show them, those that are not empty; a line break begins those of the next line."""
        self._phrases = [piece for piece in pieces if piece]
        self.refresh(layout=True)

    def show_lines(self, lines: Sequence[str]) -> None:
        """Show lines of pieces."""
        given = [piece for line in lines for piece in ("\n", *line.split("  "))]
        self.show(*given[1:])

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Lines at a width."""
        del container, viewport
        return self._broken(width).plain.count("\n") + 1

    def render(self) -> Text:
        """The lines at the width that there is."""
        return self._broken(self.content_size.width)

    def _broken(self, room: int) -> Text:
        first = self._phrases[0] if self._phrases else ""
        out, used = Text(style=first.style if isinstance(first, Text) else ""), 0
        for given in self._phrases:
            piece = Text(given) if isinstance(given, str) else given
            width = cell_width(piece.plain)
            if piece.plain == "\n" or used and used + 2 + width > room:
                out.append("\n")
                used = 0
                if piece.plain == "\n":
                    continue
            elif used:
                out.append("  ")
                used += 2
            out.append_text(piece)
            used += width
        return out


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of some width; words longer than that are cut."""
    lines, line = [], ""
    for word in text.split(" "):
        rest = word
        while cell_width(rest) > width:
            if line:
                lines.append(line)
                line = ""
            lines.append(rest[:width])
            rest = rest[width:]
        if line and cell_width(line) + 1 + cell_width(rest) > width:
            lines.append(line)
            line = rest
        else:
            line = f"{line} {rest}" if line else rest
    return [*lines, line]
