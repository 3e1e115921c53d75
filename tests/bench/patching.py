"""A dump in memory whose words can be changed, and pages added: what the enlarger works on."""

from __future__ import annotations

import numpy as np

from inspector.columns import U8, AnyArray
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Field

PAGE = 4096
_START_KERNEL_MAP = 0xFFFFFFFF80000000
_PHYSICAL = 0x000FFFFFFFFFF000
_PRESENT, _LARGE = 1, 1 << 7
_TABLE = 0x063
"""_KERNPG_TABLE: present, writable, accessed, dirty (arch/x86/include/asm/pgtable_types.h)."""
_SHIFTS = (39, 30, 21, 12)


class Patched:
    """Physical memory of a dump, with pages on top of it.

    Args:
        layout: Of the dump; x86-64 with 4 levels of page tables.

    Attributes:
        layout: The same.
        pages: By page frame number, the pages that differ from the dump's or are not in it.
        next_free: Page frame from which on `take` gives out new ones.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout, self.pages, self.next_free = layout, dict[int, bytearray](), 0
        self._base = layout.memory.direct_map_base
        phys_base = int(layout.info.get("NUMBER(phys_base)", "0"), 0)
        # A negative number is written as such or as its two's complement.
        self._image = (phys_base - _START_KERNEL_MAP) % (1 << 64)
        mm = layout.struct("struct mm_struct").field("pgd").offset
        self.pgd = self.physical_of_image(self.word(layout.symbol("init_mm") + mm))

    def take(self, nr: int) -> int:
        """That many new page frames in a row; the first of them."""
        first, self.next_free = self.next_free, self.next_free + nr
        return first

    def address(self, pfn: int) -> int:
        """Where the direct map has a page frame."""
        return self._base + pfn * PAGE

    def physical_of_image(self, va: int) -> int:
        """Physical address of a place in the kernel's image."""
        return (va + self._image) % (1 << 64)

    def physical(self, va: int) -> int:
        """Physical address of a kernel virtual one.

        Raises:
            SystemExit: Nothing is mapped there.
        """
        if va >= _START_KERNEL_MAP:
            return self.physical_of_image(va)
        if self._is_direct(va):
            return va - self._base
        entry, shift = self._leaf(va)
        return (entry & _PHYSICAL & ~((1 << shift) - 1)) + (va & (1 << shift) - 1)

    def _is_direct(self, va: int) -> bool:
        # Behind the direct map other regions begin, nearer than its full size under KASLR.
        return 0 <= va - self._base < max(self.next_free, self.layout.memmap.max_pfn) * PAGE

    def is_large(self, va: int) -> bool:
        """Whether 2 MiB or more around a kernel virtual address lie together in physical memory."""
        return va >= _START_KERNEL_MAP or self._is_direct(va) or self._leaf(va)[1] > 12

    def _leaf(self, va: int) -> tuple[int, int]:
        """The entry that maps an address, and log2 of what it maps."""
        table = self.pgd
        for shift in _SHIFTS:
            entry = int.from_bytes(self.read(table + 8 * (va >> shift & 511), 8), "little")
            if not entry & _PRESENT:
                raise SystemExit(f"{va:#x} is not mapped in the dump")
            if shift == 12 or entry & _LARGE:
                return entry, shift
            table = entry & _PHYSICAL
        raise AssertionError

    def read(self, pa: int, size: int) -> bytes:
        """Bytes at a physical address, within one page or across several."""
        parts = []
        while size:
            pfn, at = divmod(pa, PAGE)
            n = min(size, PAGE - at)
            parts.append(bytes(self._page(pfn)[at : at + n]))
            pa, size = pa + n, size - n
        return b"".join(parts)

    def write(self, pa: int, data: bytes) -> None:
        """Change bytes at a physical address."""
        at = 0
        while at < len(data):
            pfn, start = divmod(pa + at, PAGE)
            n = min(len(data) - at, PAGE - start)
            self.pages[pfn] = page = self._page(pfn)
            page[start : start + n] = data[at : at + n]
            at += n

    def _page(self, pfn: int) -> bytearray:
        if pfn in self.pages:
            return self.pages[pfn]
        if pfn >= self.layout.memmap.max_pfn:
            return bytearray(PAGE)
        data = self.layout.memory.read(pfn * PAGE, PAGE, physical=True)
        if data is None:
            raise SystemExit(f"page {pfn:#x} of the kernel's own is not in the dump")
        return bytearray(data)

    def word(self, va: int, size: int = 8) -> int:
        """An unsigned number at a kernel virtual address."""
        return int.from_bytes(self._at(va, size), "little")

    def set_word(self, va: int, value: int, size: int = 8) -> None:
        """Change it."""
        self.write(self.physical(va), (value % (1 << 8 * size)).to_bytes(size, "little"))

    def add_word(self, va: int, value: int, size: int = 8) -> None:
        """Add to it."""
        self.set_word(va, self.word(va, size) + value, size)

    def _at(self, va: int, size: int) -> bytes:
        if va >= _START_KERNEL_MAP:
            return self.read(self.physical_of_image(va), size)
        return self.read(self.physical(va), size)

    def map_large(self, va: int, pa: int, shift: int, flags: int, tops: list[int]) -> None:
        """Let kernel page tables map 2 MiB or 1 GiB; tables that are missing are made.

        Args:
            va: A multiple of the size.
            pa: Likewise; physical.
            shift: log2 of the size.
            flags: Of the entry.
            tops: Physical addresses of other top tables that share the kernel's half.
        """
        table = self.pgd
        for level in _SHIFTS:
            place = table + 8 * (va >> level & 511)
            if level == shift:
                self.write(place, (pa | flags | _LARGE).to_bytes(8, "little"))
                return
            entry = int.from_bytes(self.read(place, 8), "little")
            if not entry & _PRESENT:
                entry = self.take(1) * PAGE | _TABLE
                self.pages[entry // PAGE] = bytearray(PAGE)
                for top in (table, *(tops if level == _SHIFTS[0] else ())):
                    self.write(top + 8 * (va >> level & 511), entry.to_bytes(8, "little"))
            table = entry & _PHYSICAL


def put(raw: U8 | AnyArray, field: Field, value: int | AnyArray) -> None:
    """Set a member of each row of raw structs (uint8[n, size])."""
    cut = np.broadcast_to(np.asarray(value).astype(f"<u{field.size}"), (len(raw),))
    raw[:, field.offset : field.offset + field.size] = (
        np.ascontiguousarray(cut).view(np.uint8).reshape(len(raw), field.size)
    )
