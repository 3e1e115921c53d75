"""How text for people is laid out: colour where wanted, tables with one pass for widths, wrapped sentences."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from inspector.records import dataclass
from inspector.text import cell_width

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "fail": "1;31"}

_PLAIN_WIDTH = 100
"""Where sentences are wrapped when there is no terminal to ask."""


_BELOW = "    "
"""Before what did not fit into the line above."""

_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def _shown_width(line: str) -> int:
    return cell_width(_COLOUR.sub("", line))


@dataclass(frozen=True)
class Screen:
    """What the text will be shown on.

    Attributes:
        color: Whether escape sequences for colour are wanted.
        width: Columns of the terminal; None when the text goes to a file or a pipe: tables are then never folded.
    """

    color: bool = False
    width: int | None = None

    def paint(self, style: str, text: str) -> str:
        """``text`` in a style: bold, dim, red, green, yellow, cyan or fail."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.color and style and text else text

    def wrap(self, text: str, indent: str = "", hang: str | None = None) -> list[str]:
        """A sentence as lines; the first begins with ``indent``, the others with ``hang``."""
        return textwrap.wrap(
            text,
            max(self.width or _PLAIN_WIDTH, 40),
            initial_indent=indent,
            subsequent_indent=indent if hang is None else hang,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def fold(self, line: str) -> list[str]:
        """A line as lines that fit the terminal, broken between words; colour goes on over the break."""
        if self.width is None or _shown_width(line) <= self.width:
            return [line]
        hang = " " * min(len(line) - len(line.lstrip(" ")) + len(_BELOW), self.width // 2)
        lines, now = [], ""
        for part in re.findall(r" *[^ ]+", line):
            if now.strip() and _shown_width(now + part) > self.width:
                lines.append(now)
                now = hang + part.lstrip(" ")
            else:
                now += part
        return [*lines, now]

    def fits(self, width: int) -> bool:
        """Whether lines of that many columns can be shown."""
        return self.width is None or width <= self.width


@dataclass(frozen=True)
class TableColumn:
    """One column of a table: its heading, whether it is flush right, and its colour."""

    title: str
    right: bool = False
    style: str = ""


def render_table(
    screen: Screen, columns: Sequence[TableColumn], rows: Sequence[Sequence[str]], indent: str = ""
) -> Iterator[str]:
    """A heading and a line a row. Columns that are empty in every row are left out.

    On a terminal that is too narrow a row takes several lines, and so does the heading: the columns that do not fit are
    below the first ones, further in.
    """
    used = [i for i in range(len(columns)) if not rows or any(row[i] for row in rows)]
    widths = {i: max([cell_width(columns[i].title), *(cell_width(row[i]) for row in rows)]) for i in used}
    room = None if screen.width is None else screen.width - cell_width(indent)
    # A space less between columns is often all that is needed.
    tight = sum(widths.values()) + len(used) - 1
    gap = " " if room is not None and tight <= room < tight + len(used) - 1 else "  "
    lines = _folded(used, widths, room, len(gap))
    for number, line in enumerate(lines):
        heading = gap.join(_pad(columns[i].title, widths[i], right=columns[i].right) for i in line)
        yield indent + (_BELOW if number else "") + screen.paint("dim", heading.rstrip())
    for row in rows:
        for number, line in enumerate(lines):
            if number and not any(row[i] for i in line):
                continue
            start = indent + (_BELOW if number else "")
            if len(line) == 1 and screen.width is not None and cell_width(start + row[line[0]]) > screen.width:
                wrapped = screen.wrap(row[line[0]], start, start + _BELOW)
                yield from (screen.paint(columns[line[0]].style, one) for one in wrapped)
                continue
            cells = []
            for i in line:
                style = columns[i].style
                padded = _pad(row[i], widths[i], right=columns[i].right)
                cells.append(screen.paint(style, padded) if style and row[i] else padded)
            yield start + gap.join(cells).rstrip()


def _folded(used: Sequence[int], widths: Mapping[int, int], room: int | None, gap: int) -> list[list[int]]:
    """Columns in lines, as many in each as fit."""
    lines: list[list[int]] = [[]]
    taken = 0
    for i in used:
        more = widths[i] + (gap if lines[-1] else 0)
        if room is not None and lines[-1] and taken + more > room:
            lines.append([])
            taken, more = len(_BELOW), widths[i]
        lines[-1].append(i)
        taken += more
    return lines


def table_width(columns: Sequence[TableColumn], rows: Sequence[Sequence[str]]) -> int:
    """Columns of the terminal that `render_table` would take."""
    widths = [max([cell_width(c.title), *(cell_width(r[i]) for r in rows)]) for i, c in enumerate(columns)]
    return sum(widths) + 2 * (len(widths) - 1)


def render_facts(screen: Screen, facts: Iterable[tuple[str, str]], indent: str = "") -> Iterator[str]:
    """Names and values, the values under one another; long values are wrapped."""
    facts = list(facts)
    width = max((cell_width(name) for name, _ in facts), default=0)
    hang = indent + " " * (width + 2)
    for name, value in facts:
        lines = screen.wrap(value, hang) or [hang]
        first = lines[0][len(hang) :]
        yield f"{indent}{screen.paint('dim', _pad(name, width, right=False))}  {first}".rstrip()
        yield from lines[1:]


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - cell_width(text))
    return space + text if right else text + space


def wrong_words(found: list[str]) -> str:
    """The mark beside a thing about which rules found something; "" for one that is as it must be."""
    return f"WRONG {'; '.join(found)}" if found else ""
