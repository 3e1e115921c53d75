"""Rules of what a present entry may point to."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Bit, Level
from inspector.columns import I64
from inspector.layout.flags import VM_IO, VM_MIXEDMAP, VM_PFNMAP
from inspector.rules.diagnosis import early_free
from inspector.rules.pieces import EntryPiece, Judged
from inspector.rules.registry import Gather, Phase, entry_rule
from inspector.snapshot import Snapshot
from inspector.violations import Details, details
from inspector.walk.counts import EntryClass


def _target(expected: str) -> Gather:
    """What entries point to, beside what they should."""

    def evidence(s: Snapshot, rows: I64) -> Details:
        m = s.entries(rows)
        head = np.maximum(m.head_row, 0)
        names = [EntryClass(x).name.lower() for x in m.entry_class.tolist()]
        return details(
            rows,
            observed={
                "target": np.array(names, dtype=np.str_),
                "page_type": s.page_type_names(head),
                "_refcount": s.pages.refcount[head],
            },
            expected={"target": expected},
            facts={"entries": m.nr},
        )

    return evidence


@entry_rule(
    "free-page-mapping-unexpected",
    _target("a page with a reference"),
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
def free_page_mapping_unexpected(e: EntryPiece) -> Judged:
    """A page-table entry maps a free page.

    Invariant: every page that a normal entry maps has a reference, held by the mapping itself.
    Why: mm/memory.c, vm_normal_page() entries are counted by reference; mm/page_alloc.c hands out what has none.
    Consequence: the process reads and writes memory that will have, or already has, another owner.
    Exceptions: the entry is special (VM_PFNMAP, DAX) or maps the zero page.
    See also: folioscope page PFN; folioscope va PID ADDRESS
    """
    return Judged(e.entry_class == EntryClass.FREE, e.everything, e.unread)


@entry_rule(
    "typed-page-mapping-unexpected",
    _target("a page without type, or hugetlb"),
    "targets",
    Phase.WORDS,
    after=("vma-mm-mismatch",),
    decides="12",
    was="entry-to-typed-page",
)
def typed_page_mapping_unexpected(e: EntryPiece) -> Judged:
    """A page-table entry maps a slab, a page table or another page with a page type.

    Invariant: the pages that a normal entry may map have no page type, or are hugetlb.
    Why: include/linux/page-flags.h, page_has_type(): the type is in the word that the mapcount would use. mm/memory.c,
        validate_page_before_insert() refuses them.
    Consequence: user space can read or overwrite kernel memory.
    Exceptions: the entry is special (VM_PFNMAP, DAX).
    See also: folioscope page PFN; folioscope va PID ADDRESS
    """
    return Judged(e.entry_class == EntryClass.TYPED, e.everything, e.unread)


@entry_rule(
    "entry-pfn-invalid",
    _target("a page with a struct page"),
    "targets",
    Phase.WORDS,
    after=("vma-mm-mismatch",),
    decides="31",
    was="entry-without-page",
)
def entry_pfn_invalid(e: EntryPiece) -> Judged:
    """A page-table entry without the special bit maps no struct page, or a tail without head.

    Invariant: a leaf entry either has the special bit or maps a page with a sound struct page.
    Why: mm/memory.c, vm_normal_page() prints "Bad page map" over such an entry.
    Consequence: the entry was overwritten, or a driver mapped device memory without vm_insert_pfn()/remap_pfn_range().
    Exceptions: the VMA is VM_PFNMAP and the entry is huge (kernels before 6.12 mark only PTEs as special).
    See also: folioscope va PID ADDRESS
    """
    broken = (e.entry_class == EntryClass.BROKEN) & (e.level == Level.PTE)
    return Judged((e.entry_class == EntryClass.NO_PAGE) | broken, e.everything, e.unread)


@entry_rule(
    "huge-entry-folio-mismatch",
    _target("the head of a folio of the entry's size"),
    "targets",
    Phase.WORDS,
    after=("vma-mm-mismatch",),
    decides="I3 92",
    was="huge-entry-misfit",
)
def huge_entry_folio_mismatch(e: EntryPiece) -> Judged:
    """A huge entry does not map the head of a folio of its size.

    Invariant: a PMD or PUD leaf maps the first page of a folio at least as large as itself.
    Why: mm/rmap.c, __folio_rmap_sanity_checks() for the PMD level; mm/hugetlb.c maps whole folios only.
    Consequence: the entire mapcount of a folio that cannot have one is changed; pages outside the folio are mapped.
    Exceptions: the entry is special, or maps the huge zero folio.
    See also: folioscope folio PFN; folioscope va PID ADDRESS
    """
    return Judged((e.entry_class == EntryClass.BROKEN) & (e.level != Level.PTE), e.everything, e.unread)


@entry_rule(
    "special-entry-unexpected",
    _target("device memory in VM_PFNMAP or VM_MIXEDMAP, or a zero page"),
    "targets",
    Phase.WORDS,
    after=(
        "huge-zero-pfn-mismatch",
        "vma-mm-mismatch",
    ),
    decides="32",
    was="special-entry-in-ordinary-vma",
)
def special_entry_unexpected(e: EntryPiece) -> Judged:
    """A special entry is in a VMA that is neither VM_PFNMAP nor VM_MIXEDMAP.

    Invariant: an entry with the special bit is in a VMA with VM_PFNMAP or VM_MIXEDMAP, or maps the zero page or the
        huge zero folio.
    Why: mm/memory.c, vm_normal_page() prints "Bad page map" over any other; insert_pfn() refuses other VMAs.
    Consequence: the page under it is not counted: unmapping drops neither its mapcount nor its reference, so that it is
        never freed.
    Exceptions: the VMA's operations give the page of a special entry (find_special_page(), find_normal_page() of Xen's
        grant tables); the entry is of DAX memory (before 6.17).
    See also: folioscope va PID ADDRESS
    """
    special = (e.entry_class == EntryClass.SPECIAL) & ((e.bits & (Bit.SPECIAL | Bit.DEVMAP)) == Bit.SPECIAL)
    device = e.vma_has(VM_PFNMAP | VM_MIXEDMAP) | e.of_vma(e.s.vma_finds_pages, 0)
    return Judged(special & e.in_vma & ~device, e.everything, e.unread)


@entry_rule(
    "reserved-page-mapping-unexpected",
    _target("a page that is not reserved"),
    "targets",
    Phase.WORDS,
    after=("vma-mm-mismatch",),
    was="entry-to-reserved-page",
)
def reserved_page_mapping_unexpected(e: EntryPiece) -> Judged:
    """A page-table entry in a VMA of ordinary memory maps a page with PG_reserved.

    Invariant: pages with PG_reserved (firmware, kernel image, memory holes) appear in user mappings only through
        drivers and the vDSO: in VMAs with operations of their own or with VM_MIXEDMAP, VM_PFNMAP or VM_IO.
    Why: mm/mm_init.c marks them; nothing frees or reclaims them, so that no anonymous or file page is one.
    Consequence: a stray page-table entry exposes kernel memory.
    Exceptions: the VMA belongs to a driver or is a special mapping (vDSO); the entry maps the zero page.
    See also: folioscope va PID ADDRESS
    """
    ordinary = e.in_vma & (e.of_vma(e.s.vmas.ops, 0) == 0) & ~e.vma_has(VM_PFNMAP | VM_MIXEDMAP | VM_IO)
    pages = e.pages(e.is_normal & ordinary)
    return Judged(e.with_any(pages.where(pages.head_has("reserved"))), e.everything, e.unread)
