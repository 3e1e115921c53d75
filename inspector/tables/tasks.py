"""All tasks (threads and kernel threads), found through the PID namespace rather than one list link at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from inspector.columns import I32, I64, U8, U32, U64, AnyArray, Mask, Table, distinct
from inspector.errors import LayoutError
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Struct
from inspector.lib.list import walk_lists
from inspector.lib.partial import gather_members
from inspector.lib.xarray import walk_xarrays
from inspector.memory import Raw
from inspector.records import dataclass

NR_MM_COUNTERS = 4

_MAX_THREADS = 256
"""Threads of a process that are followed one by one; of more of them the PID namespace is read, all at once."""


_MAX_STEPS = 1 << 16
"""Steps along links after which tasks are no more looked for: each finds one at least."""

_MEMBERS = (
    ("pid",),
    ("tgid",),
    ("comm",),
    ("mm",),
    ("active_mm",),
    ("flags",),
    ("__state", "state"),
    ("exit_state",),
    ("stack",),
    ("thread.sp",),
    ("on_cpu",),
    ("thread_info.cpu", "cpu"),
)
"""Members of struct task_struct that are columns, each by its names, the newest first."""


@dataclass(frozen=True, slots=True)
class Tasks(Table):
    """One row a task, ordered by pid.

    Attributes:
        addr: uint64; task_struct.
        pid, tgid: int32; in the initial namespace.
        comm: bytes (S16); as stored, to be cleaned before it is shown.
        mm, active_mm: uint64; 0 for none.
        flags: uint32; PF_ bits.
        state, exit_state: uint32; as stored.
        stack: uint64; lowest address of the kernel stack, 0 once it was given back.
        sp: uint64; saved stack pointer, meaningless while the task runs; 0 where that could not be read.
        on_cpu: bool; it runs on a CPU.
        cpu: int32; the CPU that it runs on or last ran on.
        rss_cache: int64[n, 4] counts not yet added to the mm (before 6.2, split page-table locks); else zeros.
    """

    addr: U64
    pid: I32
    tgid: I32
    comm: AnyArray
    mm: U64
    active_mm: U64
    flags: U32
    state: U32
    exit_state: U32
    stack: U64
    sp: U64
    on_cpu: Mask
    cpu: I32
    rss_cache: I64


def build_tasks(layout: Layout, slots: Callable[[U64], U64] | None = None) -> tuple[Tasks, int]:
    """Read all tasks of the initial PID namespace (kernel/pid.c, find_pid_ns()).

    Where the dump lacks a part of that, tasks are also taken from the list that begins at init_task, followed both
    ways, and from the slab cache of task_structs.

    Args:
        layout: The kernel's layout.
        slots: Gives the addresses of all object slots of that cache, in use or free, from those of some tasks; None
            where there is no time.

    Returns:
        The tasks, and how many struct pid or task_struct could not be read.
    """
    try:
        tasks, missing = _of_namespace(layout)
    except LayoutError:
        tasks, missing = no_tasks(), 1
    if not missing:
        return tasks, 0
    tasks, lost = _elsewhere(layout, tasks, slots(tasks.addr) if slots is not None else np.empty(0, np.uint64))
    return tasks, max(lost, 1)


def no_tasks() -> Tasks:
    """The table without a task."""
    return replace(Tasks.empty(comm=np.empty(0, "S16")), rss_cache=np.empty((0, NR_MM_COUNTERS), np.int64))


def read_process(layout: Layout, pid: int) -> Tasks | None:
    """The threads of the process of one task, found from its PID alone; None where these may not be all.

    Args:
        layout: The kernel's layout.
        pid: Of any of the threads, in the initial namespace.
    """
    try:
        named, missing = _of_namespace(layout, (pid, pid))
        if missing or named.pid.tolist() != [pid]:
            return None
        threads, whole = read_thread_groups(layout, named.addr)
    except LayoutError:
        return None
    sane = whole and bool((threads.tgid == named.tgid[0]).all()) and int(named.addr[0]) in threads.addr.tolist()
    return threads if sane else None


def _of_namespace(layout: Layout, only: tuple[int, int] | None = None) -> tuple[Tasks, int]:
    """The tasks that the tree of PIDs leads to, and how many parts of it could not be read.

    Args:
        layout: The kernel's layout.
        only: First and last PID that are wanted; None for all.
    """
    namespace = layout.struct("struct pid_namespace")
    root, start = namespace.find("idr.idr_rt.xa_head"), layout.target.symbol("init_pid_ns")
    head = layout.memory.read_u64(start + root.offset) if root is not None and start is not None else None
    found = walk_xarrays(layout.prog, layout.memory, np.array([head or 0], np.uint64), only)
    pid_struct, task = layout.struct("struct pid"), layout.struct("struct task_struct")
    entries = found.all().value
    pids = entries[(entries & np.uint64(3)) == 0]
    raw_pids = layout.memory.gather(pids, pid_struct.size)
    first = pid_struct.field("tasks[0].first").column(raw_pids.bytes)
    links = first[first != 0]
    missing = int((~raw_pids.valid).sum()) + len(found.unreadable) + len(found.broken) + (head is None)
    raw = _gather(layout, links - np.uint64(task.field("pid_links[0]").offset))
    missing += int((~raw.valid).sum())
    return _decode(task, raw.addr[raw.valid], raw.bytes[raw.valid]), missing


def _gather(layout: Layout, addrs: U64) -> Raw:
    """Tasks at some addresses; the last page of one, where a sleeping task's registers are, is missed the least."""
    task = layout.struct("struct task_struct")
    found = (task.find(*names) for names in _MEMBERS if names != ("thread.sp",))
    members = [field for field in found if field is not None]
    return gather_members(layout.memory, addrs, task.size, members)


