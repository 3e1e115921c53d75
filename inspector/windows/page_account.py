"""Every struct page accounted for: what each page frame is at the moment, summed up for each zone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, U8, AnyArray, Mask, expand_runs, rows_of, spans
from inspector.layout.flags import type_code
from inspector.records import dataclass
from inspector.tables.zone_spans import is_online
from inspector.windows.lost_pages import rest_of_allocations, unowned_pages

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

PAGE_KINDS = (
    *("free block", "free list of a CPU", "anonymous", "shmem", "file", "off the LRU lists", "hugetlb"),
    *("slab", "large kmalloc", "page table", "zsmalloc", "guard", "logically offline", "not accepted yet"),
    *("kernel", "rest of an allocation", "reserved", "offline memory", "broken", "in hand", "lost", "not known"),
    *("not in the dump", "device"),
)
"""What a page frame may be."""

_FREE, _CPU_LIST, _ANON, _SHMEM, _FILE, _OFF_LRU, _HUGETLB, _SLAB, _KMALLOC, _TABLE, _ZSMALLOC, _GUARD = range(12)
_LOGICALLY_OFFLINE, _UNACCEPTED, _KERNEL, _REST, _RESERVED, _OFFLINE, _BROKEN = range(12, 19)
_IN_HAND, _LOST, _UNKNOWN, _UNREAD, _DEVICE = range(19, 24)

_OF_TYPE = {
    "buddy": _FREE,
    "offline": _LOGICALLY_OFFLINE,
    "table": _TABLE,
    "guard": _GUARD,
    "hugetlb": _HUGETLB,
    "slab": _SLAB,
    "zsmalloc": _ZSMALLOC,
    "unaccepted": _UNACCEPTED,
    "large_kmalloc": _KMALLOC,
}

_AT_ONCE = 1 << 20
"""Pages of the memory map that are counted together."""


@dataclass(frozen=True)
class PageAccount:
    """How many pages are what.

    Attributes:
        pages: int64[zones + 1, kinds]; by zone, as the flags of each page name it, and kind; the last row is of pages
            that name no populated zone: holes, and memory of drivers.
        folios: int64[kinds]; heads and small pages of each kind.
    """

    pages: I64
    folios: I64


def account_for_pages(s: Snapshot) -> PageAccount:
    """Account for every struct page, a piece of the memory map at a time."""
    by_word, zone_of_word = _kinds_of_words(s), _zones_of_words(s)
    nr_zones, nr_kinds = len(s.buddy.zones), len(PAGE_KINDS)
    places = _places(s)
    total = np.zeros((nr_zones + 1) * nr_kinds, np.int64)
    folios = np.zeros(nr_kinds, np.int64)
    for piece in spans(len(s.pages), _AT_ONCE):
        kind, is_tail = _kinds(s, piece, by_word, places)
        zone = zone_of_word[s.pages.number[piece]]
        total += np.bincount(zone.astype(np.int64) * nr_kinds + kind, minlength=len(total))
        folios += np.bincount(kind[~is_tail], minlength=nr_kinds)
    return PageAccount(total.reshape(nr_zones + 1, nr_kinds), folios)


def kind_of_page(s: Snapshot, row: int) -> str:
    """What one page is."""
    kind, _ = _kinds(s, slice(row, row + 1), _kinds_of_words(s), _places(s))
    return PAGE_KINDS[int(kind[0])]


@dataclass(frozen=True)
class _Places:
    """Pages whose kind is not in their words: rows, ascending, and the kind of each."""

    row: I64
    kind: U8
    start: I64
    """Where a run of pages on a CPU's free list begins, and behind its end."""
    stop: I64


def _kinds_of_words(s: Snapshot) -> U8:
    """The kind of heads and small pages by their words."""
    words, test = s.pages.words, s.layout.flags.test
    kind = np.full(len(words), _KERNEL, np.uint8)
    kind[words.refcount == 0] = _UNKNOWN
    plain = words.type_ == 0
    lru = test(words.flags, "lru")
    cached = words.names_file | words.is_anon
    kind[plain & cached & ~lru & (words.refcount > 0)] = _OFF_LRU
    kind[plain & lru] = _FILE
    kind[plain & lru & test(words.flags, "swapbacked")] = _SHMEM
    kind[plain & lru & words.is_anon] = _ANON
    kind[test(words.flags, "reserved")] = _RESERVED
    for name, code in _OF_TYPE.items():
        kind[words.type_ == type_code(name)] = code
    kind[test(words.flags, "hwpoison")] = _BROKEN
    kind[s.layout.of_device(words.flags)] = _DEVICE
    kind[~words.readable] = _UNREAD
    return kind


def _zones_of_words(s: Snapshot) -> AnyArray:
    """Row of the zone that each set of words names; one behind the last for none."""
    zones, layout = s.buddy.zones, s.layout
    links = layout.zone_links(zones.node.astype(np.int64), zones.number.astype(np.int64))
    named = s.pages.words.flags & np.uint64(layout.zone_bits)
    out = np.full(len(named), len(zones), np.int64)
    for row, link in enumerate(links):
        out[named == link] = row
    return out


def _places(s: Snapshot) -> _Places:
    rows = unowned_pages(s)
    kind = np.full(len(rows), _UNKNOWN, np.uint8)
    kind[rest_of_allocations(s, rows)] = _REST
    lost = s.lost_pages
    for some, code in ((lost.in_hand, _IN_HAND), (~lost.in_hand, _LOST)):
        found = expand_runs(lost.row[some], lost.nr[some]).astype(np.int64)
        kind[rows_of(rows, found)] = code
    b = s.buddy
    on = b.cpu_page_row >= 0
    start = b.cpu_page_row[on]
    return _Places(rows, kind, start, start + (np.int64(1) << b.cpu_page_order[on]))


def _kinds(s: Snapshot, piece: slice, by_word: U8, places: _Places) -> tuple[U8, Mask]:
    """The kind of each page of a piece, and which of them are tails."""
    pages, first = s.pages, piece.start
    kind = by_word[pages.number[piece]]
    low, high = np.searchsorted(places.row, (piece.start, piece.stop))
    kind[places.row[low:high] - first] = places.kind[low:high]
    is_tail = pages.is_tail[piece]
    tails = np.flatnonzero(is_tail)
    head = pages.head_row[piece][tails]
    of_head = by_word[pages.number[np.maximum(head, 0)]]
    # Tails of what is on its way into or out of the allocator have no head any more, or one without references.
    kind[tails] = np.where(head >= 0, of_head, _UNKNOWN)
    kind[tails[np.isin(of_head, (_KERNEL,)) & (head >= 0)]] = _REST
    large = pages.folio[piece]
    hugetlb = (large >= 0) & (s.folios.is_hugetlb[np.maximum(large, 0)] if len(s.folios) else False)
    kind[hugetlb] = _HUGETLB
    kind[s.in_free_block[piece]] = _FREE
    for start, stop in zip(places.start.tolist(), places.stop.tolist(), strict=True):
        if start < piece.stop and stop > first:
            kind[max(start - first, 0) : max(stop - first, 0)] = _CPU_LIST
    pfn = pages.memmap.pfns_of_rows(np.arange(piece.start, piece.stop))
    kind[~is_online(s.layout, pfn) & ~np.isin(kind, (_UNREAD, _DEVICE))] = _OFFLINE
    return kind, is_tail
