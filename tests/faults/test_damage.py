"""Damage of realistic shape: one cause, few findings, and an unrelated fault beside it is still found."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.check.run import run_check
from inspector.columns import I64
from inspector.findings import Report
from inspector.snapshot import Snapshot
from inspector.tables.slabs import lead_nowhere
from tests.faults.damage import run_one
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, Patch, add, core_path, pfn_of, planted, put, sound, word
from tests.faults.plants import entry_address, mapcount_at, mapping_of_page, pick, small_anon
from tests.faults.state_catalogue import quiet_mms, vma_word
from tests.faults.table_catalogue import entry_of, table_at_rest

_MOST = 3
"""Findings that one piece of damage may give."""

_RUNS = 20

_GARBAGE = {"text": 0x6775657374207379, "pattern": 0xCCCCCCCCCCCCCCCC, "user": 0x00007F5512345678}


def _rules(report: Report) -> list[str]:
    return sorted(f.rule for f in report.findings if f.severity != "info")


def _ghost(s: Snapshot, mms: set[int]) -> tuple[Patch, int]:
    """A mapping too many of an anonymous page that is mapped in none of some mms, and its page frame."""
    for row in small_anon(s, 1)[::50].tolist():
        pfn = pfn_of(s, row)
        if not mms & set(s.mappings.mm_idx[s.mappings_of(pfn)].tolist()):
            return add(s, mapcount_at(s, row), 1, 4), pfn
    raise AssertionError("no page elsewhere")


@pytest.mark.long
@pytest.mark.parametrize("kernel", KERNELS)
def test_random_damage_gives_few_findings_and_hides_nothing(kernel: str) -> None:
    results = [run_one(number, 7, (kernel,)) for number in range(_RUNS)]
    assert not [r.error for r in results if r.error]
    assert not [(r.number, r.at, r.fault) for r in results if not r.fault_found]
    assert sorted(len(r.found) for r in results)[-2] <= _MOST, [(r.number, r.found) for r in results]


@pytest.mark.parametrize("what", _GARBAGE)
@pytest.mark.parametrize("level", [Level.PTE, Level.PMD])
@pytest.mark.parametrize("kernel", KERNELS)
def test_an_entry_of_a_table_overwritten_is_one_finding(kernel: str, level: Level, what: str) -> None:
    """The table below, its pages and the totals of the process are lost with it."""
    path = core_path("fixture", kernel)
    s = sound(path)
    row = table_at_rest(s, level)
    ghost, pfn = _ghost(s, {int(s.tables.mm_idx[row])})
    damage = Patch(entry_of(s, row), _GARBAGE[what].to_bytes(8, "little"), physical=True)
    report = run_check(planted(path, damage, ghost))
    assert len(_rules(report)) == 2, _rules(report)
    assert ("mapcount-too-high", pfn) in [(f.rule, f.subject.pfn) for f in report.findings]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_mapping_too_many_beside_an_overwritten_entry_of_its_vma_is_a_finding_of_its_own(kernel: str) -> None:
    """What the entry mapped was lost with it; that another page of the VMA counts one too many has another cause."""
    path = core_path("fixture", kernel)
    s = sound(path)
    for row in small_anon(s, 1)[::20].tolist():
        at, skip = mapping_of_page(s, row)
        vma = s.mappings.vma_idx[at]
        near = [p for p in small_anon(s, 1).tolist() if abs(p - row) < 64 and p != row]
        other = next((p for p in near if s.mappings.vma_idx[mapping_of_page(s, p)[0]] == vma), None)
        if other is not None:
            break
    else:
        pytest.fail("two pages of one VMA")
    damage = Patch(entry_address(s, at, skip), _GARBAGE["text"].to_bytes(8, "little"), physical=True)
    report = run_check(planted(path, damage, add(s, mapcount_at(s, other), 1, 4)))
    assert ("mapcount-too-high", pfn_of(s, other)) in [(f.rule, f.subject.pfn) for f in report.findings]
    assert len(_rules(report)) == 2, _rules(report)


_OF_LISTS = ("lru-flag-lost", "unevictable-flag-on-a-list", "active-flag-of-an-lru-folio-flipped")


@pytest.mark.parametrize("name", _OF_LISTS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_folio_in_a_part_that_is_cut_off_from_its_lru_list_is_judged_by_that_part(kernel: str, name: str) -> None:
    """Struct pages on both sides of it are overwritten: nothing leads from the head of the list to it any more."""
    path = core_path("fixture", kernel)
    s = sound(path)
    fault = CATALOGUE[name](s)
    size, link = s.layout.memmap.page_size, s.layout.struct("struct page").field("lru").offset
    assert fault.pfn is not None
    damage = []
    for side in (0, 8):
        page = s.layout.memmap.page_addr(fault.pfn)
        for _ in range(4):
            page = word(s, page + link + side) - link
        assert s.layout.memmap.pfns(np.array([page], np.uint64))[0] >= 0
        damage.append(Patch(page, bytes([0xCC]) * size))
    report = run_check(planted(path, *fault.patches, *damage))
    mine = [f for f in report.findings if f.subject.pfn == fault.pfn and f.severity != "info"]
    assert {f.rule for f in mine} & set(fault.rules), _rules(report)


def _vma(s: Snapshot, *, file: bool) -> int:
    v = s.vmas
    per = np.bincount(s.mappings.vma_idx[s.mappings.vma_idx >= 0], minlength=len(v))
    rows = np.flatnonzero(((v.file != 0) == file) & ((v.anon_vma != 0) != file) & (per > 1) & quiet_mms(s)[v.mm_idx])
    return pick(rows, "a VMA with pages", len(rows) // 2)


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("what", ["text", "pattern"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_flags_of_a_vma_overwritten_are_one_finding(kernel: str, what: str, *, file: bool) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    row = _vma(s, file=file)
    ghost, pfn = _ghost(s, {int(s.vmas.mm_idx[row])})
    damage = put(s, vma_word(s, row, "vm_flags", "flags.__vma_flags[0]", "flags"), _GARBAGE[what])
    report = run_check(planted(path, damage, ghost))
    assert len(_rules(report)) <= _MOST, _rules(report)
    assert ("mapcount-too-high", pfn) in [(f.rule, f.subject.pfn) for f in report.findings]


def _objects(s: Snapshot, kind: str) -> I64:
    rmap = s.anon_rmap
    addr = {"VMAs": s.vmas.addr, "anon_vmas": rmap.anon_vmas.addr, "chains": rmap.avcs.addr}[kind]
    base = np.uint64(s.layout.memory.direct_map_base)
    return ((addr[addr >= base] - base) >> np.uint64(12)).astype(np.int64)


@pytest.mark.parametrize("byte", [0x00, 0x6B])
@pytest.mark.parametrize("kind", ["VMAs", "anon_vmas", "chains"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_of_objects_overwritten_is_one_cause(kernel: str, kind: str, byte: int) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    pages, nr = np.unique(_objects(s, kind), return_counts=True)
    page = int(pages[nr.argmax()])
    report = run_check(planted(path, Patch(page << 12, bytes([byte]) * 4096, physical=True)))
    assert 1 <= len(_rules(report)) <= _MOST, _rules(report)


def test_a_page_of_anon_vmas_full_of_pointers_is_one_cause() -> None:
    """What the pointers lead to is taken for anon_vmas and chains, and is as wrong as can be."""
    path = core_path("fixture", "6.12")
    s = sound(path)
    pages, nr = np.unique(_objects(s, "anon_vmas"), return_counts=True)
    pointers = np.concatenate(
        [s.vmas.addr[::7], s.mms.addr, s.anon_rmap.anon_vmas.addr[::5], s.anon_rmap.avcs.addr[::9]]
    )
    data = np.random.default_rng(1).choice(pointers, 512).astype("<u8").tobytes()
    report = run_check(planted(path, Patch(int(pages[nr.argmax()]) << 12, data, physical=True)))
    assert 1 <= len(_rules(report)) <= _MOST, _rules(report)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_line_of_a_page_table_that_is_a_copy_of_the_next_is_one_finding(kernel: str) -> None:
    """The mm maps as many pages as it counts: eight twice, and eight not at all."""
    path = core_path("fixture", kernel)
    s = sound(path)
    t, page = s.tables, s.layout.memmap.page_shift
    plain = np.zeros(len(s.pages), np.bool_)
    plain[small_anon(s, 1)] = True
    for row in np.flatnonzero((t.level == Level.PTE) & t.first & (t.state == 0) & quiet_mms(s)[t.mm_idx]).tolist():
        start = int(t.pfn[row]) << page
        raw = s.layout.memory.read(start, 1 << page, physical=True)
        assert raw is not None
        entries = np.frombuffer(raw, np.uint64)
        rows = s.pages.memmap.rows(s.layout.arch.leaf_pfn(Level.PTE, entries).astype(np.int64))
        fit = s.layout.arch.leaf_mask(Level.PTE, entries) & (rows >= 0) & plain[np.maximum(rows, 0)]
        lines = fit.reshape(-1, 8).sum(axis=1) == 8
        both = np.flatnonzero(lines[:-1] & lines[1:])
        if len(both):
            break
    else:
        pytest.fail("sixteen anonymous pages of one process beside each other")
    line = int(both[0])
    damage = Patch(start + 64 * line, raw[64 * (line + 1) : 64 * (line + 2)], physical=True)
    ghost, pfn = _ghost(s, {int(t.mm_idx[row])})
    report = run_check(planted(path, damage, ghost))
    assert _rules(report) == ["mapcount-too-high", "memory-stretch-damaged"], _rules(report)
    assert pfn in [f.subject.pfn for f in report.findings]


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_entry_that_leads_to_a_table_of_another_level_is_one_finding(kernel: str) -> None:
    """What hangs there is taken for page tables: none of it is one."""
    path = core_path("fixture", kernel)
    s = sound(path)
    t = s.tables
    used = np.bincount(s.mappings.table_idx[s.mappings.level == Level.PTE], minlength=len(t))
    lowest = int(t.pfn[pick(np.flatnonzero((used > 40) & quiet_mms(s)[t.mm_idx]), "a full page table", 3)])
    entry = entry_of(s, table_at_rest(s, Level.PMD))
    old = int.from_bytes(s.layout.memory.read(entry, 8, physical=True) or b"", "little")
    changed = (old & ~((1 << 52) - (1 << 12))) | lowest << 12 | 1 << 9
    report = run_check(planted(path, Patch(entry, changed.to_bytes(8, "little"), physical=True)))
    assert 1 <= len(_rules(report)) <= _MOST, _rules(report)


@pytest.mark.parametrize("member", ["rb.rb_left", "anon_vma"])
@pytest.mark.parametrize("bit", [5, 30, 40, 63])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_chain_that_leads_nowhere_is_damaged_not_missing(kernel: str, member: str, bit: int) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    avcs = s.anon_rmap.avcs
    rows = np.flatnonzero((avcs.tree_idx >= 0) & (avcs.list_vma_idx >= 0))
    still = rows[quiet_mms(s)[s.vmas.mm_idx[avcs.list_vma_idx[rows]]]]
    address = int(avcs.addr[pick(still, "a chain", len(still) // 2)])
    address += s.layout.struct("struct anon_vma_chain").field(member).offset
    value = word(s, address) ^ 1 << bit
    report = run_check(planted(path, put(s, address, value)))
    nowhere = value >= 1 << 12 and lead_nowhere(s.layout, np.array([value], np.uint64))[0]
    if nowhere:
        assert not report.coverage.missing
    assert report.findings or report.coverage.missing


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_leads_nowhere(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    base = s.layout.memory.direct_map_base
    table = base + (int(s.tables.pfn[0]) << 12)
    addresses = [int(s.vmas.addr[0]), int(s.mms.addr[5]), table, base + (s.layout.memmap.max_pfn << 12), 0x1000, 0]
    assert lead_nowhere(s.layout, np.array(addresses, np.uint64)).tolist() == [False, False, True, True, True, True]
