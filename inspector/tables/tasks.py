"""All tasks (threads and kernel threads), found through the PID namespace rather than one list link at a time."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U8, U32, U64, AnyArray, Mask, Table, distinct
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Struct
from inspector.lib.list import walk_lists
from inspector.lib.xarray import walk_xarrays
from inspector.records import dataclass

NR_MM_COUNTERS = 4

_MAX_THREADS = 256
"""Threads of a process that are followed one by one; of more of them the PID namespace is read, all at once."""


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
        sp: uint64; saved stack pointer, meaningless while the task runs.
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


def build_tasks(layout: Layout) -> tuple[Tasks, int]:
    """Read all tasks of the initial PID namespace (kernel/pid.c, find_pid_ns()).

    Returns:
        The tasks, and how many struct pid or task_struct could not be read.
    """
    namespace = layout.struct("struct pid_namespace")
    head = layout.memory.read_u64(layout.symbol("init_pid_ns") + namespace.field("idr.idr_rt.xa_head").offset)
    found = walk_xarrays(layout.prog, layout.memory, np.array([head or 0], np.uint64))
    pid_struct, task = layout.struct("struct pid"), layout.struct("struct task_struct")
    pids = found.value[(found.value & np.uint64(3)) == 0]
    raw_pids = layout.memory.gather(pids, pid_struct.size)
    first = pid_struct.field("tasks[0].first").column(raw_pids.bytes)
    links = first[first != 0]
    missing = int((~raw_pids.valid).sum()) + len(found.unreadable) + len(found.broken) + (head is None)
    raw = layout.memory.gather(links - np.uint64(task.field("pid_links[0]").offset), task.size)
    missing += int((~raw.valid).sum())
    return _decode(task, raw.addr[raw.valid], raw.bytes[raw.valid]), missing


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
    tasks = Tasks(
        addr=addr,
        pid=task.field("pid").column(data).astype(np.int32),
        tgid=task.field("tgid").column(data).astype(np.int32),
        comm=task.field("comm").text(data),
        mm=task.field("mm").column(data),
        active_mm=task.field("active_mm").column(data),
        flags=task.field("flags").column(data).astype(np.uint32),
        state=task.field("__state", "state").column(data).astype(np.uint32),
        exit_state=task.field("exit_state").column(data).astype(np.uint32),
        stack=task.field("stack").column(data),
        sp=task.field("thread.sp").column(data),
        on_cpu=task.field("on_cpu").column(data) != 0,
        cpu=task.field("thread_info.cpu", "cpu").column(data).astype(np.int32),
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
