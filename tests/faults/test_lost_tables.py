"""Page tables that hang nowhere: each place that a table may wait in accounts for it, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from inspector.tables.stacks import stack_words
from inspector.walk.lost_tables import LostTables
from inspector.windows.catalogue import TABLE_HOLDERS
from tests.faults.overlay import KERNELS, Patch, core_path, planted, put, sound, word
from tests.faults.plants import pick
from tests.faults.table_catalogue import new_table
from tests.faults.test_windows import on_cpu, told


@pytest.fixture(params=KERNELS)
def path(request: pytest.FixtureRequest) -> str:
    return core_path("fixture", str(request.param))


def orphans(path: str, *patches: Patch) -> LostTables:
    return planted(path, *patches).lost_tables


def batch(s: Snapshot, tables: list[int], following: int = 0) -> tuple[int, list[Patch]]:
    """A struct mmu_table_batch with these tables, written over a page table of some process: its address."""
    struct = s.layout.struct("struct mmu_table_batch")
    pfn = int(s.tables.pfn[pick(np.flatnonzero(s.tables.level == 1), "a page table", 40)])
    address = s.layout.memory.direct_map_base + (pfn << 12)
    head = struct.find("rcu")
    patches = [put(s, address + struct.field("nr").offset, len(tables), 4)]
    if head is not None:
        function = s.target.symbol("tlb_remove_table_rcu") or 0
        patches += [put(s, address + head.offset, following), put(s, address + head.offset + 8, function)]
    for i, table in enumerate(tables):
        patches.append(put(s, address + struct.field("tables").offset + 8 * i, s.layout.memmap.page_addr(table)))
    return address, patches


def queue(s: Snapshot, name: str) -> tuple[int, int]:
    """Addresses of the head and the length of the first CPU's list of RCU callbacks."""
    struct = s.layout.struct("struct rcu_data")
    cpu = ((s.target.symbol("rcu_data") or 0) + int(s.layout.per_cpu_offsets[0])) & ((1 << 64) - 1)
    length = struct.field(f"{name}.len.counter", f"{name}.len")
    return cpu + struct.field(f"{name}.head").offset, cpu + length.offset


def test_a_table_that_hangs_nowhere_is_lost(path: str) -> None:
    s = sound(path)
    pfn, typed = new_table(s)
    assert len(s.lost_tables.row) == 0
    assert s.lost_tables.unreadable == 0
    found = orphans(path, typed)
    assert s.pages.memmap.pfns_of_rows(found.row).tolist() == [pfn]
    assert found.counts == s.lost_tables.counts


@pytest.mark.parametrize("name", ["cblist", "nocb_bypass"])
def test_a_table_in_a_batch_that_waits_for_rcu_is_not_lost(path: str, name: str) -> None:
    s = sound(path)
    pfn, typed = new_table(s)
    head, length = queue(s, name)
    address, patches = batch(s, [pfn], word(s, head))
    counted = put(s, length, word(s, length) + 1)
    found = orphans(path, typed, *patches, put(s, head, address), counted)
    assert len(found.row) == 0
    assert found.counts["RCU"] == 1
    assert found.invoked == 0
    # The same list, with another function that frees something else.
    other = put(s, address + 8, s.target.symbol("i_callback") or 0)
    assert len(orphans(path, typed, *patches, other, put(s, head, address), counted).row) == 1


@pytest.mark.each_kernel
def test_a_table_that_waits_for_rcu_alone_is_not_lost(path: str) -> None:
    s = sound(path)
    address = s.target.symbol("pte_free_now")
    if address is None:
        assert "6.1.kdump" in path
        return
    pfn, typed = new_table(s)
    head, length = queue(s, "cblist")
    callback = s.layout.memmap.page_addr(pfn) + s.layout.struct("struct page").field("callback_head").offset
    patches = [put(s, callback, word(s, head)), put(s, callback + 8, address), put(s, head, callback)]
    found = orphans(path, typed, *patches, put(s, length, word(s, length) + 1))
    assert len(found.row) == 0
    assert found.counts["RCU"] == 1


def roomy_frame(s: Snapshot, size: int) -> tuple[int, int]:
    """Row of a task and the lowest address of one of its frames, in which so many bytes can be put."""
    frames = s.stacks.frames
    room = np.zeros(len(frames), np.int64)
    room[:-1] = np.where(frames.task_idx[1:] == frames.task_idx[:-1], np.diff(frames.sp.astype(np.int64)), 0)
    enters = np.array([name == "do_syscall_64" for name in s.stacks.functions])[frames.function]
    # Above are the registers that the function saved, and its return address.
    at = int(np.flatnonzero(~enters & (room >= size + 64) & (frames.depth > 2))[0])
    return int(frames.task_idx[at]), int(frames.sp[at])


