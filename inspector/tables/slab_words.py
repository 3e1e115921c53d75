"""Words of the struct pages of slabs that the slab allocator does not leave there (mm/slub.c)."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U8, U64, Mask, Table, is_among, rows_of, spans, take_or
from inspector.layout.flags import type_code
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Field, Struct
from inspector.records import dataclass
from inspector.tables.folios import Folios
from inspector.tables.pages import Pages
from inspector.tables.slabs import are_caches, page_rows

WORDS = ("slab_cache", "freelist", "slab_list", "obj_exts", "page_type")
"""Names of the words, by `SlabWords.word`."""

_AT_ONCE = 1 << 16
_POISON_1, _POISON_2 = np.uint64(0xDEAD000000000100), np.uint64(0xDEAD000000000122)
"""LIST_POISON1 and LIST_POISON2 (include/linux/poison.h): links of what was on a list."""
_MANY = 1 << 16
"""More slabs than a CPU ever keeps in its list of partial ones."""
_KFENCE_PAGES = 2 << 16
"""Pages of KFENCE's pool at most (mm/kfence/core.c): slabs of a kind of their own."""


@dataclass(frozen=True, slots=True)
class SlabWords(Table):
    """One row a slab and a word of its struct page that no allocator left there.

    Attributes:
        row: int64; row of the slab's head in `inspector.tables.pages.Pages`.
        word: uint8; which, by its place in `WORDS`.
        stored: uint64; what it holds.
    """

    row: I64
    word: U8
    stored: U64


@dataclass(frozen=True)
class _Known:
    """What words of slabs are compared with."""

    layout: Layout
    pages: Pages
    folios: Folios
    caches: U64
    """Addresses of the caches."""
    judges_caches: bool
    rcu: U64
    """Functions that free a slab later."""

    def row_of(self, addr: U64) -> I64:
        """`page_rows` of some addresses."""
        return page_rows(self.layout, self.pages, addr)


def in_slabs(layout: Layout, pages: Pages, addrs: U64) -> Mask:
    """Which addresses may be those of objects of the slab allocator: its page is a slab, or is not known.

    No other address is one of an inode, an anon_vma, a file or the like, whether or not its memory is in the dump.
    """
    pfn = layout.direct_map_pfns(addrs)
    inside = layout.memmap.valid(pfn)
    row = np.where(inside, pages.memmap.rows(pfn), -1)
    at = np.maximum(row, 0)
    head = np.maximum(pages.head_row[at], 0)
    unknown = (row < 0) | ~pages.readable[at] | ~pages.readable[head]
    return inside & (unknown | (pages.type_[head] == type_code("slab")))


def slab_rows(layout: Layout, pages: Pages) -> I64:
    """Rows of the heads of slabs, without those that KFENCE keeps."""
    rows = pages.heads_where(pages.words.readable & (pages.words.type_ == type_code("slab")))
    rows = rows[~layout.flags.test(pages.flags[rows], "reserved")]
    pool = layout.variable("__kfence_pool") or 0
    if not pool:
        return rows
    first = (pool - layout.memory.direct_map_base) >> layout.memmap.page_shift
    pfn = pages.memmap.pfns_of_rows(rows)
    return rows[(pfn < first) | (pfn >= first + _KFENCE_PAGES)]


def usual_counts(pages: Pages) -> tuple[int, int]:
    """_refcount and _mapcount, as stored, of most slabs: 0 references where their pages are frozen (from 6.14 on)."""
    words = pages.words
    slab = np.flatnonzero(words.readable & (words.type_ == type_code("slab")))
    if not len(slab):
        return 0, -1
    return _most(words.refcount[slab], words.nr[slab]), _most(words.mapcount_raw[slab], words.nr[slab])


def _most(values: I32, nr: I64) -> int:
    each, which = np.unique(values, return_inverse=True)
    return int(each[np.bincount(which.reshape(-1), weights=nr).argmax()])


