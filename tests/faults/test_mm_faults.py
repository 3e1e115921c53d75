"""What the rules of mms say in evidence, and where the kernel's own order of work must keep them silent."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.columns import rows_of
from inspector.snapshot import Snapshot
from inspector.tables.mm_holders import KHUGEPAGED, LAZY
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, Patch, add, core_path, only_finding, put, slugs, sound


@pytest.fixture(params=KERNELS)
def path(request: pytest.FixtureRequest) -> str:
    return core_path("fixture", request.param)


def _count(s: Snapshot, mm: int) -> int:
    return int(s.mms.addr[mm]) + s.layout.struct("struct mm_struct").field("mm_count.counter").offset


def _idled_on(s: Snapshot) -> tuple[int, int]:
    """An mm that an idle CPU is on, and the idle task."""
    holders = s.mm_holders
    lazy = np.flatnonzero((holders.kind == LAZY) & (rows_of(s.mms.addr, holders.mm) >= 0))
    assert len(lazy)
    return int(rows_of(s.mms.addr, holders.mm)[lazy[0]]), int(holders.addr[lazy[0]])


def _lowered(s: Snapshot, mm: int) -> Patch:
    held = int((rows_of(s.mms.addr, s.mm_holders.mm) == mm).sum())
    return put(s, _count(s, mm), held, 4)


def test_evidence_names_the_kinds_of_holders(path: str) -> None:
    s = sound(path)
    mm, _ = _idled_on(s)
    found = only_finding(path, "mm-count-low", _lowered(s, mm))
    assert found.exactness == "bound"
    assert found.expected["at_least"] == int(found.observed["mm_count"] or 0) + 1
    facts = found.evidence.facts
    assert facts["lazy"] == 1
    assert int(facts["mm_users"] or 0) > 0
    assert set(facts) >= {"lazy", "borrowed", "ksm", "khugepaged", "userfaultfd"}


def test_a_cpu_in_the_middle_of_a_switch_is_not_looked_at(path: str) -> None:
    """context_switch() hands active_mm on before it counts it: a second task is still on the CPU then."""
    s = sound(path)
    mm, idle = _idled_on(s)
    on_cpu = s.layout.struct("struct task_struct").field("on_cpu").offset
    mine = _lowered(s, mm)
    cpu = int(np.flatnonzero(_current(s) == idle)[0])
    leaving = np.flatnonzero((s.tasks.mm == 0) & (s.tasks.cpu == cpu) & (s.tasks.active_mm == 0))
    assert len(leaving)
    assert slugs(path, mine, put(s, int(s.tasks.addr[leaving[0]]) + on_cpu, 1, 4)) == []
    assert slugs(path, mine, put(s, idle + on_cpu, 0, 4)) == []


def _current(s: Snapshot) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """What each CPU runs."""
    base = s.layout.per_cpu_offsets + np.uint64(s.layout.symbol("runqueues"))
    at = base + np.uint64(s.layout.struct("struct rq").field("curr").offset)
    return s.layout.memory.gather(at, 8).bytes.view(np.uint64).reshape(-1)


def test_idle_tasks_are_holders_of_what_they_run_on(path: str) -> None:
    s = sound(path)
    lazy = s.mm_holders.addr[s.mm_holders.kind == LAZY]
    assert np.isin(lazy, _current(s)).all()
    assert not np.isin(lazy, s.tasks.addr[s.tasks.mm != 0]).any()


def test_khugepaged_knows_mms_that_are_alive(path: str) -> None:
    s = sound(path)
    known = s.mm_holders.mm[s.mm_holders.kind == KHUGEPAGED]
    assert len(known) == len(np.unique(known))
    assert (rows_of(s.mms.addr, known) >= 0).all()


def test_a_task_without_an_mm_of_its_own_is_named_with_what_it_stored(path: str) -> None:
    s = sound(path)
    fault = CATALOGUE["mm-of-a-task-points-elsewhere"](s)
    found = only_finding(path, "task-mm-invalid", *fault.patches)
    assert found.subject.kind == "task"
    assert found.subject.pid in s.tasks.pid.tolist()
    assert set(found.observed) == {"mm"}
    assert int(found.observed["mm"] or 0) - 64 in s.mm_slots.tolist()
    assert f"--stack {found.subject.pid}" in found.look


def test_a_user_more_than_tasks_is_no_finding(path: str) -> None:
    s = sound(path)
    users = s.layout.struct("struct mm_struct").field("mm_users.counter").offset
    assert slugs(path, add(s, int(s.mms.addr[3]) + users, 1, 4)) == []
    assert slugs(path, add(s, _count(s, 3), 1, 4)) == []
