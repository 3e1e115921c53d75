"""Page frames behind addresses of the vmalloc area, through the kernel's own page tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from inspector.arch.base import Level, LevelShape
from inspector.columns import I64, U64, Mask
from inspector.layout.kernel import Layout


class KernelEntries(NamedTuple):
    """The entries of one level of the kernel's page tables that addresses lead to.

    Attributes:
        shape: The level.
        rows: int64[n]; which addresses these are.
        at: uint64[n]; where each entry is: physical addresses, but of the top table, which is in the kernel's image.
        entry: uint64[n]; 0 where it could not be read.
        known: bool[n]; whether it could be read.
        leaf: bool[n]; it maps memory itself.
    """

    shape: LevelShape
    rows: I64
    at: U64
    entry: U64
    known: Mask
    leaf: Mask


def walk_kernel_tables(layout: Layout, addrs: U64) -> Iterator[KernelEntries]:
    """Follow init_mm's page tables to some kernel addresses, all of them a level at a time; nothing without init_mm.

    Args:
        layout: The kernel's layout.
        addrs: uint64[n]; kernel virtual addresses.
    """
    init_mm = layout.target.symbol("init_mm")
    top = layout.memory.read_u64(init_mm + layout.struct("struct mm_struct").field("pgd").offset) if init_mm else None
    if not top:
        return
    table = np.full(len(addrs), np.uint64(top))
    rows = np.arange(len(addrs))
    physical = False  # the top table is part of the kernel's image
    page = np.uint64(layout.memmap.page_shift)
    for shape in layout.arch.shapes:
        slot = (addrs[rows] >> np.uint64(shape.shift)) & np.uint64(shape.entries - 1)
        at = table + slot * np.uint64(8)
        entry, known = layout.memory.words(at, physical=physical)
        leaf = known & layout.arch.leaf_mask(shape.level, entry) & (shape.level <= Level.PUD)
        yield KernelEntries(shape, rows, at, entry, known, leaf)
        down = known & ~leaf & layout.arch.table_mask(shape.level, entry)
        rows, table, physical = rows[down], layout.arch.table_pfn(entry)[down] << page, True


def vmalloc_pfns(layout: Layout, addrs: U64) -> I64:
    """Page frame of each address (mm/vmalloc.c, vmalloc_to_page()); -1 where none is mapped or known.

    Args:
        layout: The kernel's layout.
        addrs: uint64[n]; kernel virtual addresses.
    """
    out = np.full(len(addrs), -1, np.int64)
    page = np.uint64(layout.memmap.page_shift)
    for shape, rows, _, entry, _, leaf in walk_kernel_tables(layout, addrs):
        inside = (addrs[rows] & np.uint64((1 << shape.shift) - 1)) >> page
        out[rows[leaf]] = (layout.arch.leaf_pfn(shape.level, entry) + inside)[leaf].astype(np.int64)
    return np.where(layout.memmap.valid(out), out, -1)
