"""Faults of the words that every struct page has: flags, zone, type and reference count."""

from __future__ import annotations

import numpy as np

from inspector.layout.flags import type_code
from inspector.snapshot import Snapshot
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, flags_xor, page_word, pfn_of, put, word
from tests.faults.plants import (
    MissingError,
    Planted,
    calm,
    folios,
    mapcount_at,
    pick,
    pmd_mapped,
    pte_mapped_thp,
    small_anon,
    small_file,
)


def _flag(s: Snapshot, row: int, name: str) -> Patch:
    if not s.layout.flags.mask(name):
        raise MissingError(f"PG_{name}")
    return flags_xor(s, pfn_of(s, row), name)


def _bit(s: Snapshot, row: int, bit: int) -> Patch:
    address = page_word(s, pfn_of(s, row), "flags.f", "flags")
    return put(s, address, word(s, address) ^ bit)


@fault
def tail_on_the_lru(s: Snapshot) -> Planted:
    """The folio was split half, or a page was taken for its folio."""
    row = int(s.folios.row[pick(pte_mapped_thp(s), "a THP", 2)]) + 3
    return Planted((_flag(s, row, "lru"),), ("tail-flags-unexpected",), pfn_of(s, row))


@fault
def first_tail_marked_as_swapbacked(s: Snapshot) -> Planted:
    """Bits that the first tail keeps for its folio are no excuse for others."""
    row = int(s.folios.row[pick(pmd_mapped(s, anon=True), "a THP", 1)]) + 1
    return Planted((_flag(s, row, "swapbacked"),), ("tail-flags-unexpected",), pfn_of(s, row))


@fault
def tail_of_hugetlb_dirtied(s: Snapshot) -> Planted:
    row = int(s.folios.row[pick(folios(s, s.folios.is_hugetlb), "a hugetlb folio", 1)]) + 5
    return Planted((_flag(s, row, "dirty"),), ("tail-flags-unexpected",), pfn_of(s, row))


def _tail_mapping(s: Snapshot, index: int, *, shared: bool) -> Planted:
    """Another list wrote into a tail that hugetlb keeps to itself."""
    which = pick(folios(s, s.folios.is_hugetlb & (s.hvo_folio == shared)), "such a hugetlb folio")
    row = int(s.folios.row[which]) + index
    return Planted((put(s, page_word(s, pfn_of(s, row), "mapping"), 0),), ("tail-page-damaged",), pfn_of(s, row))


@fault
def tail_of_hugetlb_without_tail_mapping(s: Snapshot) -> Planted:
    return _tail_mapping(s, 4, shared=False)


@fault
def far_tail_of_hugetlb_without_tail_mapping(s: Snapshot) -> Planted:
    return _tail_mapping(s, 300, shared=False)


@fault
def tail_of_optimised_hugetlb_without_tail_mapping(s: Snapshot) -> Planted:
    """The struct pages in the first page of its memory map are its own."""
    return _tail_mapping(s, 63, shared=True)


@fault
def tail_of_another_zone(s: Snapshot) -> Planted:
    row = int(s.folios.row[pick(pte_mapped_thp(s), "a THP")]) + 2
    lowest = s.layout.zone_bits & -s.layout.zone_bits
    return Planted((_bit(s, row, lowest),), ("tail-zone-mismatch",), pfn_of(s, row))


@fault
def tail_of_another_node(s: Snapshot) -> Planted:
    row = int(s.folios.row[pick(pmd_mapped(s, anon=True), "a THP")]) + 200
    return Planted((_bit(s, row, 1 << 63),), ("tail-zone-mismatch",), pfn_of(s, row))


@fault
def tail_of_a_kernel_page_in_another_zone(s: Snapshot) -> Planted:
    """Compound pages that no process uses lie in one zone as well."""
    kernels = ~s.folios.is_rmappable & ~s.folios.is_hugetlb & s.folios.readable & (s.folios.order >= 2)
    row = int(s.folios.row[pick(np.flatnonzero(kernels), "a compound page of the kernel", 4)]) + 2
    lowest = s.layout.zone_bits & -s.layout.zone_bits
    return Planted((_bit(s, row, lowest),), ("tail-zone-mismatch",), pfn_of(s, row))


def _references(s: Snapshot, row: int, number: int) -> Patch:
    return put(s, page_word(s, pfn_of(s, row), "_refcount.counter", "_refcount"), number, 4)


@fault
def mapped_page_with_negative_references(s: Snapshot) -> Planted:
    row = pick(small_anon(s, 1), "a small anonymous page", 6)
    return Planted((_references(s, row, -1),), ("refcount-invalid",), pfn_of(s, row))


