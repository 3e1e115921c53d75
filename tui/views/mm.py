"""Address spaces in columns: processes, the VMAs of one with the folios behind them, and the pages of a VMA."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import I64, U8, U64, AnyArray, Mask, Table
from inspector.report.processes import perms
from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_ANON, RSS_FILE, RSS_SHMEM, RSS_SWAP
from inspector.walk.counts import EntryClass
from inspector.walk.names import vma_names
from inspector.walk.rss import entry_pages
from inspector.walk.smaps import VmaFigures, vma_figures


@dataclass(frozen=True, slots=True)
class ProcessColumns(Table):
    """One row an mm, in the order of `Mms`; sizes in pages.

    Attributes:
        pid: int64; -1 for an mm without a task.
        users, tasks, vmas: int64.
        rss, anon, file, shmem, swap: int64; the kernel's own counters, exact.
        known: bool; False where they could not be read.
        huge: int64; mapped by huge entries, hugetlb left out.
        hugetlb: int64.
        tables: int64; bytes of page tables.
    """

    pid: I64
    users: I64
    tasks: I64
    vmas: I64
    rss: I64
    anon: I64
    file: I64
    shmem: I64
    swap: I64
    known: Mask
    huge: I64
    hugetlb: I64
    tables: I64


def process_columns(s: Snapshot, figures: VmaFigures | None = None) -> ProcessColumns:
    """The columns of all mms."""
    mms, n = s.mms, len(s.mms)
    f = figures or vma_figures(s)

    def per_mm(*columns: I64) -> I64:
        return np.bincount(s.vmas.mm_idx, weights=sum(columns), minlength=n).astype(np.int64)

    return ProcessColumns(
        pid=mms.pid.astype(np.int64),
        users=mms.users.astype(np.int64),
        tasks=mms.nr_tasks.astype(np.int64),
        vmas=np.bincount(s.vmas.mm_idx, minlength=n),
        rss=mms.rss[:, [RSS_ANON, RSS_FILE, RSS_SHMEM]].sum(axis=1),
        anon=mms.rss[:, RSS_ANON],
        file=mms.rss[:, RSS_FILE],
        shmem=mms.rss[:, RSS_SHMEM],
        swap=mms.rss[:, RSS_SWAP],
        known=mms.rss_valid,
        huge=per_mm(f.anon_pmd, f.shmem_pmd, f.file_pmd),
        hugetlb=per_mm(f.hugetlb_private, f.hugetlb_shared),
        tables=mms.pgtables_bytes,
    )


@dataclass(frozen=True, slots=True)
class VmaFolios(Table):
    """The folios that each VMA maps, in the order of the VMA rows asked for.

    Attributes:
        huge_pages: int64; pages mapped by huge entries.
        pte_pages: int64; pages mapped by PTEs.
        folios: int64; large folios of which it maps a page.
        partial: int64; of these, mapped by its PTEs but not with all their pages.
        order_bits: uint64; bit i is set when a folio of order i is among its folios, small ones included.
    """

    huge_pages: I64
    pte_pages: I64
    folios: I64
    partial: I64
    order_bits: U64


def vma_folios(s: Snapshot, vma_rows: I64) -> VmaFolios:
    """Folios by VMA; only mappings that the rmap counts."""
    m, counts = s.mappings, s.counts
    place = np.full(len(s.vmas) + 1, -1, np.int64)
    place[vma_rows] = np.arange(len(vma_rows))
    vma = place[m.vma_idx]
    rows = np.flatnonzero((vma >= 0) & (counts.entry_class == EntryClass.NORMAL))
    vma = vma[rows]
    folio = s.folio_of_page[counts.head_row[rows]].astype(np.int64)
    huge = m.level[rows] != Level.PTE
    pages = entry_pages(s.layout, m.level[rows]) * m.nr[rows].astype(np.int64)
    n = len(vma_rows)

    def total(weights: AnyArray, keep: Mask, at: AnyArray = vma) -> I64:
        return np.bincount(at[keep], weights=weights[keep], minlength=n).astype(np.int64)

    large = folio >= 0
    width = np.int64(max(len(s.folios), 1))
    key, which = np.unique(vma[large] * width + folio[large], return_inverse=True)
    by_pte = np.bincount(which, weights=np.where(huge[large], 0, pages[large]), minlength=len(key)).astype(np.int64)
    owner, row = key // width, key % width
    nr = s.folios.nr_pages[row] if len(s.folios) else row
    cut = (by_pte > 0) & (by_pte < nr)
    every = np.ones(len(key), np.bool_)
    bits = np.zeros(n, np.uint64)
    orders = s.folios.order[row].astype(np.uint64) if len(s.folios) else row.astype(np.uint64)
    np.bitwise_or.at(bits, owner, np.uint64(1) << np.minimum(orders, np.uint64(63)))
    np.bitwise_or.at(bits, vma[~large], np.uint64(1))
    return VmaFolios(
        total(pages, huge),
        total(pages, ~huge),
        total(np.ones(len(key)), every, owner),
        total(np.ones(len(key)), cut, owner),
        bits,
    )


def order_words(bits: int) -> str:
    """Orders named by the bits of a word: ``0 4 9``."""
    return " ".join(str(i) for i in range(64) if bits >> i & 1)


@dataclass(frozen=True, slots=True)
class Entries(Table):
    """The entries of one VMA by address: runs of PTEs, huge entries and what is not present.

    Attributes:
        va: uint64; first address.
        pages: int64.
        level: uint8; `inspector.arch.base.Level`.
        kind: uint8; `inspector.arch.base.Kind`, LEAF for what is present.
        entry_class: uint8; `inspector.walk.counts.EntryClass` of leaves.
        bits: uint16; `inspector.arch.base.Bit` of leaves.
        pfn: int64; first page frame, -1 when the entry names none.
        folio_pfn: int64; head of its folio, -1 when it has none.
        order: int64; of the folio, -1 when it has none.
        mapped: int64; mappings of the folio (small: of the page) over all processes.
        swap_type, swap_offset: int64; of swap entries, else -1.
    """

    va: U64
    pages: I64
    level: U8
    kind: U8
    entry_class: U8
    bits: AnyArray
    pfn: I64
    folio_pfn: I64
    order: I64
    mapped: I64
    swap_type: I64
    swap_offset: I64


def vma_entries(s: Snapshot, vma_row: int) -> Entries:
    """Everything that the page tables hold for one VMA."""
    m, n, counts = s.mappings, s.nonpresent, s.counts
    rows, away = np.flatnonzero(m.vma_idx == vma_row), np.flatnonzero(n.vma_idx == vma_row)
    head = counts.head_row[rows].astype(np.int64)
    safe = np.maximum(head, 0)
    folio = np.where(head >= 0, s.folio_of_page[safe], -1)
    none = np.full(len(away), -1, np.int64)
    some = np.maximum(folio, 0)
    order = np.where(folio >= 0, s.folios.order[some], 0) if len(s.folios) else np.zeros(len(rows), np.int64)
    total = np.where(folio >= 0, s.folio_totals[some], 0) if len(s.folios) else np.zeros(len(rows), np.int64)
    mapped = np.where(folio >= 0, total, counts.page_mappings[safe])
    swap = n.kind[away] == Kind.SWAP
    found = Entries(
        va=np.concatenate([m.va[rows], n.va[away]]),
        pages=np.concatenate(
            [entry_pages(s.layout, m.level[rows]) * m.nr[rows].astype(np.int64), entry_pages(s.layout, n.level[away])]
        ),
        level=np.concatenate([m.level[rows], n.level[away]]),
        kind=np.concatenate([np.full(len(rows), Kind.LEAF, np.uint8), n.kind[away]]),
        entry_class=np.concatenate([counts.entry_class[rows], np.zeros(len(away), np.uint8)]),
        bits=np.concatenate([counts.bits[rows], np.zeros(len(away), counts.bits.dtype)]),
        pfn=np.concatenate([m.pfn[rows], n.pfn[away]]),
        folio_pfn=np.concatenate([np.where(head >= 0, s.pages.memmap.pfns_of_rows(safe), -1), none]),
        order=np.concatenate([np.where(head >= 0, order, -1), none]),
        mapped=np.concatenate([np.where(head >= 0, mapped, 0), np.zeros(len(away), np.int64)]),
        swap_type=np.concatenate([np.full(len(rows), -1), np.where(swap, n.swap_type[away], -1)]).astype(np.int64),
        swap_offset=np.concatenate([np.full(len(rows), -1), np.where(swap, n.swap_offset[away].astype(np.int64), -1)]),
    )
    return found.take(np.argsort(found.va, kind="stable"))


def vma_rows_of(s: Snapshot, mm_idx: int) -> I64:
    """Rows of the VMAs of one mm, by address."""
    first, last = np.searchsorted(s.vmas.mm_idx, [mm_idx, mm_idx + 1])
    return np.arange(first, last)


def pfn_at(s: Snapshot, mm_idx: int, va: int) -> int | None:
    """The page frame with a struct page that an address of an mm is mapped to, if it is."""
    m = s.mappings
    rows = np.flatnonzero((m.mm_idx == mm_idx) & (m.va <= np.uint64(va)))
    pages = entry_pages(s.layout, m.level[rows]) * m.nr[rows].astype(np.int64)
    inside = (np.uint64(va) - m.va[rows]) >> np.uint64(s.layout.arch.page_shift)
    hit = np.flatnonzero(inside.astype(np.int64) < pages)
    if not len(hit):
        return None
    pfn = int(m.pfn[rows[hit[0]]]) + int(inside[hit[0]])
    return pfn if s.pages.memmap.row(pfn) >= 0 else None


def first_at(entries: Entries, va: int) -> int:
    """Place of the first entry that ends behind an address."""
    end = entries.va + (entries.pages.astype(np.uint64) << np.uint64(12))
    return min(int(np.searchsorted(end, np.uint64(va), "right")), max(len(entries) - 1, 0))


def vma_facts(s: Snapshot, vma_row: int) -> tuple[I64, list[tuple[str, str]]]:
    """The VMA as a column of one row, and what it says of itself."""
    v, row = s.vmas, np.array([vma_row], np.int64)
    flags = int(v.flags[vma_row])
    name = vma_names(s.layout, s.mms, v, row)[0] or "anonymous"
    facts = [
        ("backing", name),
        ("flags", f"{perms(flags)} {flags:#x}"),
        ("vma", f"{int(v.addr[vma_row]):#x}"),
        ("pgoff", f"{int(v.pgoff[vma_row]):#x}"),
    ]
    if v.anon_vma[vma_row]:
        facts.append(("anon_vma", f"{int(v.anon_vma[vma_row]):#x}"))
    return row, facts


__all__ = [
    "Entries",
    "ProcessColumns",
    "VmaFolios",
    "first_at",
    "order_words",
    "pfn_at",
    "process_columns",
    "vma_entries",
    "vma_facts",
    "vma_folios",
    "vma_rows_of",
]
