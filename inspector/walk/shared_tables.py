"""PMD tables of hugetlb memory: who shares each, and the stored count of sharers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I32, I64, U64, Mask, Table, page_key, take_or
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.vmas import Vmas
from inspector.walk.mappings import ENTERED, TABLE_TWICE_IN_MM

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Sharers(Table):
    """One row a place from which a PMD table of hugetlb memory is reached, ordered by table.

    Attributes:
        pfn: int64; the table's page frame.
        table_idx: int32; row in `PageTables`.
        mm_idx, vma_idx: int32; whose, and the hugetlb VMA there.
        va: uint64; first address that the table covers.
        address_space_idx: int32; row of the VMA's address_space in the table of those, -1 for none.
        index: uint64; page offset in the file of that address.
    """

    pfn: I64
    table_idx: I32
    mm_idx: I32
    vma_idx: I32
    va: U64
    address_space_idx: I32
    index: U64


@dataclass(frozen=True, slots=True)
class HugetlbTables(Table):
    """One row a PMD table of hugetlb memory.

    Attributes:
        pfn: int64.
        table_idx: int32; its first row in `PageTables`.
        first: int64; its first row in `Sharers`.
        nr_sharers: int64; places from which it is reached.
        share_count: int64; pt_share_count as stored, or where there is none the references but one.
        readable: bool.
    """

    pfn: I64
    table_idx: I32
    first: I64
    nr_sharers: I64
    share_count: I64
    readable: Mask


def hugetlb_tables(s: Snapshot) -> tuple[HugetlbTables, Sharers]:
    """All PMD tables of hugetlb memory and the places they are reached from (mm/hugetlb.c, huge_pmd_share())."""
    sharers = _sharers(s)
    pfn, first, nr = np.unique(sharers.pfn, return_index=True, return_counts=True)
    count, readable = share_counts(s.layout, pfn)
    tables = HugetlbTables(pfn, sharers.table_idx[first], first.astype(np.int64), nr.astype(np.int64), count, readable)
    return tables, sharers


def _sharers(s: Snapshot) -> Sharers:
    t, vmas = s.tables, s.vmas
    rows = np.flatnonzero((t.level == Level.PMD) & np.isin(t.state, (*ENTERED, TABLE_TWICE_IN_MM)))
    shape = next(each for each in s.layout.arch.shapes if each.level == Level.PMD)
    vma = last_hugetlb_vma(vmas, t.mm_idx[rows], t.va[rows], shape.entries << shape.shift, s.layout.arch.page_shift)
    rows, vma = rows[vma >= 0], vma[vma >= 0]
    order = np.argsort(t.pfn[rows], kind="stable")
    rows, vma = rows[order], vma[order]
    # The VMA may begin after the table does; the sum wraps around and stays comparable.
    ahead = (t.va[rows] - vmas.start[vma]).astype(np.int64) >> s.layout.memmap.page_shift
    return Sharers(
        pfn=t.pfn[rows],
        table_idx=rows.astype(np.int32),
        mm_idx=t.mm_idx[rows],
        vma_idx=vma,
        va=t.va[rows],
        address_space_idx=s.file_rmap.address_space_of_vma[vma],
        index=vmas.pgoff[vma] + ahead.astype(np.uint64),
    )


def last_hugetlb_vma(vmas: Vmas, mm_idx: I32, va: U64, span: int, page_shift: int) -> I32:
    """The last hugetlb VMA of each mm that reaches into [va, va + span); -1 for none."""
    huge, shift = np.flatnonzero(vmas.is_hugetlb), np.uint64(page_shift)
    last = page_key(mm_idx, (va + np.uint64(span - 1)) >> shift)
    at = np.searchsorted(page_key(vmas.mm_idx[huge], vmas.start[huge] >> shift), last, "right") - 1
    found = take_or(huge, at, -1)
    inside = (take_or(vmas.mm_idx, found, -1) == mm_idx) & (take_or(vmas.end, found, 0) > va)
    return np.where(inside, found, -1).astype(np.int32)


def share_counts(layout: Layout, pfn: I64) -> tuple[I64, Mask]:
    """Sharers beyond the first that each table counts, and whether it could be read.

    Kernels without pt_share_count count them by the references of the table's page.
    """
    field, first = layout.ptdesc.find("pt_share_count.counter"), 0
    if field is None:
        field, first = layout.struct("struct page").field("_refcount.counter", "_refcount"), 1
    raw = layout.memory.gather(layout.memmap.page_addrs(pfn) + np.uint64(field.offset), 4)
    return raw.bytes.view(np.int32).reshape(-1).astype(np.int64) - first, raw.valid
