"""Struct pages of the whole target as columns, and the compound heads met on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from inspector.columns import (
    I32,
    I64,
    U8,
    U64,
    AnyArray,
    Column,
    Mask,
    RowSet,
    S,
    Table,
    distinct,
    expand_runs,
    group_starts,
    rows_inside,
    rows_of,
    rows_where,
    spans,
)
from inspector.errors import LayoutError
from inspector.layout.flags import type_code
from inspector.layout.kernel import Layout
from inspector.layout.memmap import GRAIN, MemMap
from inspector.layout.offsets import Field
from inspector.loops import distinct_rows
from inspector.memory import CHUNK, HOLE
from inspector.records import cached_property, dataclass
from inspector.scratch import long_zeros, settled
from inspector.tables.folios import HEAD_PAGES, Folios, decode_heads, no_folios
from inspector.tables.page_words import PageWords, page_type_codes, page_words_table
from inspector.workers import InOrder, share_out, sharing

if TYPE_CHECKING:
    import numpy.typing as npt

_MAX_BUDDY_ORDER = 16
"""No kernel builds larger free blocks (MAX_PAGE_ORDER, arm64 with 64 KiB pages has 13)."""

FIRST_PLAIN_TAIL = 4
"""Tails below this index share their fields with struct folio (include/linux/mm_types.h)."""

_SHORT = 1 << 10
"""Pages of a stretch of the memory map below which many of them are read together."""

MAX_PAGES = (1 << 31) - 2
"""Struct pages that a target may have: rows are int32."""

_WORTH_SHARING = 256
"""Pieces of the memory map that take longer to look through than to start processes and put together what they find."""

_WORTH_UNPACKING = 16
"""The same where they are unpacked as they are read."""

_NO_HEAD = -2
"""While the memory map is read: the mark of tails that point to no struct page."""


MANY_REFERENCES = 1 << 24
"""More references than any page has: what counts so many is no struct page."""


@dataclass(frozen=True)
class Pages:
    """One row a struct page, in the order of page frame numbers: 8 bytes a page, and each distinct set of words once.

    The columns are worked out for the rows asked for, as in ``pages.flags[rows]``. What depends on a page's own words
    alone is asked of `words`: ``pages.where(pages.words.type_ == code)``.

    Attributes:
        memmap: Turns page frame numbers into rows and back.
        words: The distinct sets of words.
        number: int32 a page; its row in ``words``.
        compound: int32 a page; row in `inspector.tables.folios.Folios` of its compound page, -1 for small pages; lower
            for tails whose head is no head of a compound page.
        heads: int32; row of the head, by any value of ``compound`` but -1: ``heads[compound]`` counts from the end for
            negative ones. -1 for a tail that points nowhere.
    """

    memmap: MemMap
    words: PageWords
    number: I32
    compound: I32
    heads: I32

    def __len__(self) -> int:
        return len(self.number)

    def _of_words(self, column: npt.NDArray[S]) -> Column[S]:
        return Column(lambda at: column[self.number[at]], len(self))

    @cached_property
    def flags(self) -> Column[np.uint64]:
        """uint64; the flags word as stored."""
        return self._of_words(self.words.flags)

    @cached_property
    def mapcount_raw(self) -> Column[np.int32]:
        """int32; the word shared by ``_mapcount`` and the page type, as stored."""
        return self._of_words(self.words.mapcount_raw)

    @cached_property
    def refcount(self) -> Column[np.int32]:
        """int32; ``_refcount``."""
        return self._of_words(self.words.refcount)

    @cached_property
    def mapping(self) -> Column[np.uint64]:
        """uint64; the ``mapping`` word: an address_space, or tagged."""
        return self._of_words(self.words.mapping)

    @cached_property
    def type_(self) -> Column[np.uint8]:
        """uint8; page type code (`inspector.layout.flags.PAGE_TYPES`), 0 for none; heads and small pages only."""
        return self._of_words(self.words.type_)

    @cached_property
    def readable(self) -> Column[np.bool_]:
        """bool; False where the struct page could not be read: all other columns are then 0."""
        return self._of_words(self.words.readable)

    @cached_property
    def head_row(self) -> Column[np.int32]:
        """int32; row of the folio's head, the row itself if the page is no tail, -1 if a tail points nowhere."""
        return Column(self._head_rows, len(self))

    def _head_rows(self, at: AnyArray | slice) -> I32:
        compound = self.compound[at]
        rows = np.arange(*at.indices(len(self)), dtype=np.int32) if isinstance(at, slice) else at
        return np.where(compound == -1, rows, self.heads[compound]).astype(np.int32, copy=False)

    @cached_property
    def is_tail(self) -> Column[np.bool_]:
        """bool; pages that belong to a compound page and are not its head."""
        return Column(self._are_tails, len(self))

    def _are_tails(self, at: AnyArray | slice) -> Mask:
        compound = self.compound[at]
        rows = np.arange(*at.indices(len(self)), dtype=np.int32) if isinstance(at, slice) else at
        return (compound != -1) & (self.heads[compound] != rows)

    @cached_property
    def folio(self) -> I32:
        """int32; row in `inspector.tables.folios.Folios` of the page's folio, -1 for small pages."""
        if len(self.compound) and self.compound.min() < -1:
            return np.maximum(self.compound, -1)
        return self.compound

    def is_anon(self, rows: AnyArray | slice) -> Mask:
        """Whether the folios headed by these rows are anonymous (KSM included); typed pages never are."""
        return self.words.is_anon[self.number[rows]]

    def is_ksm(self, rows: AnyArray) -> Mask:
        """Whether the folios headed by these rows are KSM pages."""
        return self.words.is_ksm[self.number[rows]]

    def where(self, holds: Mask) -> I64:
        """Rows of the pages whose set of words is one of some.

        Args:
            holds: bool; by row of ``words``.
        """
        return rows_where(len(self), lambda rows: holds[self.number[rows]]) if holds.any() else np.empty(0, np.int64)

    def heads_where(self, holds: Mask) -> I64:
        """The same, without tails."""
        return np.concatenate([*self.pieces_where(holds), np.empty(0, np.int64)])

    def pieces_where(self, holds: Mask) -> Iterator[I64]:
        """The same, some at a time."""
        for here in spans(len(self)) if holds.any() else ():
            rows = here.start + np.flatnonzero(holds[self.number[here]])
            yield rows[~self.is_tail[rows]]

    @property
    def nr_unreadable(self) -> int:
        """How many struct pages could not be read."""
        return int(self.words.nr[~self.words.readable].sum())

    @property
    def nbytes(self) -> int:
        """Bytes held by the columns."""
        return self.number.nbytes + self.compound.nbytes + self.heads.nbytes + self.words.nbytes


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
    lru: int
    memcg: int
    pool: int


