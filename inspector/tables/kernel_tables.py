"""Page tables of the kernel's own mms."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64
from inspector.layout.kernel import Layout
from inspector.tables.mms import Mms

_MMS = ("init_mm", "efi_mm", "tboot_mm")
"""Mms that are variables: the kernel, EFI's services, Intel TXT. Those of tasks are slab objects."""


def kernel_tables(layout: Layout, mms: Mms) -> tuple[I64, int]:
    """Page frames of all tables that the kernel's half of any mm reaches, top tables included.

    All share the kernel's own tables but for what page-table isolation maps for one process alone: its LDT
    (arch/x86/kernel/ldt.c).

    Returns:
        The page frames, ascending, and how many tables could not be read.
    """
    top, *below = layout.arch.shapes
    size, field = 8 * top.entries, layout.struct("struct mm_struct").field("pgd").offset
    symbols = [layout.target.symbol(name) for name in _MMS]
    tops = [layout.memory.read_u64(mm + field) for mm in symbols if mm]
    # The top table of init_mm is part of the kernel's image, which no direct-map address names.
    own = layout.memory.gather(np.array([x for x in tops if x], np.uint64), size)
    base = layout.memory.direct_map_base
    pfn = ((own.addr - np.uint64(base)) >> np.uint64(layout.memmap.page_shift)).astype(np.int64)
    parts = [pfn[layout.memmap.valid(pfn)]]
    of_mms = _read(layout, np.unique(mms.pgd_pfn[mms.pgd_pfn >= 0]), size)
    missing = int((~own.valid).sum()) + of_mms[1]
    half = top.entries // 2
    entries = np.concatenate(
        [own.bytes.view(np.uint64).reshape(-1), of_mms[0].reshape(-1, top.entries)[:, half:].ravel()]
    )
    level = top.level
    for shape in below:
        here = _below(layout, level, entries)
        parts.append(here)
        level = shape.level
        if level == Level.PTE:
            break
        entries, lost = _read(layout, here, 8 * shape.entries)
        missing += lost
    return np.unique(np.concatenate(parts)), missing


def _read(layout: Layout, pfns: I64, size: int) -> tuple[U64, int]:
    """All entries of these tables, and how many tables could not be read."""
    raw = layout.memory.gather(pfns.astype(np.uint64) << np.uint64(layout.memmap.page_shift), size, physical=True)
    return raw.bytes[raw.valid].view(np.uint64).reshape(-1), int((~raw.valid).sum())


def _below(layout: Layout, level: Level, entries: U64) -> I64:
    """The tables that entries of this level point to, each once."""
    arch = layout.arch
    down = arch.table_mask(level, entries) & ~arch.leaf_mask(level, entries)
    pfns = np.unique(arch.table_pfn(entries[down]).astype(np.int64))
    return pfns[layout.memmap.valid(pfns)]
