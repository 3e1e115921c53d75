"""Who holds a folio's references, by name: entries of the page cache, swap slots, batches, pipes, io_uring buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64
from inspector.folio.numbers import OneFolio
from inspector.tables.batches import BATCHES
from inspector.tables.files import FOLIO, SWAP
from inspector.tables.pages import page_words
from inspector.tables.swap_devices import entry_offsets, entry_types
from inspector.text import clean_bytes, counted
from inspector.walk.page_cache import address_space_name

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


def holders(s: Snapshot, f: OneFolio, term: str) -> list[str]:
    """Sentences about what holds the references of one term of `inspector.walk.references.TERMS`."""
    match term:
        case "pte" | "huge":
            return [f"in {counted(f.nr_mms, 'address space')}"]
        case "page_cache":
            return _cache(s, f)
        case "swap_cache":
            return _swap(s, f)
        case "private":
            return ["buffers or other data of the file system (folio_attach_private())"]
        case "batch":
            return _batches(s, f)
        case "pipe":
            return _pipes(s, f)
        case "gather":
            return _gathers(s, f)
        case "pins":
            return _pins(s, f)
        case "owner":
            return [_owner(f)]
        case "isolated":
            return ["the task that took it off its LRU list (folio_isolate_lru())"]
        case _:
            return []


_SOUGHT_EVERYWHERE = {
    "pipes": "pipe buffers",
    "ring_buffers": "buffers of io_uring",
    "gathers": "pages that wait for a TLB flush",
}
"""Tables of holders that take the open files or the stacks of all tasks, and what they hold."""


def not_sought(s: Snapshot) -> list[str]:
    """Kinds of holders of references that were not looked for; none where all of memory is."""
    return [what for table, what in _SOUGHT_EVERYWHERE.items() if not s.knows(table)]


def inside(f: OneFolio, pfn: I64) -> I64:
    """Positions of the page frames that belong to the folio."""
    return np.flatnonzero((pfn >= f.pfn) & (pfn < f.pfn + f.nr_pages))


def _cache(s: Snapshot, f: OneFolio) -> list[str]:
    kind, found = s.files.address_spaces.kind, []
    for _, entries in s.files.pieces():
        mine = (entries.kind == FOLIO) & (entries.pfn == f.pfn) & (kind[entries.address_space_idx] != SWAP)
        found += [
            f"{address_space_name(s, int(entries.address_space_idx[r]))}, index {int(entries.index[r]):#x}"
            + (f" to {int(entries.index[r]) + int(entries.nr[r]) - 1:#x}" if entries.nr[r] > 1 else "")
            for r in np.flatnonzero(mine).tolist()
        ]
    return found or ["by folio->mapping: no entry of that address_space was found"]


def _swap(s: Snapshot, f: OneFolio) -> list[str]:
    word, known = page_words(s.layout, s.pages, np.array([f.head], np.int64), "private")
    if not known[0]:
        return []
    type_, offset = int(entry_types(word)[0]), int(entry_offsets(word)[0])
    last = f" to {offset + f.nr_pages - 1:#x}" if f.nr_pages > 1 else ""
    return [f"swap type {type_}, offset {offset:#x}{last}"]


def _batches(s: Snapshot, f: OneFolio) -> list[str]:
    b = s.batches
    return [
        f"{BATCHES[int(b.batch[i])]} of CPU {int(b.cpu[i])}, place {int(b.slot[i])}" for i in inside(f, b.pfn).tolist()
    ]


def opener(s: Snapshot, open_idx: int) -> str:
    """One of the processes that hold a file open, and its descriptor."""
    task, fd = int(s.open_files.task_idx[open_idx]), int(s.open_files.fd[open_idx])
    return f"pid {int(s.tasks.tgid[task])} {clean_bytes(bytes(s.tasks.comm[task]))} fd {fd}"


def _pipes(s: Snapshot, f: OneFolio) -> list[str]:
    p, rows = s.pipes, inside(f, s.pipes.pfn)
    out = []
    for pipe in np.unique(p.pipe[rows]).tolist():
        mine = rows[p.pipe[rows] == np.uint64(pipe)]
        slots = ", ".join(str(x) for x in p.slot[mine].tolist())
        word = "slot" if len(mine) == 1 else "slots"
        out.append(f"pipe {pipe:#x} (open: {opener(s, int(p.open_idx[mine[0]]))}), {word} {slots}")
    return out


def _gathers(s: Snapshot, f: OneFolio) -> list[str]:
    g = s.gathered
    rows = inside(f, g.pfn)
    tasks, counts = np.unique(g.task_idx[rows], return_counts=True)
    return [
        f"mmu_gather of pid {int(s.tasks.tgid[t])} {clean_bytes(bytes(s.tasks.comm[t]))}, "
        + counted(int(n), "entry", "entries")
        for t, n in zip(tasks.tolist(), counts.tolist(), strict=True)
    ]


def ring_pins(s: Snapshot, f: OneFolio) -> I64:
    """Rows of the io_uring buffers that pin the folio; one pin each."""
    return inside(f, s.ring_buffers.pfn)


def _pins(s: Snapshot, f: OneFolio) -> list[str]:
    """Named where an io_uring buffer is found; neighbours of one buffer are listed once."""
    by_buffer: dict[tuple[int, int], int] = {}
    if s.knows("ring_buffers"):
        r = s.ring_buffers
        for i in ring_pins(s, f).tolist():
            key = int(r.open_idx[i]), int(r.buffer[i])
            by_buffer[key] = by_buffer.get(key, 0) + 1
    out = [
        f"io_uring buffer {number} (open: {opener(s, at)}), {counted(n, 'pin')}"
        for (at, number), n in by_buffer.items()
    ]
    if f.is_large:
        out.append("counted in _pincount, a reference each")
    else:
        out.append("1024 references each (GUP_PIN_COUNTING_BIAS)")
    return out


_OWNERS = {
    "slab": "the slab allocator",
    "table": "the page table that it holds",
    "zsmalloc": "zsmalloc",
    "large_kmalloc": "the caller of kmalloc()",
    "offline": "the balloon or hotplug driver",
}


def _owner(f: OneFolio) -> str:
    return _OWNERS.get(f.page_type, "the kernel or the driver that allocated it (alloc_pages())")
