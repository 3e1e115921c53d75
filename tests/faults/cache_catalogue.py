"""Faults of the page cache: xarrays, totals, folios that the file does not know."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.snapshot import Snapshot
from inspector.tables.files import FILE, SHMEM
from inspector.walk.counts import EntryClass
from tests.faults.cache_plants import idle_entries, slot_address, space_word
from tests.faults.catalogue import fault
from tests.faults.overlay import add, page_word, put, word
from tests.faults.plants import Planted, exclusive_rows, folio_at, head_field, pick, pmd_mapped, small_file


@fault
def number_of_cached_pages_raised(s: Snapshot) -> Planted:
    space = int(s.files.entries.address_space_idx[idle_entries(s, FILE)[0]])
    return Planted((add(s, space_word(s, space, "nrpages"), 1),), ("cache-nrpages-mismatch",), None)


@fault
def cache_slot_leads_to_another_folio_of_the_file(s: Snapshot) -> Planted:
    rows = idle_entries(s, FILE)
    rows = rows[s.files.entries.address_space_idx[rows] == s.files.entries.address_space_idx[rows[0]]]
    at, _ = slot_address(s, int(rows[0]))
    return Planted((put(s, at, int(s.files.entries.value[rows[2]])),), ("cache-entry-mismatch",), None)


@fault
def cache_slot_leads_to_a_folio_of_another_file(s: Snapshot) -> Planted:
    at, _ = slot_address(s, int(idle_entries(s, FILE)[0]))
    other = int(s.files.entries.value[idle_entries(s, SHMEM)[0]])
    return Planted((put(s, at, other),), ("cache-entry-mismatch",), None)


@fault
def cache_slot_emptied(s: Snapshot) -> Planted:
    at, _ = slot_address(s, int(idle_entries(s, SHMEM)[0]))
    return Planted((put(s, at, 0),), ("cache-nrpages-mismatch",), None)


@fault
def cache_slot_leads_out_of_memory(s: Snapshot) -> Planted:
    at, _ = slot_address(s, int(idle_entries(s, SHMEM)[0]))
    return Planted((put(s, at, s.layout.memory.direct_map_base + 0x1000),), ("cache-tree-damaged",), None)


@fault
def cache_tree_in_a_circle(s: Snapshot) -> Planted:
    at, node = slot_address(s, int(idle_entries(s, SHMEM)[0]))
    shift = s.layout.struct("struct xa_node").field("shift")
    patches = put(s, node + shift.offset, 6, 1), put(s, at, node | 2)
    return Planted(patches, ("cache-tree-damaged",), None)


@fault
def index_of_a_cached_folio_shifted(s: Snapshot) -> Planted:
    pfn = int(s.files.entries.pfn[idle_entries(s, FILE)[0]])
    patch = add(s, page_word(s, pfn, "__folio_index", "index"), 1)
    return Planted((patch,), ("cache-entry-mismatch",), None)


@fault
def mapping_of_a_cached_folio_replaced(s: Snapshot) -> Planted:
    pfn = int(s.files.entries.pfn[idle_entries(s, FILE)[0]])
    other = int(s.files.address_spaces.addr[s.files.entries.address_space_idx[idle_entries(s, SHMEM)[0]]])
    return Planted((put(s, page_word(s, pfn, "mapping"), other),), ("cache-entry-mismatch",), None)


def _space_of_listed_folios(s: Snapshot, kind: int) -> int:
    """An address_space of a kind with several folios on LRU lists."""
    rows = idle_entries(s, kind)
    space, head = s.files.entries.address_space_idx[rows], s.pages.memmap.rows(s.files.entries.pfn[rows])
    on = s.layout.flags.test(s.pages.flags[np.maximum(head, 0)], "lru") & (head >= 0)
    nr = np.bincount(space[on], minlength=len(s.files.address_spaces))
    return pick(np.flatnonzero(nr > 2), "a file with several pages on LRU lists")


@fault
def bit_of_the_host_of_a_file_flipped(s: Snapshot) -> Planted:
    """The address_space of a file names no inode: none of its folios is found in a page cache."""
    at = space_word(s, _space_of_listed_folios(s, FILE), "host")
    return Planted((put(s, at, word(s, at) ^ 1 << 60),), ("address-space-owner-missing",), None)


@fault
def host_of_a_shmem_file_cleared(s: Snapshot) -> Planted:
    at = space_word(s, _space_of_listed_folios(s, SHMEM), "host")
    return Planted((put(s, at, 0),), ("address-space-owner-missing",), None)


@fault
def page_of_a_file_marked_as_anonymous(s: Snapshot) -> Planted:
    """The tag of an anonymous page on the mapping of a page that the page cache holds and nothing maps."""
    pfn = int(s.files.entries.pfn[idle_entries(s, FILE)[0]])
    return Planted((add(s, page_word(s, pfn, "mapping"), 1),), ("cache-entry-mismatch",), None)


@fault
def second_index_of_a_large_folio_lost(s: Snapshot) -> Planted:
    """A sibling slot of a large folio emptied."""
    entries = s.files.entries
    rows = np.flatnonzero((entries.nr > 1) & (entries.nr < 64))
    row = pick(rows, "a cached large folio below 64 pages")
    at, _ = slot_address(s, row)
    return Planted((put(s, at + 8, 0),), ("cache-entry-mismatch", "cache-nrpages-mismatch"), None)


@fault
def mapped_hugetlb_folio_out_of_its_file(s: Snapshot) -> Planted:
    folio = pick(pmd_mapped(s, hugetlb=True), "a mapped hugetlb folio of a file")
    pfn = int(s.folios.pfn[folio])
    rules = ("file-mapping-mismatch",)
    return Planted((put(s, page_word(s, pfn, "mapping"), 0),), rules, pfn)


@fault
def mapped_file_page_truncated(s: Snapshot) -> Planted:
    row = pick(small_file(s, 2), "a mapped page-cache page", 4)
    pfn = int(s.pages.memmap.pfns_of_rows(np.array([row]))[0])
    rules = ("file-mapping-mismatch",)
    return Planted((put(s, page_word(s, pfn, "mapping"), 0),), rules, pfn)


@fault
def mapped_beyond_the_end_of_its_file(s: Snapshot) -> Planted:
    """The size of a mapped file lowered below a page that is mapped."""
    m, v = s.mappings, s.vmas
    head = np.maximum(s.mappings.head_row, 0)
    file = (
        (s.mappings.entry_class == EntryClass.NORMAL)
        & (s.pages.mapping[head] != 0)
        & ((s.pages.mapping[head] & np.uint64(3)) == 0)
    )
    rows = np.flatnonzero(file & (m.level == Level.PTE) & (v.pgoff[np.maximum(m.vma_idx, 0)] > 0))
    row = pick(rows, "a page mapped well into its file", 3)
    space = int(s.pages.mapping[head[row]])
    host = word(s, space + s.layout.struct("struct address_space").field("host").offset)
    size = s.layout.struct("struct inode").field("i_size")
    return Planted((put(s, host + size.offset, 4096),), ("file-index-high",), None, "warn")


@fault
def reference_of_a_cached_folio_lost(s: Snapshot) -> Planted:
    pfn = int(s.files.entries.pfn[idle_entries(s, FILE)[0]])
    patch = add(s, page_word(s, pfn, "_refcount.counter", "_refcount"), -1, 4)
    return Planted((patch,), ("cache-entry-mismatch", "refcount-low"), pfn)


@fault
def reference_of_a_large_cached_folio_lost(s: Snapshot) -> Planted:
    entries, f = s.files.entries, s.folios
    cached = np.isin(f.pfn, entries.pfn[np.flatnonzero(entries.nr > 1)]) & ~f.is_hugetlb
    folio = pick(np.flatnonzero(cached), "a cached large folio")
    refs = s.layout.struct("struct page").field("_refcount.counter", "_refcount")
    least = int(s.folio_totals[folio]) + int(f.nr_pages[folio])
    patch = put(s, folio_at(s, folio, refs), least - 1, 4)
    return Planted((patch,), ("refcount-low",), int(f.pfn[folio]))


@fault
def pins_above_references(s: Snapshot) -> Planted:
    mapped = pmd_mapped(s, anon=True)
    # Pins of one that is shared would be wrong in another way, too.
    mapped = mapped[np.isin(s.folios.row[mapped], exclusive_rows(s))]
    folio = pick(mapped, "an exclusive PMD-mapped THP", 2)
    field = head_field(s, "_pincount.counter", tail=("compound_pincount.counter",))
    patch = add(s, folio_at(s, folio, field), 5, 4)
    return Planted((patch,), ("pincount-high",), int(s.folios.pfn[folio]))
