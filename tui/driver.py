"""What is sent to the terminal, with fewer bytes: over ssh each of them is waited for."""

from __future__ import annotations

import re

from textual.driver import Driver

_COLOR = r"(?:5;\d+|2;\d+;\d+;\d+)"

_COLORS = rf"\x1b\[38;{_COLOR};48;{_COLOR}m"
"""SGR (ECMA-48, 8.3.117) with both colours and nothing else: the next one of its kind leaves nothing of it."""

_MOVE = r"\x1b\[\d+;\d+H"

_LINE_BEFORE_MOVE = re.compile(rf"\r\n(?={_MOVE})")

_BETWEEN_COLORS = re.compile(rf"({_COLORS}[^\x1b]*)\x1b\[0m((?:{_MOVE})?)(?={_COLORS})")

_BEFORE_STYLE = re.compile(r"\x1b\[0m\x1b\[(?=[0-9;]+m)")


def with_styles_joined(text: str) -> str:
    """The same picture, without resets between two styles that one sequence can do, and ends of lines that are left."""
    text = _BETWEEN_COLORS.sub(r"\1\2", _LINE_BEFORE_MOVE.sub("", text))
    return _BEFORE_STYLE.sub("\x1b[0;", text)


def joining_styles(driver: type[Driver]) -> type[Driver]:
    """A driver that writes as another does, with styles joined."""

    def write(self: Driver, data: str) -> None:
        driver.write(self, with_styles_joined(data))

    return type(f"{driver.__name__}JoiningStyles", (driver,), {"write": write})
