"""What the kernel reads of a folio when it decides what to do with it, in the form that the model's decisions take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.aimed.folio import FolioSnapshot
from inspector.arch.base import Bit, Level
from inspector.columns import I64, U64, Mask, rows_of
from inspector.folio.numbers import OneFolio, one_folio, stored_mapcount
from inspector.layout.flags import (
    MAPPING_TAGS,
    VM_DONTEXPAND,
    VM_DROPPABLE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    unknown_vm_flags,
)
from inspector.model.decisions import FUNCTIONS, FolioSituation
from inspector.tables.files import SHMEM, AddressSpaces
from inspector.tables.pages import page_words
from inspector.walk.page_cache import find_entries
from inspector.walk.references import PIN_BIAS, TERMS, ReferenceTerms

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_UNEXPECTED = ("batch", "pipe", "gather", "pins", "owner", "isolated")
"""Terms that folio_expected_ref_count() leaves out."""

_NO_KHUGEPAGED = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP | VM_HUGETLB
"""VM_NO_KHUGEPAGED (include/linux/mm.h)."""

_AS_BITS = 16
"""Lower bits of address_space.flags, which are flags; above them are orders (AS_FOLIO_ORDER_MIN)."""


def situation_of(s: Snapshot, f: OneFolio, terms: ReferenceTerms) -> FolioSituation:
    """In the form that `inspector.model.decisions` takes."""
    layout, flags = s.layout, s.layout.flags
    word = s.pages.flags[f.head : f.head + 1]

    def flag(name: str) -> bool:
        return bool(flags.test(word, name)[0])

    def term(name: str) -> int:
        return int(terms.terms[name][0])

    shared = None
    if s.scheme is not None and s.scheme.has_mm_ids and f.is_large:
        shared = bool(s.folios.mm_id_slots.one(f.folio).shared[0])
    refcount, mapcount = int(s.pages.refcount[f.head]), stored_mapcount(s, f)
    others = [(word, term(name)) for name, _, word in TERMS if name in _UNEXPECTED and term(name)]
    if terms.remainder[0] > 0:
        others.append(("not explained", int(terms.remainder[0])))
    # As folio_maybe_dma_pinned() in include/linux/mm.h decides it.
    pinned = int(s.folios.pincount[f.folio]) > 0 if f.is_large else refcount >= PIN_BIAS
    vmas = s.mappings.vma_idx[f.mapping_rows]
    vma_flags, bits = s.vmas.flags[vmas[vmas >= 0]], s.mappings.bits[f.mapping_rows]
    reached = _reached(s, f) if mapcount else None
    spaces = s.files.address_spaces if f.is_file else AddressSpaces.empty()
    row = int(rows_of(spaces.addr, s.pages.mapping[f.head : f.head + 1])[0])
    row = row if row >= 0 and spaces.is_inode[row] else -1
    compacts = layout.variable("sysctl_compact_unevictable_allowed", size=4)
    return FolioSituation(
        scheme=s.scheme,
        refcount=refcount,
        mapcount=mapcount,
        nr_pages=f.nr_pages,
        cache=term("page_cache"),
        swap=term("swap_cache"),
        private=term("private"),
        batch=term("batch"),
        pins=pinned,
        is_anon=f.is_anon,
        is_ksm=f.is_ksm,
        is_hugetlb=f.is_hugetlb,
        on_lru=flag("lru"),
        mlocked=flag("mlocked"),
        unevictable=flag("unevictable"),
        writeback=flag("writeback"),
        locked=flag("locked"),
        dirty=flag("dirty"),
        swapbacked=flag("swapbacked"),
        in_locked_vma=bool((vma_flags & np.uint64(VM_LOCKED)).any()),
        free_swap=s.swap_totals[1],
        maybe_shared=shared,
        others=tuple(others),
        functions=frozenset(name for name in FUNCTIONS if layout.target.symbol(name) is not None),
        scan_results=frozenset(name.removeprefix("SCAN_") for name in layout.enum("enum scan_result")),
        has_mapping=f.is_anon or f.is_file,
        left=None if reached is None else max(mapcount - reached, 0),
        anon_vma_refcount=_anon_vma_refcount(s, f),
        in_tree=_in_tree(s, f, row) if f.is_large and not f.is_hugetlb and row >= 0 else None,
        space_flags=_space_flags(s, int(spaces.flags[row])) if row >= 0 else frozenset(),
        min_order=_min_order(s, int(spaces.flags[row])) if row >= 0 else 0,
        migrate_folio=_migrate_folio(s, spaces, row) if f.is_file else "",
        migratable=_hugetlb_flag(s, f, "HPG_migratable"),
        poisoned=bool(flags.test(s.pages.flags[f.head : f.head + f.nr_pages], "hwpoison").any()),
        dirty_entries=bool((bits & (Bit.DIRTY | Bit.SAVED_DIRTY)).any()),
        droppable=len(vma_flags) == len(bits) > 0 and _is_droppable(s, vma_flags),
        uffd_wp=bool((bits & Bit.UFFD_WP).any()),
        not_for_khugepaged=_not_for_khugepaged(s, f.mapping_rows),
        compacts_unevictable=None if compacts is None else compacts != 0,
    )


def _reached(s: Snapshot, f: OneFolio) -> int | None:
    """Entries that an rmap walk from the folio leads to; None where part of the way could not be read."""
    aimed = s if s.search == "reverse map" else FolioSnapshot(s, f.pfn)
    if not aimed.mappings_whole:
        return None
    return f.total if aimed is s else one_folio(aimed, f.pfn).total


def _anon_vma_refcount(s: Snapshot, f: OneFolio) -> int | None:
    """The refcount of the anon_vma that the folio names."""
    if not f.is_anon or f.is_ksm:
        return None
    table = s.anon_rmap.anon_vmas
    row = int(rows_of(table.addr, s.pages.mapping[f.head : f.head + 1] & ~np.uint64(MAPPING_TAGS))[0])
    return int(table.refcount[row]) if row >= 0 and table.readable[row] else None


def _in_tree(s: Snapshot, f: OneFolio, space: int) -> bool | None:
    """Whether the page cache leads to the folio at its index (xas_load())."""
    if not s.files.address_spaces.whole[space]:
        return None
    index, known = page_words(s.layout, s.pages, np.array([f.head], np.int64), "__folio_index", "index")
    if not known[0]:
        return None
    _, value = find_entries(s.files, np.array([space], np.int32), index)
    return int(s.layout.memmap.pfns(value)[0]) == f.pfn if value[0] else False


def _space_flags(s: Snapshot, word: int) -> frozenset[str]:
    names = s.layout.enum("enum mapping_flags")
    return frozenset(name.removeprefix("AS_") for name, bit in names.items() if bit < _AS_BITS and word >> bit & 1)


def _min_order(s: Snapshot, word: int) -> int:
    """mapping_min_folio_order() (include/linux/pagemap.h); 0 on kernels without."""
    names = s.layout.enum("enum mapping_flags")
    first, width = names.get("AS_FOLIO_ORDER_MIN"), names.get("AS_FOLIO_ORDER_BITS", 0)
    return 0 if first is None else word >> first & (1 << width) - 1


def _migrate_folio(s: Snapshot, spaces: AddressSpaces, row: int) -> str | None:
    """The name of the operation that moves folios of a file; "" for none."""
    if row < 0 or not spaces.has_known_operations[row]:
        # The operations of shmem, which its kind is known by (mm/shmem.c, shmem_aops).
        return "migrate_folio" if row >= 0 and spaces.kind[row] == SHMEM else None
    function = int(spaces.migrate_folio[row])
    return (s.layout.target.symbol_name(function) or hex(function)).split("+")[0] if function else ""


def _hugetlb_flag(s: Snapshot, f: OneFolio, name: str) -> bool | None:
    """A flag of a hugetlb folio (``enum hugetlb_page_flags``, in the private word of its head)."""
    bit = s.layout.enum("enum hugetlb_page_flags").get(name)
    if not f.is_hugetlb or bit is None:
        return None
    private, known = page_words(s.layout, s.pages, np.array([f.head], np.int64), "private")
    return bool(int(private[0]) >> bit & 1) if known[0] else None


def _is_droppable(s: Snapshot, flags: U64) -> bool:
    """Whether all of some VMAs are VM_DROPPABLE, where the kernel has that."""
    is_new = s.layout.version is not None and not unknown_vm_flags(s.layout.version) & VM_DROPPABLE
    return is_new and bool(((flags & np.uint64(VM_DROPPABLE)) != 0).all())


def _not_for_khugepaged(s: Snapshot, rows: I64) -> str:
    """Why none of the VMAs in some mappings is one that khugepaged scans around the page; "" where one is."""
    m = s.mappings
    rows = rows[(m.vma_idx[rows] >= 0) & (m.level[rows] == Level.PTE)]
    if not len(rows):
        return ""
    vma = m.vma_idx[rows]
    huge = np.uint64(1 << s.layout.pmd_order + s.layout.memmap.page_shift)
    start = m.va[rows] & ~(huge - np.uint64(1))
    flags = s.vmas.flags[vma]
    inside: Mask = (s.vmas.start[vma] <= start) & (start + huge <= s.vmas.end[vma])
    refused: Mask = (flags & np.uint64(VM_NOHUGEPAGE)) != 0
    special: Mask = (flags & np.uint64(_NO_KHUGEPAGED)) != 0
    if (inside & ~refused & ~special).any():
        return ""
    if refused.any():
        return "its VMA is advised against huge pages (VM_NOHUGEPAGE, SCAN_VMA_CHECK)"
    if special.any():
        return "its VMA is special (VM_NO_KHUGEPAGED, SCAN_VMA_CHECK)"
    return "its VMA has no room for a huge page around it (SCAN_ADDRESS_RANGE)"
