"""Colours of the interface: exact values of the palette, text that can be read, and none where none is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.color import ColorType
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from textual.color import Color
from textual.pilot import Pilot

from tests.tui.driving import press, settle
from tests.tui.scenes import DIALOGS, broken, places
from tests.tui.test_looks import SCREENS
from tui.app import FolioscopeApp
from tui.colors import DARK, DEPTHS, FEW, LEAST, LIGHT, MANY, PALETTES, TRUE, Inks, contrast, inked, readable

CODES = {"truecolor": "truecolor", "256": "", "standard": ""}
TERMS = {"truecolor": "xterm-256color", "256": "xterm-256color", "standard": "xterm"}
_COLOUR = st.tuples(*[st.integers(0, 255)] * 3)


def _rgb(text: str) -> tuple[int, int, int]:
    return Color.parse(text).rgb


def _drawn(style: Style, depth: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Ink and ground as a terminal of that depth shows them."""
    assert style.color is not None and style.bgcolor is not None
    if depth == TRUE:
        ink, ground = (c.get_truecolor(DEFAULT_TERMINAL_THEME) for c in (style.color, style.bgcolor))
        return (ink.red, ink.green, ink.blue), (ground.red, ground.green, ground.blue)
    kind = ColorType.EIGHT_BIT if depth == MANY else ColorType.STANDARD
    assert style.color.type is style.bgcolor.type is kind
    assert style.color.number is not None and style.bgcolor.number is not None
    return PALETTES[depth][style.color.number], PALETTES[depth][style.bgcolor.number]


@given(_COLOUR, _COLOUR, st.sampled_from((TRUE, MANY, FEW)))
def test_text_can_be_read_on_every_ground(ink: tuple[int, int, int], ground: tuple[int, int, int], depth: int) -> None:
    style = Style(color=f"rgb({ink[0]},{ink[1]},{ink[2]})", bgcolor=f"rgb({ground[0]},{ground[1]},{ground[2]})")
    assert contrast(*_drawn(inked(style, (0, 0, 0), depth, is_read=True), depth)) >= LEAST


@pytest.mark.parametrize("depth", [TRUE, MANY, FEW])
@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda t: t.name)
def test_what_colours_mean_is_not_lost(theme: Any, depth: int) -> None:
    """A failure, a warning and what is in order differ from each other and from plain text at every depth."""
    ground = _rgb(theme.background)
    shown = {
        name: _drawn(inked(Style(color=getattr(theme, name)), ground, depth, is_read=True), depth)[0]
        for name in ("foreground", "error", "warning", "success")
    }
    assert len(set(shown.values())) == len(shown)


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda t: t.name)
def test_the_themes_can_be_read_as_they_are_written(theme: Any) -> None:
    inks = [theme.primary, theme.accent, theme.warning, theme.error, theme.success, theme.foreground]
    inks += [theme.variables["quiet"], theme.variables["faint"]]
    for ink in inks:
        assert contrast(_rgb(ink), _rgb(theme.background)) >= LEAST, ink
    assert readable(_rgb(theme.foreground), _rgb(theme.background)) == _rgb(theme.foreground)


def _segments(pilot: Pilot[Any]) -> Iterator[Segment]:
    for strip in pilot.app.screen._compositor.render_strips():
        yield from strip


@pytest.mark.parametrize("depth", CODES)
@pytest.mark.parametrize("light", [False, True], ids=["dark", "light"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ("findings", "memory") else pytest.mark.long) for n in (*SCREENS, *DIALOGS)],
)
async def test_every_text_of_every_screen_can_be_read(
    name: str, depth: str, *, light: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORTERM", CODES[depth])
    monkeypatch.setenv("TERM", TERMS[depth])
    scene, keys = DIALOGS.get(name, (name, ()))
    session = broken("mapcount")
    app = FolioscopeApp(session, places(session)[scene])
    async with app.run_test(size=(100, 30)) as pilot:
        assert app.console.color_system == depth
        if light:
            app.action_toggle_dark()
        await settle(pilot)
        await press(pilot, *keys)
        read = [s for s in _segments(pilot) if s.style is not None and any(c.isalnum() for c in s.text)]
        assert len(read) > 3
        for text, style, _ in read:
            assert contrast(*_drawn(style, DEPTHS[depth])) >= LEAST, (text, style)  # type: ignore[arg-type]


async def test_without_colours_the_verdict_is_the_strongest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    session = broken("mapcount")
    app = FolioscopeApp(session, places(session)["findings"])
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        seen = list(_segments(pilot))
        assert all(
            c is None or c.type is ColorType.DEFAULT for s in seen if s.style for c in (s.style.color, s.style.bgcolor)
        )
        verdict = next(s for s in seen if "1 finding" in s.text)
        assert verdict.style is not None and verdict.style.bold and verdict.style.reverse
        cursor = next(s for s in seen if "mapcount-too-high" in s.text)
        assert cursor.style is not None and cursor.style.reverse


def test_neighbours_of_one_colour_are_sent_as_one() -> None:
    one = Style(color="#101010", bgcolor="#0f0f0f")
    made = Inks(MANY).apply([Segment("ab", one), Segment("cd", one)], Color.parse("#000000"))
    assert [s.text for s in made] == ["abcd"]