def _slab_cache(layout: Layout) -> Field | None:
    return layout.struct("struct slab").find("slab_cache") if layout.has_struct("struct slab") else None


def _offsets(layout: Layout) -> _Offsets:
    page, slab_cache = layout.struct("struct page"), _slab_cache(layout)
    memcg, pool = page.find("memcg_data"), page.find("pp_magic")
    return _Offsets(
        page.field("flags.f", "flags").offset // 8,
        page.field("compound_info", "compound_head").offset // 8,
        page.field("mapping").offset // 8,
        page.field("_mapcount.counter", "_mapcount").offset // 4,
        page.field("_refcount.counter", "_refcount").offset // 4,
        0 if slab_cache is None else slab_cache.offset // 8,
        page.field("private").offset // 8,
        page.field("lru", "buddy_list").offset // 8,
        -1 if memcg is None else memcg.offset // 8,
        -1 if pool is None else pool.offset // 8,
    )


@dataclass(frozen=True, slots=True)
class BuddyPages(Table):
    """One row a page of type buddy: the first of a free block.

    Attributes:
        row: int32; row in `Pages`, ascending.
        private: uint64; the order of the block, as stored.
        following, before: uint64; the pointers of its list node (``lru``).
    """

    row: I32
    private: U64
    following: U64
    before: U64


