"""What each CPU was doing: its task, where it was, the window, the address spaces and folios that it worked on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.columns import I64, U64, take_or
from inspector.hex_json import Hex
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.report.stacks import StackFrameRow, WindowMm, frames_of
from inspector.snapshot import Snapshot
from inspector.tables.batches import BATCHES
from inspector.tables.cpus import Cpus, read_cpus
from inspector.tables.stacks import StackState, stack_words
from inspector.target.prstatus import all_registers
from inspector.text import clean_bytes, counted
from inspector.walk.kinds import page_kinds
from inspector.walk.names import owner_of
from inspector.windows.catalogue import WINDOWS


class CpuFolio(msgspec.Struct, frozen=True):
    """A folio whose struct pages a stack or a register names."""

    pfn: int
    order: int
    kind: str


class CpuWindow(msgspec.Struct, frozen=True):
    """A window that the task is in."""

    window: str
    title: str
    function: str


class CpuRow(msgspec.Struct, frozen=True):
    """One CPU."""

    cpu: int
    state: Literal["task", "idle", "unknown"]
    """unknown: the runqueue, or the task that it names, is not in the dump."""
    pid: int | None
    comm: str | None
    task: Hex | None
    """Its task_struct."""
    stack: str | None
    """What is known of its stack: unwound, scanned, user, running, unreadable, none or interrupted."""
    function: str | None
    """The innermost function; null where no frame is known, as in user space."""
    windows: list[CpuWindow]
    mms: list[WindowMm]
    """Its own address space, and those that its stack names when it is in a window."""
    folios: list[CpuFolio]
    """Those that its stack and registers name: what it had at hand, or used before."""
    frames: list[StackFrameRow]
    batches: dict[str, int]
    """Folios that wait in its batches for their LRU list or for mlock, by batch."""


class PutOffFlush(msgspec.Struct, frozen=True):
    """A task that unmapped pages and has not flushed the TLBs yet."""

    pid: int
    comm: str
    writable: bool
    """A page among them was dirty: until the flush other CPUs may write to it."""


class CpusReport(msgspec.Struct, frozen=True):
    """The object that ``cpus --format json`` prints."""

    schema: Literal["folioscope.cpus/1"]
    cpus: list[CpuRow]
    waiting: int
    """Tasks inside a window that no CPU runs: ``windows`` lists them."""
    flushes: list[PutOffFlush]
    """Tasks with a TLB flush that they put off (task->tlb_ubc)."""


def build_cpus(s: Snapshot) -> CpusReport:
    """All possible CPUs that have a runqueue."""
    cpus = read_cpus(s.layout)
    rows = [_row(s, cpus, i) for i in range(len(cpus))]
    running = {row.pid for row in rows}
    waiting = {int(s.tasks.pid[task]) for task in s.in_flight.task_idx.tolist()} - running
    batches, tasks = s.tlb_batches, s.tasks
    flushes = [
        PutOffFlush(int(tasks.pid[row]), clean_bytes(bytes(tasks.comm[row])), bool(batches.writable[row]))
        for row in np.flatnonzero(batches.flush_required | batches.writable).tolist()
    ]
    return CpusReport("folioscope.cpus/1", rows, len(waiting), flushes)


def _row(s: Snapshot, cpus: Cpus, i: int) -> CpuRow:
    cpu, address = int(cpus.cpu[i]), int(cpus.current[i])
    found = np.flatnonzero(s.tasks.addr == np.uint64(address))
    codes = s.batches.batch[s.batches.cpu == cpu]
    batches = {name: int((codes == code).sum()) for code, name in enumerate(BATCHES) if (codes == code).any()}
    if cpus.idle[i]:
        return CpuRow(cpu, "idle", 0, f"swapper/{cpu}", address, None, None, [], [], [], [], batches)
    if not cpus.known[i] or not len(found):
        return CpuRow(cpu, "unknown", None, None, address or None, None, None, [], [], [], [], batches)
    task = int(found[0])
    flight = np.flatnonzero(s.in_flight.task_idx == task)
    windows = [_window(s, row) for row in flight.tolist()]
    own = np.flatnonzero(s.mms.addr == s.tasks.mm[task])
    mms = [own, *(s.in_flight.mms[row] for row in flight.tolist())]
    distinct = dict.fromkeys(np.concatenate(mms).astype(np.int64).tolist())
    frames = frames_of(s, task)
    return CpuRow(
        cpu,
        "task",
        int(s.tasks.pid[task]),
        clean_bytes(bytes(s.tasks.comm[task])),
        address,
        StackState(int(s.stacks.state[task])).name.lower(),
        frames[0].function if frames else None,
        windows,
        [WindowMm(*owner_of(s, mm)) for mm in distinct],
        _folios(s, task),
        frames,
        batches,
    )


def _window(s: Snapshot, row: int) -> CpuWindow:
    flight = s.in_flight
    window = WINDOWS[int(flight.window[row])]
    return CpuWindow(window.id, window.title, s.stacks.places[int(s.stacks.frames.ip[int(flight.frame[row])])])


def _folios(s: Snapshot, task: int) -> list[CpuFolio]:
    """Folios of user memory, or of the page cache, whose struct pages are among the words of a task."""
    words: U64 = stack_words(s.layout, s.stacks, task)[1]
    note = int(s.stacks.note[task])
    registers = all_registers(s.layout.target.prstatus[note]) if note >= 0 else None
    if registers is not None:
        words = np.concatenate([words, registers])
    pages = s.pages
    rows = pages.memmap.rows(pages.memmap.pfns(words))
    heads: I64 = take_or(pages.head_row, rows, -1).astype(np.int64)
    heads = np.unique(heads[heads >= 0])
    orders = take_or(s.folios.order, s.folio_of_page[heads], 0).tolist() if len(s.folios) else [0] * len(heads)
    pfns = pages.memmap.pfns_of_rows(heads).tolist()
    kinds = page_kinds(s.layout, pages, s.folios, s.folio_of_page, heads).tolist()
    return [CpuFolio(*each) for each in zip(pfns, orders, kinds, strict=True)]


_COLUMNS = (
    TableColumn("cpu", right=True, style="bold"),
    TableColumn("pid", right=True),
    TableColumn("comm"),
    TableColumn("in"),
    TableColumn("window", style="bold"),
    TableColumn("works on"),
    TableColumn("folios"),
)
_FEW = 3


def render_cpus(screen: Screen, report: CpusReport) -> Iterator[str]:
    """The table, then the stack of each CPU that is not idle."""
    yield from render_table(screen, _COLUMNS, [_cells(row) for row in report.cpus])
    for row in report.cpus:
        if row.frames:
            yield ""
            yield screen.paint("bold", f"CPU {row.cpu}: {row.pid} {row.comm}")
            yield from (f"  {line}" for line in stack_lines(row))
    if report.waiting:
        yield ""
        yield f"in a window, but on no CPU: {counted(report.waiting, 'task')}; see folioscope windows"
    locking = [
        f"CPU {row.cpu} {counted(row.batches['mlock'], 'folio')}" for row in report.cpus if "mlock" in row.batches
    ]
    if locking:
        yield ""
        yield from screen.wrap(f"to be mlocked or munlocked: {', '.join(locking)}")
    if report.flushes:
        yield ""
        writable = " (of pages that may still be written to)"
        who = [f"{f.pid} {f.comm}{writable if f.writable else ''}" for f in report.flushes]
        yield from screen.wrap(f"TLB flushes put off: {', '.join(who)}")


def stack_lines(row: CpuRow) -> list[str]:
    """A CPU's windows, and the functions that it was in, the innermost first."""
    lines = [f"{w.window}  {w.title} ({w.function})" for w in row.windows]
    return lines + [f"{f.function}{'' if f.known != 'scan' else '  perhaps of an earlier call'}" for f in row.frames]


def where(row: CpuRow) -> str:
    """Where a CPU was, in a word or two."""
    if row.state != "task":
        return row.state
    return row.function or {"user": "user space"}.get(row.stack or "", f"stack {row.stack}")


def folio_words(row: CpuRow) -> str:
    """The folios, as many as a line takes."""
    some = ", ".join(f"{f.pfn:#x} {f.kind}" for f in row.folios[:_FEW])
    return some + (f" and {len(row.folios) - _FEW} more" if len(row.folios) > _FEW else "")


def _cells(row: CpuRow) -> tuple[str, ...]:
    mms = ", ".join(f"{m.pid} {m.comm}" if m.pid is not None else f"mm {m.mm:#x}" for m in row.mms[:_FEW])
    pid = "" if row.pid is None else str(row.pid)
    return str(row.cpu), pid, row.comm or "", where(row), " ".join(w.window for w in row.windows), mms, folio_words(row)
