"""A question about one thing reads little, and nothing that grows with the rest of memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inspector.check.run import prepare
from inspector.places.processes import aim_at_mm
from inspector.report.anon_vma import aim_at_family, build_anon_vma
from inspector.report.file import aim_at_file, build_file
from inspector.report.processes import build_vmas
from inspector.report.swap import build_slot
from inspector.report.va import build_aimed_va
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, core_path, sound

MOST = {"vmas": 0.5, "swap": 1.5, "va": 4.0, "anon-vma": 5.0, "file": 7.5}
"""Megabytes that each may read beside the tasks, all of which are searched for names. The last three are asked here
about what some 150 processes share: each of these costs a few nodes and page-table entries, and those of a file are
read twice, once to know the pages and once to count, so that none need be kept."""


def bytes_read(s: Snapshot, ask: Callable[[Snapshot], object]) -> int:
    """How much of the target's memory a question reads."""
    read: list[int] = []
    s.layout.memory.on_read = lambda _address, size, _physical: read.append(size)
    ask(s)
    s.layout.memory.on_read = None
    return sum(read)


def questions(s: Snapshot) -> dict[str, Callable[[Snapshot], object]]:
    """One of each sort, about something that several processes share."""
    links = s.links.take(np.flatnonzero(s.links.is_anon))
    pid = int(s.mms.pid[s.mms.pid >= 0][-1])
    anon_vma = int(s.vmas.anon_vma[s.vmas.anon_vma != 0][-1])
    row = int(np.flatnonzero(s.swap.slots.count == 2)[0])
    slot = f"{int(s.swap.devices.type_[s.swap.slots.device_idx[row]])}:{int(s.swap.slots.offset[row])}"
    mapped = s.file_rmap.address_space_of_vma
    file = hex(int(s.file_rmap.address_spaces.addr[np.bincount(mapped[mapped >= 0]).argmax()]))
    mm, va = int(s.mms.addr[s.vmas.mm_idx[links.vma_idx[-1]]]), int(links.va[-1])
    return {
        "vmas": lambda s: build_vmas(aim_at_mm(s, pid), 0),
        "va": lambda s: build_aimed_va(s, mm, va, None),
        "anon-vma": lambda s: build_anon_vma(*aim_at_family(s, anon_vma)),
        "file": lambda s: build_file(aim_at_file(s, file), 0),
        "swap": lambda s: build_slot(s, slot),
    }


@pytest.mark.parametrize("kernel", KERNELS)
def test_questions_read_little(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    s = sound(core_path("fixture", kernel))
    whole = bytes_read(Snapshot(s.target), lambda s: prepare(s, lambda *_: None))
    costs = {}
    for name, ask in questions(s).items():
        one = Snapshot(s.target)
        assert len(one.tasks)
        costs[name] = bytes_read(one, ask)
    with capsys.disabled():
        print(f"\n  {kernel}: all {whole / 1e6:.1f} MB; " + ", ".join(f"{k} {v / 1e6:.2f}" for k, v in costs.items()))
    assert not {name: cost for name, cost in costs.items() if cost > MOST[name] * 1e6}
    assert sum(costs.values()) < whole
