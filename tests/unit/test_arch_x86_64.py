"""Entries of x86-64 decoded: hand-written ones, round trips of encoded ones, and an entry-by-entry second statement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inspector.arch.base import MIGRATION_KINDS, PFN_KINDS, Arch, Bit, Kind, Level
from inspector.arch.swapentry import SwapTypes
from inspector.arch.x86_64 import X86_64
from inspector.columns import U64
from tests.examples import examples

LEVELS = (Level.PTE, Level.PMD, Level.PUD)
TABLE_LEVELS = (Level.PMD, Level.PUD, Level.P4D, Level.PGD)
SHIFT = {Level.PTE: 12, Level.PMD: 21, Level.PUD: 30}

P, W, U, A, D, PSE, G = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
SPECIAL, UFFD, SOFT, PAT_LARGE = 0x200, 0x400, 0x800, 0x1000
DEVMAP, SAVED_DIRTY, NX = 1 << 57, 1 << 58, 1 << 63  # 6.1: the bit of DAX memory is 58
PWT, PCD, PKEY = 0x8, 0x10, 0xF << 59
ALL = (1 << 64) - 1
FIELD = ALL >> 12 & ~0xFFF

OLD = X86_64(4, SwapTypes(22, 1, 3, 4, 1, 1), devmap=True)  # 6.1 with everything configured
MID = X86_64(4, SwapTypes(27, 1, 3, 0, 1, 0), devmap=True, saved_dirty=True)  # 6.12
NEW = X86_64(5, SwapTypes(24, 1, 3, 3, 1, 0), max_physmem_bits=52, saved_dirty=True)  # 7.x
SME = X86_64(
    4,
    SwapTypes(24, 1, 3, 3, 1, 0),
    physical_mask=(1 << 47) - 1,
    sme_mask=1 << 47,
    max_physmem_bits=46,
    saved_dirty=True,
)
ARCHES = (OLD, MID, NEW, SME)


def u64(*entries: int) -> U64:
    return np.array(entries, np.uint64)


def kind_of(arch: X86_64, level: Level, entry: int) -> Kind:
    return Kind(int(arch.classify(level, u64(entry))[0]))


def encode_leaf(pfn: int, flags: int) -> int:
    """A leaf as pfn_pte() makes it: the page frame inverted unless the entry is present for the hardware."""
    address = pfn << 12
    return flags | (address if flags & P else ~address & FIELD)


def encode_swap(swap_type: int, offset: int, flags: int = 0) -> int:
    """A swap entry, from the picture in pgtable_64.h: type in 59..63, the offset inverted in 9..58."""
    inverted = "".join("0" if bit == "1" else "1" for bit in f"{offset:050b}")
    return int(f"{swap_type:05b}{inverted}{'0' * 9}", 2) | flags


def numbers_of(arch: X86_64, kind: Kind) -> list[int]:
    return np.flatnonzero(arch.swap_types.kinds == kind).tolist()


def test_protocol_and_geometry() -> None:
    arch: Arch = NEW
    assert (arch.name, arch.page_shift) == ("x86_64", 12)
    assert [(s.level, s.shift, s.entries, s.user_entries, s.can_leaf) for s in arch.shapes] == [
        (Level.PGD, 48, 512, 256, False),
        (Level.P4D, 39, 512, 512, False),
        (Level.PUD, 30, 512, 512, True),
        (Level.PMD, 21, 512, 512, True),
        (Level.PTE, 12, 512, 512, True),
    ]
    four = [(s.level, s.shift, s.user_entries) for s in MID.shapes]
    assert four == [(Level.PGD, 39, 256), (Level.PUD, 30, 512), (Level.PMD, 21, 512), (Level.PTE, 12, 512)]
    with pytest.raises(ValueError, match="4 or 5 levels, not 3"):
        X86_64(3, OLD.swap_types)


@pytest.mark.parametrize(
    ("level", "entry", "pfn", "bits"),
    [
        # An anonymous page, written to; the same for reading; a page of a file, executable.
        (Level.PTE, 0x8000000123456867, 0x123456, Bit.WRITE | Bit.DIRTY | Bit.YOUNG | Bit.USER | Bit.SOFT_DIRTY),
        (Level.PTE, 0x8400000123456825, 0x123456, Bit.YOUNG | Bit.USER | Bit.SOFT_DIRTY | Bit.DIRTY | Bit.SAVED_DIRTY),
        (Level.PTE, 0x0000000000789025, 0x789, Bit.YOUNG | Bit.USER | Bit.EXEC),
        # The zero page; write-protected by userfaultfd; a shadow stack.
        (Level.PTE, 0x8000000000002225, 0x2, Bit.YOUNG | Bit.USER | Bit.SPECIAL),
        (Level.PTE, 0x8000000000ABC425, 0xABC, Bit.YOUNG | Bit.USER | Bit.UFFD_WP),
        (Level.PTE, 0x8000000000ABC065, 0xABC, Bit.YOUNG | Bit.USER | Bit.DIRTY | Bit.SHADOW_STACK),
        # PROT_NONE: page frame 0x123456 inverted in bits 12..51.
        (Level.PTE, 0x800FFFFEDCBA9160, 0x123456, Bit.YOUNG | Bit.PROT_NONE | Bit.DIRTY | Bit.SHADOW_STACK),
        # Cached in another way; of a protection key; global.
        (Level.PTE, 0x800000012345606F, 0x123456, Bit.WRITE | Bit.DIRTY | Bit.YOUNG | Bit.USER | Bit.ODD),
        (Level.PTE, 0x8800000123456025, 0x123456, Bit.YOUNG | Bit.USER | Bit.ODD),
        (Level.PTE, 0x8000000123456125, 0x123456, Bit.YOUNG | Bit.USER | Bit.ODD),
        (Level.PTE, 0x800FFFFEDCBA9120, 0x123456, Bit.YOUNG | Bit.PROT_NONE),
        # A huge page; with the PAT bit 12; invalidated by a split; PROT_NONE.
        (Level.PMD, 0x80000001234000E7, 0x123400, Bit.WRITE | Bit.DIRTY | Bit.YOUNG | Bit.USER),
        (Level.PMD, 0x80000001234010E7, 0x123400, Bit.WRITE | Bit.DIRTY | Bit.YOUNG | Bit.USER | Bit.ODD),
        (Level.PMD, 0x800FFFFEDC8000E6, 0x123600, Bit.WRITE | Bit.DIRTY | Bit.YOUNG | Bit.USER | Bit.PROT_NONE),
        (Level.PMD, 0x800FFFFEDCA001A0, 0x123400, Bit.YOUNG | Bit.PROT_NONE),
        # 1 GiB of hugetlb, with PAT.
        (Level.PUD, 0x80000001400010E7, 0x140000, Bit.WRITE | Bit.DIRTY | Bit.YOUNG | Bit.USER | Bit.ODD),
    ],
)
def test_leaves_written_by_hand(level: Level, entry: int, pfn: int, bits: Bit) -> None:
    arch = X86_64(4, NEW.swap_types, saved_dirty=True)
    assert arch.leaf_mask(level, u64(entry)).tolist() == [True]
    assert kind_of(arch, level, entry) == Kind.LEAF
    assert arch.leaf_pfn(level, u64(entry)).tolist() == [pfn]
    assert Bit(int(arch.leaf_bits(level, u64(entry))[0])) == bits


def test_bits_that_only_some_kernels_have() -> None:
    entry = u64(encode_leaf(1, P | U | D | NX | DEVMAP | SAVED_DIRTY))
    plain = X86_64(4, OLD.swap_types)
    dirty, saved_too = Bit.USER | Bit.DIRTY, Bit.SHADOW_STACK | Bit.SAVED_DIRTY
    assert plain.leaf_bits(Level.PTE, entry).tolist() == [dirty | Bit.ODD]
    assert OLD.leaf_bits(Level.PTE, entry).tolist() == [dirty | Bit.DEVMAP | Bit.ODD]
    assert MID.leaf_bits(Level.PTE, entry).tolist() == [dirty | Bit.DEVMAP | saved_too]
    assert NEW.leaf_bits(Level.PTE, entry).tolist() == [dirty | Bit.ODD | saved_too]
    saved = u64(encode_leaf(1, P | U | NX | SAVED_DIRTY))
    assert plain.leaf_bits(Level.PTE, saved).tolist() == [Bit.USER | Bit.ODD]
    assert OLD.leaf_bits(Level.PTE, saved).tolist() == [Bit.USER | Bit.DEVMAP]
    assert NEW.leaf_bits(Level.PTE, saved).tolist() == [dirty | Bit.SAVED_DIRTY]


def test_vm_page_prot_by_vm_flags() -> None:
    """As in the table of arch/x86/mm/pgprot.c, the protection key in bits 59 to 62."""
    read, write, execute, shared = 1, 2, 4, 8
    made = {
        0: 0x120,
        shared: 0x120,
        read: NX | 0x25,
        write | read: NX | 0x25,
        execute: 0x25,
        shared | read: NX | 0x25,
        shared | write: NX | 0x27,
        shared | write | execute: 0x27,
        read | 5 << 32: NX | 0x25 | 5 << 59,
    }
    assert NEW.page_prot(u64(*made)).tolist() == list(made.values())


def test_attributes_that_fit_the_vma_and_those_that_do_not() -> None:
    key = 1 << 59
    plain, executable, keyed, none = NX | 0x25, 0x25, NX | 0x25 | key, 0x120
    fits = [(NX | 0x867, plain), (0x25, executable), (NX | 0x25 | key, keyed), (0x960, none), (0x962, plain)]
    fits += [(0x920 | key, keyed), (0x920, keyed), (NX | 0xE6, plain)]  # the last is a huge entry being invalidated
    differs = [
        (0x867, plain),
        (NX | 0x863, plain),
        (NX | 0x25, executable),
        (NX | 0x25, keyed),
        (0x25 | NX | key, plain),
    ]
    differs += [(0x964, none), (NX | 0x920, plain), (0x920 | key, plain), (0x25, none)]
    for pairs, wrong in ((fits, False), (differs, True)):
        entries, prots = (u64(*column) for column in zip(*pairs, strict=True))
        assert NEW.access_differs(entries, prots).tolist() == [wrong] * len(pairs)


@pytest.mark.parametrize(
    ("level", "flags", "prot", "wrong"),
    [
        (Level.PTE, 0x867, 0x25, False),
        (Level.PTE, 0x86F, 0x25, True),
        (Level.PTE, 0x877, 0x25, True),
        (Level.PTE, 0x8E7, 0x25, True),
        (Level.PTE, 0x877, 0x35, False),
        (Level.PMD, 0x8E7, 0x25, False),
        (Level.PMD, 0x8E7 | PAT_LARGE, 0x25, True),
        (Level.PMD, 0x8E7 | PAT_LARGE, 0x25 | PSE, False),
        (Level.PMD, 0x8E7 | PCD, 0x25, True),
    ],
)
def test_caching(level: Level, flags: int, prot: int, wrong: bool) -> None:  # noqa: FBT001
    assert NEW.caching_differs(np.array([level], np.uint8), u64(flags), u64(prot)).tolist() == [wrong]


def test_bits_that_no_leaf_has() -> None:
    for arch, spare in ((OLD, 1 << 57), (MID, 0), (NEW, 1 << 57)):
        for level, below in ((Level.PTE, 0), (Level.PMD, 0xFF << 13), (Level.PUD, 0x1FFFF << 13)):
            levels = np.array([level], np.uint8)
            every = 0x1F << 52 | spare | G | below
            assert arch.never_written(levels, u64(ALL)).tolist() == [every]
            assert arch.never_written(levels, u64(ALL & ~P)).tolist() == [every & ~G]
            assert bool(arch.leaf_bits(level, u64(P | PSE * (level != Level.PTE) | U | NX | 1 << 54))[0] & Bit.ODD)


def test_bits_that_no_entry_without_a_page_has() -> None:
    pfn, top = 1 << 34, (1 << 50) - 1
    kinds = [Kind.SWAP, Kind.MIGRATION_READ, Kind.MIGRATION_READ, Kind.HWPOISON, Kind.MARKER, Kind.MARKER]
    offsets = [top, pfn << 2, pfn << 1 | 5, pfn, 8, 4]
    entries = u64(*(encode_swap(3, offset, 0xE) for offset in offsets))
    found = MID.nonpresent_never_written(np.array(kinds, np.uint8), entries)
    assert [int(x) >> 9 for x in found] == [0, pfn << 2, 0, pfn, 8, 0]
    assert OLD.nonpresent_never_written(np.array([Kind.MARKER], np.uint8), entries[-1:]).tolist() == [4 << 9]
    assert MID.nonpresent_never_written(np.array([Kind.SWAP], np.uint8), u64(encode_swap(3, 1, PCD))).tolist() == [PCD]


@pytest.mark.parametrize("level", [Level.PTE, *TABLE_LEVELS])
@pytest.mark.parametrize("bits", [0, A, D, A | D])
def test_none_with_and_without_the_erratum(level: Level, bits: int) -> None:
    for arch in ARCHES:
        assert kind_of(arch, level, bits) == Kind.NONE
        assert not arch.leaf_mask(level, u64(bits))[0]
        assert not arch.table_mask(level, u64(bits))[0]


@pytest.mark.parametrize("level", TABLE_LEVELS)
def test_tables(level: Level) -> None:
    entry = 0x0000000123456067
    for arch in ARCHES:
        assert kind_of(arch, level, entry) == Kind.TABLE
        assert arch.table_mask(level, u64(entry)).tolist() == [True]
        assert arch.table_pfn(u64(entry)).tolist() == [0x123456]
    # The kernel's copy of the top level carries NX while page tables are isolated; that is no part of the address.
    assert kind_of(NEW, level, entry | NX) == Kind.TABLE
    assert NEW.table_pfn(u64(entry | NX)).tolist() == [0x123456]


@pytest.mark.parametrize("level", [Level.PGD, Level.P4D])
def test_no_huge_pages_above_the_pud(level: Level) -> None:
    for entry in (0x80000001400000E7, encode_leaf(1 << 18, PSE | G)):
        assert kind_of(NEW, level, entry) == Kind.BAD
        assert not NEW.leaf_mask(level, u64(entry))[0]
        assert not NEW.table_mask(level, u64(entry))[0]
    for swap_type in range(32):
        assert kind_of(NEW, level, encode_swap(swap_type, 77)) == Kind.BAD


def test_reserved_address_bits_make_a_table_bad() -> None:
    narrow = X86_64(4, MID.swap_types, physical_mask=(1 << 46) - 1)
    for bit in range(46, 52):
        assert kind_of(narrow, Level.PMD, 0x123456067 | 1 << bit) == Kind.BAD
        assert not narrow.table_mask(Level.PMD, u64(0x123456067 | 1 << bit))[0]
        assert kind_of(MID, Level.PMD, 0x123456067 | 1 << bit) == Kind.TABLE
    for bit in range(52, 63):
        assert kind_of(narrow, Level.PMD, 0x123456067 | 1 << bit) == Kind.TABLE


def test_encryption_bit_is_no_part_of_the_address_and_not_reserved() -> None:
    c_bit = 1 << 47
    assert kind_of(SME, Level.PMD, 0x123456067 | c_bit) == Kind.TABLE
    assert SME.table_pfn(u64(0x123456067 | c_bit)).tolist() == [0x123456]
    assert kind_of(SME, Level.PMD, 0x123456067 | c_bit << 1) == Kind.BAD
    assert SME.leaf_pfn(Level.PTE, u64(0x123456067 | c_bit)).tolist() == [0x123456]
    # PROT_NONE inverts the address and leaves the encryption bit alone.
    protnone = (~0x123456000 & (c_bit - 1) & ~0xFFF) | c_bit | G | A
    assert SME.leaf_pfn(Level.PTE, u64(protnone, protnone & ~c_bit)).tolist() == [0x123456, 0x123456]
    # A kernel whose physical mask is a constant keeps the bit in it.
    wide = X86_64(4, SME.swap_types, sme_mask=c_bit)
    assert wide.table_pfn(u64(0x123456067 | c_bit)).tolist() == [0x123456]
    assert wide.leaf_pfn(Level.PTE, u64(0x123456067 | c_bit)).tolist() == [0x123456]


def test_top_tables_of_kernel_and_user_mode() -> None:
    nx, entry = 1 << 63, 0x2472067
    kernel = np.array([entry | nx, entry | nx, entry | nx, entry, 0, 0, entry | nx, entry | nx, 0x2472063], np.uint64)
    user = np.array([entry, 0, entry + 0x1000, entry, 0, entry, entry | nx, entry ^ 0x20, 0x2472063], np.uint64)
    assert NEW.isolated(kernel).tolist() == [True, True, True, False, False, False, True, True, False]
    wrong = [False, True, True, True, False, True, True, False, False]
    assert NEW.user_top_wrong(kernel, user).tolist() == wrong
    assert NEW.user_top_pfn(np.array([0x100, 0x2466])).tolist() == [0x101, 0x2467]


def test_protnone_without_pse_above_the_pte_level_is_bad() -> None:
    for level in (Level.PMD, Level.PUD):
        assert kind_of(NEW, level, encode_leaf(0x200, G | A)) == Kind.BAD
    assert kind_of(NEW, Level.PTE, encode_leaf(0x200, G | A)) == Kind.LEAF
    # Bit 7 of a PTE is PAT: alone it makes nothing present, and no swap entry has it.
    assert kind_of(NEW, Level.PTE, encode_swap(0, 5) | PSE) == Kind.BAD


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("level", LEVELS)
def test_swap_kinds_of_each_level(arch: X86_64, level: Level) -> None:
    never = {
        Level.PTE: (),
        Level.PMD: (Kind.SWAPIN_ERROR, Kind.DEVICE_EXCLUSIVE),
        Level.PUD: (Kind.SWAPIN_ERROR, Kind.DEVICE_EXCLUSIVE, Kind.DEVICE_READ, Kind.DEVICE_WRITE),
    }[level]
    for number, kind in enumerate(arch.swap_types.kinds.tolist()):
        expected = Kind.BAD if kind in never else kind
        for flags in (0, 2, 4, 8, 14, A | D):
            assert kind_of(arch, level, encode_swap(number, 1, flags)) == expected


def test_an_empty_marker_is_bad() -> None:
    for arch in ARCHES:
        (marker,) = numbers_of(arch, Kind.MARKER)
        for level in LEVELS:
            assert kind_of(arch, level, encode_swap(marker, 0)) == Kind.BAD
            for mark in (1, 2, 4, 7):
                assert kind_of(arch, level, encode_swap(marker, mark)) == Kind.MARKER
        assert kind_of(arch, Level.PTE, encode_swap(numbers_of(arch, Kind.HWPOISON)[0], 0)) == Kind.HWPOISON


def test_swap_entries_written_by_hand() -> None:
    # Device 0, slot 0: nothing but the inverted offset. Device 1, slot 0x1234, exclusive and soft-dirty.
    first, second = 0x07FFFFFFFFFFFE00, 0x0FFFFFFFFFDB960A
    assert MID.swap_type(u64(first, second)).tolist() == [0, 1]
    assert MID.swap_offset(u64(first, second)).tolist() == [0, 0x1234]
    assert MID.nonpresent_bits(Level.PTE, u64(first, second)).tolist() == [0, Bit.EXCLUSIVE | Bit.SOFT_DIRTY]
    assert [kind_of(MID, Level.PTE, e) for e in (first, second)] == [Kind.SWAP, Kind.SWAP]
    # Type 30 of 6.12 is a migration entry for writing, of page frame 0x80000.
    moving = 0xF7FFFFFFEFFFFE00
    assert kind_of(MID, Level.PTE, moving) == Kind.MIGRATION_WRITE
    assert MID.nonpresent_pfn(u64(moving)).tolist() == [0x80000]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("kind", [Kind.SWAP, Kind.MARKER, Kind.SWAPIN_ERROR, *PFN_KINDS])
@examples(30)
@given(data=st.data())
def test_round_trip_of_nonpresent_entries(arch: X86_64, kind: Kind, data: st.DataObject) -> None:
    numbers = numbers_of(arch, kind)
    if not numbers:
        return
    pfn_bits = arch.max_physmem_bits - 12
    number = data.draw(st.sampled_from(numbers))
    pfn = data.draw(st.integers(0, (1 << pfn_bits) - 1) | st.sampled_from([1, (1 << pfn_bits) - 1]))
    above = data.draw(st.integers(0, 3))
    offset = pfn | above << pfn_bits
    flags = data.draw(st.sampled_from([0, 2, 4, 8, 2 | 4, 2 | 4 | 8]))
    entry = u64(encode_swap(number, offset, flags))
    wanted = Bit(0)
    for flag, bit in ((2, Bit.SOFT_DIRTY), (4, Bit.UFFD_WP), (8, Bit.EXCLUSIVE)):
        wanted |= bit if flags & flag else Bit(0)
    if kind in MIGRATION_KINDS:
        wanted |= (Bit.YOUNG if above & 1 else Bit(0)) | (Bit.DIRTY if above & 2 else Bit(0))
    assert arch.classify(Level.PTE, entry)[0] == (kind if offset or kind != Kind.MARKER else Kind.BAD)
    assert not arch.leaf_mask(Level.PTE, entry)[0]
    assert int(arch.swap_type(entry)[0]) == number
    assert int(arch.swap_offset(entry)[0]) == offset
    assert int(arch.nonpresent_pfn(entry)[0]) == pfn
    assert Bit(int(arch.nonpresent_bits(Level.PTE, entry)[0])) == wanted


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("level", LEVELS)
@examples(30)
@given(data=st.data())
def test_round_trip_of_leaves(arch: X86_64, level: Level, data: st.DataObject) -> None:
    width = (arch.physical_mask & ~arch.sme_mask & FIELD).bit_length() - SHIFT[level]
    number = data.draw(st.integers(0, (1 << width) - 1) | st.sampled_from([0, 1, (1 << width) - 1]))
    pfn = number << (SHIFT[level] - 12)
    here = data.draw(st.sampled_from([P, G, P | G] if level == Level.PTE else [P | PSE, G | PSE, PSE]))
    flags = here | data.draw(st.sampled_from([0, W | U | A | D, U | NX, W | SPECIAL | UFFD | SOFT]))
    pat = PAT_LARGE if level != Level.PTE and data.draw(st.booleans()) else 0
    entry = u64(encode_leaf(pfn, flags) ^ pat)
    assert arch.leaf_mask(level, entry).tolist() == [True]
    assert arch.classify(level, entry).tolist() == [Kind.LEAF]
    assert arch.leaf_pfn(level, entry).tolist() == [pfn]
    assert bool(arch.leaf_bits(level, entry)[0] & Bit.PROT_NONE) == (not flags & P)
    if number + 1 < 1 << width:
        follower = encode_leaf(pfn + (1 << (SHIFT[level] - 12)), flags) ^ pat
        assert (int(entry[0]) + int(arch.leaf_step(level, entry)[0])) % (1 << 64) == follower


def slow_kind(arch: X86_64, level: Level, e: int) -> Kind:
    """The kernel's predicates for one entry, one after another."""
    if not e & ~(A | D):
        return Kind.NONE
    if level == Level.PTE:
        if e & (P | G):
            return Kind.LEAF
    elif level in (Level.PMD, Level.PUD) and e & PSE:
        return Kind.LEAF
    elif e & P and not e & PSE:
        beyond = FIELD & ~arch.physical_mask & ~arch.sme_mask
        return Kind.BAD if e & beyond else Kind.TABLE
    if e & (P | G | PSE) or level in (Level.PGD, Level.P4D):
        return Kind.BAD
    kind = Kind(int(arch.swap_types.kinds[e >> 59]))
    if kind == Kind.MARKER and (~e & ALL) >> 9 & ((1 << 50) - 1) == 0:
        return Kind.BAD
    if level == Level.PTE:
        return kind
    if kind in (Kind.SWAPIN_ERROR, Kind.DEVICE_EXCLUSIVE):
        return Kind.BAD
    return Kind.BAD if level == Level.PUD and kind in (Kind.DEVICE_READ, Kind.DEVICE_WRITE) else kind


