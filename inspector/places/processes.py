"""Processes and tasks by their names: a pid, a name, the address of a task_struct or mm_struct, ``who:address``."""

from __future__ import annotations

import numpy as np

from inspector.aimed.snapshot import AimedSnapshot
from inspector.columns import I64
from inspector.errors import IncompleteError, UsageError
from inspector.places.words import MAX_PID, cpu_number, pid_or_mm
from inspector.snapshot import Snapshot
from inspector.tables.cpus import read_cpus
from inspector.tables.tasks import Tasks, read_process
from inspector.text import clean_bytes, parse_number
from inspector.walk.page_numbers import KERNEL_HALF

MANY = 8
"""Candidates named where a name is that of several."""

_PF_KTHREAD = 0x200000
"""include/linux/sched.h."""


def find_mm(s: Snapshot, number: int) -> int:
    """Row of an mm: of a task (any of its threads) by pid or address, or by an mm_struct's address.

    Raises:
        UsageError: There is none.
    """
    rows = np.flatnonzero(s.mms.addr == np.uint64(number))
    if len(rows):
        return int(rows[0])
    mm = _mm_of_task(s, number)
    rows = np.flatnonzero(s.mms.addr == np.uint64(mm))
    if not len(rows):
        raise _lacking(s, number)
    return int(rows[0])


def aim_at_mm(s: Snapshot, number: int) -> AimedSnapshot:
    """A snapshot of one mm: of a task (any of its threads) by pid or address, or by an mm_struct's address.

    Raises:
        UsageError: There is none.
    """
    if number > MAX_PID:
        one = AimedSnapshot(s, np.array([number], np.uint64))
        if len(one.mms):
            return one
    one = AimedSnapshot(s, np.array([_mm_of_task(s, number)], np.uint64))
    if not len(one.mms):
        raise _lacking(s, number)
    return one


def _mm_of_task(s: Snapshot, pid: int) -> int:
    """Address of the mm of a task, of which the threads of its process are read, and all tasks where need be."""
    tasks = None if "tasks" in vars(s) or pid > MAX_PID else read_process(s.layout, pid)
    if tasks is None:
        tasks = s.tasks
    rows = np.flatnonzero((tasks.pid == pid) if pid <= MAX_PID else (tasks.addr == np.uint64(pid)))
    if not len(rows):
        what = "there is no task of that pid" if pid <= MAX_PID else "there is no process of that address"
        error = UsageError(what, _words(pid), "See folioscope ps")
        raise s.missing.unless_lost(error, "tasks")
    # The first thread of a process may have exited while others run on.
    group = np.concatenate([rows, np.flatnonzero(tasks.tgid == tasks.pid[rows[0]])])
    mm = int(tasks.mm[group].max())
    if not mm:
        kernel = bool(tasks.flags[rows[0]] & _PF_KTHREAD)
        why = "is a kernel thread" if kernel else "has exited"
        name = comm_of(tasks, int(rows[0]))
        raise UsageError(f"{name} {why} and has no address space", _words(pid), "See folioscope ps")
    return mm


def _words(number: int) -> str:
    return str(number) if number <= MAX_PID else f"{number:#x}"


def _lacking(s: Snapshot, number: int) -> IncompleteError:
    rows = np.flatnonzero(s.tasks.pid == number if number <= MAX_PID else s.tasks.addr == np.uint64(number)).tolist()
    name = comm_of(s.tasks, rows[0]) if rows else "this task"
    return IncompleteError(f"the address space of {name} is not in the dump", _words(number), "")


def processes_called(s: Snapshot, name: str) -> list[tuple[int, str]]:
    """Pid and name of the processes with memory whose name holds a word; those alone whose name it is, if any.

    Of each address space the process with the lowest pid.
    """
    tasks, word = s.tasks, name.strip().lower()
    leaders = np.flatnonzero((tasks.pid == tasks.tgid) & (tasks.mm != 0))
    _, first = np.unique(tasks.mm[leaders], return_index=True)
    rows = np.sort(leaders[first])
    found = [(int(tasks.pid[row]), comm_of(tasks, row)) for row in rows.tolist()]
    same = [one for one in found if one[1].lower() == word]
    return same or [one for one in found if word and word in one[1].lower()]


