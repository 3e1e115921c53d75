"""All tables of one target, each built once, on demand."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, Mask, distinct
from inspector.layout.flags import MAPPING_TAGS
from inspector.model.expect import Expected, Rebuilt, expect
from inspector.snapshot_tables import SnapshotTables
from inspector.tables.anon_vmas import AnonRmap, build_anon_rmap
from inspector.tables.i_mmap import FileRmap, build_file_rmap
from inspector.tables.mmu_gather import Gathered
from inspector.tables.swap import Swap, build_swap
from inspector.tables.swap_clusters import Clusters, build_clusters
from inspector.walk.census import Census, take_census
from inspector.walk.deposits import Deposits, read_deposits
from inspector.walk.in_flight import InFlight, find_in_flight
from inspector.walk.ksm_rmap import KsmEntries, ksm_entries
from inspector.walk.linear import Links, build_links
from inspector.walk.lost_tables import LostTables, find_lost_tables
from inspector.walk.lost_vmas import LostVmas, find_lost_vmas
from inspector.walk.mappings import (
    TABLE_NO_PAGE,
    TABLE_NOT_A_TABLE,
    TABLE_OK,
    TABLE_TWICE_IN_MM,
    TABLE_UNREADABLE,
    Mappings,
    NonPresent,
    PageTables,
    Walk,
)
from inspector.walk.page_cache import PageCache, compare_cache
from inspector.walk.pagetable import walk_page_tables
from inspector.walk.references import ReferenceTerms, break_down, user_folios
from inspector.walk.rss import rebuild_rss
from inspector.walk.shared_tables import HugetlbTables, Sharers, hugetlb_tables
from inspector.walk.swap import SwapRefs, rebuild_swap_refs, referred_entries


class Snapshot(SnapshotTables):
    """Everything known about one target at one moment: what is read, and what following it leads to.

    Args:
        target: An opened target.
    """

    @cached_property
    def in_flight(self) -> InFlight:
        """Tasks that stand in a window, where they may have left counters and page tables out of step."""
        return find_in_flight(self)

    @cached_property
    def _walk(self) -> Walk:
        walk = walk_page_tables(self.layout, self.pages, self.mms, self.vmas)
        self.missing.add("page tables", int((walk.tables.state == TABLE_UNREADABLE).sum()))
        return walk

    @cached_property
    def _counted(self) -> tuple[Mappings, Census]:
        found = self._walk.mappings
        return take_census(self.layout, self.pages, self.folios, self.vmas, found)

    @property
    def mappings(self) -> Mappings:
        """One row a run of leaf entries."""
        return self._counted[0]

    @property
    def census(self) -> Census:
        """The mappings judged and counted."""
        return self._counted[1]

    @property
    def nonpresent(self) -> NonPresent:
        """One row a swap, migration or other non-present entry."""
        return self._walk.nonpresent

    @property
    def tables(self) -> PageTables:
        """One row a page table."""
        return self._walk.tables

    @cached_property
    def deposits(self) -> Deposits:
        """Page tables deposited for huge PMDs, and the rings that they hang in."""
        return read_deposits(self.layout, self.pages, self.tables)

    @cached_property
    def tables_complete(self) -> bool:
        """Whether every page table was read, so that a count of mappings is not just a lower bound."""
        skipped = (TABLE_UNREADABLE, TABLE_NO_PAGE, TABLE_NOT_A_TABLE, TABLE_TWICE_IN_MM)
        whole = not np.isin(self.tables.state, skipped).any()
        return whole and not self.missing.counts.get("mms") and not self.missing.counts.get("tasks")

    @cached_property
    def rebuilt(self) -> Rebuilt:
        """What the page tables say, in the form the model takes."""
        folios, census = self.folios, self.census
        return Rebuilt(
            page_mappings=census.page_mappings,
            head_row=folios.row,
            order=folios.order,
            entire=census.entire,
            is_hugetlb=folios.is_hugetlb,
            is_anon=folios.is_anon,
            double_map=folios.double_map,
        )

    @cached_property
    def expected(self) -> Expected | None:
        """What the model expects to be stored; None when the scheme is not known."""
        return None if self.scheme is None else expect(self.scheme, self.rebuilt, self.folio_of_page)

    @cached_property
    def folio_totals(self) -> I64:
        """All mappings of each large folio (M)."""
        totals = np.zeros(len(self.folios), np.int64)
        np.add.at(totals, self.census.pair_folio, self.census.pair_count)
        return totals

    @cached_property
    def rss(self) -> tuple[I64, Mask]:
        """The rss counters rebuilt: int64[mms, 4], and which mms could be rebuilt."""
        return rebuild_rss(self)

    @cached_property
    def mm_tables_complete(self) -> Mask:
        """Which mms' page tables were read whole."""
        whole = self.mms.pgd_pfn >= 0
        whole[self.tables.mm_idx[self.tables.state != TABLE_OK]] = False
        return whole

    @cached_property
    def lost_vmas(self) -> LostVmas:
        """VMAs that a reverse map leads to and that the mm they name does not know."""
        return find_lost_vmas(self)

    def table_owners(self, rows: I64) -> I64:
        """How many mms reach each of the given tables."""
        pfns, counts = np.unique(self.tables.pfn, return_counts=True)
        return counts[np.searchsorted(pfns, self.tables.pfn[rows])]

    @cached_property
    def links(self) -> Links:
        """Every mapped folio's own index beside its place."""
        return build_links(self)

    @cached_property
    def anon_rmap(self) -> AnonRmap:
        """anon_vmas, their chains and interval trees."""
        links = self.links
        named = distinct(links.mapping[links.is_anon]) & ~np.uint64(MAPPING_TAGS)
        freed = self.mms.users[self.vmas.mm_idx] <= 0
        rmap = build_anon_rmap(self.layout, self.vmas, named, freed)
        self.missing.add("anon_vmas and chains", rmap.unreadable)
        return rmap

    @cached_property
    def anon_vma_locked(self) -> Mask:
        """anon_vmas whose family is locked for writing: its trees may be half changed."""
        table = self.anon_rmap.anon_vmas
        root = np.maximum(table.root_idx, 0)
        return table.locked | (table.locked[root] & (table.root_idx >= 0)) if len(table) else table.locked

    @cached_property
    def file_rmap(self) -> FileRmap:
        """address_spaces and their trees of VMAs."""
        links = self.links
        named = distinct(links.mapping[links.is_file])
        named = named[(named & np.uint64(MAPPING_TAGS)) == 0]
        rmap = build_file_rmap(self.layout, self.vmas, named)
        self.missing.add("files and address_spaces", rmap.unreadable)
        return rmap

    @cached_property
    def ksm_entries(self) -> KsmEntries:
        """Every entry of a KSM page and the rmap_item that leads to it."""
        return ksm_entries(self)

    @cached_property
    def hugetlb_tables(self) -> tuple[HugetlbTables, Sharers]:
        """PMD tables of hugetlb memory, and the places each is reached from."""
        return hugetlb_tables(self)

    @cached_property
    def page_cache(self) -> PageCache:
        """Entries of the page cache and the folios they lead to, held against each other."""
        return compare_cache(self)

    @cached_property
    def swap(self) -> Swap:
        """Swap devices and their slots."""
        swap = build_swap(self.layout, self.files, referred_entries(self.layout, self.nonpresent, self.files))
        self.missing.add("swap devices", swap.unreadable)
        return swap

    @cached_property
    def swap_clusters(self) -> Clusters:
        """Clusters of the swap devices and the lists that they are on."""
        clusters = build_clusters(self.layout, self.swap)
        self.missing.add("swap clusters", clusters.unreadable)
        return clusters

    @cached_property
    def swap_refs(self) -> SwapRefs:
        """Who refers to each swap slot."""
        return rebuild_swap_refs(self)

    @property
    def gathered(self) -> Gathered:
        """Unmapped pages that wait for a TLB flush."""
        return self.gathers.pages

    @cached_property
    def lost_tables(self) -> LostTables:
        """Page tables that no address space reaches and nobody is said to hold."""
        return find_lost_tables(self)

    @cached_property
    def reference_terms(self) -> ReferenceTerms:
        """What holds the references of every folio of user memory and of the page cache."""
        return break_down(self, user_folios(self))

    def mappings_of(self, pfn: int, nr: int = 1) -> I64:
        """Rows of the mappings that cover any of the pages [pfn, pfn + nr)."""
        m = self.mappings
        pages = np.ones(len(m), np.int64)
        for shape in self.layout.arch.shapes:
            if shape.level != Level.PTE:
                pages[m.level == shape.level] = 1 << (shape.shift - self.layout.arch.page_shift)
        end = m.pfn + m.nr.astype(np.int64) * pages
        return np.flatnonzero((m.pfn < pfn + nr) & (end > pfn))
