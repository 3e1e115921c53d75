"""Kernel stacks of all tasks as frames: which functions every task is in.

No debug information is needed: stacks are unwound by the kernel's own ORC tables. Where these do not lead on, what is
left of the stack is searched for return addresses, and what that finds is marked: it may be left over from earlier
calls.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from inspector.columns import I32, I64, U8, U64, Mask, Table, count_up, group_starts, rows_covering
from inspector.errors import LayoutError
from inspector.layout.kernel import Layout
from inspector.lib.orc import OrcTables, RegisterPlaces, UnwindState, step
from inspector.memory import HOLE, Memory
from inspector.records import dataclass
from inspector.tables.tasks import Tasks
from inspector.target.prstatus import Registers, decode

MAX_DEPTH = 128
"""Frames of one stack at most: a damaged one must come to an end."""

_THREAD_SIZE = 16 << 10
"""Of x86-64 without KASAN, where the type that has it is missing (arch/x86/include/asm/page_64_types.h)."""

_MAX_THREAD_SIZE = 1 << 20
_MAX_PADDING = 64
"""More than was ever left free above the user's registers at the top of a stack (TOP_OF_KERNEL_STACK_PADDING)."""


class How(IntEnum):
    """How a frame is known."""

    REGISTERS = 0
    """Where a CPU was, from its registers in the dump."""
    ORC = 1
    """Unwound."""
    SCAN = 2
    """A return address on a part of the stack that could not be unwound: perhaps of an earlier call."""


class StackState(IntEnum):
    """What is known of a task's stack."""

    UNWOUND = 0
    """All of it."""
    SCANNED = 1
    """The outer part was searched for return addresses."""
    USER = 2
    """The task ran in user space: it is in no kernel function."""
    RUNNING = 3
    """The task ran on a CPU whose registers are not at hand."""
    UNREADABLE = 4
    """The stack is not in the dump."""
    NONE = 5
    """The task has given its stack back."""


@dataclass(frozen=True, slots=True)
class Frames(Table):
    """One row a frame; the rows of a task are together, the innermost function first.

    Attributes:
        task_idx: int32; row in the tasks.
        depth: int32; from 0.
        ip: uint64; where the function goes on.
        sp: uint64; stack pointer inside the function: what it keeps on the stack begins there.
        function: int32; index into `Stacks.functions`.
        how: uint8; a `How`.
    """

    task_idx: I32
    depth: I32
    ip: U64
    sp: U64
    function: I32
    how: U8


@dataclass(frozen=True)
class Stacks:
    """The stacks of all tasks.

    Attributes:
        frames: Their frames.
        state: uint8[tasks]; a `StackState`.
        top: uint64[tasks]; where each stack ends.
        functions: Names that ``frames.function`` counts, without what compilers append; "[module]" for code of a
            module, "" where nothing is known.
        places: By address, function and offset in words.
        incomplete: How many tasks may be in functions that no frame shows.
    """

    frames: Frames
    state: U8
    top: U64
    functions: list[str]
    places: dict[int, str]

    @property
    def incomplete(self) -> int:
        """Tasks of which a frame may be unknown."""
        return int(np.isin(self.state, (StackState.RUNNING, StackState.UNREADABLE)).sum())


