"""Ways through the interface: panels by arrows, notes, what the footer, the help, the palette and the jump offer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from textual.widgets import Input

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from tests.cli.planting import raised_mapcount
from tests.fixtures import fixture_path
from tests.tui.driving import at, lines, place_of, press, session_of, text
from tests.tui.scenes import LARGE
from tui.places import (
    FindingsPlace,
    FolioPlace,
    FoliosPlace,
    MemoryPlace,
    OverviewPlace,
    ProcessesPlace,
    RmapPlace,
)
from tui.screens.help import keys_of
from tui.screens.memory import MemoryScreen
from tui.session import Session
from tui.state import State
from tui.views.map import GOES_ON, HeatView
from tui.widgets.cell_grid import CellGrid

PATH = str(fixture_path("7.3"))


def _broken() -> Session:
    snapshot = Snapshot(raised_mapcount(PATH)(PATH))
    return Session(snapshot, run_check(snapshot, ["mapcount"]))


async def test_arrows_lead_from_panel_to_panel_and_to_the_end_of_the_page() -> None:
    async with at(_broken(), OverviewPlace()) as pilot:
        assert pilot.app.focused is not None
        assert pilot.app.focused.id == "rules"
        seen = []
        for _ in range(40):
            if pilot.app.focused is not None and pilot.app.focused.id not in seen:
                seen.append(pilot.app.focused.id)
            await press(pilot, "down")
        assert seen == ["rules", "kind-bars", "largest", "order-bars"]
        assert "explains the screen at hand" in text(pilot)
        for _ in range(40):
            await press(pilot, "up")
        assert pilot.app.focused is not None
        assert pilot.app.focused.id == "rules"
        assert "Target" in text(pilot)


async def test_where_nothing_was_found_the_verdict_is_in_focus_and_opens_the_findings() -> None:
    async with at(session_of("7.3"), OverviewPlace()) as pilot:
        assert pilot.app.focused is not None
        assert pilot.app.focused.id == "verdict"
        await press(pilot, "enter")
        assert place_of(pilot) == FindingsPlace()


async def test_notes_are_kept_for_each_dump(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOLIOSCOPE_STATE", str(tmp_path))
    async with at(_broken(), FindingsPlace()) as pilot:
        await press(pilot, "w", *"oom", "enter")
        assert "oom" in text(pilot)
        await press(pilot, "w", "x", "escape")
        assert "oomx" not in text(pilot)
        await press(pilot, "enter")
        assert "note: oom" in text(pilot)
        await press(pilot, "1", "w", *"disk", "enter")
        assert "note: disk" in text(pilot)
    again = _broken()
    assert again.note(again.findings[0].key) == "oom"
    assert again.note("") == "disk"
    assert State("interface").text("note ") == ""
    assert session_of("6.1").note("") == ""


async def test_the_footer_offers_only_what_works() -> None:
    session = session_of("7.3")
    async with at(session, MemoryPlace()) as pilot:
        foot = lines(pilot)[-1]
        assert "Filter" not in foot
        assert "Back" not in foot
        assert "Next !" not in foot
        await press(pilot, "enter")
        assert "Back" in lines(pilot)[-1]
    async with at(session, FindingsPlace()) as pilot:
        foot = lines(pilot)[-1]
        assert not any(word in foot for word in ("Seen", "Copy JSON", "Open", "Note"))
    async with at(_broken(), FindingsPlace()) as pilot:
        foot = lines(pilot)[-1]
        assert all(word in foot for word in ("Seen", "Copy JSON", "Open", "Note"))


async def test_the_order_is_turned_only_where_rows_are_sorted() -> None:
    async with at(session_of("7.3"), FoliosPlace()) as pilot:

        def offered() -> list[str]:
            return [what for _, what, _ in keys_of(pilot.app.screen)]

        assert "Sort by next column" in offered()
        assert "Reverse the order" not in offered()
        await press(pilot, "greater_than_sign")
        assert "Reverse the order" in offered()


async def test_help_begins_with_the_keys_of_the_screen() -> None:
    async with at(session_of("7.3"), FolioPlace(LARGE)) as pilot:
        await press(pilot, "question_mark")
        seen = text(pilot)
        assert seen.index("Young/dirty") < seen.index("goes through three views")
        assert "Export" not in seen.split("goes through three views")[0]


async def test_the_palette_knows_other_words_and_shows_keys() -> None:
    async with at(session_of("7.3"), ProcessesPlace()) as pilot:
        await press(pilot, "ctrl+p", *"heat")
        await pilot.pause(0.5)
        assert "Memory map  5" in text(pilot)


async def test_the_jump_offers_recent_places() -> None:
    async with at(session_of("7.3"), FolioPlace(LARGE)) as pilot:
        await press(pilot, "x", "g")
        seen = text(pilot)
        assert f"recent            folio {LARGE:#x}" in seen
        await press(pilot, "enter")
        assert place_of(pilot) == FolioPlace(LARGE)
        assert RmapPlace(LARGE) not in [place_of(pilot)]


async def test_a_file_for_an_export_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("x")
    async with at(session_of("7.3"), FolioPlace(LARGE)) as pilot:
        await press(pilot, "e", "enter")
        await press(pilot, "e", "down", "tab")
        line = pilot.app.screen.query_one("#path", Input)
        assert line.value == f"7.3.kdump-folio-{LARGE:#x}.report.json"
        line.value = "there.json"
        await press(pilot, "enter")
        assert "there is such a file already" in text(pilot)
        line.value = "nowhere/x.json"
        await press(pilot, "enter")
        assert "no such directory" in text(pilot)
        line.value = "mine.json"
        await press(pilot, "enter")
    account = (tmp_path / f"7.3.kdump-folio-{LARGE:#x}.txt").read_text()
    assert "what the kernel would do now" in account
    assert json.loads((tmp_path / "mine.json").read_text())["schema"].startswith("folioscope.explain/")
    assert (tmp_path / "there.json").read_text() == "x"


async def test_rows_of_the_map_are_a_power_of_two_and_folios_have_edges() -> None:
    session = session_of("7.3")
    s = session.snapshot
    for size in ((80, 24), (120, 30), (200, 60)):
        async with at(session, MemoryPlace(LARGE), size) as pilot:
            screen = pilot.app.screen
            assert isinstance(screen, MemoryScreen)
            grid = screen.query_one(CellGrid)
            view = grid.source
            assert isinstance(view, HeatView)
            first = view.pfns(grid._at.columns)[0] - view.pfns(0)[0]  # noqa: SLF001
            assert first & (first - 1) == 0
            assert "same folio" in text(pilot)
            single = view.at(view.layer, 0)
            row = s.pages.memmap.row(LARGE)
            glyphs = [glyph for glyph, _ in single.paint(row, 17)]
            assert glyphs[:16] == ["A", *[GOES_ON] * 15]
            assert glyphs[16] != GOES_ON
            zone = view.borders.zone_of(LARGE)
            assert zone is not None
            assert zone.name in view.describe(grid.cursor)[0]
            assert view.label(grid.cursor).endswith(f" {zone.letter} ")


async def test_what_the_legend_says_is_what_cells_show() -> None:
    async with at(session_of("7.3"), MemoryPlace()) as pilot:
        view = pilot.app.screen.query_one(CellGrid).source
        assert isinstance(view, HeatView)
        single = view.at(view.layer, 0)
        known = {glyph.upper() for _, glyph, _, _ in view.layer.totals()} | {GOES_ON}
        assert {glyph for glyph, _ in single.paint(0, single.count)} <= known
        assert "Aa anon" in text(pilot)


async def test_folios_say_how_much_is_mapped_and_whose_they_are() -> None:
    session = session_of("7.3")
    async with at(session, FoliosPlace("anon wasted>0"), (140, 45)) as pilot:
        seen = text(pilot)
        assert all(word in seen for word in ("mapped", "size", "wasted", "owner"))
        assert "thp-partial" in seen
