"""What counters of memory nodes must be, by node: pages of the caches, page tables, slabs, pins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, U64, AnyArray, Table, take_or
from inspector.layout.flags import type_code
from inspector.records import dataclass
from inspector.tables.files import HUGETLB, SHMEM

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot
    from inspector.walk.page_cache import CachedFolios

CACHED = ("NR_FILE_PAGES", "NR_SHMEM", "NR_FILE_THPS", "NR_SHMEM_THPS")
"""Items of enum node_stat_item that follow the folios of page caches."""

_FILE, _SHMEM, _FILE_THPS, _SHMEM_THPS = range(4)

PIN_BIAS = 1024
"""GUP_PIN_COUNTING_BIAS (include/linux/mm.h): references that a pin of a small folio is."""


def node_of(s: Snapshot, rows: AnyArray) -> I64:
    """Node of each page, by its flags; 0 where they name none of this machine, which is a fault of its own."""
    fields = s.layout.flag_fields
    if fields is None:
        return np.zeros(len(rows), np.int64)
    nodes = fields.nodes(s.pages.words.flags)
    by_word = np.where(nodes < s.layout.nr_nodes, nodes, 0)
    return by_word[s.pages.number[rows]]


def add_cached(s: Snapshot, sums: I64, cached: CachedFolios) -> None:
    """Add some folios of page caches to int64[4, nodes], the items of `CACHED`.

    mm/filemap.c, __filemap_add_folio() and filemap_unaccount_folio(); mm/shmem.c, shmem_update_stats(). hugetlb is
    counted nowhere.
    """
    kind = s.files.address_spaces.kind[cached.space]
    mine = np.flatnonzero((kind != HUGETLB) & (cached.head_row >= 0))
    kind, nr, node = kind[mine], cached.span[mine], node_of(s, cached.head_row[mine])
    huge, shmem = cached.nr[mine] >= 1 << s.layout.pmd_order, kind == SHMEM
    for item, some in ((_FILE, slice(None)), (_SHMEM, shmem), (_FILE_THPS, huge & ~shmem), (_SHMEM_THPS, huge & shmem)):
        sums[item] += np.bincount(node[some], nr[some], s.layout.nr_nodes).astype(np.int64)


@dataclass(frozen=True, slots=True)
class ChargedCache(Table):
    """Pages of page caches by what they are charged to, and by node.

    Attributes:
        charge: uint64; folio->memcg_data as stored.
        node: int64.
        pages: int64; all of them.
        shmem: int64; those of shmem.
    """

    charge: U64
    node: I64
    pages: I64
    shmem: I64

    def summed(self) -> ChargedCache:
        """Each charge once on a node."""
        order = np.lexsort((self.node, self.charge))
        return self.take(order).joined()

    def joined(self) -> ChargedCache:
        """Neighbours of one charge and node as one row."""
        if not len(self):
            return self
        fresh = np.ones(len(self), np.bool_)
        fresh[1:] = (self.charge[1:] != self.charge[:-1]) | (self.node[1:] != self.node[:-1])
        at = np.flatnonzero(fresh)
        sums = np.add.reduceat(self.pages, at), np.add.reduceat(self.shmem, at)
        return ChargedCache(self.charge[at], self.node[at], *sums)


def cached_by_charge(s: Snapshot, cached: CachedFolios) -> ChargedCache:
    """Some folios of page caches by what they are charged to; hugetlb is left out."""
    kind = s.files.address_spaces.kind[cached.space]
    mine = np.flatnonzero((kind != HUGETLB) & (cached.head_row >= 0))
    node, nr = node_of(s, cached.head_row[mine]), cached.span[mine]
    # Neighbours in a file are mostly charged alike: little is left to sort.
    runs = ChargedCache(cached.charge[mine], node, nr, np.where(kind[mine] == SHMEM, nr, 0)).joined()
    return runs.summed()


def cached_by_node(s: Snapshot) -> dict[str, I64]:
    """Pages of page cache and swap cache by node; those of the swap cache are NR_FILE_PAGES too (mm/swap_state.c)."""
    found = {name: s.page_cache.by_node[at] for at, name in enumerate(CACHED)}
    pfn = s.swap.slots.cache_pfn
    row = s.pages.memmap.rows(pfn[pfn >= 0])
    swap = _count(s, row[row >= 0], 1)
    return found | {"NR_FILE_PAGES": found["NR_FILE_PAGES"] + swap, "NR_SWAPCACHE": swap}


def shares_to_compare(s: Snapshot, right: dict[str, I64], items: Iterable[str]) -> tuple[I64, I64]:
    """Where each node's share of an item can be compared: of items that are right for the machine.

    Args:
        s: The snapshot.
        right: What each item must be, by node.
        items: Those of interest.

    Returns:
        Rows in `inspector.tables.node_counters.NodeCounters`, and what each must be.
    """
    counters = s.node_counters
    sound = [name for name in items if s.node_stats.get(name) == int(right[name].sum())]
    mine = np.flatnonzero(np.isin(counters.item, sound) & (counters.zone < 0))
    places = zip(counters.item[mine].tolist(), counters.node[mine].tolist(), strict=True)
    return mine, np.array([right[name][node] for name, node in places], np.int64)


def tables_by_node(s: Snapshot) -> I64:
    """Pages of page tables by node (include/linux/mm.h, pagetable_pte_ctor() and its kin): those of that type."""
    return _typed(s, "table")


def slabs_by_node(s: Snapshot) -> I64:
    """Pages of slabs, and of large kmalloc() where the kernel marks them, by node."""
    return _typed(s, "slab", "large_kmalloc")


def _typed(s: Snapshot, *names: str) -> I64:
    words = s.pages.words
    rows = s.pages.heads_where(words.readable & np.isin(words.type_, [type_code(name) for name in names]))
    return _count(s, rows, take_or(s.folios.nr_pages, s.folio_of_page[rows], 1))


def _count(s: Snapshot, rows: I64, nr: AnyArray | int) -> I64:
    weights = np.broadcast_to(np.asarray(nr, np.float64), (len(rows),))
    return np.bincount(node_of(s, rows), weights, s.layout.nr_nodes).astype(np.int64)


def pins_by_node(s: Snapshot) -> tuple[I64, I64]:
    """The pins that pages have at least and at most, by node.

    A large folio counts its pins. A pin of a small one is 1024 references (mm/gup.c, try_grab_folio()): as many as it
    has beyond its mappings it may have in pins, or none, where something else holds so many.
    """
    pages, folios, words = s.pages, s.folios, s.pages.words
    plain = np.flatnonzero(folios.readable & np.isin(pages.type_[folios.row], (0, type_code("hugetlb"))))
    large = _count(s, folios.row[plain], np.maximum(folios.pincount[plain], 0))
    rows = pages.heads_where(words.readable & (words.type_ == 0) & (words.refcount >= PIN_BIAS))
    rows = rows[s.folio_of_page[rows] < 0]
    beyond = pages.refcount[rows].astype(np.int64) - np.maximum(pages.mapcount_raw[rows].astype(np.int64) + 1, 0)
    return large, large + _count(s, rows, np.maximum(beyond, 0) // PIN_BIAS)
