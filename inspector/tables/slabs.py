"""Objects of one slab cache, found in the memory map instead of through the allocator's lists."""

from __future__ import annotations

import numpy as np

from inspector.columns import U64, rows_of, take_or
from inspector.layout.kernel import Layout
from inspector.tables.folios import Folios
from inspector.tables.pages import Sweep


def cache_objects(layout: Layout, sweep: Sweep, folios: Folios, cache: int) -> U64:
    """Addresses of all object slots, in use or free, of a slab cache (mm/slub.c, for_each_object()).

    Args:
        layout: The kernel's layout.
        sweep: Must have been asked for this cache.
        folios: For the order of each slab.
        cache: Address of the kmem_cache.
    """
    struct = layout.struct("struct kmem_cache")
    raw = layout.memory.read(cache, struct.size)
    if raw is None:
        return np.empty(0, np.uint64)
    data = np.frombuffer(raw, np.uint8)[None, :]
    size = int(struct.field("size").column(data)[0])
    pad_field = struct.find("red_left_pad")
    pad = int(pad_field.column(data)[0]) if pad_field is not None else 0
    rows = sweep.slab_rows[sweep.slab_caches == np.uint64(cache)]
    if not len(rows) or size <= 0:
        return np.empty(0, np.uint64)
    order = take_or(folios.order, rows_of(folios.row, rows), 0).astype(np.int64)
    base = np.uint64(layout.memory.direct_map_base) + (
        sweep.pages.memmap.pfns_of_rows(rows).astype(np.uint64) << np.uint64(layout.memmap.page_shift)
    )
    parts = []
    for each in np.unique(order).tolist():
        count = (1 << (layout.memmap.page_shift + min(each, 20))) // size
        offsets = np.arange(count, dtype=np.uint64) * np.uint64(size) + np.uint64(pad)
        parts.append((base[order == each][:, None] + offsets[None, :]).ravel())
    return np.concatenate(parts)
