"""Dumps that lack slab pages, as makedumpfile makes them of kernels that it does not know."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.columns import U64
from inspector.coverage import Missing
from inspector.errors import Exit, IncompleteError, UsageError
from inspector.layout.offsets import Field
from inspector.lib.partial import gather_members
from inspector.memory import Memory
from inspector.places.processes import aim_at_mm
from inspector.report.info import build_info
from inspector.snapshot import Snapshot
from tests.faults.overlay import sound
from tests.holes import PAGE, with_holes


def physical(s: Snapshot, addresses: U64) -> list[int]:
    """Pages of the direct map that some structs begin in, those of a dump that has them."""
    return sorted({int(a) - s.layout.memory.direct_map_base & -PAGE for a in addresses})


def pid_tree(s: Snapshot) -> U64:
    """The node at the top of the tree of PIDs."""
    member = s.layout.struct("struct pid_namespace").field("idr.idr_rt.xa_head")
    head = s.layout.memory.read_u64(s.layout.symbol("init_pid_ns") + member.offset)
    return np.array([(head or 0) & ~3], np.uint64)


def test_tasks_without_the_tree_of_pids(any_core: str) -> None:
    """They are in the list that begins at init_task and in the slab cache of task_structs."""
    whole = sound(any_core)
    s = with_holes(any_core, physical(whole, pid_tree(whole)))
    assert set(whole.tasks.addr) - set(s.tasks.addr) <= set(whole.tasks.addr[whole.tasks.pid != whole.tasks.tgid])
    assert set(s.tasks.pid) <= set(whole.tasks.pid)
    assert s.missing.counts["tasks"] >= 1
    assert len(s.mms) == len(whole.mms)
    info = build_info(s)
    assert info.missing["tasks"] >= 1
    assert "slab objects are missing" in info.missing_because


def test_what_may_be_lost_does_not_count_as_absent(any_core: str) -> None:
    whole = sound(any_core)
    s = with_holes(any_core, physical(whole, pid_tree(whole)))
    with pytest.raises(IncompleteError, match="Not in the dump: 1 task"):
        aim_at_mm(s, 4_000_000)
    with pytest.raises(UsageError):
        aim_at_mm(whole, 4_000_000)


def test_absent_or_lost() -> None:
    missing, error = Missing(), UsageError("there is no such thing", "x")
    assert missing.unless_lost(error, "mms") is error
    missing.add("mms", 2)
    assert missing.unless_lost(error, "tasks") is error
    assert missing.unless_lost(error, "tasks", "mms").exit_code is Exit.INCOMPLETE


def test_mms_without_their_kmem_cache(any_core: str) -> None:
    """The size of an object follows from those that tasks name and from how many a slab has."""
    whole = sound(any_core)
    cache = np.array([whole.layout.variable("mm_cachep")], np.uint64)
    s = with_holes(any_core, physical(whole, cache))
    assert s.mm_slots.tolist() in (whole.mm_slots.tolist(), [])
    assert set(whole.mms.addr[whole.mms.nr_tasks > 0]) <= set(s.mms.addr)


def test_vmas_of_a_lost_tree(core: Callable[[str], str]) -> None:
    """A vm_area_struct says itself whether it is in use, and of which mm."""
    kernel = "6.12"  # the captures of the others do not hold the variable that names the slab cache
    whole = sound(core(kernel))
    row = int(np.argmax(whole.mms.map_count * (whole.mms.nr_tasks > 0)))
    root = whole.mms.ma_root[row : row + 1] & ~np.uint64(0xFF)
    s = with_holes(core(kernel), physical(whole, root))
    assert len(s.vmas) and s.missing.counts["VMA tree nodes"] >= 1
    mine = whole.vmas.take(whole.vmas.mm_idx == row)
    found = s.vmas.take(s.vmas.mm_idx == row)
    slots = set(s.slots_of_vmas(s.vmas.addr).tolist())
    assert len(slots) > len(whole.vmas) // 2
    assert set(mine.addr.tolist()) & slots <= set(found.addr.tolist())
    assert set(found.addr.tolist()) <= set(mine.addr.tolist())
    assert (np.diff(s.vmas.mm_idx) >= 0).all()


DEPTH = int(os.environ.get("FOLIOSCOPE_DEPTH", "2"))


@pytest.mark.parametrize("seed", range(DEPTH))
@pytest.mark.parametrize("share", [0.003, 0.14, 1.0])
def test_slab_pages_left_out_at_random(any_core: str, share: float, seed: int) -> None:
    """No command crashes, no `fail` comes of it, and what is lost is counted."""
    whole = sound(any_core)
    slabs = np.flatnonzero(np.asarray(whole.page_type_names(np.arange(len(whole.pages))) == "slab"))
    rng = np.random.default_rng(seed)
    some = slabs[rng.random(len(slabs)) < share]
    s = with_holes(any_core, [int(pfn) * PAGE for pfn in whole.pages.memmap.pfns_of_rows(some)])
    report = run_check(s)
    assert [f.rule for f in report.findings if f.severity == "fail"] == []
    assert all(r.reason for r in report.coverage.rules if r.state in ("partial", "not-checked"))
    if share > 0.1:
        assert report.exit_code == Exit.INCOMPLETE


def test_members_of_a_struct_in_part() -> None:
    """A struct over three pages, of which the last is not there: its first members are."""

    class Two:
        def read(self, address: int, size: int, physical: bool = False) -> bytes:
            if address + size > 2 * PAGE or physical:
                raise ValueError
            return (np.arange(address, address + size) % 251).astype(np.uint8).tobytes()

    begin = np.array([100, PAGE - 8, 2 * PAGE - 16], np.uint64)
    raw = gather_members(Memory(Two()), begin, 2 * PAGE, [Field(0, 8), Field(64, 8)])
    assert raw.valid.tolist() == [True, True, False]
    assert raw.bytes[0, :16].tolist() == [(100 + i) % 251 for i in range(16)]
    assert raw.bytes[1, :16].tolist() == [(PAGE - 8 + i) % 251 for i in range(16)]
    assert raw.bytes[0, -1] == 0
