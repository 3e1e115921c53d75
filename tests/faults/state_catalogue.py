"""Faults of VMAs, trees and page states: what races in mmap, fork, khugepaged and the page allocator left."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.layout.flags import MAPPING_ANON
from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_ANON, RSS_FILE
from tests.faults.catalogue import fault
from tests.faults.more_catalogue import empty_pmd
from tests.faults.overlay import Patch, add, flags_xor, page_word, pfn_of, put, word
from tests.faults.plants import (
    LARGE,
    MissingError,
    Planted,
    folio_at,
    head_field,
    mapcount_at,
    pick,
    pmd_mapped,
    pte_mapped_thp,
    pte_to,
    small_anon,
    small_file,
)


def quiet_mms(s: Snapshot) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Mms of one task that nobody is changing."""
    return (s.mms.nr_tasks == 1) & ~s.mms.locked & ~s.mm_in_motion


def vma_word(s: Snapshot, vma: int, *names: str) -> int:
    """Address of a member of a VMA."""
    return int(s.vmas.addr[vma]) + s.layout.struct("struct vm_area_struct").field(*names).offset


@fault
def page_table_retracted_over_an_anonymous_page(s: Snapshot) -> Planted:
    """khugepaged took a table away although an anonymous page was still mapped in it, with all books adjusted."""
    t, m = s.tables, s.mappings
    leaves = np.bincount(m.table_idx, minlength=len(t))
    swap = np.bincount(s.nonpresent.table_idx, minlength=len(t))
    wanted = (t.level == Level.PTE) & (leaves == 1) & (swap == 0) & quiet_mms(s)[t.mm_idx] & (t.parent >= 0)
    single = np.zeros(len(t), np.bool_)
    rows = np.isin(s.pages.memmap.rows(m.pfn), small_anon(s, 1)) & (m.nr == 1)
    single[m.table_idx[rows]] = True
    table = pick(np.flatnonzero(wanted & single), "a table with one anonymous page")
    parent = int(t.parent[table])
    address = (int(t.pfn[parent]) << 12) + 8 * int((t.va[table] >> np.uint64(21)) & np.uint64(511))
    pgtables = (
        int(s.mms.addr[t.mm_idx[table]]) + s.layout.struct("struct mm_struct").field("pgtables_bytes.counter").offset
    )
    patches = (
        Patch(address, bytes(8), True),
        add(s, pgtables, -4096),
        put(s, page_word(s, int(t.pfn[table]), "_mapcount.counter", "_mapcount"), -1, 4),
        # Its page is of another user by now.
    )
    return Planted(patches, ("mapcount-mapping-missing",), None)


@fault
def mapping_word_of_an_anonymous_page_wiped(s: Snapshot) -> Planted:
    pfn = pfn_of(s, pick(small_anon(s, 1), "a private page", 25))
    return Planted((put(s, page_word(s, pfn, "mapping"), 0),), ("anon-folio-mapping-invalid",), pfn)


@fault
def mapping_word_of_a_thp_wiped(s: Snapshot) -> Planted:
    folio = pick(pmd_mapped(s, anon=True), "a THP", 1)
    pfn = int(s.folios.pfn[folio])
    return Planted((put(s, page_word(s, pfn, "mapping"), 0),), ("anon-folio-mapping-invalid",), pfn)


@fault
def tag_of_an_anonymous_mapping_lost(s: Snapshot) -> Planted:
    """The low bit is gone: the anon_vma is taken for an address_space."""
    row = pick(small_anon(s, 1), "a private page", 27)
    pfn = pfn_of(s, row)
    address = page_word(s, pfn, "mapping")
    patch = put(s, address, word(s, address) & ~MAPPING_ANON)
    return Planted((patch,), ("anon-folio-mapping-invalid",), pfn)


@fault
def rss_of_files_off_by_a_huge_page(s: Snapshot) -> Planted:
    mm = pick(np.flatnonzero(quiet_mms(s) & (s.mms.rss[:, RSS_FILE] > 10)), "a quiet process", 5)
    struct = s.layout.struct("struct mm_struct")
    field = struct.find(f"rss_stat[{RSS_FILE}].count") or struct.field(f"rss_stat.count[{RSS_FILE}]")
    return Planted((add(s, int(s.mms.addr[mm]) + field.offset, -512, 8),), ("rss-mismatch",), None)


@fault
def rss_swapped_between_kinds(s: Snapshot) -> Planted:
    """A page was counted under another kind than it was uncounted from."""
    mm = pick(np.flatnonzero(quiet_mms(s) & (s.mms.rss[:, RSS_ANON] > 10)), "a quiet process", 7)
    struct = s.layout.struct("struct mm_struct")
    patches = []
    for kind, delta in ((RSS_ANON, 1), (RSS_FILE, -1)):
        field = struct.find(f"rss_stat[{kind}].count") or struct.field(f"rss_stat.count[{kind}]")
        patches.append(add(s, int(s.mms.addr[mm]) + field.offset, delta, 8))
    return Planted(tuple(patches), ("rss-mismatch",), None)


