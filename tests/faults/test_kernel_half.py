"""The kernel's half of every top table is init_mm's, and a top table is known to be whose it is without mm->pgd."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.check.run import run_check
from inspector.findings import Report
from inspector.snapshot import Snapshot
from inspector.tables.kernel_half import read_kernel_halves
from tests.faults.mm_catalogue import direct_map_slot, kernel_slot
from tests.faults.overlay import KERNELS, Patch, add, core_path, planted, put, sound, word
from tests.faults.plants import mapcount_at, pick, small_anon
from tests.faults.table_catalogue import counted_table, new_table

_LDT_SLOT = 272


@pytest.fixture(params=KERNELS)
def path(request: pytest.FixtureRequest) -> str:
    return core_path("fixture", request.param)


def _found(report: Report) -> list[str]:
    return sorted(f.rule for f in report.findings)


def _page_of_mms(s: Snapshot) -> tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Address of a page in which several mms begin, and their rows."""
    page = s.mms.addr & ~np.uint64(0xFFF)
    first, nr = np.unique(page, return_counts=True)
    at = int(first[np.argmax(nr)])
    return at, np.flatnonzero(page == np.uint64(at))


@pytest.mark.parametrize("contents", [bytes(4096), b"\xff" * 4096, np.full(512, 0x1234_5678, np.uint64).tobytes()])
def test_processes_whose_mms_are_overwritten_hide_no_fault_elsewhere(path: str, contents: bytes) -> None:
    """Their page tables are found still, so that every count of mappings is exact."""
    s = sound(path)
    at, _ = _page_of_mms(s)
    rows = small_anon(s, 1)
    patches = [Patch(at, contents), add(s, mapcount_at(s, pick(rows, "a private page", len(rows) // 2)), 1, 4)]
    broken = planted(path, *patches)
    found = _found(run_check(broken))
    assert "mapcount-too-high" in found
    assert len(found) <= 3


def test_a_top_table_is_known_by_its_struct_page(path: str) -> None:
    s = sound(path)
    at, rows = _page_of_mms(s)
    broken = planted(path, Patch(at, bytes(4096)))
    kept = np.isin(broken.mms.addr, s.mms.addr[rows])
    assert kept.any()
    wanted = s.mms.pgd_pfn[np.isin(s.mms.addr, broken.mms.addr[kept])]
    assert broken.mms.pgd_pfn[kept].tolist() == wanted.tolist()
    assert len(broken.mappings) == len(s.mappings)


def test_a_page_that_still_names_an_mm_is_no_top_table(path: str) -> None:
    """A page keeps the name when it has become another: two that name the mm, and one with the kernel's half."""
    s = sound(path)
    mm = int(np.flatnonzero(s.mms.nr_tasks > 0)[3])
    name = s.layout.ptdesc.field("pt_mm").offset
    pgd = s.layout.struct("struct mm_struct").field("pgd").offset
    pfn, _ = new_table(s)
    address = int(s.mms.addr[mm])
    stale = put(s, s.layout.memmap.page_addr(pfn) + name, address)
    broken = planted(path, stale, put(s, address + pgd, 0))
    assert broken.mms.pgd_pfn.tolist() == s.mms.pgd_pfn.tolist()
    gone = put(s, s.layout.memmap.page_addr(int(s.mms.pgd_pfn[mm])) + name, 0)
    assert int(planted(path, stale, gone, put(s, address + pgd, 0)).mms.pgd_pfn[mm]) == -1


def test_an_entry_for_the_ldt_is_the_processs_own(path: str) -> None:
    s = sound(path)
    at = int(s.mms.pgd[5]) + 8 * _LDT_SLOT
    report = run_check(planted(path, put(s, at, word(s, int(s.mms.pgd[5]) + 8 * 511))))
    assert _found(report) == []


def test_an_entry_led_astray_holds_no_lost_table(path: str) -> None:
    """The entry of one process leads to any page, whose words look like tables of the kernel's: they are none."""
    s = sound(path)
    pfn, typed = new_table(s)
    mm = int(np.flatnonzero((s.mms.users > 0) & (s.mms.pgd_pfn >= 0))[4])
    slot = int(s.mms.pgd[mm]) + 8 * direct_map_slot(s)
    other = s.tables.pfn[s.tables.level == Level.PUD][0]
    astray = put(s, slot, (word(s, slot) & 0xFFF) | int(other) << 12)
    report = run_check(planted(path, typed, counted_table(s, pfn), astray))
    assert _found(report) == ["kernel-half-mismatch", "page-table-unreachable"]


def test_entries_that_are_missing_while_memory_is_added_are_in_flight(path: str) -> None:
    s = sound(path)
    block = s.layout.struct("struct percpu_rw_semaphore").field("block.counter").offset
    lock = s.layout.target.symbol("mem_hotplug_lock")
    assert lock is not None
    slot = int(s.mms.pgd[6]) + 8 * direct_map_slot(s)
    adding = put(s, lock + block, 1, 4)
    (found,) = run_check(planted(path, put(s, slot, 0), adding), ["kernel-half-mismatch"]).findings
    assert found.severity == "info"
    (found,) = run_check(planted(path, kernel_slot(s, int(s.mms.pgd[6]), direct_map_slot(s)), adding)).findings
    assert (found.rule, found.severity) == ("kernel-half-mismatch", "fail")


def test_one_table_alone_shows_nothing(path: str) -> None:
    """With one process no majority says whether its entry or the kernel's is wrong: the kernel's was there first."""
    s = sound(path)
    broken = planted(path, kernel_slot(s, s.kernel_halves.own_at, direct_map_slot(s)))
    one = s.mms.take(np.array([0]))
    halves = read_kernel_halves(broken.layout, one)
    assert (halves.mm_idx.tolist(), halves.own_slot.tolist()) == ([0], [])
    every = broken.kernel_halves
    assert (every.mm_idx.tolist(), every.own_slot.tolist()) == ([], [direct_map_slot(s)])
