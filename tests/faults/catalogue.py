"""The faults of the first family: counters, page-table entries, compound pages, free pages, rss."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_ANON
from inspector.walk.counts import EntryClass
from tests.faults.overlay import Patch, add, page_word, pfn_of, put, word
from tests.faults.plants import (
    BIAS,
    BUDDY,
    IDS,
    LARGE,
    SLAB,
    TABLE,
    WORD,
    MissingError,
    Plant,
    Planted,
    clear_entry,
    empty_slot,
    entry_address,
    folio_at,
    head_field,
    mapcount_at,
    mapping_of_page,
    pick,
    pmd_mapped,
    pte_mapped_thp,
    pte_to,
    scheme_has,
    small_anon,
    small_file,
)

CATALOGUE: dict[str, Plant] = {}


def fault(plant: Plant) -> Plant:
    """Put a plant into the catalogue, under its own name."""
    CATALOGUE[plant.__name__.replace("_", "-")] = plant
    return plant


@fault
def mapcount_of_a_private_page_raised(s: Snapshot) -> Planted:
    row = pick(small_anon(s, 1), "a private page", 5)
    return Planted((add(s, mapcount_at(s, row), 1, 4),), ("mapcount-too-high",), pfn_of(s, row))


@fault
def mapcount_of_a_shared_file_page_lowered(s: Snapshot) -> Planted:
    row = pick(small_file(s, 3), "a shared file page", 3)
    return Planted((add(s, mapcount_at(s, row), -1, 4),), ("mapcount-too-low",), pfn_of(s, row))


@fault
def second_byte_of_a_mapcount_set(s: Snapshot) -> Planted:
    row = pick(small_anon(s, 1), "a private page", 9)
    return Planted((put(s, mapcount_at(s, row) + 1, 0x40, 1),), ("mapcount-too-high",), pfn_of(s, row))


@fault
def top_byte_of_a_mapcount_made_a_page_type(s: Snapshot) -> Planted:
    """0xf5 is the slab type where types are bytes; in older kernels it reads as a large negative count."""
    row = pick(small_anon(s, 1), "a private page", 7)
    rules = ("typed-page-mapping-unexpected", "mapcount-too-low")
    return Planted((put(s, mapcount_at(s, row) + 3, 0xF5, 1),), rules, pfn_of(s, row))


@fault
def mapcount_of_a_thp_subpage_raised(s: Snapshot) -> Planted:
    folio = pick(pte_mapped_thp(s), "a PTE-mapped THP")
    row = int(s.folios.row[folio]) + 1
    rules = ("mapcount-too-high", "mapcount-mapping-missing")
    return Planted((add(s, mapcount_at(s, row), 1, 4),), rules, pfn_of(s, row))


@fault
def mapcount_of_an_unmapped_page_raised(s: Snapshot) -> Planted:
    cached = (s.pages.mapping != 0) & ((s.pages.mapping & np.uint64(3)) == 0) & (s.pages.type_ == 0)
    idle = cached & (s.counts.page_mappings == 0) & (s.folio_of_page < 0) & (s.pages.refcount > 0)
    row = pick(np.flatnonzero(idle & s.layout.flags.test(s.pages.flags, "lru")), "an unmapped page-cache page", 4)
    return Planted((add(s, mapcount_at(s, row), 1, 4),), ("mapcount-mapping-missing",), pfn_of(s, row))


def _entire(s: Snapshot, folio: int, delta: int) -> Planted:
    field = head_field(s, "_entire_mapcount.counter", "_compound_mapcount.counter", tail=("compound_mapcount.counter",))
    patch = add(s, folio_at(s, folio, field), delta, 4)
    return Planted((patch,), ("entire-mapcount-mismatch",), int(s.folios.pfn[folio]))


@fault
def entire_mapcount_of_an_anon_thp_raised(s: Snapshot) -> Planted:
    return _entire(s, pick(pmd_mapped(s, anon=True), "a PMD-mapped anonymous THP"), 1)


@fault
def entire_mapcount_of_an_mthp_raised(s: Snapshot) -> Planted:
    """A folio that is smaller than what a huge entry maps."""
    large = pte_mapped_thp(s)
    return _entire(s, pick(large[s.folios.order[large] < s.layout.pmd_order], "a large folio smaller than a PMD"), 1)


@fault
def entire_mapcount_of_a_shmem_thp_raised(s: Snapshot) -> Planted:
    return _entire(s, pick(pmd_mapped(s), "a PMD-mapped shmem THP"), 1)


@fault
def entire_mapcount_of_a_hugetlb_folio_raised(s: Snapshot) -> Planted:
    return _entire(s, pick(pmd_mapped(s, hugetlb=True), "a mapped hugetlb folio"), 1)


@fault
def entire_mapcount_lowered(s: Snapshot) -> Planted:
    return _entire(s, pick(pmd_mapped(s, anon=True), "a PMD-mapped anonymous THP", 1), -1)


@fault
def nr_pages_mapped_raised(s: Snapshot) -> Planted:
    scheme_has(s, *WORD)
    folio = pick(pte_mapped_thp(s), "a PTE-mapped THP")
    patch = add(s, folio_at(s, folio, head_field(s, "_nr_pages_mapped.counter")), 1, 4)
    rules = ("nr-pages-mapped-mismatch", "nr-pages-mapped-invalid")
    return Planted((patch,), rules, int(s.folios.pfn[folio]))


@fault
def entirely_mapped_bit_turned(s: Snapshot) -> Planted:
    scheme_has(s, *WORD)
    folio = pick(pte_mapped_thp(s), "a PTE-mapped THP")
    at = folio_at(s, folio, head_field(s, "_nr_pages_mapped.counter"))
    patch = put(s, at, word(s, at, 4) ^ BIAS, 4)
    return Planted((patch,), ("nr-pages-mapped-invalid",), int(s.folios.pfn[folio]))


@fault
def large_mapcount_raised(s: Snapshot) -> Planted:
    scheme_has(s, *LARGE)
    folio = pick(pte_mapped_thp(s), "a PTE-mapped THP")
    patch = add(s, folio_at(s, folio, head_field(s, "_large_mapcount.counter")), 1, 4)
    return Planted((patch,), ("large-mapcount-mismatch",), int(s.folios.pfn[folio]))


@fault
def mm_id_slot_raised(s: Snapshot) -> Planted:
    scheme_has(s, *IDS)
    f = s.folios
    used = np.isin(np.arange(len(f)), pte_mapped_thp(s)) & (f.mm_id_count0 >= 0) & (s.counts.nr_mms == 1)
    folio = pick(np.flatnonzero(used), "a folio with a used mm-id slot")
    field = head_field(s, "_mm_id_mapcount[0]")
    patch = add(s, folio_at(s, folio, field), 1, field.size)
    return Planted((patch,), ("mm-id-slot-high",), int(f.pfn[folio]))


@fault
def mm_id_given_to_nobody(s: Snapshot) -> Planted:
    scheme_has(s, *IDS)
    used = np.isin(np.arange(len(s.folios)), pte_mapped_thp(s)) & (s.folios.mm_id_count0 >= 0)
    folio = pick(np.flatnonzero(used), "a folio with a used mm-id slot", 2)
    patch = put(s, folio_at(s, folio, head_field(s, "_mm_id[0]")), 0, 4)
    return Planted((patch,), ("mm-id-slot-invalid",), int(s.folios.pfn[folio]))


@fault
def shared_flag_of_a_shared_folio_cleared(s: Snapshot) -> Planted:
    scheme_has(s, *IDS)
    shared = np.isin(np.arange(len(s.folios)), pte_mapped_thp(s)) & (s.counts.nr_mms > 1)
    folio = pick(np.flatnonzero(shared), "a folio that two mms map")
    at = folio_at(s, folio, head_field(s, "_mm_ids"))
    patch = put(s, at, word(s, at) & ~(1 << 63))
    return Planted((patch,), ("mm-id-shared-flag-missing",), int(s.folios.pfn[folio]))


@fault
def refcount_below_mapcount(s: Snapshot) -> Planted:
    row = pick(small_anon(s, 2, more=True), "a shared anonymous page")
    at = page_word(s, pfn_of(s, row), "_refcount.counter", "_refcount")
    return Planted((put(s, at, 1, 4),), ("refcount-low",), pfn_of(s, row))


@fault
def only_pte_of_a_page_lost(s: Snapshot) -> Planted:
    row = pick(small_anon(s, 1), "a private page", 11)
    return Planted((clear_entry(s, *mapping_of_page(s, row)),), ("mapcount-mapping-missing",), pfn_of(s, row))


@fault
def one_pte_of_a_shared_file_page_lost(s: Snapshot) -> Planted:
    row = pick(small_file(s, 3), "a shared file page", 6)
    return Planted((clear_entry(s, *mapping_of_page(s, row)),), ("mapcount-too-high",), pfn_of(s, row))


@fault
def one_pte_of_a_thp_lost(s: Snapshot) -> Planted:
    folio = pick(pte_mapped_thp(s), "a PTE-mapped THP")
    rows = int(s.folios.row[folio]) + np.arange(int(s.folios.nr_pages[folio]))
    row = pick(rows[s.counts.page_mappings[rows] > 0], "a mapped subpage", 1)
    rules = ("mapcount-mapping-missing", "mapcount-too-high")
    return Planted((clear_entry(s, *mapping_of_page(s, row)),), rules, pfn_of(s, row))


@fault
def pte_of_a_swap_cache_page_lost(s: Snapshot) -> Planted:
    cached = s.layout.flags.test(s.pages.flags, "swapcache") & s.layout.flags.test(s.pages.flags, "swapbacked")
    rows = np.flatnonzero(cached & (s.folio_of_page < 0) & (s.counts.page_mappings == 1) & (s.pages.type_ == 0))
    row = pick(rows, "a mapped swap-cache page")
    return Planted((clear_entry(s, *mapping_of_page(s, row)),), ("mapcount-mapping-missing",), pfn_of(s, row))


@fault
def pmd_of_a_thp_lost(s: Snapshot) -> Planted:
    folio = pick(pmd_mapped(s, anon=True), "a PMD-mapped anonymous THP")
    m = s.mappings
    rows = np.flatnonzero((m.level == Level.PMD) & (m.pfn == s.folios.pfn[folio]))
    return Planted((clear_entry(s, pick(rows, "its PMD")),), ("entire-mapcount-mismatch",), int(s.folios.pfn[folio]))


def _new_entry(s: Snapshot, pfn: int, rule: str) -> Planted:
    address, _ = empty_slot(s)
    return Planted((Patch(address, pte_to(pfn), True),), (rule,), pfn)


@fault
def pte_to_a_free_page(s: Snapshot) -> Planted:
    inner = s.buddy_pages[s.pages.type_[s.buddy_pages] != BUDDY]
    return _new_entry(s, pfn_of(s, pick(inner, "a free page", 1000)), "free-page-mapping-unexpected")


@fault
def pte_to_the_head_of_a_free_block(s: Snapshot) -> Planted:
    return _new_entry(
        s, pfn_of(s, pick(np.flatnonzero(s.pages.type_ == BUDDY), "a block", 20)), "free-page-mapping-unexpected"
    )


@fault
def pte_to_a_slab_page(s: Snapshot) -> Planted:
    rows = np.flatnonzero((s.pages.type_ == SLAB) & (s.folio_of_page < 0))
    return _new_entry(s, pfn_of(s, pick(rows, "a slab page", 30)), "typed-page-mapping-unexpected")


@fault
def pte_to_a_page_table(s: Snapshot) -> Planted:
    rows = np.flatnonzero(s.pages.type_ == TABLE)
    return _new_entry(s, pfn_of(s, pick(rows, "a page table", 30)), "typed-page-mapping-unexpected")


@fault
def pte_beyond_memory(s: Snapshot) -> Planted:
    return _new_entry(s, s.layout.memmap.max_pfn + 0x1000, "entry-pfn-invalid")


@fault
def pte_where_no_vma_is(s: Snapshot) -> Planted:
    """A PTE moved from its place to a gap between VMAs: every count still fits."""
    m, v = s.mappings, s.vmas
    for row in np.flatnonzero((m.level == Level.PTE) & (m.nr == 1) & (m.vma_idx >= 0) & m.counted).tolist():
        vma, slot = int(m.vma_idx[row]), int(m.slot[row])
        behind = int(v.end[vma])
        skip = (behind - int(m.va[row])) >> 12
        last = vma + 1 >= len(v) or v.mm_idx[vma + 1] != v.mm_idx[vma]
        if slot + skip < 512 and (last or int(v.start[vma + 1]) > behind + 4096) and not s.mm_in_motion[m.mm_idx[row]]:
            there, here = entry_address(s, row, skip), entry_address(s, row)
            data = s.layout.memory.read(here, 8, physical=True)
            assert data is not None
            moved = Patch(there, data, True)
            return Planted((moved, Patch(here, bytes(8), True)), ("entry-vma-missing",), int(m.pfn[row]))
    raise MissingError("a gap behind a VMA in the same table")


@fault
def malformed_top_entry(s: Snapshot) -> Planted:
    """A leaf at the top level, where no leaf can be, far away from every VMA."""
    rows = np.flatnonzero((s.tables.parent < 0) & (s.tables.state == 0) & ~s.mm_in_motion[s.tables.mm_idx])
    row = pick(rows, "a top table", 4)
    address = (int(s.tables.pfn[row]) << 12) + 8 * 17
    if s.layout.memory.read(address, 8, physical=True) != bytes(8):
        raise MissingError("an empty slot at the top")
    return Planted((Patch(address, pte_to(0x1234, huge=True), True),), ("entry-invalid",), None)


@fault
def rss_raised(s: Snapshot) -> Planted:
    quiet = np.flatnonzero((s.mms.nr_tasks == 1) & ~s.mms.locked & (s.mms.rss[:, RSS_ANON] > 10))
    mm = pick(quiet, "a quiet process", 3)
    struct = s.layout.struct("struct mm_struct")
    field = struct.find(f"rss_stat[{RSS_ANON}].count") or struct.field(f"rss_stat.count[{RSS_ANON}]")
    return Planted((add(s, int(s.mms.addr[mm]) + field.offset, 7, 8),), ("rss-mismatch",), None)


@fault
def tail_pointing_to_a_foreign_head(s: Snapshot) -> Planted:
    folio = pick(pmd_mapped(s, anon=True), "a THP")
    other = pick(np.flatnonzero(s.folios.order == s.folios.order[folio]), "another folio", 1)
    row = int(s.folios.row[folio]) + 9
    link = page_word(s, pfn_of(s, row), "compound_info", "compound_head")
    value = s.layout.memmap.page_addr(int(s.folios.pfn[other])) + 1
    return Planted((put(s, link, value),), ("tail-head-invalid", "compound-size-mismatch"), None)


@fault
def order_of_a_folio_changed(s: Snapshot) -> Planted:
    folio = pick(pte_mapped_thp(s), "a THP", 1)
    old = s.layout.struct("struct page").find("compound_order")
    page = s.layout.memmap.page_addr(int(s.folios.pfn[folio])) + SIZE_OF_PAGE
    at = page + (old.offset if old is not None else s.layout.struct("struct page").field("flags.f", "flags").offset)
    rules = ("compound-size-mismatch",)
    return Planted((put(s, at, int(s.folios.order[folio]) - 1, 1),), rules, int(s.folios.pfn[folio]))


SIZE_OF_PAGE = 64


@fault
def tail_mapping_overwritten(s: Snapshot) -> Planted:
    folio = pick(pmd_mapped(s, anon=True), "a THP")
    pfn = int(s.folios.pfn[folio]) + 100
    return Planted((put(s, page_word(s, pfn, "mapping"), 0x1234),), ("tail-page-damaged",), pfn)


@fault
def tail_with_a_reference(s: Snapshot) -> Planted:
    folio = pick(pmd_mapped(s, anon=True), "a THP")
    pfn = int(s.folios.pfn[folio]) + 33
    return Planted((put(s, page_word(s, pfn, "_refcount.counter", "_refcount"), 1, 4),), ("tail-page-damaged",), pfn)


@fault
def free_page_with_a_mapcount(s: Snapshot) -> Planted:
    inner = s.buddy_pages[s.pages.type_[s.buddy_pages] == 0]
    row = pick(inner, "a free page", 500)
    return Planted((put(s, mapcount_at(s, row), 0, 4),), ("free-page-mapcount-unexpected",), pfn_of(s, row))


@fault
def free_page_with_a_mapping(s: Snapshot) -> Planted:
    inner = s.buddy_pages[s.pages.type_[s.buddy_pages] == 0]
    row = pick(inner, "a free page", 600)
    at = page_word(s, pfn_of(s, row), "mapping")
    return Planted(
        (put(s, at, s.layout.memory.direct_map_base + 0x1000),), ("free-page-state-unexpected",), pfn_of(s, row)
    )


@fault
def pinned_free_folio(s: Snapshot) -> Planted:
    free = s.folios.is_hugetlb & (s.pages.refcount[s.folios.row] == 0)
    folio = pick(np.flatnonzero(free), "a free hugetlb folio")
    field = head_field(s, "_pincount.counter", tail=("compound_pincount.counter",))
    patch = put(s, folio_at(s, folio, field), 3, 4)
    return Planted((patch,), ("free-folio-pincount-unexpected",), int(s.folios.pfn[folio]))


@fault
def linked_page_table_freed(s: Snapshot) -> Planted:
    t = s.tables
    busy = np.bincount(s.mappings.table_idx, minlength=len(t))
    row = pick(np.flatnonzero((t.level == Level.PTE) & (busy > 3) & ~s.mm_in_motion[t.mm_idx]), "a PTE table", 5)
    pfn = int(t.pfn[row])
    patches = (
        put(s, page_word(s, pfn, "_mapcount.counter", "_mapcount"), -1, 4),
        put(s, page_word(s, pfn, "_refcount.counter", "_refcount"), 0, 4),
    )
    return Planted(patches, ("page-table-type-mismatch",), pfn)


@fault
def hugetlb_folio_with_a_mapped_pages_word(s: Snapshot) -> Planted:
    scheme_has(s, *WORD)
    folio = pick(pmd_mapped(s, hugetlb=True), "a mapped hugetlb folio")
    patch = put(s, folio_at(s, folio, head_field(s, "_nr_pages_mapped.counter")), 1, 4)
    rules = ("hugetlb-counts-unexpected", "nr-pages-mapped-mismatch", "nr-pages-mapped-invalid")
    return Planted((patch,), rules, int(s.folios.pfn[folio]))


@fault
def swap_entry_in_a_hugetlb_vma(s: Snapshot) -> Planted:
    """An empty slot of a private hugetlb VMA filled with a swap entry: type 0, offset 5."""
    m, v = s.mappings, s.vmas
    for row in np.flatnonzero(
        (m.level == Level.PMD) & (s.mappings.entry_class == EntryClass.NORMAL) & m.counted
    ).tolist():
        vma = int(m.vma_idx[row])
        behind = int(m.va[row]) + (1 << 21)
        if v.is_hugetlb[vma] and behind < int(v.end[vma]) and int(m.slot[row]) < 511:
            address = entry_address(s, row, 1)
            if s.layout.memory.read(address, 8, physical=True) == bytes(8):
                raw = (~(5 << 9)) & ((1 << 59) - 1) & ~0x1FF
                return Planted(
                    (Patch(address, raw.to_bytes(8, "little"), True),), ("hugetlb-swap-entry-unexpected",), None
                )
    raise MissingError("an empty slot in a hugetlb VMA")