class _StackWords:
    """Words of many stacks: the live parts are read ahead, other places when asked for."""

    def __init__(self, memory: Memory, start: U64, end: U64) -> None:
        """``start`` and ``end`` of the live parts, multiples of 8; empty ones allowed."""
        self._memory = memory
        order = np.argsort(start, kind="stable")
        order = order[end[order] > start[order]]
        self._start, self._end = start[order], end[order]
        nr = ((self._end - self._start) >> np.uint64(3)).astype(np.int64)
        self._first = np.cumsum(nr) - nr
        self._words = np.zeros(int(nr.sum()), np.uint64)
        self._valid = np.zeros(len(self._words), np.bool_)
        for i, (at, length) in enumerate(zip(self._start.tolist(), nr.tolist(), strict=True)):
            self._fill(int(self._first[i]), at, length)

    def _fill(self, first: int, at: int, nr: int) -> None:
        # To the end of a page at a time, because the pages of a stack lie apart and each may be missing.
        while nr:
            here = min(nr, (4096 - at % 4096) // 8)
            data = self._memory.read(at, 8 * here)
            if data is not None:
                self._words[first : first + here] = np.frombuffer(data, np.dtype("<u8"))
                self._valid[first : first + here] = True
            first, at, nr = first + here, at + 8 * here, nr - here

    def __call__(self, addresses: U64) -> tuple[U64, Mask]:
        """The words there, and which could be read."""
        near = rows_covering(self._start, self._end, addresses)
        inside = (near >= 0) & (addresses % np.uint64(8) == 0)
        out, ok = np.zeros(len(addresses), np.uint64), np.zeros(len(addresses), np.bool_)
        rows = np.flatnonzero(inside)
        word = self._first[near[rows]] + ((addresses[rows] - self._start[near[rows]]) >> np.uint64(3)).astype(np.int64)
        out[rows], ok[rows] = self._words[word], self._valid[word]
        other = np.flatnonzero(~inside)
        if len(other):
            out[other], ok[other] = self._memory.words(addresses[other])
        return out, ok


def build_stacks(layout: Layout, tasks: Tasks) -> Stacks:
    """Unwind the stack of every task.

    Raises:
        LayoutError: The kernel lacks the types of what is on a stack.
    """
    size = thread_size(layout)
    # The registers of user space are private, and of no use here.
    end = tasks.stack + np.uint64(size - _user_registers(layout, size))
    state = np.full(len(tasks), StackState.UNWOUND, np.uint8)
    state[tasks.stack == 0] = StackState.NONE
    begin, start = _initial(layout, tasks, end, state)
    words = _StackWords(layout.memory, start, end)
    begin = _from_switch(layout, begin, words, tasks, state)
    orc, places = OrcTables(layout), RegisterPlaces.of(layout)
    pieces: list[_Piece] = []
    now, depth = begin, 0
    lost: list[tuple[I64, U64]] = []
    while len(now) and depth < MAX_DEPTH:
        how = np.where(tasks.on_cpu[now.row] & (depth == 0), How.REGISTERS, How.ORC).astype(np.uint8)
        pieces.append(_Piece(now.row, np.full(len(now), depth, np.int32), now.ip, now.sp, how, now.signal))
        found = step(orc, now, places, words, end[now.row])
        lost.append((found.lost, found.lost_sp))
        now, depth = found.state, depth + 1
    lost.append((now.row, now.sp))
    pieces += _scan(lost, orc, words, end, state)
    return _collect(layout, orc, pieces, state, end)


@dataclass(frozen=True, slots=True)
class _Piece(Table):
    """Frames as they are found: columns of `Frames`, and whether ``ip`` is to be run next."""

    task_idx: I64
    depth: I32
    ip: U64
    sp: U64
    how: U8
    signal: Mask


def thread_size(layout: Layout) -> int:
    """Bytes of a kernel stack (THREAD_SIZE)."""
    try:
        size = layout.struct("union thread_union").size
    except LayoutError:
        return _THREAD_SIZE
    return size if _THREAD_SIZE <= size <= _MAX_THREAD_SIZE and size & (size - 1) == 0 else _THREAD_SIZE


def stack_words(layout: Layout, tasks: Tasks, stacks: Stacks, task: int) -> tuple[U64, U64]:
    """The live part of a task's stack, unreadable words left out.

    Args:
        layout: The kernel's layout.
        tasks: All tasks.
        stacks: Their stacks.
        task: Row of the task.

    Returns:
        uint64[n] each: the addresses, ascending, and the words there.
    """
    top = int(stacks.top[task])
    first, last = np.searchsorted(stacks.frames.task_idx, [task, task + 1])
    sp = stacks.frames.sp[first:last]
    sp = sp[(sp < np.uint64(top)) & (sp >= tasks.stack[task])]
    if not len(sp):
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    start = int(sp.min()) & ~7
    data, known = layout.memory.read_range(start, min(top - start, _MAX_THREAD_SIZE))
    at = np.arange(0, len(data) // 8 * 8, 8, dtype=np.int64)
    ok = known[at // HOLE]
    return (np.uint64(start) + at.astype(np.uint64))[ok], data[: len(at) * 8].view(np.dtype("<u8"))[ok]


def _user_registers(layout: Layout, size: int) -> int:
    """Bytes at the top of a stack that are not the kernel's: registers of user space, and padding with FRED.

    Known from the first stack, which begins below them (arch/x86/kernel/vmlinux.lds.S, __top_init_kernel_stack); where
    it has no name yet there is no padding.
    """
    least = layout.struct("struct pt_regs").size
    begin, bottom = layout.target.symbol("__top_init_kernel_stack"), layout.target.symbol("init_stack")
    if begin is None or bottom is None or not least <= size - (begin - bottom) <= least + _MAX_PADDING:
        return least
    return size - (begin - bottom)


def _initial(layout: Layout, tasks: Tasks, end: U64, state: U8) -> tuple[UnwindState, U64]:
    """Where unwinding begins for the running tasks, and from where on each stack is live."""
    start = np.where(tasks.on_cpu, end, tasks.sp)
    running = np.flatnonzero(tasks.on_cpu & (state == StackState.UNWOUND))
    state[running] = StackState.RUNNING
    notes = [decode(note) for note in layout.target.prstatus]
    rows, found = [], []
    for row in running.tolist():
        registers = _registers_of(notes, int(tasks.cpu[row]), int(tasks.stack[row]), int(end[row]))
        if registers is None:
            continue
        state[row] = StackState.USER if registers.user else StackState.UNWOUND
        if not registers.user:
            rows.append(row)
            found.append(registers)
            if tasks.stack[row] <= registers.sp <= end[row]:
                start[row] = registers.sp
    odd = (start < tasks.stack) | (start > end) | (start % np.uint64(8) != 0) | (state == StackState.NONE)
    start = np.where(odd, end, start)
    ip, sp, bp = (np.array([getattr(f, name) for f in found], np.uint64) for name in ("ip", "sp", "bp"))
    return UnwindState(ip, sp, bp, np.ones(len(rows), np.bool_), np.array(rows, np.int64)), start


def _registers_of(notes: list[Registers | None], cpu: int, stack: int, end: int) -> Registers | None:
    """Those of the CPU that a task runs on: by its stack pointer, else by the order of the notes."""
    for note in notes:
        if note is not None and not note.user and stack <= note.sp <= end:
            return note
    return notes[cpu] if 0 <= cpu < len(notes) else None


def _from_switch(layout: Layout, running: UnwindState, words: _StackWords, tasks: Tasks, state: U8) -> UnwindState:
    """The frames of tasks that were switched out, beside those of running ones (__unwind_start())."""
    frame = layout.struct("struct inactive_task_frame")
    rows = np.flatnonzero(~tasks.on_cpu & (state == StackState.UNWOUND)).astype(np.int64)
    sp = tasks.sp[rows]
    ip, ip_ok = words(sp + np.uint64(frame.field("ret_addr").offset))
    bp, bp_ok = words(sp + np.uint64(frame.field("bp").offset))
    ok = ip_ok & bp_ok
    state[rows[~ok]] = StackState.UNREADABLE
    fork = layout.target.symbol("ret_from_fork_asm") or layout.target.symbol("ret_from_fork") or 0
    out = UnwindState(ip, sp + np.uint64(frame.size), bp, ip == np.uint64(fork), rows).take(ok)
    return UnwindState.concat([running, out])


def _scan(lost: list[tuple[I64, U64]], orc: OrcTables, words: _StackWords, end: U64, state: U8) -> list[_Piece]:
    """Return addresses on what is left of stacks that could not be unwound to their end."""
    out: list[_Piece] = []
    for rows, sps in lost:
        for row, sp in zip(rows.tolist(), sps.tolist(), strict=True):
            state[row] = StackState.SCANNED
            if not int(end[row]) - _MAX_THREAD_SIZE <= sp < int(end[row]):
                continue
            place = np.arange(sp + 7 & ~7, int(end[row]), 8, dtype=np.uint64)
            word, ok = words(place)
            in_code = np.zeros(len(word), np.bool_)
            for code in orc.codes:
                in_code |= (word > np.uint64(code.base)) & (word < np.uint64(code.end))
            hit = np.flatnonzero(in_code & ok)
            n = len(hit)
            out.append(
                _Piece(
                    np.full(n, row, np.int64),
                    # Behind whatever was unwound.
                    np.arange(MAX_DEPTH, MAX_DEPTH + n, dtype=np.int32),
                    word[hit],
                    place[hit] + np.uint64(8),
                    np.full(n, How.SCAN, np.uint8),
                    np.zeros(n, np.bool_),
                )
            )
    return out


def _collect(layout: Layout, orc: OrcTables, pieces: list[_Piece], state: U8, top: U64) -> Stacks:
    """The frames in order, with names."""
    found = _Piece.concat([_Piece.empty(), *pieces])
    found = found.take(np.lexsort((found.depth, found.task_idx)))
    depth = count_up(np.diff(group_starts(found.task_idx), append=len(found)))
    function, functions, places = _names(layout, orc, found.ip, found.signal)
    frames = Frames(
        task_idx=found.task_idx.astype(np.int32),
        depth=depth.astype(np.int32),
        ip=found.ip,
        sp=found.sp,
        function=function,
        how=found.how,
    )
    return Stacks(frames, state, top, functions, places)


def _names(layout: Layout, orc: OrcTables, ip: U64, signal: Mask) -> tuple[I32, list[str], dict[int, str]]:
    """Function of each address, the functions' names, and each address with its offset."""
    # A call that never returns is the last instruction of its function: what is behind it belongs to another.
    inside = ip - np.where(signal, 0, 1).astype(np.uint64)
    distinct, back = np.unique(inside, return_inverse=True)
    functions: dict[str, int] = {}
    number = np.zeros(len(distinct), np.int32)
    labels: dict[int, str] = {}
    for i, address in enumerate(distinct.tolist()):
        label = layout.target.symbol_name(address)
        if label is None:
            module = orc.module_at(address)
            label = f"[{module}]" if module else ""
        labels[address] = label
        name = label.split("+")[0]
        # foo.constprop.0, foo.isra.0, foo.part.0, foo.cold are parts of foo or copies of it.
        number[i] = functions.setdefault(name.split(".")[0] or name, len(functions))
    places = {}
    for address, at in zip(ip.tolist(), inside.tolist(), strict=True):
        places[address] = _place(labels[at], address - at)
    return number[back.reshape(-1)].astype(np.int32), list(functions), places


def _place(label: str, more: int) -> str:
    """A label with its offset raised by ``more``."""
    name, plus, offset = label.partition("+")
    if not name or name.startswith("["):
        return label
    return f"{name}+{(int(offset, 16) if plus else 0) + more:#x}"
