"""Which words that say what a page is charged to can be none: memcg_data beside that of all other pages."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask
from inspector.layout.flags import type_code
from inspector.layout.kernel import Layout
from inspector.tables.pages import Charges, Pages
from inspector.tables.slab_words import in_slabs
from inspector.tables.slabs import page_rows

_FLAGS = np.uint64(7)
"""Low bits of memcg_data that hold flags (include/linux/memcontrol.h, enum page_memcg_data_flags)."""

_KMEM = np.uint64(2)
"""MEMCG_DATA_KMEM: the rest is an obj_cgroup."""

_MOST = 0.9
"""Share of the pages that must name objects of one cache before others are wrong."""

_FEW = 3
"""Pages that name a word at most for it to be doubted because another object lies over it."""


def odd_charges(layout: Layout, pages: Pages, charges: Charges) -> Mask:
    """Which words name nothing that a page can be charged to."""
    flags = charges.memcg_data & _FLAGS
    wrong: Mask = (flags & ~_KMEM) != 0
    wrong |= charges.is_lru & (flags != 0)
    for kind, name in ((np.uint64(0), _of_user_memory(layout)), (_KMEM, "struct obj_cgroup")):
        some = np.flatnonzero(~wrong & (flags == kind))
        if len(some) and layout.has_struct(name):
            address = charges.memcg_data[some] & ~_FLAGS
            wrong[some] = _odd(layout, pages, address, charges.nr[some], layout.struct(name).size)
    return wrong


def _of_user_memory(layout: Layout) -> str:
    """What user memory is charged to: an obj_cgroup where memory cgroups keep some for each node, from 7.1 on."""
    memcg = "struct mem_cgroup"
    if layout.has_struct(memcg) and not layout.struct(memcg).has("objcg"):
        return "struct obj_cgroup"
    return memcg


def _odd(layout: Layout, pages: Pages, address: U64, nr: I64, size: int) -> Mask:
    """Which addresses are none of objects like the others."""
    row = page_rows(layout, pages, address)
    known = (row >= 0) & pages.readable[np.maximum(row, 0)]
    slab = known & (pages.type_[np.maximum(row, 0)] == type_code("slab"))
    if nr[slab].sum() < _MOST * nr.sum():
        # They are too large for slabs: that there is memory is all that is known.
        return row < 0 if (row >= 0).any() else np.zeros(len(row), np.bool_)
    wrong: Mask = ~in_slabs(layout, pages, address)
    if layout.has_struct("struct slab") and layout.struct("struct slab").has("slab_cache"):
        name = "slab_cache"
        at = np.flatnonzero(slab)
        own = layout.memmap.page_addrs(pages.memmap.pfns_of_rows(row[at]))
        caches, _ = layout.memory.words(own + np.uint64(layout.struct("struct slab").field(name).offset))
        values, which = np.unique(caches, return_inverse=True)
        weights = np.bincount(which.reshape(-1), weights=nr[at])
        if weights.max(initial=0) >= _MOST * nr.sum():
            wrong[at[caches != values[weights.argmax()]]] = True
    # No two objects overlap: of two words that do, the one that few pages have is wrong.
    each, which = np.unique(address, return_inverse=True)
    total = np.bincount(which.reshape(-1), weights=nr)
    close = np.flatnonzero(np.diff(each) < np.uint64(size))
    near = np.zeros(len(each), np.bool_)
    near[np.where(total[close] < total[close + 1], close, close + 1)] = True
    return wrong | (near & (total <= _FEW))[which.reshape(-1)]
