"""One word of an opened dump's memory changed, without touching the file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inspector.snapshot import Snapshot
from inspector.target.target import Target, open_core
from tests.faults.overlay import sound


def plant(target: Target, physical: int, data: bytes) -> None:
    """Let the target read ``data`` at a physical address, and at the same place of the memory map where it is one."""

    def read(_address: int, count: int, offset: int, _physical: bool) -> bytes:
        return data[offset : offset + count]

    target.prog.add_memory_segment(physical, len(data), read, True)


def field_address(s: Snapshot, pfn: int, *names: str) -> int:
    """Virtual address of a member of a struct page."""
    return s.layout.memmap.page_addr(pfn) + s.layout.struct("struct page").field(*names).offset


def plant_virtual(target: Target, address: int, data: bytes) -> None:
    """Let the target read ``data`` at a kernel virtual address."""

    def read(_address: int, count: int, offset: int, _physical: bool) -> bytes:
        return data[offset : offset + count]

    target.prog.add_memory_segment(address, len(data), read, False)


def raised_mapcount(path: str) -> Callable[..., Target]:
    """An ``open_core`` that opens dumps with the _mapcount of one anonymous page of one mapping raised by one."""

    def open_planted(core: str, symbols: object = (), *, types: object = "auto", cache: bool = False) -> Target:
        target = open_core(core, types="btf")
        if core == path:
            s = sound(core)
            pages = s.pages
            rows = np.flatnonzero((pages.mapcount_raw == 0) & pages.is_anon(np.arange(len(pages))) & ~pages.is_tail)
            rows = rows[(s.folio_of_page[rows] < 0) & (s.counts.page_mappings[rows] == 1)]
            pfn = int(pages.memmap.pfns_of_rows(rows[:1])[0])
            plant_virtual(target, field_address(s, pfn, "_mapcount.counter", "_mapcount"), (1).to_bytes(4, "little"))
        return target

    return open_planted