@fault
def cached_page_with_negative_references(s: Snapshot) -> Planted:
    row = pick(small_file(s, 0), "a page of the page cache", 3)
    return Planted((_references(s, row, -2),), ("refcount-invalid",), pfn_of(s, row))


@fault
def free_page_released_once_more(s: Snapshot) -> Planted:
    inside = s.buddy_pages
    row = pick(inside[s.pages.type_[inside] == 0], "a page inside a free block", 1000)
    return Planted((_references(s, row, -1),), ("refcount-invalid",), pfn_of(s, row))


@fault
def type_of_a_mapped_page_made_up(s: Snapshot) -> Planted:
    """A write after free hit the page type: the word says something that no kernel writes."""
    row = pick(small_anon(s, 1), "a small anonymous page", 8)
    value = 0xFD << 24 if s.layout.types.byte_types else 0xFFFFFFFF & ~0x0400_0000
    return Planted((put(s, mapcount_at(s, row), value, 4),), ("page-type-invalid",), pfn_of(s, row))


@fault
def type_of_an_unused_page_made_up(s: Snapshot) -> Planted:
    plain = (s.pages.refcount > 0) & (s.pages.type_ == 0) & (s.pages.mapping == 0) & (s.folio_of_page < 0)
    row = pick(np.flatnonzero(plain & calm(s)), "a page of the kernel", 5)
    value = 0xFA << 24 if s.layout.types.byte_types else 0xFFFFFFFF & ~0x0000_1000
    return Planted((put(s, mapcount_at(s, row), value, 4),), ("page-type-invalid",), pfn_of(s, row))


@fault
def poisoned_page_of_a_large_folio_unsaid(s: Snapshot) -> Planted:
    """Broken memory that nothing maps any more, in a folio that could not be split."""
    folio = s.folio_of_page
    large = np.zeros(len(s.folios), np.bool_)
    large[folios(s, s.folios.is_rmappable & ~s.folios.is_hugetlb & (s.counts.entire == 0))] = True
    alone = s.pages.is_tail & (folio >= 0) & large[np.maximum(folio, 0)] & (s.counts.page_mappings == 0)
    row = pick(np.flatnonzero(alone), "a page of a large folio that nothing maps", 3)
    return Planted((_flag(s, row, "hwpoison"),), ("has-hwpoisoned-missing",), pfn_of(s, row), "warn")


@fault
def page_of_a_zone_that_does_not_span_it(s: Snapshot) -> Planted:
    """A bit of the zone's number was flipped."""
    row = pick(small_anon(s, 1), "a small anonymous page", 30)
    lowest = s.layout.zone_bits & -s.layout.zone_bits
    return Planted((_bit(s, row, lowest),), ("page-zone-mismatch",), pfn_of(s, row))


@fault
def free_page_of_another_node(s: Snapshot) -> Planted:
    row = pick(s.buddy_pages[s.pages.type_[s.buddy_pages] == 0], "a free page", 700)
    return Planted((_bit(s, row, 1 << 62),), ("page-zone-mismatch",), pfn_of(s, row))


@fault
def head_of_a_thp_in_another_zone(s: Snapshot) -> Planted:
    """Its tails agree with each other, and with the zone that spans them."""
    row = int(s.folios.row[pick(pmd_mapped(s, anon=True), "a THP")])
    lowest = s.layout.zone_bits & -s.layout.zone_bits
    return Planted((_bit(s, row, lowest << 1),), ("page-zone-mismatch",), pfn_of(s, row))


@fault
def unused_bit_of_page_flags_set(s: Snapshot) -> Planted:
    if not s.layout.unused_flag_bits:
        raise MissingError("unused bits of page flags")
    row = pick(small_file(s, 2), "a page of the page cache", 5)
    return Planted((_bit(s, row, s.layout.unused_flag_bits),), ("page-flags-invalid",), pfn_of(s, row))


@fault
def anonymous_page_with_private_data(s: Snapshot) -> Planted:
    row = pick(small_anon(s, 1), "a small anonymous page", 31)
    return Planted((_flag(s, row, "private_2"),), ("page-flags-unexpected",), pfn_of(s, row))


@fault
def hugetlb_folio_on_an_lru_list(s: Snapshot) -> Planted:
    row = int(s.folios.row[pick(folios(s, s.folios.is_hugetlb), "a hugetlb folio", 2)])
    return Planted((_flag(s, row, "lru"),), ("page-flags-unexpected",), pfn_of(s, row))


@fault
def active_page_that_is_unevictable(s: Snapshot) -> Planted:
    flags, mlocked = s.layout.flags, s.layout.flags.test(s.pages.flags, "unevictable")
    row = pick(np.flatnonzero(mlocked & flags.test(s.pages.flags, "lru")), "an unevictable page", 9)
    return Planted((_flag(s, row, "active"),), ("page-flags-unexpected",), pfn_of(s, row))


