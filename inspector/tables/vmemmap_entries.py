"""Kernel page-table entries of struct pages that optimised hugetlb folios share."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64, Mask, Table
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.folios import Folios
from inspector.tables.vmalloc import walk_kernel_tables


@dataclass(frozen=True, slots=True)
class VmemmapEntries(Table):
    """One row a page of struct pages of an optimised hugetlb folio, but for the first, which is its own.

    Attributes:
        folio: int64; row in `Folios`.
        address: uint64; of the first struct page there.
        at: uint64; physical address of its page-table entry, 0 where it has none.
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
    n = len(addresses)
    at, entry, readable = np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.bool_)
    for found in walk_kernel_tables(layout, addresses):
        readable[found.rows] = found.known
        # What a larger entry maps, or none, has no entry of its own.
        if found.shape.level == Level.PTE:
            at[found.rows], entry[found.rows] = found.at, found.entry
    return at, entry, readable