@dataclass(frozen=True, slots=True)
class ClaimedPages(Table):
    """One row a page without references and without a type that a memory cgroup or a page pool counts as its own.

    Tails are among them whose memory cgroup no other field of their folio lies over.

    Attributes:
        row: int64; row in `Pages`, ascending.
        memcg_data: uint64; page->memcg_data, 0 where the kernel has none.
        is_pooled: bool; page->pp_magic is the signature of a page pool (include/linux/mm.h, page_pool_page_is_pp()).
    """

    row: I64
    memcg_data: U64
    is_pooled: Mask


@dataclass(frozen=True, slots=True)
class Charges(Table):
    """One row a distinct memcg_data of pages in use other than slabs, heads and small pages.

    Attributes:
        memcg_data: uint64; the word.
        is_lru: bool; of pages on an LRU list.
        row: int64; row in `Pages` of the first of them.
        nr: int64; how many they are.
    """

    memcg_data: U64
    is_lru: Mask
    row: I64
    nr: I64


_POOL_SIGNATURE = np.uint64(0xDEAD000000000040)
"""PP_SIGNATURE (include/linux/poison.h)."""

_POOL_BITS = np.uint64(0x7FFFFFFF83)
"""What else pp_magic holds: two flags, and the index of the DMA mapping from 6.16 on (PP_MAGIC_MASK)."""


def bytes_changed(words: U64, others: U64) -> AnyArray:
    """In how many of their bytes words differ from others."""
    changed = np.ascontiguousarray(words ^ others)
    return (changed.view(np.uint8).reshape(*changed.shape, 8) != 0).sum(axis=-1)


@dataclass(frozen=True)
class Sweep:
    """Everything one pass over the memory map gives.

    Attributes:
        pages: The page table.
        folios: The compound pages.
        slab_rows: int64; rows of slabs whose slab_cache word is one of the caches asked for, or differs from one in a
            byte.
        slab_caches: uint64; that word for each of ``slab_rows``.
        buddy_pages: The first pages of free blocks.
        in_free_block: Rows of all pages inside free blocks, the blocks' heads included.
        claimed: The pages without references that something counts as its own.
        charges: What pages in use are charged to.
    """

    pages: Pages
    folios: Folios
    slab_rows: I64
    slab_caches: U64
    buddy_pages: BuddyPages
    in_free_block: RowSet
    claimed: ClaimedPages
    charges: Charges


