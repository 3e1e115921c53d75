"""Objects of one slab cache, found in the memory map instead of through the allocator's lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.columns import I64, U64, Mask, distinct, is_among, rows_covering, rows_of, take_or
from inspector.layout.flags import type_code
from inspector.layout.kernel import Layout
from inspector.tables.folios import Folios
from inspector.tables.pages import Pages, Sweep, bytes_changed, sweep_pages

_TRUSTED = 3
"""Caches that show where others may lie."""

_SAMPLE = 64
"""Objects by which their cache is known."""

_MANY = 16
"""Objects by whose distances their size is known."""


def cache_objects(layout: Layout, sweep: Sweep, folios: Folios, cache: int, known: U64 | None = None) -> U64:
    """Addresses of all object slots, in use or free, of a slab cache (mm/slub.c, for_each_object()).

    Args:
        layout: The kernel's layout.
        sweep: Must have been asked for this cache.
        folios: For the order of each slab.
        cache: Address of the kmem_cache.
        known: Addresses of some of the objects, from which the size of one follows where the kmem_cache is lost.
    """
    size, pad = _geometry(layout, cache)
    rows = sweep.slab_rows[sweep.slab_caches == np.uint64(cache)]
    order = take_or(folios.order, rows_of(folios.row, rows), 0).astype(np.int64)
    base = np.uint64(layout.memory.direct_map_base) + (
        sweep.pages.memmap.pfns_of_rows(rows).astype(np.uint64) << np.uint64(layout.memmap.page_shift)
    )
    if size <= 0 and known is not None and len(rows):
        size = _solve_size(
            layout, sweep.pages.memmap.page_addrs(sweep.pages.memmap.pfns_of_rows(rows)), order, base, known
        )
    if not len(rows) or size <= 0:
        return np.empty(0, np.uint64)
    parts = []
    for each in distinct(order).tolist():
        count = (1 << (layout.memmap.page_shift + min(each, 20))) // size
        offsets = np.arange(count, dtype=np.uint64) * np.uint64(size) + np.uint64(pad)
        parts.append((base[order == each][:, None] + offsets[None, :]).ravel())
    return np.concatenate(parts)


def with_true_caches(layout: Layout, sweep: Sweep, caches: U64) -> Sweep:
    """The sweep, its ``slab_caches`` what they must have been: a word that is no cache is the one a byte away.

    Without that all objects of a slab are lost with a bit of its struct page.

    Args:
        layout: The kernel's layout.
        sweep: As `inspector.tables.pages.sweep_pages` gives it.
        caches: The caches that it was asked for.
    """
    rows, words = sweep.slab_rows, sweep.slab_caches
    odd = ~np.isin(words, caches)
    if not odd.any():
        return sweep
    each, which, nr = np.unique(words[odd], return_inverse=True, return_counts=True)
    near = bytes_changed(each[:, None], caches) <= 1
    # What several slabs name is no damaged word.
    trusted = np.concatenate([np.ones(len(caches), np.bool_), nr > 1])
    sound, _, unknown = are_caches(layout, sweep.pages, np.concatenate([caches, each]), trusted)
    is_lost = ~(sound | unknown)[len(caches) :] & (nr == 1) & (near.sum(axis=1) == 1)
    true = words.copy()
    true[odd] = np.where(is_lost, caches[near.argmax(axis=1)], each)[which]
    keep = np.isin(true, caches)
    return replace(sweep, slab_rows=rows[keep], slab_caches=true[keep])


def page_rows(layout: Layout, pages: Pages, addrs: U64) -> I64:
    """Row of the head of the page that each address of the direct map lies in, -1 for others."""
    row = pages.memmap.rows(layout.direct_map_pfns(addrs))
    return np.where(row >= 0, pages.head_row[np.maximum(row, 0)], -1).astype(np.int64)


def are_caches(layout: Layout, pages: Pages, words: U64, trusted: Mask) -> tuple[Mask, Mask, Mask]:
    """Which words are addresses of slab caches.

    A cache is an object of the cache of all caches, which is one of its own objects (mm/slub.c, kmem_cache_init()).

    Args:
        layout: The kernel's layout.
        pages: Of all memory.
        words: What slabs name as their caches, each once.
        trusted: Those that are, where they lie among such objects: the others lie in their slabs where these do, but
            for multiples of the size of one.

    Returns:
        Which are, which of these are their own, and of which it is not known: a struct page cannot be read.
    """
    owner, head, unknown = _owners(layout, pages, words)
    of_owner, _, also_unknown = _owners(layout, pages, owner)
    sound = (owner != 0) & (of_owner == owner)
    base, shift = np.uint64(layout.memory.direct_map_base), np.uint64(layout.memmap.page_shift)
    start = base + (pages.memmap.pfns_of_rows(np.maximum(head, 0)).astype(np.uint64) << shift)
    place = (words - start).astype(np.int64)
    known = place[sound & trusted]
    size = int(np.gcd.reduce(known - known[0])) if len(known) >= _TRUSTED else 0
    own = sound & (owner == words)
    if size:
        sound &= (place - known[0]) % size == 0
    return sound, own, unknown | (also_unknown & (owner != 0))


def _owners(layout: Layout, pages: Pages, addrs: U64) -> tuple[U64, I64, Mask]:
    """slab_cache of the slab that each address lies in, 0 for none; the slab's row; and where that is not known."""
    row, head = pages.memmap.rows(layout.direct_map_pfns(addrs)), page_rows(layout, pages, addrs)
    unknown = (row >= 0) & ~(take_or(pages.readable, row, False) & take_or(pages.readable, head, False))
    slab = (head >= 0) & ~unknown & (pages.type_[np.maximum(head, 0)] == type_code("slab"))
    field = layout.struct("struct slab").field("slab_cache").offset
    out = np.zeros(len(addrs), np.uint64)
    own = pages.memmap.page_addrs(pages.memmap.pfns_of_rows(head[slab]))
    out[slab] = layout.memory.words(own + np.uint64(field))[0]
    return out, head, unknown


