"""Values that a rule judges are marked where they are shown: as soon as they are damaged, and never before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inspector.arch.base import Bit, Kind, Level
from inspector.folio.numbers import one_folio, terms_of
from inspector.layout.flags import VM_HUGETLB
from inspector.places.processes import aim_at_mm
from inspector.report.explain import build_explanation
from inspector.report.hugetlb import build_hugetlb_report, render_hugetlb
from inspector.report.processes import build_ps, build_vmas, render_ps, render_vmas
from inspector.report.screen import Screen
from inspector.report.swap import build_swap, render_swap
from inspector.report.va import VaReport, build_aimed_va, build_va, render_va
from inspector.rules import find_rule
from inspector.snapshot import Snapshot
from inspector.subjects import HSTATE, MM, SWAP_DEVICE, VMA, SubjectKind
from inspector.tables.mms import RSS_ANON
from tests.faults.every import ABSENT, CATALOGUE
from tests.faults.matrix import MATRIX, parse
from tests.faults.overlay import (
    KERNELS,
    Patch,
    add,
    core_path,
    entry_xor,
    page_word,
    pfn_of,
    planted,
    put,
    sound,
    word,
)
from tests.faults.plants import pick, pmd_mapped, pte_mapped_thp, small_anon

WIDE = Screen(width=300)
PRESENT = 1


def fixture(kernel: str) -> Snapshot:
    return sound(core_path("fixture", kernel))


def with_tasks(s: Snapshot) -> list[int]:
    return [pid for pid in s.mms.pid.tolist() if pid >= 0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_is_marked_in_a_sound_dump(kernel: str) -> None:
    s = fixture(kernel)
    assert not any(p.wrong for p in build_ps(s).processes)
    assert not any(d.wrong for d in build_swap(s, None).devices)
    assert not any(size.wrong for size in build_hugetlb_report(s).sizes)
    for pid in with_tasks(s):
        assert not any(v.wrong for v in build_vmas(aim_at_mm(s, pid), 0).vmas)


@pytest.mark.parametrize("kernel", KERNELS)
def test_ps_marks_a_damaged_rss(kernel: str) -> None:
    s = fixture(kernel)
    pid = with_tasks(s)[3]
    row = int(np.flatnonzero(s.mms.pid == pid)[0])
    mm = s.layout.struct("struct mm_struct")
    at = mm.field(f"rss_stat[{RSS_ANON}].count", f"rss_stat.count[{RSS_ANON}].counter").offset
    s = planted(s.target.path, add(s, int(s.mms.addr[row]) + at, 5))
    report = build_ps(s)
    assert [p.pid for p in report.processes if p.wrong] == [pid]
    stored = int(s.mms.rss[row, RSS_ANON])
    marked = [line for line in render_ps(WIDE, report) if "WRONG" in line]
    assert len(marked) == 1
    assert f"MM_ANONPAGES {stored} (expected {stored - 5})" in marked[0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_vmas_marks_flags_that_the_kernel_does_not_have(kernel: str) -> None:
    s = fixture(kernel)
    pid = with_tasks(s)[3]
    row = int(np.flatnonzero(s.vmas.mm_idx == np.flatnonzero(s.mms.pid == pid)[0])[2])
    at = s.layout.struct("struct vm_area_struct").field("__vm_flags", "vm_flags").offset
    changed = planted(s.target.path, put(s, int(s.vmas.addr[row]) + at, int(s.vmas.flags[row]) | 1 << 55))
    whole_row = int(np.flatnonzero(changed.mms.pid == pid)[0])
    for report in (build_vmas(aim_at_mm(changed, pid), 0), build_vmas(changed, whole_row)):
        assert [v.vma for v in report.vmas if v.wrong] == [int(s.vmas.addr[row])]
        assert sum("WRONG" in line for line in render_vmas(WIDE, report)) == 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_swap_and_hugetlb_mark_their_counters(kernel: str) -> None:
    s = fixture(kernel)
    device = int(s.swap.devices.addr[np.flatnonzero(s.swap.devices.in_use)[0]])
    used = s.layout.struct("struct swap_info_struct").field("inuse_pages.counter", "inuse_pages")
    size = int(s.hugetlb.hstates.addr[np.argmax(s.hugetlb.hstates.nr)])
    nr = size + s.layout.struct("struct hstate").field("nr_huge_pages").offset
    changed = planted(s.target.path, add(s, device + used.offset, 1, used.size), add(s, nr, 1))
    swap, hugetlb = build_swap(changed, None), build_hugetlb_report(changed)
    assert [bool(d.wrong) for d in swap.devices] == [True] + [False] * (len(swap.devices) - 1)
    assert [x.hstate for x in hugetlb.sizes if x.wrong] == [size]
    assert sum("WRONG" in line for line in render_swap(WIDE, swap)) == 1
    assert sum("WRONG" in line for line in render_hugetlb(WIDE, hugetlb)) == 1


ROWS: dict[SubjectKind, Callable[[Snapshot], list[list[str]]]] = {
    MM: lambda s: [p.wrong for p in build_ps(s).processes],
    VMA: lambda s: [v.wrong for mm in range(len(s.mms)) for v in build_vmas(s, mm).vmas],
    SWAP_DEVICE: lambda s: [d.wrong for d in build_swap(s, None).devices],
    HSTATE: lambda s: [size.wrong for size in build_hugetlb_report(s).sizes],
}
"""What is listed of the things of a kind."""


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        # Minutes each: of every kind one kernel, the others with all else that takes hours.
        pytest.param(k, kind, marks=pytest.mark.long if n % 3 == at else pytest.mark.whole, id=f"{kind.name}-{k}")
        for n, kind in enumerate(ROWS)
        for at, k in enumerate(KERNELS)
    ],
)
def test_every_planted_fault_is_marked_where_its_thing_is_listed(kernel: str, kind: SubjectKind) -> None:
    s = fixture(kernel)
    matrix = parse(MATRIX.read_text("utf-8"))
    faults = [
        (name, rule)
        for name in sorted(CATALOGUE)
        if (rule := matrix.get((name, kernel), "")) and "(info)" not in rule and name not in ABSENT[kernel]
    ]
    faults = [(name, rule.split()[0]) for name, rule in faults if find_rule(rule.split()[0]).about is kind]
    # ps shows no other words of an mm that rules judge.
    faults = [x for x in faults if kind is not MM or find_rule(x[1]).group == "rss"]
    assert faults
    for name, rule in faults:
        changed = planted(s.target.path, *CATALOGUE[name](s).patches)
        if kind is SWAP_DEVICE and all(d.used == d.stored_inuse_pages for d in build_swap(changed, None).devices):
            continue  # It is about what the command does not show.
        marked = [wrong for wrong in ROWS[kind](changed) if any(x.startswith(rule) for x in wrong)]
        # One thing is at fault; or two that share what only one may have.
        assert 1 <= len(marked) <= 2, (name, rule, marked)


def both(s: Snapshot, pid: int, va: int) -> tuple[VaReport, VaReport]:
    """The account of one address, among all page tables and by the reverse map."""
    row = int(np.flatnonzero(s.mms.pid == pid)[0])
    return build_va(s, row, va, None), build_aimed_va(s, pid, va, None)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("by", ["PMD", "PTE"])
def test_va_counts_pages_from_the_head_as_folio_does(kernel: str, by: str) -> None:
    s = fixture(kernel)
    folios = pmd_mapped(s, anon=True) if by == "PMD" else pte_mapped_thp(s)
    m = s.mappings
    folio = pick(folios, "a THP")
    first = int(s.folios.pfn[folio])
    inside = (m.pfn >= first) & (m.pfn < first + int(s.folios.nr_pages[folio]))
    row = int(np.flatnonzero(inside & (s.mms.pid[m.mm_idx] >= 0))[-1])
    # The fourth page of what the entry, or run of entries, maps.
    skip = 3 if by == "PMD" or int(m.nr[row]) > 3 else 0
    va, pid = int(m.va[row]) + (skip << 12), int(s.mms.pid[m.mm_idx[row]])
    for report in both(s, pid, va):
        assert report.pfn == int(m.pfn[row]) + skip
        for x in report.mappings:
            assert x.page_index == x.pfn - first >= 0
        theirs = {(x.mm, x.va, x.page_index) for x in build_explanation(s, report.pfn, check=False).mappings}
        if by == "PMD":
            assert {(x.mm, x.va, x.page_index) for x in report.mappings} <= theirs


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_invalidated_pmd_is_not_called_prot_none(kernel: str) -> None:
    s = fixture(kernel)
    m = s.mappings
    huge = (m.level == Level.PMD) & (s.mms.pid[m.mm_idx] >= 0) & ((m.bits & Bit.PROT_NONE) == 0)
    vma_flags = s.vmas.flags[np.maximum(m.vma_idx, 0)]
    row = int(np.flatnonzero(huge & (m.vma_idx >= 0) & ((vma_flags & np.uint64(VM_HUGETLB)) == 0))[0])
    va, pid = int(m.va[row]), int(s.mms.pid[m.mm_idx[row]])
    gone = planted(s.target.path, entry_xor(s, row, PRESENT))
    found = int(np.flatnonzero((gone.mappings.va == m.va[row]) & (gone.mappings.mm_idx == m.mm_idx[row]))[0])
    assert int(gone.mappings.bits[found]) & Bit.PROT_NONE
    for report in both(gone, pid, va):
        for bits in (report.entries[-1].bits, *(x.bits for x in report.mappings if x.va == va)):
            assert "invalidated" in bits
            assert "prot-none" not in bits
    protected = planted(s.target.path, entry_xor(s, row, PRESENT | 1 << 8))
    for report in both(protected, pid, va):
        assert "prot-none" in report.entries[-1].bits
        assert "invalidated" not in report.entries[-1].bits


@pytest.mark.parametrize("kernel", KERNELS)
def test_bits_that_no_kernel_writes_are_shown_beside_the_entry(kernel: str) -> None:
    s = fixture(kernel)
    n, m = s.nonpresent, s.mappings
    markers = np.flatnonzero((n.kind == Kind.MARKER) & (s.mms.pid[n.mm_idx] >= 0))
    row = int(pick(markers, "a marker"))
    pid, va = int(s.mms.pid[n.mm_idx[row]]), int(n.va[row])
    last = build_aimed_va(s, pid, va, None).entries[-1]
    address = (last.table_pfn << 12) + 8 * last.index
    # The offset of a marker begins at bit 9 and is stored inverted: no kernel has its sixth mark.
    damaged = Patch(address, (int(n.entry[row]) ^ 1 << 14).to_bytes(8, "little"), True)
    never = f"bits that this kernel never writes: {1 << 14:#x}"
    before, after = both(s, pid, va), both(planted(s.target.path, damaged), pid, va)
    for report in before:
        assert "never writes" not in report.entries[-1].detail
    for report in after:
        assert never in report.entries[-1].detail
        assert any(never in line for line in render_va(WIDE, report))
    leaf = int(np.flatnonzero((m.level == Level.PTE) & (s.mms.pid[m.mm_idx] >= 0))[0])
    pid, va = int(s.mms.pid[m.mm_idx[leaf]]), int(m.va[leaf])
    for report in both(planted(s.target.path, entry_xor(s, leaf, 1 << 8)), pid, va):
        assert f"never writes: {1 << 8:#x}" in report.entries[-1].detail


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bit", [10, 17, 27, 30])
def test_a_flipped_bit_of_a_reference_count_is_not_taken_for_pins(kernel: str, bit: int) -> None:
    s = fixture(kernel)
    pfn = pfn_of(s, pick(small_anon(s, 1), "an anonymous page"))
    at = page_word(s, pfn, "_refcount.counter", "_refcount")
    counted = s.node_stats["NR_FOLL_PIN_ACQUIRED"] - s.node_stats["NR_FOLL_PIN_RELEASED"]
    changed = planted(s.target.path, put(s, at, word(s, at, 4) ^ 1 << bit, 4))
    terms = terms_of(changed, one_folio(changed, pfn))
    pins = int(terms.terms["pins"][0]) >> 10
    assert pins <= counted
    assert int(terms.remainder[0]) == (1 << bit) - (pins << 10)
