"""Flag bits and page types of this kernel, read from its enums where it has them."""

from __future__ import annotations

from dataclasses import field

import drgn
import numpy as np

from inspector.columns import U8, U32, U64, AnyArray, Column, Mask
from inspector.layout.offsets import enumerators
from inspector.records import dataclass

# include/linux/mm.h: these are macros, absent from debug info, and have the same value from 6.1 to 7.3.
VM_READ = 1 << 0
VM_WRITE = 1 << 1
VM_EXEC = 1 << 2
VM_SHARED = 1 << 3
VM_MAYREAD = 1 << 4
VM_MAYWRITE = 1 << 5
VM_MAYEXEC = 1 << 6
VM_MAYSHARE = 1 << 7
VM_GROWSDOWN = 1 << 8
VM_PFNMAP = 1 << 10
VM_LOCKED = 1 << 13
VM_IO = 1 << 14
VM_SEQ_READ = 1 << 15
VM_RAND_READ = 1 << 16
VM_DONTEXPAND = 1 << 18
VM_LOCKONFAULT = 1 << 19
VM_ACCOUNT = 1 << 20
VM_NORESERVE = 1 << 21
VM_HUGETLB = 1 << 22
VM_ARCH_1 = 1 << 24
VM_WIPEONFORK = 1 << 25
VM_DONTDUMP = 1 << 26
VM_MIXEDMAP = 1 << 28
VM_HUGEPAGE = 1 << 29
VM_NOHUGEPAGE = 1 << 30
VM_MERGEABLE = 1 << 31
VM_SHADOW_STACK = 1 << 37
VM_ALLOW_ANY_UNCACHED = 1 << 39
VM_DROPPABLE = 1 << 40

MMF_VM_MERGEABLE = 16
"""Bit of mm->flags: KSM knows the mm (include/linux/sched/coredump.h; mm_types.h from 6.18 on)."""

UFFD_KNOWN_TO = (7, 3)
"""Newer kernels may watch VMAs in further ways."""


def uffd_modes(version: tuple[int, int] | None) -> dict[str, int]:
    """The VM_UFFD_ bits of a kernel by what each watches (include/linux/mm.h: macros until 6.17, moved twice).

    Args:
        version: Of the kernel; None when it is not known, which leaves the two bits that never moved.
    """
    modes = {"missing": 1 << 9, "wp": 1 << 12}
    if version is not None:
        # The shadow stacks of x86 took bit 37 in 6.6, those of arm64 bit 38 in 6.13.
        modes["minor"] = 1 << (37 if version < (6, 6) else 38 if version < (6, 13) else 41)
        if version >= (7, 0):
            modes["rwp"] = 1 << 43
    return modes


_VM_SINCE = {11: (6, 18), 36: None, 38: (6, 6), 39: (6, 8), 40: (6, 11), 41: (6, 13), 42: (6, 13), 43: (7, 0)}
"""Bits of vm_flags that are newer than 6.1, each with the first version that may have it; None: no x86 has it."""
_SEALED_63 = ((6, 10), (7, 0))
"""From which version on, and until which, VM_SEALED may be the highest bit."""


def unknown_vm_flags(version: tuple[int, int] | None) -> int:
    """The bits of vm_flags that mean nothing on x86-64 (include/linux/mm.h); 0 where the version is not known."""
    if version is None:
        return 0
    bits = [*range(44, 63), *(bit for bit, since in _VM_SINCE.items() if since is None or version < since)]
    if not _SEALED_63[0] <= version < _SEALED_63[1]:
        bits.append(63)
    if version >= (6, 13):
        # VM_UFFD_MINOR has moved on.
        bits.append(38)
    return sum(1 << bit for bit in bits)


MAPPING_ANON = 1
"""Low bit of folio->mapping: the rest points to an anon_vma."""
MAPPING_MOVABLE = 2
MAPPING_KSM = 3
MAPPING_TAGS = 3

PAGE_TYPES = ("buddy", "offline", "table", "guard", "hugetlb", "slab", "zsmalloc", "unaccepted", "large_kmalloc")
"""Codes of `PageTypes.decode`, counted from 1; 0 means that the page has no type."""

_INVERTED = {"buddy": 0x80, "offline": 0x100, "table": 0x200, "guard": 0x400}
"""include/linux/page-flags.h before 6.11: the type is a bit cleared in a word of ones."""


def type_code(name: str) -> int:
    """The code of a page type's name."""
    return PAGE_TYPES.index(name) + 1