@fault
def vma_lost_from_its_tree(s: Snapshot) -> Planted:
    """A slot of the maple tree overwritten: what the VMA maps lies outside every VMA."""
    v, m = s.vmas, s.mappings
    struct = s.layout.struct("struct maple_node")
    per = np.bincount(m.vma_idx[m.vma_idx >= 0], minlength=len(v))
    for vma in np.flatnonzero((per == 1) & (v.file == 0) & quiet_mms(s)[v.mm_idx]).tolist()[5:40]:
        wanted = int(v.addr[vma])
        found = maple_slot(s, int(s.mms.addr[v.mm_idx[vma]]), wanted, int(v.start[vma]))
        if found:
            return Planted((put(s, found, 0),), ("vma-unreachable",), None)
    raise MissingError(f"a VMA of one page in a maple tree of {struct.size} bytes a node")


def maple_slot(s: Snapshot, mm: int, vma: int, start: int) -> int:
    """Address of the slot of a maple node that holds a VMA, 0 when it is the root."""
    tree = mm + s.layout.struct("struct mm_struct").field("mm_mt").offset
    node = word(s, tree + s.layout.struct("struct maple_tree").field("ma_root").offset)
    todo, seen = [node], 0
    while todo and seen < 200:
        entry, seen = todo.pop(), seen + 1
        base, kind = entry & ~0xFF, entry >> 3 & 15
        for at in range(base, base + 256, 8):
            value = word(s, at)
            if kind == 1 and value == vma:
                return at
            if kind > 1 and value & 0x87 == 4 and value > 1 << 63 and value & ~0xFF != base:
                todo.append(value)
    assert start
    return 0


@fault
def file_of_a_mapped_vma_forgotten(s: Snapshot) -> Planted:
    """The error path of a driver's mmap tore a VMA down half-way: it stands in the tree without its file."""
    v, m = s.vmas, s.mappings
    per = np.bincount(m.vma_idx[m.vma_idx >= 0], minlength=len(v))
    vma = pick(np.flatnonzero((v.file != 0) & (per > 0) & quiet_mms(s)[v.mm_idx] & (v.anon_vma == 0)), "a VMA", 12)
    rules = ("i-mmap-vma-unexpected",)
    return Planted((put(s, vma_word(s, vma, "vm_file"), 0),), rules, None)


@fault
def free_page_on_the_lru(s: Snapshot) -> Planted:
    inner = s.buddy_pages[s.pages.type_[s.buddy_pages] == 0]
    pfn = pfn_of(s, pick(inner, "a free page", 900))
    return Planted((flags_xor(s, pfn, "lru"),), ("free-page-state-unexpected",), pfn)


@fault
def free_page_still_mlocked(s: Snapshot) -> Planted:
    inner = s.buddy_pages[s.pages.type_[s.buddy_pages] == 0]
    pfn = pfn_of(s, pick(inner, "a free page", 901))
    return Planted((flags_xor(s, pfn, "mlocked"),), ("free-page-state-unexpected",), pfn)


def _charged(s: Snapshot, row: int) -> Patch:
    """A page names a memory cgroup as one in use does."""
    charged = word(s, page_word(s, pfn_of(s, pick(small_anon(s, 1), "an anonymous page")), "memcg_data"))
    if not charged:
        raise MissingError("a page that a memory cgroup is charged for")
    return put(s, page_word(s, pfn_of(s, row), "memcg_data"), charged)


@fault
def free_page_still_charged(s: Snapshot) -> Planted:
    """A page was freed without mem_cgroup_uncharge()."""
    row = pick(s.buddy_pages[s.pages.type_[s.buddy_pages] == 0], "a free page", 903)
    return Planted((_charged(s, row),), ("free-page-state-unexpected",), pfn_of(s, row))


@fault
def first_page_of_a_free_block_still_charged(s: Snapshot) -> Planted:
    row = pick(s.buddy_pages[s.pages.type_[s.buddy_pages] != 0], "a free block", 40)
    return Planted((_charged(s, row),), ("free-page-state-unexpected",), pfn_of(s, row))


@fault
def free_page_of_a_page_pool(s: Snapshot) -> Planted:
    """A driver freed a page that its page pool had not released; bit 1 says that it is from the reserves."""
    pfn = pfn_of(s, pick(s.buddy_pages[s.pages.type_[s.buddy_pages] == 0], "a free page", 904))
    at = page_word(s, pfn, "pp_magic")
    return Planted((put(s, at, 0xDEAD000000000042),), ("free-page-state-unexpected",), pfn)


