"""What a page is used for, in one word."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U8, AnyArray, take_or
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS, PAGE_TYPES
from inspector.layout.kernel import Layout
from inspector.tables.folios import Folios
from inspector.tables.pages import Pages

_TYPE_NAMES = {"buddy": "free", "table": "page table", "large_kmalloc": "kmalloc"}

KINDS = (
    *("kernel", "free", "anon", "ksm", "shmem", "file", "hugetlb", "movable", "reserved", "device"),
    *("zero", "huge zero", "unreadable", "broken tail"),
    *(_TYPE_NAMES.get(name, name) for name in PAGE_TYPES if name not in ("buddy", "hugetlb")),
)
"""Every kind there is; `kind_codes` gives places in it."""

_CODE = {name: code for code, name in enumerate(KINDS)}


def page_kinds(layout: Layout, pages: Pages, folios: Folios, folio_of_page: I32, rows: I64) -> AnyArray:
    """The kind of the folio that each page belongs to, in words: one of `KINDS`.

    Args:
        layout: The kernel's layout.
        pages: All struct pages, or those of a window.
        folios: The compound pages among them.
        folio_of_page: Row in ``folios`` by page row.
        rows: Of ``pages``.
    """
    return np.array(KINDS, np.str_)[kind_codes(layout, pages, folios, folio_of_page, rows)]


def kind_codes(layout: Layout, pages: Pages, folios: Folios, folio_of_page: I32, rows: I64) -> U8:
    """The same as a column of one byte a page, for many pages at once: places in `KINDS`."""
    head = np.maximum(pages.head_row[rows], 0).astype(np.int64)
    flags, mapping = pages.flags[head], pages.mapping[head]
    tag = mapping & np.uint64(MAPPING_TAGS)
    out = np.full(len(rows), _CODE["kernel"], np.uint8)
    file = (mapping != 0) & (tag == 0)
    out[file] = _CODE["file"]
    # From 6.15 on PG_swapbacked alone no longer distinguishes shmem from anon, but anon is set below.
    out[file & layout.flags.test(flags, "swapbacked")] = _CODE["shmem"]
    out[tag == MAPPING_MOVABLE] = _CODE["movable"]
    out[layout.flags.test(flags, "reserved")] = _CODE["reserved"]
    out[pages.is_anon(head)] = _CODE["anon"]
    out[pages.is_ksm(head)] = _CODE["ksm"]
    out[pages.refcount[head] <= 0] = _CODE["free"]
    # Persistent memory and the like; a page of it that is not in use has no references from 6.15 on.
    out[layout.of_device(flags) & ~pages.is_anon(head)] = _CODE["device"]
    type_ = pages.type_[head]
    typed = type_ != 0
    out[typed] = np.array([0, *(_CODE[_TYPE_NAMES.get(name, name)] for name in PAGE_TYPES)], np.uint8)[type_[typed]]
    out[take_or(folios.is_hugetlb, folio_of_page[rows], False)] = _CODE["hugetlb"]
    pfn = pages.memmap.pfns_of_rows(rows)
    out[pfn == layout.zero_pfn] = _CODE["zero"]
    if layout.huge_zero_pfn >= 0:
        huge = (pfn >= layout.huge_zero_pfn) & (pfn < layout.huge_zero_pfn + (1 << layout.pmd_order))
        out[huge] = _CODE["huge zero"]
    out[~pages.readable[rows] | ~pages.readable[head]] = _CODE["unreadable"]
    out[pages.head_row[rows] < 0] = _CODE["broken tail"]
    return out
