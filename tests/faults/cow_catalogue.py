"""Faults of the copy-on-write family: who may write what, what is pinned, what stands for zero."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Bit, Level
from inspector.layout.flags import VM_WRITE
from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_FILE
from inspector.walk.counts import EntryClass
from tests.faults.catalogue import fault
from tests.faults.cow_plants import anon_pages, private_writable, shared_pages
from tests.faults.overlay import (
    DIRTY,
    RW,
    Patch,
    add,
    entry_writable,
    entry_xor,
    flags_xor,
    page_word,
    pfn_of,
    put,
    word,
)
from tests.faults.plants import (
    MissingError,
    Planted,
    empty_slot,
    exclusive_rows,
    in_shared_vma,
    pick,
    pmd_mapped,
    pte_to,
    small_anon,
    vma_has,
)

UFFD_WP = 1 << 10


def _entry_of_shared(s: Snapshot) -> int:
    mark = np.zeros(len(s.pages), np.bool_)
    mark[shared_pages(s)] = True
    first = mark[s.pages.memmap.rows(s.mappings.pfn)]
    rows = np.flatnonzero(private_writable(s) & first & (s.mappings.level == Level.PTE) & (s.mappings.nr == 1))
    return pick(rows, "a read-only entry of a shared page")


@fault
def entry_of_a_shared_page_made_writable(s: Snapshot) -> Planted:
    row = _entry_of_shared(s)
    return Planted((entry_writable(s, row),), ("writable-page-exclusive-missing",), int(s.mappings.pfn[row]))


@fault
def shared_page_taken_for_exclusive_and_written(s: Snapshot) -> Planted:
    """What a copy-on-write decision taken on a torn mapcount leaves: both the bit and the permission."""
    row = _entry_of_shared(s)
    pfn = int(s.mappings.pfn[row])
    patches = (entry_writable(s, row), flags_xor(s, pfn, "anon_exclusive"))
    return Planted(patches, ("exclusive-page-mapcount-high",), pfn)


@fault
def shared_page_marked_exclusive(s: Snapshot) -> Planted:
    pfn = pfn_of(s, pick(shared_pages(s), "a shared page"))
    return Planted((flags_xor(s, pfn, "anon_exclusive"),), ("exclusive-page-mapcount-high",), pfn)


@fault
def shared_hugetlb_folio_marked_exclusive(s: Snapshot) -> Planted:
    able = s.folios.is_anon & s.folios.is_hugetlb & (s.counts.entire > 1)
    pfn = int(s.folios.pfn[pick(np.flatnonzero(able), "a shared hugetlb folio")])
    return Planted((flags_xor(s, pfn, "anon_exclusive"),), ("exclusive-page-mapcount-high",), pfn)


@fault
def tail_of_hugetlb_exclusive(s: Snapshot) -> Planted:
    """The bit on the first tail, which of hugetlb the head alone has."""
    able = s.folios.is_anon & s.folios.is_hugetlb & (s.counts.entire == 1)
    pfn = int(s.folios.pfn[pick(np.flatnonzero(able), "a hugetlb folio of one process")])
    return Planted((flags_xor(s, pfn + 1, "anon_exclusive"),), ("tail-flags-unexpected",), pfn + 1)


@fault
def ksm_page_marked_exclusive(s: Snapshot) -> Planted:
    pfn = pfn_of(s, pick(np.unique(s.ksm_entries.head_row).astype(np.int64), "a KSM page"))
    return Planted((flags_xor(s, pfn, "anon_exclusive"),), ("ksm-page-exclusive-unexpected",), pfn)


@fault
def written_page_no_longer_exclusive(s: Snapshot) -> Planted:
    rows = exclusive_rows(s)
    small = rows[(s.folio_of_page[rows] < 0) & (s.counts.page_mappings[rows] == 1)]
    first = np.isin(s.pages.memmap.rows(s.mappings.pfn), small) & ((s.mappings.bits & Bit.WRITE) != 0)
    fine = first & (s.mappings.entry_class == EntryClass.NORMAL) & ((s.mappings.bits & Bit.PROT_NONE) == 0)
    pfn = int(s.mappings.pfn[pick(np.flatnonzero(fine), "a written page")])
    return Planted((flags_xor(s, pfn, "anon_exclusive"),), ("writable-page-exclusive-missing",), pfn)


@fault
def pinned_page_no_longer_exclusive(s: Snapshot) -> Planted:
    mapped = (s.counts.page_mappings == 1) & (s.pages.refcount > 1024) & anon_pages(s) & (s.folio_of_page < 0)
    pfn = pfn_of(s, pick(np.flatnonzero(mapped), "a pinned page"))
    rules = ("writable-page-exclusive-missing", "pinned-page-exclusive-missing")
    return Planted((flags_xor(s, pfn, "anon_exclusive"),), rules, pfn)


@fault
def shared_page_pinned(s: Snapshot) -> Planted:
    """A read-only pin taken without unsharing: the page may be copied away under it."""
    pfn = pfn_of(s, pick(shared_pages(s), "a shared page", 2))
    patch = add(s, page_word(s, pfn, "_refcount.counter", "_refcount"), 1024, 4)
    return Planted((patch,), ("pinned-page-exclusive-missing",), pfn, "warn")


@fault
def private_mapping_writes_the_page_cache(s: Snapshot) -> Planted:
    head = np.maximum(s.mappings.head_row, 0)
    file = (s.pages.mapping[head] != 0) & ((s.pages.mapping[head] & np.uint64(3)) == 0)
    wanted = private_writable(s) & file & (s.mappings.level == Level.PTE)
    row = pick(np.flatnonzero(wanted), "a private entry of a page-cache page")
    rules = ("private-file-page-write-bit-unexpected",)
    return Planted((entry_writable(s, row),), rules, int(s.mappings.pfn[row]))


@fault
def entry_of_a_readonly_vma_made_writable(s: Snapshot) -> Planted:
    readonly = (s.mappings.vma_idx >= 0) & ~vma_has(s, VM_WRITE) & (s.mappings.entry_class == EntryClass.NORMAL)
    readonly &= ((s.mappings.bits & Bit.PROT_NONE) == 0) & in_shared_vma(s)
    row = pick(np.flatnonzero(readonly), "a read-only entry")
    return Planted((entry_writable(s, row),), ("write-bit-unexpected",), None)


@fault
def write_protected_entry_made_writable(s: Snapshot) -> Planted:
    watched = ((s.mappings.bits & Bit.UFFD_WP) != 0) & vma_has(s, 1 << 12) & vma_has(s, VM_WRITE)
    watched &= ((s.mappings.bits & Bit.PROT_NONE) == 0) & (s.mappings.entry_class == EntryClass.NORMAL)
    row = pick(np.flatnonzero(watched), "a write-protected entry")
    return Planted((entry_writable(s, row),), ("uffd-wp-write-bit-unexpected",), None)


@fault
def watched_bit_in_a_vma_that_nobody_watches(s: Snapshot) -> Planted:
    m, v = s.mappings, s.vmas
    plain = (m.vma_idx >= 0) & ((s.mappings.bits & (Bit.WRITE | Bit.UFFD_WP | Bit.PROT_NONE)) == 0) & (m.nr == 1)
    plain &= (v.file[np.maximum(m.vma_idx, 0)] == 0) & v.has(VM_WRITE)[np.maximum(m.vma_idx, 0)]
    row = pick(np.flatnonzero(plain & (s.mappings.entry_class == 0) & (m.level == Level.PTE)), "a read-only entry", 3)
    return Planted((entry_xor(s, row, UFFD_WP),), ("uffd-registration-missing",), None, "info")


@fault
def zero_page_made_writable(s: Snapshot) -> Planted:
    rows = np.flatnonzero((s.mappings.entry_class == EntryClass.ZERO) & (s.mappings.level == Level.PTE))
    row = pick(rows, "an entry of the zero page")
    return Planted((entry_xor(s, row, RW),), ("zero-page-write-bit-unexpected",), None)


@fault
def huge_zero_page_made_writable(s: Snapshot) -> Planted:
    rows = np.flatnonzero((s.mappings.entry_class == EntryClass.ZERO) & (s.mappings.level == Level.PMD))
    row = pick(rows, "an entry of the huge zero page")
    return Planted((entry_xor(s, row, RW | DIRTY),), ("zero-page-write-bit-unexpected",), None)


@fault
def zero_page_replaced_as_if_counted(s: Snapshot) -> Planted:
    """What a removal of a zero page's mapping left: its mapcount below none."""
    pfn = s.layout.zero_pfn
    patch = add(s, page_word(s, pfn, "_mapcount.counter", "_mapcount"), -1, 4)
    return Planted((patch,), ("mapcount-too-low", "zero-page-counted"), pfn)


