"""Pages that were unmapped and wait for a TLB flush: the mmu_gather on the stack of the task that unmaps holds them."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask, Table
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.mms import Mms
from inspector.tables.stacks import Stacks, StackState, stack_words

_MAX_BATCHES = 10_000
"""MAX_GATHER_BATCH_COUNT, include/asm-generic/tlb.h."""

_DELAY_RMAP, _NR_NEXT = np.uint64(1), np.uint64(2)
"""ENCODED_PAGE_BIT_DELAY_RMAP (6.2) and ENCODED_PAGE_BIT_NR_PAGES_NEXT (6.9), include/linux/mm_types.h."""


@dataclass(frozen=True, slots=True)
class Gathered(Table):
    """One row an entry of a gather: neighbouring pages of one folio that were unmapped together.

    Attributes:
        task_idx: int64; row of the task on whose stack the gather is.
        mm_idx: int64; row of the mm that it unmaps from.
        pfn: int64; the first page.
        nr: int64; pages, each with a reference.
        is_delayed: bool; still counted as mapped: the rmap is updated after the flush (dirty pages of files).
    """

    task_idx: I64
    mm_idx: I64
    pfn: I64
    nr: I64
    is_delayed: Mask


@dataclass(frozen=True)
class Gathers:
    """What all gathers hold.

    Attributes:
        pages: Unmapped pages; page tables too, where the kernel frees them like pages.
        tables: int64[n]; page frames of page tables that were taken out and wait with the others of their batch.
        unreadable: Stacks and batches that could not be read.
    """

    pages: Gathered
    tables: I64
    unreadable: int


def read_gathers(layout: Layout, mms: Mms, stacks: Stacks) -> Gathers:
    """Find the gathers of mms that unmap just now, and read their batches (mm/mmu_gather.c, __tlb_gather_mmu()).

    A gather lies on the kernel stack. It is known by its first member, an mm with unmappings pending, and by the size
    of the batch inside it, which nothing else on a stack has beside it. The stack of every task is searched, because
    the mm of a gather need not be its own: in exec the old one is torn down after the task has the new one
    (fs/exec.c, exec_mmap(); begin_new_exec() and setup_new_exec() drop it), and the task with the last reference tears
    an mm down (kernel/fork.c, mmput() and mmput_async(); mm/oom_kill.c).

    Only what functions keep there counts (`stack_words`): a gather of a call that returned is no gather any more.
    """
    none = np.empty(0, np.int64)
    busy = mms.addr[mms.tlb_flush_pending > 0]
    if not len(busy) or not layout.has_struct("struct mmu_gather"):
        return Gathers(Gathered.empty(), none, 0)
    batch_at = layout.struct("struct mmu_gather").find("batch")
    parts, tables, missing = [], [none], int((stacks.state == StackState.UNREADABLE).sum())
    for row in np.flatnonzero(stacks.state != StackState.NONE).tolist():
        addresses, words = stack_words(layout, stacks, row)
        # Where a stack was only searched for return addresses, what looks like a gather may be left over, too.
        surely = int(stacks.state[row] == StackState.UNWOUND)
        for at in _find(layout, addresses, words, busy):
            found, bad = _batches(layout, words[at:])
            missing += bad * surely
            mm = int(np.searchsorted(mms.addr, words[at]))
            parts += [_entries(layout, row, mm, batch) for batch in found]
            if batch_at is not None:
                waiting, bad = read_table_batches(layout, words[at + batch_at.offset // 8 :][:1])
                tables.append(waiting)
                missing += bad * surely
    return Gathers(Gathered.concat(parts) if parts else Gathered.empty(), np.concatenate(tables), missing)


def read_table_batches(layout: Layout, addrs: U64) -> tuple[I64, int]:
    """Page frames of the page tables in batches (struct mmu_table_batch), and how many batches could not be read.

    Args:
        layout: The kernel's layout.
        addrs: uint64[n]; addresses of the batches, 0 for none.
    """
    none = np.empty(0, np.int64)
    addrs = addrs[addrs != 0]
    if not len(addrs) or not layout.has_struct("struct mmu_table_batch"):
        return none, len(addrs)
    struct = layout.struct("struct mmu_table_batch")
    # A batch fills a page.
    raw = layout.memory.gather(addrs, 1 << layout.memmap.page_shift)
    nr = struct.field("nr").column(raw.bytes).astype(np.int64)
    tables = raw.bytes.view(np.uint64)[:, struct.field("tables").offset // 8 :]
    sane = raw.valid & (nr <= tables.shape[1])
    used = struct.field("tables").offset + 8 * np.where(sane, nr, 0)
    layout.memory.partly_used.update(zip(addrs[raw.valid].tolist(), used[raw.valid].tolist(), strict=True))
    pfns = layout.memmap.pfns(tables[(np.arange(tables.shape[1]) < nr[:, None]) & sane[:, None]])
    return pfns[pfns >= 0], int((~raw.valid).sum())


def _find(layout: Layout, addresses: U64, words: U64, busy: U64) -> list[int]:
    """Where among the words of a stack a gather begins; ``addresses`` are where the words are."""
    gather = layout.struct("struct mmu_gather")
    batch = layout.struct("struct mmu_gather_batch")
    local, bundle = gather.field("local").offset, gather.field("__pages").length
    nr, most = local + batch.field("nr").offset, local + batch.field("max").offset
    halves = words.view(np.uint32)
    starts = np.flatnonzero(np.isin(words, busy))
    last = starts + gather.size // 8 - 1
    starts, last = starts[last < len(words)], last[last < len(words)]
    starts = starts[addresses[last] - addresses[starts] == (last - starts).astype(np.uint64) * np.uint64(8)]
    good = (halves[starts * 2 + most // 4] == bundle) & (halves[starts * 2 + nr // 4] <= bundle)
    good &= words[starts + gather.field("active").offset // 8] != 0
    return [int(x) for x in starts[good]]


def _batches(layout: Layout, words: U64) -> tuple[list[U64], int]:
    """The pages of the batch inside a gather and of those chained behind it."""
    gather, batch = layout.struct("struct mmu_gather"), layout.struct("struct mmu_gather_batch")
    pages = batch.field("encoded_pages", "pages").offset
    local = gather.field("local").offset
    begin, nr = (local + pages) // 8, batch.field("nr").offset
    out = [words[begin : begin + int(words.view(np.uint32)[(local + nr) // 4])]]
    address = int(words[(local + batch.field("next").offset) // 8])
    for _ in range(_MAX_BATCHES):
        if not address:
            return out, 0
        # A batch fills a page.
        data = layout.memory.read(address, 4096)
        if data is None:
            return out, 1
        more = np.frombuffer(data, np.uint64)
        filled = int(more.view(np.uint32)[nr // 4])
        layout.memory.partly_used[address] = pages + 8 * min(filled, (4096 - pages) // 8)
        if filled > (4096 - pages) // 8:
            return out, 1
        out.append(more[pages // 8 : pages // 8 + filled])
        address = int(more[batch.field("next").offset // 8])
    return out, 1


def _entries(layout: Layout, task: int, mm: int, words: U64) -> Gathered:
    """One batch decoded: from 6.9 on a page may be followed by how many of its neighbours went with it."""
    has_number = np.zeros(len(words), np.bool_)
    has_number[:-1] = (words[:-1] & _NR_NEXT) != 0
    # A number's own low bits are clear, so that no number is taken for a page with one.
    is_number = np.roll(has_number, 1)
    nr = np.where(has_number, np.roll(words, -1) >> np.uint64(2), 1)[~is_number].astype(np.int64)
    pages = words[~is_number]
    pfn = layout.memmap.pfns(pages & ~np.uint64(3))
    ok = (pfn >= 0) & (nr > 0) & (nr <= 1 << 20)
    n = int(ok.sum())
    return Gathered(np.full(n, task), np.full(n, mm), pfn[ok], nr[ok], ((pages & _DELAY_RMAP) != 0)[ok])
