"""Faults of page tables that nothing is mapped through: those that are deposited, and those that were lost."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.layout.offsets import Struct
from inspector.snapshot import Snapshot
from inspector.walk.deposits import SOUND
from tests.faults.catalogue import fault
from tests.faults.counter_catalogue import share
from tests.faults.overlay import Patch, pfn_of, put
from tests.faults.plants import Planted, calm, mapcount_at, pick


def descriptor(s: Snapshot) -> Struct:
    """The type that describes a page table's page."""
    return s.layout.struct("struct ptdesc" if s.layout.has_struct("struct ptdesc") else "struct page")


def link_of(s: Snapshot, pfn: int) -> int:
    """Address of the list_head by which a deposited table hangs in its ring."""
    return s.layout.memmap.page_addr(pfn) + descriptor(s).field("pt_list", "lru").offset


def pointer_of(s: Snapshot, pfn: int) -> int:
    """Address of a PMD table's pmd_huge_pte."""
    return s.layout.memmap.page_addr(pfn) + descriptor(s).field("pmd_huge_pte").offset


def ring(s: Snapshot, least: int) -> tuple[int, list[int]]:
    """A PMD table at rest and the tables deposited with it, at least so many: page frames."""
    d = s.deposits
    still = ~s.mm_in_motion[s.tables.mm_idx[d.rows]] & (d.state == SOUND)
    at = pick(np.flatnonzero(still & (d.count >= least)), f"a ring of {least} deposited tables", 1)
    return int(s.tables.pfn[d.rows[at]]), d.pfn[d.table_idx == d.rows[at]].tolist()


def new_table(s: Snapshot) -> tuple[int, Patch]:
    """A page that the kernel uses for something else, made a page table: its page frame, and its type."""
    p = s.pages
    alone = (p.type_ == 0) & (p.refcount == 1) & (p.mapcount_raw == -1) & (p.mapping == 0) & (s.folio_of_page < 0)
    rows = np.flatnonzero(alone & calm(s) & (s.counts.page_mappings == 0) & (p.flags << np.uint64(40) == 0))
    # Top tables have no type before 6.14.
    rows = rows[~np.isin(p.memmap.pfns_of_rows(rows), s.mms.pgd_pfn)]
    row = pick(rows, "a page of the kernel", len(rows) // 2)
    table = int(p.mapcount_raw[p.memmap.row(int(s.deposits.pfn[0]))])
    return pfn_of(s, row), put(s, mapcount_at(s, row), table, 4)


def counted_table(s: Snapshot, pfn: int) -> Patch:
    """That page counted as a page table on its node, as pagetable_pte_ctor() does."""
    fields, row = s.layout.flag_fields, s.pages.memmap.row(pfn)
    node = 0 if fields is None else int(fields.nodes(s.pages.flags[np.array([row])])[0])
    return share(s, "NR_PAGETABLE", 1, node)


@fault
def deposited_table_forgotten(s: Snapshot) -> Planted:
    """pmd_huge_pte of a PMD table wiped."""
    owner, _ = ring(s, 1)
    return Planted((put(s, pointer_of(s, owner), 0),), ("deposited-tables-mismatch",), owner)


@fault
def deposited_table_left_out(s: Snapshot) -> Planted:
    """A ring closed without one of its two tables."""
    owner, (first, _) = ring(s, 2)
    link = link_of(s, first)
    return Planted((put(s, link, link), put(s, link + 8, link)), ("deposited-tables-mismatch",), owner)


@fault
def table_deposited_without_need(s: Snapshot) -> Planted:
    """One table more in the ring of a PMD table than it has huge entries."""
    owner, tables = ring(s, 1)
    more, typed = new_table(s)
    first, last, new = link_of(s, tables[0]), link_of(s, tables[-1]), link_of(s, more)
    links = {(last, 0): new, (new, 8): last, (new, 0): first, (first, 8): new}
    patches = tuple(put(s, place + offset, value) for (place, offset), value in links.items())
    return Planted((typed, counted_table(s, more), *patches), ("deposited-tables-mismatch",), owner)


@fault
def ring_of_deposited_tables_in_a_circle(s: Snapshot) -> Planted:
    """The second table of a ring leads to itself instead of back to the first."""
    owner, (_, second) = ring(s, 2)
    return Planted((put(s, link_of(s, second), link_of(s, second)),), ("deposit-list-damaged",), owner)


@fault
def page_in_use_deposited(s: Snapshot) -> Planted:
    """pmd_huge_pte names the PMD table itself."""
    owner, _ = ring(s, 1)
    return Planted((put(s, pointer_of(s, owner), s.layout.memmap.page_addr(owner)),), ("deposit-list-damaged",), owner)


@fault
def deposited_table_of_two_rings(s: Snapshot) -> Planted:
    """Two PMD tables name the same deposited table: one has lost its own."""
    d = s.deposits
    owner, _ = ring(s, 1)
    calm_rings = ~s.mm_in_motion[s.tables.mm_idx[d.rows]] & (d.count == 1) & (s.tables.pfn[d.rows] != owner)
    other = d.rows[pick(np.flatnonzero(calm_rings), "a second ring", 3)]
    page = s.layout.memmap.page_addr(int(d.pfn[d.table_idx == other][0]))
    return Planted((put(s, pointer_of(s, owner), page),), ("deposit-list-damaged",), None)


@fault
def page_table_that_hangs_nowhere(s: Snapshot) -> Planted:
    """A page of the kernel that has become a page table by its type alone."""
    pfn, typed = new_table(s)
    return Planted((typed, counted_table(s, pfn)), ("page-table-unreachable",), pfn)


def table_at_rest(s: Snapshot, level: Level) -> int:
    """A table of a process at rest that holds a few mappings or tables but nothing in swap, by its row."""
    t, m = s.tables, s.mappings
    swapped = np.bincount(s.nonpresent.table_idx, minlength=len(t)) > 0
    swapped[t.parent[swapped & (t.parent >= 0)]] = True
    still = (t.level == level) & t.first & (t.state == 0) & ~s.mm_in_motion[t.mm_idx] & (s.mms.nr_tasks[t.mm_idx] == 1)
    used = np.bincount(m.table_idx, minlength=len(t)) + np.bincount(t.parent[t.parent >= 0], minlength=len(t))
    return pick(np.flatnonzero(still & ~swapped & (used > 0) & (used < 6)), f"a {level.name} table with few entries", 6)


def entry_of(s: Snapshot, table: int) -> int:
    """Physical address of the entry that points to a table."""
    t = s.tables
    return (int(t.pfn[t.parent[table]]) << 12) + 8 * int(t.slot[table])


@fault
def last_level_table_lost(s: Snapshot) -> Planted:
    """The entry that points to a PTE table cleared: what it maps is mapped by nobody."""
    table = table_at_rest(s, Level.PTE)
    return Planted((Patch(entry_of(s, table), bytes(8), True),), ("page-table-unreachable",), int(s.tables.pfn[table]))


@fault
def tables_of_two_levels_lost(s: Snapshot) -> Planted:
    """The entry that points to a PMD table cleared: the tables below it are lost with it."""
    table = table_at_rest(s, Level.PMD)
    return Planted((Patch(entry_of(s, table), bytes(8), True),), ("page-table-unreachable",), int(s.tables.pfn[table]))
