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
from tests.tui.driving import at, lines, press
from tests.tui.scenes import DIALOGS, broken, places
from tests.tui.test_looks import SCREENS


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
    terminal.settle(0.5)
    assert b"consistent" in terminal.seen[seen:]
    terminal.press("\x03")
    assert b"once more" in terminal.seen[seen:]
    terminal.press("\x03\x03")
    assert terminal.ended()


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
        await press(pilot, *keys)


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
async def test_the_verdict_is_never_cut(width: int) -> None:
    session = broken("mapcount")
    async with at(session, places(session)["findings"], (width, 12)) as pilot:
        first = lines(pilot)[0]
        assert first.rstrip().endswith("✗ 1 finding")
        assert all(str(n) in first for n in range(1, 6))
