"""``python -m tests.bench.enlarge``: a dump of a machine with more memory, made from a real one of a small machine.

What is added is **synthetic**, and is to be called so wherever a figure about it is given. It is consistent: sections,
struct pages, the kernel's page tables for them, zones, free lists and counters agree, so that `check` finds nothing.
Most of it is never written twice: pages of the memory map that have equal content share it in the file.

Added memory lies behind what there was, from 4 GiB on, in the highest zone of the last node. It begins with what the
kernel would have put there at boot (reserved): the memory map of the added memory and tables. The rest is free blocks
of the largest order, and with ``--used`` processes before them (`tests/bench/users.py`). As makedumpfile does, content
of free pages and of processes' pages is left out of the file.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspector.capture.capture import header_of
from inspector.capture.kdump_writer import DumpHeader
from inspector.columns import I64, U8
from inspector.snapshot import Snapshot
from inspector.tables.node_stats import nodes
from inspector.target.corefile import examine_core
from inspector.target.target import open_core
from tests.bench.cached import Cached
from tests.bench.compression import COMPRESSIONS, compression_named
from tests.bench.convert import pieces_of
from tests.bench.patching import PAGE, Patched, put
from tests.bench.users import Users
from tests.bench.writers import ElfWriter, KdumpWriter, Writer

_FOUR_GIB = 1 << 20
_MAX_ORDER = 10
_BLOCKS_AT_ONCE = 4096
_SECTION_FLAGS = 4095
_KERNEL_LARGE = 0x8000000000000163
"""PAGE_KERNEL_LARGE without _PAGE_PSE (arch/x86/include/asm/pgtable_types.h)."""
_UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Added:
    """The page frames that are added.

    Attributes:
        start, end: All of them.
        memmap: Where their struct pages lie.
        reserved: Up to here they are the kernel's since boot.
        free: From here on they are free.
    """

    start: int
    end: int
    memmap: int
    reserved: int
    free: int

    @property
    def nr(self) -> int:
        """How many they are."""
        return self.end - self.start


class Enlarger:
    """Adds memory to a dump.

    Args:
        s: The dump.
        size: Bytes of memory that the machine is to have.
        used: How many bytes of that are pages of processes.
        members: How many mms map each of them.
        cached: How many bytes are page cache; either this or ``used``.
    """

    def __init__(self, s: Snapshot, size: int, used: int = 0, members: int = 1, cached: int = 0) -> None:
        self._s, self._layout, self._patched = s, s.layout, Patched(s.layout)
        memmap = s.layout.memmap
        self._page = s.layout.struct("struct page")
        # A section of 128 MiB has 2 MiB of memory map: what a PMD maps.
        self._section_pages = (2 << 20) // self._page.size
        if self._page.size != 64 or len(s.layout.arch.shapes) != 4:
            raise SystemExit("only x86-64 with 4 levels of page tables and struct pages of 64 bytes can be enlarged")
        start = max(-(-memmap.max_pfn // self._section_pages) * self._section_pages, _FOUR_GIB)
        nr = (size // PAGE - memmap.nr_pages) // self._section_pages * self._section_pages
        if nr <= 0:
            raise SystemExit(f"the dump is of {memmap.nr_pages * PAGE >> 20} MiB: that is not less than what is asked")
        patched = self._patched
        patched.next_free = start
        own_map = patched.take(nr // 64)
        self._tops = [pfn * PAGE for pfn in s.mms.pgd_pfn[s.mms.pgd_pfn >= 0].tolist()]
        self._map(start, nr, own_map)
        self._sections(start, nr)
        block = 1 << _MAX_ORDER
        self._users = Users(s, patched, used // PAGE, members) if used else None
        self._cached = Cached(s, patched, cached // PAGE) if cached else None
        reserved = -(-patched.next_free // block) * block
        free = reserved
        if self._users is not None:
            reserved, free = self._users.plan.slabs, self._users.plan.end
        if self._cached is not None:
            reserved, free = self._cached.start, self._cached.end
        self._added = Added(start, start + nr, own_map, reserved, free)
        if free > start + nr:
            raise SystemExit("so many pages in use do not fit")

    def _map(self, start: int, nr: int, own_map: int) -> None:
        """The kernel's page tables for the added memory map and for the added part of the direct map."""
        patched, memmap = self._patched, self._layout.memmap
        for at in range(0, nr // 64, 512):
            patched.map_large(memmap.page_addr(start + at * 64), (own_map + at) * PAGE, 21, _KERNEL_LARGE, self._tops)
        gib = 1 << 18
        for pfn in range(-(-start // gib) * gib, start + nr // gib * gib, gib):
            patched.map_large(patched.address(pfn), pfn * PAGE, 30, _KERNEL_LARGE, self._tops)

    def _sections(self, start: int, nr: int) -> None:
        """struct mem_section of each piece of 128 MiB, and its usage (mm/sparse.c)."""
        layout, patched = self._layout, self._patched
        section, usage = layout.struct("struct mem_section"), layout.struct("struct mem_section_usage")
        mem_map, to_usage = section.field("section_mem_map"), section.field("usage")
        per_root, roots = PAGE // section.size, patched.word(layout.symbol("mem_section"))
        bits = layout.enum("enum pageblock_bits")
        each = 1 << max(bits.get("NR_PAGEBLOCK_BITS", bits.get("__NR_PAGEBLOCK_BITS", 4)) - 1, 0).bit_length()
        movable = layout.enum("enum migratetype")["MIGRATE_MOVABLE"]
        blocks = self._section_pages >> layout.pmd_order
        marks = sum(movable << (each * i) for i in range(blocks)).to_bytes(blocks * each // 8, "little")
        one = bytearray(-(-(usage.field("pageblock_flags").offset + len(marks)) // 64) * 64)
        at = usage.field("pageblock_flags").offset
        one[at : at + len(marks)] = marks
        sub = usage.find("subsection_map")
        if sub is not None:
            one[sub.offset : sub.offset + sub.size] = b"\xff" * sub.size
        first = layout.memmap.max_pfn // self._section_pages - 1
        like = patched.word(patched.word(roots + 8 * (first // per_root)) + first % per_root * section.size)
        word = like & _SECTION_FLAGS | layout.memmap.vmemmap
        numbers = range(start // self._section_pages, (start + nr) // self._section_pages)
        usages = patched.address(patched.take(-(-len(numbers) * len(one) // PAGE)))
        for i, number in enumerate(numbers):
            root = patched.word(roots + 8 * (number // per_root))
            if not root:
                root = patched.address(patched.take(1))
                patched.set_word(roots + 8 * (number // per_root), root)
            here = root + number % per_root * section.size
            patched.set_word(here + mem_map.offset, word)
            patched.set_word(here + to_usage.offset, usages + i * len(one))
            patched.write(patched.physical(usages + i * len(one)), bytes(one))

    def _zone(self, nr_free: int, nr_managed: int) -> tuple[int, int]:
        """Account the added pages to the highest zone, and its node; returns its row and the free list's address."""
        layout, patched, added, buddy = self._layout, self._patched, self._added, self._s.buddy
        row = int(np.argmax(buddy.zones.end_pfn))
        zone, node = int(buddy.zones.addr[row]), int(nodes(layout)[buddy.zones.node[row]])
        struct, pgdat = layout.struct("struct zone"), layout.struct("struct pglist_data")
        first = int(buddy.zones.first_pfn[row])
        patched.set_word(zone + struct.field("spanned_pages").offset, added.end - first)
        patched.add_word(zone + struct.field("present_pages").offset, added.nr)
        patched.add_word(zone + struct.field("managed_pages").offset, nr_managed)
        items, total = layout.enum("enum zone_stat_item"), layout.target.symbol("vm_zone_stat")
        for name in {"NR_FREE_PAGES", "NR_FREE_PAGES_BLOCKS"} & items.keys():
            patched.add_word(zone + struct.field("vm_stat").offset + 8 * items[name], nr_free)
            if total is not None:
                patched.add_word(total + 8 * items[name], nr_free)
        # No rule reads these, so that captures may lack them.
        with suppress(SystemExit):
            node_first = patched.word(node + pgdat.field("node_start_pfn").offset)
            patched.set_word(node + pgdat.field("node_spanned_pages").offset, added.end - node_first)
            patched.add_word(node + pgdat.field("node_present_pages").offset, added.nr)
        for name in ("max_pfn", "max_low_pfn", "_totalram_pages"):
            symbol = layout.target.symbol(name)
            with suppress(SystemExit):
                if symbol is not None:
                    is_end = name.startswith("max")
                    patched.set_word(symbol, added.end if is_end else patched.word(symbol) + nr_managed)
        lists, movable = buddy.lists, layout.enum("enum migratetype")["MIGRATE_MOVABLE"]
        mine = (lists.zone_idx == row) & (lists.order == _MAX_ORDER) & (lists.migratetype == movable)
        return row, int(lists.addr[mine][0])

    def _templates(self, zone: int) -> tuple[U8, U8, U8]:
        """Raw struct pages (uint8[1, 64]) of that zone: reserved, first of a free block, within one."""
        s, page = self._s, self._page
        last = self._raw_page(int(s.buddy.zones.end_pfn[zone]) - 1)
        plain = int(page.field("flags.f", "flags").column(last)[0]) & s.layout.zone_bits
        blank = np.zeros((1, page.size), np.uint8)
        put(blank, page.field("flags.f", "flags"), plain)
        put(blank, page.field("_mapcount.counter"), 0xFFFFFFFF)
        reserved, head = blank.copy(), blank.copy()
        put(reserved, page.field("flags.f", "flags"), plain | int(s.layout.flags.mask("reserved")))
        put(reserved, page.field("_refcount.counter"), 1)
        sample = self._raw_page(int(s.layout.memmap.pfns_of_rows(s.buddy.blocks.row[:1])[0]))
        put(head, page.field("_mapcount.counter"), page.field("_mapcount.counter").column(sample))
        put(head, page.field("private"), _MAX_ORDER)
        return reserved, head, blank

    def _raw_page(self, pfn: int) -> U8:
        return self._layout.memory.gather(self._layout.memmap.page_addrs(np.array([pfn])), self._page.size).bytes

    def _free(self, writer: Writer, zone: int, free_list: int, heads: U8, blank: U8) -> None:
        """The memory map of the free blocks, each linked behind the last of its list."""
        layout, patched, added, page = self._layout, self._patched, self._added, self._page
        link, size = page.field("lru").offset, 1 << _MAX_ORDER
        blocks = np.arange(added.free, added.end, size)
        node = layout.memmap.page_addrs(blocks) + np.uint64(link)
        last = patched.word(free_list + 8)
        following = np.append(node[1:], np.uint64(free_list))
        before = np.concatenate([np.array([last], np.uint64), node[:-1]])
        patched.set_word(last, int(node[0]))
        patched.set_word(free_list + 8, int(node[-1]))
        struct, area = layout.struct("struct zone"), layout.struct("struct free_area")
        areas = int(self._s.buddy.zones.addr[zone]) + struct.field("free_area").offset
        patched.add_word(areas + _MAX_ORDER * area.size + area.field("nr_free").offset, len(blocks))
        map_pages = size // 64
        tails = writer.store(np.tile(blank, (size - 64, 1)))
        first_page = np.tile(np.concatenate([heads, np.tile(blank, (63, 1))]).reshape(1, PAGE), (_BLOCKS_AT_ONCE, 1))
        at = added.memmap + (blocks - added.start) // 64
        for start in range(0, len(blocks), _BLOCKS_AT_ONCE):
            part = slice(start, start + _BLOCKS_AT_ONCE)
            pages = first_page[: len(blocks[part])]
            pages[:, link : link + 8] = following[part].view(np.uint8).reshape(-1, 8)
            pages[:, link + 8 : link + 16] = before[part].view(np.uint8).reshape(-1, 8)
            stored = writer.store(pages)
            writer.place(at[part], stored + np.arange(len(pages)), 1)
        writer.place(at + 1, tails, map_pages - 1)

    def writer(self, path: Path, header: DumpHeader, compression: str) -> Writer:
        """Of a file in the format asked for."""
        if not compression:
            return ElfWriter(path, header)
        # Of processes' memory the page tables and mm_structs are in the file.
        plan = self._users.plan if self._users is not None else None
        own = self._added.reserved - self._added.start + (plan.user - plan.slabs if plan is not None else 0)
        room = self._layout.memmap.nr_pages + own
        return KdumpWriter(path, header, compression_named(compression), self._added.end, room)

    def write(self, writer: Writer) -> None:
        """Write the enlarged dump."""
        added = self._added
        zone, free_list = self._zone(added.end - added.free, added.end - added.reserved)
        reserved, head, blank = self._templates(zone)
        # Reserved pages: one piece of memory map of 2 MiB, as often as it takes, and the rest of one.
        one = writer.store(np.tile(reserved, (self._section_pages, 1)))
        map_pages = self._section_pages // 64
        nr = (added.reserved - added.start) // 64
        starts: I64 = np.arange(0, nr, map_pages)
        writer.place(added.memmap + starts, one, np.minimum(map_pages, nr - starts))
        self._free(writer, zone, free_list, head, blank)
        if self._users is not None:
            field = self._page.field("flags.f", "flags")
            self._users.write(writer, added.start, added.memmap, int(field.column(blank)[0]))
        if self._cached is not None:
            self._cached.write(writer, added.start, added.memmap, blank, reserved)
        self._copy(writer)

    def _copy(self, writer: Writer) -> None:
        """What the dump has, with what has been changed, and the tables that have been added."""
        pages = self._patched.pages
        changed = np.array(sorted(pages), np.int64)
        for start, end in pieces_of(self._layout):
            data, _ = self._layout.memory.read_range(start * PAGE, (end - start) * PAGE, physical=True)
            for pfn in changed[np.searchsorted(changed, start) : np.searchsorted(changed, end)].tolist():
                data[(pfn - start) * PAGE : (pfn - start + 1) * PAGE] = np.frombuffer(pages.pop(pfn), np.uint8)
            writer.place(start, writer.store(data), end - start)
        for pfn in sorted(pages):
            writer.place(pfn, writer.store(bytes(pages[pfn])), 1)


def enlarge(
    core: Path, out: Path, size: int, compression: str = "", *, used: int = 0, members: int = 1, cached: int = 0
) -> None:
    """Write an enlarged dump.

    Args:
        core: The dump of a small machine.
        out: The file to write; replaced when it exists.
        size: Bytes of memory that the machine is to have.
        compression: A kdump-compressed dump with it; empty for ELF.
        used: How many bytes of that are pages of processes.
        members: How many mms map each of them.
        cached: How many bytes are page cache.
    """
    s = Snapshot(open_core(str(core), types="btf"))
    header = header_of(s.target, examine_core(str(core)).vmcoreinfo)
    enlarger = Enlarger(s, size, used, members, cached)
    part = out.with_name(f".{out.name}.part")
    try:
        with enlarger.writer(part, header, compression) as writer:
            enlarger.write(writer)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def parse_size(text: str) -> int:
    """Bytes of a size such as 64G or 1T."""
    return int(text[:-1]) * _UNITS[text[-1].upper()] if text[-1:].upper() in _UNITS else int(text)


def main() -> None:
    """Enlarge one dump."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.enlarge", description=__doc__)
    parser.add_argument("core", type=Path, help="a dump of a small machine")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--size", type=parse_size, required=True, help="memory of the machine, such as 256G or 1T")
    parser.add_argument("--to", choices=COMPRESSIONS, default="", help="kdump-compressed instead of ELF")
    parser.add_argument("--used", type=parse_size, default=0, help="of that, anonymous pages of processes [default: 0]")
    parser.add_argument("--members", type=int, default=1, help="how many address spaces map each of them [default: 1]")
    parser.add_argument("--cached", type=parse_size, default=0, help="of that, page cache of one file [default: 0]")
    asked = parser.parse_args()
    enlarge(asked.core, asked.out, asked.size, asked.to, used=asked.used, members=asked.members, cached=asked.cached)


if __name__ == "__main__":
    main()
