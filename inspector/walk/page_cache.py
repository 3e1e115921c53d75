"""Page-cache entries beside the folios they point to, and folios that their address_space does not lead to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, U64, Mask, Table, distinct, rows_of, take_or
from inspector.layout.flags import type_code
from inspector.records import dataclass
from inspector.tables.files import ADDRESS_SPACE_KINDS, FOLIO, SWAP, Files
from inspector.tables.pages import Pages, page_words

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_MAX_ORDER = 20
"""A larger order is damage; nothing is repeated so often."""


_PIECE = 1 << 16
"""Entries, or folios, compared together: temporaries are bounded."""


@dataclass(frozen=True, slots=True)
class CachedFolios(Table):
    """One row a folio entry of an address_space that is not swap's, in their order.

    Attributes:
        entry_row: int64; row in `CacheEntries`.
        head_row: int64; row in `Pages` of the page it points to, -1 for none.
        is_head: bool; that page can be a folio: no tail, referenced or frozen, and its struct page was read.
        readable: bool.
        mapping: uint64; as stored in the folio.
        index: uint64; as stored in the folio, in the unit of the xarray.
        nr: int64; indices that the folio takes.
        locked: bool; PG_locked.
    """

    entry_row: I64
    head_row: I64
    is_head: Mask
    readable: Mask
    mapping: U64
    index: U64
    nr: I64
    locked: Mask


@dataclass(frozen=True)
class PageCache:
    """Both directions. Of the cached folios, which may be most of memory, only those are kept that something is about.

    Attributes:
        checked: How many entries were compared: the folio and the address_space are known.
        unread: How many point to a folio whose struct page could not be read.
        odd: Entries, of those compared, that do not agree with their folio in address_space, index or size.
        locked: Entries of locked folios.
        agrees: bool by row of `CacheEntries`; the folio names this address_space and index.
        named: How many folios name an address_space that was read whole.
        missing: int64; rows in `Pages` of those that it does not lead to at their index.
        missing_address_space: int32; rows of these address_spaces.
        missing_index: uint64; their index.
        missing_entry: int64; row of the entry that is there instead, -1 for none.
        strays: int64; rows in `Pages` of folios on the LRU whose mapping is no address_space.
    """

    checked: int
    unread: int
    odd: CachedFolios
    locked: CachedFolios
    agrees: Mask
    named: int
    missing: I64
    missing_address_space: I32
    missing_index: U64
    missing_entry: I64
    strays: I64


def folio_pages(s: Snapshot, head_rows: I64) -> I64:
    """Pages of the folios with these heads."""
    order = take_or(s.folios.order, s.folio_of_page[head_rows], 0)
    return np.int64(1) << np.minimum(order, _MAX_ORDER).astype(np.int64)


def compare_cache(s: Snapshot) -> PageCache:
    """Compare entries and folios (mm/filemap.c, __filemap_add_folio() and page_cache_delete())."""
    files, pages = s.files, s.pages
    entries, spaces = files.entries, files.address_spaces
    checked = unread = 0
    odd, locked, found = [CachedFolios.empty()], [CachedFolios.empty()], [np.empty(0, np.int32)]
    agrees = np.zeros(len(entries), np.bool_)
    filled = np.zeros(len(spaces), np.bool_)
    for cached in cached_folios(s):
        space = entries.address_space_idx[cached.entry_row]
        filled[space] = True
        names = cached.is_head & (cached.mapping == spaces.addr[space])
        names &= cached.index == entries.index[cached.entry_row]
        agrees[cached.entry_row] = names
        found.append(cached.head_row[names].astype(np.int32))
        sound = spaces.is_inode[space] & (cached.head_row >= 0) & cached.readable
        checked += int(sound.sum())
        unread += int((~cached.readable).sum())
        odd.append(cached.take(np.flatnonzero(sound & (~names | (cached.nr != entries.nr[cached.entry_row])))))
        locked.append(cached.take(np.flatnonzero(cached.locked)))
    heads_found = distinct(np.concatenate(found))
    found.clear()
    # Drivers map pages that only name their file's address_space (perf, frame buffers): its cache is empty.
    judged = spaces.is_inode & spaces.whole & (filled | (spaces.nrpages > 0))
    named, heads = 0, _naming_an_address_space(pages).astype(np.int32)
    missing, missing_at, strays = [np.empty(0, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for first in range(0, len(heads), _PIECE):
        head = heads[first : first + _PIECE].astype(np.int64)
        at = rows_of(spaces.addr, pages.mapping[head])
        on_lru = s.layout.flags.test(pages.flags[head], "lru")
        strays.append(head[on_lru & ~take_or(spaces.is_inode, at, False)])
        able = take_or(judged, at, False)
        named += int(able.sum())
        lost = able & (rows_of(heads_found, head) < 0)
        missing.append(head[lost])
        missing_at.append(at[lost])
    gone, gone_at = np.concatenate(missing), np.concatenate(missing_at)
    index, _ = page_words(s.layout, pages, gone, "__folio_index", "index")
    there = find_entries(files, gone_at, index)
    return PageCache(
        checked=checked,
        unread=unread,
        odd=CachedFolios.concat(odd),
        locked=CachedFolios.concat(locked),
        agrees=agrees,
        named=named,
        missing=gone,
        missing_address_space=gone_at,
        missing_index=index,
        missing_entry=there,
        strays=np.concatenate(strays),
    )


def _naming_an_address_space(pages: Pages) -> I64:
    """Heads and small pages that name an address_space."""
    words = pages.words
    plain = (words.type_ == 0) | (words.type_ == type_code("hugetlb"))
    return pages.heads_where(plain & words.names_file & words.readable & (words.refcount > 0))


def cached_folios(s: Snapshot) -> Iterator[CachedFolios]:
    """The folios of all address_spaces but swap's, those of some entries at a time."""
    entries, spaces = s.files.entries, s.files.address_spaces
    for first in range(0, len(entries), _PIECE):
        here = slice(first, first + _PIECE)
        mine = (entries.kind[here] == FOLIO) & (spaces.kind[entries.address_space_idx[here]] != SWAP)
        yield _cached(s, first + np.flatnonzero(mine))