def read_slab_words(layout: Layout, pages: Pages, folios: Folios) -> tuple[SlabWords, int]:
    """Judge all slabs, and keep what is wrong with them.

    Returns:
        That, and how many slabs there are.
    """
    struct = layout.struct("struct slab") if layout.has_struct("struct slab") else None
    if struct is None or struct.find("slab_cache") is None or layout.arch.name != "x86_64":
        return SlabWords.empty(), 0
    rows = slab_rows(layout, pages)
    caches, judges = _caches(layout, pages, struct, rows)
    later = layout.target.symbol("rcu_free_slab")
    known = _Known(layout, pages, folios, caches, judges, np.array([later] if later else [], np.uint64))
    found = [SlabWords.empty(), *(_judge(known, struct, rows[part]) for part in spans(len(rows), _AT_ONCE))]
    if judges:
        found.append(_of_other_types(known, struct))
    return SlabWords.concat(found), len(rows)


_OTHERS = ("offline", "table", "guard", "hugetlb", "unaccepted", "large_kmalloc")
"""Page types whose owners never have the address of a cache where slabs have theirs."""


def _of_other_types(known: _Known, struct: Struct) -> SlabWords:
    """Pages that name a cache as slabs do, and have another page type, or none where the word is page->mapping."""
    layout, pages = known.layout, known.pages
    field, words = struct.field("slab_cache"), pages.words
    kinds = words.readable & np.isin(words.type_, [type_code(name) for name in _OTHERS])
    rows = pages.heads_where(kinds)
    found = [SlabWords.empty()]
    if field.offset == layout.struct("struct page").field("mapping").offset:
        rows = np.concatenate(
            [rows, pages.heads_where(words.readable & (words.type_ == 0) & np.isin(words.mapping, known.caches))]
        )
    for part in spans(len(rows), _AT_ONCE):
        some = rows[part]
        some = some[is_among(_words(layout, pages, some, field), known.caches)]
        stored = pages.mapcount_raw[some].view(np.uint32).astype(np.uint64)
        found.append(SlabWords(some, np.full(len(some), WORDS.index("page_type"), np.uint8), stored))
    return SlabWords.concat(found)


def _words(layout: Layout, pages: Pages, rows: I64, field: Field) -> U64:
    own = layout.memmap.page_addrs(pages.memmap.pfns_of_rows(rows))
    return layout.memory.words(own + np.uint64(field.offset))[0]


def _caches(layout: Layout, pages: Pages, struct: Struct, rows: I64) -> tuple[U64, bool]:
    """The caches among what slabs name as theirs, and whether these are known from other addresses."""
    field = struct.field("slab_cache")
    named, nr = np.unique(_words(layout, pages, rows, field), return_counts=True)
    sound, own, _ = are_caches(layout, pages, named, nr > 1)
    if own.sum() != 1:
        return named, False
    # Where the struct page of a cache's own slab is not known, the cache may be one.
    row = pages.memmap.rows(layout.direct_map_pfns(named))
    sound |= (row >= 0) & ~take_or(pages.readable, row, True)
    return named[sound], True


