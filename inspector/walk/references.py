"""What holds the references of each folio: mappings, caches, batches, pipes, pins; and what nothing explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from inspector.columns import I32, I64, Mask
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS, type_code
from inspector.layout.kernel import Layout
from inspector.tables.batches import Batched
from inspector.tables.files import Files
from inspector.tables.folios import Folios
from inspector.tables.mmu_gather import Gathered
from inspector.tables.pages import Pages
from inspector.tables.pipes import PipeBuffers
from inspector.walk.counts import MappingCounts
from inspector.walk.page_cache import PageCache

PIN_BIAS = 1024
"""GUP_PIN_COUNTING_BIAS, include/linux/mm.h: what one pin adds to the references of a small folio."""

Basis = Literal["found", "stored", "inferred"]
"""How it is known: what holds the reference was found; the folio says so itself; it stands to reason."""

TERMS: tuple[tuple[str, Basis, str], ...] = (
    ("pte", "found", "page-table entries"),
    ("huge", "found", "huge page-table entries"),
    ("page_cache", "found", "page cache"),
    ("swap_cache", "stored", "swap cache"),
    ("private", "stored", "private data of the file system"),
    ("batch", "found", "per-CPU batches"),
    ("pipe", "found", "pipe buffers"),
    ("gather", "found", "unmapped, waiting for a TLB flush"),
    ("pins", "stored", "pins"),
    ("owner", "inferred", "whoever allocated it"),
    ("isolated", "inferred", "isolated from the LRU"),
)
"""Name, basis and meaning of each term, in the order in which they are told."""


class ReferenceParts(Protocol):
    """The tables that this walk needs."""

    @property
    def layout(self) -> Layout: ...  # noqa: D102
    @property
    def pages(self) -> Pages: ...  # noqa: D102
    @property
    def folios(self) -> Folios: ...  # noqa: D102
    @property
    def folio_of_page(self) -> I32: ...  # noqa: D102
    @property
    def folio_totals(self) -> I64: ...  # noqa: D102
    @property
    def counts(self) -> MappingCounts: ...  # noqa: D102
    @property
    def files(self) -> Files: ...  # noqa: D102
    @property
    def page_cache(self) -> PageCache: ...  # noqa: D102
    @property
    def batches(self) -> Batched: ...  # noqa: D102
    @property
    def gathered(self) -> Gathered: ...  # noqa: D102
    @property
    def pipes(self) -> PipeBuffers: ...  # noqa: D102


@dataclass(frozen=True)
class ReferenceTerms:
    """References of folios broken down.

    Attributes:
        rows: int64[n]; rows of the heads in `Pages`, ascending.
        refcount: int32[n]; as stored.
        terms: By name of `TERMS`, int32[n]; references each thing holds.
    """

    rows: I64
    refcount: I32
    terms: dict[str, I32]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def explained(self) -> I64:
        """int64[n]; the sum of all terms."""
        out = np.zeros(len(self.rows), np.int64)
        for column in self.terms.values():
            out += column
        return out

    @property
    def remainder(self) -> I64:
        """int64[n]; references that nothing explains; negative where more holders were found than references."""
        return self.refcount.astype(np.int64) - self.explained


def user_folios(parts: ReferenceParts) -> I64:
    """Rows of the heads of all referenced folios that user memory or the page cache knows of.

    Mapped, anonymous, of a file, or on an LRU list; hugetlb, but no other typed page. What the kernel allocated for
    itself alone is no folio in this sense.
    """
    pages, folios = parts.pages, parts.folios
    keep = pages.readable & (pages.refcount > 0) & ~pages.is_tail
    wanted = (pages.mapping != 0) | (parts.counts.page_mappings > 0) | parts.layout.flags.test(pages.flags, "lru")
    wanted[folios.row[parts.folio_totals > 0]] = True
    wanted &= (pages.type_ == 0) | (pages.type_ == type_code("hugetlb"))
    return np.flatnonzero(keep & wanted)


def break_down(parts: ReferenceParts, rows: I64) -> ReferenceTerms:
    """Find what holds the references of the folios headed by ``rows``.

    folio_expected_ref_count() (include/linux/mm.h of 6.15 and later) sums mappings, caches and private data. LRU
    batches hold one each (mm/swap.c, folio_add_lru(); mm/mlock.c), and so do pipe buffers (fs/splice.c) and unmapped
    pages until their TLB flush (mm/mmu_gather.c). A pin adds 1 and is counted in ``_pincount``, or adds 1024 to a
    small folio (mm/gup.c, try_grab_folio()).

    Args:
        parts: The tables.
        rows: int64[n]; rows of heads and of small pages, ascending, each once.
    """
    pages, folios = parts.pages, parts.folios
    folio = parts.folio_of_page[rows]
    large, safe = folio >= 0, np.maximum(folio, 0)

    def of_folio(column: I64, small: I64 | int) -> I64:
        return np.where(large, column[safe], small).astype(np.int64) if len(folios) else np.full(len(rows), small)

    nr = of_folio(np.where(folios.readable, folios.nr_pages, 1), 1)
    huge = of_folio(parts.counts.entire.astype(np.int64), 0)
    pte = of_folio(parts.folio_totals, parts.counts.page_mappings[rows].astype(np.int64)) - huge
    cache = _cached(parts, rows, nr)
    swap = np.where(_in_swap_cache(parts, rows), nr, 0)
    batch = _places(parts, rows, parts.batches.pfn)
    pipe = _places(parts, rows, parts.pipes.pfn)
    gather = _places(parts, rows, np.repeat(parts.gathered.pfn, parts.gathered.nr))
    file = (pages.mapping[rows] != 0) & ((pages.mapping[rows] & np.uint64(MAPPING_TAGS)) == 0)
    private = (parts.layout.flags.test(pages.flags[rows], "private") & file & (cache > 0)).astype(np.int64)
    stored = pages.refcount[rows]
    rest = stored - (pte + huge + cache + swap + private + batch + pipe + gather)
    pins = np.where(large, of_folio(folios.pincount.astype(np.int64), 0), np.maximum(rest, 0) // PIN_BIAS * PIN_BIAS)
    rest = rest - pins
    owner = np.minimum(np.maximum(rest, 0), 1) * _is_owned(parts, rows, cache)
    isolated = np.minimum(np.maximum(rest - owner, 0), 1) * (_is_off_lru(parts, rows) & (batch == 0) & (owner == 0))
    columns = (pte, huge, cache, swap, private, batch, pipe, gather, pins, owner, isolated)
    terms = {term[0]: column.astype(np.int32) for term, column in zip(TERMS, columns, strict=True)}
    return ReferenceTerms(rows, stored, terms)


def _places(parts: ReferenceParts, rows: I64, pfn: I64) -> I64:
    """How many of the places, given by page frame, belong to each folio."""
    pages = parts.pages
    page = pages.memmap.rows(pfn[pfn >= 0])
    head = pages.head_row[page[page >= 0]].astype(np.int64)
    return _count(rows, head)


def _count(rows: I64, heads: I64) -> I64:
    """How often each of the ascending ``rows`` stands in ``heads``."""
    ordered = np.sort(heads)
    return (np.searchsorted(ordered, rows, "right") - np.searchsorted(ordered, rows, "left")).astype(np.int64)


def _cached(parts: ReferenceParts, rows: I64, nr: I64) -> I64:
    """References of the page cache: one for each index that a folio takes there, where its entry was found.

    hugetlb takes one index until 6.6, one a base page later (hugetlb_add_to_page_cache()). Where the cache could not
    be read whole, a folio of a file that is on an LRU list is believed to be in it.
    """
    pages, cached = parts.pages, parts.page_cache.cached
    spaces, entries = parts.files.spaces, parts.files.entries
    space = entries.space_idx[cached.entry_row]
    agreed = cached.is_head & (cached.mapping == spaces.addr[space]) & (cached.index == entries.index[cached.entry_row])
    head, taken = cached.head_row[agreed].astype(np.int64), entries.nr[cached.entry_row][agreed].astype(np.int64)
    order = np.argsort(head, kind="stable")
    total = np.concatenate([[0], np.cumsum(taken[order])])
    low, high = (np.searchsorted(head[order], rows, side) for side in ("left", "right"))
    found: I64 = total[high] - total[low]
    if parts.files.unreadable:
        mapping = pages.mapping[rows]
        file = (mapping != 0) & ((mapping & np.uint64(MAPPING_TAGS)) == 0)
        believed = file & (found == 0) & parts.layout.flags.test(pages.flags[rows], "lru")
        found = np.where(believed, nr, found)
    return found


def _in_swap_cache(parts: ReferenceParts, rows: I64) -> Mask:
    """folio_test_swapcache(): the flag means that only together with PG_swapbacked; hugetlb never is there."""
    pages, flags = parts.pages, parts.layout.flags
    word, mapping = pages.flags[rows], pages.mapping[rows]
    anon = ((mapping & np.uint64(MAPPING_TAGS)) == 1) | (mapping == 0) | pages.is_ksm(rows)
    known = flags.test(word, "lru") | flags.test(word, "locked") | (mapping != 0)
    return flags.test(word, "swapcache") & flags.test(word, "swapbacked") & anon & known & (pages.type_[rows] == 0)


def _is_owned(parts: ReferenceParts, rows: I64, cache: I64) -> Mask:
    """Pages that whoever allocated them keeps a reference of: neither anonymous, cached, hugetlb nor on the LRU.

    Drivers' buffers, the vDSO, rings of io_uring, perf and packet sockets: vm_insert_page() takes a reference for
    each mapping, the one of alloc_pages() stays. Typed pages, and those of movable drivers, are owned likewise.
    """
    pages, flags = parts.pages, parts.layout.flags
    mapping = pages.mapping[rows]
    tag = mapping & np.uint64(MAPPING_TAGS)
    plain = (mapping == 0) | (tag == MAPPING_MOVABLE) | (tag == 0)
    folio = parts.folio_of_page[rows]
    hugetlb = np.zeros(len(rows), np.bool_)
    if len(parts.folios):
        hugetlb = (folio >= 0) & parts.folios.is_hugetlb[np.maximum(folio, 0)]
    typed = (pages.type_[rows] != 0) & ~hugetlb
    idle = plain & (cache == 0) & ~flags.test(pages.flags[rows], "lru") & ~flags.test(pages.flags[rows], "swapbacked")
    return typed | (idle & ~hugetlb)


def _is_off_lru(parts: ReferenceParts, rows: I64) -> Mask:
    """Folios of users that are on no LRU list, which somebody has taken off with a reference of his own.

    folio_isolate_lru() (mm/vmscan.c): reclaim, migration, compaction, collapse and madvise do so.
    """
    pages, flags = parts.pages, parts.layout.flags
    user = (pages.mapping[rows] != 0) & (pages.type_[rows] == 0)
    return user & ~flags.test(pages.flags[rows], "lru")


def holders_of(pages: Pages, folios: Folios, folio_of_page: I32, head: int, pfn: I64) -> I64:
    """Positions among ``pfn`` of the page frames that belong to the folio headed by a row."""
    first = int(pages.memmap.pfns_of_rows(np.array([head]))[0])
    folio = int(folio_of_page[head])
    nr = int(folios.nr_pages[folio]) if folio >= 0 else 1
    return np.flatnonzero((pfn >= first) & (pfn < first + nr))