def _slab(s: Snapshot, nth: int) -> int:
    return pick(np.flatnonzero((s.pages.type_ == type_code("slab")) & ~s.pages.is_tail), "a slab", nth)


@fault
def slab_that_is_dirty(s: Snapshot) -> Planted:
    row = _slab(s, 20)
    return Planted((_flag(s, row, "dirty"),), ("page-flags-unexpected",), pfn_of(s, row))


def _slab_word(s: Snapshot, row: int, *names: str) -> int:
    own = s.layout.memmap.page_addr(pfn_of(s, row))
    return own + s.layout.struct("struct slab").field(*names).offset


def _slab_flipped(s: Snapshot, row: int, bit: int, *names: str) -> Planted:
    at = _slab_word(s, row, *names)
    return Planted((put(s, at, word(s, at) ^ 1 << bit),), ("slab-page-damaged",), pfn_of(s, row))


@fault
def slab_of_a_cache_that_is_none(s: Snapshot) -> Planted:
    return _slab_flipped(s, _slab(s, 30), 5, "slab_cache")


@fault
def slab_of_a_cache_without_memory(s: Snapshot) -> Planted:
    return _slab_flipped(s, _slab(s, 60), 40, "slab_cache")


@fault
def free_objects_of_a_slab_outside_it(s: Snapshot) -> Planted:
    return _slab_flipped(s, _slab(s, 32), 20, "freelist")


@fault
def slab_linked_to_nothing(s: Snapshot) -> Planted:
    row = _slab(s, 33)
    at = _slab_word(s, row, "slab_list")
    return Planted((put(s, at, 0xFFFF_8000_0000_1238),), ("slab-page-damaged",), pfn_of(s, row))


@fault
def array_of_a_slabs_charges_without_memory(s: Snapshot) -> Planted:
    row = _slab(s, 34)
    at = _slab_word(s, row, "obj_exts", "memcg_data")
    return Planted((put(s, at, 0xFFFF_C000_0000_0001),), ("slab-page-damaged",), pfn_of(s, row))


@fault
def slab_without_its_type(s: Snapshot) -> Planted:
    """One bit makes another type of it: of hugetlb pages, of guards; where PG_slab is a flag, of none."""
    row = _slab(s, 35)
    if s.layout.flags.has("slab"):
        return Planted((_flag(s, row, "slab"),), ("slab-page-damaged",), pfn_of(s, row))
    at = mapcount_at(s, row)
    return Planted((put(s, at, word(s, at, 4) ^ 1 << 24, 4),), ("slab-page-damaged",), pfn_of(s, row))


@fault
def slab_referenced(s: Snapshot) -> Planted:
    row = _slab(s, 36)
    return Planted((_references(s, row, int(s.pages.refcount[row]) + 4),), ("slab-refcount-mismatch",), pfn_of(s, row))


def _charge(s: Snapshot, row: int, mask: int) -> Planted:
    at = page_word(s, pfn_of(s, row), "memcg_data")
    if not word(s, at):
        raise MissingError("a page that a memory cgroup is charged for")
    return Planted((put(s, at, word(s, at) ^ mask),), ("memcg-data-invalid",), pfn_of(s, row))


@fault
def anonymous_page_charged_as_kernel_memory(s: Snapshot) -> Planted:
    return _charge(s, pick(small_anon(s, 1), "a small anonymous page", 33), 2)


@fault
def page_charged_to_something_inside_a_memory_cgroup(s: Snapshot) -> Planted:
    return _charge(s, pick(small_anon(s, 1), "a small anonymous page", 34), 8)


@fault
def page_charged_to_nothing(s: Snapshot) -> Planted:
    return _charge(s, pick(small_file(s, 2), "a page of the page cache", 6), 1 << 36)


@fault
def tail_charged_by_itself(s: Snapshot) -> Planted:
    row = int(s.folios.row[pick(pmd_mapped(s, anon=True), "a THP", 2)]) + 17
    at = page_word(s, pfn_of(s, row), "memcg_data")
    return Planted((put(s, at, 0xFFFF_8880_0000_1000),), ("tail-page-damaged",), pfn_of(s, row))


@fault
def type_of_a_page_table_with_a_number_beside_it(s: Snapshot) -> Planted:
    row = pick(np.flatnonzero(s.pages.type_ == type_code("table")), "a page table", 5)
    at = mapcount_at(s, row)
    return Planted((put(s, at, word(s, at, 4) ^ 4, 4),), ("page-type-invalid",), pfn_of(s, row))
