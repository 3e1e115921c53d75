"""The entries of one VMA for the screen: runs of PTEs, huge entries and what is not present."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.arch.base import Bit, Kind, Level
from inspector.columns import I64, U8, U64, AnyArray, Table, take_or
from inspector.report.mappings import bit_words, kind_words
from inspector.snapshot import Snapshot
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import entry_pages
from tui.places import FolioPlace
from tui.views.rows import Rows, coded, number

_LEVELS = ("", *(level.name for level in Level))

_SLOT_BITS = 58
"""Swap offsets have fewer bits (MAX_SWAPFILES takes five above them)."""


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
        mapped: int64; mappings of the folio (small: of the page) over all processes, -1 where they are not counted.
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


def vma_entries(s: Snapshot, vma_row: int, whole: Snapshot | None) -> Entries:
    """Everything that the page tables hold for one VMA.

    Args:
        s: Has the VMA and what its page tables hold.
        vma_row: Row of the VMA there.
        whole: Has counted the mappings of all processes; None while that is not done.
    """
    m, n = s.mappings, s.nonpresent
    rows, away = np.flatnonzero(m.vma_idx == vma_row), np.flatnonzero(n.vma_idx == vma_row)
    head = m.head_row[rows].astype(np.int64)
    folio = take_or(s.folio_of_page, head, -1)
    none = np.full(len(away), -1, np.int64)
    order = take_or(s.folios.order, folio, 0)
    head_pfn = s.pages.memmap.pfns_of_rows(head)
    mapped = np.full(len(rows), -1, np.int64) if whole is None else _mapped(whole, head_pfn)
    swap = n.kind[away] == Kind.SWAP
    found = Entries(
        va=np.concatenate([m.va[rows], n.va[away]]),
        pages=np.concatenate(
            [entry_pages(s.layout, m.level[rows]) * m.nr[rows].astype(np.int64), entry_pages(s.layout, n.level[away])]
        ),
        level=np.concatenate([m.level[rows], n.level[away]]),
        kind=np.concatenate([np.full(len(rows), Kind.LEAF, np.uint8), n.kind[away]]),
        entry_class=np.concatenate([m.entry_class[rows], np.zeros(len(away), np.uint8)]),
        bits=np.concatenate([m.bits[rows], np.zeros(len(away), m.bits.dtype)]),
        pfn=np.concatenate([m.pfn[rows], n.pfn[away]]),
        folio_pfn=np.concatenate([head_pfn, none]),
        order=np.concatenate([np.where(head >= 0, order.astype(np.int64), -1), none]),
        mapped=np.concatenate([np.where(head >= 0, mapped, 0), np.zeros(len(away), np.int64)]),
        swap_type=np.concatenate([np.full(len(rows), -1), np.where(swap, n.swap_type[away].astype(np.int64), -1)]),
        swap_offset=np.concatenate([np.full(len(rows), -1), np.where(swap, n.swap_offset[away].astype(np.int64), -1)]),
    )
    return found.take(np.argsort(found.va, kind="stable"))


def _mapped(s: Snapshot, head_pfn: I64) -> I64:
    """Mappings of the folios headed by some page frames, small ones too, over all processes."""
    head = s.pages.memmap.rows(head_pfn)
    folio = take_or(s.folio_of_page, head, -1)
    return np.where(folio >= 0, take_or(s.folio_totals, folio, 0), s.counts.page_mappings[np.maximum(head, 0)])


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


def entry_table(entries: Entries) -> Rows:
    """What the page tables hold for one VMA; nothing is written before it is seen, however many entries there are."""

    def leads(row: int) -> FolioPlace | None:
        pfn = int(entries.pfn[row])
        return FolioPlace(pfn) if int(entries.folio_pfn[row]) >= 0 else None

    large = entries.order > 0
    slot = np.where(entries.swap_type >= 0, entries.swap_type << _SLOT_BITS | entries.swap_offset, -1)
    return Rows(
        [
            number("va", entries.va, lambda n: f"{n:#x}", shade=lambda _: "heat1"),
            number("pages", entries.pages),
            coded("level", entries.level, lambda n: _LEVELS[n]),
            coded("what", entries.kind.astype(np.int32) << 8 | entries.entry_class, _what),
            number("pfn", entries.pfn, lambda n: f"{n:#x}", blank=-1),
            number("folio", np.where(large, entries.folio_pfn, -1), lambda n: f"{n:#x}", blank=-1, drop=1),
            number("page", np.where(large, entries.pfn - entries.folio_pfn, -1), lambda n: f"+{n}", blank=-1, drop=4),
            number("order", entries.order, str, blank=-1),
            number("mapped", entries.mapped, _count, blank=0, drop=3),
            number("slot", slot, _slot, blank=-1, drop=3, shade=lambda _: "swap"),
            coded("attributes", entries.bits, lambda b: " ".join(bit_words(Bit(b))), drop=2),
        ],
        leads,
    )


def _count(value: int) -> str:
    return "?" if value < 0 else f"{value:,}"


def _slot(value: int) -> str:
    return f"{value >> _SLOT_BITS}:{value & (1 << _SLOT_BITS) - 1:#x}"


def _what(code: int) -> str:
    kind, entry_class = Kind(code >> 8), EntryClass(code & 0xFF)
    if kind is not Kind.LEAF:
        return kind_words(kind)
    return "mapped" if entry_class is EntryClass.NORMAL else entry_class.name.lower().replace("_", " ")
