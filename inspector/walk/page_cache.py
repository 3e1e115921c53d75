"""Page-cache entries beside the folios they point to, and folios that their address_space does not lead to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, U64, Mask, RowSet, Table, distinct, rows_of, take_or
from inspector.layout.flags import type_code
from inspector.records import dataclass
from inspector.tables.files import ADDRESS_SPACE_KINDS, FOLIO, SWAP, AddressSpaces, CacheEntries, Files
from inspector.tables.pages import Pages, page_words
from inspector.walk.node_sums import CACHED, ChargedCache, add_cached, cached_by_charge

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_MAX_ORDER = 20
"""A larger order is damage; nothing is repeated so often."""


@dataclass(frozen=True, slots=True)
class CachedFolios(Table):
    """One row a folio entry of an address_space that is not swap's, in their order.

    Attributes:
        entry: int64; number of the entry.
        space: int32; row of its address_space.
        place: uint64; its first index.
        span: int64; indices it covers.
        pfn: int64; page frame that it points to.
        head_row: int64; row in `Pages` of the page it points to, -1 for none.
        is_head: bool; that page can be a folio: no tail, referenced or frozen, and its struct page was read.
        readable: bool.
        mapping: uint64; as stored in the folio.
        index: uint64; as stored in the folio, in the unit of the xarray.
        nr: int64; indices that the folio takes.
        locked: bool; PG_locked.
        charge: uint64; memcg_data as stored, 0 where the kernel has none.
    """

    entry: I64
    space: I32
    place: U64
    span: I64
    pfn: I64
    head_row: I64
    is_head: Mask
    readable: Mask
    mapping: U64
    index: U64
    nr: I64
    locked: Mask
    charge: U64

    def agree(self, spaces: AddressSpaces) -> Mask:
        """Whether each folio names the address_space and the index that it was found at."""
        return self.is_head & (self.mapping == spaces.addr[self.space]) & (self.index == self.place)


@dataclass(frozen=True)
class PageCache:
    """Both directions. Of the cached folios, which may be most of memory, only those are kept that something is about.

    Attributes:
        checked: How many entries were compared: the folio and the address_space are known.
        unread: How many point to a folio whose struct page could not be read.
        odd: Entries, of those compared, that do not agree with their folio in address_space, index or size.
        locked: Entries of locked folios.
        beside_locked: int64; indices that folios take in the stretch of a huge folio that each of these lies in.
        off_lru: Those of folios on no LRU list, of the entries that agree with theirs: hugetlb's, and a few.
        named: How many folios name an address_space that was read whole.
        missing: int64; rows in `Pages` of those that it does not lead to at their index.
        missing_address_space: int32; rows of these address_spaces.
        missing_index: uint64; their index.
        missing_entry: int64; number of the entry that is there instead, -1 for none.
        missing_value: uint64; that entry, 0 for none.
        strays: int64; rows in `Pages` of folios on the LRU whose mapping is no address_space.
        by_node: int64[4, nodes]; pages of the cached folios, as `inspector.walk.node_sums.CACHED` names the sums.
        by_charge: Pages of the cached folios by what they are charged to.
    """

    checked: int
    unread: int
    odd: CachedFolios
    locked: CachedFolios
    beside_locked: I64
    off_lru: CachedFolios
    named: int
    missing: I64
    missing_address_space: I32
    missing_index: U64
    missing_entry: I64
    missing_value: U64
    strays: I64
    by_node: I64
    by_charge: ChargedCache


def folio_pages(s: Snapshot, head_rows: I64) -> I64:
    """Pages of the folios with these heads."""
    order = take_or(s.folios.order, s.folio_of_page[head_rows], 0)
    return np.int64(1) << np.minimum(order, _MAX_ORDER).astype(np.int64)


def compare_cache(s: Snapshot) -> PageCache:
    """Compare entries and folios (mm/filemap.c, __filemap_add_folio() and page_cache_delete())."""
    files, pages = s.files, s.pages
    spaces = files.address_spaces
    checked = unread = 0
    odd, locked, off_lru = ([CachedFolios.empty()] for _ in range(3))
    filled = np.zeros(len(spaces), np.bool_)
    found = RowSet.none(len(pages))
    by_node = np.zeros((len(CACHED), s.layout.nr_nodes), np.int64)
    by_charge = [ChargedCache.empty()]
    for cached in cached_folios(s):
        add_cached(s, by_node, cached)
        by_charge.append(cached_by_charge(s, cached))
        filled[cached.space] = True
        names = cached.agree(spaces)
        found.add(cached.head_row[names])
        sound = spaces.is_inode[cached.space] & (cached.head_row >= 0) & cached.readable
        checked += int(sound.sum())
        unread += int((~cached.readable).sum())
        odd.append(cached.take(np.flatnonzero(sound & (~names | (cached.nr != cached.span)))))
        locked.append(cached.take(np.flatnonzero(cached.locked)))
        off_lru.append(cached.take(np.flatnonzero(names & ~on_lru(s, np.maximum(cached.head_row, 0)))))
    # Drivers map pages that only name their file's address_space (perf, frame buffers): its cache is empty.
    judged = spaces.is_inode & spaces.whole & (filled | (spaces.nrpages > 0))
    named = 0
    missing, missing_at, strays = [np.empty(0, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for head in pages.pieces_where(_name_an_address_space(pages)):
        at = rows_of(spaces.addr, pages.mapping[head])
        listed = s.layout.flags.test(pages.flags[head], "lru")
        strays.append(head[listed & ~take_or(spaces.is_inode, at, False)])
        able = take_or(judged, at, False)
        named += int(able.sum())
        lost = able & ~found[head]
        missing.append(head[lost])
        missing_at.append(at[lost])
    locked_folios = CachedFolios.concat(locked)
    gone, gone_at = np.concatenate(missing), np.concatenate(missing_at)
    index, _ = page_words(s.layout, pages, gone, "__folio_index", "index")
    there, value = find_entries(files, gone_at, index)
    return PageCache(
        checked=checked,
        unread=unread,
        odd=CachedFolios.concat(odd),
        locked=locked_folios,
        beside_locked=_held_beside(s, locked_folios),
        off_lru=CachedFolios.concat(off_lru),
        named=named,
        missing=gone,
        missing_address_space=gone_at,
        missing_index=index,
        missing_entry=there,
        missing_value=value,
        strays=np.concatenate(strays),
        by_node=by_node,
        by_charge=ChargedCache.concat(by_charge).summed(),
    )


def huge_stretches(s: Snapshot, space: I32, index: U64) -> I64:
    """A number for the stretch of a huge folio that each index of an address_space lies in; its row is above bit 40."""
    return (space.astype(np.int64) << 40) | (index >> np.uint64(s.layout.pmd_order)).astype(np.int64)


def _held_beside(s: Snapshot, folios: CachedFolios) -> I64:
    """Indices that folios take in the stretch of a huge folio that each of these lies in."""
    mine = huge_stretches(s, folios.space, folios.place)
    stretches = distinct(mine)
    held = np.zeros(len(stretches), np.int64)
    for _, entries in s.files.pieces(distinct(folios.space)) if len(folios) else ():
        at = rows_of(stretches, huge_stretches(s, entries.address_space_idx, entries.index))
        inside = (at >= 0) & (entries.kind == FOLIO)
        np.add.at(held, at[inside], entries.nr[inside])
    return held[rows_of(stretches, mine)]


def on_lru(s: Snapshot, rows: I64) -> Mask:
    """Folios that say to be on an LRU list: evictable or not."""
    words, flags = s.pages.flags[rows], s.layout.flags
    return flags.test(words, "lru") | flags.test(words, "unevictable")


def _name_an_address_space(pages: Pages) -> Mask:
    """By row of its words: heads and small pages that name an address_space."""
    words = pages.words
    plain = (words.type_ == 0) | (words.type_ == type_code("hugetlb"))
    return plain & words.names_file & words.readable & (words.refcount > 0)


def cached_folios(s: Snapshot) -> Iterator[CachedFolios]:
    """The folios of all address_spaces but swap's, those of some entries at a time."""
    kind = s.files.address_spaces.kind
    for first, entries in s.files.pieces():
        mine = np.flatnonzero((entries.kind == FOLIO) & (kind[entries.address_space_idx] != SWAP))
        yield _cached(s, first + mine, entries.take(mine))


