"""What cannot be read or followed leaves only that unknown which it could have held; all else is judged as before."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.check.run import run_check
from inspector.errors import Exit
from inspector.findings import Report
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, Patch, add, core_path, page_word, planted, put, sound
from tests.faults.plants import mapcount_at, pick, small_anon

_ENTRY_PFN = ((1 << 52) - 1) & ~0xFFF
_NO_PAGE = 1 << 33
"""A page frame far beyond the memory of every fixture."""


def _some_table(s: Snapshot, level: Level, nth: int) -> int:
    """Row of a page table of a user's mm that an entry leads to."""
    t = s.tables
    rows = np.flatnonzero((t.level == level) & (t.parent >= 0) & t.first & (s.mms.users[t.mm_idx] > 0))
    return int(rows[len(rows) * nth // 4])


def _leads_to(s: Snapshot, table: int, pfn: int) -> Patch:
    """The entry above a table with another page frame in it."""
    t = s.tables
    at = (int(t.pfn[t.parent[table]]) << 12) + 8 * int(t.slot[table])
    old = int.from_bytes(s.target.prog.read(at, 8, physical=True), "little")
    return Patch(at, ((old & ~_ENTRY_PFN) | (pfn << 12)).to_bytes(8, "little"), physical=True)


def _page_of_another(s: Snapshot, mm: int, *, mine: bool = False) -> int:
    """Row of a small anonymous page that another mm alone maps, or this one alone."""
    rows = small_anon(s, 1)
    m = s.mappings
    for row in rows[:: max(1, len(rows) // 400)].tolist():
        (at,) = s.mappings_of(int(s.pages.memmap.pfns_of_rows(np.array([row]))[0]))[:1].tolist() or [-1]
        # What a forked family shares an anon_vma of may be in any of them.
        if at >= 0 and (int(m.mm_idx[at]) == mm) == mine and _alone(s, row):
            return int(row)
    raise AssertionError("no such page")


def _alone(s: Snapshot, row: int) -> bool:
    """Whether the page's anon_vma leads to one VMA alone."""
    avcs = s.anon_rmap.avcs
    address = int(s.pages.mapping[np.array([row])][0]) & ~3
    return int((avcs.anon_vma == np.uint64(address)).sum()) == 1


def _rules(report: Report) -> list[str]:
    return sorted(f.rule for f in report.findings)


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("level", [Level.PUD, Level.PMD, Level.PTE])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_table_that_is_lost_hides_no_fault_elsewhere(kernel: str, level: Level, nth: int) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    table = _some_table(s, level, nth)
    lost = _leads_to(s, table, _NO_PAGE)
    ghost = add(s, mapcount_at(s, _page_of_another(s, int(s.tables.mm_idx[table]))), 1, 4)
    assert _rules(run_check(planted(path, lost))) == ["page-table-type-mismatch"]
    report = run_check(planted(path, lost, ghost))
    assert _rules(report) == ["mapcount-too-high", "page-table-type-mismatch"]
    assert any("page table cannot be followed (pid" in note for note in report.coverage.notes)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_count_of_what_a_lost_table_may_map_is_a_lower_bound(kernel: str) -> None:
    """The page is mapped in the lost table: nothing is known of its count but that it is not too low."""
    path = core_path("fixture", kernel)
    s = sound(path)
    row = _page_of_another(s, int(s.mappings.mm_idx[len(s.mappings) // 2]), mine=True)
    at = int(s.mappings_of(int(s.pages.memmap.pfns_of_rows(np.array([row]))[0]))[0])
    lost = _leads_to(s, int(s.mappings.table_idx[at]), _NO_PAGE)
    broken = planted(path, lost, add(s, mapcount_at(s, row), 1, 4))
    assert broken.may_be_mapped_unseen(np.array([row])).tolist() == [True]
    report = run_check(broken)
    assert _rules(report) == ["page-table-type-mismatch"]
    (coverage,) = (c for c in report.coverage.rules if c.rule == "mapcount-too-high")
    assert coverage.state == "partial"
    assert coverage.reason == "page tables are missing: a count can only be shown to be too low"


@pytest.mark.parametrize("kernel", KERNELS)
def test_on_a_whole_dump_nothing_is_mapped_unseen(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    assert not s.may_be_mapped_unseen(np.arange(len(s.pages))).any()


@pytest.mark.parametrize("bit", [4, 13, 27, 38, 46])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_flipped_bit_of_one_mapping_is_one_finding_that_names_it(kernel: str, bit: int) -> None:
    """What the word leads to cannot be read, or is no anon_vma: it was never linked to a VMA, so nothing is missing."""
    path = core_path("fixture", kernel)
    s = sound(path)
    row = pick(small_anon(s, 1), "small anonymous pages", 5)
    pfn = int(s.pages.memmap.pfns_of_rows(np.array([row]))[0])
    word = int(s.pages.mapping[np.array([row])][0])
    report = run_check(planted(path, put(s, page_word(s, pfn, "mapping"), word ^ (1 << bit))))
    assert [(f.rule, f.subject.pfn) for f in report.findings] == [("anon-vma-unreachable", pfn)]
    assert report.findings[0].evidence.facts["flipped_bit"] == bit
    assert report.findings[0].expected["anon_vma"] == word & ~3
    assert (report.exit_code, report.coverage.missing) == (Exit.FINDINGS, {})
