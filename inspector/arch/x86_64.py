"""Page-table entries of x86-64: 4 and 5 levels, huge leaves, PROT_NONE inversion, swap entries.

Follows arch/x86/include/asm/pgtable_types.h, pgtable.h, pgtable_64.h and pgtable-invert.h.
"""

from __future__ import annotations

import numpy as np

from inspector.arch.base import MIGRATION_KINDS, PFN_KINDS, Bit, Kind, Level, LevelShape
from inspector.arch.swapentry import MARKER_GUARD, MARKER_POISONED, MARKER_UFFD_WP, SwapTypes
from inspector.columns import I64, U8, U16, U64, AnyArray, Mask
from inspector.loops import LeafWords
from inspector.records import cached_property, dataclass

PRESENT = np.uint64(1 << 0)
RW = np.uint64(1 << 1)
USER = np.uint64(1 << 2)
PWT = np.uint64(1 << 3)
PCD = np.uint64(1 << 4)
ACCESSED = np.uint64(1 << 5)
DIRTY = np.uint64(1 << 6)
PSE = np.uint64(1 << 7)
PAT = np.uint64(1 << 7)
GLOBAL = np.uint64(1 << 8)
PROTNONE = np.uint64(1 << 8)
SPECIAL = np.uint64(1 << 9)
UFFD_WP = np.uint64(1 << 10)
SOFT_DIRTY = np.uint64(1 << 11)
PAT_LARGE = np.uint64(1 << 12)
SOFTW4 = np.uint64(1 << 57)
SOFTW5 = np.uint64(1 << 58)
SAVED_DIRTY = SOFTW5
PKEY = np.uint64(0xF << 59)
_PKEY_SHIFT = np.uint64(59)
NX = np.uint64(1 << 63)
_PAGE_TABLE = np.uint64(0x67)
"""Flags of an entry that points to a table of user space (arch/x86/include/asm/pgtable_types.h)."""

SWP_SOFT_DIRTY = np.uint64(1 << 1)
SWP_UFFD_WP = np.uint64(1 << 2)
SWP_EXCLUSIVE = np.uint64(1 << 3)

_ERRATUM = ACCESSED | DIRTY
"""Bits that some processors set in an entry that is not present (_PAGE_KNL_ERRATUM_MASK)."""

_LDT_SLOT = 256 - 240
"""Of the kernel's half; with page-table isolation each mm maps its own there (arch/x86/kernel/ldt.c)."""

_ONE = np.uint64(1)
_PFN_FIELD = np.uint64(((1 << 52) - 1) & ~0xFFF)
_SWP_TYPE_SHIFT = np.uint64(59)
_SWP_OFFSET_SHIFT = np.uint64(14)
_SWP_TYPE_BITS = np.uint64(5)
_SWP_OFFSET_BITS = 50
_SWP_OFFSET_FIRST = np.uint64(9)

_SHIFT = {Level.PTE: 12, Level.PMD: 21, Level.PUD: 30, Level.P4D: 39, Level.PGD: 48}

_LOW_BITS = 12
_HIGH_SHIFT = 52
"""Attributes lie in the low 12 bits and from bit 52 on; what is between is the page frame and nothing else."""

_ALWAYS_IGNORED = np.uint64(0x1F << 52)
"""Bits that the processor ignores and the kernel has no use for (_PAGE_BIT_SOFTW4 is the lowest that it has)."""

_VM_READ, _VM_WRITE, _VM_EXEC, _VM_SHARED = (np.uint64(1 << bit) for bit in range(4))
_VM_PKEY_SHIFT = np.uint64(32)
"""include/linux/mm.h: what vm_get_page_prot() is made from."""

_PIECE = 1 << 14
"""Entries taken through several passes at a time (128 KiB), so that only the first one waits for memory."""

_NO_LEAF = (Level.PGD, Level.P4D)