def gather_at(s: Snapshot, address: int, mm: int, table_batch: int) -> list[Patch]:
    """An empty mmu_gather with tables waiting, as if on a stack."""
    gather, inner = s.layout.struct("struct mmu_gather"), s.layout.struct("struct mmu_gather_batch")
    local = gather.field("local").offset
    data = bytearray(gather.size)
    for offset, value, size in (
        (0, mm, 8),
        (gather.field("batch").offset, table_batch, 8),
        (gather.field("active").offset, address + local, 8),
        (local + inner.field("max").offset, gather.field("__pages").length, 4),
    ):
        data[offset : offset + size] = value.to_bytes(size, "little")
    pending = s.layout.struct("struct mm_struct").field("tlb_flush_pending.counter", "tlb_flush_pending")
    return [Patch(address, bytes(data)), put(s, mm + pending.offset, 1, pending.size)]


def test_a_table_in_a_gather_is_not_lost(path: str) -> None:
    s = sound(path)
    pfn, typed = new_table(s)
    task, place = roomy_frame(s, s.layout.struct("struct mmu_gather").size)
    address, patches = batch(s, [pfn])
    # Of the task's own mm, and of one that is not its own: exec tears the old one down, mmput() any.
    others = s.mms.addr[(s.mms.addr != s.tasks.mm[task]) & (s.mms.users > 0)]
    own = [int(s.tasks.mm[task])] if s.tasks.mm[task] else []
    for mm in [*own, int(others[3])]:
        found = orphans(path, typed, *patches, *gather_at(s, place, mm, address))
        assert len(found.row) == 0
        assert found.counts["TLB flush"] == 1
        assert len(orphans(path, typed, *patches, *gather_at(s, place, mm, 0)).row) == 1


def test_what_an_earlier_call_left_of_a_gather_holds_nothing(path: str) -> None:
    s = sound(path)
    pfn, typed = new_table(s)
    task, _ = roomy_frame(s, s.layout.struct("struct mmu_gather").size)
    mm = int(s.mms.addr[s.mms.users > 0][3])
    address, patches = batch(s, [pfn])
    below = int(s.tasks.stack[task]) + 0x800
    assert below + 0x400 < int(s.stacks.low[task])
    left = planted(path, typed, *patches, *gather_at(s, below, mm, address))
    assert len(left.lost_tables.row) == 1
    # Its batch was given back: that it cannot be read is no missing data.
    assert planted(path, *gather_at(s, below, mm, 0x123000)).gathers.unreadable == 0


def test_a_table_in_the_hands_of_a_task_is_not_lost(path: str) -> None:
    s = sound(path)
    pfn, typed = new_table(s)
    task = int(np.flatnonzero((s.tasks.mm != 0) & (s.tasks.stack != 0))[5])
    page = s.layout.memmap.page_addr(pfn)
    patches, note = on_cpu(s, task, ("do_huge_pmd_anonymous_page",))
    held = put(s, int(s.stacks.top[task]) - 0xC0, page)
    assert "page-table-unreachable" not in [f.rule for f in told(path, [typed, held, *patches], note)]


def test_a_table_named_by_a_task_that_works_on_none_is_lost(path: str) -> None:
    """What whoever sleeps elsewhere has on its stack may be left over from earlier."""
    s = sound(path)
    pfn, typed = new_table(s)
    frames, names = s.stacks.frames, np.array([name in TABLE_HOLDERS for name in s.stacks.functions])
    busy = np.isin(np.arange(len(s.tasks)), frames.task_idx[names[frames.function]])
    for task in np.flatnonzero(~busy & (s.tasks.mm != 0) & (s.tasks.stack != 0)).tolist():
        places, words = stack_words(s.layout, s.stacks, task)
        if (words == 0).any():
            held = put(s, int(places[words == 0][-1]), s.layout.memmap.page_addr(pfn))
            assert len(orphans(path, typed, held).row) == 1
            return
    raise AssertionError


def test_a_callback_that_is_invoked_just_now_may_be_the_table_s(path: str) -> None:
    s = sound(path)
    pfn, typed = new_table(s)
    _, length = queue(s, "cblist")
    report = run_check(planted(path, typed, put(s, length, word(s, length) + 3)))
    (finding,) = report.findings
    assert (finding.rule, finding.severity, finding.exactness) == ("page-table-unreachable", "info", "transient")
    assert finding.subject.pfn == pfn
    assert "3 RCU callbacks" in str(finding.evidence.facts["in_flight"])
    assert report.exit_code == 0