class _Found:
    """What is met on the way through the memory map.

    Args:
        layout: The kernel's layout.
        slab_caches: As of `sweep_pages`.
        number, head: Columns with a row a page, zeros, that others may write to as well.

    Attributes:
        number: int32 by page row; row in `words` of each page.
        head: int32 by page row; row of the head of each tail, `_NO_HEAD` for none; -1 for pages that are no tails.
    """

    def __init__(self, layout: Layout, slab_caches: U64, number: I32, head: I32) -> None:
        self._layout = layout
        self._off = _offsets(layout)
        self._caches = slab_caches if _slab_cache(layout) is not None else slab_caches[:0]
        self.words = distinct_rows(4)
        self._met = [np.empty(0, np.int64)]
        self.number, self.head = number, head
        self.folios: InOrder[Folios] = InOrder()
        self.slabs: InOrder[tuple[I64, U64]] = InOrder()
        self.buddy_pages: InOrder[BuddyPages] = InOrder()
        self.claimed: InOrder[ClaimedPages] = InOrder()
        self.charges: InOrder[Charges] = InOrder()

    def gathered(self, pieces: list[slice]) -> _Gathered:
        """What was found in some pieces, for `merge`."""
        met = np.concatenate(self._met)
        lists = self.folios, self.slabs, self.buddy_pages, self.claimed, self.charges
        return _Gathered(pieces, self.words.values, self.words.weights, met, *lists)

    def merge(self, parts: list[_Gathered]) -> None:
        """Take in what workers found: each has numbered the words that it met by itself."""
        values, weights, met = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "weights", "met")
        )
        # As if one had met them all, row by row.
        order = np.argsort(met)
        numbers = np.empty(len(order), np.int32)
        numbers[order] = self.words.codes(values[order], weights[order])
        starts = np.cumsum([0] + [len(part.met) for part in parts]).tolist()
        for part, first, end in zip(parts, starts[:-1], starts[1:], strict=True):
            for rows in part.pieces:
                self.number[rows] = numbers[first:end][self.number[rows]]
            self.folios.merge(part.folios)
            self.slabs.merge(part.slabs)
            self.buddy_pages.merge(part.buddy_pages)
            self.claimed.merge(part.claimed)
            self.charges.merge(part.charges)

    def _codes(self, row: int, alike: _Alike, keys: U64) -> I32:
        """Number the words of stretches of pages, and note where new ones are met."""
        known = len(self.words)
        codes = self.words.codes(keys, alike.nr)
        if len(self.words) > known:
            highest = np.maximum.accumulate(np.maximum(codes, known - 1))
            self._met.append(row + alike.first[np.diff(highest, prepend=known - 1) > 0])
        return codes

    def read(self, row: int, pfn: I64, data: U8, readable: Mask) -> None:
        """Take in neighbouring struct pages.

        Args:
            row: Of the first of them.
            pfn: int64[n]; their page frames.
            data: uint8[n * sizeof(struct page)].
            readable: bool[n]; which could be read.
        """
        off, n = self._off, len(pfn)
        words, halves = data.view(np.uint64).reshape(n, -1), data.view(np.uint32).reshape(n, -1)
        flags, mapping, link = words[:, off.flags], words[:, off.mapping], words[:, off.link]
        mapcount, refcount = halves[:, off.mapcount], halves[:, off.refcount]
        # Most pages are alike those before them: what follows is worked out once for each stretch of alike pages.
        fresh = np.ones(n, np.bool_)
        # All words of all pages at once: that is a pass over memory as it lies there.
        differs = words[1:] != words[:-1]
        fresh[1:] = readable[1:] != readable[:-1]
        for place in {off.flags, off.mapping, off.mapcount // 2, off.refcount // 2}:
            fresh[1:] |= differs[:, place]
        first = np.flatnonzero(fresh)
        alike = _Alike(first, np.diff(first, append=n))
        keys = np.empty((len(first), 4), np.uint64)
        keys[:, 0], keys[:, 1], keys[:, 3] = flags[first], mapping[first], readable[first]
        keys[:, 2] = mapcount[first] | (refcount[first].astype(np.uint64) << np.uint64(32))
        self.number[row : row + n] = np.repeat(self._codes(row, alike, keys), alike.nr)
        self.head[row : row + n] = -1
        tail = np.flatnonzero(link & np.uint64(1))
        if len(tail):
            head = self._layout.memmap.rows(heads_of_tails(self._layout.memmap, link[tail], pfn[tail]))
            self.head[row + tail] = np.where(head >= 0, head, _NO_HEAD)
        heads = alike.rows((keys[:, 0] & self._layout.flags.mask("head")) != 0)
        heads = heads[(link[heads] & np.uint64(1)) == 0]
        if len(heads):
            cover = np.minimum(heads[:, None] + np.arange(HEAD_PAGES)[None, :], n - 1)
            raw = data.reshape(n, -1)[cover].reshape(len(heads), -1)
            self.folios.add(row, decode_heads(self._layout, row + heads, pfn[heads], raw))
        types = page_type_codes(self._layout, keys[:, 0], mapcount[first])
        blocks = alike.rows(types == type_code("buddy"))
        if len(blocks):
            node = words[blocks, off.lru : off.lru + 2]
            rows = (row + blocks).astype(np.int32)
            private, following, before = words[blocks, off.private], node[:, 0].copy(), node[:, 1].copy()
            self.buddy_pages.add(row, BuddyPages(rows, private, following, before))
        is_tail = (link & np.uint64(1)) != 0
        some = self._claimed(words, (refcount == 0) & readable)
        if len(some.row):
            # Slabs and page tables have other things in these words, and the first tails fields of their folio.
            untyped = np.isin(types, (0, type_code("buddy")))[np.searchsorted(first, some.row, "right") - 1]
            index = row + some.row - self.head[row + some.row]
            plain = (some.memcg_data != 0) & (self.head[row + some.row] >= 0) & (index >= FIRST_PLAIN_TAIL)
            some = some.take(np.where(is_tail[some.row], plain, untyped))
            self.claimed.add(row, replace(some, row=row + some.row))
        if off.memcg >= 0:
            in_use = ~is_tail & readable & ((refcount != 0) | alike.rows_of_kinds(types != 0, n))
            self._charged(row, words[:, off.memcg], in_use, flags, (alike, types))
        if len(self._caches):
            slabs = alike.rows(types == type_code("slab"))
            caches = words[slabs, off.slab_cache]
            wanted = (bytes_changed(caches[:, None], self._caches) <= 1).any(axis=1)
            if wanted.any():
                self.slabs.add(row, (row + slabs[wanted], caches[wanted]))

    def _charged(self, row: int, memcg: U64, among: Mask, flags: U64, typed: tuple[_Alike, U8]) -> None:
        """Note what some neighbouring pages are charged to; free pages and slabs are left out."""
        alike, types = typed
        mine = alike.rows_of_kinds(~np.isin(types, (type_code("buddy"), type_code("slab"))), len(memcg))
        at = np.flatnonzero(among & mine & (memcg != 0))
        if not len(at):
            return
        word, lru = memcg[at], (flags[at] & self._layout.flags.mask("lru")) != 0
        fresh = np.ones(len(at), np.bool_)
        fresh[1:] = (word[1:] != word[:-1]) | (lru[1:] != lru[:-1])
        start = np.flatnonzero(fresh)
        found = Charges(word[start], lru[start], row + at[start], np.diff(start, append=len(at)))
        self.charges.add(row, _summed(found))

    def _claimed(self, words: U64, among: Mask) -> ClaimedPages:
        """Those of some pages that something counts as its own, by their place among these."""
        off, none = self._off, np.zeros(len(words), np.uint64)
        memcg = words[:, off.memcg] if off.memcg >= 0 else none
        is_pooled = ((words[:, off.pool] if off.pool >= 0 else none) & ~_POOL_BITS) == _POOL_SIGNATURE
        at = np.flatnonzero(among & ((memcg != 0) | is_pooled))
        return ClaimedPages(at, memcg[at], is_pooled[at])


class _Gathered(NamedTuple):
    """What a worker found in its share of the memory map.

    Attributes:
        pieces: Which rows it read.
        values, weights: As of `inspector.loops.Distinct`.
        met: int64; the row in which each of ``values`` was met first.
        folios, slabs, buddy_pages, claimed, charges: As of `_Found`.
    """

    pieces: list[slice]
    values: U64
    weights: I64
    met: I64
    folios: InOrder[Folios]
    slabs: InOrder[tuple[I64, U64]]
    buddy_pages: InOrder[BuddyPages]
    claimed: InOrder[ClaimedPages]
    charges: InOrder[Charges]


class _Alike(NamedTuple):
    """Stretches of pages that are alike, by their first page and their number."""

    first: I64
    nr: I64

    def rows_of_kinds(self, some: Mask, n: int) -> Mask:
        """bool[n]; the pages of some of them."""
        return np.repeat(some, self.nr) if not some.all() else np.ones(n, np.bool_)

    def rows(self, some: Mask) -> I64:
        """The pages of some of them, one by one."""
        return expand_runs(self.first[some], self.nr[some]).astype(np.int64) if some.any() else np.empty(0, np.int64)


def _summed(charges: Charges) -> Charges:
    """Each distinct word once."""
    order = np.lexsort((charges.row, charges.is_lru, charges.memcg_data))
    c = charges.take(order)
    first = np.ones(len(c), np.bool_)
    first[1:] = (c.memcg_data[1:] != c.memcg_data[:-1]) | (c.is_lru[1:] != c.is_lru[:-1])
    start = np.flatnonzero(first)
    return replace(c.take(start), nr=np.add.reduceat(c.nr, start) if len(start) else c.nr)


def sweep_pages(layout: Layout, slab_caches: U64, nr_workers: int = 1) -> Sweep:
    """Read the memory map once.

    Args:
        layout: The kernel's layout.
        slab_caches: Addresses of the slab caches whose slabs the caller wants to find.
        nr_workers: Processes that read at most.

    Raises:
        LayoutError: There are more struct pages than rows can be numbered.
    """
    n = layout.memmap.nr_pages
    if n > MAX_PAGES:
        raise LayoutError(f"{n:,} struct pages are more than can be numbered", "memory map", "Report the kernel")
    found = _read_all(layout, slab_caches, nr_workers)
    words = page_words_table(layout, found.words)
    folios = _true_heads(Folios.concat([no_folios(), *found.folios]), found.head)
    following = np.minimum(folios.row + 1, n - 1)
    known = words.readable
    folios = replace(folios, readable=known[found.number[following]] & known[found.number[folios.row]])
    heads = _number_compounds(folios, found.head)
    blocks = BuddyPages.concat([BuddyPages.empty(), *found.buddy_pages])
    slab_rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in found.slabs)])
    slab_found = np.concatenate([np.empty(0, np.uint64), *(caches for _, caches in found.slabs)])
    return Sweep(
        Pages(layout.memmap, words, found.number, found.head, heads),
        folios,
        slab_rows,
        slab_found,
        blocks,
        _free_pages(blocks, n),
        ClaimedPages.concat([ClaimedPages.empty(), *found.claimed]),
        _summed(Charges.concat([Charges.empty(), *found.charges])),
    )


