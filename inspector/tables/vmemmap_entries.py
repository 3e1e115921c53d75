"""Kernel page-table entries of struct pages that optimised hugetlb folios share."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64, Mask, Table
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.folios import Folios


@dataclass(frozen=True, slots=True)
class VmemmapEntries(Table):
    """One row a page of struct pages of an optimised hugetlb folio, but for the first, which is its own.

    Attributes:
        folio: int64; row in `Folios`.
        address: uint64; of the first struct page there.
        at: uint64; physical address of its page-table entry.
        entry: uint64; the entry, 0 where a table above it leads nowhere.
        readable: bool; False where a table is not in the dump.
    """

    folio: I64
    address: U64
    at: U64
    entry: U64
    readable: Mask


def read_vmemmap_entries(layout: Layout, folios: Folios, optimised: Mask) -> VmemmapEntries:
    """Follow the kernel's tables to these entries (mm/hugetlb_vmemmap.c, vmemmap_remap_range()).

    Args:
        layout: The kernel's layout.
        folios: The folios.
        optimised: Those of them whose struct pages beyond the first page are shared.
    """
    per_page = layout.memmap.structs_a_page
    rows = np.flatnonzero(optimised & (folios.nr_pages > per_page))
    pages = folios.nr_pages[rows] // per_page - 1
    folio = np.repeat(rows, pages)
    within = np.arange(len(folio)) - np.repeat(np.cumsum(pages) - pages, pages) + 1
    pfn = folios.pfn[folio] + within * per_page
    address = layout.memmap.page_addrs(pfn)
    at, entry, readable = _leaves(layout, address)
    return VmemmapEntries(folio, address, at, entry, readable)


def _leaves(layout: Layout, addresses: U64) -> tuple[U64, U64, Mask]:
    """Physical addresses of the entries of kernel addresses, the entries, and which could be read."""
    arch, memory, shift = layout.arch, layout.memory, np.uint64(layout.memmap.page_shift)
    n = len(addresses)
    at, entry, readable = np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.bool_)
    init = layout.target.symbol("init_mm")
    top = memory.read_u64(init + layout.struct("struct mm_struct").field("pgd").offset) if init is not None else None
    if top is None or not n:
        return at, entry, readable
    alive = np.ones(n, np.bool_)
    for shape in arch.shapes:
        index = (addresses >> np.uint64(shape.shift)) & np.uint64(shape.entries - 1)
        if shape is arch.shapes[0]:
            # The top table is part of the kernel's image.
            entry, readable = memory.words(np.uint64(top) + np.uint64(8) * index)
        else:
            at = (arch.table_pfn(entry) << shift) + np.uint64(8) * index
            here = np.flatnonzero(alive & readable)
            entry = np.zeros(n, np.uint64)
            entry[here], readable[here] = memory.words(at[here], physical=True)
        if shape.level == Level.PTE:
            break
        # What a larger entry maps, or none, has no entry of its own.
        alive &= arch.table_mask(shape.level, entry) & ~arch.leaf_mask(shape.level, entry)
    return at, entry, readable
