"""A slot that a page fault reads past the swap cache is in flight; the same mark is a warning where nobody does."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from tests.faults.overlay import Patch, add, core_path, put, sound, without_stacks
from tests.faults.swap_plants import slot_address, slots_used_by, users_of
from tests.faults.test_windows import on_cpu, task_of, told

RULE = "swap-slot-user-missing"
FAULT = ("do_swap_page",)


@pytest.fixture(params=["6.1", "6.12"])
def path(request: pytest.FixtureRequest) -> str:
    """Dumps of kernels that mark cached slots in their maps."""
    return core_path("fixture", str(request.param))


def _marked(s: Snapshot) -> tuple[int, Patch]:
    """The mm of a slot's only user, and the mark that swapcache_prepare() sets."""
    row = int(slots_used_by(s, users=1, cached=False)[0])
    return int(s.nonpresent.mm_idx[users_of(s, row)[0]]), add(s, slot_address(s, row), 0x40, 1)


def test_slot_that_its_user_reads(path: str) -> None:
    s = sound(path)
    mm, mark = _marked(s)
    patches, note = on_cpu(s, task_of(s, mm), FAULT)
    found = told(path, [mark, *patches], note)
    assert [(f.rule, f.severity) for f in found] == [(RULE, "info")]
    assert "do_swap_page" in str(found[0].evidence.facts["in_flight"])


def test_slot_while_somebody_else_reads_another(path: str) -> None:
    s = sound(path)
    mm, mark = _marked(s)
    other = int(np.flatnonzero((s.mms.nr_tasks > 0) & (np.arange(len(s.mms)) != mm))[3])
    patches, note = on_cpu(s, task_of(s, other), FAULT)
    found = told(path, [mark, *patches], note)
    assert [(f.rule, f.severity) for f in found] == [(RULE, "warn")]


def test_slot_of_a_device_that_is_read_through_the_cache(path: str) -> None:
    """Only devices that answer at once are read past it (SWP_SYNCHRONOUS_IO)."""
    s = sound(path)
    mm, mark = _marked(s)
    patches, note = on_cpu(s, task_of(s, mm), FAULT)
    field = s.layout.struct("struct swap_info_struct").field("flags")
    device = int(s.swap.devices.addr[0]) + field.offset
    slow = put(s, device, int(s.swap.devices.flags[0]) & ~(1 << 12), field.size)
    found = told(path, [mark, slow, *patches], note)
    assert [(f.rule, f.severity) for f in found] == [(RULE, "warn")]


def test_slot_where_no_stack_is_known(path: str) -> None:
    _, mark = _marked(sound(path))
    found = run_check(without_stacks(path, mark)).findings
    assert [(f.rule, f.severity) for f in found] == [(RULE, "info")]