@fault
def free_page_referenced(s: Snapshot) -> Planted:
    inner = s.buddy_pages[s.pages.type_[s.buddy_pages] == 0]
    pfn = pfn_of(s, pick(inner, "a free page", 902))
    at = page_word(s, pfn, "_refcount.counter", "_refcount")
    return Planted((put(s, at, 1, 4),), ("free-page-state-unexpected", "free-page-referenced"), pfn)


@fault
def thp_freed_while_its_pages_are_mapped(s: Snapshot) -> Planted:
    """A lazyfree THP was dropped as PMD-mapped although PTEs elsewhere mapped its pages: the head is free memory."""
    folio = pick(pte_mapped_thp(s), "a PTE-mapped THP", 3)
    pfn = int(s.folios.pfn[folio])
    at = page_word(s, pfn, "_refcount.counter", "_refcount")
    rules = ("free-page-mapping-unexpected", "refcount-low")
    return Planted((put(s, at, 0, 4),), rules, pfn)


@fault
def references_of_a_thp_below_its_mappings(s: Snapshot) -> Planted:
    folio = pick(pte_mapped_thp(s), "a PTE-mapped THP", 3)
    pfn = int(s.folios.pfn[folio])
    at = page_word(s, pfn, "_refcount.counter", "_refcount")
    return Planted((add(s, at, -(word(s, at, 4) - 3), 4),), ("refcount-low",), pfn)


@fault
def counts_of_a_thp_raised_together(s: Snapshot) -> Planted:
    """A removal forgot the folio's own counts: entire and large mapcount agree with each other, not with the tables."""
    folio = pick(pmd_mapped(s, anon=True), "a PMD-mapped THP", 3)
    entire = head_field(
        s, "_entire_mapcount.counter", "_compound_mapcount.counter", tail=("compound_mapcount.counter",)
    )
    refs = page_word(s, int(s.folios.pfn[folio]), "_refcount.counter", "_refcount")
    patches = [add(s, folio_at(s, folio, entire), 1, 4), add(s, refs, 1, 4)]
    if s.scheme in LARGE:
        patches.append(add(s, folio_at(s, folio, head_field(s, "_large_mapcount.counter")), 1, 4))
    return Planted(tuple(patches), ("entire-mapcount-mismatch",), int(s.folios.pfn[folio]))


@fault
def double_map_flag_turned(s: Snapshot) -> Planted:
    if s.scheme is None or not s.scheme.double_map:
        raise MissingError("PG_double_map")
    folio = pick(pmd_mapped(s, anon=True), "a PMD-mapped THP")
    pfn = int(s.folios.pfn[folio])
    bit = s.layout.flags.mask("double_map")
    at = page_word(s, pfn + 1, "flags.f", "flags")
    return Planted((put(s, at, word(s, at) ^ int(bit)),), ("double-map-wrong", "mapcount-too-low"), pfn)


@fault
def partial_mapping_miscounted_by_a_neighbour(s: Snapshot) -> Planted:
    """A batch ran over its end: the page behind a folio lost a mapping that was not its own."""
    row = pick(small_file(s, 3), "a shared file page", 8)
    patches = (
        add(s, mapcount_at(s, row), -1, 4),
        add(s, page_word(s, pfn_of(s, row), "_refcount.counter", "_refcount"), -1, 4),
    )
    return Planted(patches, ("mapcount-too-low",), pfn_of(s, row))


@fault
def ghost_mapping(s: Snapshot) -> Planted:
    """A mapping that is counted and referenced, and that no page table has."""
    row = pick(small_anon(s, 1), "a private page", 29)
    patches = (
        add(s, mapcount_at(s, row), 1, 4),
        add(s, page_word(s, pfn_of(s, row), "_refcount.counter", "_refcount"), 1, 4),
    )
    return Planted(patches, ("mapcount-too-high",), pfn_of(s, row))


@fault
def huge_entry_to_a_freed_folio(s: Snapshot) -> Planted:
    """A huge page was freed although a PMD elsewhere still maps it."""
    pfns = s.pages.memmap.pfns_of_rows(s.buddy_pages)
    heads = s.buddy_pages[(s.pages.type_[s.buddy_pages] != 0) & ((pfns & 511) == 0)]
    pfn = pfn_of(s, pick(heads, "an aligned free block", 2))
    entry = Patch(empty_pmd(s), pte_to(pfn, huge=True), True)
    return Planted((entry,), ("free-page-mapping-unexpected", "huge-entry-folio-mismatch"), pfn)