def _read_all(layout: Layout, slab_caches: U64, nr_workers: int) -> _Found:
    pieces = StructPages(layout)
    nr = sharing(len(pieces), nr_workers, _WORTH_UNPACKING if layout.target.is_packed else _WORTH_SHARING)
    n = layout.memmap.nr_pages
    number, head = (long_zeros(n, np.int32, shared=nr > 1) for _ in range(2))
    found, share = (_Found(layout, slab_caches, number, head) for _ in range(2))
    done: list[slice] = []

    def read(into: _Found, numbers: Iterable[int]) -> None:
        for piece in numbers:
            row, pfn, data, readable = pieces[piece]
            into.read(row, pfn, data, readable)
            done.append(slice(row, row + len(pfn)))

    def here(numbers: Iterable[int]) -> None:
        read(share, numbers)

    def there(numbers: Iterable[int]) -> _Gathered:
        read(share, numbers)
        return share.gathered(done)

    if nr == 1:
        read(found, range(len(pieces)))
    else:
        others = list(share_out(len(pieces), here, there, nr))
        found.merge([share.gathered(done), *others])
        found.number, found.head = settled(number), settled(head)
    return found


def _true_heads(folios: Folios, head: I32) -> Folios:
    """Make tails of the struct pages that only look like heads.

    Where hugetlb shares the struct pages of its tails (HVO, before 7.1), the first of each shared page is an alias of
    the real head; page_fixed_fake_head() in include/linux/page-flags.h knows it from the page behind it.
    """
    following = np.minimum(folios.row + 1, len(head) - 1)
    pointed = head[following]
    fake = (pointed >= 0) & (pointed != following) & (pointed != folios.row)
    head[folios.row[fake]] = pointed[fake]
    return folios.take(~fake)


