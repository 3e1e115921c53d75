"""What CPUs were doing: tasks that were at work, with their stacks, address spaces and folios."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inspector.hex_json import encode_json
from inspector.report import cpus
from inspector.report.screen import Screen
from inspector.tables.cpus import Cpus
from tests.faults.overlay import sound
from tests.fixtures import fixture_path

IN_EXEC = 295
"""A task of the captured dump that was in the middle of an execve()."""


def test_a_task_at_work_is_shown_with_all_that_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    s = sound(str(fixture_path("7.3")))
    task = int(np.flatnonzero(s.tasks.pid == IN_EXEC)[0])
    running = np.array([0, int(s.tasks.addr[task]), 1 << 63], np.uint64)
    none = np.zeros(3, np.bool_)
    read = Cpus(np.arange(3), running, none, np.array([False, True, True]))
    monkeypatch.setattr(cpus, "read_cpus", lambda _layout: read)
    report = cpus.build_cpus(s)
    assert [row.state for row in report.cpus] == ["unknown", "task", "unknown"]
    row = report.cpus[1]
    assert (row.pid, row.comm, [w.window for w in row.windows]) == (IN_EXEC, "in-exec", ["W5"])
    assert row.folios and row.frames
    assert IN_EXEC in [mm.pid for mm in row.mms]
    assert report.waiting == 0
    written = json.loads(encode_json(report))
    assert written["cpus"][1]["folios"][0]["kind"] == row.folios[0].kind
    text = "\n".join(cpus.render_cpus(Screen(), report))
    assert "CPU 1: 295 in-exec" in text
    assert "W5" in text
