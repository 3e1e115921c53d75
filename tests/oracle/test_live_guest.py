"""A running guest: from outside, also with five levels of page tables and isolated ones; stopped; and from inside."""

from __future__ import annotations

import pytest

from inspector.check.confirm import check_target
from inspector.snapshot import Snapshot
from inspector.target.qmp import pause_of
from inspector.target.target import open_qemu
from tests.guests.inside import checks_inside
from tests.guests.live import running_guest
from tests.guests.qemu import Guest

LOOKS = 3
FOUR_LEVELS, FIVE_LEVELS = "max,la57=off", "max"


@pytest.mark.guest
def test_five_levels_and_isolated_page_tables_are_consistent(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Guest._arguments

    def arguments(guest: Guest) -> list[str]:
        words = [FIVE_LEVELS if word == FOUR_LEVELS else word for word in plain(guest)]
        words[words.index("-append") + 1] += " pti=on"
        return words

    monkeypatch.setattr(Guest, "_arguments", arguments)
    with running_guest("7.3", is_busy=False) as socket:
        snapshot = Snapshot(open_qemu(str(socket)))
        assert [shape.level.name for shape in snapshot.layout.arch.shapes] == ["PGD", "P4D", "PUD", "PMD", "PTE"]
        report = check_target(snapshot, looks=LOOKS)
    assert [f.rule for f in report.findings] == []
    assert report.exit_code == 0
    assert int(report.summary["leaf_entries"] or 0) > 20_000


@pytest.mark.guest
@pytest.mark.race
def test_the_running_kernel_is_silent_from_inside_and_needs_root() -> None:
    *as_root, as_nobody = checks_inside("7.3", LOOKS)
    assert len(as_root) == LOOKS
    assert [(c["code"], c["findings"], c["stderr"]) for c in as_root] == [(0, [], [])] * LOOKS
    assert all(c["confirmation"]["looks"] > 1 for c in as_root)
    assert as_nobody["code"] == 3
    (line,) = as_nobody["stderr"]
    assert line.startswith("folioscope: error: the running kernel may not be read: /proc/kcore. Run as root")


@pytest.mark.guest
@pytest.mark.race
def test_a_kernel_locked_down_for_confidentiality_is_one_clear_line() -> None:
    for check in checks_inside("7.3", 1, "lsm=lockdown lockdown=confidentiality"):
        assert check["code"] == 3
        (line,) = check["stderr"]
        assert "/proc/kcore" in line
        assert "locked down for confidentiality" in line


@pytest.mark.guest
@pytest.mark.race
def test_a_racing_guest_is_silent_in_looks_and_when_it_is_stopped() -> None:
    with running_guest("7.3", is_busy=True) as socket:
        target = open_qemu(str(socket), types="btf")
        for _ in range(LOOKS):
            report = check_target(Snapshot(target))
            assert [f.rule for f in report.findings if f.severity != "info"] == []
            assert report.confirmation is not None
            assert report.confirmation.dismissed > 0
        for _ in range(LOOKS):
            with pause_of(target.monitor) as pause:
                snapshot = Snapshot(target.paused(pause))
                report = check_target(snapshot)
                assert snapshot.stacks.incomplete == 0
            assert (report.exit_code, report.confirmation) == (0, None)
            assert target.monitor is not None
            assert target.monitor.is_running()
