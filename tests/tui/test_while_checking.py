"""What can be browsed while the check runs: screens do not wait for it, and it ends with the interface."""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Event, Thread, get_ident
from typing import Any

import numpy as np
import pytest

from inspector.check import confirm
from inspector.check.run import run_check
from inspector.findings import Report
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.fixtures import fixture_path
from tests.tui.driving import press, settle, text
from tui.app import FolioscopeApp
from tui.places import OverviewPlace
from tui.screens.mm import MmScreen
from tui.screens.processes import ProcessesScreen
from tui.screens.vma import VmaScreen
from tui.session import Session, StoppedError


class Nothing:
    """What is found where nothing is kept."""

    def gathered(self) -> None:
        """Nothing."""

    def merge(self, gathered: None) -> None:
        """Nothing to take in."""


def fresh() -> Snapshot:
    return Snapshot(open_core(str(fixture_path("7.3")), types="btf"))


class Held:
    """A check that stops after the first tables until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go = Event(), Event()

    def __call__(self, snapshot: Snapshot, *rules: Any, **how: Any) -> Report:
        assert snapshot.folios is not None and snapshot.vmas is not None
        self.reached.set()
        while not self.go.is_set():
            # What a long step does between two reads.
            snapshot.layout.memory.read(snapshot.layout.memmap.page_addr(0), 64)
            time.sleep(0.001)
        return run_check(snapshot, *rules, **how)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    check = Held()
    monkeypatch.setattr(confirm, "run_check", check)
    return check


def test_others_get_what_is_built_and_build_the_rest_beside_the_check(held: Held) -> None:
    session = Session(fresh())
    checker = Thread(target=session.check)
    checker.start()
    assert held.reached.wait(60)
    session.wait_for_tables(lambda: False)
    with session.lock:
        beside = session.snapshot
        whole = session.opened
        assert whole is not None and beside is not whole
        assert beside.vmas is whole.vmas
        assert beside.pages is whole.pages
        assert len(beside.anon_rmap.anon_vmas)
        assert "anon_rmap" not in vars(whole)
    held.go.set()
    checker.join()
    assert session.snapshot is session.opened is whole
    assert session.report is not None
    assert session.report.exit_code == 0
    assert whole.layout.memory.on_read is None


def test_a_worker_waits_for_the_first_tables_unless_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    session, opened = Session(opener=lambda: fresh()), Event()
    monkeypatch.setattr(session, "_opener", lambda: (opened.wait(60), fresh())[1])
    checker = Thread(target=session.check)
    checker.start()
    while not session.is_checking:
        time.sleep(0.001)
    assert session.is_early
    with pytest.raises(StoppedError):
        session.wait_for_tables(lambda: True)
    opened.set()
    session.wait_for_tables(lambda: False)
    assert not session.is_early
    checker.join()


def test_closing_ends_the_check_inside_a_step(held: Held) -> None:
    session, ended = Session(fresh()), []

    def check() -> None:
        with pytest.raises(StoppedError):
            session.check()
        ended.append(True)

    checker = Thread(target=check)
    checker.start()
    assert held.reached.wait(60)
    session.closed = True
    checker.join(30)
    assert ended, "it reads on"
    assert not session.is_checking


def test_closing_ends_the_check_between_pieces_of_a_table() -> None:
    s = fresh()
    session, seen = Session(s), []

    def look(numbers: Iterable[int]) -> None:
        for number in numbers:
            seen.append(number)
            session.closed = True

    s.between_pieces = session._between_steps
    with pytest.raises(StoppedError):
        s.share_out(3, look, Nothing(), 9, lambda: None)
    assert seen == [0]


def test_every_check_asks_between_pieces() -> None:
    s, asked = fresh(), []
    s.between_pieces = lambda: asked.append(True)
    run_check(s)
    assert asked


def test_the_check_rests_while_a_key_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(fresh())
    monkeypatch.setattr(session, "_checker", get_ident())

    def rested() -> float:
        began = time.monotonic()
        session._between_steps()
        return time.monotonic() - began

    assert rested() < 0.05
    session.answer()
    assert rested() > 0.05
    session.answer()
    assert rested() < 0.05, "a key that is held down stops the check"
    time.sleep(0.15)
    session.answer()
    assert rested() > 0.05
    monkeypatch.setattr(session, "_checker", None)
    session.answer()
    assert rested() < 0.05, "only the check rests"


async def test_keys_let_the_check_rest(held: Held) -> None:
    app = FolioscopeApp(Session(fresh()), OverviewPlace())
    async with app.run_test(size=(160, 45)) as pilot:
        before = app.session._answering_until
        await pilot.press("down")
        assert app.session._answering_until > max(before, 0.0)
        held.go.set()


async def test_processes_and_their_vmas_are_shown_while_the_check_runs(held: Held) -> None:
    app = FolioscopeApp(Session(opener=fresh), OverviewPlace())

    async def loaded(kind: type) -> Any:
        for _ in range(600):
            await pilot.pause(0.05)
            if isinstance(app.screen, kind) and getattr(app.screen, "data", None) is not None:
                return app.screen
        raise AssertionError(text(pilot))

    async with app.run_test(size=(160, 45)) as pilot:
        for _ in range(600):
            await pilot.pause(0.05)
            if held.reached.is_set() and "Linux 7.3" in text(pilot) and "Largest processes" in text(pilot):
                break
        await pilot.press("3")
        await loaded(ProcessesScreen)
        await pilot.pause(0.1)
        assert app.session.report is None
        assert "keeper" in text(pilot)
        assert text(pilot).replace("? Help", "").count(" ? ") > 3, "what takes all page tables is open"
        await pilot.press("down", "enter")
        mm = await loaded(MmScreen)
        assert len(mm.data.rows)
        busiest = int(np.bincount(mm.data.alone.mappings.vma_idx).argmax())
        app.go(mm.data.rows.place(busiest))
        vma = await loaded(VmaScreen)
        assert len(vma.data.rows)
        assert set(vma.data.alone.mms.addr.tolist()) < set(app.session.snapshot.mms.addr.tolist())
        assert app.session.report is None
        held.go.set()
        for _ in range(1200):
            await pilot.pause(0.05)
            if app.session.report is not None:
                break
        await pilot.pause(0.3)
        await settle(pilot)
        await press(pilot, "3")
        assert isinstance(app.screen, ProcessesScreen)
        assert not app.screen._is_partial
        assert "?" not in text(pilot).replace("? Help", "")


async def test_quitting_does_not_wait_for_the_check(held: Held) -> None:
    app = FolioscopeApp(Session(opener=fresh))
    async with app.run_test(size=(80, 24)) as pilot:
        while not held.reached.is_set():
            await pilot.pause(0.05)
    assert app.session.closed
    for _ in range(200):
        if not app.session.is_checking:
            break
        time.sleep(0.05)
    assert not app.session.is_checking
