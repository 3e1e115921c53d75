"""What each CPU runs, as its runqueue has it."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask, Table
from inspector.layout.kernel import Layout
from inspector.records import dataclass


@dataclass(frozen=True, slots=True)
class Cpus(Table):
    """One row a possible CPU (kernel/sched/sched.h, struct rq).

    Attributes:
        cpu: int64; its number.
        current: uint64; task_struct of the task that it runs, 0 where that is not known.
        idle: bool; that is its idle task.
        known: bool; whether the runqueue could be read.
    """

    cpu: I64
    current: U64
    idle: Mask
    known: Mask


def read_cpus(layout: Layout) -> Cpus:
    """Read the runqueues."""
    queue = layout.struct("struct rq")
    base = layout.per_cpu_offsets + np.uint64(layout.symbol("runqueues"))
    current, known = layout.memory.words(base + np.uint64(queue.field("curr").offset))
    idle, also = layout.memory.words(base + np.uint64(queue.field("idle").offset))
    whole = known & also
    return Cpus(layout.possible_cpus.astype(np.int64), np.where(whole, current, 0), (current == idle) & whole, whole)
