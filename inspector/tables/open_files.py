"""Open files: what each process's file descriptors lead to."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Table, count_up
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.tables.tasks import Tasks

_MAX_FDS = 1 << 20
"""More descriptors than sysctl_nr_open lets a process have by default."""


@dataclass(frozen=True, slots=True)
class OpenFiles(Table):
    """One row a file descriptor in use, by task and number; tasks that share their table share its rows.

    Attributes:
        task_idx: int64; row of the first task with that table.
        fd: int64.
        file: uint64; struct file.
        f_op: uint64; its file_operations.
        private_data: uint64; what the kind of file keeps there.
    """

    task_idx: I64
    fd: I64
    file: U64
    f_op: U64
    private_data: U64


def read_open_files(layout: Layout, tasks: Tasks) -> tuple[OpenFiles, int]:
    """Read the descriptor tables of all tasks (fs/file.c; include/linux/fdtable.h).

    Returns:
        The descriptors, and how many structs and stretches of them could not be read.
    """
    memory, task = layout.memory, layout.struct("struct task_struct")
    of_tasks, known = memory.words(tasks.addr + np.uint64(task.field("files").offset))
    # Idle tasks and those that exit have none (exit_files()).
    files, owner = np.unique(of_tasks, return_index=True)
    owner, files = owner[files != 0], files[files != 0]
    pointers, _ = memory.words(files + np.uint64(layout.struct("struct files_struct").field("fdt").offset))
    table = layout.struct("struct fdtable")
    tables = memory.gather(pointers, table.size)
    nr = table.field("max_fds").column(tables.bytes).astype(np.int64)
    good = tables.valid & (nr >= 0) & (nr <= _MAX_FDS)
    missing = int((~known).sum()) + int((~good).sum())
    owner, nr = owner[good], nr[good]
    base = table.field("fd").column(tables.bytes)[good]
    fd = count_up(nr)
    of = np.repeat(np.arange(len(nr)), nr)
    address, known = memory.words(base[of] + fd.astype(np.uint64) * np.uint64(8))
    used = np.flatnonzero(address)
    struct = layout.struct("struct file")
    opened = memory.gather(address[used], struct.size)
    missing += int((~known).sum()) + int((~opened.valid).sum())
    read = np.flatnonzero(opened.valid)
    read = read[np.lexsort((fd[used[read]], owner[of[used[read]]]))]
    rows, data = used[read], opened.bytes[read]
    return OpenFiles(
        task_idx=owner[of[rows]].astype(np.int64),
        fd=fd[rows],
        file=address[rows],
        f_op=struct.field("f_op").column(data),
        private_data=struct.field("private_data").column(data),
    ), missing
