"""All mms, those without a task included."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from inspector.arch.base import KERNEL_HALF
from inspector.columns import (
    I32,
    I64,
    MAX_MMS,
    U32,
    U64,
    AnyArray,
    Mask,
    Table,
    UnknownColumn,
    difference,
    distinct,
    is_among,
    rows_of,
)
from inspector.errors import LayoutError, TargetError
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Struct
from inspector.lib.list import walk_lists
from inspector.lib.percpu import sum_percpu_counters
from inspector.model.stats import RssKind
from inspector.records import dataclass
from inspector.tables.locks import held_for_reading, held_for_writing
from inspector.tables.slabs import are_objects
from inspector.tables.tasks import NR_MM_COUNTERS, Tasks, read_thread_groups

RSS_FILE, RSS_ANON, RSS_SWAP, RSS_SHMEM = map(int, RssKind)
"""Columns of ``rss`` (include/linux/mm_types_task.h)."""


_WITH_OPTION = {"mm_id": "MM_ID", "hugetlb_usage.counter": "HUGETLB_PAGE", "owner": "MEMCG"}
"""Members that kernels have with an option alone."""

MMF_HAS_PINNED = np.uint64(1 << 27)
"""Set by the first pin of a page, and never cleared (mm/gup.c, mm_set_has_pinned_flag())."""


@dataclass(frozen=True, slots=True)
class Mms(Table):
    """One row an mm_struct, ordered by address; init_mm and efi_mm are not among them.

    Attributes:
        addr: uint64; mm_struct.
        pgd: uint64; address of the top page table as stored.
        pgd_pfn: int64; page frame of the top table, -1 when the pointer makes no sense and no table is known to be it.
        users, count, map_count: int32; mm_users, mm_count, map_count.
        total_vm, locked_vm, data_vm, exec_vm, stack_vm: int64; pages.
        pgtables_bytes, hugetlb_pages: int64.
        mm_id: uint32; 0 where the kernel has none.
        flags: uint64; the first word of the MMF_ flags.
        ma_root: uint64; root of the maple tree of VMAs.
        rss: int64[n, 4]; file, anon, swap, shmem, in pages, exact (per-CPU and per-task parts added).
        rss_valid: bool; False where a part of the sum could not be read (a half-built mm).
        rss_words: uint64[n, 4]; where the per-CPU parts of each are, 0 where the kernel has none.
        pid: int32; lowest pid of the tasks that use it, -1 when none does.
        comm: bytes; that task's name.
        nr_tasks: int32; tasks with task->mm equal to it.
        owner: uint64; the task it belongs to (mm->owner), 0 where the kernel keeps none.
        locked: bool; mmap_lock held for writing.
        read_locked: bool; mmap_lock held for reading.
        tlb_flush_pending: int32; unmappings whose pages are not yet freed (mmu_gather).
        on_mmlist: bool; linked into init_mm.mmlist, where swapoff looks for swap entries.
    """

    addr: U64
    pgd: U64
    pgd_pfn: I64
    users: I32
    count: I32
    map_count: I32
    total_vm: I64
    locked_vm: I64
    data_vm: I64
    exec_vm: I64
    stack_vm: I64
    pgtables_bytes: I64
    hugetlb_pages: I64
    mm_id: U32
    flags: U64
    ma_root: U64
    rss: I64
    rss_valid: Mask
    rss_words: U64
    pid: I32
    comm: AnyArray
    nr_tasks: I32
    owner: U64
    locked: Mask
    read_locked: Mask
    tlb_flush_pending: I32
    on_mmlist: Mask


def static_mms(layout: Layout) -> U64:
    """init_mm and efi_mm: the mms that are variables and no objects of the slab cache, and have no user memory."""
    found = [layout.target.symbol(name) for name in ("init_mm", "efi_mm")]
    return np.array([address for address in found if address is not None], np.uint64)


def mms_swapped_out(layout: Layout) -> tuple[U64, int]:
    """Addresses of the mms that swapoff searches: those on init_mm.mmlist (mm/swapfile.c, try_to_unuse()).

    Returns:
        The addresses, and how many breaks there are in the list.
    """
    struct, head = layout.struct("struct mm_struct"), layout.target.symbol("init_mm")
    link = struct.field("mmlist").offset
    if head is None:
        return np.empty(0, np.uint64), 1
    found = walk_lists(layout.memory, np.array([head + link], np.uint64), link + 16, link)
    return found.addr, len(found.unreadable) + len(found.broken)


def build_mms(layout: Layout, tasks: Tasks, slots: U64, *, whole: bool) -> tuple[Mms, int]:
    """All mms that are alive.

    Args:
        layout: The kernel's layout.
        tasks: Their ``mm`` and ``active_mm`` are taken too.
        slots: Object slots of the mm_struct slab cache: what finds mms that no task names.
        whole: Whether those are all slots there are: what a task names beside them is then no mm.

    Returns:
        The mms, and how many of the tasks' mms could not be read.
    """
    named = np.unique(np.concatenate([tasks.mm, tasks.active_mm]))
    if whole:
        named = np.intersect1d(named, slots)
    skip = np.concatenate([np.zeros(1, np.uint64), static_mms(layout)])
    addr = np.setdiff1d(np.union1d(named, slots), skip)
    mms, missing = _alive(layout, tasks, addr, np.isin(addr, named))
    return mms.take(~_mere_copies(mms)), missing


def no_mms() -> Mms:
    """The table without an mm."""
    rss, words = np.empty((0, NR_MM_COUNTERS), np.int64), np.empty((0, NR_MM_COUNTERS), np.uint64)
    return replace(Mms.empty(comm=np.empty(0, "S16")), rss=rss, rss_words=words)


def read_mms(layout: Layout, tasks: Tasks, addrs: U64) -> tuple[Mms, int]:
    """Those of the given mms that are alive: what VMAs name, each judged as `build_mms` does with all of them.

    Args:
        layout: The kernel's layout.
        tasks: All of them, for the mms' names.
        addrs: uint64; addresses of what should be mm_structs, in any order.

    Returns:
        The mms, and how many of them could not be read.
    """
    addr = difference(addrs, np.concatenate([np.zeros(1, np.uint64), static_mms(layout)]))
    cache = layout.variable("mm_cachep")
    if cache:
        addr = addr[are_objects(layout, cache, addr)]
    mms, missing = _alive(layout, tasks, addr, is_among(addr, np.concatenate([tasks.mm, tasks.active_mm])))
    if not (mms.nr_tasks == 0).any():
        return mms, missing
    # A mere copy shows beside the mm that it was copied from alone.
    others = np.setdiff1d(tasks.mm, np.append(mms.addr, np.uint64(0)))
    beside, _ = _alive(layout, tasks, others, np.ones(len(others), np.bool_))
    both = Mms.concat([mms, beside])
    return mms.take(~_mere_copies(both)[: len(mms)]), missing


def read_users(layout: Layout, addrs: U64) -> Tasks | None:
    """The tasks that use some mms, found from the mms; None where these may not be all that do.

    Each mm names a task of its process (``owner``, kept for memory control groups), whose threads are looked through.
    As every task that uses an mm holds a reference in mm_users, as many users as that says are all of them.

    Args:
        layout: The kernel's layout.
        addrs: uint64; addresses of mm_structs, each once.
    """
    struct = layout.struct("struct mm_struct")
    owner = struct.find("owner")
    if owner is None:
        return None
    raw = layout.memory.gather(addrs, struct.size)
    owners = owner.column(raw.bytes).astype(np.uint64)
    if not raw.valid.all() or not owners.all():
        return None
    tasks, whole = read_thread_groups(layout, distinct(owners))
    at = rows_of(np.sort(addrs), tasks.mm)
    users = struct.field("mm_users.counter").column(raw.bytes)[np.argsort(addrs, kind="stable")]
    found = np.bincount(at[at >= 0], minlength=len(addrs))
    return tasks.take(at >= 0) if whole and (found == users).all() and found.all() else None


def _alive(layout: Layout, tasks: Tasks, addr: U64, is_named: Mask) -> tuple[Mms, int]:
    """Those of some mms, ascending, that are in use; ``is_named`` says which a task names."""
    struct = layout.struct("struct mm_struct")
    raw = layout.memory.gather(addr, struct.size)
    count = struct.field("mm_count.counter").column(raw.bytes).astype(np.int32)
    pgd = struct.field("pgd").column(raw.bytes)
    base = np.uint64(layout.memory.direct_map_base)
    pfn = ((pgd - base) >> np.uint64(layout.memmap.page_shift)).astype(np.int64)
    sane = (pgd & np.uint64((1 << layout.memmap.page_shift) - 1)) == 0
    sane &= (pgd >= base) & layout.memmap.valid(pfn)
    # A free slot of the cache keeps its last mm_count, which is 0 (kernel/fork.c, __mmdrop()).
    # Of a kernel that ran on, a task may have been read before it exited and its mm after.
    at_once = is_named & np.bool_(not layout.target.ran_on)
    keep = raw.valid & (at_once | ((count > 0) & (sane | is_named)))
    missing = int((~raw.valid & is_named).sum())
    if int(keep.sum()) > MAX_MMS:
        raise TargetError(f"the target has more than {MAX_MMS:,} mms", "mm_struct", "So many are not supported")
    return _decode(layout, struct, tasks, addr[keep], raw.bytes[keep], np.where(sane, pfn, -1)[keep]), missing


def _mere_copies(mms: Mms) -> Mask:
    """Mms that fork has copied from the parent's and not begun to make the child's own (kernel/fork.c, dup_mm()).

    Until mm_init() gives them page tables nothing in them is theirs.
    """
    parents = mms.pgd_pfn[(mms.nr_tasks > 0) & (mms.pgd_pfn >= 0)]
    return (mms.nr_tasks == 0) & is_among(mms.pgd_pfn, parents)


def _decode(layout: Layout, struct: Struct, tasks: Tasks, addr: U64, data: AnyArray, pgd_pfn: I64) -> Mms:
    def column(name: str) -> I64:
        option = _WITH_OPTION.get(name)
        if option is not None and not layout.config.has(option):
            return np.zeros(len(addr), np.int64)
        return struct.field(name).column(data).astype(np.int64)

    rss, rss_valid, rss_words = _rss(layout, struct, tasks, addr, data)
    pid, comm, nr_tasks = _owners(tasks, addr)
    flags = struct.field("flags.__mm_flags[0]", "flags")
    following = struct.field("mmlist.next").column(data)
    return Mms(
        addr=addr,
        pgd=struct.field("pgd").column(data).astype(np.uint64),
        pgd_pfn=pgd_pfn,
        users=column("mm_users.counter").astype(np.int32),
        count=column("mm_count.counter").astype(np.int32),
        map_count=column("map_count").astype(np.int32),
        total_vm=column("total_vm"),
        locked_vm=column("locked_vm"),
        data_vm=column("data_vm"),
        exec_vm=column("exec_vm"),
        stack_vm=column("stack_vm"),
        pgtables_bytes=column("pgtables_bytes.counter"),
        hugetlb_pages=column("hugetlb_usage.counter"),
        mm_id=column("mm_id").astype(np.uint32),
        flags=flags.column(data).astype(np.uint64),
        ma_root=struct.field("mm_mt.ma_root").column(data),
        rss=rss,
        rss_valid=rss_valid,
        rss_words=rss_words,
        pid=pid,
        comm=comm,
        nr_tasks=nr_tasks,
        owner=column("owner").view(np.uint64),
        locked=held_for_writing(struct, "mmap_lock", data),
        read_locked=held_for_reading(struct, "mmap_lock", data),
        tlb_flush_pending=column("tlb_flush_pending.counter").astype(np.int32),
        # list_empty(), or taken off for good by __mmput() (LIST_POISON1).
        on_mmlist=(following != addr + np.uint64(struct.field("mmlist").offset)) & (following >= KERNEL_HALF),
    )


def _rss(layout: Layout, struct: Struct, tasks: Tasks, addr: U64, data: AnyArray) -> tuple[I64, Mask, U64]:
    """get_mm_counter() made exact: per-CPU parts since 6.2, before that the counts cached in tasks.

    Returns:
        `Mms.rss`, ``rss_valid`` and ``rss_words``.
    """
    words = np.zeros((len(addr), NR_MM_COUNTERS), np.uint64)
    plain = struct.find("rss_stat.count")
    if plain is not None:
        rss = plain.matrix(data).astype(np.int64)
        at = rows_of(addr, tasks.mm)
        np.add.at(rss, at[at >= 0], tasks.rss_cache[at >= 0])
        return rss, np.ones(len(addr), np.bool_), words
    try:
        offsets = layout.per_cpu_offsets
    except LayoutError:
        return np.zeros((len(addr), NR_MM_COUNTERS), np.int64), np.zeros(len(addr), np.bool_), words
    columns, valid = [], np.ones(len(addr), np.bool_)
    for i in range(NR_MM_COUNTERS):
        counts = struct.field(f"rss_stat[{i}].count").column(data)
        pointers = struct.field(f"rss_stat[{i}].counters").column(data)
        unknown = _unknown(counts, pointers)
        if unknown is not None:
            return cast("I64", unknown), np.zeros(len(addr), np.bool_), words
        sums, ok = sum_percpu_counters(layout.memory, offsets, counts, pointers)
        columns.append(sums)
        words[:, i] = pointers
        valid &= ok
    return np.stack(columns, axis=1), valid, words


def _unknown(*columns: object) -> UnknownColumn | None:
    return next((column for column in columns if isinstance(column, UnknownColumn)), None)


def _owners(tasks: Tasks, addr: U64) -> tuple[I32, AnyArray, I32]:
    """For each mm the first task that uses it, and how many do. Tasks are ordered by pid."""
    pid = np.full(len(addr), -1, np.int32)
    comm = np.zeros(len(addr), tasks.comm.dtype if len(tasks) else "S16")
    nr = np.zeros(len(addr), np.int32)
    at = rows_of(addr, tasks.mm)
    mine = np.flatnonzero(at >= 0)
    np.add.at(nr, at[mine], 1)
    backwards = mine[::-1]
    pid[at[backwards]] = tasks.pid[backwards]
    comm[at[backwards]] = tasks.comm[backwards]
    return pid, comm, nr
