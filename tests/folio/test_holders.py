"""The tables of what holds references, on damaged memory and on words made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inspector.capture.blanking import blank_leftovers
from inspector.capture.capture import capture
from inspector.snapshot import Snapshot
from inspector.tables.batches import BATCHES
from inspector.tables.mmu_gather import _entries
from inspector.target.target import open_core
from tests.faults.overlay import KERNELS, core_path, planted, put, sound

WILD = 0xDEAD_BEEF_0000_1230


def fixture(kernel: str) -> Snapshot:
    return sound(core_path("fixture", kernel))


def batch_place(s: Snapshot) -> tuple[int, int]:
    """Addresses of the count and of the first pointer of the fullest lru_add batch."""
    symbol = s.target.symbol("cpu_fbatches")
    assert symbol is not None
    struct = s.layout.struct("struct cpu_fbatches")
    cpu = int(s.batches.cpu[s.batches.batch == BATCHES.index("lru_add")][0])
    offset = int(s.layout.per_cpu_offsets[s.layout.possible_cpus.tolist().index(cpu)])
    at = (symbol + offset) % (1 << 64)
    return at + struct.field("lru_add.nr").offset, at + struct.field("lru_add.folios").offset


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_wild_pointer_in_a_batch_is_no_folio(kernel: str) -> None:
    s = fixture(kernel)
    _, first = batch_place(s)
    broken = planted(core_path("fixture", kernel), put(s, first, WILD))
    assert len(broken.batches) == len(s.batches)
    assert int((broken.batches.pfn < 0).sum()) == int((s.batches.pfn < 0).sum()) + 1
    assert (broken.reference_terms.terms["batch"].sum()) == s.reference_terms.terms["batch"].sum() - 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_batch_is_never_read_beyond_its_end(kernel: str) -> None:
    s = fixture(kernel)
    count, _ = batch_place(s)
    broken = planted(core_path("fixture", kernel), put(s, count, 255, 1))
    room = s.layout.struct("struct cpu_fbatches").field("lru_add.folios").length
    of_cpu = broken.batches.cpu == s.batches.cpu[0]
    assert int((of_cpu & (broken.batches.batch == 0)).sum()) == room


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pipe_whose_size_is_no_power_of_two_is_not_read(kernel: str) -> None:
    s = fixture(kernel)
    pipe = int(s.pipes.pipe[0])
    at = pipe + s.layout.struct("struct pipe_inode_info").field("ring_size").offset
    broken = planted(core_path("fixture", kernel), put(s, at, 17, 4))
    assert pipe not in broken.pipes.pipe.tolist()
    assert len(broken.pipes) == len(s.pipes) - int((s.pipes.pipe == pipe).sum())
    assert broken.missing.counts["pipes"] == 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_fd_table_of_impossible_size_is_not_read(kernel: str) -> None:
    s = fixture(kernel)
    task = s.tasks.addr[s.open_files.task_idx[0]]
    files = s.layout.memory.read_u64(int(task) + s.layout.struct("struct task_struct").field("files").offset)
    assert files is not None
    table = s.layout.memory.read_u64(files + s.layout.struct("struct files_struct").field("fdt").offset)
    assert table is not None
    broken = planted(core_path("fixture", kernel), put(s, table, 0xFFFFFFFF, 4))
    assert 0 < len(broken.open_files) < len(s.open_files)
    assert broken.missing.counts["open files"] == 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_descriptors_are_those_of_the_process(kernel: str) -> None:
    s = fixture(kernel)
    o = s.open_files
    assert (np.diff(o.task_idx) >= 0).all()
    # Every process of the guest has the console or its pipe as its first three.
    first = o.fd[np.unique(o.task_idx, return_index=True)[1]]
    assert (first == 0).mean() > 0.9


def test_an_entry_of_a_gather_may_stand_for_several_pages() -> None:
    s = fixture("7.3")
    page = [s.layout.memmap.page_addr(p) for p in (0x1000, 0x2000, 0x3000)]
    words = np.array([page[0], page[1] | 2, 16 << 2, page[2] | 1, page[2] | 3, 4 << 2, WILD], np.uint64)
    found = _entries(s.layout, 5, 7, words)
    assert found.pfn.tolist() == [0x1000, 0x2000, 0x3000, 0x3000]
    assert found.nr.tolist() == [1, 16, 1, 4]
    assert found.is_delayed.tolist() == [False, False, True, True]
    assert set(found.task_idx.tolist()) == {5}
    assert len(_entries(s.layout, 5, 7, words[:0])) == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_is_gathered_at_rest(kernel: str) -> None:
    s = fixture(kernel)
    assert len(s.gathered) == 0
    assert not (s.mms.tlb_flush_pending > 0).any()


@pytest.mark.guest
@pytest.mark.race
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_gather_is_found_on_its_stack(kernel: str) -> None:
    s = sound(core_path("busy", kernel))
    g = s.gathered
    assert (s.mms.tlb_flush_pending[g.mm_idx] > 0).all()
    assert len(g) > 100
    # What was unmapped has no entry in that mm any more, but the reference is still held.
    rows = s.pages.memmap.rows(g.pfn)
    assert (s.pages.refcount[s.pages.head_row[rows]] > 0).all()


@pytest.mark.guest
@pytest.mark.parametrize("kernel", ["6.12"])
def test_of_kernel_stacks_what_is_live_is_captured_and_nothing_else(kernel: str, tmp_path: Path) -> None:
    """A gather lies on the live part of a stack; below it are remains of earlier calls, buffers of users among them."""
    path = tmp_path / "small.kdump"
    assert capture(open_core(core_path("busy", kernel), types="btf"), path).same_answers
    big, small = sound(core_path("busy", kernel)), Snapshot(open_core(str(path), types="btf"))
    # At some moments no task has a gather: then there are the remains alone.
    assert len(small.gathered) == len(big.gathered)
    assert np.array_equal(small.gathered.pfn, big.gathered.pfn)
    read = 0
    for task in np.flatnonzero(~big.tasks.on_cpu & (big.tasks.stack != 0)).tolist():
        low, live = int(big.tasks.stack[task]), int(big.tasks.sp[task])
        data, valid = small.layout.memory.read_range(low, live - low)
        read += int(valid.sum())
        assert not data.any()
    assert read > 0


@pytest.mark.guest
@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_pages_that_a_list_fills_in_part_are_captured_in_part(kernel: str, tmp_path: Path) -> None:
    """Batches of a gather and of page tables take whole pages, which are not cleared when they are allocated."""
    path = tmp_path / "small.kdump"
    assert capture(open_core(core_path("busy", kernel), types="btf"), path).same_answers
    big, small = (Snapshot(open_core(str(p), types="btf")) for p in (core_path("busy", kernel), path))
    assert len(big.gathered) or big.lost_tables.counts
    assert np.array_equal(small.gathered.pfn, big.gathered.pfn)
    # At some moments no gather has more than fits on its stack.
    for address, used in big.layout.memory.partly_used.items():
        old, new = (s.layout.memory.read(address, 4096) for s in (big, small))
        assert old is not None
        assert new == old[:used] + bytes(4096 - used)


def test_what_lies_behind_a_list_is_blanked() -> None:
    """Kernels that clear no page when it is allocated leave other people's data there."""

    class Spool(dict[int, bytes]):
        page, replace = dict.__getitem__, dict.__setitem__

    s = fixture("7.3")
    memory = s.layout.memory
    spool = Spool({7: b"x" * 4096, 8: b"y" * 4096})
    try:
        memory.partly_used.update({memory.direct_map_base + (7 << 12): 24, memory.direct_map_base + (9 << 12): 8})
        blank_leftovers(s, spool)  # type: ignore[arg-type]
    finally:
        memory.partly_used.clear()
    assert spool == {7: b"x" * 24 + bytes(4072), 8: b"y" * 4096}
