"""The frame around all screens: history, jump, help, export, the check behind it, and what happens when it fails."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot

from inspector.check.run import run_check
from inspector.errors import TargetError
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.cli.planting import raised_mapcount
from tests.fixtures import fixture_path
from tests.tui.driving import at, press, session_of, settle, snapshot_of, text
from tui.app import FolioscopeApp
from tui.jump import goals
from tui.places import (
    FilePlace,
    FindingPlace,
    FindingsPlace,
    FolioPlace,
    MemoryPlace,
    MmPlace,
    OverviewPlace,
    RulePlace,
    SlotPlace,
    VmaPlace,
)
from tui.screens.finding import FindingScreen
from tui.screens.findings import FindingsScreen
from tui.screens.help import HelpScreen, keys_of
from tui.screens.overview import OverviewScreen
from tui.session import Session, StoppedError, carry

PATH = str(fixture_path("7.3"))


def broken_snapshot() -> Snapshot:
    return Snapshot(raised_mapcount(PATH)(PATH))


@pytest.fixture(scope="module")
def broken() -> Session:
    snapshot = broken_snapshot()
    return Session(snapshot, run_check(snapshot))


def app_of(pilot: Pilot[Any]) -> FolioscopeApp:
    app = pilot.app
    assert isinstance(app, FolioscopeApp)
    return app


async def test_it_opens_checks_and_shows_the_finding_on_the_first_page() -> None:
    app = FolioscopeApp(Session(opener=broken_snapshot))
    async with app.run_test(size=(140, 45)) as pilot:
        await pilot.pause()
        assert "Overview" in text(pilot)
        for _ in range(3):
            await settle(pilot)
        await pilot.pause(0.25)
        seen = text(pilot)
        assert app.session.report is not None
        assert [f.rule for f in app.session.findings] == ["mapcount-too-high"]
        assert "✗ 1 finding" in seen
        assert "mapcount-too-high" in seen
        assert "Memory by kind" in seen
        assert "order 9" in seen
        assert "Largest processes" in seen


async def test_enter_opens_the_finding_and_backspace_returns_to_where_the_cursor_was(broken: Session) -> None:
    async with at(broken, OverviewPlace()) as pilot:
        app = app_of(pilot)
        await press(pilot, "enter")
        assert isinstance(app.screen, FindingScreen)
        seen = text(pilot)
        assert "mapcount-too-high" in seen
        assert "≠" in seen
        assert "finding #1" in seen
        await press(pilot, "backspace")
        assert isinstance(app.screen, OverviewScreen)
        await press(pilot, "right_square_bracket")
        assert isinstance(app.screen, FindingScreen)
        await press(pilot, "left_square_bracket", "2")
        assert isinstance(app.screen, FindingsScreen)
        assert [p for p, _ in app.history] == [OverviewPlace(), FindingsPlace()]


async def test_evidence_of_a_finding_leads_on(broken: Session) -> None:
    async with at(broken, FindingPlace(0)) as pilot:
        app = app_of(pilot)
        screen = app.screen
        assert isinstance(screen, FindingScreen) and screen.data is not None
        rows = screen.data.links
        places = [rows.place(i) for i in range(len(rows))]
        finding = broken.findings[0]
        assert places[0] == FolioPlace(finding.subject.pfn or -1)
        assert RulePlace("mapcount-too-high") in places
        vma = next(p for p in places if isinstance(p, VmaPlace))
        s = broken.snapshot
        m = finding.evidence.mappings[0]
        assert vma.va == m.va
        assert s.vmas.start[vma.vma_idx] <= m.va < s.vmas.end[vma.vma_idx]
        assert int(s.mms.addr[vma.mm_idx]) == m.mm


async def test_the_list_of_findings_is_filtered_marked_and_shows_the_finding_beside_it(broken: Session) -> None:
    async with at(broken, FindingsPlace(), (140, 45)) as pilot:
        await pilot.pause(0.2)
        await settle(pilot)
        assert "stored" in text(pilot)
        await press(pilot, "slash", *"nothing")
        await pilot.pause(0.1)
        assert "no rows" in text(pilot)
        await press(pilot, "escape", "s")
        assert broken.has_seen(broken.findings[0])
        await press(pilot, "s")
        assert not broken.has_seen(broken.findings[0])


async def test_jump_takes_what_is_typed(broken: Session) -> None:
    async with at(broken, OverviewPlace()) as pilot:
        app = app_of(pilot)
        await press(pilot, "g", *"#1", "enter")
        assert [p for p, _ in app.history] == [OverviewPlace(), FindingPlace(0)]
        await press(pilot, "g", *"mapcount-too-lo", "enter")
        assert [p for p, _ in app.history[2:]] == [RulePlace("mapcount-too-low")]
        assert "lower than" in " ".join(text(pilot).split())


def test_jump_understands_every_kind_of_thing() -> None:
    session = session_of("7.3")
    s = session.snapshot
    mm = int(np.flatnonzero(s.mms.pid >= 100)[0])
    pid = int(s.mms.pid[mm])
    vma = int(np.flatnonzero(s.vmas.mm_idx == mm)[0])
    start = int(s.vmas.start[vma])

    def first(words: str) -> object:
        return goals(session, words)[0].place

    assert first(str(pid)) == MmPlace(mm)
    assert first(f"{pid}:{start:#x}") == VmaPlace(mm, vma, start)
    assert first(f"{int(s.mms.addr[mm]):#x}") == MmPlace(mm)
    assert first(f"{int(s.vmas.addr[vma]):#x}") == VmaPlace(mm, vma)
    assert first(f"{int(s.pages.memmap.page_addr(0x13D63)):#x}") == FolioPlace(0x13D63)
    assert first("0x13d63") == FolioPlace(0x13D63)
    anon = next(int(a) for a in s.anon_rmap.anon_vmas.addr.tolist())
    assert type(first(f"{anon:#x}")).__name__ == "AnonVmaPlace"
    assert first("memory") == MemoryPlace()
    slot = int(np.flatnonzero(s.swap.slots.in_use)[0])
    type_, offset = int(s.swap.slots.entry[slot]) >> 58, int(s.swap.slots.offset[slot])
    assert first(f"{type_}:{offset}") == first(f"{type_}:{offset:#x}") == SlotPlace(type_, offset)
    paths = [g for g in goals(session, "/") if isinstance(g.place, FilePlace)]
    assert paths
    space = paths[0].place
    assert isinstance(space, FilePlace)
    assert first(f"{space.addr:#x}") == space
    assert goals(session, "no such thing anywhere") == []
    assert goals(session, "#9") == []
    assert goals(session, "0x" + "f" * 40) == []


async def test_help_tells_the_keys_of_the_screen_at_hand(broken: Session) -> None:
    async with at(broken, FindingPlace(0), (100, 40)) as pilot:
        await press(pilot, "question_mark")
        assert isinstance(app_of(pilot).screen, HelpScreen)
        seen = text(pilot)
        assert "One finding with its evidence" in seen
        assert "Copy JSON" in seen
        screen = app_of(pilot).current
        assert screen is not None
        keys = {what: key for key, what, _ in keys_of(screen)}
        assert "twice ends folioscope" in " ".join(keys)
        assert not {"Page Left", "Scroll Right", "Focus Next", "palette"} & set(keys)
        await press(pilot, "escape")
        assert isinstance(app_of(pilot).screen, FindingScreen)


async def test_export_writes_the_table_and_never_over_a_file(
    broken: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with at(broken, FindingsPlace()) as pilot:
        for keys in (["enter"], ["enter"], ["down", "enter"], ["down", "down", "enter"]):
            await press(pilot, "e", *keys)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"7.3.kdump-findings{end}" for end in ("-2.csv", ".csv", ".json", ".svg")]
    rows = list(csv.DictReader((tmp_path / names[1]).open()))
    assert [r["rule"] for r in rows] == ["mapcount-too-high"]
    found = json.loads((tmp_path / names[2]).read_text())
    assert found[0]["#"] == 1
    assert found[0]["severity"] == "✗ fail"
    assert (tmp_path / names[3]).read_text().startswith("<svg")


async def test_the_copied_command_names_the_target_and_the_thing(broken: Session) -> None:
    assert broken.command(FolioPlace(0x33AB)) == f"folioscope -c {PATH} explain 0x33ab"
    mm = int(np.flatnonzero(broken.snapshot.mms.pid == 203)[0])
    assert broken.command(MmPlace(mm)) == f"folioscope -c {PATH} vmas 203"
    async with at(broken, RulePlace("mapcount-too-high")) as pilot:
        await press(pilot, "c")
        assert app_of(pilot).clipboard == f"folioscope -c {PATH} rules mapcount-too-high"


async def test_a_target_that_cannot_be_opened_ends_it_with_the_reason() -> None:
    def opener() -> Snapshot:
        raise TargetError("this is no vmcore", "somewhere")

    app = FolioscopeApp(Session(opener=opener))
    async with app.run_test() as pilot:
        for _ in range(200):
            if app.return_value is not None:
                break
            await pilot.pause(0.02)
    assert isinstance(app.return_value, TargetError)


async def test_a_place_that_is_not_there_says_so_and_can_be_left(broken: Session) -> None:
    async with at(broken, OverviewPlace()) as pilot:
        app_of(pilot).go(FindingPlace(77))
        await settle(pilot)
        assert "there is no finding of that number" in text(pilot)
        await press(pilot, "escape")
        assert isinstance(app_of(pilot).screen, OverviewScreen)


def test_findings_come_rule_by_rule_and_a_stopped_check_keeps_them() -> None:
    session = Session(broken_snapshot())
    told: list[tuple[str, int]] = []
    tell = session.note_progress

    def telling(what: str, done: int, steps: int) -> None:
        told.append((what, len(session.findings)))
        if session.findings:
            session.stop()
        tell(what, done, steps)

    session.note_progress = telling  # type: ignore[method-assign]
    with pytest.raises(StoppedError):
        session.check()
    assert session.report is None
    assert [f.rule for f in session.findings] == ["mapcount-too-high"]
    assert told[-1][1] == 1
    assert session.doing is None


def test_places_are_carried_into_the_tables_read_anew_and_new_findings_are_marked() -> None:
    old, new = snapshot_of("7.3"), broken_snapshot()
    mm = int(old.vmas.mm_idx[40])
    assert carry(VmaPlace(mm, 40, 5), old, new) == VmaPlace(mm, 40, 5)
    assert carry(MmPlace(3), old, snapshot_of("6.1")) is None
    session = Session(new)
    session.report = run_check(old)
    moved = session.refresh([MmPlace(2), FolioPlace(3)])
    assert moved == [MmPlace(2), FolioPlace(3)]
    assert session.report is None
    session.check()
    assert [session.is_new(f) for f in session.findings] == [True]
    assert session.findings[0].key.startswith("mapcount-too-high page")


def test_the_command_needs_a_terminal() -> None:
    words = [sys.executable, "-c", "from inspector.cli import main; raise SystemExit(main())", "tui", "-c", PATH]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("folioscope: error: the terminal interface needs a terminal.")


def test_other_commands_never_load_textual() -> None:
    code = (
        "import sys; from inspector.cli import main; code = main(['check', '-q', '-c', sys.argv[1]]);"
        "sys.exit(sorted(m for m in sys.modules if m.split('.')[0] in ('textual', 'tui')) != [] or code)"
    )
    done = subprocess.run([sys.executable, "-c", code, PATH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_opening_is_left_to_the_worker() -> None:
    session = Session(opener=lambda: Snapshot(open_core(PATH, types="btf")))
    assert session.opened is None
    assert session.name == "folioscope"
    assert session.snapshot is session.opened
