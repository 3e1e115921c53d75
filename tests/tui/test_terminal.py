"""What terminals do: interrupt, suspend, and be very small."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.bench.terminal import Terminal
from tests.fixtures import fixture_path
from tests.tui.driving import at, lines, place_of, press, text
from tests.tui.scenes import DIALOGS, broken, places
from tests.tui.test_looks import SCREENS
from tui.places import FoliosPlace


def _started() -> Terminal:
    core = str(fixture_path("7.3"))
    terminal = Terminal([sys.executable, "-P", "-m", "inspector", "tui", "-c", core], (80, 24))
    terminal.wait_for(b"consistent")
    return terminal


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_ctrl_c_twice_ends_it_and_ctrl_z_suspends_it() -> None:
    terminal = _started()
    terminal.press("\x1a")
    for _ in range(100):
        if _state(terminal.pid) == "T":
            break
        time.sleep(0.05)
    assert _state(terminal.pid) == "T"
    seen = len(terminal.seen)
    os.kill(terminal.pid, signal.SIGCONT)
    assert terminal.has_written(b"consistent", seen)
    terminal.press("\x03")
    assert terminal.has_written(b"once more", seen)
    terminal.press("\x03\x03")
    assert terminal.ended()


@pytest.mark.long
def test_the_prompt_of_drgn_comes_and_goes() -> None:
    terminal = _started()
    seen = len(terminal.seen)
    terminal.press("D")
    assert terminal.has_written(b">>> ", seen)
    terminal.press("print(42 + prog['init_task'].pid.value_())\r")
    assert terminal.has_written(b"\n42", seen)
    seen = len(terminal.seen)
    terminal.press("\x04")
    assert terminal.has_written(b"consistent", seen)
    terminal.close()


@pytest.mark.parametrize("name", [n for n in (*SCREENS, *DIALOGS) if n != "help"])
async def test_a_terminal_of_ten_lines_is_of_use(name: str) -> None:
    """The verdict is whole, and what the screen is about has lines."""
    scene, keys = DIALOGS.get(name, (name, ()))
    session = broken("mapcount")
    async with at(session, places(session)[scene], (40, 10)) as pilot:
        shown = lines(pilot)
        assert "✗ 1 finding" in shown[0]
        screen = pilot.app.screen
        main = [w for w in screen.query("ColumnTable, CellGrid, Tree, #panels, .finding, #ledger") if w.display]
        assert max(w.region.intersection(screen.region).height for w in main) >= 2
        for table in screen.query("MmScreen #vmas, VmaScreen #entries"):
            assert table.region.intersection(screen.region).height >= 2
        assert name != "folio" or "counters agree" in " ".join(shown)
        await press(pilot, *keys)


async def test_a_verdict_in_the_title_goes_on_below() -> None:
    session = broken("mapcount")
    async with at(session, places(session)["rmap"], (80, 24)) as pilot:
        assert "both views agree: 36 entries" in " ".join(text(pilot).split())
    async with at(session, places(session)["hugetlb"], (80, 24)) as pilot:
        assert "24 total, 6 free, 2 reserved" in " ".join(text(pilot).split())


async def test_pages_of_a_folio_are_seen_on_a_narrow_terminal() -> None:
    session = broken("mapcount")
    async with at(session, places(session)["folio"], (40, 10)) as pilot:
        await press(pilot, "d")
        assert any(line.split()[:1] == ["+0"] for line in lines(pilot))


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
async def test_the_verdict_is_never_cut(width: int) -> None:
    session = broken("mapcount")
    async with at(session, places(session)["findings"], (width, 12)) as pilot:
        first = lines(pilot)[0]
        assert first.rstrip().endswith("✗ 1 finding")
        assert all(str(n) in first for n in range(1, 6))


async def test_every_panel_of_the_overview_is_reached_by_keys() -> None:
    session = broken("mapcount")
    async with at(session, places(session)["overview"], (80, 24)) as pilot:
        reached = []
        for _ in range(5):
            focused = pilot.app.focused
            assert focused is not None
            reached.append(focused.id)
            assert focused.region.intersection(pilot.app.screen.region).height > 0
            await press(pilot, "tab")
        assert {"rules", "kind-bars", "largest", "order-bars"} <= set(reached)
        while pilot.app.focused is None or pilot.app.focused.id != "kind-bars":
            await press(pilot, "tab")
        await press(pilot, "down", "enter")
        assert place_of(pilot) == FoliosPlace("anon")