def _elsewhere(layout: Layout, known: Tasks, slots: U64) -> tuple[Tasks, int]:
    """Tasks that are linked with the known ones or are objects of their slab cache.

    An address is that of a task only if something that it names names it back: its struct pid, or its neighbours in the
    list of processes. Memory that was a task, or never was one, does not pass.

    Returns:
        All tasks, and how many of those met could not be read.
    """
    task = layout.struct("struct task_struct")
    first = layout.target.symbol("init_task")
    # init_task itself has no struct pid and is no task of the namespace; the list leads through it.
    every = np.union1d(known.addr, np.array([] if first is None else [first], np.uint64))
    new, lost = np.union1d(every, slots), np.empty(0, np.uint64)
    link = np.uint64(task.field("tasks").offset)
    for _ in range(_MAX_STEPS):
        if not len(new):
            break
        raw = _gather(layout, new)
        lost = np.union1d(lost, new[~raw.valid])
        addr, data = new[raw.valid], raw.bytes[raw.valid]
        proven = _named_back(layout, addr, data) | np.isin(addr, every)
        every = np.union1d(every, addr[proven])
        around = [task.field(name).column(data[proven]) for name in ("tasks.next", "tasks.prev")]
        leaders = [task.field(name).column(data[proven]) for name in ("group_leader", "real_parent", "parent")]
        new = np.setdiff1d(np.concatenate([*(a - link for a in around), *leaders]), np.union1d(every, lost))
        new = new[new != 0]
    raw = _gather(layout, every)
    able = raw.valid & (raw.addr != np.uint64(first or 0))
    return _decode(task, raw.addr[able], raw.bytes[able]), len(lost)


