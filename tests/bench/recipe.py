"""The plain ways to ask the same: a straightforward NumPy recipe, and drgn objects one at a time."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass

import drgn
import numpy as np
import numpy.typing as npt
from drgn.helpers.linux.mm import compound_head, follow_page, for_each_page, for_each_vma

from inspector.snapshot import Snapshot

PIECE = 2 << 20
SAMPLE_PAGES = 20_000
SAMPLE_ENTRIES = 20_000
SAMPLE_ADDRESSES = 5_000

U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Rate:
    """How many things in how many seconds."""

    count: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.count / max(self.seconds, 1e-9)


def timed_read_memmap(s: Snapshot) -> Rate:
    """Only read the bytes of the memory map, in pieces of 2 MiB."""
    prog, memmap, start = s.target.prog, s.layout.memmap, time.perf_counter()
    for first, end in zip(memmap.starts.tolist(), memmap.ends.tolist(), strict=True):
        address, size = memmap.page_addr(first), (end - first) * memmap.page_size
        for at in range(0, size, PIECE):
            prog.read(address + at, min(PIECE, size - at))
    return Rate(memmap.nr_pages, time.perf_counter() - start)


def timed_read_tables(s: Snapshot, pfns: U64) -> Rate:
    """Only read the given page tables, neighbours together."""
    start = time.perf_counter()
    _read_tables(s.target.prog, np.unique(pfns))
    return Rate(len(pfns), time.perf_counter() - start)


def timed_recipe_sweep(s: Snapshot) -> Rate:
    """Read the memory map into one array, take the fields out of it, resolve tails."""
    memmap, page, start = s.layout.memmap, s.layout.struct("struct page"), time.perf_counter()
    size = memmap.page_size
    raw = np.zeros((memmap.max_pfn, size), np.uint8)
    flat = raw.reshape(-1)
    for first, end in zip(memmap.starts.tolist(), memmap.ends.tolist(), strict=True):
        for at in range(first * size, end * size, PIECE):
            stop = min(at + PIECE, end * size)
            flat[at:stop] = np.frombuffer(s.target.prog.read(memmap.vmemmap + at, stop - at), np.uint8)
    columns: dict[str, U64] = {}
    counts: dict[str, npt.NDArray[np.int32]] = {}
    for names in (("flags.f", "flags"), ("mapping",), ("compound_info", "compound_head"), ("private",)):
        offset = page.field(*names).offset
        columns[names[0]] = raw[:, offset : offset + 8].copy().view(np.uint64)[:, 0]
    for names in (("_mapcount.counter",), ("_refcount.counter",)):
        offset = page.field(*names).offset
        counts[names[0]] = raw[:, offset : offset + 4].copy().view(np.int32)[:, 0]
    link = columns["compound_info"] if page.has("compound_info") else columns["compound_head"]
    own = np.uint64(memmap.vmemmap) + np.arange(len(raw), dtype=np.uint64) * np.uint64(size)
    masked = (link >> np.uint64(40)) == np.uint64(0xFFFFFF)
    tail = (link & np.uint64(1)) != 0
    head = np.where(tail, np.where(masked, own & link & ~np.uint64(1), link - np.uint64(1)), own)
    columns["head"] = (head - np.uint64(memmap.vmemmap)) // np.uint64(size)
    return Rate(memmap.nr_pages, time.perf_counter() - start)


def _read_tables(prog: drgn.Program, pfns: U64) -> U64:
    runs = np.split(pfns, np.flatnonzero(np.diff(pfns) != 1) + 1)
    return np.concatenate(
        [np.frombuffer(prog.read(int(r[0]) << 12, len(r) << 12, True), np.uint64).reshape(-1, 512) for r in runs]
    )


def timed_recipe_walk(s: Snapshot) -> Rate:
    """Walk all tables level by level, one row a leaf; x86-64 with 4 levels."""
    prog, start = s.target.prog, time.perf_counter()
    rows = np.flatnonzero(s.mms.pgd_pfn >= 0)
    pfn, mm, va = s.mms.pgd_pfn[rows].astype(np.uint64), rows, np.zeros(len(rows), np.uint64)
    leaves = 0
    kept = []
    for shift in (39, 30, 21, 12):
        unique, back = np.unique(pfn, return_inverse=True)
        tables = _read_tables(prog, unique)[back]
        if shift == 39:
            tables = tables[:, :256]
        row, column = np.nonzero(tables)
        entry = tables[row, column]
        here = va[row] + (column.astype(np.uint64) << np.uint64(shift))
        is_leaf = (entry & np.uint64(0x101)) != 0 if shift == 12 else (entry & np.uint64(0x80)) != 0
        kept.append((mm[row[is_leaf]], here[is_leaf], (entry[is_leaf] & np.uint64(0xFFFFFFFFFF000)) >> np.uint64(12)))
        leaves += int(is_leaf.sum())
        down = (entry & np.uint64(0x81)) == 1
        pfn, mm, va = (entry[down] & np.uint64(0xFFFFFFFFFF000)) >> np.uint64(12), mm[row[down]], here[down]
        if shift == 12 or not len(pfn):
            break
    np.bincount(np.concatenate([k[2] for k in kept]).astype(np.int64), minlength=s.layout.memmap.max_pfn)
    return Rate(leaves, time.perf_counter() - start)


def timed_drgn_pages(s: Snapshot) -> Rate:
    """Read what check reads of each struct page through drgn objects; a sample."""
    start, count = time.perf_counter(), 0
    for page in for_each_page(s.target.prog):
        page._mapcount.counter.value_()
        page._refcount.counter.value_()
        page.flags.read_()
        page.mapping.value_()
        count += 1
        if count == SAMPLE_PAGES:
            break
    return Rate(count, time.perf_counter() - start)


def timed_drgn_addresses(s: Snapshot) -> Rate:
    """Ask drgn's follow_page() for the page at each address of each VMA, and count by folio; a sample."""
    prog, count, counts, start = s.target.prog, 0, Counter[int](), time.perf_counter()
    mms = [drgn.Object(prog, "struct mm_struct *", value=int(a)) for a in s.mms.addr[s.mms.nr_tasks > 0][:1]]
    for mm in mms:
        for vma in sorted(for_each_vma(mm), key=lambda v: int(v.vm_end - v.vm_start), reverse=True):
            for va in range(int(vma.vm_start), int(vma.vm_end), 4096):
                with contextlib.suppress(drgn.FaultError):
                    counts[compound_head(follow_page(mm, va)).value_()] += 1
                count += 1
                if count == SAMPLE_ADDRESSES:
                    return Rate(count, time.perf_counter() - start)
    return Rate(count, time.perf_counter() - start)


def timed_drgn_entries(s: Snapshot) -> Rate:
    """Read page-table entries as drgn objects and look up the struct page of each; a sample."""
    prog, tables = s.target.prog, s.tables
    base, start, count = s.layout.memory.direct_map_base, time.perf_counter(), 0
    entry_type = prog.type("unsigned long")
    page_type = prog.type("struct page")
    for pfn in tables.pfn[tables.level == 1].tolist():
        for slot in range(512):
            value = drgn.Object(prog, entry_type, address=base + (pfn << 12) + 8 * slot).value_()
            if value & 1:
                target = (value & 0xFFFFFFFFFF000) >> 12
                drgn.Object(prog, page_type, address=s.layout.memmap.page_addr(target))._mapcount.counter.value_()
            count += 1
        if count >= SAMPLE_ENTRIES:
            break
    return Rate(count, time.perf_counter() - start)
