"""Page tables that are in use by their type but hang nowhere: every other one is accounted for, class by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64
from inspector.layout.flags import type_code
from inspector.records import dataclass
from inspector.tables.kernel_tables import kernel_tables
from inspector.tables.mmu_gather import read_table_batches
from inspector.tables.rcu_callbacks import RcuCallbacks, read_rcu_callbacks
from inspector.tables.stacks import stack_words

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

KERNEL_MAP_DISTANCE = 1 << 31
"""From __START_KERNEL_map to the end of the address space."""

CLASSES = ("mms", "deposited", "kernel", "TLB flush", "RCU", "tasks")
"""What accounts for a page table, in the order in which it is looked for; a table counts once."""


_BATCHED = "tlb_remove_table_rcu"

_DROP_MM = "__mmdrop_delayed"
"""With PREEMPT_RT the last mmdrop() of an mm by the scheduler waits for RCU (include/linux/sched/mm.h, mmdrop_sched()):
its top table is freed with it. An inline function: each file that calls it has one of its own."""

_FREED_BY: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (_BATCHED, "struct mmu_table_batch", ("rcu",)),
    # rcu_head is a macro for callback_head, member names included (include/linux/types.h).
    ("pte_free_now", "struct page", ("rcu_head", "callback_head")),
    ("__tlb_remove_table_one_rcu", "struct ptdesc", ("pt_rcu_head",)),
    (_DROP_MM, "struct mm_struct", ("delayed_drop",)),
)
"""Callbacks that free page tables (mm/mmu_gather.c, mm/pgtable-generic.c), and where their struct rcu_head lies."""


@dataclass(frozen=True)
class LostTables:
    """Page tables by who has them.

    Attributes:
        counts: Tables of each of `CLASSES`.
        row: int64[n]; rows in `Pages` of the tables that none of them has, but for those that hang below another such
            table.
        below: int64[n]; how many hang below each.
        table: int64[k]; for each entry in them or below them, which of ``row`` it belongs to.
        entry: uint64[k]; the entry as stored. Empty ones and those that point to tables are left out.
        leaf: int64[m]; those of them that map something. A leaf of any level names its first page as a PTE does.
        page: int64[m]; row in `Pages` of the first page that each maps, -1 where there is none.
        invoked: RCU callbacks that are being invoked just now: which ones cannot be seen.
        unreadable: Kernel page tables, lists and batches that could not be read.
    """

    counts: dict[str, int]
    row: I64
    below: I64
    table: I64
    entry: U64
    leaf: I64
    page: I64
    invoked: int
    unreadable: int


def find_lost_tables(s: Snapshot) -> LostTables:
    """Account for every page of type table.

    Tables hang in mms or in the kernel's own, are deposited until a huge page splits, wait to be freed for a
    TLB flush (mm/mmu_gather.c, tlb_remove_table()) or for RCU (tlb_remove_table_rcu(), pte_free_now()), or are in the
    hands of a task that just allocated them or took them out: its stack or its registers name them then.
    """
    kernel, unreadable = kernel_tables(s.layout, s.kernel_halves)
    lists = read_rcu_callbacks(s.layout)
    freed, bad = _freed_by_rcu(s, lists.callbacks)
    known: tuple[Callable[[I64], I64], ...] = (
        lambda _: s.tables.pfn,
        lambda _: s.deposits.pfn,
        lambda _: kernel,
        lambda _: np.concatenate([s.gathers.tables, s.gathers.pages.pfn]),
        lambda _: freed,
        lambda left: _in_hands(s, left),
    )
    left = _of_type_table(s)
    counts = {}
    for name, pfns_of in zip(CLASSES, known, strict=True):
        found = np.isin(left, pfns_of(left)) if len(left) else np.zeros(0, np.bool_)
        counts[name] = int(found.sum())
        left = left[~found]
    top, table, entry = _hang(s, left)
    first, nr = np.unique(top, return_counts=True)
    at = np.searchsorted(first, top[table])
    row = s.pages.memmap.rows(left[first])
    leaf = np.flatnonzero(s.layout.arch.leaf_mask(Level.PTE, entry))
    page = s.pages.memmap.rows(s.layout.arch.leaf_pfn(Level.PTE, entry[leaf])).astype(np.int64)
    return LostTables(counts, row, nr - 1, at, entry, leaf, page, lists.invoked, unreadable + lists.unreadable + bad)


def _of_type_table(s: Snapshot) -> I64:
    """All pages of type table, ascending."""
    return s.pages.memmap.pfns_of_rows(s.pages.where(s.pages.words.type_ == type_code("table")))


def _freed_by_rcu(s: Snapshot, callbacks: RcuCallbacks) -> tuple[I64, int]:
    """Tables that callbacks will free, and how many callbacks free something unknown."""
    parts, unknown = [], 0
    functions, which = np.unique(callbacks.func, return_inverse=True)
    names = np.array([s.layout.target.symbol_name(int(function)) or "" for function in functions], np.str_)
    for name, struct, members in _FREED_BY:
        addrs = callbacks.addr[names[which] == name]
        head = s.layout.struct(struct).find(*members) if s.layout.has_struct(struct) else None
        if head is None:
            unknown += len(addrs)
        elif name == _BATCHED:
            tables, bad = read_table_batches(s.layout, addrs - np.uint64(head.offset))
            parts.append(tables)
            unknown += bad
        elif name == _DROP_MM:
            parts.append(_top_tables(s, addrs - np.uint64(head.offset)))
        else:
            parts.append(s.layout.memmap.pfns(addrs - np.uint64(head.offset)))
    return np.concatenate([*parts, np.empty(0, np.int64)]), unknown


def _in_hands(s: Snapshot, pfns: I64) -> I64:
    """Which of these tables a task works on: it is in a function that does, and its stack or registers name the table.

    By the address of the struct page, by one inside the table, by the entry that pointed to it, or by that of an mm
    whose top table it is: one that is being freed is no mm any more (kernel/fork.c, __mmdrop() and mm_free_pgd()).
    """
    layout, tasks = s.layout, s.table_holders
    words = [_register_words(s)] if s.tasks.on_cpu[tasks].any() else []
    words += [stack_words(layout, s.stacks, task)[1] for task in tasks.tolist()]
    if not words:
        return pfns[:0]
    every = np.unique(np.concatenate(words))
    inside = (every - np.uint64(layout.memory.direct_map_base)) >> np.uint64(layout.memmap.page_shift)
    entries = every[layout.arch.table_mask(Level.PMD, every)]
    named = [layout.memmap.pfns(every), inside.astype(np.int64), layout.arch.table_pfn(entries).astype(np.int64)]
    # What the table's address becomes on the way to an entry (arch/x86/include/asm/page_64.h, __phys_addr_nodebug()).
    named.append((inside - np.uint64(KERNEL_MAP_DISTANCE >> layout.memmap.page_shift)).astype(np.int64))
    named.append(_top_tables(s, every[np.isin(every, s.mm_slots)]))
    return np.intersect1d(np.concatenate(named), pfns)


def _top_tables(s: Snapshot, mms: U64) -> I64:
    """The top tables that some mm_structs point to, alive or not."""
    words, known = s.layout.memory.words(mms + np.uint64(s.layout.struct("struct mm_struct").field("pgd").offset))
    return s.layout.direct_map_pfns(words[known])


def _register_words(s: Snapshot) -> U64:
    """The registers of all CPUs, as far as the dump has them."""
    notes = b"".join(note[: len(note) // 8 * 8] for note in s.layout.target.prstatus)
    return np.frombuffer(notes, np.uint64)


def _hang(s: Snapshot, pfns: I64) -> tuple[I64, I64, U64]:
    """How tables hang below one another, and what is in them.

    Args:
        s: The parts.
        pfns: int64[n]; the tables, ascending.

    Returns:
        int64[n], the topmost of them above each, or itself; and of each entry in them that is neither empty nor
        points to one of them, the table and the entry. A table that cannot be read leads nowhere.
    """
    arch, shift = s.layout.arch, s.layout.memmap.page_shift
    top = np.arange(len(pfns))
    if not len(pfns):
        return top, top, np.empty(0, np.uint64)
    raw = s.layout.memory.gather(pfns.astype(np.uint64) << np.uint64(shift), 1 << shift, physical=True)
    entries = raw.bytes.view(np.uint64)
    upper, slot = np.nonzero(entries * raw.valid[:, None].astype(np.uint64))
    found = entries[upper, slot]
    to = arch.table_pfn(found).astype(np.int64)
    leads = arch.table_mask(Level.PMD, found) & np.isin(to, pfns)
    above = np.full(len(pfns), -1, np.int64)
    for table, below in (*_deposited(s, pfns), (upper[leads], to[leads])):
        at = np.searchsorted(pfns, below)
        other = at != table
        above[at[other]] = table[other]
    for _ in arch.shapes:
        top = np.where(above[top] >= 0, above[top], top)
    # In a circle none is the topmost: each is reported then.
    top = np.where(above[top] < 0, top, np.arange(len(pfns)))
    return top, upper[~leads], found[~leads]


def _deposited(s: Snapshot, pfns: I64) -> Iterator[tuple[I64, I64]]:
    """Which of these tables others of them lead to as deposited with them: along the rings, and from a PMD table."""
    page = s.layout.struct("struct page")
    of_tables = s.layout.ptdesc
    memmap = s.layout.memmap
    raw = s.layout.memory.gather(memmap.page_addrs(pfns), page.size)
    link, pointer = of_tables.field("pt_list", "lru"), of_tables.find("pmd_huge_pte")
    words = raw.bytes.view(np.uint64)
    places = [(words[:, link.offset // 8], link.offset)]
    if pointer is not None:
        places.append((words[:, pointer.offset // 8], 0))
    for word, inside in places:
        to = memmap.pfns(word - np.uint64(inside))
        known = np.flatnonzero(np.isin(to, pfns))
        yield known, to[known]
