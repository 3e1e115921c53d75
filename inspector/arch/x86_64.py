"""Page-table entries of x86-64: 4 and 5 levels, huge leaves, PROT_NONE inversion, swap entries.

Follows arch/x86/include/asm/pgtable_types.h, pgtable.h, pgtable_64.h and pgtable-invert.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from inspector.arch.base import Bit, Kind, Level, LevelShape
from inspector.arch.swapentry import SwapTypes
from inspector.columns import U8, U16, U64, Mask

PRESENT = np.uint64(1 << 0)
RW = np.uint64(1 << 1)
USER = np.uint64(1 << 2)
ACCESSED = np.uint64(1 << 5)
DIRTY = np.uint64(1 << 6)
PSE = np.uint64(1 << 7)
PROTNONE = np.uint64(1 << 8)
SPECIAL = np.uint64(1 << 9)
UFFD_WP = np.uint64(1 << 10)
SOFT_DIRTY = np.uint64(1 << 11)
DEVMAP = np.uint64(1 << 57)
SAVED_DIRTY = np.uint64(1 << 58)
NX = np.uint64(1 << 63)

SWP_SOFT_DIRTY = np.uint64(1 << 1)
SWP_UFFD_WP = np.uint64(1 << 2)
SWP_EXCLUSIVE = np.uint64(1 << 3)

_ERRATUM = ACCESSED | DIRTY
"""Bits that some processors set in an entry that is not present (_PAGE_KNL_ERRATUM_MASK)."""

_PFN_FIELD = np.uint64(((1 << 52) - 1) & ~0xFFF)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_SWP_TYPE_SHIFT = np.uint64(59)
_SWP_OFFSET_SHIFT = np.uint64(14)
_SWP_TYPE_BITS = np.uint64(5)


@dataclass(frozen=True)
class X86_64:  # noqa: N801  (the kernel's spelling)
    """Decoder of one x86-64 kernel's entries.

    Attributes:
        levels: 4 or 5.
        swap_types: How this kernel numbers its swap types.
        physical_mask: Bits that a physical address may have (the variable ``physical_mask``).
        sme_mask: The memory encryption bit, 0 without.
        max_physmem_bits: MAX_PHYSMEM_BITS, for the page frame field of migration entries.
        devmap: Whether bit 57 of a leaf marks DAX memory (before 6.17).
        saved_dirty: Whether bit 58 keeps the dirty bit of read-only entries (6.6 and later).
    """

    levels: int
    swap_types: SwapTypes
    physical_mask: int = (1 << 52) - 1
    sme_mask: int = 0
    max_physmem_bits: int = 46
    devmap: bool = False
    saved_dirty: bool = False

    @property
    def name(self) -> str:
        """The kernel's name of the architecture."""
        return "x86_64"

    @property
    def page_shift(self) -> int:
        """log2 of the page size."""
        return 12

    @cached_property
    def shapes(self) -> tuple[LevelShape, ...]:
        """The levels from the top of the tree down to the PTE level."""
        lower = (
            LevelShape(Level.PUD, 30, 512, 512, True),
            LevelShape(Level.PMD, 21, 512, 512, True),
            LevelShape(Level.PTE, 12, 512, 512, True),
        )
        if self.levels == 5:
            return (LevelShape(Level.PGD, 48, 512, 256, False), LevelShape(Level.P4D, 39, 512, 512, False), *lower)
        return (LevelShape(Level.PGD, 39, 512, 256, False), *lower)

    @cached_property
    def _address(self) -> U64:
        return np.uint64(self.physical_mask & ~self.sme_mask) & _PFN_FIELD  # type: ignore[return-value]

    def leaf_mask(self, level: Level, entries: U64) -> Mask:
        """Which entries are leaves (pte_present(), pmd_leaf())."""
        if level == Level.PTE:
            return (entries & (PRESENT | PROTNONE)) != 0
        if level in (Level.PGD, Level.P4D):
            return np.zeros(len(entries), np.bool_)
        # PSE stays while a huge entry is invalidated for a moment, so it alone makes it present (pmd_present()).
        return (entries & PSE) != 0

    def table_mask(self, level: Level, entries: U64) -> Mask:
        """Which entries point to the next table."""
        if level == Level.PTE:
            return np.zeros(len(entries), np.bool_)
        fits = (entries & _PFN_FIELD & ~(self._address | np.uint64(self.sme_mask))) == 0
        return ((entries & (PRESENT | PSE)) == PRESENT) & fits

    def _plain(self, entries: U64) -> U64:
        """Entries with the page frame bits of non-present ones inverted back (flip_protnone_guard())."""
        inverted = (entries & PRESENT) == 0
        if not inverted.any():
            return entries
        return np.where(inverted & (entries != 0), entries ^ _PFN_FIELD, entries)

    def leaf_pfn(self, level: Level, entries: U64) -> U64:
        """First page frame of each leaf."""
        mask = self._address
        if level == Level.PMD:
            mask = mask & np.uint64(~((1 << 21) - 1) & 0xFFFFFFFFFFFFFFFF)
        elif level == Level.PUD:
            mask = mask & np.uint64(~((1 << 30) - 1) & 0xFFFFFFFFFFFFFFFF)
        return (self._plain(entries) & mask) >> np.uint64(12)

    def table_pfn(self, entries: U64) -> U64:
        """Page frame of the next table."""
        return (entries & self._address) >> np.uint64(12)

    def leaf_step(self, level: Level, entries: U64) -> U64:
        """Difference between neighbouring entries of a contiguous mapping; inverted entries count down."""
        shift = {Level.PTE: 12, Level.PMD: 21, Level.PUD: 30}[level]
        step = np.uint64(1 << shift)
        absent = (entries & PRESENT) == 0
        if not absent.any():
            return np.broadcast_to(step, entries.shape)
        return np.where(absent, np.uint64((1 << 64) - (1 << shift)), step)

    def leaf_bits(self, level: Level, entries: U64) -> U16:
        """Attributes of leaves."""
        bits = np.zeros(len(entries), np.uint16)
        dirty = DIRTY | SAVED_DIRTY if self.saved_dirty else DIRTY
        tests = [
            (RW, Bit.WRITE),
            (dirty, Bit.DIRTY),
            (ACCESSED, Bit.YOUNG),
            (USER, Bit.USER),
            (SPECIAL, Bit.SPECIAL),
            (UFFD_WP, Bit.UFFD_WP),
            (SOFT_DIRTY, Bit.SOFT_DIRTY),
        ]
        if self.devmap:
            tests.append((DEVMAP, Bit.DEVMAP))
        for mask, bit in tests:
            bits |= np.where((entries & mask) != 0, np.uint16(bit), np.uint16(0))
        bits |= np.where((entries & NX) == 0, np.uint16(Bit.EXEC), np.uint16(0))
        bits |= np.where((entries & PRESENT) == 0, np.uint16(Bit.PROT_NONE), np.uint16(0))
        shadow = (entries & (RW | DIRTY | PRESENT)) == (DIRTY | PRESENT)
        return bits | np.where(shadow, np.uint16(Bit.SHADOW_STACK), np.uint16(0))

    def classify(self, level: Level, entries: U64) -> U8:
        """The kind of each entry."""
        kind = np.full(len(entries), Kind.BAD, np.uint8)
        empty = (entries & ~_ERRATUM) == 0
        absent = ~empty & ((entries & (PRESENT | PROTNONE | PSE)) == 0)
        swap = self.swap_types.kinds[self.swap_type(entries)]
        if level == Level.PTE:
            kind[absent] = swap[absent]
        elif level in (Level.PMD, Level.PUD):
            # Above the PTE level only entries that stand for a whole huge page exist; hugetlb uses every kind.
            legal = absent & (swap != Kind.SWAP) & (swap != Kind.SWAPIN_ERROR)
            kind[legal] = swap[legal]
            kind[absent & (swap == Kind.SWAP)] = Kind.SWAP
        kind[self.table_mask(level, entries)] = Kind.TABLE
        kind[self.leaf_mask(level, entries)] = Kind.LEAF
        kind[empty] = Kind.NONE
        return kind

    def swap_type(self, entries: U64) -> U8:
        """Swap type of non-present entries (__swp_type())."""
        return (entries >> _SWP_TYPE_SHIFT).astype(np.uint8)

    def swap_offset(self, entries: U64) -> U64:
        """Swap offset of non-present entries, stored inverted (__swp_offset())."""
        return (~entries << _SWP_TYPE_BITS) >> _SWP_OFFSET_SHIFT

    def nonpresent_pfn(self, entries: U64) -> U64:
        """Page frame of migration, device and poison entries (swp_offset_pfn())."""
        return self.swap_offset(entries) & np.uint64((1 << (self.max_physmem_bits - 12)) - 1)

    def nonpresent_bits(self, level: Level, entries: U64) -> U16:
        """Attributes of non-present entries."""
        bits = np.zeros(len(entries), np.uint16)
        tests = ((SWP_SOFT_DIRTY, Bit.SOFT_DIRTY), (SWP_UFFD_WP, Bit.UFFD_WP), (SWP_EXCLUSIVE, Bit.EXCLUSIVE))
        for mask, bit in tests:
            bits |= np.where((entries & mask) != 0, np.uint16(bit), np.uint16(0))
        return bits