def slow_bits(arch: X86_64, level: Level, e: int) -> int:
    devmap = 0 if not arch.devmap else DEVMAP if arch.saved_dirty else SAVED_DIRTY
    odd = PWT | PCD | PKEY | 0x1F << 52 | DEVMAP | SAVED_DIRTY
    odd |= PSE if level == Level.PTE else (1 << SHIFT[level]) - 0x1000
    odd &= ~(devmap | (SAVED_DIRTY if arch.saved_dirty else 0))
    tests = [
        (e & W, Bit.WRITE),
        (e & D or (arch.saved_dirty and e & SAVED_DIRTY), Bit.DIRTY),
        (e & A, Bit.YOUNG),
        (e & U, Bit.USER),
        (not e & NX, Bit.EXEC),
        (e & SPECIAL, Bit.SPECIAL),
        (e & UFFD, Bit.UFFD_WP),
        (e & SOFT, Bit.SOFT_DIRTY),
        (not e & P, Bit.PROT_NONE),
        (e & devmap, Bit.DEVMAP),
        (e & odd or e & (P | G) == P | G, Bit.ODD),
        (arch.saved_dirty and e & SAVED_DIRTY, Bit.SAVED_DIRTY),
        (arch.saved_dirty and e & D and not e & W, Bit.SHADOW_STACK),
    ]
    return sum(int(bit) for test, bit in tests if test)


