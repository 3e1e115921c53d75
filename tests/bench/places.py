"""``python -m tests.bench.places CORE``: what the bench asks about, found without the tables that it measures.

Every address is one that a present entry of the process's page table maps: a look-up that faults costs nothing and
proves nothing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import numpy as np

from inspector.columns import U64
from inspector.layout.flags import MAPPING_ANON, MAPPING_TAGS
from inspector.layout.kernel import Layout
from inspector.snapshot import Snapshot
from inspector.tables.tasks import Tasks, build_tasks
from inspector.target.target import open_core

PAGE = 4096
_PRESENT, _LARGE, _PFN = np.uint64(1), np.uint64(1 << 7), np.uint64(0xFFFFFFFFFF000)
_TRIED = 40
_ENOUGH = 5000


@dataclass(frozen=True)
class Places:
    """Of a dump.

    Attributes:
        release: Of its kernel.
        nr_pages: Struct pages.
        pid: A process with many pages.
        mm: Its mm_struct.
        pfn: A small anonymous page of it, shared if any is.
        page: Address of its struct page.
        va: Where the process maps it.
        addresses: Further addresses that it maps.
        pfns: The page frames there.
    """

    release: str
    nr_pages: int
    pid: int
    mm: int
    pfn: int
    page: int
    va: int
    addresses: list[int]
    pfns: list[int]


def top_tables(layout: Layout, tasks: Tasks) -> tuple[U64, U64]:
    """mm_structs that tasks use, each once, and the page frames of their top tables."""
    field = layout.struct("struct mm_struct").field("pgd").offset
    mms = np.unique(tasks.mm[tasks.mm != 0])
    pgd, valid = layout.memory.words(mms + np.uint64(field))
    pfn = (pgd - np.uint64(layout.memory.direct_map_base)) >> np.uint64(12)
    return mms[valid], pfn[valid]


def _mapped(layout: Layout, top: int) -> tuple[U64, U64]:
    """Addresses that PTEs of one process map, and their page frames, as many as are enough; x86-64 with 4 levels."""
    pfns, vas = np.array([top], np.uint64), np.zeros(1, np.uint64)
    for shift in (39, 30, 21, 12):
        raw = layout.memory.gather(pfns << np.uint64(12), PAGE, physical=True)
        entries = raw.bytes.view(np.uint64)
        if shift == 39:
            entries = entries[:, :256]
        row, slot = np.nonzero((entries & _PRESENT) != 0)
        entry, va = entries[row, slot], vas[row] + (slot.astype(np.uint64) << np.uint64(shift))
        down = (entry & _LARGE) == 0 if shift > 12 else np.ones(len(entry), np.bool_)
        pfns, vas = ((entry & _PFN) >> np.uint64(12))[down][: 1 << 12], va[down][: 1 << 12]
        if shift == 12:
            return va[: 16 * _ENOUGH], ((entry & _PFN) >> np.uint64(12))[: 16 * _ENOUGH]
    raise AssertionError


def find_places(core: str) -> Places:
    """Choose a process and a page of a dump.

    Raises:
        SystemExit: No process maps a small anonymous page.
    """
    s = Snapshot(open_core(core, types="btf"))
    layout, page = s.layout, s.layout.struct("struct page")
    tasks, _ = build_tasks(layout)
    mms, tops = top_tables(layout, tasks)
    best: Places | None = None
    step = max(len(mms) // _TRIED, 1)
    for mm, top in zip(mms[::step].tolist(), tops[::step].tolist(), strict=True):
        vas, pfns = _mapped(layout, top)
        known = layout.memmap.valid(pfns.astype(np.int64))
        vas, pfns = vas[known], pfns[known]
        raw = layout.memory.gather(layout.memmap.page_addrs(pfns), page.size).bytes
        tag = page.field("mapping").column(raw) & np.uint64(MAPPING_TAGS)
        count = page.field("_mapcount.counter").column(raw)
        head = layout.flags.test(page.field("flags.f", "flags").column(raw), "head")
        link = page.field("compound_info", "compound_head").column(raw)
        small = (tag == np.uint64(MAPPING_ANON)) & (count >= 0) & ~head & ((link & np.uint64(1)) == 0)
        if not small.any() or (best is not None and len(best.addresses) >= min(len(vas), _ENOUGH)):
            continue
        # Shared by a few: what people ask about.
        at = int(np.flatnonzero(small)[np.argmax(np.where(count[small] < 16, count[small], 0))])
        every = np.linspace(0, len(vas) - 1, min(len(vas), _ENOUGH)).astype(np.int64)
        best = Places(
            release=s.target.identity.release or "",
            nr_pages=layout.memmap.nr_pages,
            pid=int(tasks.pid[tasks.mm == mm][0]),
            mm=mm,
            pfn=int(pfns[at]),
            page=layout.memmap.page_addr(int(pfns[at])),
            va=int(vas[at]),
            addresses=vas[every].tolist(),
            pfns=pfns[every].tolist(),
        )
    if best is None:
        raise SystemExit(f"{core}: no process maps a small anonymous page")
    return best


if __name__ == "__main__":
    print(json.dumps(asdict(find_places(sys.argv[1]))))
