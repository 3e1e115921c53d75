"""``python -m tests.bench.recipe CORE``: the plain NumPy recipe, what somebody would write in an afternoon.

Read the memory map into one array, take the fields out, resolve tails; walk the page tables of all processes level by
level, one row a leaf entry; count mappings by page. Nothing is attributed to a VMA, compared or explained.
"""

from __future__ import annotations

import json
import sys
import time

import drgn
import numpy as np

from inspector.columns import U64
from inspector.layout.kernel import Layout
from inspector.tables.tasks import build_tasks
from inspector.target.target import open_core
from tests.bench.places import top_tables

PIECE = 2 << 20


def sweep(layout: Layout) -> dict[str, U64]:
    """The fields of every struct page, by page frame number."""
    memmap, page, prog = layout.memmap, layout.struct("struct page"), layout.prog
    size = memmap.page_size
    raw = np.zeros((memmap.max_pfn, size), np.uint8)
    flat = raw.reshape(-1)
    for first, end in zip(memmap.starts.tolist(), memmap.ends.tolist(), strict=True):
        for at in range(first * size, end * size, PIECE):
            stop = min(at + PIECE, end * size)
            flat[at:stop] = np.frombuffer(prog.read(memmap.vmemmap + at, stop - at), np.uint8)
    columns: dict[str, U64] = {}
    for names in (("flags.f", "flags"), ("mapping",), ("compound_info", "compound_head"), ("private",)):
        offset = page.field(*names).offset
        columns[names[-1]] = raw[:, offset : offset + 8].copy().view(np.uint64)[:, 0]
    for name in ("_mapcount.counter", "_refcount.counter"):
        offset = page.field(name).offset
        columns[name] = raw[:, offset : offset + 4].copy().view(np.int32)[:, 0].astype(np.uint64)
    link = columns["compound_head"]
    own = np.uint64(memmap.vmemmap) + np.arange(len(raw), dtype=np.uint64) * np.uint64(size)
    masked = (link >> np.uint64(40)) == np.uint64(0xFFFFFF)
    tail = (link & np.uint64(1)) != 0
    head = np.where(tail, np.where(masked, own & link & ~np.uint64(1), link - np.uint64(1)), own)
    columns["head"] = (head - np.uint64(memmap.vmemmap)) // np.uint64(size)
    return columns


def _read_tables(prog: drgn.Program, pfns: U64) -> U64:
    runs = np.split(pfns, np.flatnonzero(np.diff(pfns) != 1) + 1)
    return np.concatenate(
        [np.frombuffer(prog.read(int(r[0]) << 12, len(r) << 12, True), np.uint64).reshape(-1, 512) for r in runs]
    )


def walk(layout: Layout) -> int:
    """The number of leaf entries, after counting them by page; x86-64 with 4 levels."""
    prog = layout.prog
    pfn = top_tables(layout, build_tasks(layout)[0])[1]
    mm, va = np.arange(len(pfn)), np.zeros(len(pfn), np.uint64)
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
    pfns = np.concatenate([k[2] for k in kept]).astype(np.int64)
    # Entries of PROT_NONE hold their page frame inverted, device memory has no struct page.
    np.bincount(pfns[pfns < layout.memmap.max_pfn], minlength=layout.memmap.max_pfn)
    return leaves


def main() -> None:
    """Do it, and print how much there was and how long each part took."""
    layout = Layout.probe(open_core(sys.argv[1], types="btf"))
    start = time.process_time()
    nr = len(sweep(layout)["head"])
    between = time.process_time()
    leaves = walk(layout)
    end = time.process_time()
    print(json.dumps({"pages": nr, "leaves": leaves, "sweep": between - start, "walk": end - between}))


if __name__ == "__main__":
    main()
