"""Deposited page tables: whose they are, and when a ring may be one short."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.findings import Finding
from inspector.rules.page_tables.deposits import DepositsDue
from inspector.walk.deposits import SOUND
from tests.faults.overlay import KERNELS, core_path, put, sound
from tests.faults.table_catalogue import pointer_of
from tests.faults.test_windows import SPLIT, on_cpu, task_of, told


@pytest.fixture(params=KERNELS)
def path(request: pytest.FixtureRequest) -> str:
    return core_path("fixture", str(request.param))


def test_huge_pages_of_files_have_no_table_deposited(path: str) -> None:
    s = sound(path)
    due = DepositsDue(s).due(s.mappings)
    huge = (s.mappings.level == Level.PMD) & s.mappings.counted
    files = huge & (s.vmas.ops != 0)[np.maximum(s.mappings.vma_idx, 0)]
    assert (huge & due).any()
    assert files.any()
    assert not (files & due).any()
    d = s.deposits
    assert (d.state == SOUND).all()
    assert int(d.count.sum()) == len(d.pfn) == int((huge & due).sum())
    # What is deposited is no table of any address space.
    assert not np.isin(d.pfn, s.tables.pfn).any()


def test_a_ring_is_one_short_only_while_somebody_splits(path: str) -> None:
    s = sound(path)
    d = s.deposits
    tasks = s.mms.nr_tasks[s.tables.mm_idx[d.rows]]
    table = int(d.rows[np.flatnonzero((d.count == 1) & (tasks == 1))[0]])
    emptied = [put(s, pointer_of(s, int(s.tables.pfn[table])), 0)]

    def graded(found: list[Finding]) -> list[tuple[str, str, str]]:
        return [(f.severity, f.exactness, str(f.evidence.facts.get("in_flight", ""))) for f in found if f.rule in rules]

    rules = {"deposited-tables-mismatch"}
    assert graded(told(path, emptied)) == [("fail", "exact", "")]
    task = task_of(s, int(s.tables.mm_idx[table]))
    patches, note = on_cpu(s, task, SPLIT)
    ((severity, exactness, said),) = graded(told(path, emptied + patches, note))
    assert (severity, exactness) == ("info", "transient")
    assert "(W10)" in said
    # A split in a process of its own explains nothing here.
    others = np.flatnonzero((s.mms.nr_tasks > 0) & (np.arange(len(s.mms)) != s.tables.mm_idx[table]))
    patches, note = on_cpu(s, task_of(s, int(others[0])), SPLIT)
    assert [x[0] for x in graded(told(path, emptied + patches, note))] == ["fail"]