@dataclass(frozen=True)
class PageTypes:
    """How this kernel stores page types in the word shared with ``_mapcount``.

    Attributes:
        byte_types: Top byte to code, on kernels with ``enum pagetype`` of PGTY_ values; else empty.
        bit_types: Cleared bit to code, on older kernels.
        others: Bytes or bits of further types that this kernel has.
    """

    byte_types: dict[int, int] = field(default_factory=dict)
    bit_types: dict[int, int] = field(default_factory=dict)
    others: frozenset[int] = frozenset()

    def is_typed(self, word: U32) -> Mask:
        """Which words hold a type, known or not (page_has_type(), include/linux/page-flags.h)."""
        if self.byte_types:
            top = word >> np.uint32(24)
            return (top >= np.uint32(0xF0)) & (top != np.uint32(0xFF))
        low = word.view(np.int32)
        return (low < -128) & ((word & np.uint32(0xF0000000)) == np.uint32(0xF0000000))

    def is_known(self, word: U32) -> Mask:
        """Which words that hold a type hold only types that this kernel has."""
        if self.byte_types:
            return np.isin(word >> np.uint32(24), np.array([*self.byte_types, *self.others], np.uint32))
        known = np.uint32(sum(self.bit_types) | sum(self.others))
        return (~word & np.uint32(0x0FFFFF80) & ~known) == 0

    def is_whole(self, word: U32) -> Mask:
        """Which words are just one type as the kernel writes it, or one that may keep something beside it.

        Where types are cleared bits, words with many of these are no type with a bit turned over and count as whole.
        """
        if self.byte_types:
            free = [byte for byte, code in self.byte_types.items() if code == type_code("zsmalloc")] + sorted(
                self.others
            )
            top = word >> np.uint32(24)
            return ((word & np.uint32(0xFFFFFF)) == 0) | np.isin(top, np.array(free, np.uint32))
        exact = np.array([~np.uint32(bit) for bit in (*self.bit_types, *self.others)], np.uint32)
        cleared = ~word
        # Of a word with two bits nothing is left when the lowest is taken away twice.
        for _ in range(2):
            cleared = cleared & (cleared - np.uint32(1))
        return np.isin(word, exact) | (cleared != 0)

    def decode(self, word: U32) -> U8:
        """Code of each ``_mapcount`` word's page type; 0 for a count."""
        out = np.zeros(len(word), np.uint8)
        if self.byte_types:
            table = np.zeros(256, np.uint8)
            for byte, code in self.byte_types.items():
                table[byte] = code
            return table[word >> np.uint32(24)]
        for bit, code in self.bit_types.items():
            out[(word & np.uint32(0xF0000000 | bit)) == np.uint32(0xF0000000)] = code
        return out


@dataclass(frozen=True)
class PageFlags:
    """Bit numbers of ``enum pageflags``; a missing name gives the empty mask."""

    bits: dict[str, int]

    def mask(self, name: str) -> np.uint64:
        """The mask of ``PG_name``; 0 when this kernel has no such flag."""
        bit = self.bits.get("PG_" + name)
        return np.uint64(0 if bit is None else 1 << bit)

    def has(self, name: str) -> bool:
        """Whether this kernel has ``PG_name``."""
        return "PG_" + name in self.bits

    def test(self, flags: U64 | Column[np.uint64], name: str) -> Mask:
        """Which flag words have ``PG_name`` set."""
        return (flags & self.mask(name)) != 0

    def names(self, word: int) -> list[str]:
        """The names of the bits set in one word, aliases included once under their first name."""
        seen: dict[int, str] = {}
        for name, bit in self.bits.items():
            if not name.startswith("__") and word >> bit & 1:
                seen.setdefault(bit, name.removeprefix("PG_"))
        return [seen[bit] for bit in sorted(seen)]

    def listed(self, words: U64) -> AnyArray:
        """The names of the bits set in each word, comma-separated."""
        return np.array([",".join(self.names(word)) for word in words.tolist()], dtype=np.str_)


_ALIASES = {
    # Flags that are #defines of another flag's bit, so that no enum names them (include/linux/page-flags.h).
    "PG_anon_exclusive": ("PG_owner_2", "PG_mappedtodisk"),
    "PG_swapcache": ("PG_owner_priv_1",),
}


def page_flags(prog: drgn.Program) -> PageFlags:
    """The page flags of the target (``enum pageflags``)."""
    bits = enumerators(prog, "enum pageflags")
    bits.pop("__NR_PAGEFLAGS", None)
    for alias, sources in _ALIASES.items():
        for source in sources:
            if alias not in bits and source in bits:
                bits[alias] = bits[source]
    return PageFlags(bits)


def page_types(prog: drgn.Program, vmcoreinfo: dict[str, str]) -> PageTypes:
    """The page types of the target (``enum pagetype``, else the values exported in VMCOREINFO)."""
    enum = enumerators(prog, "enum pagetype")
    byte_types = {
        value & 0xFF: type_code(name.removeprefix("PGTY_"))
        for name, value in enum.items()
        if name.startswith("PGTY_") and name.removeprefix("PGTY_") in PAGE_TYPES
    }
    if byte_types:
        others = frozenset(v & 0xFF for n, v in enum.items() if n.startswith("PGTY_")) - byte_types.keys() - {0xFF}
        return PageTypes(byte_types=byte_types, others=others)
    if enum:  # 6.11: the enum holds the cleared bits themselves
        return PageTypes(
            bit_types={
                value: type_code(name.removeprefix("PG_"))
                for name, value in enum.items()
                if name.removeprefix("PG_") in PAGE_TYPES
            }
        )
    bits = dict(_INVERTED)
    for name in ("buddy", "offline", "hugetlb", "slab"):
        value = vmcoreinfo.get(f"NUMBER(PAGE_{name.upper()}_MAPCOUNT_VALUE)")
        if value is not None:
            bits[name] = ~int(value) & 0x0FFFFFFF
    return PageTypes(bit_types={bit: type_code(name) for name, bit in bits.items()})
