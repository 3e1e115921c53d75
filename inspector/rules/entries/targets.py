"""Rules of what a present entry may point to."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Bit, Level
from inspector.columns import AnyArray, Mask
from inspector.layout.flags import VM_IO, VM_MIXEDMAP, VM_PFNMAP
from inspector.rules.diagnosis import early_free
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import ENTRY
from inspector.violations import Violations, cannot_check, violations
from inspector.walk.counts import EntryClass


def _entries(s: Snapshot, wrong: Mask, expected: str) -> Violations:
    """Violations of the mappings in ``wrong``, each naming what it points to."""
    m, pages = s.mappings, s.pages
    rows = np.flatnonzero(wrong)
    head = np.maximum(s.counts.head_row[rows], 0)
    unreadable = int((s.counts.entry_class == EntryClass.UNREADABLE).sum())
    facts: dict[str, AnyArray] = {"entries": m.nr[rows]}
    observed = {
        "target": np.array([EntryClass(x).name.lower() for x in s.counts.entry_class[rows].tolist()], dtype=np.str_),
        "page_type": s.page_type_names(head),
        "_refcount": pages.refcount[head],
    }
    return violations(
        rows,
        observed=observed,
        expected={"target": np.full(len(rows), expected)},
        checked=len(m),
        unread=cannot_check(unreadable, "struct pages behind some entries are missing"),
        facts=facts,
    )


@rule(
    "free-page-mapping-unexpected",
    ENTRY,
    "targets",
    Phase.WORDS,
    after=(
        "refcount-invalid",
        "vma-mm-mismatch",
    ),
    decides="131 150",
    was="entry-to-free-page",
    diagnose=early_free,
)
def free_page_mapping_unexpected(s: Snapshot) -> Violations:
    """A page-table entry maps a page that is free.

    Invariant: every page that a normal entry maps has a reference, held by the mapping itself.
    Why: mm/memory.c, vm_normal_page() entries are counted by reference; mm/page_alloc.c hands out what has none.
    Consequence: the process reads and writes memory that will belong, or already belongs, to somebody else.
    Exceptions: the entry is special (VM_PFNMAP, DAX) or maps the zero page.
    See also: folioscope page PFN; folioscope va PID ADDRESS
    """
    return _entries(s, s.counts.entry_class == EntryClass.FREE, "a page with a reference")


@rule(
    "typed-page-mapping-unexpected",
    ENTRY,
    "targets",
    Phase.WORDS,
    after=("vma-mm-mismatch",),
    decides="12",
    was="entry-to-typed-page",
)
def typed_page_mapping_unexpected(s: Snapshot) -> Violations:
    """A page-table entry maps a slab, a page table or another page that user space never sees.

    Invariant: the pages that a normal entry may map have no page type, or are hugetlb.
    Why: include/linux/page-flags.h, page_has_type(): the type lies in the word that the mapcount would use.
        mm/memory.c, validate_page_before_insert() refuses them.
    Consequence: user space can read or overwrite kernel memory.
    Exceptions: the entry is special (VM_PFNMAP, DAX).
    See also: folioscope page PFN; folioscope va PID ADDRESS
    """
    return _entries(s, s.counts.entry_class == EntryClass.TYPED, "a page without type, or hugetlb")


@rule(
    "entry-pfn-invalid",
    ENTRY,
    "targets",
    Phase.WORDS,
    after=("vma-mm-mismatch",),
    decides="31",
    was="entry-without-page",
)
def entry_pfn_invalid(s: Snapshot) -> Violations:
    """A page-table entry that is not special maps a page frame without struct page, or a tail without head.

    Invariant: a leaf entry either carries the special bit or maps a page with a sound struct page.
    Why: mm/memory.c, vm_normal_page() prints "Bad page map" over such an entry.
    Consequence: the entry was overwritten, or a driver mapped device memory without vm_insert_pfn()/remap_pfn_range().
    Exceptions: the VMA is VM_PFNMAP and the entry is huge (kernels before 6.12 mark only PTEs as special).
    See also: folioscope va PID ADDRESS
    """
    broken = (s.counts.entry_class == EntryClass.BROKEN) & (s.mappings.level == Level.PTE)
    return _entries(s, (s.counts.entry_class == EntryClass.NO_PAGE) | broken, "a page with a struct page")


@rule(
    "huge-entry-folio-mismatch",
    ENTRY,
    "targets",
    Phase.WORDS,
    after=("vma-mm-mismatch",),
    decides="I3 92",
    was="huge-entry-misfit",
)
def huge_entry_folio_mismatch(s: Snapshot) -> Violations:
    """A huge entry does not begin at the head of a folio of its size.

    Invariant: a PMD or PUD leaf maps the first page of a folio at least as large as itself.
    Why: mm/rmap.c, __folio_rmap_sanity_checks() for the PMD level; mm/hugetlb.c maps whole folios only.
    Consequence: the entire mapcount of a folio that cannot have one is changed; pages outside the folio are mapped.
    Exceptions: the entry is special, or maps the huge zero folio.
    See also: folioscope folio PFN; folioscope va PID ADDRESS
    """
    broken = (s.counts.entry_class == EntryClass.BROKEN) & (s.mappings.level != Level.PTE)
    return _entries(s, broken, "the head of a folio of the entry's size")


@rule(
    "special-entry-unexpected",
    ENTRY,
    "targets",
    Phase.WORDS,
    after=(
        "huge-zero-pfn-mismatch",
        "vma-mm-mismatch",
    ),
    decides="32",
    was="special-entry-in-ordinary-vma",
)
def special_entry_unexpected(s: Snapshot) -> Violations:
    """A special entry stands in a VMA of ordinary memory.

    Invariant: an entry with the special bit lies in a VMA marked VM_PFNMAP or VM_MIXEDMAP, or maps the zero page or the
        huge zero folio.
    Why: mm/memory.c, vm_normal_page() prints "Bad page map" over any other; insert_pfn() refuses other VMAs.
    Consequence: the page under it is not counted: unmapping drops neither its mapcount nor its reference, so that it is
        never freed.
    Exceptions: the VMA's operations say which page a special entry means (find_special_page(), find_normal_page() of
        Xen's grant tables); the entry is of DAX memory (before 6.17).
    See also: folioscope va PID ADDRESS
    """
    m, vmas = s.mappings, s.vmas
    bits = s.counts.bits
    rows = np.flatnonzero(
        (s.counts.entry_class == EntryClass.SPECIAL)
        & ((bits & (Bit.SPECIAL | Bit.DEVMAP)) == Bit.SPECIAL)
        & (m.vma_idx >= 0)
    )
    vma = m.vma_idx[rows]
    ordinary = (vmas.flags[vma] & np.uint64(VM_PFNMAP | VM_MIXEDMAP)) == 0
    ordinary &= ~s.vma_finds_pages[vma]
    wrong = np.zeros(len(m), np.bool_)
    wrong[rows[ordinary]] = True
    return _entries(s, wrong, "device memory in VM_PFNMAP or VM_MIXEDMAP, or a zero page")


@rule(
    "reserved-page-mapping-unexpected",
    ENTRY,
    "targets",
    Phase.WORDS,
    after=("vma-mm-mismatch",),
    was="entry-to-reserved-page",
)
def reserved_page_mapping_unexpected(s: Snapshot) -> Violations:
    """A page-table entry of ordinary memory maps a reserved page.

    Invariant: pages with PG_reserved (firmware, kernel image, memory holes) appear in user mappings only through
        drivers and the vDSO: in VMAs with operations of their own or marked VM_MIXEDMAP, VM_PFNMAP or VM_IO.
    Why: mm/mm_init.c marks them; nothing frees or reclaims them, so that no anonymous or file page is one.
    Consequence: a stray page-table entry exposes kernel memory.
    Exceptions: the VMA belongs to a driver or is a special mapping (vDSO); the entry maps the zero page.
    See also: folioscope va PID ADDRESS
    """
    m, pages, vmas = s.mappings, s.pages, s.vmas
    reserved = s.layout.flags.test(pages.flags[np.maximum(s.counts.head_row, 0)], "reserved")
    reserved &= (s.counts.entry_class == EntryClass.NORMAL) & (m.vma_idx >= 0)
    rows = np.flatnonzero(reserved)
    vma = m.vma_idx[rows]
    ordinary = (vmas.ops[vma] == 0) & ((vmas.flags[vma] & np.uint64(VM_PFNMAP | VM_MIXEDMAP | VM_IO)) == 0)
    wrong = np.zeros(len(m), np.bool_)
    wrong[rows[ordinary]] = True
    return _entries(s, wrong, "a page that is not reserved")