def _named_back(layout: Layout, addr: U64, data: U8) -> Mask:
    """Which of some bytes are those of tasks, as what they name shows."""
    task, words, named = layout.struct("struct task_struct"), layout.memory.words, np.zeros(len(addr), np.bool_)
    with suppress(LayoutError):
        pid = layout.struct("struct pid")
        head, ok = words(task.field("thread_pid").column(data) + np.uint64(pid.field("tasks[0].first").offset))
        named |= ok & (head == addr + np.uint64(task.field("pid_links[0]").offset))
    own = addr + np.uint64(task.field("tasks").offset)
    after, ok = words(task.field("tasks.next").column(data) + np.uint64(8))
    named |= ok & (after == own)
    before, ok = words(task.field("tasks.prev").column(data))
    out: Mask = named | (ok & (before == own))
    return out


def read_thread_groups(layout: Layout, members: U64) -> tuple[Tasks, bool]:
    """All threads of the processes that some tasks belong to (signal->thread_head).

    Args:
        layout: The kernel's layout.
        members: uint64; addresses of task_structs.

    Returns:
        The threads, and whether all of the lists could be followed to their ends.
    """
    task, signal = layout.struct("struct task_struct"), layout.struct("struct signal_struct")
    signals, known = layout.memory.words(members + np.uint64(task.field("signal").offset))
    heads = distinct(signals) + np.uint64(signal.field("thread_head").offset)
    lists = walk_lists(layout.memory, heads, task.size, task.field("thread_node").offset, max_length=_MAX_THREADS)
    whole = bool(known.all()) and not len(lists.broken) and not len(lists.unreadable)
    return _decode(task, lists.addr, lists.raw), whole


def _decode(task: Struct, addr: U64, data: U8) -> Tasks:
    """The members of tasks."""
    cache = task.find("rss_stat.count")
    rss = cache.matrix(data).astype(np.int64) if cache is not None else np.zeros((len(data), NR_MM_COUNTERS), np.int64)
    name = task.find("comm")
    column = {names[0]: task.field(*names).column(data) for names in _MEMBERS if names != ("comm",)}
    tasks = Tasks(
        addr=addr,
        pid=column["pid"].astype(np.int32),
        tgid=column["tgid"].astype(np.int32),
        comm=np.zeros(len(data), "S16") if name is None else name.text(data),
        mm=column["mm"],
        active_mm=column["active_mm"],
        flags=column["flags"].astype(np.uint32),
        state=column["__state"].astype(np.uint32),
        exit_state=column["exit_state"].astype(np.uint32),
        stack=column["stack"],
        sp=column["thread.sp"],
        on_cpu=column["on_cpu"] != 0,
        cpu=column["thread_info.cpu"].astype(np.int32),
        rss_cache=rss,
    )
    return tasks.take(np.argsort(tasks.pid, kind="stable"))


def tasks_being_dumped(layout: Layout, tasks: Tasks) -> Mask:
    """bool[tasks]; whose process is writing a core dump (signal->core_state, fs/coredump.c)."""
    task, signal = layout.struct("struct task_struct"), layout.struct("struct signal_struct")
    state = signal.find("core_state")
    if state is None:
        return np.zeros(len(tasks), np.bool_)
    signals, _ = layout.memory.words(tasks.addr + np.uint64(task.field("signal").offset))
    states, _ = layout.memory.words(signals + np.uint64(state.offset))
    return states != 0


_STATES = {0x0: "R", 0x1: "S", 0x2: "D", 0x4: "T", 0x8: "t", 0x40: "P", 0x402: "I"}
_EXIT_DEAD, _EXIT_ZOMBIE, _TASK_DEAD = 0x10, 0x20, 0x80


def state_letter(tasks: Tasks, row: int) -> str:
    """What a task does, in the letter of ps (fs/proc/array.c, task_state_array; include/linux/sched.h)."""
    state, gone = int(tasks.state[row]), int(tasks.exit_state[row])
    if gone & _EXIT_DEAD or state & _TASK_DEAD:
        return "X" if not gone & _EXIT_ZOMBIE else "Z"
    if gone & _EXIT_ZOMBIE:
        return "Z"
    return _STATES.get(state & 0x402) if state & 0x402 == 0x402 else _STATES.get(state & -state, "?")  # type: ignore[return-value]
