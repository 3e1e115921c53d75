"""Colours as the terminal has them: exact values of its palette, and text that can be read on whatever is behind it.

The themes are written in true colours. What a style comes to on a terminal of 256 or 16 colours is chosen
here: rounding alone takes neighbouring greys for one another, and a warning's yellow for an error's red.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from colorsys import rgb_to_hsv
from functools import lru_cache
from itertools import groupby
from typing import Any

from rich.color import Color as RichColor
from rich.color import ColorType
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

LEAST = 4.5
"""Contrast that text has with what is behind it, as in the Web Content Accessibility Guidelines, level AA."""

DARK = Theme(
    "folioscope-dark",
    primary="#6ea8fe",
    secondary="#8fb8de",
    accent="#f2c14e",
    warning="#e0a93c",
    error="#f0616d",
    success="#7cc47f",
    foreground="#d5dbe6",
    background="#0f131a",
    surface="#151b24",
    panel="#1d2531",
    boost="#232d3b",
    dark=True,
    variables={"quiet": "#8b97a8", "faint": "#7a8696", "footer-key-foreground": "#f2c14e"},
)
LIGHT = Theme(
    "folioscope-light",
    primary="#2563b8",
    secondary="#3d6b96",
    accent="#8a5a00",
    warning="#8a5a00",
    error="#b3261e",
    success="#2e7d32",
    foreground="#181d27",
    background="#fbfbfd",
    surface="#f1f3f7",
    panel="#e4e8ef",
    boost="#d9dfe8",
    dark=False,
    variables={"quiet": "#5c6877", "faint": "#6b7583", "footer-key-foreground": "#8a5a00"},
)

Triplet = tuple[int, int, int]

TRUE, MANY, FEW = 1 << 24, 256, 16
"""Colours of a terminal."""

DEPTHS = {"truecolor": TRUE, "256": MANY, "standard": FEW, "windows": FEW}
"""By the name that Rich has for what it found in TERM and COLORTERM."""

_LEVELS = (0, 95, 135, 175, 215, 255)
_CUBE: list[Triplet] = [(r, g, b) for r in _LEVELS for g in _LEVELS for b in _LEVELS]
_GREYS: list[Triplet] = [(8 + 10 * i, 8 + 10 * i, 8 + 10 * i) for i in range(24)]
# The first 16 are whatever the user's terminal makes of them, so that they are not used where there are others.
_MANY: dict[int, Triplet] = dict(enumerate(_CUBE + _GREYS, FEW))
_FEW: dict[int, Triplet] = dict(
    enumerate(
        [
            *((0, 0, 0), (170, 0, 0), (0, 170, 0), (170, 85, 0), (0, 0, 170), (170, 0, 170), (0, 170, 170)),
            *((170, 170, 170), (85, 85, 85), (255, 85, 85), (85, 255, 85), (255, 255, 85), (85, 85, 255)),
            *((255, 85, 255), (85, 255, 255), (255, 255, 255)),
        ]
    )
)
PALETTES = {MANY: _MANY, FEW: _FEW}
"""Values by number; those of 16 colours are a VGA's, as the Linux console and most terminals begin with."""

_NOT_READ = re.compile(r"[\s·›…─-▟▪-◿⠀-⣿]*")
"""Text that is drawn and not read: space, lines, bars, the dots of free memory."""


