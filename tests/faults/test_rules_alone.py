"""Rules whose faults always break an earlier rule as well, or need entries that a kernel at rest never holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inspector.arch.base import Bit, Kind, Level
from inspector.layout.flags import VM_MAYSHARE, VM_SHARED, VM_WRITE
from inspector.rules import find_rule
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, Patch, core_path, entry_xor, pfn_of, planted, sound
from tests.faults.plants import entry_address, mapping_of_page, pick, small_anon, small_file, swap_pte
from tests.faults.rmap_catalogue import anon_vma_of_a_vma_forgotten, folio_given_to_a_foreign_anon_vma

UFFD_BIT = 1 << 10


def replaced(s: Snapshot, page: int, data: bytes) -> Patch:
    """The PTE of a page replaced."""
    return Patch(entry_address(s, *mapping_of_page(s, page)), data, True)


def migration_to_a_free_page(s: Snapshot) -> tuple[Patch, ...]:
    free = pfn_of(s, int(s.buddy_pages[700]))
    return (replaced(s, pick(small_anon(s, 1), "a page", 4), swap_pte(s, Kind.MIGRATION_READ, free)),)


def exclusive_migration_of_a_file_page(s: Snapshot) -> tuple[Patch, ...]:
    page = pick(small_file(s, 3), "a page of a file", 2)
    return (replaced(s, page, swap_pte(s, Kind.MIGRATION_READ_EXCLUSIVE, pfn_of(s, page))),)


def swap_entry_for_a_shared_file_page(s: Snapshot) -> tuple[Patch, ...]:
    m, v = s.mappings, s.vmas
    vma = np.maximum(m.vma_idx, 0)
    shared = (m.vma_idx >= 0) & v.has(VM_SHARED | VM_MAYSHARE)[vma] & (m.level == Level.PTE) & ~v.is_hugetlb[vma]
    row = pick(np.flatnonzero(shared & ~s.mm_in_motion[m.mm_idx]), "an entry of a shared VMA", 2)
    return (Patch(entry_address(s, row), swap_pte(s, Kind.SWAP, 5), True),)


def watched_bit_in_an_ordinary_vma(s: Snapshot) -> tuple[Patch, ...]:
    m, v = s.mappings, s.vmas
    plain = (m.vma_idx >= 0) & ((s.mappings.bits & (Bit.WRITE | Bit.UFFD_WP | Bit.PROT_NONE)) == 0) & (m.nr == 1)
    plain &= (v.file[np.maximum(m.vma_idx, 0)] == 0) & v.has(VM_WRITE)[np.maximum(m.vma_idx, 0)]
    row = pick(np.flatnonzero(plain & (s.mappings.entry_class == 0) & (m.level == Level.PTE)), "a read-only entry", 3)
    return (entry_xor(s, row, UFFD_BIT),)


CASES: dict[str, Callable[[Snapshot], tuple[Patch, ...]]] = {
    "nonpresent-target-invalid": migration_to_a_free_page,
    "migration-exclusive-mismatch": exclusive_migration_of_a_file_page,
    "shared-vma-swap-entry-unexpected": swap_entry_for_a_shared_file_page,
    "uffd-registration-missing": watched_bit_in_an_ordinary_vma,
    "vma-anon-vma-missing": lambda s: anon_vma_of_a_vma_forgotten(s).patches,
    "anon-root-mismatch": lambda s: folio_given_to_a_foreign_anon_vma(s).patches,
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("slug", sorted(CASES))
def test_rule_sees_its_fault_and_nothing_in_a_sound_dump(kernel: str, slug: str) -> None:
    path = core_path("fixture", kernel)
    assert len(find_rule(slug).run(sound(path))) == 0
    assert len(find_rule(slug).run(planted(path, *CASES[slug](sound(path))))) >= 1
