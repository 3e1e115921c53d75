"""A kernel with PREEMPT_RT, stopped while everything races.

Spinlocks sleep there, so that many tasks at once stand between two stores; the last reference of an mm that the
scheduler drops waits for RCU.
"""

from __future__ import annotations

import numpy as np

from inspector.check.run import run_check
from inspector.columns import rows_of
from inspector.snapshot import Snapshot
from inspector.windows.catalogue import WINDOWS
from inspector.windows.locks import mm_in_flight
from tests.faults.overlay import add, planted, sound
from tests.faults.plants import mapcount_at, small_anon
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
    found = run_check(planted(RT_FIXTURE, add(s, mapcount_at(s, _at_rest(s)), 1, 4))).findings
    assert [f.rule for f in found if f.severity != "info"] == ["mapcount-too-high"]


def _at_rest(s: Snapshot) -> int:
    """Row of a small anonymous page of an mm that nothing works on, nor on any other mm of its family."""
    m, calm = s.mappings, ~(s.mm_in_motion | mm_in_flight(s))
    for mms in s.in_flight.mms:
        calm[mms] = False
    small = np.zeros(len(s.pages), np.bool_)
    small[small_anon(s, 1)] = True
    anon_vmas, v = s.anon_rmap.anon_vmas, s.vmas
    root = anon_vmas.root[np.maximum(rows_of(anon_vmas.addr, v.anon_vma), 0)]
    busy = np.unique(root[(v.anon_vma != 0) & ~calm[v.mm_idx]])
    rows = np.flatnonzero(calm[m.mm_idx] & (m.page_row >= 0) & small[np.maximum(m.page_row, 0)])
    rows = rows[~np.isin(root[np.maximum(m.vma_idx[rows], 0)], busy)]
    return int(m.page_row[rows[len(rows) // 2]])