_HUGE_KINDS = {
    Level.PMD: (*MIGRATION_KINDS, Kind.DEVICE_READ, Kind.DEVICE_WRITE, Kind.HWPOISON, Kind.MARKER, Kind.SWAP),
    Level.PUD: (*MIGRATION_KINDS, Kind.HWPOISON, Kind.MARKER, Kind.SWAP),
}
"""What may be in place of a huge leaf: transparent huge pages know migration and device memory, hugetlb migration,
poison and markers. A swap entry is legal nowhere, but it is named for the rule that no hugetlb mapping holds one."""


@dataclass(frozen=True)
class X86_64:  # noqa: N801  (the kernel's spelling)
    """Decoder of one x86-64 kernel's entries.

    Every method takes a one-dimensional uint64 array of any length and leaves it as it is.

    Attributes:
        levels: 4 or 5.
        swap_types: How this kernel numbers its swap types.
        physical_mask: Bits that a physical address may have (the variable ``physical_mask``).
        sme_mask: The memory encryption bit, 0 without.
        max_physmem_bits: MAX_PHYSMEM_BITS, for the page frame field of migration entries: 46, or 52 with 5 levels.
        devmap: Whether a bit of a leaf marks DAX memory (before 6.17): bit 58, and bit 57 where ``saved_dirty``.
        saved_dirty: Whether read-only entries keep their dirty bit in bit 58, so that dirty and read-only together
            mean a shadow stack (6.6 and later).

    Raises:
        ValueError: Neither 4 nor 5 levels.
    """

    levels: int
    swap_types: SwapTypes
    physical_mask: int = (1 << 52) - 1
    sme_mask: int = 0
    max_physmem_bits: int = 46
    devmap: bool = False
    saved_dirty: bool = False

    def __post_init__(self) -> None:
        if self.levels not in (4, 5):
            msg = f"x86-64 has page tables of 4 or 5 levels, not {self.levels}"
            raise ValueError(msg)

    @property
    def name(self) -> str:
        """The kernel's name of the architecture."""
        return "x86_64"

    @property
    def page_shift(self) -> int:
        """log2 of the page size."""
        return _SHIFT[Level.PTE]

    @cached_property
    def shapes(self) -> tuple[LevelShape, ...]:
        """The levels from the top of the tree down to the PTE level."""
        lower = tuple(LevelShape(level, _SHIFT[level], 512, 512, True) for level in (Level.PUD, Level.PMD, Level.PTE))
        if self.levels == 5:
            return (LevelShape(Level.PGD, 48, 512, 256, False), LevelShape(Level.P4D, 39, 512, 512, False), *lower)
        return (LevelShape(Level.PGD, 39, 512, 256, False), *lower)

    @cached_property
    def _address(self) -> np.uint64:
        return np.uint64(self.physical_mask & ~self.sme_mask) & _PFN_FIELD

    @cached_property
    def _reserved(self) -> np.uint64:
        """Bits of the page frame field that no address has; the encryption bit is none of them."""
        return _PFN_FIELD & ~(self._address | np.uint64(self.sme_mask))

    @cached_property
    def _devmap(self) -> np.uint64:
        """_PAGE_DEVMAP, 0 without."""
        return (SOFTW4 if self.saved_dirty else SOFTW5) if self.devmap else np.uint64(0)

    @cached_property
    def _never(self) -> np.uint64:
        """Attributes that no leaf has, whatever its level."""
        known = self._devmap | (SAVED_DIRTY if self.saved_dirty else np.uint64(0))
        return _ALWAYS_IGNORED | ((SOFTW4 | SOFTW5) & ~known)

    @cached_property
    def leaf_words(self) -> LeafWords:
        """PTEs that are not present are inverted (pte_pfn())."""
        return LeafWords(
            int(PRESENT | PROTNONE), int(PRESENT), self.page_shift, int(self._address), *self._leaf_bits[Level.PTE]
        )

    def leaf_mask(self, level: Level, entries: U64) -> Mask:
        """Which entries are leaves (pte_present(), pmd_leaf(), pud_leaf())."""
        if level == Level.PTE:
            return _test(entries, PRESENT | PROTNONE, np.not_equal, np.uint64(0))
        if level in _NO_LEAF:
            return np.zeros(len(entries), np.bool_)
        # PSE stays while a huge entry is invalidated for a moment, so it alone makes it present (pmd_present()).
        return _test(entries, PSE, np.not_equal, np.uint64(0))

    def table_mask(self, level: Level, entries: U64) -> Mask:
        """Which entries point to the next table: present, not huge, no reserved bit of the address set."""
        if level == Level.PTE:
            return np.zeros(len(entries), np.bool_)
        return _test(entries, PRESENT | PSE | self._reserved, np.equal, PRESENT)

    def table_flags_wrong(self, level: Level, entries: U64) -> Mask:
        """Which table entries of user space differ from _PAGE_TABLE: present, writable, user, accessed and dirty.

        pmd_bad(), pud_bad() and pgd_bad() (arch/x86/include/asm/pgtable.h) test the same, some of them less strictly.
        Aging clears the accessed bit of PMDs (pmdp_test_and_clear_young()) and of no level above; with PTI the top
        level may carry NX.
        """
        ignored = self._address | (ACCESSED if level == Level.PMD else np.uint64(0))
        top = max(shape.level for shape in self.shapes)
        if level == top:
            ignored |= NX
        return ((entries ^ _PAGE_TABLE) & ~ignored) != 0

    def isolated(self, entries: U64) -> Mask:
        """Which top-level entries of user space a kernel with PTI keeps: no execution (__pti_set_user_pgtbl())."""
        want = PRESENT | USER | NX
        return _test(entries, want, np.equal, want)

    def user_top_pfn(self, pfns: I64) -> I64:
        """The table behind the kernel's: both are one block of two pages (kernel_to_user_pgdp())."""
        return pfns | 1

    def user_top_wrong(self, kernel: U64, user: U64) -> Mask:
        """Which entries differ by more than the kernel's NX, or may not be executed by user mode either.

        Processors set accessed and dirty bits in one of the two alone.
        """
        wanted = np.where((user & (PRESENT | USER)) == (PRESENT | USER), user | NX, user)
        return (((kernel ^ wanted) & ~_ERRATUM) != 0) | ((user & NX) != 0)

    def kernel_top_differs(self, entries: U64, others: U64) -> Mask:
        """Which entries differ, the one for a process's LDT aside (LDT_PGD_ENTRY).

        Processors set accessed and dirty bits in each table for itself.
        """
        out: Mask = ((entries ^ others) & ~(ACCESSED | DIRTY)) != 0
        out[..., _LDT_SLOT] = False
        return out

    def leaf_pfn(self, level: Level, entries: U64) -> U64:
        """First page frame of each leaf (pte_pfn(), pmd_pfn(), pud_pfn()); meaningless for other entries.

        The page frame of an entry that is not present for the hardware is stored inverted (protnone_mask()).
        """
        huge = np.uint64(~((1 << _SHIFT[level]) - 1) & ((1 << 64) - 1))
        mask, shift = self._address & huge, np.uint64(self.page_shift)
        out = np.empty(len(entries), np.uint64)
        for at in range(0, len(entries), _PIECE):
            part, pfn = entries[at : at + _PIECE], out[at : at + _PIECE]
            if _all_present(part):
                np.bitwise_and(part, mask, out=pfn)
            else:
                np.bitwise_and(part, PRESENT, out=pfn)
                np.subtract(pfn, _ONE, out=pfn)  # all ones where an entry is not present, 0 where it is
                np.bitwise_xor(pfn, part, out=pfn)
                np.bitwise_and(pfn, mask, out=pfn)
            np.right_shift(pfn, shift, out=pfn)
        return out

    def table_pfn(self, entries: U64) -> U64:
        """Page frame of the next table; meaningless for other entries."""
        return (entries & self._address) >> np.uint64(self.page_shift)

    def leaf_step(self, level: Level, entries: U64) -> U64:
        """Difference between neighbouring entries of a contiguous mapping; inverted entries count down.

        The array may be read-only: one number seen as many (pte_advance_pfn()).
        """
        shift = _SHIFT[level]
        if _all_present(entries):
            return np.broadcast_to(np.uint64(1 << shift), entries.shape)
        step = entries & PRESENT
        step <<= np.uint64(shift + 1)
        step -= np.uint64(1 << shift)
        return step

    def leaf_bits(self, level: Level, entries: U64) -> U16:
        """Attributes of leaves."""
        low, high = self._leaf_bits[level]
        out = np.empty(len(entries), np.uint16)
        for at in range(0, len(entries), _PIECE):
            part = entries[at : at + _PIECE]
            bits = low[part & np.uint64((1 << _LOW_BITS) - 1)]
            bits |= high[part >> np.uint64(_HIGH_SHIFT)]
            if level != Level.PTE:
                bits |= _flag((part & _below_huge(level)) != 0, Bit.ODD)
            out[at : at + _PIECE] = bits
        return out

    def invalidated(self, levels: U8, entries: U64) -> Mask:
        """As `Arch.invalidated`: pmd_mkinvalid() clears PRESENT and PROTNONE, and PSE stays."""
        out: Mask = (levels != Level.PTE) & ((entries & (PRESENT | PROTNONE)) == 0)
        return out

    @cached_property
    def _leaf_bits(self) -> dict[Level, tuple[U16, U16]]:
        """By level attributes by the low 12 bits of a leaf, and by the bits from 52 on."""
        return {shape.level: self._leaf_bits_of(shape.level) for shape in self.shapes}

    def _leaf_bits_of(self, level: Level) -> tuple[U16, U16]:
        entries = np.arange(1 << _LOW_BITS, dtype=np.uint64)
        pairs = [
            (RW, Bit.WRITE),
            (DIRTY, Bit.DIRTY),
            (ACCESSED, Bit.YOUNG),
            (USER, Bit.USER),
            (SPECIAL, Bit.SPECIAL),
            (UFFD_WP, Bit.UFFD_WP),
            (SOFT_DIRTY, Bit.SOFT_DIRTY),
        ]
        low = _translate(entries, pairs) | _flag((entries & PRESENT) == 0, Bit.PROT_NONE)
        if self.saved_dirty:
            # pte_shstk(): everything else that is read-only and dirty keeps its dirty bit in bit 58.
            low |= _flag((entries & (RW | DIRTY)) == DIRTY, Bit.SHADOW_STACK)
        low |= _flag((entries & (PWT | PCD | (PAT if level == Level.PTE else np.uint64(0)))) != 0, Bit.ODD)
        low |= _flag((entries & (PRESENT | GLOBAL)) == PRESENT | GLOBAL, Bit.ODD)
        entries = np.arange(1 << (64 - _HIGH_SHIFT), dtype=np.uint64) << np.uint64(_HIGH_SHIFT)
        pairs = [(self._devmap, Bit.DEVMAP), (self._never | PKEY, Bit.ODD)]
        pairs += [(SAVED_DIRTY, Bit.DIRTY), (SAVED_DIRTY, Bit.SAVED_DIRTY)] if self.saved_dirty else []
        return low, _translate(entries, pairs) | _flag((entries & NX) == 0, Bit.EXEC)

    def page_prot(self, vm_flags: U64) -> U64:
        """vm_get_page_prot() (arch/x86/mm/pgprot.c), as if all processors could forbid execution.

        What cannot be read, written or executed has PAGE_NONE; only a shared VMA has the RW bit.
        """
        any_access = (vm_flags & (_VM_READ | _VM_WRITE | _VM_EXEC)) != 0
        prots = np.where(any_access, PRESENT | USER | ACCESSED | NX, PROTNONE | ACCESSED)
        prots[(vm_flags & _VM_EXEC) != 0] &= ~NX
        prots[(vm_flags & (_VM_SHARED | _VM_WRITE)) == _VM_SHARED | _VM_WRITE] |= RW
        out: U64 = prots | (((vm_flags >> _VM_PKEY_SHIFT) << _PKEY_SHIFT) & PKEY)
        return out

    def page_prot_differs(self, prots: U64, others: U64, *, strict: Mask) -> Mask:
        """As `Arch.page_prot_differs`.

        A shared VMA has no RW bit while its file tracks writes (vma_set_page_prot()). Drivers choose how their
        memory is cached and encrypted.
        """
        lenient = PRESENT | USER | PROTNONE | NX | PKEY | self._never
        differs = prots ^ others
        differs &= ~np.where((prots & RW) == 0, RW, np.uint64(0))
        if not (prots & NX).any():
            differs &= ~NX
        return np.where(strict, differs & ~np.uint64(self.sme_mask), differs & lenient) != 0

    def access_differs(self, entries: U64, prots: U64) -> Mask:
        """As `Arch.access_differs`: USER, NX and the protection key.

        Entries that are present for the mm alone have PAGE_NONE, with the key of the VMA or without it
        (change_protection() for NUMA hints). A huge entry that is invalidated (pmd_mkinvalid()) is not compared.
        """
        present, none = (entries & PRESENT) != 0, (entries & (PRESENT | PROTNONE)) == PROTNONE
        other_key = ((entries ^ prots) & PKEY) != 0
        differs = present & (((entries ^ prots) & (USER | NX)) != 0) | present & other_key
        return differs | (none & (((entries & (USER | NX)) != 0) | (other_key & ((entries & PKEY) != 0))))

    def caching_differs(self, levels: U8, entries: U64, prots: U64) -> Mask:
        """As `Arch.caching_differs`: PWT, PCD, and PAT with its other place in huge entries (pgprot_4k_2_large())."""
        huge = levels != Level.PTE
        pat = np.where(huge, (entries & PAT_LARGE) >> np.uint64(5), entries & PAT)
        return (((entries & (PWT | PCD)) | pat) ^ (prots & (PWT | PCD | PAT))) != 0

    def never_written(self, levels: U8, entries: U64) -> U64:
        """As `Arch.never_written`.

        Global pages are the kernel's; bit 8 means something else in entries that are not present. Huge entries have no
        address bits below their size but that of PAT.
        """
        bits = entries & self._never
        bits |= np.where((entries & PRESENT) != 0, entries & GLOBAL, np.uint64(0))
        for shape in self.shapes:
            if shape.can_leaf and shape.level != Level.PTE:
                below = _below_huge(shape.level) & ~PAT_LARGE
                bits |= np.where(levels == shape.level, entries & below, np.uint64(0))
        return bits

    def classify(self, level: Level, entries: U64) -> U8:
        """The kind of each entry.

        An entry that is neither empty nor present is what its swap type says, as far as that kind exists at the
        level. A marker without any mark is BAD: handle_pte_marker() in mm/memory.c says that none is ever empty.
        """
        kind = np.full(len(entries), Kind.BAD, np.uint8)
        empty = (entries & ~_ERRATUM) == 0
        absent = np.flatnonzero(~empty & ((entries & (PRESENT | PROTNONE | PSE)) == 0))
        kind[absent] = self._swap_kinds(level)[self.swap_type(entries[absent])]
        kind[(kind == Kind.MARKER) & (self.swap_offset(entries) == 0)] = Kind.BAD
        kind[self.table_mask(level, entries)] = Kind.TABLE
        kind[self.leaf_mask(level, entries)] = Kind.LEAF
        kind[empty] = Kind.NONE
        return kind

    def _swap_kinds(self, level: Level) -> U8:
        """The kind of each swap type at a level, BAD where there is none."""
        kinds = self.swap_types.kinds
        if level == Level.PTE:
            return kinds
        return np.where(np.isin(kinds, np.array(_HUGE_KINDS.get(level, ()), np.uint8)), kinds, np.uint8(Kind.BAD))

    def swap_type(self, entries: U64) -> U8:
        """Swap type of non-present entries (__swp_type())."""
        return (entries >> _SWP_TYPE_SHIFT).astype(np.uint8)

    def swap_offset(self, entries: U64) -> U64:
        """Swap offset of non-present entries, stored inverted (__swp_offset())."""
        return (~entries << _SWP_TYPE_BITS) >> _SWP_OFFSET_SHIFT

    @property
    def _swap_pfn_bits(self) -> int:
        return self.max_physmem_bits - self.page_shift

    def nonpresent_pfn(self, entries: U64) -> U64:
        """Page frame of migration, device and poison entries (swp_offset_pfn(), softleaf_to_pfn())."""
        return self.swap_offset(entries) & np.uint64((1 << self._swap_pfn_bits) - 1)

    def nonpresent_never_written(self, kinds: U8, entries: U64) -> U64:
        """As `Arch.nonpresent_never_written`.

        Bit 4 has no meaning in any (arch/x86/include/asm/pgtable_64.h); 5 and 6 may be the processor's
        (_PAGE_KNL_ERRATUM_MASK). The offset of a marker is its marks, that of entries that name a page holds nothing
        above the page frame but young and dirty of migration entries (include/linux/swapops.h).
        """
        known = MARKER_UFFD_WP if self.swap_types.swapin_error else MARKER_UFFD_WP | MARKER_POISONED | MARKER_GUARD
        pfn, every = (1 << self._swap_pfn_bits) - 1, (1 << _SWP_OFFSET_BITS) - 1
        allowed = np.full(len(kinds), every, np.uint64)
        allowed[kinds == Kind.MARKER] = known
        allowed[np.isin(kinds, np.array(PFN_KINDS, np.uint8))] = pfn
        allowed[np.isin(kinds, np.array(MIGRATION_KINDS, np.uint8))] = min(pfn << 2 | 3, every)
        return (entries & PCD) | ((self.swap_offset(entries) & ~allowed) << _SWP_OFFSET_FIRST)

    def nonpresent_bits(self, level: Level, entries: U64) -> U16:
        """Attributes of non-present entries.

        Migration entries remember young and dirty above the page frame (include/linux/swapops.h, SWP_MIG_YOUNG).
        """
        pairs = [(SWP_SOFT_DIRTY, Bit.SOFT_DIRTY), (SWP_UFFD_WP, Bit.UFFD_WP), (SWP_EXCLUSIVE, Bit.EXCLUSIVE)]
        bits = _translate(entries, pairs)
        young = np.uint64(1 << self._swap_pfn_bits)
        kept = _translate(self.swap_offset(entries), [(young, Bit.YOUNG), (young << _ONE, Bit.DIRTY)])
        moving = np.isin(self.swap_types.kinds[self.swap_type(entries)], np.array(MIGRATION_KINDS, np.uint8))
        return bits | np.where(moving, kept, np.uint16(0))


