"""A running guest, attached from outside: five levels of page tables, and page-table isolation."""

from __future__ import annotations

import pytest

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from inspector.target.target import open_qemu
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
        # The guest runs on between two reads: what a look finds must be gone in another.
        looks = 1
        while (report := run_check(snapshot)).findings and looks < LOOKS:
            snapshot, looks = Snapshot(snapshot.target), looks + 1
    assert [f.rule for f in report.findings] == []
    assert report.exit_code == 0
    assert int(report.summary["leaf_entries"] or 0) > 20_000
