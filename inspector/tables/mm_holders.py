"""Who keeps an mm_struct from being freed without using its memory: mm_count beyond the one that its users share."""

from __future__ import annotations

import numpy as np

from inspector.columns import U8, U64, AnyArray, Mask, Table
from inspector.layout.kernel import Layout
from inspector.lib.list import walk_lists
from inspector.records import dataclass
from inspector.tables.ksm import Ksm
from inspector.tables.tasks import Tasks
from inspector.tables.uffd import Uffd

LAZY, BORROWED, KSM, KHUGEPAGED, UFFD = range(5)
"""Kinds of a holder."""

KINDS = ("lazy", "borrowed", "ksm", "khugepaged", "userfaultfd")

PF_KTHREAD = np.uint32(0x00200000)
"""include/linux/sched.h: a kernel thread."""


@dataclass(frozen=True, slots=True)
class MmHolders(Table):
    """One row a reference to an mm_struct that counts in mm_count.

    Attributes:
        kind: uint8; ``LAZY``: a CPU runs a kernel thread or idles on the page tables that it found (active_mm).
            ``BORROWED``: a kernel thread works in the mm (kthread_use_mm()). ``KSM``, ``KHUGEPAGED``: their scans know
            it. ``UFFD``: a userfaultfd watches it.
        mm: uint64; the mm_struct.
        addr: uint64; the holder: task_struct, slot or userfaultfd_ctx.
    """

    kind: U8
    mm: U64
    addr: U64


def build_mm_holders(layout: Layout, tasks: Tasks, ksm: Ksm, uffd: Uffd) -> tuple[MmHolders, int]:
    """Find the holders of all mms.

    Others hold one for a moment or are in no table (readers of /proc, io_uring, a dying process's oom_mm), so that
    these are a lower bound.

    Returns:
        The holders, and how many CPUs, lists and contexts could not be read.
    """
    lazy, lazy_mm, missing = _lazy(layout, tasks)
    at_work = np.flatnonzero(((tasks.flags & PF_KTHREAD) != 0) & (tasks.mm != 0))
    slots, slot_mm, lost = _khugepaged(layout)
    contexts = uffd.contexts.take(uffd.contexts.readable)
    slot = np.unique(ksm.slots.addr, return_index=True)[1]
    parts: list[tuple[int, U64, U64]] = [
        (LAZY, lazy_mm, lazy),
        (BORROWED, tasks.mm[at_work], tasks.addr[at_work]),
        # A damaged list may lead to one slot many times, here as in khugepaged's.
        (KSM, ksm.slots.mm[slot], ksm.slots.addr[slot]),
        (KHUGEPAGED, slot_mm, slots),
        (UFFD, contexts.mm, contexts.addr),
    ]
    kind = np.repeat(np.arange(len(parts), dtype=np.uint8), [len(mm) for _, mm, _ in parts])
    holders = MmHolders(kind, np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts]))
    return holders.take(holders.mm != 0), missing + lost


def _lazy(layout: Layout, tasks: Tasks) -> tuple[U64, U64, int]:
    """What each CPU runs, where that has no mm of its own, and whose mm it is on (kernel/sched/core.c).

    A CPU in the middle of context_switch() is left out: there active_mm may be handed on before it is counted. It is
    known by a second task that the CPU has not left yet, or by a current one that it has not taken up (on_cpu).
    """
    queue, task = layout.struct("struct rq"), layout.struct("struct task_struct")
    base = layout.per_cpu_offsets + np.uint64(layout.symbol("runqueues"))
    current, known = layout.memory.words(base + np.uint64(queue.field("curr").offset))
    idle, also = layout.memory.words(base + np.uint64(queue.field("idle").offset))
    cpu, current, idle = (column[known & also] for column in (layout.possible_cpus, current, idle))
    mm, has_mm = layout.memory.words(current + np.uint64(task.field("mm").offset))
    active, has_active = layout.memory.words(current + np.uint64(task.field("active_mm").offset))
    running, has_running = _on_cpu(layout, current)
    idling, has_idling = _on_cpu(layout, idle)
    leaving = tasks.cpu[tasks.on_cpu & ~np.isin(tasks.addr, current)]
    switching = np.isin(cpu.astype(np.int64), leaving) | (idling & (idle != current))
    whole = has_mm & has_active & has_running & has_idling
    lazy = whole & (mm == 0) & running & ~switching
    return current[lazy], active[lazy], int((~known | ~also).sum()) + int((~whole).sum())


def _on_cpu(layout: Layout, tasks: U64) -> tuple[Mask, Mask]:
    raw = layout.memory.gather(tasks + np.uint64(layout.struct("struct task_struct").field("on_cpu").offset), 4)
    words: AnyArray = np.ascontiguousarray(raw.bytes).view(np.int32).reshape(-1)
    return words != 0, raw.valid


def _khugepaged(layout: Layout) -> tuple[U64, U64, int]:
    """The slots of khugepaged's scan and their mms (mm/khugepaged.c, __khugepaged_enter())."""
    none = np.empty(0, np.uint64)
    scan = layout.target.symbol("khugepaged_scan")
    if scan is None or not (layout.has_struct("struct khugepaged_scan") and layout.has_struct("struct mm_slot")):
        return none, none, 0
    struct = layout.struct("struct mm_slot")
    link = struct.field("mm_node").offset
    head = np.array([scan + layout.struct("struct khugepaged_scan").field("mm_head").offset], np.uint64)
    found = walk_lists(layout.memory, head, struct.size, link)
    slots, first = np.unique(found.addr, return_index=True)
    return slots, struct.field("mm").column(found.raw[first]), len(found.unreadable)