@fault
def huge_zero_folio_counted(s: Snapshot) -> Planted:
    if s.layout.huge_zero_pfn < 0:
        raise MissingError("a huge zero folio")
    folio = pick(np.flatnonzero(s.folios.pfn == s.layout.huge_zero_pfn), "the huge zero folio")
    struct = s.layout.struct("struct folio").find("_entire_mapcount.counter", "_compound_mapcount.counter")
    old = s.layout.struct("struct page").find("compound_mapcount.counter")
    offset = struct.offset if struct is not None else 64 + old.offset if old is not None else 0
    at = s.layout.memmap.page_addr(int(s.folios.pfn[folio])) + offset
    return Planted((add(s, at, 1, 4),), ("entire-mapcount-mismatch",), s.layout.huge_zero_pfn)


@fault
def page_of_a_file_given_to_an_anonymous_vma(s: Snapshot) -> Planted:
    """A driver inserted a page-cache page into a VMA of its own and counted everything as it should."""
    file = np.flatnonzero((s.pages.mapping != 0) & ((s.pages.mapping & np.uint64(3)) == 0) & (s.pages.type_ == 0))
    file = file[(s.counts.page_mappings[file] == 0) & (s.folio_of_page[file] < 0) & (s.pages.refcount[file] > 0)]
    flags = s.pages.flags[file]
    file = file[s.layout.flags.test(flags, "lru") & ~s.layout.flags.test(flags, "swapbacked")]
    pfn = pfn_of(s, pick(file, "an unmapped page-cache page", 7))
    address, mm = empty_slot(s)
    struct = s.layout.struct("struct mm_struct")
    field = struct.find(f"rss_stat[{RSS_FILE}].count") or struct.field(f"rss_stat.count[{RSS_FILE}]")
    read_only = (int.from_bytes(pte_to(pfn), "little") & ~(RW | DIRTY)).to_bytes(8, "little")
    patches = (
        Patch(address, read_only, True),
        add(s, page_word(s, pfn, "_mapcount.counter", "_mapcount"), 1, 4),
        add(s, page_word(s, pfn, "_refcount.counter", "_refcount"), 1, 4),
        add(s, int(s.mms.addr[mm]) + field.offset, 1),
    )
    return Planted(patches, ("anon-folio-mapping-invalid",), pfn)


