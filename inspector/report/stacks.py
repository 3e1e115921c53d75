"""Tasks inside a window, and the kernel stack of one task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.hex_json import Hex
from inspector.places.named import TASK, taking
from inspector.places.processes import find_task
from inspector.report.mappings import owner_of
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.snapshot import Snapshot
from inspector.tables.stacks import How, StackState
from inspector.tables.tasks import state_letter
from inspector.text import clean_bytes, counted
from inspector.windows.catalogue import WINDOWS
from inspector.windows.window import Way

_KNOWN = {How.REGISTERS: "registers", How.ORC: "orc", How.SCAN: "scan"}
_STATES = {
    StackState.UNWOUND: "",
    StackState.SCANNED: "partly searched for return addresses",
    StackState.USER: "in user space",
    StackState.RUNNING: "on a CPU whose registers are not at hand",
    StackState.UNREADABLE: "not in the dump",
    StackState.NONE: "already freed",
    StackState.INTERRUPTED: "behind an interrupt that could not be followed",
}


class WindowMm(msgspec.Struct, frozen=True):
    """An address space that a task may work on."""

    mm: Hex
    pid: int | None
    comm: str | None


class WindowRow(msgspec.Struct, frozen=True):
    """One task in one window."""

    pid: int
    comm: str
    cpu: int | None
    """The CPU that it ran on; null when it was switched out."""
    state: str
    """As ps has it: R, S, D ..."""
    window: str
    """Its id in the catalogue, W1 to W28."""
    title: str
    function: str
    """The innermost function of the window, and the offset into it."""
    known: Literal["registers", "orc", "scan"]
    """How that is known: scan found a return address that may be of an earlier call."""
    high: list[str]
    """What can be higher than the page tables say; either: what can differ in either direction."""
    either: list[str]
    scope: str
    """Which things may be concerned."""
    mms: list[WindowMm]
    """Its own mm and those that its stack names."""
    gathered: int
    """Unmapped pages in its mmu_gather that wait for the TLB flush; delayed: of these still counted as mapped."""
    delayed: int


class WindowsReport(msgspec.Struct, frozen=True):
    """The object that ``windows --format json`` prints."""

    schema: Literal["folioscope.windows/2"]
    tasks: int
    stacks: dict[str, int]
    """Tasks by what is known of their stacks: unwound, scanned, user, running, unreadable,
    none, interrupted."""
    batched: int
    """References that per-CPU batches hold (W14, which is no place in code)."""
    windows: list[WindowRow]


class StackFrameRow(msgspec.Struct, frozen=True):
    """One function on a stack."""

    ip: Hex
    sp: Hex
    function: str
    known: Literal["registers", "orc", "scan"]
    windows: list[str]
    """Windows that this frame is the innermost sign of."""


class StackReport(msgspec.Struct, frozen=True):
    """The object that ``windows --stack --format json`` prints."""

    schema: Literal["folioscope.stack/2"]
    pid: int
    comm: str
    cpu: int | None
    state: str
    stack: str
    """What is known of it: unwound, scanned, user, running, unreadable or none."""
    frames: list[StackFrameRow]


def build_windows(s: Snapshot) -> WindowsReport:
    """All tasks inside a window."""
    state = s.stacks.state
    counts = {kind.name.lower(): int((state == kind).sum()) for kind in StackState if (state == kind).any()}
    rows = [_window_row(s, row) for row in range(len(s.in_flight))]
    return WindowsReport("folioscope.windows/2", len(s.tasks), counts, len(s.batches), rows)


def _window_row(s: Snapshot, row: int) -> WindowRow:
    flight, tasks, frames = s.in_flight, s.tasks, s.stacks.frames
    task, frame, window = int(flight.task_idx[row]), int(flight.frame[row]), WINDOWS[flight.window[row]]
    mine = s.gathered.task_idx == task if len(s.gathered) else np.zeros(0, np.bool_)
    return WindowRow(
        pid=int(tasks.pid[task]),
        comm=clean_bytes(bytes(tasks.comm[task])),
        cpu=int(tasks.cpu[task]) if tasks.on_cpu[task] else None,
        state=state_letter(tasks, task),
        window=window.id,
        title=window.title,
        function=s.stacks.places[int(frames.ip[frame])],
        known=_KNOWN[How(int(frames.how[frame]))],  # type: ignore[arg-type]
        high=[effect.value for effect, way in window.effects.items() if way is Way.HIGH],
        either=[effect.value for effect, way in window.effects.items() if way is Way.EITHER],
        scope=window.scope.value,
        mms=[WindowMm(*owner_of(s, mm)) for mm in flight.mms[row].tolist()],
        gathered=int(s.gathered.nr[mine].sum()),
        delayed=int(s.gathered.nr[mine & s.gathered.is_delayed].sum()),
    )


def build_stack(s: Snapshot, asked: str) -> StackReport:
    """The stack of one task, named as for `find_task`.

    Raises:
        UsageError: There is no such task, or several have the name.
    """
    tasks, stacks = s.tasks, s.stacks
    with taking(s, asked, TASK):
        task = find_task(s, asked)
    return StackReport(
        "folioscope.stack/2",
        int(tasks.pid[task]),
        clean_bytes(bytes(tasks.comm[task])),
        int(tasks.cpu[task]) if tasks.on_cpu[task] else None,
        state_letter(tasks, task),
        StackState(int(stacks.state[task])).name.lower(),
        frames_of(s, task),
    )


def frames_of(s: Snapshot, task: int) -> list[StackFrameRow]:
    """The functions on the stack of a task, by its row, the innermost first."""
    stacks, frames, flight = s.stacks, s.stacks.frames, s.in_flight
    opened: dict[int, list[str]] = {}
    for row in np.flatnonzero(flight.task_idx == task).tolist():
        opened.setdefault(int(flight.frame[row]), []).append(WINDOWS[flight.window[row]].id)
    return [
        StackFrameRow(
            ip=int(frames.ip[row]),
            sp=int(frames.sp[row]),
            function=stacks.places[int(frames.ip[row])],
            known=_KNOWN[How(int(frames.how[row]))],  # type: ignore[arg-type]
            windows=opened.get(row, []),
        )
        for row in np.flatnonzero(frames.task_idx == task).tolist()
    ]


_WINDOWS = (
    TableColumn("pid", right=True, style="bold"),
    TableColumn("comm"),
    TableColumn("cpu", right=True),
    TableColumn("state"),
    TableColumn("window", style="bold"),
    TableColumn("function"),
    TableColumn("known by"),
    TableColumn("works on"),
)


def render_windows(screen: Screen, report: WindowsReport) -> Iterator[str]:
    """The report for people."""
    if report.windows:
        yield from render_table(screen, _WINDOWS, [_cells(row) for row in report.windows])
        yield ""
        titles = {(row.window, row.title): row for row in report.windows}
        for (window, title), row in titles.items():
            effects = [f"can be too high: {', '.join(row.high)}"] if row.high else []
            effects += [f"can differ in either direction: {', '.join(row.either)}"] if row.either else []
            yield from screen.wrap(f"{window:4} {title}; {'; '.join(effects)}; of {row.scope}", "", "     ")
        yield ""
    stacks = [
        f"{counted(report.stacks[k.name.lower()], 'task')} {text}"
        for k, text in _STATES.items()
        if text and k.name.lower() in report.stacks
    ]
    facts = [("tasks", f"{report.tasks:,}"), ("in windows", str(len({row.pid for row in report.windows})))]
    if stacks:
        facts.append(("stacks", "; ".join(stacks)))
    facts.append(("per-CPU batches", f"{counted(report.batched, 'page')} (W14)"))
    yield from render_facts(screen, facts)


def _cells(row: WindowRow) -> tuple[str, ...]:
    mms = [f"{m.pid} {m.comm}" if m.pid is not None else f"mm {m.mm:#x}" for m in row.mms[:3]]
    works_on = ", ".join(mms) + (f" and {len(row.mms) - 3} more" if len(row.mms) > 3 else "")
    if row.gathered:
        works_on += f"; {counted(row.gathered, 'page')} in its mmu_gather"
        works_on += f", {row.delayed} still counted" if row.delayed else ""
    cpu = "" if row.cpu is None else str(row.cpu)
    return str(row.pid), row.comm, cpu, row.state, row.window, row.function, row.known, works_on


_FRAMES = (
    TableColumn("sp", right=True),
    TableColumn("function", style="bold"),
    TableColumn("known by"),
    TableColumn("windows"),
)


def render_stack(screen: Screen, report: StackReport) -> Iterator[str]:
    """One stack for people, the innermost function first."""
    where = f"on CPU {report.cpu}" if report.cpu is not None else f"state {report.state}"
    known = _STATES[StackState[report.stack.upper()]]
    yield from screen.wrap(f"pid {report.pid} {report.comm}, {where}" + (f"; the stack is {known}" if known else ""))
    if report.frames:
        yield ""
        rows = [(f"{f.sp:#x}", f.function, f.known, ", ".join(f.windows)) for f in report.frames]
        yield from render_table(screen, _FRAMES, rows)
