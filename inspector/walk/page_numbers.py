"""Numbers that users have turned into page frames: pfn, physical, struct page, direct-map or other kernel address."""

from __future__ import annotations

from typing import Literal

import numpy as np

from inspector.columns import U64
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.pages import heads_of_tails
from inspector.tables.vmalloc import vmalloc_pfns

NumberForm = Literal["pfn", "phys", "page", "virt", "kernel", "user", "file"]
"""``kernel``: an address of the kernel's image, of vmalloc or of a module; ``user``: of a process, given with it;
``file``: an offset in a file."""

_PAGE_MASK = 4095

KERNEL_HALF = 1 << 63
"""Addresses of the kernel begin here."""


@dataclass(frozen=True, slots=True)
class NumberMeaning:
    """One way to take a number.

    Attributes:
        form: What it was taken for.
        pfn: The page frame it then names.
        offset: Bytes into the struct page or the page.
        why: Why that is possible, in words.
    """

    form: NumberForm
    pfn: int
    offset: int
    why: str


def number_meanings(layout: Layout, number: int) -> list[NumberMeaning]:
    """All ways to take a number that lead to a page frame with a struct page, the likeliest first.

    Kernel addresses can only be one thing. Of small numbers a page frame number is likelier than a physical address,
    because it is what kernel messages and tools print.
    """
    memmap, found = layout.memmap, []

    def known(pfn: int) -> bool:
        return bool(memmap.valid(np.array([min(pfn, 1 << 52)], np.int64))[0])

    if known(number):
        found.append(NumberMeaning("pfn", number, 0, f"the highest is {memmap.max_pfn - 1:#x}"))
    if known(number >> memmap.page_shift):
        found.append(
            NumberMeaning("phys", number >> memmap.page_shift, number & _PAGE_MASK, "it lies in physical memory")
        )
    index, offset = divmod(number - memmap.vmemmap, memmap.page_size)
    if index >= 0 and known(index):
        found.append(NumberMeaning("page", index, offset, "it lies in the memory map, the array of struct pages"))
    physical = number - layout.memory.direct_map_base
    if physical >= 0 and known(physical >> memmap.page_shift):
        found.append(
            NumberMeaning("virt", physical >> memmap.page_shift, physical & _PAGE_MASK, "it lies in the direct map")
        )
    if not found and number >= KERNEL_HALF:
        pfn = int(vmalloc_pfns(layout, np.array([number], np.uint64))[0])
        if pfn >= 0:
            why = "the kernel's page tables map it: its image, vmalloc or a module"
            found.append(NumberMeaning("kernel", pfn, number & _PAGE_MASK, why))
    return found


def read_head_pfn(layout: Layout, pfn: int) -> int:
    """Page frame of the head of the compound page that a page belongs to; itself when it is no tail.

    Returns:
        -1 when the struct page cannot be read.
    """
    memmap, page = layout.memmap, layout.struct("struct page")
    raw = layout.memory.gather(
        np.array([memmap.page_addr(pfn), memmap.page_addr(pfn + 1)], np.uint64), memmap.page_size
    )
    if not raw.valid[0]:
        return -1
    link: U64 = page.field("compound_info", "compound_head").column(raw.bytes)
    flags: U64 = page.field("flags.f", "flags").column(raw.bytes)
    heads = heads_of_tails(memmap, link, np.array([pfn, pfn + 1], np.int64))
    if link[0] & np.uint64(1):
        return int(heads[0]) if heads[0] >= 0 else pfn
    # The first of the struct pages that hugetlb shares looks like a head; the next one shows (page_fixed_fake_head()).
    looks_like_head = bool(layout.flags.test(flags[:1], "head")[0])
    if looks_like_head and raw.valid[1] and link[1] & np.uint64(1) and 0 <= heads[1] < pfn:
        return int(heads[1])
    return pfn
