"""Faults of LRU lists: their links, PG_lru, and folios on the wrong list."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.snapshot import Snapshot
from inspector.tables.memcgs import MEMCG_TAGS
from inspector.tables.pages import page_words
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, flags_xor, page_word, pfn_of, put, word
from tests.faults.plants import MissingError, Planted, pick, small_anon, small_file

DAMAGED = ("lru-list-damaged",)
_POISON = 0xDEAD000000000100
"""LIST_POISON1: what list_del() leaves behind."""


def _members(s: Snapshot) -> tuple[I64, I64, I64]:
    """Rows of anonymous small folios on LRU lists, and of what is behind and before each in the memory map."""
    rows = small_anon(s, 1)
    flags = s.layout.flags
    rows = rows[flags.test(s.pages.flags[rows], "lru") & ~flags.test(s.pages.flags[rows], "unevictable")]
    memmap, link = s.layout.memmap, s.layout.struct("struct page").field("lru").offset
    out = [rows]
    for place in (0, 8):
        pointer, _ = s.layout.memory.words(memmap.page_addrs(memmap.pfns_of_rows(rows)) + np.uint64(link + place))
        out.append(memmap.rows(memmap.pfns(pointer - np.uint64(link))))
    rows, after, behind = out
    inside = (after >= 0) & (behind >= 0)
    return rows[inside], after[inside], behind[inside]


def node(s: Snapshot, row: int) -> int:
    """Address of the list node of a page."""
    return page_word(s, pfn_of(s, row), "lru")


def _member(s: Snapshot) -> tuple[int, int, int]:
    rows, after, behind = _members(s)
    at = pick(np.arange(len(rows)), "a folio between two others on an LRU list", 3)
    return int(rows[at]), int(after[at]), int(behind[at])


def joined(s: Snapshot, one: int, other: int) -> tuple[Patch, Patch]:
    """One node leads to another, and back."""
    return put(s, one, other), put(s, other + 8, one)


@fault
def lru_list_leads_to_poison(s: Snapshot) -> Planted:
    """The folio was taken off and its neighbours were not told."""
    row, *_ = _member(s)
    return Planted((put(s, node(s, row), _POISON),), DAMAGED, pfn_of(s, row))


@fault
def lru_list_leads_past_a_folio(s: Snapshot) -> Planted:
    """Two tasks took neighbours off at a time: one link skips a folio."""
    row, after, _ = _member(s)
    return Planted((put(s, node(s, row), word(s, node(s, after))),), DAMAGED, pfn_of(s, row))


@fault
def lru_list_leads_to_a_page_in_use(s: Snapshot) -> Planted:
    row, *_ = _member(s)
    other = pick(s.pages.where(s.pages.words.type_ != 0), "a page of the kernel")
    return Planted((put(s, node(s, row) + 8, node(s, other)),), DAMAGED, pfn_of(s, row))


@fault
def bit_of_an_lru_link_flipped(s: Snapshot) -> Planted:
    row, *_ = _member(s)
    address = node(s, row) + 8
    return Planted((put(s, address, word(s, address) ^ 1 << 21),), DAMAGED, pfn_of(s, row))


@fault
def lru_folio_that_only_its_neighbours_know(s: Snapshot) -> Planted:
    """Its links were made anew instead of being taken off."""
    row, *_ = _member(s)
    at = node(s, row)
    return Planted((put(s, at, at), put(s, at + 8, at)), DAMAGED, pfn_of(s, row))


@fault
def lru_folio_on_no_list(s: Snapshot) -> Planted:
    """It was taken off its list with list_del() and kept PG_lru."""
    row, after, behind = _member(s)
    at = node(s, row)
    patches = (*joined(s, node(s, behind), node(s, after)), put(s, at, _POISON), put(s, at + 8, _POISON + 0x22))
    return Planted(patches, ("lru-list-missing",), pfn_of(s, row))


@fault
def unevictable_flag_lost(s: Snapshot) -> Planted:
    flags = s.layout.flags
    words = s.pages.words.flags
    rows = s.pages.heads_where(flags.test(words, "lru") & flags.test(words, "unevictable"))
    row = pick(rows, "an unevictable folio", 2)
    return Planted((flags_xor(s, pfn_of(s, row), "unevictable"),), ("lru-list-missing",), pfn_of(s, row))


@fault
def lru_flag_lost(s: Snapshot) -> Planted:
    row, *_ = _member(s)
    return Planted((flags_xor(s, pfn_of(s, row), "lru"),), ("lru-folio-unexpected",), pfn_of(s, row))


@fault
def unevictable_flag_on_a_list(s: Snapshot) -> Planted:
    row, *_ = _member(s)
    return Planted((flags_xor(s, pfn_of(s, row), "unevictable"),), ("lru-folio-unexpected",), pfn_of(s, row))


@fault
def active_flag_of_an_lru_folio_flipped(s: Snapshot) -> Planted:
    """Of the multi-gen LRU no folio on a list is active; of the classic one it is on the other list."""
    row, *_ = _member(s)
    rules = ("lru-list-mismatch", "lru-generation-mismatch")
    return Planted((flags_xor(s, pfn_of(s, row), "active"),), rules, pfn_of(s, row))


@fault
def anonymous_folio_on_the_list_of_files(s: Snapshot) -> Planted:
    row, after, behind = _member(s)
    files = small_file(s, 1)
    flags = s.layout.flags
    plain = flags.test(s.pages.flags[files], "lru") & ~flags.test(s.pages.flags[files], "unevictable")
    plain &= ~flags.test(s.pages.flags[files], "swapbacked")
    other = pick(files[plain], "a file's folio on an LRU list", 5)
    at, following = node(s, row), word(s, node(s, other))
    patches = (
        *joined(s, node(s, behind), node(s, after)),
        *joined(s, node(s, other), at),
        *joined(s, at, following),
    )
    return Planted(patches, ("lru-list-mismatch",), pfn_of(s, row))


@fault
def lru_folio_of_another_memory_cgroup(s: Snapshot) -> Planted:
    """Its memcg_data was changed, and it was not moved."""
    if s.lru.is_by_objcg and not s.lru.whole:
        raise MissingError("memory cgroups in the dump")
    rows, *_ = _members(s)
    data, _ = page_words(s.layout, s.pages, rows, "memcg_data")
    data &= ~MEMCG_TAGS
    values, which, counts = np.unique(data, return_inverse=True, return_counts=True)
    if len(values) < 2:
        raise MissingError("two memory cgroups")
    most = int(np.argmax(counts))
    row = int(rows[np.flatnonzero(which == most)[3]])
    other = int(values[(most + 1) % len(values)])
    return Planted((put(s, page_word(s, pfn_of(s, row), "memcg_data"), other),), ("lru-list-mismatch",), pfn_of(s, row))


@fault
def mlocked_flag_of_an_evictable_folio(s: Snapshot) -> Planted:
    row, *_ = _member(s)
    return Planted((flags_xor(s, pfn_of(s, row), "mlocked"),), ("mlocked-unevictable-missing",), pfn_of(s, row))
