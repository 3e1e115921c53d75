"""Page tables deposited for huge PMDs: each PMD table keeps a ring of PTE tables for when its huge entries split."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U8, U64, AnyArray, take_or
from inspector.layout.flags import type_code
from inspector.layout.kernel import Layout
from inspector.lib.list import ListEntries, walk_lists
from inspector.records import dataclass
from inspector.tables.pages import Pages
from inspector.walk.mappings import ENTERED, PageTables

SOUND, UNREAD, NO_PAGE, NOT_A_TABLE, IN_USE, LINKS, ENDLESS, SHARED = range(8)
"""Codes of `Deposits.state`."""

STATES = {
    NO_PAGE: "leads to something that is no struct page",
    NOT_A_TABLE: "leads to a page that is no page table",
    IN_USE: "leads to a page table in use",
    LINKS: "next and prev do not agree",
    ENDLESS: "does not lead back to where it begins",
    SHARED: "holds a table that is in another ring",
}
"""What is wrong with a ring, in words."""


@dataclass(frozen=True)
class Deposits:
    """The rings of all PMD tables.

    Attributes:
        pfn: int64[n]; deposited tables, those of damaged rings included, -1 where a pointer names no struct page.
        table_idx: int64[n]; row in `PageTables` of the PMD table that each is deposited in.
        rows: int64[k]; PMD tables examined, by their row in `PageTables`.
        count: int64[k]; tables in the ring of each.
        state: uint8[k]; `SOUND`, `UNREAD`, or what is wrong with the ring.
        where: int64[k]; page frame at which a damaged ring goes wrong, -1 where there is none.
    """

    pfn: I64
    table_idx: I64
    rows: I64
    count: I64
    state: U8
    where: I64


def deposits_tables(layout: Layout) -> bool:
    """Whether the kernel deposits page tables at all: it does so for THPs."""
    return layout.config.has("TRANSPARENT_HUGEPAGE")


def keeps_rings(layout: Layout) -> bool:
    """Whether deposited tables hang on their PMD table: with few CPUs in the configuration they hang on the mm."""
    return deposits_tables(layout) and not layout.struct("struct mm_struct").has("pmd_huge_pte")


def read_deposits(layout: Layout, pages: Pages, tables: PageTables) -> Deposits:
    """Follow the rings (mm/pgtable-generic.c, pgtable_trans_huge_deposit()).

    pmd_huge_pte names one of the tables, and the list_head in the descriptor of each the next one, without a head
    between them.
    """
    with_rings = (tables.level == Level.PMD) & tables.first & np.isin(tables.state, ENTERED) & keeps_rings(layout)
    rows = np.flatnonzero(with_rings)
    state = np.full(len(rows), SOUND, np.uint8)
    where = np.full(len(rows), -1, np.int64)
    page = layout.struct("struct page")
    pointer, link = layout.ptdesc.field("pmd_huge_pte"), layout.ptdesc.field("pt_list", "lru").offset
    memmap = layout.memmap
    begin, known = layout.memory.words(memmap.page_addrs(tables.pfn[rows]) + np.uint64(pointer.offset))
    state[~known] = UNREAD
    head = memmap.pfns(begin)
    state[known & (begin != 0) & (head < 0)] = NO_PAGE
    ring = np.flatnonzero(known & (head >= 0))
    entries = next(shape.entries for shape in layout.arch.shapes if shape.level == Level.PMD)
    found = walk_lists(layout.memory, begin[ring] + np.uint64(link), page.size, link, max_length=entries)
    # The walk gives what comes after the first.
    owner = np.concatenate([ring, ring[found.owner]])
    pfn = np.concatenate([head[ring], memmap.pfns(found.addr)])
    _judge_members(state, where, owner, pfn, (pages, tables))
    for code, lost in _left(layout, found, begin[ring], link):
        _judge(state, where, ring[lost], np.full(len(lost), -1), code)
    _judge(state, where, *_bad_links(layout, found, ring, begin, link), LINKS)
    _judge(state, where, ring[found.broken], np.full(len(found.broken), -1), ENDLESS)
    again = np.isin(pfn, _repeated(pfn))
    _judge(state, where, owner[again], pfn[again], SHARED)
    return Deposits(pfn, rows[owner], rows, np.bincount(owner, minlength=len(rows)), state, where)


def _judge(state: U8, where: I64, rings: AnyArray, pfns: AnyArray, code: int) -> None:
    """Note the first thing that is wrong with each ring."""
    for ring, pfn in zip(rings.tolist(), pfns.tolist(), strict=True):
        if state[ring] == SOUND:
            state[ring], where[ring] = code, pfn


def _judge_members(state: U8, where: I64, owner: I64, pfn: I64, known: tuple[Pages, PageTables]) -> None:
    pages, tables = known
    row = np.maximum(pages.memmap.rows(pfn), 0)
    reached = np.isin(pfn, tables.pfn)
    typed = (pages.type_[row] == type_code("table")) & (pages.refcount[row] > 0)
    lost = ~pages.readable[row]
    for code, bad in ((NO_PAGE, pfn < 0), (IN_USE, reached), (UNREAD, lost), (NOT_A_TABLE, ~typed)):
        _judge(state, where, owner[bad], pfn[bad], code)


def _left(layout: Layout, found: ListEntries, begin: U64, link: int) -> tuple[tuple[int, I64], tuple[int, I64]]:
    """Rings that left readable memory: because a pointer names no struct page, or because the dump lacks that one."""
    lost = found.unreadable.astype(np.int64)
    last = begin[lost]
    at = np.searchsorted(found.owner, lost, "right") - 1
    inside = take_or(found.owner, at, -1) == lost
    last[inside] = found.addr[at[inside]]
    after, known = layout.memory.words(last + np.uint64(link))
    nowhere = known & (layout.memmap.pfns(after - np.uint64(link)) < 0)
    return (NO_PAGE, lost[nowhere]), (UNREAD, lost[~nowhere])


def _bad_links(layout: Layout, found: ListEntries, ring: I64, begin: U64, link: int) -> tuple[I64, I64]:
    """Rings with a back link that does not name the table before it, and the table that has it."""
    before = np.empty(len(found.addr), np.uint64)
    before[1:] = found.addr[:-1]
    first = found.position == 0
    before[first] = begin[ring[found.owner[first]]]
    stored = np.ascontiguousarray(found.raw[:, link + 8 : link + 16]).view(np.uint64).reshape(-1)
    bad = stored != before + np.uint64(link)
    return ring[found.owner[bad]], layout.memmap.pfns(found.addr[bad])


def _repeated(pfn: I64) -> I64:
    values, counts = np.unique(pfn[pfn >= 0], return_counts=True)
    return values[counts > 1]
