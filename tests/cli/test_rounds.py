"""Checks that are made again and again: watch and guard, without a guest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inspector.check import confirm
from inspector.cli.params import Settings
from inspector.snapshot import Snapshot
from inspector.target.qmp import pause_of
from inspector.target.target import Target, open_core
from tests.cli.conftest import Run
from tests.faults.overlay import core_path, opened, sound
from tests.unit.test_qmp import FakeQemu

PATH = core_path("fixture", "7.3")
RULE = "vm-counters-mismatch"


class Guest:
    """A fixture as a guest; a counter is wrong while its CPUs were let run on so many times."""

    def __init__(self, wrong: range) -> None:
        s = sound(PATH)
        self.qemu = FakeQemu()
        row = int(np.argmax(s.mms.pid))
        self.pid = int(s.mms.pid[row])
        offset = s.layout.struct("struct mm_struct").field("total_vm").offset
        at = int(s.mms.addr[row]) + offset - s.layout.memory.direct_map_base
        stored = s.layout.memory.read(at, 8, physical=True)
        assert stored is not None
        target = opened(PATH)

        def read(_address: int, count: int, offset: int, _physical: bool) -> bytes:
            raised = (int.from_bytes(stored, "little") + 1).to_bytes(8, "little")
            return (raised if self.qemu.commands.count("cont") in wrong else stored)[offset : offset + count]

        target.prog.add_memory_segment(at, 8, read, True)
        self.target: Target = replace(target, kind="qemu", monitor=self.qemu.monitor)


@pytest.fixture
def guest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    made = Guest(request.param)
    monkeypatch.setattr(Settings, "open", lambda _settings: made.target)
    monkeypatch.setattr(confirm, "FIRST_GAP", 0.01)
    yield made
    made.qemu.close()


@pytest.mark.parametrize("guest", [range(2, 9)], indirect=True)
def test_guard_ends_at_the_first_finding_and_keeps_a_capture(guest: Guest, run: Run, tmp_path: Path) -> None:
    words = ("--qemu", "x", "--every", "0", "--until-finding", "--keep", str(tmp_path / "kept"), "--format", "json")
    result = run("guard", *words)
    assert (result.code, result.err) == (1, "")
    rounds = [json.loads(line) for line in result.out.splitlines()]
    assert [(r["number"], r["exit_code"], len(r["new"])) for r in rounds] == [(1, 0, 0), (2, 0, 0), (3, 1, 1)]
    assert all(r["paused_seconds"] > 0 for r in rounds)
    assert guest.qemu.running
    kept = list((tmp_path / "kept").iterdir())
    assert [str(path) for path in kept] == [rounds[-1]["captured"]]
    again = run("check", "-c", str(kept[0]), "--format", "json")
    assert [(f["rule"], f["subject"]["pid"]) for f in again.object["findings"]] == [(RULE, guest.pid)]
    assert not open_core(str(kept[0])).ran_on, "it is of one moment"


@pytest.mark.parametrize("guest", [range(1)], indirect=True)
def test_guard_can_leave_the_guest_at_the_finding(guest: Guest, run: Run) -> None:
    assert run("guard", "--qemu", "x", "--until-finding", "--stay-stopped").code == 1
    assert not guest.qemu.running


@pytest.mark.parametrize("guest", [range(1, 2)], indirect=True)
def test_guard_goes_on_and_shows_what_is_gone_and_what_it_cost(guest: Guest, run: Run) -> None:
    result = run("guard", "--qemu", "x", "--every", "0", "--rounds", "3")
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert sum(RULE in line for line in lines) == 2
    assert any(line.startswith(f"  gone: {RULE}") for line in lines)
    assert lines[-1].startswith("3 rounds in ")
    assert "the guest was stopped for " in lines[-1]
    assert guest.qemu.running


@pytest.mark.parametrize("guest", [range(0)], indirect=True)
def test_watch_never_stops_the_guest(guest: Guest, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.nice", lambda _by: 0)
    result = run("watch", "--qemu", "x", "--every", "0", "--rounds", "2", "--format", "json")
    assert (result.code, result.err) == (0, "")
    rounds = [json.loads(line) for line in result.out.splitlines()]
    assert [(r["exit_code"], r["paused_seconds"], r["confirmation"]["looks"]) for r in rounds] == [(0, None, 1)] * 2
    assert guest.qemu.commands == []


@pytest.mark.parametrize("guest", [range(9)], indirect=True)
def test_watch_ends_at_a_finding_that_stays(guest: Guest, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.nice", lambda _by: 0)
    result = run("watch", "--qemu", "x", "--until-finding", "--confirm", "2")
    assert result.code == 1
    assert f"pid {guest.pid}" in result.out
    assert "1 finding, 1 new (2 looks " in " ".join(result.out.split())


def test_what_cannot_be_watched_or_stopped_is_refused(run: Run) -> None:
    assert run("guard").code == 2
    assert run("watch", "-c", PATH).code == 2
    assert run("watch", "--qemu", "x", "--pause").code == 2
    assert run("check", "-c", PATH, "--pause").code == 2
    assert run("check", "--confirm", "1", "-c", PATH).code == 2


@pytest.mark.parametrize("guest", [range(0)], indirect=True)
def test_a_guest_that_is_stopped_is_not_watched(guest: Guest, run: Run) -> None:
    guest.target = replace(guest.target, is_paused=True)
    result = run("watch", "--qemu", "x")
    assert result.code == 3
    assert "the guest is stopped" in result.err


@pytest.mark.parametrize("guest", [range(0)], indirect=True)
def test_a_guest_that_is_stopped_has_one_reader(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.snapshot.default_workers", lambda: 4)
    with pause_of(guest.qemu.monitor) as pause:
        assert Snapshot(guest.target.paused(pause)).nr_workers == 1
