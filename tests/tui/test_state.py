"""What is remembered between runs, where the interface begins, and the prompt of drgn."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import drgn
import drgn.cli
import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from inspector.target.prompt import open_prompt
from tests.cli.planting import raised_mapcount
from tests.fixtures import fixture_path
from tests.tui.driving import at, place_of, press, session_of, settle, text
from tests.tui.scenes import LARGE
from tui.app import FolioscopeApp
from tui.colors import DARK, LIGHT
from tui.places import FindingsPlace, FolioPlace, MmPlace, OverviewPlace, Place, SubjectPlace, UserPlace, VmaPlace
from tui.recent import KEPT
from tui.session import Session
from tui.state import State

PATH = str(fixture_path("7.3"))


def _broken() -> Session:
    snapshot = Snapshot(raised_mapcount(PATH)(PATH))
    return Session(snapshot, run_check(snapshot, ["mapcount"]))


async def test_marks_and_the_theme_are_there_in_the_next_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    monkeypatch.setenv("FOLIOSCOPE_STATE", str(kept))
    first = _broken()
    async with at(first, FindingsPlace()) as pilot:
        await press(pilot, "s")
        assert isinstance(pilot.app, FolioscopeApp)
        pilot.app.action_toggle_dark()
    again = _broken()
    assert again.has_seen(again.findings[0])
    assert FolioscopeApp(again).theme == LIGHT.name
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept.iterdir()] == [0o600] * 2
    again.toggle_seen(again.findings[0])
    assert not _broken().has_seen(again.findings[0])
    for path in kept.iterdir():
        path.write_text("no JSON" * 100)
    damaged = _broken()
    assert not damaged.has_seen(damaged.findings[0])
    assert FolioscopeApp(damaged).theme == DARK.name


def test_nothing_is_remembered_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in ("", str(tmp_path / "file" / "below")):
        monkeypatch.setenv("FOLIOSCOPE_STATE", directory)
        state = State("x")
        state.keep("theme", "a")
        assert state.text("theme") == "a"
        assert State("x").text("theme") == ""


async def test_places_gone_to_are_offered_in_the_next_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOLIOSCOPE_STATE", str(tmp_path / "kept"))
    first, vma = _broken(), _vma()
    assert isinstance(vma, VmaPlace)
    for place in (MmPlace(vma.mm_idx), OverviewPlace(), FolioPlace(LARGE), vma, FolioPlace(LARGE)):
        first.went_to(place)
    again = _broken()
    mm, start = int(first.snapshot.mms.addr[vma.mm_idx]), int(first.snapshot.vmas.start[vma.vma_idx])
    assert [place for place, _ in again.places_kept()] == [FolioPlace(LARGE), UserPlace(mm, start), UserPlace(mm)]
    assert again.places_kept()[2][1] == first.process(vma.mm_idx)
    assert again.rows_of_place(UserPlace(mm, start)) == VmaPlace(vma.mm_idx, vma.vma_idx, start)
    async with at(again, OverviewPlace()) as pilot:
        await press(pilot, "g")
        assert f"folio {LARGE:#x}" in text(pilot)
        await press(pilot, "enter")
        assert place_of(pilot) == FolioPlace(LARGE)
    for pfn in range(100):
        again.went_to(FolioPlace(pfn))
    assert len(_broken().places_kept()) == KEPT
    (kept,) = (tmp_path / "kept").glob("dump-*.json")
    for words in ("folio zz", "folio 0x" + "f" * 30, "mm", "vma 1", "file -1", "\t", "slot 0x99 1", "nothing 1"):
        kept.write_text(json.dumps({"places": [words, 5]}))
        assert _broken().places_kept() == []
    kept.unlink()
    assert _broken().places_kept() == []


def _vma() -> Place:
    s = session_of("7.3").snapshot
    mm = int(np.flatnonzero(s.mms.pid == 203)[0])
    row = int(np.flatnonzero(s.vmas.mm_idx == mm)[0])
    return VmaPlace(mm, row, int(s.vmas.start[row]))


@pytest.mark.parametrize("words", ["0x13d60", "203", "cpus", "203:{start:#x}", "lazyfree", "nothing at all"])
async def test_it_begins_at_the_place_that_is_named(words: str) -> None:
    session = session_of("7.3")
    vma = _vma()
    assert isinstance(vma, VmaPlace)
    wanted = {
        "0x13d60": FolioPlace(LARGE),
        "203": MmPlace(vma.mm_idx),
        "lazyfree": MmPlace(vma.mm_idx),
        "cpus": SubjectPlace("cpus"),
        "203:{start:#x}": vma,
    }.get(words, OverviewPlace())
    app = FolioscopeApp(session, asked=words.format(start=vma.va))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert place_of(pilot) == wanted
        assert ("nothing of this target is called so" in text(pilot)) == (wanted == OverviewPlace())


def test_the_prompt_has_the_object_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of("7.3")
    seen: list[dict[str, object]] = []

    def run(prog: drgn.Program, *, banner_func: object, globals_func: object, quiet: bool) -> None:
        assert quiet and callable(banner_func) and callable(globals_func)
        seen.append(globals_func({"prog": prog}))
        assert "Ctrl+D" in banner_func("")

    monkeypatch.setattr(drgn.cli, "run_interactive", run)
    s = session.snapshot
    for place, name, address in (
        (FolioPlace(LARGE + 1), "folio", s.layout.memmap.page_addr(LARGE)),
        (FolioPlace(LARGE + 1), "page", s.layout.memmap.page_addr(LARGE + 1)),
        (MmPlace(3), "mm", int(s.mms.addr[3])),
        (_vma(), "mm", None),
    ):
        session.prompt(session.bound(place))
        bound = seen[-1][name]
        assert isinstance(bound, drgn.Object)
        assert address is None or bound.value_() == address
    open_prompt(s.target, {"odd": ("struct that_never_was", 1)})
    assert seen[-1]["odd"] == 1


async def test_a_prompt_without_a_terminal_says_so() -> None:
    async with at(session_of("7.3"), FolioPlace(LARGE)) as pilot:
        await press(pilot, "D")
        assert "no terminal for a prompt" in text(pilot)
