"""Which pages may hold what belongs to users, judged by their struct pages and by who maps them."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U8, Mask, take_or
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS, type_code
from inspector.scratch import long_zeros
from inspector.snapshot import Snapshot
from inspector.walk.batches import Collector, EntryBatch
from inspector.walk.mappings import entry_pages

PRIVATE = (
    "unknown",
    "anonymous",
    "page cache",
    "hugetlb",
    "compressed swap",
    "free",
    "mapped by processes",
    "device memory",
)
"""Reasons, counted from 1; 0 is a page of the kernel's own."""

_TYPES = {"hugetlb": "hugetlb", "zsmalloc": "compressed swap", "buddy": "free", "offline": "free"}


def reason_code(name: str) -> int:
    """The code of a reason's name."""
    return PRIVATE.index(name) + 1


def judge_pages(s: Snapshot, pfns: I64) -> U8:
    """For each page frame why its content may be a user's: a code of `PRIVATE`, 0 when it is the kernel's.

    A page is the kernel's only when its struct page shows it: one whose struct page is missing is "unknown". Pages that
    were reserved at boot, which the kernel image is among, are the kernel's although every process maps the vDSO; those
    of devices are reserved, too, but hold what processes keep there.
    """
    row = s.pages.memmap.rows(pfns)
    out = _by_struct_page(s, pfns, np.maximum(row, 0))
    out[row < 0] = reason_code("unknown")
    return out


def _by_struct_page(s: Snapshot, pfns: I64, row: I64) -> U8:
    pages, flags = s.pages, s.layout.flags
    head_row = pages.head_row[row].astype(np.int64)
    head = np.maximum(head_row, 0)
    type_ = pages.type_[head]
    untyped = type_ == 0
    mapping = pages.mapping[head]
    tags = mapping & np.uint64(MAPPING_TAGS)
    out = np.zeros(len(row), np.uint8)
    out[s.collected(CoveredPages).of(pfns)] = reason_code("mapped by processes")
    # Slabs and other typed pages may have no reference since 6.18; an untyped page without one is on its way to free.
    out[untyped & (pages.refcount[head] <= 0)] = reason_code("free")
    out[np.isin(row, s.buddy_pages)] = reason_code("free")
    for name, reason in _TYPES.items():
        out[type_ == type_code(name)] = reason_code(reason)
    # zsmalloc before 6.12 has no type; it and balloons are all that is movable without being on a list of pages.
    out[untyped & (tags == MAPPING_MOVABLE)] = reason_code("compressed swap")
    # Shmem pages in the swap cache have no mapping, but are on the lists of reclaim.
    listed = flags.test(pages.flags[head], "lru") | flags.test(pages.flags[head], "swapbacked")
    out[untyped & (((mapping != 0) & (tags == 0)) | listed)] = reason_code("page cache")
    out[pages.is_anon(head)] = reason_code("anonymous")
    out[flags.test(pages.flags[row], "reserved")] = 0
    out[s.layout.of_device(pages.flags[row])] = reason_code("device memory")
    out[~pages.readable[row] | ~pages.readable[head] | (head_row < 0)] = reason_code("unknown")
    return out


class CoveredPages(Collector):
    """Which page frames a leaf entry of any kind covers.

    Attributes:
        mapped: bool by page frame number; workers write to it as well.
    """

    gathers = ()

    def __init__(self, s: Snapshot) -> None:
        super().__init__(s)
        self.mapped = long_zeros(s.layout.memmap.max_pfn, np.bool_, shared=True)

    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""
        m = batch.m
        nr = m.nr.astype(np.int64) * entry_pages(self.s.layout, m.level)
        single = nr == 1
        first = m.pfn[single]
        self.mapped[first[first < len(self.mapped)]] = True
        for first, end in zip(m.pfn[~single].tolist(), (m.pfn + nr)[~single].tolist(), strict=True):
            self.mapped[first:end] = True

    def of(self, pfns: I64) -> Mask:
        """Whether each of these is covered."""
        return take_or(self.mapped, np.where(pfns < len(self.mapped), pfns, -1), False)
