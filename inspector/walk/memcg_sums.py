"""What memory cgroups must count by the folios that are charged to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, U64, AnyArray, Mask, rows_of
from inspector.records import dataclass
from inspector.tables.memcg_counters import with_descendants
from inspector.tables.memcgs import MEMCG_TAGS, Lru, memcg_of_data
from inspector.tables.pages import page_words
from inspector.walk.node_sums import ChargedCache, node_of

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_KMEM = np.uint64(2)
"""MEMCG_DATA_KMEM (include/linux/memcontrol.h)."""

CHARGED_CACHE = ("NR_FILE_PAGES", "NR_SHMEM", "NR_SWAPCACHE")
"""Items of enum node_stat_item that memory cgroups count, and that follow the folios of page caches and swap cache."""


@dataclass(frozen=True)
class ChargedFolios:
    """What is charged to each memory cgroup itself.

    Attributes:
        pages: int64[memcgs]; of folios, but for those of the root itself, which are not counted as usage.
        nr: int64[memcgs]; how many folios these are, with those of the root.
        unknown: Words of folios that lead to no memory cgroup that is known.
        lost: int64; rows in `inspector.tables.pages.Charges` of those of them that lead to something else.
    """

    pages: I64
    nr: I64
    unknown: int
    lost: I64


def charged_folios(s: Snapshot) -> ChargedFolios:
    """Sum up folio->memcg_data of all pages in use but kernel memory (include/linux/memcontrol.h, folio_memcg()).

    The root is never charged (mm/memcontrol.c, try_charge()). From 7.x on it takes over what removed memory cgroups
    were charged for, and their obj_cgroups with it: these pages are in its usage.
    """
    charges, folios = s.charges, s.folios
    plain = np.flatnonzero((charges.memcg_data & MEMCG_TAGS) == 0)
    words = charges.memcg_data[plain]
    large, read = page_words(s.layout, s.pages, folios.row, "memcg_data")
    more = np.flatnonzero(read & folios.readable & (large != 0) & ((large & MEMCG_TAGS) == 0))
    memcg, known = memcg_of_data(s.layout, s.lru.memcgs, words)
    row = np.where(known, memcg, -1)
    # A large folio is one of the pages in use by its head.
    distinct, of = np.unique(words, return_inverse=True)
    at = rows_of(distinct, large[more])
    of_large = np.full(len(distinct), -1, np.int64)
    of_large[of] = row
    found = of_large[np.maximum(at, 0)]
    beyond = np.where(at >= 0, folios.nr_pages[more] - 1, 0)
    n = len(s.lru.memcgs)
    nr, pages = np.zeros(n, np.int64), np.zeros(n, np.int64)
    np.add.at(nr, row[row >= 0], charges.nr[plain][row >= 0])
    for rows, weights, data in ((row, charges.nr[plain], words), (found, beyond, large[more])):
        counted = (rows > 0) | ((rows == 0) & ~_of_the_root(s, data))
        np.add.at(pages, rows[counted], weights[counted])
    return ChargedFolios(pages, nr, int((row < 0).sum()), plain[known & (memcg < 0)])


def _of_the_root(s: Snapshot, data: U64) -> Mask:
    """Which words name the root itself: what is charged to it is counted nowhere."""
    if not s.lru.is_by_objcg:
        return np.ones(len(data), np.bool_)
    field = s.layout.struct("struct obj_cgroup").field("is_root")
    raw = s.layout.memory.gather(data + np.uint64(field.offset), field.size)
    return raw.valid & (raw.bytes[:, 0] != 0)


def usage_of(s: Snapshot, charged: ChargedFolios) -> I64:
    """int64[memcgs]; what memory.usage of each must be.

    That is the folios charged to it and its descendants, kernel memory and sockets by their own statistic, and what
    CPUs keep for the next charges.
    """
    counters, memcgs = s.memcg_counters, s.lru.memcgs
    assert counters is not None
    total = with_descendants(memcgs, charged.pages + counters.stocked)
    for item in ("MEMCG_KMEM", "MEMCG_SOCK"):
        if item in counters.items:
            total += counters.total[:, counters.items[item]]
    return total


def keeps_own_usage(lru: Lru) -> Mask:
    """Which memory cgroups' usage is that of what is charged to them.

    From 7.x on what is charged to a removed one goes to its parent, and its own usage stays.
    """
    return lru.memcgs.online | (not lru.is_by_objcg)


def cached_by_vector(s: Snapshot) -> tuple[dict[str, I64], int]:
    """Items of `CHARGED_CACHE`: int64[lruvecs]; and how many words of folios lead to no memory cgroup that is known.

    Folios of the swap cache are NR_FILE_PAGES of their node alone (mm/swap_state.c, __swap_cache_add_folio()).
    """
    cache, n = s.page_cache.by_charge, len(s.lru.lruvecs)
    pfn = s.swap.slots.cache_pfn
    row = s.pages.memmap.rows(pfn[pfn >= 0])
    heads = s.pages.head_row[row[row >= 0]].astype(np.int64)
    data, read = page_words(s.layout, s.pages, heads, "memcg_data")
    one = np.ones(len(heads), np.int64)
    swapped = ChargedCache(data, node_of(s, heads), one, one * 0).joined().summed()
    at, lost = _vectors(s, cache)
    in_swap, lost_too = _vectors(s, swapped)

    def summed(rows: I64, pages: I64) -> I64:
        return np.bincount(rows[rows >= 0], pages[rows >= 0], n).astype(np.int64)

    found = {
        "NR_FILE_PAGES": summed(at, cache.pages),
        "NR_SHMEM": summed(at, cache.shmem),
        "NR_SWAPCACHE": summed(in_swap, swapped.pages),
    }
    return found, lost + lost_too + int((~read).sum())


def _vectors(s: Snapshot, cache: ChargedCache) -> tuple[I64, int]:
    """Rows of the vectors that count these, -1 for none; and how many charges lead to no known memory cgroup."""
    memcg, known = memcg_of_data(s.layout, s.lru.memcgs, cache.charge)
    # A folio that nothing charged is counted by the node alone.
    charged = cache.charge != 0
    memcg = np.where(known & charged, memcg, -1).astype(np.int32)
    return s.lru.vector_rows(memcg, cache.node.astype(np.int32)), int((charged & (memcg < 0)).sum())


def vectors_of_pages(s: Snapshot, rows: AnyArray) -> I64:
    """Row of the vector that counts each page by what its folio is charged to; -1 for none."""
    heads = s.pages.head_row[rows].astype(np.int64)
    data, read = page_words(s.layout, s.pages, heads, "memcg_data")
    words, of = np.unique(np.where(read, data, 0), return_inverse=True)
    # Kernel memory that is mapped, as rings of sockets are, is charged by an obj_cgroup.
    led = words.copy()
    kernel = np.flatnonzero((words & MEMCG_TAGS) == _KMEM)
    if len(kernel) and not s.lru.is_by_objcg:
        field = s.layout.struct("struct obj_cgroup").field("memcg")
        led[kernel], _ = s.layout.memory.words((words[kernel] & ~MEMCG_TAGS) + np.uint64(field.offset))
    memcg, known = memcg_of_data(s.layout, s.lru.memcgs, led)
    nodes = s.layout.nr_nodes
    every = np.arange(len(words) * nodes, dtype=np.int64)
    row = np.where(known & (words != 0), memcg, -1).astype(np.int32)
    table = s.lru.vector_rows(row[every // nodes], (every % nodes).astype(np.int32))
    return table[of.reshape(-1) * nodes + node_of(s, heads)]