def contrast(one: Triplet, other: Triplet) -> float:
    """Of two colours, from 1 to 21."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@lru_cache(4096)
def _luminance(color: Triplet) -> float:
    r, g, b = (x / 255 / 12.92 if x <= 10 else ((x / 255 + 0.055) / 1.055) ** 2.4 for x in color)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


_GREY = 0.22
_BLACK = 0.25
"""Saturation and value below which a colour counts as grey, as black."""

_GREY_TAKES_NO_TINT = 20_000.0


def _hue(color: Triplet) -> tuple[float, float, float]:
    return rgb_to_hsv(*(x / 255 for x in color))


def _far(one: Triplet, other: Triplet) -> float:
    """How different two colours look: differences weighed by how much red there is; a grey takes no tint.

    Args:
        one: Of the palette.
        other: The colour to be shown.
    """
    tint = _GREY_TAKES_NO_TINT if max(one) != min(one) and _hue(other)[1] < _GREY else 0
    red = (one[0] + other[0]) / 512
    dr, dg, db = (a - b for a, b in zip(one, other, strict=True))
    return (2 + red) * dr * dr + 4 * dg * dg + (3 - red) * db * db + tint


def _far_of_few(one: Triplet, other: Triplet) -> tuple[float, float]:
    """The same where colours are few: the hue counts first, so that red stays red, and then how light it is."""
    (h, s, v), (h2, s2, v2) = _hue(one), _hue(other)
    hued, hued2 = s >= _GREY and v >= _BLACK, s2 >= _GREY and v2 >= _BLACK
    if hued and hued2:
        turn = abs(h - h2)
        return round(min(turn, 1 - turn) * 24), abs(v - v2)
    return (0.0 if hued == hued2 else 4.0), abs(v - v2)


_DISTANCE: dict[int, Callable[[Triplet, Triplet], Any]] = {MANY: _far, FEW: _far_of_few}


@lru_cache(4096)
def _nearest(color: Triplet, depth: int) -> int:
    palette, far = PALETTES[depth], _DISTANCE[depth]
    return min(palette, key=lambda number: far(palette[number], color))


@lru_cache(4096)
def _nearest_read(color: Triplet, ground: Triplet, depth: int) -> int:
    """The nearest that can be read on a ground; black or white always can."""
    palette, far = PALETTES[depth], _DISTANCE[depth]
    return min(
        (number for number, value in palette.items() if contrast(value, ground) >= LEAST),
        key=lambda number: far(palette[number], color),
    )


@lru_cache(4096)
def readable(color: Triplet, ground: Triplet) -> Triplet:
    """A true colour moved towards white or black, whichever is further from the ground, until it can be read there."""
    end = max((0, 0, 0), (255, 255, 255), key=lambda value: contrast(value, ground))
    for step in range(33):
        red, green, blue = (round(a + (b - a) * step / 32) for a, b in zip(color, end, strict=True))
        if contrast((red, green, blue), ground) >= LEAST:
            return red, green, blue
    return end


def _triplet(color: RichColor | None, otherwise: Triplet) -> Triplet:
    if color is None or color.type is ColorType.DEFAULT:
        return otherwise
    red, green, blue = color.get_truecolor(DEFAULT_TERMINAL_THEME)
    return red, green, blue


@lru_cache(8192)
def inked(style: Style, ground: Triplet, depth: int, *, is_read: bool) -> Style:
    """A style in colours that a terminal has.

    Args:
        style: In true colours.
        ground: What is behind it where the style does not say.
        depth: Colours of the terminal.
        is_read: Whether it is of text that is read, not of lines and bars.
    """
    behind, front = _triplet(style.bgcolor, ground), _triplet(style.color, ground)
    if depth == TRUE:
        shown = readable(front, behind) if is_read else front
        return style + Style(color=RichColor.from_rgb(*shown), bgcolor=RichColor.from_rgb(*behind))
    number = _nearest(behind, depth)
    ink = _nearest_read(front, PALETTES[depth][number], depth) if is_read else _nearest(front, depth)
    return style + Style(color=RichColor.from_ansi(ink), bgcolor=RichColor.from_ansi(number))


class Inks(LineFilter):
    """The last filter of every line.

    Args:
        depth: Colours of the terminal.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same text in colours that the terminal has; neighbours that are alike are one segment."""
        ground: Triplet = background.rgb
        out = []
        for text, style, control in segments:
            is_read = _NOT_READ.fullmatch(text) is None
            out.append((inked(style or Style.null(), ground, self.depth, is_read=is_read), text, control))
        return [
            Segment("".join(text for _, text, _ in same), style, control)
            for (style, control), same in groupby(out, key=lambda one: (one[0], one[2]))
        ]
