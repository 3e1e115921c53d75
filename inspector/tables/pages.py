"""Struct pages of the whole target as columns, and the compound heads met on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from inspector.columns import I32, I64, U8, U32, U64, Mask, distinct, expand_runs
from inspector.layout.flags import MAPPING_ANON, MAPPING_KSM, MAPPING_TAGS, type_code
from inspector.layout.kernel import Layout
from inspector.layout.memmap import GRAIN, MemMap
from inspector.memory import CHUNK, HOLE

_MAX_BUDDY_ORDER = 16
"""No kernel builds larger free blocks (MAX_PAGE_ORDER, arm64 with 64 KiB pages has 13)."""

_SHORT = 1 << 10
"""Pages of a stretch of the memory map below which many of them are read together."""

HEAD_PAGES = 4
"""Struct pages that a struct folio may cover (include/linux/mm_types.h)."""


@dataclass(frozen=True)
class Pages:
    """One row a struct page, in the order of page frame numbers.

    Attributes:
        memmap: Turns page frame numbers into rows and back.
        flags: uint64; the flags word as stored.
        mapcount_raw: int32; the word shared by ``_mapcount`` and the page type, as stored.
        refcount: int32; ``_refcount``.
        mapping: uint64; the ``mapping`` word: an address_space, or tagged.
        head_row: int32; row of the folio's head, the row itself if the page is no tail, -1 if a tail points nowhere.
        type_: uint8; page type code (`inspector.layout.flags.PAGE_TYPES`), 0 for none; heads and small pages only.
        readable: bool; False where the struct page could not be read: all other columns are then 0.
    """

    memmap: MemMap
    flags: U64
    mapcount_raw: I32
    refcount: I32
    mapping: U64
    head_row: I32
    type_: U8
    readable: Mask

    def __len__(self) -> int:
        return len(self.flags)

    @property
    def is_tail(self) -> Mask:
        """Pages that belong to a compound page and are not its head."""
        return self.head_row != np.arange(len(self), dtype=np.int32)

    def is_anon(self, rows: I64) -> Mask:
        """Whether the folios headed by these rows are anonymous (KSM included); typed pages never are."""
        return ((self.mapping[rows] & np.uint64(MAPPING_ANON)) != 0) & (self.type_[rows] == 0)

    def is_ksm(self, rows: I64) -> Mask:
        """Whether the folios headed by these rows are KSM pages."""
        return ((self.mapping[rows] & np.uint64(MAPPING_TAGS)) == MAPPING_KSM) & (self.type_[rows] == 0)

    @property
    def nbytes(self) -> int:
        """Bytes held by the columns."""
        columns = (self.flags, self.mapcount_raw, self.refcount, self.mapping, self.head_row, self.type_, self.readable)
        return sum(c.nbytes for c in columns)


@dataclass(frozen=True)
class Heads:
    """The first struct pages of each compound head, as raw bytes for the folio table.

    Attributes:
        row: int64[n]; row in `Pages`.
        raw: uint8[n, HEAD_PAGES * sizeof(struct page)].
        next_readable: bool[n]; whether the second struct page was read.
    """

    row: I64
    raw: U8
    next_readable: Mask


@dataclass(frozen=True)
class _Offsets:
    """Where the wanted words lie in a struct page, in units of their size."""

    flags: int
    link: int
    mapping: int
    mapcount: int
    refcount: int
    slab_cache: int
    private: int


def _offsets(layout: Layout) -> _Offsets:
    page = layout.struct("struct page")
    return _Offsets(
        page.field("flags.f", "flags").offset // 8,
        page.field("compound_info", "compound_head").offset // 8,
        page.field("mapping").offset // 8,
        page.field("_mapcount.counter", "_mapcount").offset // 4,
        page.field("_refcount.counter", "_refcount").offset // 4,
        layout.struct("struct slab").field("slab_cache").offset // 8,
        page.field("private").offset // 8,
    )


@dataclass(frozen=True)
class Sweep:
    """Everything one pass over the memory map gives.

    Attributes:
        pages: The page table.
        heads: Raw struct pages of compound heads, for `inspector.tables.folios`.
        slab_rows: int64; rows whose slab_cache word is one of the caches asked for (still to be tested for type).
        slab_caches: uint64; that word for each of ``slab_rows``.
        buddy_pages: int64; rows of all pages inside free blocks, the blocks' heads included.
    """

    pages: Pages
    heads: Heads
    slab_rows: I64
    slab_caches: U64
    buddy_pages: I64


def sweep_pages(layout: Layout, slab_caches: U64) -> Sweep:
    """Read the memory map once.

    Args:
        layout: The kernel's layout.
        slab_caches: Addresses of the slab caches whose slabs the caller wants to find.
    """
    memmap = layout.memmap
    n, size = memmap.nr_pages, memmap.page_size
    off = _offsets(layout)
    flags, mapping = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    word, refcount = np.zeros(n, np.uint32), np.zeros(n, np.int32)
    head_row, readable = np.arange(n, dtype=np.int32), np.ones(n, np.bool_)
    head_bit = layout.flags.mask("head")
    head_rows: list[I64] = []
    head_raws: list[U8] = []
    slab_rows: list[I64] = []
    slab_found: list[U64] = []
    buddy_rows: list[I64] = []
    buddy_orders: list[U64] = []
    buddy = type_code("buddy")
    for lo, pfn, data, valid in _struct_pages(layout):
        pages = len(pfn)
        w8, w4 = data.view(np.uint64).reshape(pages, -1), data.view(np.uint32).reshape(pages, -1)
        here = slice(lo, lo + pages)
        flags[here], mapping[here] = w8[:, off.flags], w8[:, off.mapping]
        word[here], refcount[here] = w4[:, off.mapcount], w4[:, off.refcount].view(np.int32)
        if not valid.all():
            readable[here] = valid
        link = w8[:, off.link]
        tail = np.flatnonzero(link & np.uint64(1))
        if len(tail):
            head_row[lo + tail] = _heads_of_tails(memmap, link[tail], pfn[tail])
        is_head = (flags[here] & head_bit) != 0
        is_head[tail] = False
        heads = np.flatnonzero(is_head)
        if len(heads):
            cover = np.minimum(heads[:, None] + np.arange(HEAD_PAGES)[None, :], pages - 1)
            head_rows.append(lo + heads)
            head_raws.append(data.reshape(pages, size)[cover].reshape(len(heads), -1))
        blocks = np.flatnonzero(layout.types.decode(word[here]) == buddy)
        buddy_rows.append(lo + blocks)
        buddy_orders.append(w8[blocks, off.private])
        for cache in slab_caches:
            hit = np.flatnonzero(w8[:, off.slab_cache] == cache)
            slab_rows.append(lo + hit)
            slab_found.append(np.full(len(hit), cache))
    types = _types(layout, flags, word, readable)
    pages_table = Pages(memmap, flags, word.view(np.int32), refcount, mapping, head_row, types, readable)
    rows = np.concatenate([*head_rows, np.empty(0, np.int64)]).astype(np.int64)
    raws = np.concatenate([*head_raws, np.empty((0, HEAD_PAGES * size), np.uint8)])
    rows, raws = _resolve_fake_heads(pages_table, rows, raws)
    following = np.minimum(rows + 1, n - 1)
    return Sweep(
        pages_table,
        Heads(rows, raws, readable[following]),
        np.concatenate([*slab_rows, np.empty(0, np.int64)]).astype(np.int64),
        np.concatenate([*slab_found, np.empty(0, np.uint64)]),
        _block_pages(buddy_rows, buddy_orders, n),
    )


def _struct_pages(layout: Layout) -> Iterator[tuple[int, I64, U8, Mask]]:
    """The struct pages of the memory map, a bounded piece at a time: ``(first row, page frames, bytes, readable)``."""
    memmap, size, row = layout.memmap, layout.memmap.page_size, 0
    if len(memmap.starts) > 1 and memmap.nr_pages < len(memmap.starts) * _SHORT:
        # Many short stretches: a call for each costs more than its bytes.
        blocks = expand_runs(memmap.starts // GRAIN, (memmap.ends - memmap.starts) // GRAIN).astype(np.int64) * GRAIN
        step = max(1, CHUNK // (GRAIN * size))
        for at in range(0, len(blocks), step):
            some = blocks[at : at + step]
            raw = layout.memory.gather(memmap.page_addrs(some), GRAIN * size)
            pfn = (some[:, None] + np.arange(GRAIN)[None, :]).ravel()
            yield at * GRAIN, pfn, raw.bytes.ravel(), np.repeat(raw.valid, GRAIN)
        return
    for start, end in zip(memmap.starts.tolist(), memmap.ends.tolist(), strict=True):
        for at, data, valid in layout.memory.chunks(memmap.page_addr(start), (end - start) * size):
            n, first = len(data) // size, at // size
            readable = np.ones(n, np.bool_) if valid.all() else np.repeat(valid, HOLE // size)[:n]
            yield row + first, np.arange(start + first, start + first + n), data, readable
        row += end - start


def _block_pages(rows: list[I64], orders: list[U64], n: int) -> I64:
    """Rows of the pages of free blocks, from their heads and the order each keeps in ``private``."""
    row = np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)
    order = np.concatenate([*orders, np.empty(0, np.uint64)])
    sane = order <= np.uint64(_MAX_BUDDY_ORDER)
    count = np.int64(1) << order[sane].astype(np.int64)
    mark = np.zeros(n, np.bool_)
    mark[expand_runs(row[sane], np.minimum(count, n - row[sane])).astype(np.int64)] = True
    return np.flatnonzero(mark)


def _heads_of_tails(memmap: MemMap, link: U64, pfn: I64) -> I32:
    return memmap.rows(heads_of_tails(memmap, link, pfn)).astype(np.int32)


def heads_of_tails(memmap: MemMap, link: U64, pfn: I64) -> I64:
    """Page frames of the heads that tail pages name, -1 where they name no struct page.

    The link word is the head's address plus one (``compound_head``), or from 7.1 on a mask that takes the tail's own
    address to its head's (``compound_info``, compound_info_has_mask() in include/linux/page-flags.h).
    """
    own = memmap.page_addrs(pfn)
    masked = (link >> np.uint64(40)) == np.uint64(0xFFFFFF)
    address = np.where(masked, own & link & ~np.uint64(1), link - np.uint64(1))
    return memmap.pfns(address)


def _types(layout: Layout, flags: U64, word: U32, readable: Mask) -> U8:
    types = layout.types.decode(word)
    if layout.flags.has("slab"):
        # Before 6.10 slab is a page flag, not a page type.
        types[layout.flags.test(flags, "slab")] = type_code("slab")
    types[~readable] = 0
    return types


def _resolve_fake_heads(pages: Pages, rows: I64, raws: U8) -> tuple[I64, U8]:
    """Make tails of the struct pages that only look like heads.

    Where hugetlb shares the struct pages of its tails (HVO, before 7.1), the first of each shared page is an alias of
    the real head; page_fixed_fake_head() in include/linux/page-flags.h knows it from the page behind it.
    """
    following = np.minimum(rows + 1, len(pages) - 1)
    pointed = pages.head_row[following]
    fake = (pointed != following) & (pointed != rows) & (pointed >= 0)
    pages.head_row[rows[fake]] = pointed[fake]
    return rows[~fake], raws[~fake]


def heads_beside(layout: Layout, part: MemMap) -> I64:
    """Page frames of the heads that tails in a part of the memory map name and that are not in it themselves."""
    link, found = _offsets(layout).link, [np.empty(0, np.int64)]
    for _, pfn, data, _ in _struct_pages(replace(layout, memmap=part)):
        words = data.view(np.uint64).reshape(len(pfn), -1)[:, link]
        tail = np.flatnonzero(words & np.uint64(1))
        heads = distinct(heads_of_tails(layout.memmap, words[tail], pfn[tail]))
        found.append(heads[(heads >= 0) & ~part.valid(heads)])
    return distinct(np.concatenate(found))


def page_words(layout: Layout, pages: Pages, rows: I64, *names: str) -> tuple[U64, Mask]:
    """One 8-byte member of the struct pages of the given rows, and which could be read."""
    field = layout.struct("struct page").field(*names)
    own = layout.memmap.page_addrs(pages.memmap.pfns_of_rows(rows))
    return layout.memory.words(own + np.uint64(field.offset))
