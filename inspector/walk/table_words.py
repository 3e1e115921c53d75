"""Words beside and above page tables: their locks, the entries that lead to them, the top tables of user mode."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.locks import spinlock_word
from inspector.tables.mms import Mms
from inspector.walk.mappings import PageTables


def read_table_locks(layout: Layout, tables: PageTables) -> Mask:
    """bool[tables]; which page tables' own locks are held (struct ptdesc, ptl).

    A lock that has no room in the descriptor is elsewhere (ALLOC_SPLIT_PTLOCKS: PREEMPT_RT, debugging kernels).
    """
    if not len(tables):
        return np.zeros(0, np.bool_)
    at = layout.memmap.page_addrs(tables.pfn)
    field, pointer = spinlock_word(layout.ptdesc, "ptl"), layout.ptdesc.find("ptl")
    if field is None:
        if pointer is None:
            return np.zeros(len(tables), np.bool_)
        at, _ = layout.memory.words(at + np.uint64(pointer.offset))
        field = spinlock_word(layout.struct("struct spinlock"))
        if field is None:
            return np.zeros(len(tables), np.bool_)
    raw = layout.memory.gather(at + np.uint64(field.offset), field.size)
    return raw.valid & raw.bytes.any(axis=1)


def read_upper_entries(layout: Layout, tables: PageTables) -> tuple[U64, Mask]:
    """uint64[tables], bool[tables]; the entry that leads to each table, and which have one that could be read."""
    below = np.flatnonzero(tables.parent >= 0)
    parent = tables.parent[below]
    place = (tables.pfn[parent].astype(np.uint64) << np.uint64(layout.memmap.page_shift)) + tables.slot[
        below
    ] * np.uint64(8)
    entry, known = np.zeros(len(tables), np.uint64), np.zeros(len(tables), np.bool_)
    entry[below], known[below] = layout.memory.words(place, physical=True)
    return entry, known


@dataclass(frozen=True)
class TopTables:
    """The user halves of the two top page tables that each mm has under page-table isolation.

    Attributes:
        mm_idx: int64[n]; rows of the mms whose own top table could be read.
        kernel, user: uint64[n, entries]; the entries of the kernel's table, and of the one that user mode runs on.
        readable: bool[n]; whether user mode's could be read.
    """

    mm_idx: I64
    kernel: U64
    user: U64
    readable: Mask


def read_top_tables(layout: Layout, mms: Mms) -> TopTables:
    """Both top tables of every mm; those of user mode only where most entries show that page tables are isolated."""
    arch = layout.arch
    entries = arch.shapes[0].user_entries
    known = np.flatnonzero(mms.pgd_pfn >= 0)
    kernel, readable = _halves(layout, mms.pgd_pfn[known], entries)
    known, kernel = known[readable], kernel[readable]
    used = int((kernel != 0).sum())
    if 2 * int(arch.isolated(kernel.reshape(-1)).sum()) <= used:
        return TopTables(known[:0], kernel[:0], kernel[:0], np.zeros(0, np.bool_))
    user, readable = _halves(layout, arch.user_top_pfn(mms.pgd_pfn[known]), entries)
    return TopTables(known, kernel, user, readable)


def _halves(layout: Layout, pfns: I64, entries: int) -> tuple[U64, Mask]:
    """uint64[tables, entries]; the user half of each top table, and which could be read."""
    at = pfns.astype(np.uint64) << np.uint64(layout.memmap.page_shift)
    raw = layout.memory.gather(at, 8 * entries, physical=True)
    return np.ascontiguousarray(raw.bytes).view(np.uint64).reshape(len(pfns), entries), raw.valid