def _number_compounds(folios: Folios, head: I32) -> I32:
    """Turn the rows of heads, in place, into `Pages.compound`.

    Returns:
        `Pages.heads`.
    """
    others, nr_others = [np.empty(0, np.int64)], 0
    for rows in spans(len(head)):
        piece = head[rows]
        tails = np.flatnonzero(piece != -1)
        named = piece[tails]
        first = group_starts(named)
        numbers = rows_of(folios.row, named[first])
        unknown = np.flatnonzero(numbers < 0)
        if len(unknown):
            values, which = np.unique(named[first[unknown]], return_inverse=True)
            numbers[unknown] = -2 - nr_others - which
            others.append(np.maximum(values, -1))
            nr_others += len(values)
        piece[tails] = np.repeat(numbers, np.diff(first, append=len(named)))
    head[folios.row] = np.arange(len(folios), dtype=np.int32)
    return np.concatenate([folios.row, np.concatenate(others)[::-1], np.zeros(1, np.int64)]).astype(np.int32)


def _free_pages(blocks: BuddyPages, n: int) -> RowSet:
    """Rows of the pages of free blocks, from their heads and the order each keeps in ``private``."""
    sane = blocks.private <= np.uint64(_MAX_BUDDY_ORDER)
    return rows_inside(blocks.row[sane], blocks.private[sane].astype(np.uint8), n, _MAX_BUDDY_ORDER)