def nr_slabs(layout: Layout, cache: int) -> int | None:
    """How many slabs the allocator itself counts for a cache (struct kmem_cache_node, nr_slabs: CONFIG_SLUB_DEBUG).

    None where it keeps no such count or that cannot be read.
    """
    struct = layout.struct("struct kmem_cache")
    first, second = ([struct.find(f"{name}[{at}]{rest}") for name, rest in _NODES] for at in (0, 1))
    if not layout.has_struct("struct kmem_cache_node"):
        return None
    count = layout.struct("struct kmem_cache_node").find("nr_slabs.counter")
    place = next(((a.offset, b.offset - a.offset) for a, b in zip(first, second, strict=True) if a and b), None)
    if count is None or place is None:
        return None
    nodes = np.arange(layout.nr_nodes, dtype=np.uint64)
    node, known = layout.memory.words(np.uint64(cache + place[0]) + nodes * np.uint64(place[1]))
    node = node[node != 0]
    counts, read = layout.memory.words(node + np.uint64(count.offset))
    return int(counts.sum()) if len(node) and known.all() and read.all() else None


_NODES = (("per_node", ".node"), ("node", ""))
"""Where a kmem_cache names its kmem_cache_nodes: in 7.x beside other things, before in an array of pointers."""


def are_objects(layout: Layout, cache: int, addrs: U64) -> Mask:
    """Whether each address is that of an object slot of a slab cache.

    True where that cannot be known: its struct page, or what the cache is like, cannot be read.

    Args:
        layout: The kernel's layout.
        cache: Address of the kmem_cache.
        addrs: Any addresses; no struct pages are read but those around their own.
    """
    if _geometry(layout, cache)[0] <= 0:
        return np.ones(len(addrs), np.bool_)
    pfn = layout.direct_map_pfns(addrs)
    around = replace(layout, memmap=layout.memmap.around(pfn[pfn >= 0]))
    sweep = sweep_pages(around, np.array([cache], np.uint64))
    row = sweep.pages.memmap.rows(pfn)
    found = cache_objects(layout, sweep, sweep.folios, cache)
    return is_among(addrs, found) | ((row >= 0) & ~take_or(sweep.pages.readable, row, False))


