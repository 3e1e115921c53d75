"""What a page is used for, in one word."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, AnyArray
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS, PAGE_TYPES
from inspector.layout.kernel import Layout
from inspector.tables.folios import Folios
from inspector.tables.pages import Pages

_TYPE_NAMES = {"buddy": "free", "table": "page table", "large_kmalloc": "kmalloc"}


def page_kinds(layout: Layout, pages: Pages, folios: Folios, folio_of_page: I32, rows: I64) -> AnyArray:
    """The kind of the folio that each page belongs to.

    One of: unreadable, free, anon, ksm, shmem, file, hugetlb, slab, page table, zero, huge zero, reserved, movable,
    kernel, or the name of another page type.

    Args:
        layout: The kernel's layout.
        pages: All struct pages, or those of a window.
        folios: The compound pages among them.
        folio_of_page: Row in ``folios`` by page row.
        rows: Of ``pages``.
    """
    head = np.maximum(pages.head_row[rows], 0).astype(np.int64)
    flags, mapping = pages.flags[head], pages.mapping[head]
    tag = mapping & np.uint64(MAPPING_TAGS)
    out = np.full(len(rows), "kernel", "U16")
    out[(mapping != 0) & (tag == 0)] = "file"
    # From 6.15 on PG_swapbacked alone no longer tells shmem from anon, but anon is set below.
    out[(out == "file") & layout.flags.test(flags, "swapbacked")] = "shmem"
    out[tag == MAPPING_MOVABLE] = "movable"
    out[layout.flags.test(flags, "reserved")] = "reserved"
    out[pages.is_anon(head)] = "anon"
    out[pages.is_ksm(head)] = "ksm"
    out[pages.refcount[head] <= 0] = "free"
    for code, name in enumerate(PAGE_TYPES, 1):
        out[pages.type_[head] == code] = _TYPE_NAMES.get(name, name)
    if len(folios):
        folio = folio_of_page[rows]
        out[(folio >= 0) & folios.is_hugetlb[np.maximum(folio, 0)]] = "hugetlb"
    pfn = pages.memmap.pfns_of_rows(rows)
    out[pfn == layout.zero_pfn] = "zero"
    if layout.huge_zero_pfn >= 0:
        out[(pfn >= layout.huge_zero_pfn) & (pfn < layout.huge_zero_pfn + (1 << layout.pmd_order))] = "huge zero"
    out[~pages.readable[rows] | ~pages.readable[head]] = "unreadable"
    out[pages.head_row[rows] < 0] = "broken tail"
    return out
