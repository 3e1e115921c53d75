"""Who sleeps until a folio is unlocked or written, and who else names it on its stack: by the stacks of all tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, U64
from inspector.folio.numbers import OneFolio
from inspector.records import dataclass
from inspector.tables.stacks import stack_words
from inspector.text import clean_bytes
from inspector.windows.holders import NO_TASK, who_names
from inspector.windows.window import named

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_WITHOUT_REFERENCE = named("folio_put_wait_locked migration_entry_wait_on_locked softleaf_entry_wait_on_locked")
"""Functions that wait for a folio without a reference to it: mm/filemap.c, folio_wait_bit_common() with DROP."""

_SLEEPS = named(
    "schedule __schedule io_schedule schedule_timeout folio_wait_bit_common folio_wait_bit folio_wait_bit_killable "
    "__folio_lock __folio_lock_killable __folio_lock_or_retry folio_put_wait_locked folio_wait_writeback "
    "folio_wait_writeback_killable migration_entry_wait_on_locked softleaf_entry_wait_on_locked migration_entry_wait"
)
"""Functions whose caller says what the task waits for it for."""

_MAX_NAMERS = 4


@dataclass(frozen=True)
class Waiter:
    """A task that sleeps until a bit of the folio is cleared.

    Attributes:
        task: Row in `Tasks`.
        bit: Name of the bit, without ``PG_``.
        holds: Whether it has a reference to the folio meanwhile.
        function: The function that waits for it; "" when that is not known.
    """

    task: int
    bit: str
    holds: bool
    function: str


def may_be_awaited(s: Snapshot, f: OneFolio) -> bool:
    """Whether a task may sleep on the folio: folio_wait_bit_common() sets PG_waiters before it does."""
    return bool(s.layout.flags.test(s.pages.flags[f.head : f.head + 1], "waiters")[0])


def waiters(s: Snapshot, f: OneFolio) -> list[Waiter]:
    """Tasks with a struct wait_page_queue for the folio on the live part of their stack.

    mm/filemap.c, folio_wait_bit_common(): it names the folio, the bit, the task itself and wake_page_function().
    """
    layout = s.layout
    wake = layout.target.symbol("wake_page_function")
    if wake is None or not layout.has_struct("struct wait_page_queue"):
        return []
    queue = layout.struct("struct wait_page_queue")
    base = queue.field("folio", "page").offset
    at = {name: (queue.field(name).offset - base) // 8 for name in ("bit_nr", "wait.private", "wait.func")}
    head = np.uint64(layout.memmap.page_addr(f.pfn))
    out = []
    for task in range(len(s.tasks)):
        _, words = stack_words(layout, s.stacks, task)
        for place in np.flatnonzero(words[: max(len(words) - max(at.values()), 0)] == head).tolist():
            if int(words[place + at["wait.func"]]) == wake and words[place + at["wait.private"]] == s.tasks.addr[task]:
                bit = int(words[place + at["bit_nr"]]) & 0xFFFFFFFF
                out.append(_waiter(s, task, bit))
                break
    return out


def _waiter(s: Snapshot, task: int, bit: int) -> Waiter:
    functions = _functions(s, task)
    names = s.layout.flags.names(1 << bit) if bit < 64 else []
    caller = next((name for name in functions if name not in _SLEEPS), "")
    return Waiter(task, names[0] if names else f"bit {bit}", _WITHOUT_REFERENCE.isdisjoint(functions), caller)


def _functions(s: Snapshot, task: int) -> list[str]:
    """The functions that a task is in, the innermost first."""
    frames = s.stacks.frames
    first, last = np.searchsorted(frames.task_idx, [task, task + 1])
    return [s.stacks.functions[i] for i in frames.function[int(first) : int(last)].tolist()]


def waiting(s: Snapshot, found: list[Waiter]) -> list[str]:
    """Sentences about tasks that wait."""
    return [
        f"{_who(s, w.task)} waits for PG_{w.bit} to be cleared"
        + (f", in {w.function}()" if w.function else "")
        + ("" if w.holds else ", without a reference")
        for w in found
    ]


def naming(s: Snapshot, f: OneFolio, without: list[Waiter]) -> list[str]:
    """Sentences about other tasks that name a struct page of the folio on the live part of their stack or in registers.

    Args:
        s: The snapshot.
        f: The folio.
        without: Those that are known to wait for it.
    """
    memmap = s.layout.memmap
    start = np.array([memmap.page_addr(f.pfn)], np.uint64)
    end = start + np.uint64(f.nr_pages * memmap.page_size)
    _, tasks = who_names(s, start, end)
    known = {w.task for w in without}
    found = [task for task in np.unique(tasks).tolist() if task not in known]
    out = [
        f"{_who(s, task)} names it{_where(s, task, start, end)}"
        if task != NO_TASK
        else "the handler of an interrupt names it"
        for task in found[:_MAX_NAMERS]
    ]
    return [*out, f"{len(found) - _MAX_NAMERS} more tasks name it"] if len(found) > _MAX_NAMERS else out


def _where(s: Snapshot, task: int, start: U64, end: U64) -> str:
    """In which function's frame a task names a stretch; "" where it does so in registers."""
    places, words = stack_words(s.layout, s.stacks, task)
    hits: I64 = np.flatnonzero((words >= start) & (words < end))
    frames = s.stacks.frames
    first, last = (int(x) for x in np.searchsorted(frames.task_idx, [task, task + 1]))
    if not len(hits) or first == last:
        return ""
    row = first + max(int(np.searchsorted(frames.sp[first:last], places[hits[0]], side="right")) - 1, 0)
    name = s.stacks.functions[int(frames.function[row])]
    return f" on its stack, in {name}()" if name else " on its stack"


def _who(s: Snapshot, task: int) -> str:
    return f"pid {int(s.tasks.pid[task])} {clean_bytes(bytes(s.tasks.comm[task]))}"
