"""Exclusive bits and writable entries planted: the copy-on-write family."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.arch.base import Bit, Level
from inspector.layout.flags import VM_SHARED, VM_WRITE
from inspector.rules import find_rule
from inspector.walk.counts import EntryClass
from tests.faults.cow_plants import anon_pages, first_mapping, private_writable, shared_pages
from tests.faults.overlay import (
    KERNELS,
    RW,
    also_broken,
    core_path,
    entry_writable,
    entry_xor,
    flags_xor,
    pfn_of,
    planted,
    put,
    slugs,
)
from tests.faults.overlay import sound as sound_snapshot
from tests.faults.plants import exclusive_rows, in_shared_vma, vma_has

RULES = [
    "shared-vma-anon-page-unexpected",
    "ksm-page-exclusive-unexpected",
    "exclusive-page-mm-count-high",
    "exclusive-page-mapcount-high",
    "pinned-page-exclusive-missing",
    "write-bit-unexpected",
    "writable-page-exclusive-missing",
    "private-file-page-write-bit-unexpected",
    "uffd-wp-write-bit-unexpected",
    "zero-page-write-bit-unexpected",
]


@pytest.mark.parametrize("rule", RULES)
def test_sound_dump_breaks_no_rule(path: str, rule: str) -> None:
    found = find_rule(rule).run(sound_snapshot(path))
    assert len(found) == 0
    assert found.checked > 0
    assert found.unread.nr == 0


def test_exclusive_bit_on_a_shared_page(path: str) -> None:
    s = sound_snapshot(path)
    also = also_broken(
        path, "exclusive-page-mapcount-high", flags_xor(s, pfn_of(s, int(shared_pages(s)[0])), "anon_exclusive")
    )
    assert also == ["exclusive-page-mm-count-high"]


def test_exclusive_bit_on_a_shared_subpage(path: str) -> None:
    s = sound_snapshot(path)
    folio = s.folio_of_page
    able = (folio >= 0) & anon_pages(s) & s.pages.is_tail & (s.counts.page_mappings == 2)
    able &= s.counts.entire[np.maximum(folio, 0)] == 0
    row = int(np.flatnonzero(able)[0])
    also_broken(path, "exclusive-page-mapcount-high", flags_xor(s, pfn_of(s, row), "anon_exclusive"))


def test_exclusive_bit_on_a_tail_under_a_pmd(path: str) -> None:
    s = sound_snapshot(path)
    able = s.folios.is_anon & ~s.folios.is_hugetlb & (s.counts.entire == 1) & (s.folio_totals == 1)
    pfn = int(s.folios.pfn[np.flatnonzero(able)[0]]) + 5
    also_broken(path, "exclusive-page-mapcount-high", flags_xor(s, pfn, "anon_exclusive"))


def test_exclusive_bit_on_a_shared_hugetlb_folio(path: str) -> None:
    s = sound_snapshot(path)
    able = s.folios.is_anon & s.folios.is_hugetlb & (s.counts.entire > 1)
    pfn = int(s.folios.pfn[np.flatnonzero(able)[0]])
    also_broken(path, "exclusive-page-mapcount-high", flags_xor(s, pfn, "anon_exclusive"))


def test_exclusive_ksm_page(path: str) -> None:
    s = sound_snapshot(path)
    row = int(s.ksm_entries.head_row[0])
    also_broken(path, "ksm-page-exclusive-unexpected", flags_xor(s, pfn_of(s, row), "anon_exclusive"))


def test_writable_entry_of_a_shared_page(path: str) -> None:
    s = sound_snapshot(path)
    mark = np.zeros(len(s.pages), np.bool_)
    mark[shared_pages(s)] = True
    first = mark[s.pages.memmap.rows(s.mappings.pfn)]
    row = first_mapping(s, private_writable(s) & first & (s.mappings.level == Level.PTE))
    also_broken(path, "writable-page-exclusive-missing", entry_writable(s, row))


def test_writable_pmd_of_a_shared_folio(path: str) -> None:
    s = sound_snapshot(path)
    folio = s.folio_of_page[np.maximum(s.mappings.head_row, 0)]
    able = (folio >= 0) & s.folios.is_anon[np.maximum(folio, 0)] & (s.mappings.level == Level.PMD)
    shared = s.folio_totals[np.maximum(folio, 0)] > 1
    for hugetlb in (False, True):
        kind = s.folios.is_hugetlb[np.maximum(folio, 0)] == hugetlb
        row = first_mapping(s, private_writable(s) & able & shared & kind)
        also_broken(path, "writable-page-exclusive-missing", entry_writable(s, row))


def test_writable_entry_of_a_ksm_page(path: str) -> None:
    s = sound_snapshot(path)
    e = s.ksm_entries
    ok = np.flatnonzero(private_writable(s)[e.mapping_row] & (e.va == s.mappings.va[e.mapping_row]))
    also = also_broken(path, "writable-page-exclusive-missing", entry_writable(s, int(e.mapping_row[ok[0]])))
    assert also == []


def test_exclusive_bit_lost_on_a_written_page(path: str) -> None:
    s = sound_snapshot(path)
    rows = exclusive_rows(s)
    small = rows[(s.folio_of_page[rows] < 0) & (s.counts.page_mappings[rows] == 1)]
    m = s.mappings
    first = np.isin(s.pages.memmap.rows(m.pfn), small) & ((m.bits & Bit.WRITE) != 0)
    row = first_mapping(s, first & (m.entry_class == EntryClass.NORMAL) & ((m.bits & Bit.PROT_NONE) == 0))
    also_broken(path, "writable-page-exclusive-missing", flags_xor(s, int(s.mappings.pfn[row]), "anon_exclusive"))


def test_exclusive_bit_lost_on_a_pinned_page(path: str) -> None:
    s = sound_snapshot(path)
    mapped = (s.counts.page_mappings == 1) & (s.pages.refcount > 1024) & anon_pages(s) & (s.folio_of_page < 0)
    pinned = np.flatnonzero(mapped)
    assert len(pinned)
    found = slugs(path, flags_xor(s, pfn_of(s, int(pinned[0])), "anon_exclusive"))
    assert found in (["writable-page-exclusive-missing"], ["pinned-page-exclusive-missing"])


def test_writable_entry_in_a_readonly_vma(path: str) -> None:
    s = sound_snapshot(path)
    readonly = (s.mappings.vma_idx >= 0) & ~vma_has(s, VM_WRITE) & (s.mappings.entry_class == EntryClass.NORMAL)
    readonly &= (s.mappings.bits & Bit.PROT_NONE) == 0
    row = first_mapping(s, readonly & ~in_shared_vma(s) & (s.mappings.level == Level.PTE))
    also_broken(path, "write-bit-unexpected", entry_xor(s, row, RW))
    row = first_mapping(s, readonly & in_shared_vma(s))
    assert also_broken(path, "write-bit-unexpected", entry_xor(s, row, RW)) == []


def test_writable_private_file_page(path: str) -> None:
    s = sound_snapshot(path)
    head = np.maximum(s.mappings.head_row, 0)
    file = (s.pages.mapping[head] != 0) & ((s.pages.mapping[head] & np.uint64(3)) == 0)
    row = first_mapping(s, private_writable(s) & file & (s.mappings.level == Level.PTE))
    assert also_broken(path, "private-file-page-write-bit-unexpected", entry_xor(s, row, RW)) == []


def test_writable_watched_entry(path: str) -> None:
    s = sound_snapshot(path)
    watched = ((s.mappings.bits & Bit.UFFD_WP) != 0) & vma_has(s, 1 << 12) & vma_has(s, VM_WRITE)
    watched &= ((s.mappings.bits & Bit.PROT_NONE) == 0) & (s.mappings.entry_class == EntryClass.NORMAL)
    row = first_mapping(s, watched)
    also_broken(path, "uffd-wp-write-bit-unexpected", entry_writable(s, row))


def test_writable_zero_page(path: str) -> None:
    s = sound_snapshot(path)
    for level in (Level.PTE, Level.PMD):
        rows = np.flatnonzero((s.mappings.entry_class == EntryClass.ZERO) & (s.mappings.level == level))
        if level == Level.PTE:
            assert len(rows)
        for row in rows[:1]:
            also_broken(path, "zero-page-write-bit-unexpected", entry_xor(s, int(row), RW))


def test_anonymous_page_in_a_shared_vma(path: str) -> None:
    s = sound_snapshot(path)
    anon = anon_pages(s)[np.maximum(s.pages.memmap.rows(s.mappings.pfn), 0)]
    vma = int(s.mappings.vma_idx[first_mapping(s, private_writable(s) & anon)])
    struct = s.layout.struct("struct vm_area_struct")
    address = int(s.vmas.addr[vma]) + struct.field("vm_flags", "flags.__vma_flags[0]", "flags").offset
    other = planted(path, put(s, address, int(s.vmas.flags[vma]) | VM_SHARED))
    found = find_rule("shared-vma-anon-page-unexpected").run(other)
    assert len(found) > 0
    assert set(other.entries(found.rows).vma_idx.tolist()) == {vma}


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rule", RULES)
def test_busy_dump_fails_nothing(kernel: str, rule: str) -> None:
    found = find_rule(rule).run(sound_snapshot(core_path("busy", kernel)))
    assert len(found) == 0 or (found.details.transient is not None and found.details.transient.all())
