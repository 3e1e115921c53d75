"""A kernel with PREEMPT_RT, stopped while everything races.

Spinlocks sleep there, so that many tasks at once stand between two stores; the last reference of an mm that the
scheduler drops waits for RCU.
"""

from __future__ import annotations

from inspector.check.run import run_check
from inspector.windows.catalogue import WINDOWS
from tests.faults.overlay import add, planted, sound
from tests.faults.plants import mapcount_at, page_at_rest
from tests.fixtures import RT_FIXTURE


def test_it_is_silent_while_it_races() -> None:
    report = run_check(sound(RT_FIXTURE))
    assert report.coverage.complete
    assert {f.severity for f in report.findings} == {"info"}


def test_more_tasks_stand_in_windows_than_there_are_processors() -> None:
    s = sound(RT_FIXTURE)
    tasks = {int(task) for task in s.in_flight.task_idx if not s.stacks.running[task]}
    spinning = {int(s.in_flight.task_idx[row]) for row, w in enumerate(s.in_flight.window) if WINDOWS[w].spinning}
    assert len(tasks & spinning) > 2


def test_top_tables_of_mms_that_wait_for_rcu_are_not_lost() -> None:
    lost = sound(RT_FIXTURE).lost_tables
    assert lost.counts["RCU"] >= 2
    assert not len(lost.row)


def test_a_wrong_count_of_memory_at_rest_is_found() -> None:
    s = sound(RT_FIXTURE)
    page = page_at_rest(s)
    assert page is not None
    found = run_check(planted(RT_FIXTURE, add(s, mapcount_at(s, page), 1, 4))).findings
    assert [f.rule for f in found if f.severity != "info"] == ["mapcount-too-high"]
