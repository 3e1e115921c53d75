"""Faults of the attributes of page-table entries: bits that do not fit the VMA, and bits that no entry has."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Bit, Kind, Level
from inspector.columns import I64, Mask
from inspector.layout.flags import VM_EXEC, VM_IO, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED
from inspector.snapshot import Snapshot
from inspector.walk.counts import EntryClass
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, entry_xor, pfn_of, put
from tests.faults.plants import (
    MissingError,
    Planted,
    in_shared_vma,
    mapping_of_page,
    pick,
    pmd_mapped,
    small_anon,
    small_file,
    vma_has,
)
from tests.faults.state_catalogue import quiet_mms, vma_word
from tests.faults.swap_plants import entry_changed
from tests.faults.table_catalogue import entry_of, table_at_rest

NX, PWT, PCD, PAT, GLOBAL, USER, DIRTY, ACCESSED = 1 << 63, 1 << 3, 1 << 4, 1 << 7, 1 << 8, 1 << 2, 1 << 6, 1 << 5
PKEY0, SAVED_DIRTY, PAT_LARGE = 1 << 59, 1 << 58, 1 << 12

_NO_SAVED_DIRTY = "a saved dirty bit"


def _of_anon(s: Snapshot, bits: int, rule: str) -> Planted:
    """Bits of an entry of an anonymous page turned over."""
    rows = small_anon(s, 1)
    row = pick(rows, "an anonymous page", len(rows) // 2)
    mapping, skip = mapping_of_page(s, row)
    return Planted((entry_xor(s, mapping, bits, skip),), (rule,), pfn_of(s, row))


def _of_huge(s: Snapshot, bits: int, rule: str) -> Planted:
    """Bits of a PMD leaf turned over."""
    m = s.mappings
    folio = pick(pmd_mapped(s, anon=True), "an anonymous folio with a huge entry", 1)
    hit = (m.level == Level.PMD) & (m.pfn == s.folios.pfn[folio]) & m.counted
    row = pick(np.flatnonzero(hit & ~s.mm_in_motion[m.mm_idx]), "its entry")
    return Planted((entry_xor(s, row, bits),), (rule,), int(s.folios.pfn[folio]))


@fault
def entry_made_executable(s: Snapshot) -> Planted:
    return _of_anon(s, NX, "entry-protection-mismatch")


@fault
def code_that_cannot_be_executed(s: Snapshot) -> Planted:
    m = s.mappings
    code = vma_has(s, VM_EXEC) & (m.level == Level.PTE) & (m.entry_class == EntryClass.NORMAL)
    row = pick(np.flatnonzero(code & ~s.mm_in_motion[m.mm_idx]), "code", 60)
    return Planted((entry_xor(s, row, NX),), ("entry-protection-mismatch",), int(m.pfn[row]))


@fault
def entry_closed_to_user_space(s: Snapshot) -> Planted:
    return _of_anon(s, USER, "entry-protection-mismatch")


@fault
def entry_of_another_protection_key(s: Snapshot) -> Planted:
    return _of_anon(s, PKEY0, "entry-protection-mismatch")


@fault
def huge_entry_made_executable(s: Snapshot) -> Planted:
    return _of_huge(s, NX, "entry-protection-mismatch")


@fault
def entry_without_access_open_to_user_space(s: Snapshot) -> Planted:
    """An entry of a VMA without any access, or of a NUMA hint, has the USER bit."""
    m = s.mappings
    hidden = ((m.bits & Bit.PROT_NONE) != 0) & (m.level == Level.PTE) & (m.entry_class == EntryClass.NORMAL)
    row = pick(np.flatnonzero(hidden & ~s.mm_in_motion[m.mm_idx]), "an entry without access")
    return Planted((entry_xor(s, row, USER),), ("entry-protection-mismatch",), int(m.pfn[row]))


@fault
def memory_cached_write_through(s: Snapshot) -> Planted:
    return _of_anon(s, PWT, "entry-caching-mismatch")


@fault
def memory_not_cached(s: Snapshot) -> Planted:
    return _of_anon(s, PCD, "entry-caching-mismatch")


@fault
def memory_cached_by_another_attribute(s: Snapshot) -> Planted:
    return _of_anon(s, PAT, "entry-caching-mismatch")


@fault
def huge_page_cached_by_another_attribute(s: Snapshot) -> Planted:
    return _of_huge(s, PAT_LARGE, "entry-caching-mismatch")


@fault
def global_entry_of_a_process(s: Snapshot) -> Planted:
    return _of_anon(s, GLOBAL, "entry-bits-invalid")


@fault
def entry_with_a_bit_that_nothing_uses(s: Snapshot) -> Planted:
    return _of_anon(s, 1 << 54, "entry-bits-invalid")


@fault
def huge_entry_with_an_address_below_its_size(s: Snapshot) -> Planted:
    return _of_huge(s, 1 << 15, "entry-bits-invalid")


@fault
def writable_entry_with_the_saved_dirty_bit(s: Snapshot) -> Planted:
    if not _saves_dirty(s):
        raise MissingError(_NO_SAVED_DIRTY)
    m = s.mappings
    writable = (m.bits & (Bit.WRITE | Bit.PROT_NONE)) == Bit.WRITE
    rows = np.flatnonzero(writable & (m.level == Level.PTE) & (m.entry_class == EntryClass.NORMAL) & ~_busy(s))
    row = pick(rows, "a writable entry", 20)
    return Planted((entry_xor(s, row, SAVED_DIRTY),), ("saved-dirty-bit-unexpected",), int(m.pfn[row]))


def _saves_dirty(s: Snapshot) -> bool:
    """Whether read-only entries keep their dirty bit elsewhere."""
    return bool(getattr(s.layout.arch, "saved_dirty", False))


def _busy(s: Snapshot) -> Mask:
    return s.mm_in_motion[s.mappings.mm_idx] | in_shared_vma(s)


def _private_file_entries(s: Snapshot) -> I64:
    m = s.mappings
    ordinary = ~vma_has(s, VM_IO | VM_PFNMAP | VM_MIXEDMAP | VM_SHARED) & (m.entry_class == EntryClass.NORMAL)
    rows = small_file(s, 1)
    ours = np.isin(m.page_row, rows[~s.layout.flags.test(s.pages.flags[rows], "swapbacked")])
    return np.flatnonzero(ordinary & ours & ~_busy(s) & (m.level == Level.PTE) & (m.vma_idx >= 0))


@fault
def private_entry_of_a_file_page_made_dirty(s: Snapshot) -> Planted:
    """What Dirty COW left: the page of the file was written to through a private mapping."""
    row = pick(_private_file_entries(s), "a private entry of a page of a file", 40)
    bit = SAVED_DIRTY if _saves_dirty(s) else DIRTY
    return Planted((entry_xor(s, row, bit),), ("private-file-page-dirty-unexpected",), int(s.mappings.pfn[row]))


@fault
def upper_table_entry_without_the_accessed_bit(s: Snapshot) -> Planted:
    """The entry of a PMD table: nothing clears the bit there."""
    address = entry_of(s, table_at_rest(s, Level.PMD))
    data = s.layout.memory.read(address, 8, physical=True)
    assert data is not None
    value = int.from_bytes(data, "little") & ~ACCESSED
    return Planted((Patch(address, value.to_bytes(8, "little"), True),), ("table-entry-flags-invalid",), None)


@fault
def swap_entry_with_a_bit_without_meaning(s: Snapshot) -> Planted:
    n = s.nonpresent
    still = (n.kind == Kind.SWAP) & n.counted & ~s.mm_in_motion[n.mm_idx]
    row = pick(np.flatnonzero(still), "a swap entry", 5)
    return Planted((entry_changed(s, row, PCD),), ("nonpresent-entry-bits-invalid",), None)


@fault
def marker_with_an_unknown_mark(s: Snapshot) -> Planted:
    """Bit 3 of the marks, which are stored inverted."""
    n = s.nonpresent
    still = (n.kind == Kind.MARKER) & n.counted & ~s.mm_in_motion[n.mm_idx]
    row = pick(np.flatnonzero(still), "a marker", 0)
    return Planted((entry_changed(s, row, 1 << 12),), ("nonpresent-entry-bits-invalid",), None)


def _quiet_vma(s: Snapshot, wanted: Mask) -> int:
    v = s.vmas
    used = np.bincount(s.mappings.vma_idx[s.mappings.vma_idx >= 0], minlength=len(v)) > 0
    return pick(np.flatnonzero(wanted & used & quiet_mms(s)[v.mm_idx]), "a VMA at rest", 11)


@fault
def page_prot_of_a_vma_made_executable(s: Snapshot) -> Planted:
    v = s.vmas
    vma = _quiet_vma(s, ~v.has(VM_EXEC) & (v.file == 0) & (v.page_prot & np.uint64(1) != 0))
    patch = put(s, vma_word(s, vma, "vm_page_prot.pgprot", "vm_page_prot"), int(v.page_prot[vma]) & ~NX)
    return Planted((patch,), ("vma-page-prot-mismatch",), None)


@fault
def vma_executable_by_its_flags_alone(s: Snapshot) -> Planted:
    """VM_EXEC without the vm_page_prot for it, and without the entries."""
    v = s.vmas
    vma = _quiet_vma(s, ~v.has(VM_EXEC) & (v.file == 0) & (v.page_prot & np.uint64(1) != 0))
    patch = put(s, vma_word(s, vma, "vm_flags", "flags.__vma_flags[0]", "flags"), int(v.flags[vma]) | VM_EXEC)
    return Planted((patch,), ("vma-page-prot-mismatch",), None)


@fault
def page_prot_of_another_protection_key(s: Snapshot) -> Planted:
    v = s.vmas
    vma = _quiet_vma(s, (v.file == 0) & (v.page_prot & np.uint64(1) != 0))
    patch = put(s, vma_word(s, vma, "vm_page_prot.pgprot", "vm_page_prot"), int(v.page_prot[vma]) ^ PKEY0)
    return Planted((patch,), ("vma-page-prot-mismatch",), None)