def lead_nowhere(layout: Layout, addrs: U64, like: U64 | None = None) -> Mask:
    """Which addresses are of no slab object: beyond the direct map, or in a page that is known to be no slab's.

    Or in one of another slab cache, or between the objects of one, where objects of the right one are known.

    What leads there was overwritten; where it cannot be read, nothing is missing from the dump. None is known to where
    the kernel runs on: the object that named it may have been freed before it was read.

    Args:
        layout: The kernel's layout.
        addrs: Any addresses; no struct pages are read but those around their own.
        like: Addresses in objects of their kind; most of them are right.
    """
    if layout.memory.runs_on:
        return np.zeros(len(addrs), np.bool_)
    pfn = layout.direct_map_pfns(addrs)
    inside = pfn >= 0
    out: Mask = ~inside
    pfn = pfn[inside]
    if len(pfn):
        some = np.empty(0, np.uint64) if like is None else like[:: max(len(like) // _SAMPLE, 1)]
        of_some = layout.direct_map_pfns(some)
        around = layout.memmap.around(np.concatenate([pfn, of_some[of_some >= 0]]))
        pages = sweep_pages(replace(layout, memmap=around), np.empty(0, np.uint64)).pages
        row = pages.memmap.rows(pfn)
        head = np.where(row >= 0, take_or(pages.head_row, row, -1), -1)
        known = (row >= 0) & take_or(pages.readable, row, False) & take_or(pages.readable, head, False)
        out[inside] = known & (pages.type_[np.maximum(head, 0)] != type_code("slab"))
        if len(some):
            out[inside] |= _are_unlike(layout, pages, addrs[inside], some)
    return out


def _are_unlike(layout: Layout, pages: Pages, addrs: U64, like: U64) -> Mask:
    """Which addresses lie in slabs of another cache than most of some others, or elsewhere in these."""
    owner, head, unknown = _owners(layout, pages, np.concatenate([addrs, like]))
    caches, nr = np.unique(owner[len(addrs) :], return_counts=True)
    if not caches[nr.argmax()]:
        return np.zeros(len(addrs), np.bool_)
    mine = owner == caches[nr.argmax()]
    start = pages.memmap.pfns_of_rows(np.maximum(head, 0)).astype(np.uint64) << np.uint64(layout.memmap.page_shift)
    place = (np.concatenate([addrs, like]) - np.uint64(layout.memory.direct_map_base) - start).astype(np.int64)
    known = place[len(addrs) :][mine[len(addrs) :]]
    size = int(np.gcd.reduce(known - known[0])) if len(known) >= _MANY else 0
    elsewhere = (place - known[0]) % size != 0 if size else np.zeros(len(place), np.bool_)
    out: Mask = ((owner != 0) & ~unknown & (~mine | elsewhere))[: len(addrs)]
    return out


def _solve_size(layout: Layout, pages: U64, order: I64, base: U64, known: U64) -> int:
    """Bytes of an object of a cache that is lost itself; 0 where several would fit, or none.

    A slab says how many objects it has (struct slab, objects), and those that are known are a whole number of objects
    from its beginning.
    """
    slab = layout.struct("struct slab") if layout.has_struct("struct slab") else layout.struct("struct page")
    bits = slab.bits("objects")
    if bits is None:
        return 0
    raw = layout.memory.gather(pages, slab.size)
    objects, room = bits.column(raw.bytes), np.int64(1) << (layout.memmap.page_shift + order)
    able = raw.valid & (objects > 0)
    if not able.any():
        return 0
    row = rows_covering(base[able], base[able] + room[able].astype(np.uint64), known)
    places = (known - base[able][row])[row >= 0].astype(np.int64)
    low, high = int((room[able] // (objects[able] + 1)).max()) + 1, int((room[able] // objects[able]).min())
    step = int(np.gcd.reduce(places)) if len(places) else 0
    fits = [size for size in range(-(-low // 8) * 8, high + 1, 8) if step and step % size == 0]
    return fits[0] if len(fits) == 1 else 0


def _geometry(layout: Layout, cache: int) -> tuple[int, int]:
    """Bytes from one object slot of a cache to the next, and those in front of the first; 0 where it cannot be read."""
    struct = layout.struct("struct kmem_cache")
    size, pad = struct.find("size"), struct.find("red_left_pad")
    if size is None:
        return 0, 0
    # The struct ends with a pointer for each possible node, of which only as many exist as the machine has nodes.
    raw = layout.memory.read(cache, max(field.offset + field.size for field in (size, pad) if field is not None))
    if raw is None:
        return 0, 0
    data = np.frombuffer(raw, np.uint8)[None, :]
    return int(size.column(data)[0]), int(pad.column(data)[0]) if pad is not None else 0
