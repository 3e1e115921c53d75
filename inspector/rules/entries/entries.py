"""What rules of single entries ask: may it be written, in which kind of VMA, and which of its pages are of a kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.arch.base import Bit, Level
from inspector.columns import I64, Mask, take_or
from inspector.layout.flags import MAPPING_TAGS, VM_SHARED
from inspector.snapshot import Snapshot

_VM_SHADOW_STACK = 1 << 37
"""VM_SHADOW_STACK of x86 (6.6 and later; the bit had another use before)."""


def vma_has(s: Snapshot, flag: int) -> Mask:
    """Which mappings lie in a VMA with all bits of ``flag``."""
    m = s.mappings
    if not len(s.vmas):
        return np.zeros(len(m), np.bool_)
    return take_or(s.vmas.has(flag), m.vma_idx, False)


def in_shared_vma(s: Snapshot) -> Mask:
    """Which mappings lie in VM_SHARED VMAs."""
    return vma_has(s, VM_SHARED)


def writable(s: Snapshot) -> Mask:
    """Which mappings let user space write: the RW bit, or a shadow stack's entry in a VMA for that.

    The bit is not looked at in entries that are present for the mm only (PROT_NONE, NUMA hints).
    """
    bits = s.counts.bits
    out: Mask = (bits & Bit.WRITE) != 0
    # Only kernels that know shadow stacks keep the dirty bit of read-only entries elsewhere (bit 58).
    if getattr(s.layout.arch, "saved_dirty", False):
        out |= vma_has(s, _VM_SHADOW_STACK) & ((bits & Bit.SHADOW_STACK) != 0)
    return out & ((bits & Bit.PROT_NONE) == 0)


def anon_pages(s: Snapshot) -> Mask:
    """Which pages belong to anonymous folios, hugetlb and KSM included; by page row."""
    pages, folios = s.pages, s.folios
    head = np.maximum(pages.head_row, 0)
    alone: Mask = ((pages.mapping & np.uint64(1)) != 0) & (pages.type_ == 0)
    alone[folios.row] = folios.is_anon
    return alone[head] & (pages.head_row >= 0) & pages.readable[head]


def file_pages(s: Snapshot) -> Mask:
    """Which pages belong to folios that name an address_space, hugetlb included; by page row."""
    pages, folios = s.pages, s.folios
    head = np.maximum(pages.head_row, 0)
    alone: Mask = (pages.mapping != 0) & ((pages.mapping & np.uint64(MAPPING_TAGS)) == 0)
    typed = pages.type_ != 0
    typed[folios.row[folios.is_hugetlb]] = False
    alone &= ~typed
    return alone[head] & (pages.head_row >= 0) & pages.readable[head]


@dataclass(frozen=True)
class Offending:
    """Pages of a kind under some mappings.

    Attributes:
        rows: int64; mappings with at least one such page.
        pages: int64; how many each has.
        first: int64; row of the first of them.
    """

    rows: I64
    pages: I64
    first: I64

    def first_pfn(self, s: Snapshot) -> I64:
        """Page frame of the first such page."""
        return s.pages.memmap.pfns_of_rows(self.first)

    def first_head(self, s: Snapshot) -> I64:
        """Page frame of the head of its folio."""
        return s.pages.memmap.pfns_of_rows(np.maximum(s.pages.head_row[self.first], 0).astype(np.int64))


def offending(s: Snapshot, rows: I64, mask: Mask) -> Offending:
    """Which of the mappings map a page of the mask; under a huge entry the head stands for all.

    Args:
        s: The snapshot.
        rows: Of mappings with a struct page.
        mask: By page row.
    """
    m = s.mappings
    before = np.concatenate([[0], np.cumsum(mask)])
    nr = np.where(m.level[rows] == Level.PTE, m.nr[rows], 1).astype(np.int64)
    first = np.maximum(s.pages.memmap.rows(m.pfn[rows]), 0)
    count = before[np.minimum(first + nr, len(mask))] - before[first]
    hit = np.flatnonzero(count > 0)
    where = np.flatnonzero(mask)
    return Offending(rows[hit], count[hit], where[before[first[hit]]])
