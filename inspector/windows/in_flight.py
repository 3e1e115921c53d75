"""Tasks that are in a window, and the address spaces they work on there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, U64, AnyArray, Mask, Table, rows_of
from inspector.records import dataclass
from inspector.tables.stacks import stack_words
from inspector.tables.vmas import vma_rows
from inspector.windows.catalogue import BY_FUNCTION, FAULT, TABLE_HOLDERS, THREADS, WAITS, WAITS_OUTSIDE, WINDOWS

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class InFlight(Table):
    """One row a task and a window that it is in, by task and window.

    Attributes:
        task_idx: int32; row in the tasks.
        window: int32; row in `inspector.windows.catalogue.WINDOWS`.
        frame: int64; row in ``Stacks.frames`` of the innermost function of the window.
        mms: object; int64 array of the rows in the mms that the task may work on: its own, and those that its stack
            names by their address or by that of one of their VMAs.
        words: object; uint64 array, ascending, of the words on its stack: what else it names.
    """

    task_idx: I32
    window: I32
    frame: I64
    mms: AnyArray
    words: AnyArray


def find_in_flight(s: Snapshot) -> InFlight:
    """Recognise the windows by the functions on each stack."""
    frames, functions = s.stacks.frames, s.stacks.functions
    windows = [BY_FUNCTION.get(name, ()) for name in functions]
    opens = np.array([bool(w) for w in windows], np.bool_)
    rows = np.flatnonzero(opens[frames.function] & ~_let_go(s)) if len(frames) else np.empty(0, np.int64)
    # With PREEMPT_RT spinlocks sleep: a task may be switched out while it holds one.
    may_spin = s.stacks.running | s.layout.config.has("PREEMPT_RT")
    found: dict[tuple[int, int], int] = {}
    for row in rows.tolist():
        task = int(frames.task_idx[row])
        if functions[frames.function[row]] in THREADS and functions[frames.function[row - 1]] in WAITS:
            continue
        for number in windows[frames.function[row]]:
            if may_spin[task] or not WINDOWS[number].spinning:
                # The innermost frame comes first.
                found.setdefault((task, number), row)
    places = sorted(found)
    words = {task: np.unique(stack_words(s.layout, s.stacks, task)[1]) for task in {t for t, _ in places}}
    mms = {task: _mms_of(s, task, named) for task, named in words.items()}
    mms_column, words_column = np.empty(len(places), object), np.empty(len(places), object)
    for i, (task, _) in enumerate(places):
        mms_column[i], words_column[i] = mms[task], words[task]
    return InFlight(
        task_idx=np.array([t for t, _ in places], np.int32),
        window=np.array([w for _, w in places], np.int32),
        frame=np.array([found[p] for p in places], np.int64),
        mms=mms_column,
        words=words_column,
    )


def _let_go(s: Snapshot) -> Mask:
    """Frames of page faults that wait for another task and hold nothing meanwhile."""
    frames, functions = s.stacks.frames, s.stacks.functions
    out = np.zeros(len(frames), np.bool_)
    waits = np.array([name in WAITS_OUTSIDE for name in functions], np.bool_)
    is_fault = np.array([name == FAULT for name in functions], np.bool_)
    faults = np.flatnonzero(is_fault[frames.function])
    for row in np.flatnonzero(waits[frames.function]).tolist():
        # The fault that waits is the next one outwards; what called it goes on afterwards.
        at = int(np.searchsorted(faults, row))
        if at < len(faults) and frames.task_idx[faults[at]] == frames.task_idx[row]:
            out[row : faults[at] + 1] = True
    return out


def table_holders(s: Snapshot) -> I32:
    """Rows of the tasks that are in a function that has a page table in hand, unlinked or not linked yet; ascending."""
    frames, functions = s.stacks.frames, s.stacks.functions
    holds = np.array([name in TABLE_HOLDERS for name in functions], np.bool_)
    return np.unique(frames.task_idx[holds[frames.function]]) if len(frames) else frames.task_idx


def _mms_of(s: Snapshot, task: int, words: U64) -> I64:
    """Rows of the mms that a task may work on."""
    own = s.tasks.mm[task : task + 1]
    named = rows_of(s.mms.addr, np.unique(np.concatenate([words, own])))
    vmas = vma_rows(s.vmas, words)
    return np.unique(np.concatenate([named[named >= 0], s.vmas.mm_idx[vmas[vmas >= 0]]])).astype(np.int64)