class StructPages:
    """The struct pages of the memory map in bounded pieces, each read when it is asked for by its number."""

    def __init__(self, layout: Layout) -> None:
        memmap, size = layout.memmap, layout.memmap.page_size
        self._layout, self._blocks = layout, np.empty(0, np.int64)
        self._pieces: list[tuple[int, int, int]] = []
        """Of each piece its first row, and what it is from and to: page frames, or places in the blocks if any."""
        if len(memmap.starts) > 1 and memmap.nr_pages < len(memmap.starts) * _SHORT:
            # Many short stretches: a call for each costs more than its bytes.
            nr = (memmap.ends - memmap.starts) // GRAIN
            self._blocks = expand_runs(memmap.starts // GRAIN, nr).astype(np.int64) * GRAIN
            step = max(1, CHUNK // (GRAIN * size))
            self._pieces = [(at * GRAIN, at, at + step) for at in range(0, len(self._blocks), step)]
            return
        row = 0
        for start, end in zip(memmap.starts.tolist(), memmap.ends.tolist(), strict=True):
            for first in range(start, end, CHUNK // size):
                self._pieces.append((row + first - start, first, min(first + CHUNK // size, end)))
            row += end - start

    def __len__(self) -> int:
        return len(self._pieces)

    def __iter__(self) -> Iterator[tuple[int, I64, U8, Mask]]:
        return (self[number] for number in range(len(self)))

    def rows(self, number: int) -> slice:
        """The rows of a piece."""
        row, start, end = self._pieces[number]
        nr = (min(end, len(self._blocks)) - start) * GRAIN if len(self._blocks) else end - start
        return slice(row, row + nr)

    def __getitem__(self, number: int) -> tuple[int, I64, U8, Mask]:
        """A piece: ``(first row, page frames, bytes, readable)``."""
        memory, memmap, size = self._layout.memory, self._layout.memmap, self._layout.memmap.page_size
        row, start, end = self._pieces[number]
        if len(self._blocks):
            some = self._blocks[start:end]
            raw = memory.gather(memmap.page_addrs(some), GRAIN * size)
            pfn = (some[:, None] + np.arange(GRAIN)[None, :]).ravel()
            return row, pfn, raw.bytes.ravel(), np.repeat(raw.valid, GRAIN)
        address, nr_bytes = memmap.page_addr(start), (end - start) * size
        if memory.overwritten and memory.is_overwritten(address, nr_bytes, physical=False):
            # One by one: of a page of struct pages some may be as they were.
            raw = memory.gather(memmap.page_addrs(np.arange(start, end)), size)
            return row, np.arange(start, end), raw.bytes.ravel(), raw.valid
        data, valid = memory.chunk(address, nr_bytes)
        readable = np.ones(end - start, np.bool_) if valid.all() else np.repeat(valid, HOLE // size)[: end - start]
        return row, np.arange(start, end), data, readable


def heads_of_tails(memmap: MemMap, link: U64, pfn: I64) -> I64:
    """Page frames of the heads that tail pages name, -1 where they name no struct page.

    The link word is the head's address plus one (``compound_head``), or from 7.1 on a mask that takes the tail's own
    address to its head's (``compound_info``, compound_info_has_mask() in include/linux/page-flags.h).
    """
    own = memmap.page_addrs(pfn)
    masked = (link >> np.uint64(40)) == np.uint64(0xFFFFFF)
    address = np.where(masked, own & link & ~np.uint64(1), link - np.uint64(1))
    return memmap.pfns(address)


def heads_beside(layout: Layout, part: MemMap) -> I64:
    """Page frames of the heads that tails in a part of the memory map name and that are not in it themselves."""
    link, found = _offsets(layout).link, [np.empty(0, np.int64)]
    for _, pfn, data, _ in StructPages(replace(layout, memmap=part)):
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
