"""Memory of every VMA by kind, with the definitions of /proc/PID/smaps, rebuilt from the page tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import PFN_KINDS, Kind, Level
from inspector.columns import I64, U64, AnyArray, Mask, Table, distinct, expand_runs, take_or
from inspector.layout.flags import VM_LOCKED, VM_SHARED, VM_WRITE
from inspector.layout.kernel import Layout
from inspector.lib.xarray import XArrayEntries, walk_xarrays
from inspector.model.counters import RmapCounter
from inspector.model.expectation import BIAS, page_terms
from inspector.model.scheme import Scheme
from inspector.records import dataclass
from inspector.tables.files import shmem_swapped_pages
from inspector.tables.mms import RSS_ANON, RSS_SHMEM
from inspector.tables.vmas import Vmas
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import Mappings, entry_pages
from inspector.walk.rss import rss_class
from inspector.walk.shared_tables import share_counts

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_PSS_SHIFT = 12
"""Bits of fraction in the kernel's proportional sizes (fs/proc/task_mmu.c)."""


@dataclass(frozen=True, slots=True)
class VmaFigures(Table):
    """One row a VMA, in the order of `Vmas`; everything in base pages but for ``locked_bytes``.

    Attributes:
        rss: int64; smaps Rss: pages mapped, migration and poison entries included, hugetlb and zero pages
            not.
        anon: int64; of these anonymous (smaps Anonymous).
        file, shmem: int64; of these of a file; of shmem or tmpfs.
        anon_pmd, shmem_pmd, file_pmd: int64; mapped by PMDs (AnonHugePages, ShmemPmdMapped, FilePmdMapped).
        hugetlb_private, hugetlb_shared: int64; Private_Hugetlb, Shared_Hugetlb.
        swap: int64; swap entries in the page tables.
        shmem_swap: int64; pages of a shmem file that are swapped out; smaps Swap is ``swap + shmem_swap``.
        locked_bytes: int64; proportional share of VM_LOCKED VMAs in bytes: smaps Locked is this >> 10.
    """

    rss: I64
    anon: I64
    file: I64
    shmem: I64
    anon_pmd: I64
    shmem_pmd: I64
    file_pmd: I64
    hugetlb_private: I64
    hugetlb_shared: I64
    swap: I64
    shmem_swap: I64
    locked_bytes: I64


def vma_figures(s: Snapshot, *, stored: bool = False) -> VmaFigures:
    """The figures of all VMAs (fs/proc/task_mmu.c, smap_gather_stats()).

    Two of them depend on how often others map a page: ``locked_bytes``, and which hugetlb memory is shared.

    They count what is mapped. smaps of 6.1 has less in two places: it skips huge PMDs that are PROT_NONE or NUMA hints
    (follow_trans_huge_pmd() refuses them), and the copied pages of VM_PFNMAP VMAs.

    Args:
        s: The snapshot.
        stored: Take those from the counts that the kernel keeps, as smaps does, because the page tables of other mms
            were not walked; else from the mappings of all.
    """
    n = len(s.vmas)
    vma, head, nr, level, table = _present(s)
    hugetlb = _is_hugetlb(s, head)
    kind = rss_class(s.layout, s.pages, head)
    plain, pmd = ~hugetlb, ~hugetlb & (level == Level.PMD)

    def total(keep: Mask) -> I64:
        return np.bincount(vma[keep], weights=nr[keep], minlength=n).astype(np.int64)

    anon, shmem = kind == RSS_ANON, kind == RSS_SHMEM
    file = ~anon & ~shmem
    shared = hugetlb & (_reached_twice(s, table, level, stored=stored) | _mapped_twice(s, head, stored=stored))
    swap = (s.nonpresent.kind == Kind.SWAP) & (s.nonpresent.vma_idx >= 0)
    return VmaFigures(
        rss=total(plain),
        anon=total(plain & anon),
        file=total(plain & file),
        shmem=total(plain & shmem),
        anon_pmd=total(pmd & anon),
        shmem_pmd=total(pmd & shmem),
        file_pmd=total(pmd & file),
        hugetlb_private=total(hugetlb & ~shared),
        hugetlb_shared=total(shared),
        swap=np.bincount(s.nonpresent.vma_idx[swap], minlength=n).astype(np.int64),
        shmem_swap=shmem_swapped(s),
        locked_bytes=_locked_bytes(s, stored=stored),
    )