def _below_huge(level: Level) -> np.uint64:
    """Bits of the page frame field that lie below the size of a huge entry."""
    return np.uint64((1 << _SHIFT[level]) - 1) & _PFN_FIELD


def _test(entries: U64, mask: np.uint64, compare: np.ufunc, value: np.uint64) -> Mask:
    """``compare(entries & mask, value)`` without a temporary as long as the entries."""
    out = np.empty(len(entries), np.bool_)
    scratch = np.empty(min(len(entries), _PIECE), np.uint64)
    for at in range(0, len(entries), _PIECE):
        part = entries[at : at + _PIECE]
        masked = np.bitwise_and(part, mask, out=scratch[: len(part)])
        compare(masked, value, out=out[at : at + _PIECE])
    return out


def _all_present(entries: U64) -> bool:
    return bool(np.bitwise_and.reduce(entries) & PRESENT)


def _translate(entries: U64, pairs: list[tuple[np.uint64, Bit]]) -> U16:
    """For each entry the attributes of those masks of which it has a bit."""
    bits = np.zeros(len(entries), np.uint16)
    for mask, bit in pairs:
        bits |= _flag((entries & mask) != 0, bit)
    return bits


def _flag(where: AnyArray, bit: Bit) -> U16:
    return np.where(where, np.uint16(bit), np.uint16(0))