def _cached(s: Snapshot, rows: I64) -> CachedFolios:
    pages, entries = s.pages, s.files.entries
    head = pages.memmap.rows(entries.pfn[rows])
    safe = np.maximum(head, 0)
    index, known = page_words(s.layout, pages, safe, "__folio_index", "index")
    nr = folio_pages(s, safe)
    # hugetlb counts in huge pages until 6.7: one index each.
    hugetlb = take_or(s.folios.is_hugetlb, s.folio_of_page[safe], False)
    nr = np.where((entries.nr[rows] == 1) & hugetlb, 1, nr)
    readable = (head < 0) | (known & pages.readable[safe])
    locked = s.layout.flags.test(pages.flags[safe], "locked")
    return CachedFolios(
        entry_row=rows,
        head_row=head,
        is_head=(head >= 0) & (pages.head_row[safe] == head) & ((pages.refcount[safe] > 0) | locked),
        readable=readable,
        mapping=pages.mapping[safe],
        index=index,
        nr=nr,
        locked=locked,
    )


def find_entries(files: Files, address_space_idx: I32, index: U64) -> I64:
    """Row of the entry that covers an index of an address_space, -1 where there is none.

    Args:
        files: The page cache.
        address_space_idx: int32[n]; rows of address_spaces.
        index: uint64[n].
    """
    entries = files.entries
    if not len(entries) or not len(index):
        return np.full(len(index), -1, np.int64)
    # Both sorted into one order: the entry before each question is the one that may cover it.
    space = np.concatenate([entries.address_space_idx, address_space_idx.astype(np.int32)])
    place = np.concatenate([entries.index, index])
    asks = np.repeat([0, 1], [len(entries), len(index)])
    order = np.lexsort((asks, place, space))
    last = np.maximum.accumulate(np.where(asks[order] == 0, order, -1))
    out = np.empty(len(order), np.int64)
    out[order] = last
    at = out[len(entries) :]
    inside = take_or(entries.address_space_idx, at, -1) == address_space_idx
    distance = index - take_or(entries.index, at, 0)
    return np.where(inside & (distance < take_or(entries.nr, at, 0).astype(np.uint64)), at, -1)


def address_space_name(s: Snapshot, row: int) -> str:
    """Kind of an address_space and number of its inode, or the swap device and slot that one of swap's begins with."""
    spaces = s.files.address_spaces
    kind = int(spaces.kind[row])
    if kind == SWAP:
        return f"swap type {int(spaces.swap_type[row])} from slot {int(spaces.first_slot[row]):#x}"
    return f"{ADDRESS_SPACE_KINDS[kind]} inode {int(spaces.ino[row])}"
