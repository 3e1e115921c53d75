"""Faults of entries, tables, VMAs and counters that need a place of a special kind."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import I64
from inspector.layout.flags import VM_MAYREAD, VM_MAYWRITE, VM_READ, VM_SHARED
from inspector.snapshot import Snapshot
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, add, page_word, pfn_of, put
from tests.faults.plants import (
    IDS,
    MissingError,
    Planted,
    calm,
    empty_slot,
    folio_at,
    folios,
    head_field,
    pick,
    pmd_mapped,
    pte_to,
    scheme_has,
    small_file,
)


@fault
def pte_to_a_reserved_page(s: Snapshot) -> Planted:
    reserved = s.layout.flags.test(s.pages.flags, "reserved") & (s.pages.refcount > 0) & (s.pages.type_ == 0)
    rows = np.flatnonzero(reserved & (s.counts.page_mappings == 0) & (s.folio_of_page < 0))
    rows = rows[s.pages.memmap.pfns_of_rows(rows) != s.layout.zero_pfn]
    pfn = pfn_of(s, pick(rows, "a reserved page", 50))
    return Planted((Patch(empty_slot(s)[0], pte_to(pfn), True),), ("reserved-page-mapping-unexpected",), pfn)


@fault
def pte_to_a_hugetlb_folio(s: Snapshot) -> Planted:
    pfn = int(s.folios.pfn[pick(pmd_mapped(s, hugetlb=True), "a mapped hugetlb folio", 1)])
    return Planted((Patch(empty_slot(s)[0], pte_to(pfn), True),), ("hugetlb-mapping-mismatch",), pfn)


def empty_pmd(s: Snapshot) -> int:
    """Physical address of an empty PMD that covers nothing but one anonymous VMA of an mm at rest."""
    t, v, size = s.tables, s.vmas, np.uint64(1 << 21)
    large = (v.file == 0) & ~v.is_hugetlb & (v.end - v.start >= size)
    for row in np.flatnonzero((t.level == Level.PMD) & t.first & (t.state == 0) & ~s.mm_in_motion[t.mm_idx]).tolist():
        vma = np.flatnonzero(large & (v.mm_idx == t.mm_idx[row]))
        data = s.layout.memory.read(int(t.pfn[row]) << 12, 4096, physical=True) if len(vma) else None
        slots = np.flatnonzero(np.frombuffer(data or b"", np.uint64) == 0)
        va = t.va[row] + slots.astype(np.uint64) * size
        inside = (v.start[vma][:, None] <= va) & (v.end[vma][:, None] >= va + size)
        for slot in slots[inside.any(axis=0)].tolist():
            return (int(t.pfn[row]) << 12) + 8 * int(slot)
    raise MissingError("an empty PMD inside an anonymous VMA")


@fault
def pmd_to_small_pages(s: Snapshot) -> Planted:
    aligned = (s.pages.memmap.pfns_of_rows(np.arange(len(s.pages))) & 511) == 0
    rows = np.flatnonzero(aligned & calm(s) & (s.pages.refcount > 0) & (s.folio_of_page < 0))
    pfn = pfn_of(s, pick(rows, "an aligned small page", 2))
    return Planted((Patch(empty_pmd(s), pte_to(pfn, huge=True), True),), ("huge-entry-folio-mismatch",), pfn)


@fault
def page_table_of_another_process(s: Snapshot) -> Planted:
    """An empty PMD made to point to a page table that another address space owns."""
    t = s.tables
    used = np.bincount(s.mappings.table_idx, minlength=len(t))
    pmd = np.flatnonzero((t.level == Level.PMD) & t.first & (t.state == 0) & ~s.mm_in_motion[t.mm_idx])
    row = pick(pmd, "a PMD table", 2)
    rows = (t.level == Level.PTE) & (used > 3) & (t.mm_idx != t.mm_idx[row]) & ~s.mm_in_motion[t.mm_idx]
    foreign = pick(np.flatnonzero(rows), "a PTE table of another process", 8)
    data = s.layout.memory.read(int(t.pfn[row]) << 12, 4096, physical=True)
    slot = int(np.flatnonzero(np.frombuffer(data or b"", np.uint64) == 0)[3])
    entry = ((int(t.pfn[foreign]) << 12) | 0x67).to_bytes(8, "little")
    return Planted((Patch((int(t.pfn[row]) << 12) + 8 * slot, entry, True),), ("page-table-sharing-unexpected",), None)


def _gap_slot(s: Snapshot, mm: int) -> int:
    """Physical address of an empty PTE of an mm at an address where it has no VMA; 0 when its tables have none."""
    m, v = s.mappings, s.vmas
    for row in np.flatnonzero((m.mm_idx == mm) & (m.level == Level.PTE) & (m.vma_idx >= 0) & m.counted).tolist():
        vma, behind = int(m.vma_idx[row]), int(v.end[m.vma_idx[row]])
        skip = (behind - int(m.va[row])) >> 12
        last = vma + 1 >= len(v) or v.mm_idx[vma + 1] != mm
        if int(m.slot[row]) + skip < 512 and (last or int(v.start[vma + 1]) > behind):
            return (int(s.tables.pfn[m.table_idx[row]]) << 12) + 8 * (int(m.slot[row]) + skip)
    return 0


@fault
def swap_entry_where_no_vma_is(s: Snapshot) -> Planted:
    n = s.nonpresent
    rows = np.flatnonzero((n.kind == Kind.SWAP) & (n.level == Level.PTE) & (n.vma_idx >= 0))
    for row in rows[~s.mm_in_motion[n.mm_idx[rows]]].tolist():
        there = _gap_slot(s, int(n.mm_idx[row]))
        if there:
            here = (int(s.tables.pfn[n.table_idx[row]]) << 12) + 8 * int(n.slot[row])
            moved = (Patch(there, int(n.entry[row]).to_bytes(8, "little"), True), Patch(here, bytes(8), True))
            return Planted(moved, ("nonpresent-entry-vma-missing",), None)
    raise MissingError("a gap behind a VMA of a process with swap entries")


@fault
def shared_flag_left_on_an_unmapped_folio(s: Snapshot) -> Planted:
    scheme_has(s, *IDS)
    folio = pick(folios(s, s.folios.is_rmappable & (s.folio_totals == 0)), "an unmapped large folio")
    patch = put(s, folio_at(s, folio, head_field(s, "_mm_ids")), 1 << 63)
    return Planted((patch,), ("mm-id-slot-unexpected",), int(s.folios.pfn[folio]))


def _quiet_mm(s: Snapshot) -> int:
    quiet = (s.mms.nr_tasks == 1) & ~s.mm_in_motion & (s.mms.rss.sum(axis=1) > 20)
    return pick(np.flatnonzero(quiet), "a quiet process", 7)


def _mm_counter(s: Snapshot, name: str, delta: int, rule: str) -> Planted:
    field = s.layout.struct("struct mm_struct").field(name)
    return Planted((add(s, int(s.mms.addr[_quiet_mm(s)]) + field.offset, delta, field.size),), (rule,), None)


@fault
def total_vm_raised(s: Snapshot) -> Planted:
    return _mm_counter(s, "total_vm", 3, "vm-counters-mismatch")


@fault
def locked_vm_raised(s: Snapshot) -> Planted:
    return _mm_counter(s, "locked_vm", 1, "vm-counters-mismatch")


@fault
def pgtables_bytes_raised(s: Snapshot) -> Planted:
    return _mm_counter(s, "pgtables_bytes.counter", 4096, "pgtables-bytes-mismatch")


def _quiet_vma(s: Snapshot, rows: I64, nth: int = 4) -> int:
    return pick(rows[~s.mm_in_motion[s.vmas.mm_idx[rows]]], "a VMA at rest", nth)


@fault
def vma_marked_as_detached(s: Snapshot) -> Planted:
    struct = s.layout.struct("struct vm_area_struct")
    refcnt, detached = struct.find("vm_refcnt.refs.counter", "vm_refcnt.counter"), struct.find("detached")
    at = int(s.vmas.addr[_quiet_vma(s, np.arange(len(s.vmas)), 20)])
    if refcnt is not None:
        return Planted((put(s, at + refcnt.offset, 0, 4),), ("vma-attached-mark-missing",), None)
    if detached is None:
        raise MissingError("VMAs that know whether they are attached")
    return Planted((put(s, at + detached.offset, 1, 1),), ("vma-attached-mark-missing",), None)


@fault
def vma_readable_beyond_its_limits(s: Snapshot) -> Planted:
    vma = _quiet_vma(s, np.flatnonzero(s.vmas.has(VM_READ)))
    field = s.layout.struct("struct vm_area_struct").field("vm_flags", "flags.__vma_flags[0]", "flags")
    value = int(s.vmas.flags[vma]) & ~VM_MAYREAD
    return Planted((put(s, int(s.vmas.addr[vma]) + field.offset, value),), ("vma-flags-invalid",), None)


@fault
def bound_of_a_file_tree_wrong(s: Snapshot) -> Planted:
    nodes = s.file_rmap.nodes
    rows = np.flatnonzero((nodes.vma_idx >= 0) & (np.bincount(nodes.address_space_idx)[nodes.address_space_idx] > 2))
    row = pick(rows[~s.mm_in_motion[s.vmas.mm_idx[nodes.vma_idx[rows]]]], "a VMA in a tree", 4)
    field = s.layout.struct("struct vm_area_struct").field("shared.rb_subtree_last")
    patch = put(s, int(nodes.vma[row]) + field.offset, int(nodes.subtree_last[row]) + 9)
    return Planted((patch,), ("i-mmap-tree-damaged",), None)


@fault
def writable_mappings_of_a_file_forgotten(s: Snapshot) -> Planted:
    wants = s.vmas.has(VM_SHARED | VM_MAYWRITE) & (s.file_rmap.address_space_of_vma >= 0)
    moving = s.file_rmap.address_space_of_vma[s.mm_in_motion[s.vmas.mm_idx]]
    rows = np.flatnonzero(wants & ~np.isin(s.file_rmap.address_space_of_vma, moving))
    space = int(s.file_rmap.address_space_of_vma[pick(rows, "a file mapped shared and writable")])
    field = s.layout.struct("struct address_space").field("i_mmap_writable.counter")
    return Planted(
        (put(s, int(s.file_rmap.address_spaces.addr[space]) + field.offset, 0, 4),), ("i-mmap-writable-low",), None
    )


@fault
def file_page_given_to_another_file(s: Snapshot) -> Planted:
    row = pick(small_file(s, 2), "a mapped page of a file", 2)
    others = s.file_rmap.address_spaces.addr[s.file_rmap.address_spaces.addr != s.pages.mapping[row]]
    patch = put(s, page_word(s, pfn_of(s, row), "mapping"), int(others[3]))
    return Planted((patch,), ("file-mapping-mismatch", "cache-entry-mismatch"), pfn_of(s, row))


@fault
def swap_entry_in_place_of_a_page_table(s: Snapshot) -> Planted:
    raw = (~(5 << 9)) & ((1 << 59) - 1) & ~0x1FF
    return Planted((Patch(empty_pmd(s), raw.to_bytes(8, "little"), True),), ("huge-swap-entry-unexpected",), None)


def _table_entry(s: Snapshot, bit: int) -> Planted:
    t = s.tables
    rows = np.flatnonzero((t.level == Level.PTE) & (t.state == 0) & ~s.mm_in_motion[t.mm_idx] & (t.parent >= 0))
    row = pick(rows, "a PTE table", 12)
    address = (int(t.pfn[t.parent[row]]) << 12) + 8 * int(t.slot[row])
    data = s.layout.memory.read(address, 8, physical=True)
    assert data is not None
    patch = Patch(address, (int.from_bytes(data, "little") ^ 1 << bit).to_bytes(8, "little"), True)
    return Planted((patch,), ("table-entry-flags-invalid",), None)


@fault
def table_entry_no_longer_writable(s: Snapshot) -> Planted:
    return _table_entry(s, 1)


@fault
def table_entry_not_executable(s: Snapshot) -> Planted:
    return _table_entry(s, 63)


@fault
def table_entry_without_user_access(s: Snapshot) -> Planted:
    return _table_entry(s, 2)


def _registered(s: Snapshot, nth: int = 0) -> int:
    quiet = (s.uffd.context_of_vma >= 0) & ~s.mm_in_motion[s.vmas.mm_idx] & s.vmas.has(1 << 9)
    return pick(np.flatnonzero(quiet), "a VMA that userfaultfd watches", nth)


@fault
def userfaultfd_of_a_vma_forgotten(s: Snapshot) -> Planted:
    field = s.layout.struct("struct vm_area_struct").field("vm_userfaultfd_ctx.ctx")
    return Planted((put(s, int(s.vmas.addr[_registered(s)]) + field.offset, 0),), ("uffd-context-mismatch",), None)


@fault
def userfaultfd_that_watches_nothing(s: Snapshot) -> Planted:
    vma = _registered(s)
    at = int(s.vmas.addr[vma]) + s.layout.struct("struct vm_area_struct").field("vm_flags", "flags").offset
    return Planted((put(s, at, int(s.vmas.flags[vma] & ~s.uffd.watching)),), ("uffd-context-mismatch",), None)


@fault
def userfaultfd_of_minor_faults_forgotten(s: Snapshot) -> Planted:
    minor = s.vmas.has(s.uffd.modes["minor"]) & ~s.mm_in_motion[s.vmas.mm_idx]
    vma = pick(np.flatnonzero(minor), "a VMA watched for minor faults")
    field = s.layout.struct("struct vm_area_struct").field("vm_userfaultfd_ctx.ctx")
    return Planted((put(s, int(s.vmas.addr[vma]) + field.offset, 0),), ("uffd-context-mismatch",), None)


@fault
def userfaultfd_of_another_process(s: Snapshot) -> Planted:
    """A VMA merged or moved into one that another reader watches."""
    vma = _registered(s)
    others = np.flatnonzero(s.uffd.contexts.mm_idx != s.vmas.mm_idx[vma])
    context = int(s.uffd.contexts.addr[pick(others, "another context")])
    field = s.layout.struct("struct vm_area_struct").field("vm_userfaultfd_ctx.ctx")
    return Planted((put(s, int(s.vmas.addr[vma]) + field.offset, context),), ("uffd-context-mismatch",), None)


@fault
def userfaultfd_closed_and_still_registered(s: Snapshot) -> Planted:
    context = int(s.uffd.contexts.addr[s.uffd.context_of_vma[_registered(s)]])
    at = context + s.layout.struct("struct userfaultfd_ctx").field("released").offset
    return Planted((put(s, at, 1, 1),), ("uffd-context-file-missing",), None, "warn")
