"""Kernel stacks and half-filled pages in a capture: only what is live, because the rest is left over from before."""

from __future__ import annotations

import numpy as np

from inspector.capture.recorder import Recorder
from inspector.columns import I64, U64
from inspector.snapshot import Snapshot
from inspector.tables.stacks import thread_size
from inspector.tables.vmalloc import vmalloc_pfns


def blank_dead_stacks(s: Snapshot, recorder: Recorder) -> None:
    """Overwrite with zeros what is not live of all stacks that were read: buffers of system calls may lie there."""
    page = 1 << s.layout.memmap.page_shift
    rows = np.flatnonzero(s.tasks.stack != 0)
    live = _live_from(s)[rows].astype(np.int64)
    base = s.tasks.stack[rows]
    for offset in range(0, thread_size(s.layout), page):
        start = base + np.uint64(offset)
        pfns = _pfns(s, start)
        # The live part of this page, in bytes from its beginning.
        low = np.clip((live - start.astype(np.int64)), 0, page)
        high = np.clip(s.stacks.top[rows].astype(np.int64) - start.astype(np.int64), 0, page)
        for pfn, first, last in zip(pfns.tolist(), low.tolist(), high.tolist(), strict=True):
            if pfn in recorder and (first or last < page):
                data = bytearray(page)
                data[first:last] = recorder.page(pfn)[first:last]
                recorder.replace(pfn, bytes(data))


def blank_leftovers(s: Snapshot, recorder: Recorder) -> None:
    """Overwrite with zeros what lies behind the lists of the kernel's that do not fill their pages."""
    memory, page = s.layout.memory, 1 << s.layout.memmap.page_shift
    for address, used in memory.partly_used.items():
        pfn, within = divmod(address - memory.direct_map_base, page)
        if pfn in recorder and not within:
            recorder.replace(pfn, recorder.page(pfn)[:used] + bytes(page - used))


def _live_from(s: Snapshot) -> U64:
    """Lowest address in use on each task's stack; its end where that is not known."""
    tasks, stacks = s.tasks, s.stacks
    # Below the stack pointer inside a caller is the address that its callee returns to.
    inner = np.clip(stacks.low.astype(np.int64) - 8, tasks.stack.astype(np.int64), None).astype(np.uint64)
    waits = ~stacks.running & (tasks.sp >= tasks.stack) & (tasks.sp <= stacks.top)
    return np.where(stacks.low == stacks.top, stacks.top, np.where(waits, np.minimum(stacks.low, tasks.sp), inner))


def _pfns(s: Snapshot, addresses: U64) -> I64:
    """Page frames of stacks, which lie in the vmalloc area or, without CONFIG_VMAP_STACK, in the direct map."""
    base = s.layout.memory.direct_map_base
    direct = ((addresses - np.uint64(base)) >> np.uint64(s.layout.memmap.page_shift)).astype(np.int64)
    inside = (addresses >= np.uint64(base)) & (direct < s.layout.memmap.max_pfn)
    return np.where(inside, direct, vmalloc_pfns(s.layout, addresses))
