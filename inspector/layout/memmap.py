"""Where the memory map lies: page frame numbers, their struct pages, and which of them exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import drgn
import numpy as np

from inspector.columns import I64, U64, AnyArray, Mask, UnknownColumn, distinct, expand_runs, rows_covering, take_or
from inspector.errors import LayoutError
from inspector.layout.offsets import Struct
from inspector.memory import Memory
from inspector.records import cached_property, dataclass

_HAS_MEM_MAP = 1 << 1
"""SECTION_HAS_MEM_MAP, include/linux/mmzone.h."""

_SECTION_FLAGS = (1 << 12) - 1
"""Low bits of section_mem_map that hold flags rather than address; struct page arrays of sections are page-aligned."""

_SUBSECTION_SHIFT = 21
_SUBSECTION_PAGES_SHIFT = 5
"""Granularity of the row look-up, in pages: fine enough for every page size up to 64 KiB."""
GRAIN = 1 << _SUBSECTION_PAGES_SHIFT
"""Stretches of a memory map begin and end at multiples of this many pages."""

_MAX_SECTIONS = 1 << 22


@dataclass(frozen=True)
class MemMap:
    """The virtual memory map of sparse memory.

    Attributes:
        vmemmap: Address of the struct page of pfn 0.
        page_size: sizeof(struct page).
        page_shift: log2 of the page size.
        starts, ends: Page frame ranges [start, end) that have a memory map, ascending.
    """

    vmemmap: int
    page_size: int
    page_shift: int
    starts: I64
    ends: I64

    @property
    def max_pfn(self) -> int:
        """One more than the highest page frame number with a struct page."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def structs_a_page(self) -> int:
        """Struct pages that lie in one page."""
        return (1 << self.page_shift) // self.page_size

    @property
    def nr_pages(self) -> int:
        """Struct pages in all ranges."""
        return int((self.ends - self.starts).sum())

    def page_addr(self, pfn: int) -> int:
        """Address of the struct page of a page frame."""
        return self.vmemmap + pfn * self.page_size

    def page_addrs(self, pfns: AnyArray) -> U64:
        """Address of the struct page of each page frame."""
        return np.uint64(self.vmemmap) + pfns.astype(np.uint64) * np.uint64(self.page_size)

    def around(self, pfns: I64, nr: I64 | None = None) -> MemMap:
        """The memory map of short stretches that hold the given page frames, as far as they have struct pages.

        Args:
            pfns: int64[n].
            nr: int64[n]; how many page frames from each on, at least 1; None for 1.
        """
        blocks = pfns // GRAIN
        if nr is not None:
            blocks = expand_runs(blocks, (pfns + nr - 1) // GRAIN - blocks + 1).astype(np.int64)
        starts = distinct(blocks) * GRAIN
        starts = starts[self.valid(starts)]
        first = np.flatnonzero(np.diff(starts, prepend=-2 * GRAIN) != GRAIN)
        last = np.flatnonzero(np.diff(starts, append=np.iinfo(np.int64).max) != GRAIN)
        return replace(self, starts=starts[first], ends=starts[last] + GRAIN)

    def and_around(self, part: MemMap, pfns: I64) -> MemMap:
        """A part of this memory map, and the short stretches that hold further page frames."""
        return self.around(np.concatenate([part.starts, pfns]), np.concatenate([part.ends - part.starts, pfns * 0 + 1]))

    @cached_property
    def is_sparse(self) -> bool:
        """Whether so few of the page frames have a row that a table of all of them would be larger than the rows."""
        return self.max_pfn >> self.row_shift > self.nr_pages

    @cached_property
    def row_shift(self) -> int:
        """log2 of the pages that `row_delta` has one number for: as many as every range is a multiple of."""
        borders = int(np.bitwise_or.reduce(np.concatenate([self.starts, self.ends]))) if len(self.starts) else 0
        return max((borders & -borders).bit_length() - 1, _SUBSECTION_PAGES_SHIFT)

    @cached_property
    def row_delta(self) -> I64:
        """What to add to a page frame number to get its row, by subsection; a huge negative number where none is."""
        table = np.full((self.max_pfn >> self.row_shift) + 2, np.iinfo(np.int64).min // 2, np.int64)
        row = 0
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            table[start >> self.row_shift : end >> self.row_shift] = row - start
            row += end - start
        return table

    def rows(self, pfns: U64 | I64) -> I64:
        """Row of each page frame in tables that have one row a struct page; -1 where it has none."""
        signed = pfns.astype(np.int64, copy=False)
        if len(self.starts) == 1 and not self.starts[0]:
            return np.where((signed >= 0) & (signed < self.ends[0]), signed, -1)
        if self.is_sparse:
            at = rows_covering(self.starts, self.ends, signed)
            return np.where(at >= 0, signed + take_or(self._row_starts - self.starts, at, 0), -1)
        table = self.row_delta
        at = signed >> self.row_shift
        inside = (at >= 0) & (at < len(table))
        if not inside.all():
            at = np.where(inside, at, len(table) - 1)
        return np.maximum(signed + table[at], -1)

    def row(self, pfn: int) -> int:
        """Row of one page frame, -1 where it has none."""
        return int(self.rows(np.array([pfn], np.int64))[0])

    @cached_property
    def _row_starts(self) -> I64:
        sizes = self.ends - self.starts
        return np.cumsum(sizes) - sizes

    def pfns_of_rows(self, rows: AnyArray) -> I64:
        """Page frame number of each row, -1 for -1."""
        at = np.searchsorted(self._row_starts, rows, "right") - 1
        return np.where(rows >= 0, rows - self._row_starts[at] + self.starts[at], -1)

    def pfn(self, row: int) -> int:
        """Page frame number of one row, -1 for -1."""
        return int(self.pfns_of_rows(np.array([row]))[0])

    def pfns(self, page_addrs: U64) -> I64:
        """Page frame number of each struct page address; -1 where the address is in no memory map."""
        offset = (page_addrs - np.uint64(self.vmemmap)).astype(np.int64)
        pfn = offset // self.page_size
        bad = (offset % self.page_size != 0) | ~self.valid(pfn)
        return np.where(bad, -1, pfn)

    def valid(self, pfns: I64) -> Mask:
        """Whether each page frame has a struct page."""
        return rows_covering(self.starts, self.ends, pfns) >= 0


@dataclass(frozen=True)
class Sections:
    """The sections of sparse memory that have a memory map (struct mem_section).

    Attributes:
        number: int64; which piece of physical memory each is, ascending.
        mem_map: uint64; section_mem_map, flags included.
        usage: uint64; address of its struct mem_section_usage.
        pages: Pages of one (PAGES_PER_SECTION).
    """

    number: I64
    mem_map: U64
    usage: U64
    pages: int


def read_sections(prog: drgn.Program, memory: Memory, symbol: int, info: Mapping[str, str]) -> Sections:
    """The sections of the target, from ``mem_section`` (mm/sparse.c).

    Args:
        prog: For the types.
        memory: For the bytes.
        symbol: Address of ``mem_section``.
        info: VMCOREINFO, for the geometry of sections.

    Raises:
        LayoutError: They cannot be read.
    """
    page_shift = int(info["PAGESIZE"]).bit_length() - 1
    section_struct = Struct(prog, "struct mem_section")
    root = memory.read_u64(symbol)
    bits = int(info.get("NUMBER(SECTION_SIZE_BITS)", "27"))
    phys_bits = int(info.get("NUMBER(MAX_PHYSMEM_BITS)", "46"))
    nr_sections = min(1 << max(phys_bits - bits, 0), _MAX_SECTIONS)
    per_root = (1 << page_shift) // section_struct.size
    nr_roots = -(-nr_sections // per_root)
    if not root:
        raise LayoutError("the memory map of the target cannot be found", "mem_section", "The dump lacks kernel data")
    roots = _read_roots(memory, root, nr_roots)
    present = np.flatnonzero(roots)
    raw = memory.gather(roots[present], per_root * section_struct.size)
    sections = raw.bytes.reshape(-1, section_struct.size)
    number = (present[:, None] * per_root + np.arange(per_root)[None, :]).ravel()
    mem_map = section_struct.field("section_mem_map").column(sections)
    usage = section_struct.field("usage").column(sections)
    keep = (mem_map & np.uint64(_HAS_MEM_MAP)) != 0
    if not keep.any():
        raise LayoutError("the memory map of the target cannot be read", "mem_section", "The dump lacks kernel data")
    return Sections(number[keep], mem_map[keep], usage[keep], 1 << (bits - page_shift))


def read_memmap(prog: drgn.Program, memory: Memory, symbols: dict[str, int], info: dict[str, str]) -> MemMap:
    """The memory map of the target, from ``mem_section`` (mm/sparse.c).

    Args:
        prog: For the types.
        memory: For the bytes.
        symbols: Must hold ``mem_section``.
        info: VMCOREINFO, for the geometry of sections.

    Raises:
        LayoutError: The sections cannot be read, or this kernel does not use sparse memory with a vmemmap.
    """
    page_shift = int(info["PAGESIZE"]).bit_length() - 1
    sections = read_sections(prog, memory, symbols["mem_section"], info)
    page_struct = Struct(prog, "struct page")
    # sparse_encode_mem_map() stores the address of the struct page of pfn 0 when the map is virtual.
    bases = distinct(sections.mem_map & ~np.uint64(_SECTION_FLAGS))
    if len(bases) != 1:
        raise LayoutError("this kernel's memory map is not a vmemmap", "mem_section", "Sparse memory only is supported")
    starts, ends = _ranges(prog, memory, sections, page_shift)
    return MemMap(int(bases[0]), page_struct.size, page_shift, starts, ends)


def memmap_of_ram(prog: drgn.Program, base: int, info: Mapping[str, str], ram: Iterable[tuple[int, int]]) -> MemMap:
    """The memory map where the sections cannot be read: the whole of each section that holds some memory has one.

    Args:
        prog: For the types.
        base: Address of the struct page of pfn 0 (``vmemmap_base``).
        info: VMCOREINFO, for the geometry of sections.
        ram: Physical memory, [start, end) in bytes.
    """
    page_shift = int(info["PAGESIZE"]).bit_length() - 1
    section = 1 << int(info.get("NUMBER(SECTION_SIZE_BITS)", "27"))
    numbers = {number for start, end in ram for number in range(start // section, -(-end // section))}
    pages = section >> page_shift
    starts = np.array(sorted(numbers), np.int64) * pages
    first = np.diff(starts, prepend=-pages - 1) != pages
    last = np.diff(starts, append=np.iinfo(np.int64).max) != pages
    return MemMap(base, Struct(prog, "struct page").size, page_shift, starts[first], starts[last] + pages)


def _read_roots(memory: Memory, root: int, nr_roots: int) -> U64:
    data, _ = memory.read_range(root, nr_roots * 8)
    return data.view(np.uint64)


def _ranges(prog: drgn.Program, memory: Memory, sections: Sections, page_shift: int) -> tuple[I64, I64]:
    """Merge the sections' subsections (struct mem_section_usage.subsection_map) into ranges of page frames."""
    struct = Struct(prog, "struct mem_section_usage")
    field = struct.find("subsection_map")
    if field is None or isinstance(sections.usage, UnknownColumn):
        starts = sections.number * sections.pages
        ends = starts + sections.pages
    else:
        raw = memory.gather(sections.usage, struct.size)
        bitmap = np.unpackbits(raw.bytes[:, field.offset : field.offset + field.size], axis=1, bitorder="little")
        pages = 1 << (_SUBSECTION_SHIFT - page_shift)
        bitmap = bitmap[:, : sections.pages // pages]
        bitmap[~raw.valid] = 1  # unknown: take the whole section, unreadable pages will be masked
        row, sub = np.nonzero(bitmap)
        starts = sections.number[row] * sections.pages + sub * pages
        ends = starts + pages
    order = np.argsort(starts)
    starts, ends = starts[order].astype(np.int64), ends[order].astype(np.int64)
    first = np.concatenate([[True], starts[1:] != ends[:-1]])
    last = np.concatenate([first[1:], [True]])
    return starts[first], ends[last]
