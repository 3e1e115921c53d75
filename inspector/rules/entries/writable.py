"""Rules of writable entries: where the hardware may let user space write."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Bit
from inspector.columns import I64, take_or
from inspector.layout.flags import VM_IO, VM_MIXEDMAP, VM_PFNMAP, VM_WRITE
from inspector.rules.diagnosis import wrong_kind
from inspector.rules.entries.entries import anon_pages, file_pages, in_shared_vma, offending, vma_has, writable
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import ENTRY
from inspector.violations import NOTHING, Things, Violations, one, violations
from inspector.walk.counts import EntryClass
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect

_VM_UFFD_WP = 1 << 12
"""VM_UFFD_WP, include/linux/mm.h: the same from 6.1 to 7.3."""


def _entries(s: Snapshot, rows: I64, checked: int, expected: str, claims: Things = NOTHING) -> Violations:
    """Violations of the given mappings; an mm that is being changed explains them."""
    m = s.mappings
    vma = m.vma_idx[rows]
    flags = take_or(s.vmas.flags, vma, 0)
    return violations(
        rows,
        observed={"entry": m.entry[rows], "vm_flags": flags},
        expected={"entry": np.full(len(rows), expected)},
        checked=checked,
        facts={"entries": m.nr[rows]},
        claims=claims,
        depends=one("vma", vma),
        transient=mm_in_flight(s)[m.mm_idx[rows]],
    )


@rule(
    "write-bit-unexpected",
    ENTRY,
    "writable",
    Phase.LINKS,
    effect=Effect.ENTRIES,
    decides="I7",
    was="writable-entry-in-readonly-vma",
)
def write_bit_unexpected(s: Snapshot) -> Violations:
    """An entry lets user space write although its VMA does not.

    Invariant: an entry has the RW bit only in a VMA with VM_WRITE.
    Why: mm/memory.c, maybe_mkwrite(); mm/mprotect.c, change_protection() takes the bit away with VM_WRITE. Writes by
        force (ptrace) go through a copy that stays read-only.
    Consequence: memory that is meant to be constant, code among it, can be changed.
    Exceptions: mprotect() works on the mm (mmap_lock held for writing: the VMA changes before its entries).
    See also: folioscope va PID ADDRESS; folioscope vmas PID
    """
    m = s.mappings
    checked = writable(s) & (m.vma_idx >= 0)
    wrong = np.flatnonzero(checked & ~vma_has(s, VM_WRITE))
    return _entries(s, wrong, int(m.nr[checked].sum()), "read-only, as the VMA", one("vma", m.vma_idx[wrong]))


@rule(
    "shared-vma-anon-page-unexpected",
    ENTRY,
    "writable",
    Phase.LINKS,
    after=("write-bit-unexpected",),
    effect=Effect.ENTRIES,
    decides="I7 151",
    was="anon-page-in-shared-vma",
    diagnose=wrong_kind("an anonymous page is mapped where only pages of the file may be"),
)
def shared_vma_anon_page_unexpected(s: Snapshot) -> Violations:
    """A shared VMA maps an anonymous page.

    Invariant: a VM_SHARED VMA maps pages of its file only; what it maps is never copied for one process.
    Why: mm/memory.c, do_shared_fault() and wp_page_shared(); shared anonymous memory is a shmem file.
    Consequence: the processes that share the file see different data at the same place.
    Exceptions: VM_SHARED is not set (private mappings hold copies); VM_PFNMAP memory, which has no pages.
    See also: folioscope va PID ADDRESS
    """
    rows = np.flatnonzero(in_shared_vma(s) & (s.counts.entry_class == EntryClass.NORMAL))
    found = offending(s, rows, anon_pages(s))
    claims = one("folio", found.first_head(s)) + one("vma", s.mappings.vma_idx[found.rows])
    return _entries(s, found.rows, int(s.mappings.nr[rows].sum()), "a page of the file", claims)


@rule(
    "private-file-page-write-bit-unexpected",
    ENTRY,
    "writable",
    Phase.LINKS,
    after=("write-bit-unexpected",),
    effect=Effect.ENTRIES,
    decides="I7 151",
    was="writable-private-file-page",
    diagnose=wrong_kind("a page of the page cache can be written through a private mapping"),
)
def private_file_page_write_bit_unexpected(s: Snapshot) -> Violations:
    """A private mapping lets user space write to a page of the page cache.

    Invariant: a VMA without VM_SHARED maps pages of its file read-only: a write makes an anonymous copy first.
    Why: mm/memory.c, do_cow_fault() and do_wp_page(); mm/hugetlb.c, hugetlb_wp().
    Consequence: what one process writes into its private memory ends in the file, for everybody.
    Exceptions: the VMA is VM_SHARED, or belongs to a driver (VM_MIXEDMAP, VM_PFNMAP, VM_IO); the page is in no page
        cache (vDSO, driver buffers).
    See also: folioscope va PID ADDRESS; folioscope page PFN
    """
    private = (s.counts.entry_class == EntryClass.NORMAL) & (s.mappings.vma_idx >= 0) & ~in_shared_vma(s)
    for flag in (VM_MIXEDMAP, VM_PFNMAP, VM_IO):
        private &= ~vma_has(s, flag)
    file = file_pages(s)
    found = offending(s, np.flatnonzero(private & writable(s)), file)
    checked = int(offending(s, np.flatnonzero(private), file).pages.sum())
    claims = one("folio", found.first_head(s))
    return _entries(s, found.rows, checked, "read-only: a write makes a copy", claims)


@rule(
    "uffd-wp-write-bit-unexpected",
    ENTRY,
    "writable",
    Phase.LINKS,
    after=("shared-vma-anon-page-unexpected",),
    effect=Effect.ENTRIES,
    decides="I7 143",
    was="writable-watched-entry",
)
def uffd_wp_write_bit_unexpected(s: Snapshot) -> Violations:
    """An entry that userfaultfd write-protects is writable.

    Invariant: an entry with the uffd-wp bit has no RW bit, in a VMA registered for write protection.
    Why: mm/mprotect.c, change_pte_range() with MM_CP_UFFD_WP; mm/page_table_check.c warns of the pair.
    Consequence: writes to a watched page are not reported: a snapshot or migration by userfaultfd loses them.
    Exceptions: the VMA is not registered any more: hugetlb entries then keep the bit until they are unmapped.
    See also: folioscope va PID ADDRESS
    """
    watched = (s.counts.bits & Bit.UFFD_WP) != 0
    checked = watched & vma_has(s, _VM_UFFD_WP) & (s.counts.entry_class != EntryClass.SPECIAL)
    rows = np.flatnonzero(checked & writable(s))
    return _entries(s, rows, int(s.mappings.nr[checked].sum()), "read-only, as it is watched")


@rule(
    "zero-page-write-bit-unexpected",
    ENTRY,
    "writable",
    Phase.STRUCTURES,
    after=("uffd-context-mismatch",),
    effect=Effect.ENTRIES,
    was="zero-page-writable",
)
def zero_page_write_bit_unexpected(s: Snapshot) -> Violations:
    """An entry of the zero page is writable.

    Invariant: the shared zero page and the huge zero folio are mapped read-only, always.
    Why: mm/memory.c, do_anonymous_page() maps the zero page for reads only; mm/huge_memory.c, set_huge_zero_folio().
    Consequence: one write changes the zeroes of all processes.
    Exceptions: never.
    See also: folioscope va PID ADDRESS
    """
    checked = s.counts.entry_class == EntryClass.ZERO
    rows = np.flatnonzero(checked & writable(s))
    return _entries(s, rows, int(s.mappings.nr[checked].sum()), "read-only")
