"""A flipped bit of a page-table entry: the page that lost its mapping and the entry are one finding, which names it."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.findings import Finding, Report
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, add, core_path, entry_xor, only_finding, pfn_of, planted, put, sound, word
from tests.faults.plants import clear_entry, mapcount_at, mapping_of_page, pick, small_anon, small_file
from tests.faults.state_catalogue import quiet_mms, vma_word
from tests.faults.test_stretches import edits


def _page(s: Snapshot, what: str) -> int:
    rows = small_anon(s, 1) if what == "anon" else small_file(s, 2)
    return int(rows[len(rows) // 3])


def _rules(report: Report) -> list[str]:
    return sorted(f.rule for f in report.findings)


def _names(found: Finding, bit: int, pfn: int) -> bool:
    assert found.diagnosis is not None
    first = found.diagnosis.because[0]
    return (
        found.evidence.facts["flipped_bit"] == bit
        and found.diagnosis.verdict == "flipped bit"
        and first.endswith(f"which maps pfn {pfn:#x}")
        and f"differs in bit {bit} from" in first
    )


def test_the_case_of_the_field_is_one_finding() -> None:
    path = core_path("fixture", "7.3")
    (found,) = run_check(planted(path, *edits("table_bitflip.7.3"))).findings
    assert (found.rule, found.subject.pid, found.subject.va) == ("free-page-mapping-unexpected", 168, 0x508000)
    assert _names(found, 24, 0x43B1)
    assert "mapcount-mapping-missing" in found.evidence.also


@pytest.mark.parametrize("bit", [0, 12, 15, 19, 23, 28, 33, 45])
@pytest.mark.parametrize("what", ["anon", "file"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_bit_of_an_entry_is_one_finding_that_names_it(kernel: str, what: str, bit: int) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    row = _page(s, what)
    m, skip = mapping_of_page(s, row)
    (found,) = run_check(planted(path, entry_xor(s, m, 1 << bit, skip))).findings
    assert _names(found, bit, pfn_of(s, row))


@pytest.mark.parametrize("other", ["mapcount-too-high", "mapcount-mapping-missing"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_another_fault_beside_a_flipped_bit_is_a_finding_of_its_own(kernel: str, other: str) -> None:
    """A mapping too many of another page, or an entry lost whole: nothing leads from it to the flipped bit."""
    path = core_path("fixture", kernel)
    s = sound(path)
    row = _page(s, "anon")
    m, skip = mapping_of_page(s, row)
    pages = [each for each in small_anon(s, 1)[::200].tolist() if abs(each - row) > 64]
    away = next(each for each in pages if s.mappings.mm_idx[mapping_of_page(s, each)[0]] != s.mappings.mm_idx[m])
    is_ghost = other == "mapcount-too-high"
    fault = add(s, mapcount_at(s, away), 1, 4) if is_ghost else clear_entry(s, *mapping_of_page(s, away))
    report = run_check(planted(path, entry_xor(s, m, 1 << 30, skip), fault))
    assert sorted((f.rule, f.subject.pfn, f.evidence.facts.get("flipped_bit")) for f in report.findings) == [
        ("entry-pfn-invalid", pfn_of(s, row) ^ (1 << 18), 30),
        (other, pfn_of(s, away), None),
    ]


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_entry_that_differs_in_two_bits_is_no_flipped_one(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    m, skip = mapping_of_page(s, _page(s, "anon"))
    report = run_check(planted(path, entry_xor(s, m, (1 << 30) | (1 << 20), skip)))
    (found,) = report.findings
    assert "mapcount-mapping-missing" in {found.rule, *found.evidence.also}
    assert "flipped_bit" not in found.evidence.facts


@pytest.mark.parametrize("bit", [3, 12, 21, 40, 50, 63])
@pytest.mark.parametrize("member", ["vm_start", "vm_end"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_bit_of_a_vmas_bound_is_one_finding(kernel: str, member: str, bit: int) -> None:
    """Its entries lie outside every VMA by that bound, and in one by the tree."""
    path = core_path("fixture", kernel)
    s = sound(path)
    v = s.vmas
    mapped = np.bincount(s.mappings.vma_idx[s.mappings.vma_idx >= 0], minlength=len(v)) > 0
    row = pick(np.flatnonzero(mapped & quiet_mms(s)[v.mm_idx]), "a VMA with pages", 7)
    at = vma_word(s, row, member)
    found = only_finding(path, "vma-range-mismatch", put(s, at, word(s, at) ^ 1 << bit))
    assert found.subject.vma == int(v.addr[row])


@pytest.mark.parametrize("bit", [2, 5, 30, 50])
@pytest.mark.parametrize("kernel", KERNELS)
def test_address_spaces_are_found_behind_a_damaged_slab_cache(kernel: str, bit: int) -> None:
    """Of the slab of mm_structs: its objects are known by what the word must have been."""
    path = core_path("fixture", kernel)
    s = sound(path)
    pfn = (int(s.mms.addr[5]) - s.layout.memory.direct_map_base) >> s.layout.memmap.page_shift
    head = pfn_of(s, int(s.pages.head_row[s.pages.memmap.row(pfn)]))
    at = s.layout.memmap.page_addr(head) + s.layout.struct("struct slab").field("slab_cache").offset
    damage = put(s, at, word(s, at) ^ 1 << bit)
    assert only_finding(path, "slab-page-damaged", damage).subject.pfn == head
    assert planted(path, damage).mms.addr.tolist() == s.mms.addr.tolist()