def _cached(s: Snapshot, numbers: I64, entries: CacheEntries) -> CachedFolios:
    pages = s.pages
    head = pages.memmap.rows(entries.pfn)
    safe = np.maximum(head, 0)
    index, charge, known = _index_and_charge(s, safe)
    nr = folio_pages(s, safe)
    # hugetlb counts in huge pages until 6.7: one index each.
    hugetlb = take_or(s.folios.is_hugetlb, s.folio_of_page[safe], False)
    nr = np.where((entries.nr == 1) & hugetlb, 1, nr)
    readable = (head < 0) | (known & pages.readable[safe])
    locked = s.layout.flags.test(pages.flags[safe], "locked")
    return CachedFolios(
        entry=numbers,
        space=entries.address_space_idx,
        place=entries.index,
        span=entries.nr,
        pfn=entries.pfn,
        head_row=head,
        is_head=(head >= 0) & (pages.head_row[safe] == head) & ((pages.refcount[safe] > 0) | locked),
        readable=readable,
        mapping=pages.mapping[safe],
        index=index,
        nr=nr,
        locked=locked,
        charge=charge,
    )


def _index_and_charge(s: Snapshot, rows: I64) -> tuple[U64, U64, Mask]:
    """folio->index and memcg_data of some heads, read together, and which could be read."""
    page = s.layout.struct("struct page")
    index, charge = page.field("__folio_index", "index"), page.find("memcg_data")
    start = index.offset if charge is None else min(index.offset, charge.offset)
    end = index.offset if charge is None else max(index.offset, charge.offset)
    own = s.layout.memmap.page_addrs(s.pages.memmap.pfns_of_rows(rows))
    raw = s.layout.memory.gather(own + np.uint64(start), end + 8 - start)
    words = raw.bytes.view(np.uint64)
    of_index = words[:, (index.offset - start) // 8]
    return of_index, of_index * 0 if charge is None else words[:, (charge.offset - start) // 8], raw.valid


def find_entries(files: Files, space: I32, index: U64) -> tuple[I64, U64]:
    """The entry that covers an index of an address_space.

    Args:
        files: The page cache.
        space: int32[n]; rows of address_spaces.
        index: uint64[n].

    Returns:
        int64[n], the number of each, -1 where there is none, and uint64[n], the entry itself, 0 for none.
    """
    number, value = np.full(len(index), -1, np.int64), np.zeros(len(index), np.uint64)
    for first, entries in files.pieces(distinct(space)) if len(index) else ():
        row = _covering(entries, space, index)
        number[row >= 0] = first + row[row >= 0]
        value[row >= 0] = entries.value[row[row >= 0]]
    return number, value


def _covering(entries: CacheEntries, space: I32, index: U64) -> I64:
    """Row of the entry that covers each index, -1 where none of these does."""
    # Both sorted into one order: the entry before each question is the one that may cover it.
    spaces = np.concatenate([entries.address_space_idx, space.astype(np.int32)])
    places = np.concatenate([entries.index, index])
    asks = np.repeat([0, 1], [len(entries), len(index)])
    order = np.lexsort((asks, places, spaces))
    last = np.maximum.accumulate(np.where(asks[order] == 0, order, -1))
    out = np.empty(len(order), np.int64)
    out[order] = last
    at = out[len(entries) :]
    inside = take_or(entries.address_space_idx, at, -1) == space
    distance = index - take_or(entries.index, at, 0)
    return np.where(inside & (distance < take_or(entries.nr, at, 0).astype(np.uint64)), at, -1)


def address_space_name(s: Snapshot, row: int) -> str:
    """Kind of an address_space and number of its inode, or the swap device and slot that one of swap's begins with."""
    spaces = s.files.address_spaces
    kind = int(spaces.kind[row])
    if kind == SWAP:
        return f"swap type {int(spaces.swap_type[row])} from slot {int(spaces.first_slot[row]):#x}"
    return f"{ADDRESS_SPACE_KINDS[kind]} inode {int(spaces.ino[row])}"