def _judge(known: _Known, struct: Struct, rows: I64) -> SlabWords:
    layout, pages = known.layout, known.pages
    pfn = pages.memmap.pfns_of_rows(rows)
    own = layout.memmap.page_addrs(pfn)
    raw = layout.memory.gather(own, layout.memmap.page_size)
    words: U64 = raw.bytes.view(np.uint64).reshape(len(rows), -1)
    found = []

    def keep(word: str, wrong: Mask, stored: U64) -> None:
        at = np.flatnonzero(wrong & raw.valid)
        code = np.full(len(at), WORDS.index(word), np.uint8)
        found.append(SlabWords(rows[at], code, stored[at]))

    cache = words[:, struct.field("slab_cache").offset // 8]
    keep("slab_cache", ~is_among(cache, known.caches) & known.judges_caches, cache)
    if (field := struct.find("freelist")) is not None:
        first = words[:, field.offset // 8]
        order = take_or(known.folios.order, rows_of(known.folios.row, rows), 0).astype(np.uint64)
        base = np.uint64(layout.memory.direct_map_base) + (pfn.astype(np.uint64) << np.uint64(layout.memmap.page_shift))
        size = np.uint64(1) << (np.uint64(layout.memmap.page_shift) + np.minimum(order, np.uint64(20)))
        inside = (first >= base) & (first - base < size) & ((first & np.uint64(7)) == 0)
        keep("freelist", (first != 0) & ~inside, first)
    if (field := struct.find("slab_list")) is not None:
        following, before = words[:, field.offset // 8], words[:, field.offset // 8 + 1]
        wrong = ~_links_sound(known, struct, own + np.uint64(field.offset), following, before)
        keep("slab_list", wrong, before)
    if (field := struct.find("obj_exts", "memcg_data")) is not None:
        stored = words[:, field.offset // 8]
        # 6.1 has no such mark.
        none = stored <= np.uint64(struct.has("obj_exts"))
        keep("obj_exts", ~(none | _extensions_sound(known, stored)), stored)
    return SlabWords.concat(found)


def _links_sound(known: _Known, struct: Struct, own: U64, following: U64, before: U64) -> Mask:
    """Which list nodes hold what slab_list may hold: links of a list, what list_del() leaves, or a new page's words.

    Where CPUs keep lists of partial slabs (until 7.0), the second word's lower half is the number of slabs on the list,
    and its upper half what was there before.
    """
    none = np.uint64(0)
    fresh = (following == _POISON_2) & (before == none)
    gone = (following == _POISON_1) & (before == _POISON_2)
    sound = fresh | gone | is_among(before, known.rcu)
    if struct.find("slabs") is not None:
        count, rest = before & np.uint64(0xFFFFFFFF), before >> np.uint64(32)
        stale = (rest == none) | (rest == _POISON_1 >> np.uint64(32)) | (rest >= np.uint64(0xFFFF8000))
        on_cpu = (following == none) | (known.layout.memmap.pfns(following) >= 0)
        sound |= on_cpu & stale & (count < np.uint64(_MANY))
        sound |= (following == none) & ((before == _POISON_2) | (before == none))
    rest_ = np.flatnonzero(~sound)
    if len(rest_):
        words = known.layout.memory.words
        back, read_back = words(following[rest_] + np.uint64(8))
        forth, read_forth = words(before[rest_])
        linked = (_exists(known, following[rest_]) & (~read_back | (back == own[rest_]))) & (
            _exists(known, before[rest_]) & (~read_forth | (forth == own[rest_]))
        )
        sound[rest_] = linked
    return sound


def _exists(known: _Known, addr: U64) -> Mask:
    """Which addresses may be those of a list of slabs: in a slab, or in the memory map."""
    row = known.row_of(addr)
    in_slab = (row >= 0) & (known.pages.type_[np.maximum(row, 0)] == type_code("slab"))
    size = np.uint64(known.layout.memmap.page_size)
    page = addr - (addr - np.uint64(known.layout.memmap.vmemmap)) % size
    return ((addr & np.uint64(7)) == 0) & (in_slab | (known.layout.memmap.pfns(page) >= 0))


def _extensions_sound(known: _Known, stored: U64) -> Mask:
    """Which words name an array of the allocator for what is known about each object.

    Its lowest bit says so (MEMCG_DATA_OBJEXTS, MEMCG_DATA_OBJCGS in 6.1); without an array it says that none could be
    allocated (OBJEXTS_ALLOC_FAIL).
    """
    address = stored & ~np.uint64(7)
    row = known.row_of(address)
    at = np.maximum(row, 0)
    kinds = [0, type_code("slab"), type_code("large_kmalloc")]
    pages, flags = known.pages, known.layout.flags
    owned = (row >= 0) & np.isin(pages.type_[at], kinds) & ~flags.test(pages.flags[at], "lru") & ~pages.is_anon(at)
    sound: Mask = ((stored & np.uint64(3)) == 1) & owned
    return sound