def _present(s: Snapshot) -> tuple[I64, I64, I64, AnyArray, AnyArray]:
    """VMA, head row, pages, level and row of the table of each entry with a page behind it."""
    m, n = s.mappings, s.nonpresent
    rows = np.flatnonzero((m.entry_class == EntryClass.NORMAL) & (m.vma_idx >= 0))
    counted = np.isin(n.kind, np.array(PFN_KINDS, np.uint8))  # is_pfn_swap_entry()
    away = np.flatnonzero(counted & (n.vma_idx >= 0))
    at = s.pages.memmap.rows(n.pfn[away])
    away, at = away[at >= 0], at[at >= 0]
    head = s.pages.head_row[at]
    away, head = away[head >= 0], head[head >= 0]
    table = np.concatenate([m.table_idx[rows], n.table_idx[away]])
    level = np.concatenate([m.level[rows], n.level[away]])
    pages = entry_pages(s.layout, level)
    pages[: len(rows)] *= m.nr[rows]
    return (
        np.concatenate([m.vma_idx[rows], n.vma_idx[away]]).astype(np.int64),
        np.concatenate([m.head_row[rows], head]).astype(np.int64),
        pages,
        level,
        table,
    )


def _reached_twice(s: Snapshot, table: AnyArray, level: AnyArray, *, stored: bool) -> Mask:
    """Which entries lie in a table that several PUDs lead to (hugetlb_pmd_shared())."""
    pfns, reached = np.unique(s.tables.pfn, return_counts=True)
    several = reached > 1
    at = np.searchsorted(pfns, s.tables.pfn[table])
    if stored:
        pmds = distinct(at[level == Level.PMD])
        several[pmds] |= share_counts(s.layout, pfns[pmds])[0] > 0
    return several[at] if len(table) else np.zeros(0, np.bool_)


def _is_hugetlb(s: Snapshot, head: I64) -> Mask:
    return take_or(s.folios.is_hugetlb, s.folio_of_page[head], False)


def _mapped_twice(s: Snapshot, head: I64, *, stored: bool) -> Mask:
    entire = s.folios.entire_raw + np.int32(BIAS[RmapCounter.ENTIRE]) if stored else s.counts.entire
    return take_or(entire, s.folio_of_page[head], 0) > 1


def _locked_bytes(s: Snapshot, *, stored: bool) -> I64:
    """Each page of a locked VMA divided by its mappings, as smaps_account() does it, page by page."""
    n, m = len(s.vmas), s.mappings
    in_locked = take_or(s.vmas.has(VM_LOCKED), m.vma_idx, False)
    rows = np.flatnonzero((m.entry_class == EntryClass.NORMAL) & in_locked)
    rows = rows[~_is_hugetlb(s, m.head_row[rows].astype(np.int64))]
    nr = entry_pages(s.layout, m.level[rows]) * m.nr[rows]
    page = expand_runs(s.pages.memmap.rows(m.pfn[rows]), nr).astype(np.int64)
    page = np.minimum(page, len(s.pages) - 1)
    mapped = _stored_mappings(s, page) if stored else _mappings(s, page)
    share = (1 << (s.layout.arch.page_shift + _PSS_SHIFT)) // np.maximum(mapped, 1)
    vma = np.repeat(m.vma_idx[rows], nr)
    out = np.zeros(n, np.int64)
    np.add.at(out, vma, share)
    return out >> _PSS_SHIFT


def _mappings(s: Snapshot, page: I64) -> I64:
    """Mappings of each page, rebuilt: its PTEs, and the huge entries that map its folio."""
    return s.counts.page_mappings[page].astype(np.int64) + take_or(s.counts.entire, s.folio_of_page[page], 0)


