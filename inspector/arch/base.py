"""The protocol of every architecture: levels, and entries decoded as whole arrays."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Protocol

import numpy as np

from inspector.columns import I64, U8, U16, U64, Mask
from inspector.loops import LeafWords
from inspector.records import dataclass

KERNEL_HALF = np.uint64(0xFF << 56)
"""Addresses from here on are the kernel's, with page tables of any depth; poison of lists and pointers is below."""


class Level(IntEnum):
    """Page-table levels, named as the kernel names the entry, smallest first."""

    PTE = 1
    PMD = 2
    PUD = 3
    P4D = 4
    PGD = 5


class Kind(IntEnum):
    """What one page-table slot holds."""

    NONE = 0
    TABLE = 1
    LEAF = 2
    """Present for the mm: hardware-present, PROT_NONE or NUMA-hinting, or a PMD being invalidated."""
    SWAP = 3
    MIGRATION_READ = 4
    MIGRATION_READ_EXCLUSIVE = 5
    MIGRATION_WRITE = 6
    DEVICE_READ = 7
    DEVICE_WRITE = 8
    DEVICE_EXCLUSIVE = 9
    HWPOISON = 10
    MARKER = 11
    SWAPIN_ERROR = 12
    BAD = 13
    """A pattern that this kernel never writes."""


MIGRATION_KINDS = (Kind.MIGRATION_READ, Kind.MIGRATION_READ_EXCLUSIVE, Kind.MIGRATION_WRITE)
PFN_KINDS = (*MIGRATION_KINDS, Kind.DEVICE_READ, Kind.DEVICE_WRITE, Kind.DEVICE_EXCLUSIVE, Kind.HWPOISON)
"""Non-present kinds whose offset is a page frame number."""


class Bit(IntFlag):
    """Attributes of an entry, the same on every architecture."""

    WRITE = 1 << 0
    DIRTY = 1 << 1
    YOUNG = 1 << 2
    USER = 1 << 3
    EXEC = 1 << 4
    SPECIAL = 1 << 5
    UFFD_WP = 1 << 6
    SOFT_DIRTY = 1 << 7
    PROT_NONE = 1 << 8
    """Present for the mm, not for the hardware: PROT_NONE, NUMA hint, or an invalidated huge PMD."""
    DEVMAP = 1 << 9
    EXCLUSIVE = 1 << 10
    """Swap entries: the anonymous page belonged to one process alone."""
    CONT = 1 << 11
    SHADOW_STACK = 1 << 12
    ODD = 1 << 13
    """Beside what is named here a bit that entries of ordinary memory rarely have or never: cache attributes, a
    protection key, a bit that no kernel sets. Runs with it are judged one by one."""
    SAVED_DIRTY = 1 << 14
    """Dirty, kept in a bit of the kernel's own while the entry is read-only."""


@dataclass(frozen=True, slots=True)
class LevelShape:
    """One level of the user half of the address space."""

    level: Level
    shift: int
    """log2 of the bytes one entry covers."""
    entries: int
    """Entries of one table."""
    user_entries: int
    """Entries of one table that user addresses can reach: fewer than ``entries`` at the top only."""
    can_leaf: bool

    def kernel_va(self, slots: I64) -> U64:
        """First address behind each entry in the kernel's half of the top table: its highest bit is all above it."""
        above = ~np.uint64((self.entries << self.shift) - 1)
        return above | slots.astype(np.uint64) << np.uint64(self.shift)


class Arch(Protocol):
    """Decoding of page-table entries; every method takes and gives whole uint64 arrays."""

    @property
    def name(self) -> str:
        """The kernel's name of the architecture."""

    @property
    def page_shift(self) -> int:
        """log2 of the page size."""

    @property
    def shapes(self) -> tuple[LevelShape, ...]:
        """The levels from the top of the tree down to the PTE level."""

    @property
    def leaf_words(self) -> LeafWords:
        """How `leaf_mask`, `leaf_pfn` and `leaf_step` are stated for PTEs, for compiled loops."""

    def classify(self, level: Level, entries: U64) -> U8:
        """The Kind of each entry (non-present entries get their exact kind)."""

    def leaf_mask(self, level: Level, entries: U64) -> Mask:
        """Which entries are leaves; cheaper than `classify`."""

    def table_mask(self, level: Level, entries: U64) -> Mask:
        """Which entries point to the next table."""

    def table_flags_wrong(self, level: Level, entries: U64) -> Mask:
        """Which table entries of user space carry other flags than the kernel writes (pmd_bad() and its kin)."""

    def isolated(self, entries: U64) -> Mask:
        """Which top-level entries of user space are as a kernel with page-table isolation keeps its own."""

    def user_top_pfn(self, pfns: I64) -> I64:
        """Page frame of the top table that user mode runs on under page-table isolation, by that of the kernel's."""

    def user_top_wrong(self, kernel: U64, user: U64) -> Mask:
        """Which top-level entries of user space do not agree with their twins in the table that user mode runs on."""

    def kernel_top_differs(self, entries: U64, others: U64) -> Mask:
        """Which entries of the kernel's half of top tables differ, but for what each mm may have of its own there.

        Args:
            entries: uint64[..., slots]; the kernel's half.
            others: The same of other tables, of a shape that broadcasts.
        """

    def leaf_pfn(self, level: Level, entries: U64) -> U64:
        """First page frame number of each leaf entry."""

    def table_pfn(self, entries: U64) -> U64:
        """Page frame number of the next table, for table entries."""

    def leaf_bits(self, level: Level, entries: U64) -> U16:
        """The `Bit` attributes of leaf entries."""

    def invalidated(self, levels: U8, entries: U64) -> Mask:
        """Which leaf entries are huge ones that are invalidated for a moment; `Bit.PROT_NONE` is set of these too."""

    def page_prot(self, vm_flags: U64) -> U64:
        """What vm_get_page_prot() gives for a VMA, without what drivers and writenotify change in it."""

    def page_prot_differs(self, prots: U64, others: U64, *, strict: Mask) -> Mask:
        """Which vm_page_prots are not what they should be; all of their bits count where ``strict``."""

    def access_differs(self, entries: U64, prots: U64) -> Mask:
        """Which leaves let other code in, or other instructions be fetched, than the vm_page_prots of their VMAs."""

    def caching_differs(self, levels: U8, entries: U64, prots: U64) -> Mask:
        """Which leaves are cached in another way than the vm_page_prots of their VMAs say."""

    def never_written(self, levels: U8, entries: U64) -> U64:
        """The bits of each leaf that the kernel sets in no leaf of user space."""

    def nonpresent_never_written(self, kinds: U8, entries: U64) -> U64:
        """The bits of each non-present entry, of some kinds, that the kernel gives no such entry."""

    def leaf_step(self, level: Level, entries: U64) -> U64:
        """What the next entry of a contiguous mapping differs by (modulo 2**64) from each leaf."""

    def swap_type(self, entries: U64) -> U8:
        """Swap type of each non-present entry."""

    def swap_offset(self, entries: U64) -> U64:
        """Swap offset of each non-present entry (for PFN kinds: the offset field, masks not applied)."""

    def nonpresent_pfn(self, entries: U64) -> U64:
        """Page frame number of each non-present entry of a PFN kind."""

    def nonpresent_bits(self, level: Level, entries: U64) -> U16:
        """The `Bit` attributes of non-present entries."""
