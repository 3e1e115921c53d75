"""Page frames behind addresses of the vmalloc area, through the kernel's own page tables."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64
from inspector.layout.kernel import Layout


def vmalloc_pfns(layout: Layout, addrs: U64) -> I64:
    """Page frame of each address (mm/vmalloc.c, vmalloc_to_page()); -1 where none is mapped or known.

    Args:
        layout: The kernel's layout.
        addrs: uint64[n]; kernel virtual addresses.
    """
    out = np.full(len(addrs), -1, np.int64)
    init_mm = layout.target.symbol("init_mm")
    top = layout.memory.read_u64(init_mm + layout.struct("struct mm_struct").field("pgd").offset) if init_mm else None
    if not top:
        return out
    table = np.full(len(addrs), np.uint64(top))
    rows = np.arange(len(addrs))
    physical = False  # the top table is part of the kernel's image
    page = np.uint64(layout.memmap.page_shift)
    for shape in layout.arch.shapes:
        slot = (addrs[rows] >> np.uint64(shape.shift)) & np.uint64(shape.entries - 1)
        entry, known = layout.memory.words(table + slot * np.uint64(8), physical=physical)
        leaf = known & layout.arch.leaf_mask(shape.level, entry) & (shape.level <= Level.PUD)
        inside = (addrs[rows] & np.uint64((1 << shape.shift) - 1)) >> page
        out[rows[leaf]] = (layout.arch.leaf_pfn(shape.level, entry) + inside)[leaf].astype(np.int64)
        down = known & ~leaf & layout.arch.table_mask(shape.level, entry)
        rows, table, physical = rows[down], layout.arch.table_pfn(entry)[down] << page, True
    return np.where(layout.memmap.valid(out), out, -1)
