"""Rules of the attributes of leaf entries: what the VMA's vm_page_prot gives them, and what no entry has."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Bit
from inspector.columns import I64, U64, Mask, take_or
from inspector.layout.flags import VM_HUGETLB, VM_IO, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED
from inspector.rules.pieces import EntryPiece, Judged, MappedPages, mapped_pages
from inspector.rules.registry import Gather, Phase, entry_rule
from inspector.snapshot import Snapshot
from inspector.violations import Details, details, one
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect

_DRIVERS = VM_IO | VM_PFNMAP | VM_MIXEDMAP
"""VMAs into which drivers put entries with protections of their own (remap_pfn_range(), vmf_insert_pfn_prot())."""


def _prots(e: EntryPiece) -> U64:
    return e.of_vma(e.s.vmas.page_prot, 0)


def _ordinary(e: EntryPiece) -> Mask:
    return e.in_vma & ~e.vma_has(_DRIVERS)


def _against_vma(what: str) -> Gather:
    """Entries beside the vm_page_prot of their VMAs."""

    def evidence(s: Snapshot, rows: I64) -> Details:
        m = s.entries(rows)
        prot = take_or(s.vmas.page_prot, m.vma_idx, 0)
        return details(
            rows,
            observed={"entry": m.entry, "vm_page_prot": prot},
            expected={"entry": what},
            facts={"entries": m.nr, "vm_flags": take_or(s.vmas.flags, m.vma_idx, 0)},
            depends=one("vma", m.vma_idx),
            transient=mm_in_flight(s)[m.mm_idx],
        )

    return evidence


@entry_rule(
    "entry-protection-mismatch",
    _against_vma("USER, NX and protection key of vm_page_prot"),
    "attributes",
    Phase.LINKS,
    after=("vma-page-prot-mismatch",),
    effect=Effect.PROTECTION,
)
def entry_protection_mismatch(e: EntryPiece) -> Judged:
    """The USER bit, the NX bit or the protection key of an entry is not what its VMA gives.

    Invariant: an entry has the USER bit, the NX bit and the protection key of its VMA's vm_page_prot; one that is
        present for the mm only (PROT_NONE, NUMA hints) has neither USER nor NX, and the VMA's key or none.
    Why: mm/memory.c makes each entry with mk_pte(page, vma->vm_page_prot); mm/mprotect.c, change_protection() rewrites
        all of them (pte_modify()).
    Consequence: data can be executed, a page is open to a process that closed it with its protection keys, or the
        process dies on memory that it owns.
    Exceptions: a driver's VMA (VM_IO, VM_PFNMAP, VM_MIXEDMAP: entries are made with what the driver gives). mprotect()
        works on the mm (mmap_lock held for writing: the VMA changes first). A huge entry that is invalidated for a
        moment.
    See also: folioscope va PID ADDRESS; folioscope vmas PID
    """
    able = _ordinary(e)
    return Judged(able & e.s.layout.arch.access_differs(e.m.entry, _prots(e)), e.entries(able))


@entry_rule(
    "entry-caching-mismatch",
    _against_vma("PWT, PCD and PAT of vm_page_prot"),
    "attributes",
    Phase.LINKS,
    after=("entry-protection-mismatch",),
    effect=Effect.PROTECTION,
)
def entry_caching_mismatch(e: EntryPiece) -> Judged:
    """An entry of ordinary memory is cached in another way than its VMA says.

    Invariant: the PWT, PCD and PAT bits of an entry are those of its VMA's vm_page_prot: none for ordinary memory.
    Why: arch/x86/include/asm/pgtable_types.h, PAGE_SHARED and its kin have none of them; only drivers add some, to
        vm_page_prot (pgprot_noncached()) or to single entries (arch/x86/mm/pat/memtype.c).
    Consequence: the memory is slow, and the same page is cached in two ways: what one mapping writes others do not see.
    Exceptions: a driver's VMA (VM_IO, VM_PFNMAP, VM_MIXEDMAP).
    See also: folioscope va PID ADDRESS
    """
    able = _ordinary(e)
    return Judged(able & e.s.layout.arch.caching_differs(e.level, e.m.entry, _prots(e)), e.entries(able))


def _never(s: Snapshot, rows: I64) -> Details:
    m = s.entries(rows)
    bits = s.layout.arch.never_written(m.level, m.entry)
    return details(
        rows,
        observed={"entry": m.entry},
        expected={"entry": m.entry & ~bits},
        facts={"entries": m.nr, "bits": bits},
    )


@entry_rule(
    "entry-bits-invalid",
    _never,
    "attributes",
    Phase.STRUCTURES,
    effect=Effect.ENTRIES,
)
def entry_bits_invalid(e: EntryPiece) -> Judged:
    """An entry has a bit that the kernel sets in no entry of user space.

    Invariant: the global bit, the bits from 52 on that no kernel uses, and the address bits below the size of a huge
        entry are clear.
    Why: arch/x86/include/asm/pgtable_types.h: no protection of user space (PAGE_SHARED and its kin) has them;
        pfn_pte() and pfn_pmd() mask the address.
    Consequence: a global entry is left in the TLB when another process runs; a reserved address bit kills the process;
        the others are ignored. The entry was overwritten.
    Exceptions: the global bit in a driver's VMA (VM_IO, VM_PFNMAP, VM_MIXEDMAP).
    See also: folioscope va PID ADDRESS
    """
    able = ~e.vma_has(_DRIVERS)
    return Judged(able & (e.s.layout.arch.never_written(e.level, e.m.entry) != 0), e.entries(able))


@entry_rule(
    "saved-dirty-bit-unexpected",
    _against_vma("the dirty bit of the processor in a writable entry"),
    "attributes",
    Phase.LINKS,
    after=("entry-protection-mismatch",),
    effect=Effect.ENTRIES,
)
def saved_dirty_bit_unexpected(e: EntryPiece) -> Judged:
    """A writable entry keeps its dirty bit where only read-only ones do.

    Invariant: the saved dirty bit (6.6 and later) is set in entries without the RW bit only.
    Why: arch/x86/include/asm/pgtable.h, pte_mksaveddirty() moves the dirty bit there when RW goes,
        pte_clear_saveddirty() back when RW comes.
    Consequence: none at once: pte_dirty() takes either. The entry was overwritten, or the RW bit was set by no code of
        the kernel.
    Exceptions: hugetlb (huge_pte_mkwrite() does not move the bit back); kernels without the bit.
    See also: folioscope va PID ADDRESS
    """
    able = e.has(Bit.WRITE) & ~e.vma_has(VM_HUGETLB) & ~e.in_hugetlb_folio
    return Judged(able & e.has(Bit.SAVED_DIRTY), e.entries(able))


def _file_of_disk(pages: MappedPages) -> Mask:
    """Pages of the page cache but those of shmem."""
    return pages.is_file & ~pages.head_has("swapbacked")


def _dirty(s: Snapshot, rows: I64) -> Details:
    m = s.entries(rows)
    found = mapped_pages(s, m)
    head = s.pages.head_row[found.where(_file_of_disk(found)).first]
    return details(
        rows,
        observed={"entry": m.entry, "vm_flags": take_or(s.vmas.flags, m.vma_idx, 0)},
        expected={"entry": "clean: a write makes a copy"},
        facts={"entries": m.nr},
        claims=one("folio", s.pages.memmap.pfns_of_rows(head.astype(np.int64))),
        depends=one("vma", m.vma_idx),
        transient=mm_in_flight(s)[m.mm_idx],
    )


@entry_rule(
    "private-file-page-dirty-unexpected",
    _dirty,
    "attributes",
    Phase.LINKS,
    after=("private-file-page-write-bit-unexpected",),
    effect=Effect.ENTRIES,
)
def private_file_page_dirty_unexpected(e: EntryPiece) -> Judged:
    """A private mapping has a dirty entry of a page of the page cache.

    Invariant: in a VMA without VM_SHARED only entries of anonymous pages are dirty: a page of the file is never written
        through it.
    Why: mm/memory.c, do_read_fault() makes a clean entry, do_cow_fault() and do_wp_page() copy before they make a dirty
        one. Dirty COW (CVE-2016-5195) took a dirty entry for the sign that the copy was made.
    Consequence: the page was written through a private mapping: the file has changed for all who read it.
    Exceptions: shmem and hugetlb (userfaultfd puts dirty read-only entries there, mm/userfaultfd.c,
        mfill_atomic_install_pte()); a driver's VMA (VM_IO, VM_PFNMAP, VM_MIXEDMAP).
    See also: folioscope va PID ADDRESS; folioscope page PFN
    """
    dirty = e.is_normal & _ordinary(e) & e.has(Bit.DIRTY) & ~e.vma_has(VM_SHARED | VM_HUGETLB) & ~e.in_hugetlb_folio
    pages = e.pages(dirty)
    return Judged(e.with_any(pages.where(_file_of_disk(pages))), pages.count(pages.is_file))
