"""Rules of writable entries: where the hardware may let user space write."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inspector.arch.base import Bit
from inspector.columns import I64, Mask, take_or
from inspector.layout.flags import VM_IO, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED, VM_WRITE
from inspector.rules.diagnosis import wrong_kind
from inspector.rules.pieces import EntryPiece, Judged, MappedPages, mapped_pages
from inspector.rules.registry import Gather, Phase, entry_rule
from inspector.snapshot import Snapshot
from inspector.violations import NOTHING, Details, details, one
from inspector.walk.counts import EntryClass
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect

_VM_UFFD_WP = 1 << 12
"""VM_UFFD_WP, include/linux/mm.h: the same from 6.1 to 7.3."""


def _entry(expected: str, pages: Callable[[MappedPages], Mask] | None = None, *, of_vma: bool = False) -> Gather:
    """Entries with the flags of their VMAs.

    Args:
        expected: What they should be.
        pages: Which of the pages that they map are at fault.
        of_vma: Whether their VMAs are.
    """

    def evidence(s: Snapshot, rows: I64) -> Details:
        m = s.entries(rows)
        claims = one("vma", m.vma_idx) if of_vma else NOTHING
        if pages is not None:
            found = mapped_pages(s, m)
            head = s.pages.head_row[found.where(pages(found)).first]
            claims = one("folio", s.pages.memmap.pfns_of_rows(head.astype(np.int64))) + claims
        return details(
            rows,
            observed={"entry": m.entry, "vm_flags": take_or(s.vmas.flags, m.vma_idx, 0)},
            expected={"entry": expected},
            facts={"entries": m.nr},
            claims=claims,
            depends=one("vma", m.vma_idx),
            transient=mm_in_flight(s)[m.mm_idx],
        )

    return evidence


@entry_rule(
    "write-bit-unexpected",
    _entry("read-only, as the VMA", of_vma=True),
    "writable",
    Phase.LINKS,
    effect=Effect.PROTECTION,
    decides="I7",
    was="writable-entry-in-readonly-vma",
)
def write_bit_unexpected(e: EntryPiece) -> Judged:
    """An entry has the RW bit in a VMA without VM_WRITE.

    Invariant: an entry has the RW bit only in a VMA with VM_WRITE.
    Why: mm/memory.c, maybe_mkwrite(); mm/mprotect.c, change_protection() takes the bit away with VM_WRITE. Writes by
        force (ptrace) go to a copy that stays read-only.
    Consequence: memory that is meant to be constant, code among it, can be changed.
    Exceptions: mprotect() works on the mm (mmap_lock held for writing: mm/mprotect.c, mprotect_fixup() gives the VMA
        its new flags before change_protection() rewrites the entries).
    See also: folioscope va PID ADDRESS; folioscope vmas PID
    """
    able = e.writable & e.in_vma
    return Judged(able & ~e.vma_has(VM_WRITE), e.entries(able))


@entry_rule(
    "shared-vma-anon-page-unexpected",
    _entry("a page of the file", lambda pages: pages.is_anon, of_vma=True),
    "writable",
    Phase.LINKS,
    after=("write-bit-unexpected",),
    effect=Effect.ENTRIES,
    decides="I7 151",
    was="anon-page-in-shared-vma",
    diagnose=wrong_kind("an anonymous page is mapped where only pages of the file may be"),
)
def shared_vma_anon_page_unexpected(e: EntryPiece) -> Judged:
    """A shared VMA maps an anonymous page.

    Invariant: a VM_SHARED VMA maps pages of its file only; what it maps is never copied for one process.
    Why: mm/memory.c, do_shared_fault() and wp_page_shared(); shared anonymous memory is a shmem file.
    Consequence: the processes that share the file see different data at the same place.
    Exceptions: VM_SHARED is not set (private mappings hold copies); special entries, which have no pages.
    See also: folioscope va PID ADDRESS
    """
    able = e.vma_has(VM_SHARED) & e.is_normal
    pages = e.pages(able)
    return Judged(e.with_any(pages.where(pages.is_anon)), e.entries(able))


@entry_rule(
    "private-file-page-write-bit-unexpected",
    _entry("read-only: a write makes a copy", lambda pages: pages.is_file),
    "writable",
    Phase.LINKS,
    after=("write-bit-unexpected",),
    effect=Effect.ENTRIES,
    decides="I7 151",
    was="writable-private-file-page",
    diagnose=wrong_kind("a page of the page cache can be written through a private mapping"),
)
def private_file_page_write_bit_unexpected(e: EntryPiece) -> Judged:
    """A private mapping has a writable entry of a page of the page cache.

    Invariant: a VMA without VM_SHARED maps pages of its file read-only: a write makes an anonymous copy first.
    Why: mm/memory.c, do_cow_fault() and do_wp_page(); mm/hugetlb.c, hugetlb_wp().
    Consequence: what one process writes into its private memory goes to the file and to all who map it.
    Exceptions: the VMA is VM_SHARED, or belongs to a driver (VM_MIXEDMAP, VM_PFNMAP, VM_IO); the page is in no page
        cache (vDSO, driver buffers).
    See also: folioscope va PID ADDRESS; folioscope page PFN
    """
    private = e.is_normal & e.in_vma & ~e.vma_has(VM_SHARED | VM_MIXEDMAP | VM_PFNMAP | VM_IO)
    pages = e.pages(private)
    file = pages.is_file
    return Judged(e.writable & e.with_any(pages.where(file)), pages.count(file))


@entry_rule(
    "uffd-wp-write-bit-unexpected",
    _entry("read-only: writes are reported to userfaultfd"),
    "writable",
    Phase.LINKS,
    after=("shared-vma-anon-page-unexpected",),
    effect=Effect.PROTECTION,
    decides="I7 143",
    was="writable-watched-entry",
)
def uffd_wp_write_bit_unexpected(e: EntryPiece) -> Judged:
    """An entry with the uffd-wp bit is writable.

    Invariant: an entry with the uffd-wp bit has no RW bit, in a VMA registered for write protection.
    Why: mm/mprotect.c, change_pte_range() with MM_CP_UFFD_WP; mm/page_table_check.c warns of the pair.
    Consequence: writes to the page are not reported: a snapshot or migration by userfaultfd loses them.
    Exceptions: the VMA is not registered any more: hugetlb entries then keep the bit until they are unmapped.
    See also: folioscope va PID ADDRESS
    """
    able = e.has(Bit.UFFD_WP) & e.vma_has(_VM_UFFD_WP) & (e.entry_class != EntryClass.SPECIAL)
    return Judged(able & e.writable, e.entries(able))


@entry_rule(
    "zero-page-write-bit-unexpected",
    _entry("read-only"),
    "writable",
    Phase.STRUCTURES,
    after=("uffd-context-mismatch",),
    effect=Effect.ENTRIES,
    was="zero-page-writable",
)
def zero_page_write_bit_unexpected(e: EntryPiece) -> Judged:
    """An entry of the zero page is writable.

    Invariant: the shared zero page and the huge zero folio are mapped read-only, always.
    Why: mm/memory.c, do_anonymous_page() maps the zero page for reads only; mm/huge_memory.c, set_huge_zero_folio().
    Consequence: one write changes the zeroes of all processes.
    Exceptions: never.
    See also: folioscope va PID ADDRESS
    """
    able = e.entry_class == EntryClass.ZERO
    return Judged(able & e.writable, e.entries(able))
