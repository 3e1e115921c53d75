"""Page tables of the kernel's own mms."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level, LevelShape
from inspector.columns import I64, U64, distinct
from inspector.layout.kernel import Layout
from inspector.tables.kernel_half import KernelHalves

_MMS = ("init_mm", "efi_mm", "tboot_mm")
"""Mms that are variables: the kernel, EFI's services, Intel TXT. Those of tasks are slab objects."""

_AT_ONCE = 256
"""Tables read together: where the direct map has small pages a machine has one for each 2 MiB of memory."""


def kernel_tables(layout: Layout, halves: KernelHalves) -> tuple[I64, int]:
    """Page frames of all tables that the kernel's half of any mm reaches, top tables included.

    All share the kernel's own tables but for what page-table isolation maps for one process alone: its LDT
    (arch/x86/kernel/ldt.c).

    Args:
        layout: The kernel's layout.
        halves: What the mms have in their kernel's halves.

    Returns:
        The page frames, ascending, and how many tables, but for mms' top tables, could not be read.
    """
    top, *below = layout.arch.shapes
    size, field = 8 * top.entries, layout.struct("struct mm_struct").field("pgd").offset
    symbols = [layout.target.symbol(name) for name in _MMS]
    tops = [layout.memory.read_u64(mm + field) for mm in symbols if mm]
    # The top table of init_mm is part of the kernel's image, which no direct-map address names. Of the kernel's half
    # of all tables what most of them have counts, and each mm's LDT.
    own = layout.memory.gather(np.array([x for x in tops if x], np.uint64), size)
    base = layout.memory.direct_map_base
    pfn = ((own.addr - np.uint64(base)) >> np.uint64(layout.memmap.page_shift)).astype(np.int64)
    parts = [pfn[layout.memmap.valid(pfn)]]
    missing = int((~own.valid).sum())
    entries = own.bytes.view(np.uint64).copy()
    entries[own.addr == halves.own_at, top.user_entries :] = 0
    here = _below(layout, top.level, np.concatenate([entries.reshape(-1), halves.right]))
    for shape in below:
        parts.append(here)
        if shape.level == Level.PTE:
            break
        here, lost = _all_below(layout, here, shape)
        missing += lost
    return distinct(np.concatenate(parts)), missing


def _all_below(layout: Layout, pfns: I64, shape: LevelShape) -> tuple[I64, int]:
    """The tables that tables of one level lead to, and how many cannot be read."""
    found, missing = [np.empty(0, np.int64)], 0
    for at in range(0, len(pfns), _AT_ONCE):
        addresses = pfns[at : at + _AT_ONCE].astype(np.uint64) << np.uint64(layout.memmap.page_shift)
        raw = layout.memory.gather(addresses, 8 * shape.entries, physical=True)
        missing += int((~raw.valid).sum())
        found.append(_below(layout, shape.level, raw.bytes[raw.valid].view(np.uint64).reshape(-1)))
    return distinct(np.concatenate(found)), missing


def _below(layout: Layout, level: Level, entries: U64) -> I64:
    """The tables that entries of this level point to, each once."""
    arch = layout.arch
    down = arch.table_mask(level, entries) & ~arch.leaf_mask(level, entries)
    pfns = distinct(arch.table_pfn(entries[down]).astype(np.int64))
    return pfns[layout.memmap.valid(pfns)]