def slow_pfn(arch: X86_64, level: Level, e: int) -> int:
    plain = e if e & P else ~e & ALL
    return (plain & FIELD & arch.physical_mask & ~arch.sme_mask & ~((1 << SHIFT[level]) - 1)) >> 12


ENTRIES = st.lists(
    st.integers(0, ALL)
    | st.builds(
        lambda low, middle, high: low | middle << 12 | high << 57,
        st.sampled_from([0, P, G, PSE, P | PSE, A | D, D, P | W | U | A | D, G | PSE | A]) | st.integers(0, 0xFFF),
        st.sampled_from([0, 1, (1 << 45) - 1, 1 << 34, 1 << 39]) | st.integers(0, (1 << 45) - 1),
        st.integers(0, 127),
    ),
    max_size=40,
)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("level", [Level.PTE, *TABLE_LEVELS])
@given(entries=ENTRIES)
@example(entries=[0, ALL, P, G, PSE, A, D, 1 << 63])
def test_whole_arrays_equal_entry_by_entry(arch: X86_64, level: Level, entries: list[int]) -> None:
    array = u64(*entries)
    before = array.copy()
    kinds = [slow_kind(arch, level, e) for e in entries]
    assert arch.classify(level, array).tolist() == kinds
    assert arch.leaf_mask(level, array).tolist() == [k == Kind.LEAF for k in kinds]
    assert arch.table_mask(level, array).tolist() == [k == Kind.TABLE for k in kinds]
    leaves = [e for e, k in zip(entries, kinds, strict=True) if k == Kind.LEAF]
    if level in LEVELS:
        assert arch.leaf_pfn(level, u64(*leaves)).tolist() == [slow_pfn(arch, level, e) for e in leaves]
        assert arch.leaf_bits(level, u64(*leaves)).tolist() == [slow_bits(arch, level, e) for e in leaves]
        step = 1 << SHIFT[level]
        assert arch.leaf_step(level, u64(*leaves)).tolist() == [step if e & P else (1 << 64) - step for e in leaves]
    assert (array == before).all()


