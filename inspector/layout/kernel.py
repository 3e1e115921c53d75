"""The whole layout of one kernel, probed once: what every table and walk needs to know about it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import drgn
import numpy as np

from inspector.arch.base import Arch
from inspector.columns import I64, U64, Mask
from inspector.errors import LayoutError, TargetError
from inspector.layout.config import Config, probe_config
from inspector.layout.flags import PageFlags, PageTypes, page_flags, page_types
from inspector.layout.memmap import MemMap, memmap_of_ram, read_memmap
from inspector.layout.offsets import Struct, enumerators
from inspector.layout.paging import probe_arch
from inspector.layout.scheme import SchemeEvidence, probe_scheme
from inspector.memory import Memory
from inspector.records import cached_property
from inspector.target.target import Target

_DIRECT_MAP_SIZE = {4: 64 << 40, 5: 32 << 50}
"""Bytes of the direct map by paging levels (Documentation/arch/x86/x86_64/mm.rst)."""


def _direct_map_size(target: Target, memory: Memory, base: int, levels: int) -> int:
    """Bytes that the direct map may span as long as the memory map is not known.

    With KASLR the regions behind it begin much nearer than the full size (arch/x86/mm/kaslr.c,
    kernel_randomize_memory()): their addresses must not be taken for physical memory.
    """
    end = base + _DIRECT_MAP_SIZE[levels]
    for name in ("vmalloc_base", "vmemmap_base"):
        symbol = target.symbol(name)
        start = memory.read_u64(symbol) if symbol is not None else None
        if start is not None and base < start < end:
            end = start
    return end - base


_VMEMMAP = {4: 0xFFFFEA0000000000, 5: 0xFFD4000000000000}
"""Where the memory map begins without KASLR, by paging levels (Documentation/arch/x86/x86_64/mm.rst)."""

_KERNEL_MAP = 0xFFFFFFFF80000000
"""Where the image of the kernel is mapped (__START_KERNEL_map)."""

_LRU_GEN_WIDTH, _LRU_REFS_WIDTH = 3, 2
"""Bits of page flags that multi-generation LRU uses (kernel/bounds.c)."""

_MAX_RAM = 1 << 46


def _memmap_without_sections(target: Target, memory: Memory, info: dict[str, str], levels: int) -> MemMap:
    """The memory map as it follows from where the kernel says that it begins; empty where that memory is unknown."""

    def variable(name: str) -> int | None:
        symbol = target.symbol(name)
        return memory.read_u64(symbol) if symbol is not None else None

    base = variable("vmemmap_base") or _VMEMMAP[levels]
    top = (variable("max_pfn") or 0) * int(info["PAGESIZE"])
    ram = [(start, min(end, top or _MAX_RAM)) for start, end in target.ram or [(0, min(top, _MAX_RAM))]]
    return memmap_of_ram(target.prog, base, info, [(start, end) for start, end in ram if start < end])


_LAST_PID_BITS = 8
"""LAST__PID_SHIFT (include/linux/page-flags-layout.h)."""


@dataclass(frozen=True)
class FlagFields:
    """Where page flags hold numbers.

    Attributes:
        node_width: Bits of the node, the uppermost.
        zone, zone_width: Lowest bit of the zone, and how many.
        gen, gen_width: The same of the generation in the multi-gen LRU, counted from 1; 0 bits where there is none.
    """

    node_width: int
    zone: int
    zone_width: int
    gen: int
    gen_width: int

    @property
    def gen_mask(self) -> int:
        """LRU_GEN_MASK."""
        return ((1 << self.gen_width) - 1) << self.gen

    def nodes(self, flags: U64) -> I64:
        """Node of each flags word."""
        return (
            (flags >> np.uint64(64 - self.node_width)).astype(np.int64)
            if self.node_width
            else flags.astype(np.int64) * 0
        )

    def zones(self, flags: U64) -> I64:
        """Zone of each flags word."""
        return ((flags >> np.uint64(self.zone)) & np.uint64((1 << self.zone_width) - 1)).astype(np.int64)

    def gens(self, flags: U64) -> I64:
        """Generation of each flags word, -1 for none."""
        return ((flags >> np.uint64(self.gen)) & np.uint64((1 << self.gen_width) - 1)).astype(np.int64) - 1


@dataclass
class Layout:
    """What this kernel looks like.

    Attributes:
        target: The opened target.
        memory: Its bulk reader.
        info: VMCOREINFO.
        arch: Decoder of its page-table entries.
        memmap: Where its struct pages lie.
        config: How it was configured.
        scheme: Which mapcount accounting it uses, and why we think so.
        flags, types: Its page flags and page types.
    """

    target: Target
    memory: Memory
    info: dict[str, str]
    arch: Arch
    memmap: MemMap
    config: Config
    scheme: SchemeEvidence
    flags: PageFlags
    types: PageTypes
    _structs: dict[str, Struct] = field(default_factory=dict)

    @classmethod
    def probe(cls, target: Target) -> Layout:
        """Find out all of it.

        Raises:
            LayoutError: Something that no work can do without is missing.
        """
        prog, info = target.prog, dict(target.vmcoreinfo)
        if "PAGESIZE" not in info:
            raise LayoutError("VMCOREINFO of the target has no PAGESIZE", target.path, "The dump's notes are damaged")
        memory = Memory(prog)
        memory.runs_on = target.is_live
        symbol = target.symbol("page_offset_base")
        base = memory.read_u64(symbol) if symbol is not None else 0xFFFF888000000000
        if base is None:
            raise TargetError("the kernel's data cannot be read", target.path, "The dump lacks kernel data")
        levels = 5 if info.get("NUMBER(pgtable_l5_enabled)", "0") == "1" else 4
        memory.set_direct_map(base, _direct_map_size(target, memory, base, levels))
        section = target.symbol("mem_section")
        try:
            if section is None:
                raise LayoutError(
                    "the kernel has no symbol mem_section", target.path, "Sparse memory only is supported"
                )
            memmap = read_memmap(prog, memory, {"mem_section": section}, info)
        except LayoutError as error:
            memmap = _memmap_without_sections(target, memory, info, levels)
            if not memmap.nr_pages:
                raise
            target.notes.append(f"The memory map is assumed to cover all memory: {error.what}.")
        memory.set_direct_map(base, memmap.max_pfn << memmap.page_shift)
        config = probe_config(target, memory)
        return cls(
            target,
            memory,
            info,
            probe_arch(target, memory, info, levels),
            memmap,
            config,
            probe_scheme(prog, config),
            page_flags(prog),
            page_types(prog, info),
        )

    @property
    def prog(self) -> drgn.Program:
        """The program, for types and odd single objects."""
        return self.target.prog

    def struct(self, name: str) -> Struct:
        """A struct type, probed once."""
        if name not in self._structs:
            self._structs[name] = Struct(self.prog, name)
        return self._structs[name]

    def has_struct(self, name: str) -> bool:
        """Whether this kernel has a struct type of that name, given with its keyword."""
        try:
            self.struct(name)
        except LayoutError:
            return False
        return True

    @cached_property
    def ptdesc(self) -> Struct:
        """The descriptor of a page table: struct ptdesc, or struct page where that is all there is (6.1)."""
        return self.struct("struct ptdesc" if self.has_struct("struct ptdesc") else "struct page")

    def symbol(self, *names: str) -> int:
        """Address of the first of the symbols that exists.

        Raises:
            LayoutError: None does.
        """
        for name in names:
            address = self.target.symbol(name)
            if address is not None:
                return address
        raise LayoutError(f"the kernel has no symbol {' or '.join(names)}", self.target.path)

    def variable(self, *names: str, size: int = 8) -> int | None:
        """Unsigned value of the first of the named variables that exists and can be read; else None."""
        for name in names:
            address = self.target.symbol(name)
            if address is not None:
                data = self.memory.read(address, size)
                return None if data is None else int.from_bytes(data, "little")
        return None

    @cached_property
    def per_cpu_offsets(self) -> U64:
        """What to add to a per-CPU address for each possible CPU (``__per_cpu_offset``)."""
        raw, _ = self.memory.read_range(self.symbol("__per_cpu_offset"), 8 * self._nr_cpus)
        return raw.view(np.uint64)[self.possible_cpus]

    @cached_property
    def _nr_cpus(self) -> int:
        """CPUs that may have a number (nr_cpu_ids).

        Raises:
            LayoutError: It is not known.
        """
        nr = self.variable("nr_cpu_ids", size=4)
        if not nr:
            raise LayoutError("the kernel's nr_cpu_ids is not known")
        return min(nr, 8192)

    @cached_property
    def nr_nodes(self) -> int:
        """Memory nodes that may have a number (nr_node_ids); 1 without NUMA.

        Raises:
            LayoutError: It is not known.
        """
        nr = self.variable("nr_node_ids", size=4)
        if nr is None and self.target.symbol("node_data") is not None:
            raise LayoutError("the kernel's nr_node_ids is not known")
        return min(nr or 1, 1024)

    @cached_property
    def possible_cpus(self) -> U64:
        """Numbers of the possible CPUs (``__cpu_possible_mask``)."""
        nr = self._nr_cpus
        raw, _ = self.memory.read_range(self.symbol("__cpu_possible_mask"), -(-nr // 64) * 8)
        bits = np.flatnonzero(np.unpackbits(raw, bitorder="little")[:nr])
        return (bits if len(bits) else np.arange(nr)).astype(np.uint64)

    @cached_property
    def zero_pfn(self) -> int:
        """Page frame of the shared zero page, -1 when it is not known."""
        value = self.variable("zero_page_pfn", "zero_pfn")
        if value is None and (page := self.target.symbol("empty_zero_page")) is not None:
            # In the image of the kernel (arch/x86/mm/physaddr.c, __phys_addr()).
            value = page - _KERNEL_MAP + int(self.info.get("NUMBER(phys_base)", "0")) >> self.arch.page_shift
        # From 7.0 zero_pfn() is a function: its code must not be taken for a number.
        return value if value is not None and value < self.memmap.max_pfn else -1

    @cached_property
    def huge_zero_pfn(self) -> int:
        """First page frame of the huge zero folio, -1 when there is none."""
        if self.target.symbol("huge_zero_pfn") is not None:
            value = self.variable("huge_zero_pfn")
            return value if value is not None and value < self.memmap.max_pfn else -1
        page = self.variable("huge_zero_folio", "huge_zero_page") or 0
        return int(self.memmap.pfns(np.array([page], np.uint64))[0])

    @cached_property
    def pmd_order(self) -> int:
        """Order of a folio that one PMD maps."""
        return self.arch.shapes[-2].shift - self.arch.page_shift

    @cached_property
    def order_in_flags(self) -> bool:
        """Whether the first tail's flags hold the order of the folio (since 6.6)."""
        old = self.struct("struct page").find("compound_order") or self.struct("struct folio").find("_folio_order")
        return old is None

    @cached_property
    def _zone_widths(self) -> tuple[int, int]:
        """Bits of page flags that hold the node, and those below that hold the zone; 0 and 0 when not known.

        MAX_NUMNODES follows from the length of a zonelist, MAX_NR_ZONES from that of a node.
        """
        if not self.has_struct("struct zonelist"):
            return 0, 0
        zones = self.struct("struct pglist_data").field("node_zones").length
        entries = self.struct("struct zonelist").field("_zonerefs").length
        nodes = (entries - 1) // zones if zones else 0
        if nodes < 1 or nodes & (nodes - 1):
            return 0, 0
        return (nodes - 1).bit_length(), (zones - 1).bit_length()

    @cached_property
    def zone_bits(self) -> int:
        """Mask of the bits of page flags that hold node and zone; 0 when their widths are not known.

        With a vmemmap there are no section bits above them (include/linux/page-flags-layout.h).
        """
        width = sum(self._zone_widths)
        return ((1 << width) - 1) << (64 - width) if width else 0

    def zone_links(self, node: I64, zone: I64) -> U64:
        """Node and zone as the flags of their pages hold them (include/linux/mm.h, set_page_links())."""
        of_node, of_zone = self._zone_widths
        return (node << of_zone | zone).astype(np.uint64) << np.uint64(64 - of_node - of_zone)

    def direct_map_addrs(self, pfns: I64) -> U64:
        """The address of each page frame in the direct map."""
        base, shift = np.uint64(self.memory.direct_map_base), np.uint64(self.memmap.page_shift)
        return base + (pfns.astype(np.uint64) << shift)

    def direct_map_pfns(self, addrs: U64) -> I64:
        """The page frame of each address of the direct map, -1 for others."""
        base, shift = np.uint64(self.memory.direct_map_base), np.uint64(self.memmap.page_shift)
        inside = (addrs >= base) & (addrs - base < np.uint64(self.memmap.max_pfn) << shift)
        out = np.full(len(addrs), -1, np.int64)
        out[inside] = ((addrs[inside] - base) >> shift).astype(np.int64)
        return out

    @cached_property
    def _device_zone(self) -> int:
        """ZONE_DEVICE (include/linux/mmzone.h); -1 where there is none."""
        return self.enum("enum zone_type").get("ZONE_DEVICE", -1)

    def of_device(self, flags: U64) -> Mask:
        """Whether pages with such flags are a driver's memory (include/linux/mmzone.h, is_zone_device_page())."""
        if self.flag_fields is None or self._device_zone < 0:
            return np.zeros(flags.shape, np.bool_)
        return self.flag_fields.zones(flags) == self._device_zone

    @cached_property
    def has_lru_gen(self) -> bool:
        """Whether this kernel is built with multi-generation LRU (CONFIG_LRU_GEN)."""
        return self.struct("struct lruvec").has("lrugen")

    @cached_property
    def _lru_gen_end(self) -> int:
        """The bit of page flags above the generation (LRU_GEN_PGOFF + LRU_GEN_WIDTH)."""
        end = 64 - sum(self._zone_widths)
        if self.struct("struct task_struct").has("numa_scan_period") and not self.struct("struct page").has(
            "_last_cpupid"
        ):
            end -= 8 + (8 * self.struct("struct cpumask").size - 1).bit_length()
        return end

    @cached_property
    def lru_gen_bits(self) -> int:
        """Mask of the bits of page flags that hold the generation of multi-generation LRU; 0 for none or not known."""
        if not self.has_lru_gen or not self.zone_bits or self.arch.name != "x86_64":
            return 0
        return ((1 << _LRU_GEN_WIDTH) - 1) << (self._lru_gen_end - _LRU_GEN_WIDTH)

    @cached_property
    def lru_bits(self) -> int:
        """The same, and below them those of the references that the pages of a generation had (LRU_REFS_MASK)."""
        return self.lru_gen_bits | self.lru_gen_bits >> _LRU_REFS_WIDTH

    @cached_property
    def unused_flag_bits(self) -> int:
        """Mask of the bits of page flags that mean nothing on this kernel; 0 when that is not known.

        From above: node, zone, the CPU and process of the last NUMA hint fault, the generation and the references of
        multi-generation LRU (include/linux/page-flags-layout.h), unused bits, ``enum pageflags``.
        """
        used = max(self.flags.bits.values(), default=0) + 1
        if not self.zone_bits or self.arch.name != "x86_64":
            return 0
        free = self._lru_gen_end - (_LRU_GEN_WIDTH + _LRU_REFS_WIDTH if self.has_lru_gen else 0)
        return ((1 << free) - 1) & ~((1 << used) - 1) if free > used else 0

    @cached_property
    def flag_fields(self) -> FlagFields | None:
        """Where page flags hold node, zone and generation; None where their widths are not known.

        They lie above the flags, from the top: node, zone, last_cpupid where it fits in, generation
        (include/linux/mmzone.h, NODES_PGOFF to LRU_GEN_PGOFF; include/linux/page-flags-layout.h). What is known of
        their widths is as for `zone_bits`; that of last_cpupid follows from the length of a cpumask.
        """
        if not self.zone_bits:
            return None
        zones = self.struct("struct pglist_data").field("node_zones").length
        zone_width = (zones - 1).bit_length()
        node_width = self.zone_bits.bit_count() - zone_width
        folios = self.struct("struct lruvec").find("lrugen.folios", "lrugen.lists")
        gens = 0 if folios is None else folios.size // (16 * 2 * zones)
        cpupid = 0
        if self.struct("struct task_struct").has("numa_scan_seq") and not self.struct("struct page").has(
            "_last_cpupid"
        ):
            cpupid = _LAST_PID_BITS + (8 * self.struct("struct cpumask").size - 1).bit_length()
        gen_width = gens.bit_length() if gens else 0
        zone = 64 - node_width - zone_width
        return FlagFields(node_width, zone, zone_width, zone - cpupid - gen_width, gen_width)

    @cached_property
    def version(self) -> tuple[int, int] | None:
        """Major and minor number of the release, None when it is not known."""
        found = re.match(r"(\d+)\.(\d+)", self.target.identity.release or "")
        return (int(found[1]), int(found[2])) if found else None

    def enum(self, name: str) -> dict[str, int]:
        """Name to value of an enum, empty when this kernel lacks it."""
        return enumerators(self.prog, name)