def _poison(s: Snapshot, pfn: int) -> Patch:
    if not s.layout.flags.has("hwpoison"):
        raise MissingError("PG_hwpoison")
    return flags_xor(s, pfn, "hwpoison")


@fault
def poisoned_subpage_still_mapped(s: Snapshot) -> Planted:
    folio = pick(pmd_mapped(s, anon=True), "a PMD-mapped THP")
    pfn = int(s.folios.pfn[folio]) + 3
    return Planted((_poison(s, pfn),), ("hwpoison-not-marked", "poisoned-page-mapping-unexpected"), pfn, "warn")


@fault
def poisoned_page_still_mapped(s: Snapshot) -> Planted:
    pfn = pfn_of(s, pick(small_anon(s, 1), "a private page", 21))
    return Planted((_poison(s, pfn),), ("poisoned-page-mapping-unexpected",), pfn, "warn")


@fault
def mapped_page_not_up_to_date(s: Snapshot) -> Planted:
    pfn = pfn_of(s, pick(small_anon(s, 1), "a private page", 23))
    return Planted((flags_xor(s, pfn, "uptodate"),), ("anon-page-uptodate-missing",), pfn)


@fault
def number_of_the_huge_zero_page_forgotten(s: Snapshot) -> Planted:
    """The kernel then takes its entries for those of an ordinary folio."""
    symbol = s.layout.variable("huge_zero_pfn")
    at = s.layout.symbol("huge_zero_pfn")
    if s.layout.huge_zero_pfn < 0 or symbol is None:
        raise MissingError("a huge zero folio")
    return Planted((put(s, at, (1 << 64) - 1),), ("huge-zero-pfn-mismatch",), None)


@fault
def users_of_the_huge_zero_folio_undercounted(s: Snapshot) -> Planted:
    return Planted((put(s, s.layout.symbol("huge_zero_refcount"), 1, 4),), ("huge-zero-references-low",), None)


@fault
def mm_id_of_two_processes(s: Snapshot) -> Planted:
    field = s.layout.struct("struct mm_struct").find("mm_id")
    if field is None:
        raise MissingError("mm ids")
    f, c = s.folios, s.counts
    named = np.concatenate([f.mm_ids & np.uint64(0x7FFFFFFF), (f.mm_ids >> np.uint64(32)) & np.uint64(0x7FFFFFFF)])
    free = (
        (s.mms.nr_tasks == 1)
        & (s.mms.mm_id != 0)
        & ~np.isin(s.mms.mm_id, named)
        & ~np.isin(np.arange(len(s.mms)), c.pair_mm)
    )
    one, other = np.flatnonzero(free)[:2].tolist()
    patch = put(s, int(s.mms.addr[one]) + field.offset, int(s.mms.mm_id[other]), field.size)
    return Planted((patch,), ("mm-id-sharing-unexpected",), None)


@fault
def process_that_pinned_pages_said_to_have_never(s: Snapshot) -> Planted:
    mapped = (s.counts.page_mappings == 1) & (s.pages.refcount > 1024) & anon_pages(s) & (s.folio_of_page < 0)
    rows = np.intersect1d(np.flatnonzero(mapped), exclusive_rows(s))
    at_entry = np.flatnonzero(np.isin(s.mappings.head_row, rows))
    run = pick(at_entry, "an exclusive pinned page")
    field = s.layout.struct("struct mm_struct").field("flags.__mm_flags[0]", "flags")
    at = int(s.mms.addr[s.mappings.mm_idx[run]]) + field.offset
    return Planted((put(s, at, word(s, at) & ~(1 << 27)),), ("has-pinned-flag-missing",), None, "warn")
