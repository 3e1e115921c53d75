"""What a terminal shows of the bytes that were sent to it: as lines of text, and as a page that a browser can picture.

Knows what the interface sends: text, ends of lines, places (CUP), styles (SGR), and to erase.
"""

from __future__ import annotations

import html
import re
import unicodedata
from codecs import getincrementaldecoder
from dataclasses import dataclass, replace

from tui.colors import FEW, MANY, PALETTES

_PIECE = re.compile(
    r"\x1b\[([0-9;?<=>]*)[ -/]*([@-~])"  # CSI
    r"|\x1b\](?:[^\x07\x1b]*)(?:\x07|\x1b\\)"  # OSC
    r"|\x1bP.*?\x1b\\"  # DCS
    r"|\x1b[()][A-Za-z0-9]|\x1b[^\[\]P()]"
    r"|[\r\n\b\t]"
    r"|[^\x1b\r\n\b\t]+",
    re.DOTALL,
)


@dataclass(frozen=True)
class Ink:
    """A style; colours as red, green, blue, None for the terminal's own."""

    ink: tuple[int, int, int] | None = None
    ground: tuple[int, int, int] | None = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    reverse: bool = False


_ON = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "reverse"}
_OFF = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("reverse",)}


class Drawn:
    """The cells of a terminal.

    Args:
        size: Columns and lines.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.columns, self.lines = size
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._ink = Ink()
        self._x = self._y = 0
        self.cells = self._blank()

    def _blank(self) -> list[list[tuple[str, Ink]]]:
        return [[(" ", Ink())] * self.columns for _ in range(self.lines)]

    def feed(self, sent: bytes) -> None:
        """Draw what was sent."""
        text = self._rest + self._decoder.decode(sent)
        # A sequence may be cut where the bytes were read.
        cut = text.rfind("\x1b")
        self._rest = ""
        if cut >= 0 and not _PIECE.match(text, cut):
            text, self._rest = text[:cut], text[cut:]
        for piece in _PIECE.finditer(text):
            what = piece[0]
            if piece[2]:
                self._control(piece[1], piece[2])
            elif what == "\r":
                self._x = 0
            elif what == "\n":
                self._y = min(self._y + 1, self.lines - 1)
            elif what == "\b":
                self._x = max(self._x - 1, 0)
            elif what[0] not in "\x1b\t":
                self._write(what)

    def _control(self, words: str, final: str) -> None:
        if words[:1] in ("?", "<", "=", ">"):
            if words in ("?1049",):
                self.cells = self._blank()
            return
        numbers = [int(w) if w else 0 for w in words.split(";")]
        if final == "H":
            self._y = min(max(numbers[0], 1), self.lines) - 1
            self._x = min(max(numbers[1] if len(numbers) > 1 else 1, 1), self.columns) - 1
        elif final == "m":
            self._style(numbers)
        elif final == "J":
            self.cells = self._blank()
        elif final == "K":
            self.cells[self._y][self._x :] = [(" ", self._ink)] * (self.columns - self._x)

    def _style(self, numbers: list[int]) -> None:
        rest = iter(numbers)
        for nr in rest:
            if nr == 0:
                self._ink = Ink()
            elif nr in _ON:
                self._ink = replace(self._ink, **{_ON[nr]: True})  # type: ignore[arg-type]
            elif nr in _OFF:
                self._ink = replace(self._ink, **dict.fromkeys(_OFF[nr], False))  # type: ignore[arg-type]
            elif nr in (38, 48):
                depth = next(rest, 0)
                indexed = depth == 5
                color = PALETTES[MANY][next(rest, 0)] if indexed else (next(rest, 0), next(rest, 0), next(rest, 0))
                self._ink = replace(self._ink, **{"ink" if nr == 38 else "ground": color})  # type: ignore[arg-type]
            elif nr in (39, 49):
                self._ink = replace(self._ink, **{"ink" if nr == 39 else "ground": None})  # type: ignore[arg-type]
            else:
                for first, name, add in ((30, "ink", 0), (40, "ground", 0), (90, "ink", 8), (100, "ground", 8)):
                    if first <= nr < first + 8:
                        color = PALETTES[FEW][nr - first + add]
                        self._ink = replace(self._ink, **{name: color})  # type: ignore[arg-type]

    def _write(self, text: str) -> None:
        for char in text:
            width = 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
            for nr in range(width):
                if self._x < self.columns:
                    self.cells[self._y][self._x] = ("" if nr else char, self._ink)
                    self._x += 1

    def text(self) -> list[str]:
        """The lines."""
        return ["".join(char for char, _ in line).rstrip() for line in self.cells]

    def page(self) -> str:
        """The same in HTML, in its colours."""
        lines = []
        for line in self.cells:
            parts: list[tuple[Ink, str]] = []
            for char, ink in line:
                if parts and parts[-1][0] == ink:
                    parts[-1] = ink, parts[-1][1] + char
                else:
                    parts.append((ink, char))
            lines.append("".join(f'<span style="{_css(ink)}">{html.escape(text)}</span>' for ink, text in parts))
        style = "body{margin:0;background:#000}pre{font:14px/17px 'DejaVu Sans Mono';margin:0}"
        head = f"<meta charset=utf-8><style>{style}</style>"
        return f"{head}<pre>" + "\n".join(lines) + "</pre>"


def _css(ink: Ink) -> str:
    front, back = ink.ink or (229, 229, 229), ink.ground or (0, 0, 0)
    if ink.reverse:
        front, back = back, front
    css = f"color:rgb{front};background:rgb{back}"
    css += ";font-weight:bold" * ink.bold + ";font-style:italic" * ink.italic
    return css + ";text-decoration:underline" * ink.underline + ";opacity:.6" * ink.dim