def test_types_and_lengths_of_results() -> None:
    for n in (0, 1, 100_000):
        entries = np.full(n, 0x8000000123456867, np.uint64)
        entries[n // 3 : n // 2] = 0x800FFFFEDCBA9120
        every_other = np.repeat(entries, 2)[::2]
        for given_entries in (entries, every_other):
            for level in LEVELS:
                results: list[tuple[np.ndarray[tuple[int], np.dtype[np.generic]], type]] = [
                    (NEW.classify(level, given_entries), np.uint8),
                    (NEW.leaf_mask(level, given_entries), np.bool_),
                    (NEW.table_mask(level, given_entries), np.bool_),
                    (NEW.leaf_pfn(level, given_entries), np.uint64),
                    (NEW.leaf_bits(level, given_entries), np.uint16),
                    (NEW.leaf_step(level, given_entries), np.uint64),
                    (NEW.nonpresent_bits(level, given_entries), np.uint16),
                ]
                assert [(len(r), r.dtype) for r, _ in results] == [(n, np.dtype(t)) for _, t in results]
            assert (NEW.leaf_pfn(Level.PTE, given_entries) == 0x123456).all()
            assert NEW.leaf_mask(Level.PTE, given_entries).all()
            present = (given_entries & np.uint64(P)) != 0
            here, gone = NEW.leaf_bits(Level.PTE, u64(0x8000000123456867, 0x800FFFFEDCBA9120))
            assert (NEW.leaf_bits(Level.PTE, given_entries) == np.where(present, here, gone)).all()
