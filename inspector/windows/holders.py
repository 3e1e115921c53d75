"""Tasks that name a thing on the live part of their stack or in their registers: who may hold its lock.

The holder of a lock has to release it, and keeps the address of what is locked until then: in a register, or where the
functions that it calls saved that register (struct vm_fault, a folio_batch, a list head on the stack, too).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, U64, rows_covering
from inspector.tables.stacks import StackState, stack_words, thread_size
from inspector.target.prstatus import all_registers, decode

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_PAGE = 4096

NO_TASK = -1
"""Instead of the row of a task: what names the thing is the stack of an interrupt, or nothing does."""


def who_names(s: Snapshot, start: U64, end: U64) -> tuple[I64, I64]:
    """Who names an address inside each of some ranges.

    Args:
        s: The snapshot.
        start: uint64[n]; where the ranges begin; they ascend and do not overlap.
        end: uint64[n]; where they end, not included.

    Returns:
        Pairs: place of the range, and row of the task, `NO_TASK` for a CPU that handles an interrupt.
    """
    none = np.empty(0, np.int64)
    found, tasks = [none], [none]
    for task, words in _words(s) if len(start) else ():
        at = rows_covering(start, end, words)
        at = np.unique(at[at >= 0])
        found.append(at)
        tasks.append(np.full(len(at), task, np.int64))
    return np.concatenate(found), np.concatenate(tasks)


def unknown_holders(s: Snapshot) -> int:
    """How many tasks may name things without being known to: their stacks, or what they have in registers, are missing.

    A CPU that idles, or that an interrupt found idling, holds no lock.
    """
    notes = s.layout.target.prstatus
    at_work = [notes[number] for number in np.unique(s.stacks.note[s.stacks.note >= 0]).tolist()]
    return s.stacks.incomplete + sum(all_registers(note) is None for note in at_work)


def runs_on(s: Snapshot) -> bool:
    """Whether the kernel runs on: locks are taken and let go of before its stacks are read."""
    return s.layout.target.is_live


def _words(s: Snapshot) -> list[tuple[int, U64]]:
    """What each task has on its stack and in its registers, and what is on the stacks of interrupts."""
    layout, stacks = s.layout, s.stacks
    out = [(task, stack_words(layout, stacks, task)[1]) for task in range(len(s.tasks))]
    # Of one that an interrupt stopped, whose own stack could only be searched, the live part is not known.
    searched = (stacks.low >= stacks.top) & (stacks.state == StackState.SCANNED)
    whole = np.flatnonzero(searched).tolist()
    out += [(task, _words_from(s, int(s.tasks.stack[task]), int(stacks.top[task]))) for task in whole]
    owner = {int(note): task for task, note in enumerate(stacks.note) if note >= 0}
    size = thread_size(layout)
    for number, note in enumerate(layout.target.prstatus):
        task, now = owner.get(number, NO_TASK), decode(note)
        if now is None or now.user:
            continue
        registers = all_registers(note)
        if registers is not None:
            out.append((task, registers))
        if task == NO_TASK or not int(s.tasks.stack[task]) <= now.sp <= int(stacks.top[task]):
            out.append((task, _words_from(s, now.sp, now.sp + size - now.sp % size)))
    return out


def _words_from(s: Snapshot, start: int, end: int) -> U64:
    """What is on a stack from an address on: up to its end, but for pages that cannot be read."""
    at, pieces = start & ~7, [b""]
    while at < end:
        nr = min(_PAGE - at % _PAGE, end - at)
        data = s.layout.memory.read(at, nr)
        pieces.append(data or b"")
        at += nr
    return np.frombuffer(b"".join(pieces), np.dtype("<u8"))