def tasks_called(s: Snapshot, name: str) -> I64:
    """Rows of the tasks, those of the kernel included, whose name is a word."""
    word = name.strip().lower()
    same = [comm_of(s.tasks, row).lower() == word for row in range(len(s.tasks))]
    return np.flatnonzero(np.array(same, np.bool_))


def comm_of(tasks: Tasks, row: int) -> str:
    """The name of a task, safe to show."""
    return clean_bytes(bytes(tasks.comm[row]))


def find_process(s: Snapshot, asked: str) -> int:
    """Pid, or address of the mm_struct or task_struct, of the one process meant, for `find_mm()` and `aim_at_mm()`.

    Raises:
        UsageError: There is none of that name, or several.
    """
    number = pid_or_mm(asked)
    if number is not None:
        return number
    found = processes_called(s, asked)
    if not found:
        # Bare hex, as of an mm_struct.
        number = parse_number(asked)
        if number is not None:
            return number
        error = UsageError("there is no process of that name", asked, "See folioscope ps")
        raise s.missing.unless_lost(error, "tasks")
    if len(found) > 1:
        raise _several("processes", asked, found)
    return found[0][0]


def find_task(s: Snapshot, asked: str) -> int:
    """Row of the one task, of a process or of the kernel, that is meant.

    Args:
        s: The snapshot.
        asked: A pid, a name, the address of a task_struct, that of an mm_struct for the first task that uses it, or
            ``cpu 1`` for the task that this CPU runs.

    Raises:
        UsageError: There is none, or several.
    """
    tasks, number, cpu = s.tasks, pid_or_mm(asked), cpu_number(asked)
    rows: I64 = np.empty(0, np.int64)
    if cpu is not None:
        return _task_of_cpu(s, cpu, asked)
    if number is None:
        rows = tasks_called(s, asked)
        number = None if len(rows) else parse_number(asked)
    if number is not None and number < KERNEL_HALF:
        rows = np.flatnonzero(tasks.pid == min(number, MAX_PID))
    elif number is not None:
        at = np.uint64(number)
        rows = np.flatnonzero(tasks.addr == at)
        rows = rows if len(rows) else np.flatnonzero(tasks.mm == at)[:1]
    elif not len(rows):
        pids = [pid for pid, _ in processes_called(s, asked)]
        rows = np.flatnonzero(np.isin(tasks.pid, pids))
    if not len(rows):
        error = UsageError("there is no such task", asked, "See folioscope windows, or ps for processes")
        raise s.missing.unless_lost(error, "tasks")
    if len(rows) > 1:
        raise _several("tasks", asked, [(int(tasks.pid[row]), comm_of(tasks, row)) for row in rows.tolist()])
    return int(rows[0])


def _task_of_cpu(s: Snapshot, cpu: int, asked: str) -> int:
    cpus = read_cpus(s.layout)
    row = np.flatnonzero(cpus.cpu == cpu)
    if not len(row):
        raise UsageError("there is no such CPU", asked, "See folioscope cpus")
    here = np.flatnonzero(s.tasks.addr == cpus.current[row[0]])
    if not len(here):
        idle = bool(cpus.idle[row[0]])
        why = "this CPU was idle" if idle else "the task that this CPU runs is not in the dump"
        error = UsageError if idle else IncompleteError
        raise error(why, asked, "See folioscope cpus")
    return int(here[0])


def _several(what: str, asked: str, found: list[tuple[int, str]]) -> UsageError:
    pids = ", ".join(f"{pid} ({comm})" for pid, comm in found[:MANY])
    return UsageError(f"several {what} have that name", asked, f"Give a pid: {pids}{' ...' * (len(found) > MANY)}")
