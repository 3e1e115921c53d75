"""One address of one process: the entry at every level of its page tables, the VMA, and what the entry leads to."""

from __future__ import annotations

from typing import Literal

import numpy as np

from inspector.arch.base import PFN_KINDS, Arch, Bit, Kind, Level, LevelShape
from inspector.arch.swapentry import MARKER_GUARD, MARKER_POISONED, MARKER_UFFD_WP
from inspector.columns import U64
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.vmas import Vmas

LookupEnd = Literal["leaf", "empty", "not present", "unreadable", "bad"]

_MARKERS = {MARKER_UFFD_WP: "write-protected by userfaultfd", MARKER_POISONED: "poisoned", MARKER_GUARD: "guard"}


@dataclass(frozen=True, slots=True)
class LookupStep:
    """One level of the way down.

    Attributes:
        level: Of the entry.
        table_pfn: Page frame of the table.
        index: Of the entry in the table.
        entry: As stored; None where the table cannot be read.
        kind: What the entry is.
        pfn: Page frame of the next table, of the first page mapped, or of the page a non-present entry names;
            -1 when there is none.
        bits: Attributes of the entry.
        detail: More about the entry, in words.
        invalidated: It is a huge entry that is invalidated for a moment.
    """

    level: Level
    table_pfn: int
    index: int
    entry: int | None
    kind: Kind
    pfn: int
    bits: Bit
    detail: str = ""
    invalidated: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """The way down for one address.

    Attributes:
        steps: From the top level to where it ends.
        end: How it ends.
        pfn: The page frame that the address maps to, -1 when none.
    """

    steps: list[LookupStep]
    end: LookupEnd
    pfn: int


def user_end(arch: Arch) -> int:
    """The first address above the user half."""
    top = arch.shapes[0]
    return top.user_entries << top.shift


def look_up(layout: Layout, pgd_pfn: int, va: int) -> Lookup:
    """Walk down for one user address.

    Args:
        layout: The kernel's layout.
        pgd_pfn: Page frame of the top table.
        va: The address.
    """
    steps: list[LookupStep] = []
    table = pgd_pfn
    for shape in layout.arch.shapes:
        step = _read_step(layout, shape, table, va)
        steps.append(step)
        if step.entry is None:
            return Lookup(steps, "unreadable", -1)
        if step.kind == Kind.TABLE:
            table = step.pfn
            continue
        if step.kind == Kind.LEAF:
            inside = (va & ((1 << shape.shift) - 1)) >> layout.arch.page_shift
            return Lookup(steps, "leaf", step.pfn + inside)
        end: LookupEnd = "empty" if step.kind == Kind.NONE else "bad" if step.kind == Kind.BAD else "not present"
        return Lookup(steps, end, -1)
    return Lookup(steps, "bad", -1)


def _read_step(layout: Layout, shape: LevelShape, table: int, va: int) -> LookupStep:
    index = (va >> shape.shift) % shape.entries
    raw = layout.memory.read((table << layout.arch.page_shift) + 8 * index, 8, physical=True)
    if raw is None:
        return LookupStep(shape.level, table, index, None, Kind.NONE, -1, Bit(0))
    entry: U64 = np.frombuffer(raw, np.uint64)
    kind = Kind(int(layout.arch.classify(shape.level, entry)[0]))
    pfn, bits, detail = decode_entry(layout.arch, shape.level, kind, entry)
    never = bits_never_written(layout.arch, shape.level, kind, entry)
    if never:
        detail = f"{detail}; " * bool(detail) + f"bits that this kernel never writes: {never:#x}"
    gone = kind == Kind.LEAF and bool(layout.arch.invalidated(np.array([shape.level], np.uint8), entry)[0])
    return LookupStep(shape.level, table, index, int(entry[0]), kind, pfn, bits, detail, gone)


def bits_never_written(arch: Arch, level: Level, kind: Kind, entry: U64) -> int:
    """The bits of one entry, given as an array of length 1, that this kernel writes in no entry of its kind."""
    if kind in (Kind.TABLE, Kind.NONE, Kind.BAD):
        return 0
    if kind == Kind.LEAF:
        return int(arch.never_written(np.array([level], np.uint8), entry)[0])
    return int(arch.nonpresent_never_written(np.array([kind], np.uint8), entry)[0])


def decode_entry(arch: Arch, level: Level, kind: Kind, entry: U64) -> tuple[int, Bit, str]:
    """Page frame (-1 for none), attributes and details of one entry, given as an array of length 1."""
    if kind == Kind.TABLE:
        return int(arch.table_pfn(entry)[0]), Bit(0), ""
    if kind == Kind.LEAF:
        return int(arch.leaf_pfn(level, entry)[0]), Bit(int(arch.leaf_bits(level, entry)[0])), ""
    if kind in (Kind.NONE, Kind.BAD):
        return -1, Bit(0), ""
    bits = Bit(int(arch.nonpresent_bits(level, entry)[0]))
    if kind in PFN_KINDS:
        return int(arch.nonpresent_pfn(entry)[0]), bits, ""
    offset = int(arch.swap_offset(entry)[0])
    if kind == Kind.MARKER:
        return -1, bits, ", ".join(word for bit, word in _MARKERS.items() if offset & bit)
    return -1, bits, f"swap device {int(arch.swap_type(entry)[0])}, slot {offset:#x}"


def find_vma(vmas: Vmas, mm_idx: int, va: int) -> int:
    """Row of the VMA of an mm that holds an address, -1 when none does."""
    rows = np.flatnonzero((vmas.mm_idx == mm_idx) & (vmas.start <= np.uint64(va)) & (np.uint64(va) < vmas.end))
    return int(rows[0]) if len(rows) else -1