def _stored_mappings(s: Snapshot, page: I64) -> I64:
    """Mappings of each page as the kernel counts them (page_mapcount(); folio_average_page_mapcount())."""
    folios, folio, scheme = s.folios, s.folio_of_page[page], s.scheme or Scheme.LARGE
    entire = folios.entire_raw + np.int32(BIAS[RmapCounter.ENTIRE])
    terms = page_terms(scheme, entire, folios.is_hugetlb, folios.is_anon, folios.double_map)
    extra: I64 = sum(terms.of_folio.values(), np.zeros(len(folios), np.int64))
    whole = take_or(entire, folio, 0).astype(np.int64)
    alone = s.pages.mapcount_raw[page].astype(np.int64) + BIAS[RmapCounter.PAGE] - take_or(extra, folio, 0) + whole
    by_ptes = folios.large_raw.astype(np.int64) + BIAS[RmapCounter.LARGE] - entire
    average = np.maximum(entire + ((by_ptes + folios.nr_pages // 2) >> folios.order.astype(np.int64)), 1)
    return np.where(take_or(terms.counts_ptes, folio, True) | (folio < 0), alone, take_or(average, folio, 1))


def shmem_swapped(s: Snapshot) -> I64:
    """Pages of each VMA that its shmem file has in swap (mm/shmem.c, shmem_swap_usage()).

    A private writable VMA counts only those that its page tables leave open (smaps_pte_hole()).
    """
    vmas = s.vmas
    out = np.zeros(len(vmas), np.int64)
    rows, place, found = shmem_entries(s.layout, vmas)
    swapped = (found.value & np.uint64(1)) != 0
    root, index, nr = found.root[swapped], found.index[swapped], found.nr[swapped].astype(np.int64)
    private = vmas.has(VM_WRITE) & ~vmas.has(VM_SHARED)
    for row, array in zip(rows.tolist(), place.tolist(), strict=True):
        mine = root == array
        if not mine.any():
            continue
        pages = expand_runs(index[mine], nr[mine])
        first = vmas.pgoff[row]
        pages = pages[(pages >= first) & (pages < first + np.uint64(vmas.nr_pages[row]))] - first
        out[row] = len(pages) - (_occupied(s, row, pages) if private[row] else 0)
    return out


def shmem_entries(layout: Layout, vmas: Vmas) -> tuple[I64, I64, XArrayEntries]:
    """The page caches of all shmem files that are mapped and have pages in swap: all that `shmem_swapped` reads.

    Returns:
        Rows of the VMAs that map one, for each of them the number of its array, and the entries of these arrays.
    """
    rows, heads = _shmem_arrays(layout, vmas)
    arrays, place = np.unique(heads, return_inverse=True)
    return rows, place, walk_xarrays(layout.prog, layout.memory, arrays).all()


def _shmem_arrays(layout: Layout, vmas: Vmas) -> tuple[I64, U64]:
    """VMAs that map a shmem file with pages in swap, and the head word of that file's page cache."""
    none = np.empty(0, np.int64), np.empty(0, np.uint64)
    shmem = layout.target.symbol("shmem_aops")
    rows = np.flatnonzero(vmas.file)
    if shmem is None or not len(rows):
        return none
    files, which = np.unique(vmas.file[rows], return_inverse=True)
    file, space = layout.struct("struct file"), layout.struct("struct address_space")
    raw = layout.memory.gather(files, file.size)
    mapping = file.field("f_mapping").column(raw.bytes)
    raw = layout.memory.gather(mapping, space.size)
    mine = raw.valid & (space.field("a_ops").column(raw.bytes) == np.uint64(shmem))
    mine &= shmem_swapped_pages(layout, space.field("host").column(raw.bytes), mine) != 0
    heads = space.field("i_pages.xa_head").column(raw.bytes)
    keep = mine[which]
    return rows[keep], heads[which[keep]]


def _occupied(s: Snapshot, row: int, pages: U64) -> int:
    """How many of the pages (counted from the VMA's start) have an entry of their own in the page tables."""
    used = np.zeros(int(s.vmas.nr_pages[row]), np.bool_)
    shift = np.uint64(s.layout.arch.page_shift)
    for table in (s.mappings, s.nonpresent):
        mine = np.flatnonzero(table.vma_idx == row)
        first = ((table.va[mine] - s.vmas.start[row]) >> shift).astype(np.int64)
        nr = entry_pages(s.layout, table.level[mine])
        if isinstance(table, Mappings):
            nr = nr * table.nr[mine]
        spots = expand_runs(first, nr)
        used[spots[spots < np.uint64(len(used))].astype(np.int64)] = True
    return int(used[pages.astype(np.int64)].sum())
