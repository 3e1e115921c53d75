"""Kernel stacks of all tasks as frames: which functions every task is in.

No debug information is needed: stacks are unwound by the kernel's own ORC tables. Where these do not lead on, what is
left of the stack is searched for return addresses, and what that finds is marked: it may be left over from earlier
calls.

Whose stack it is, is decided by where the stack pointer is, not by which task the CPU is to run: inside
context_switch() (kernel/sched/core.c) rq->curr and its task_struct are the next task's while registers and stack are
still the previous one's, and both have on_cpu set. What an interrupt or exception on a stack of its own interrupted is
followed through the registers saved there.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from inspector.columns import I32, I64, U8, U64, Mask, Table, count_up, group_starts, rows_covering
from inspector.errors import LayoutError
from inspector.layout.kernel import Layout
from inspector.lib.orc import OrcTables, RegisterPlaces, UnwindState, code_name, step
from inspector.memory import HOLE, Memory
from inspector.records import dataclass
from inspector.tables.tasks import Tasks
from inspector.target.prstatus import Registers, decode

MAX_DEPTH = 128
"""Frames of one stack at most: a damaged one must come to an end."""

_THREAD_SIZE = 16 << 10
"""Of x86-64 without KASAN, where the type that has it is missing (arch/x86/include/asm/page_64_types.h)."""

_MAX_THREAD_SIZE = 1 << 20
_PAGE = 4096
_KERNEL_CS = 0x10
"""Of kernel code (arch/x86/include/asm/segment.h, __KERNEL_CS)."""

_NOWHERE = np.uint64((1 << 64) - 1)
"""Above all stacks: where no user's registers are saved."""

_ENTERS_SYSTEM_CALLS = frozenset(
    {
        "do_syscall_64",
        "do_int80_syscall_32",
        "do_int80_emulation",
        "int80_emulation",
        "__do_fast_syscall_32",
        "do_fast_syscall_32",
        "do_SYSENTER_32",
    }
)
"""Functions whose frames begin with a stretch that is never written (arch/x86/entry/, kernel/entry/)."""

_MAX_ROUNDS = 4
"""Stacks that one task's may lead through at most: of an NMI, of a debug exception, of interrupts, its own."""

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
    INTERRUPTED = 6
    """An interrupt or exception on a stack of its own could not be followed back to the task's."""


_UNKNOWN = (StackState.RUNNING, StackState.UNREADABLE, StackState.INTERRUPTED)
"""States in which a task may be in functions that no frame shows."""


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
        low: uint64[tasks]; the lowest address in use on each stack; its end where that is not known.
        running: bool[tasks]; a CPU is at work there, by its registers, or may be. A task that is only about to run, or
            has just been switched out, is not among them, though on_cpu is set.
        note: int32[tasks]; which of the dump's notes has the registers of the CPU that is at work there, -1 for none.
        functions: Names that ``frames.function`` counts, without what compilers append; "[module]" for code of a
            module, "" where nothing is known.
        places: By address, function and offset in words.
        incomplete: How many tasks may be in functions that no frame shows.
    """

    frames: Frames
    state: U8
    top: U64
    low: U64
    running: Mask
    note: I32
    functions: list[str]
    places: dict[int, str]

    @property
    def incomplete(self) -> int:
        """Tasks of which a frame may be unknown."""
        return int(np.isin(self.state, _UNKNOWN).sum())

    def any_in(self, functions: frozenset[str]) -> bool:
        """Whether a task is in one of some functions."""
        has = np.array([name in functions for name in self.functions], np.bool_)
        return len(self.frames) > 0 and bool(has[self.frames.function].any())


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
            here = min(nr, (_PAGE - at % _PAGE) // 8)
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


def no_stacks(tasks: Tasks) -> Stacks:
    """The table where no stack can be followed: any task may be in any function."""
    n = len(tasks)
    state, nowhere = np.full(n, StackState.UNREADABLE, np.uint8), np.zeros(n, np.uint64)
    return Stacks(Frames.empty(), state, nowhere, nowhere, tasks.on_cpu, np.full(n, -1, np.int32), [], {})


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
    unwinder = _Unwinder(layout, tasks, end)
    now, running, note = _running(unwinder, state)
    low = np.where(running, end, tasks.sp)
    low[now.row] = now.sp
    odd = (low < tasks.stack) | (low > end) | (low % np.uint64(8) != 0) | (state == StackState.NONE)
    low[odd] = end[odd]
    unwinder.words = _StackWords(layout.memory, low, end)
    now = UnwindState.concat([now, _switched_out(unwinder, ~running, state)])
    pieces: list[_Piece] = []
    for depth in range(0, _MAX_ROUNDS * 2 * MAX_DEPTH, 2 * MAX_DEPTH):
        lost = unwinder.follow(now, depth, pieces, low, running)
        now = unwinder.scan(lost, depth + MAX_DEPTH, pieces, state)
    _mark_interrupted(tasks, end, pieces, state)
    frames, functions, places = _collect(layout, unwinder.orc, pieces)
    return Stacks(frames, state, end, low, running, note, functions, places)


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


def stack_words(layout: Layout, stacks: Stacks, task: int) -> tuple[U64, U64]:
    """What functions keep on a task's stack: its live part without what is left over from earlier calls.

    Unreadable words are left out. So is the frame of the function that enters system calls: it moves the stack by a
    random distance (include/linux/randomize_kstack.h, add_random_kstack_offset()), and what lies there is as it was.

    Args:
        layout: The kernel's layout.
        stacks: Of all tasks.
        task: Row of the task.

    Returns:
        uint64[n] each: the addresses, ascending, and the words there; none where the live part is not known.
    """
    top, low = int(stacks.top[task]), int(stacks.low[task])
    if low >= top:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    start = low & ~7
    data, known = layout.memory.read_range(start, min(top - start, _MAX_THREAD_SIZE))
    at = np.arange(0, len(data) // 8 * 8, 8, dtype=np.int64)
    ok = known[at // HOLE]
    first, last = np.searchsorted(stacks.frames.task_idx, [task, task + 1])
    for row in range(int(first), int(last)):
        is_sure = stacks.frames.how[row] != How.SCAN
        if is_sure and stacks.functions[stacks.frames.function[row]] in _ENTERS_SYSTEM_CALLS:
            inner = int(stacks.frames.sp[row]) - start
            outer = int(stacks.frames.sp[row + 1]) - start if row + 1 < last else len(data)
            ok &= (at < inner) | (at >= outer)
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


_OF_NO_TASK, _OF_USER = -1, -2


def _in_entry_area(address: int) -> bool:
    """Whether it is in the CPUs' entry areas, where exceptions begin (asm/cpu_entry_area.h, asm/pgtable_areas.h)."""
    return -4 << 39 <= address - (1 << 64) < -3 << 39


_Lost = list[tuple[I64, U64]]
"""Rows of stacks that could not be followed, and from where on."""


class _Unwinder:
    """Unwinds many stacks, and searches them for return addresses where unwinding leads no further.

    Args:
        layout: The kernel's layout.
        tasks: Whose stacks they are.
        end: uint64[tasks]; where each stack ends.
    """

    def __init__(self, layout: Layout, tasks: Tasks, end: U64) -> None:
        self.layout, self.tasks, self.end = layout, tasks, end
        self.orc, self._places = OrcTables(layout), RegisterPlaces.of(layout)
        self.words = _StackWords(layout.memory, tasks.stack[:0], tasks.stack[:0])
        self._order = np.argsort(tasks.stack, kind="stable")

    def owner(self, sp: int) -> int:
        """Row of the task on whose stack an address is, -1 for none."""
        at = int(np.searchsorted(self.tasks.stack[self._order], np.uint64(sp), side="right")) - 1
        row = int(self._order[at]) if at >= 0 else -1
        return row if row >= 0 and 0 < int(self.tasks.stack[row]) <= sp <= int(self.end[row]) else -1

    def came_from(self, now: UnwindState) -> int:
        """Row of the task on whose stack a CPU is, or was before an interrupt or exception changed stacks.

        Returns:
            The row; `_OF_NO_TASK` of a CPU that idles, `_OF_USER` of one that just came from user space.

        Raises:
            LookupError: That cannot be found out.
        """
        nowhere = np.full(1, _NOWHERE)
        for _ in range(MAX_DEPTH):
            if self.owner(int(now.sp[0])) >= 0:
                return self.owner(int(now.sp[0]))
            found = step(self.orc, now, self._places, self.words, nowhere)
            if len(found.ended):
                return _OF_USER if _in_entry_area(int(now.sp[0])) else _OF_NO_TASK
            now = found.state if len(found.state) else self._resumed(int(found.lost_sp[0]), 0)[0]
            if not len(now):
                raise LookupError("an interrupt's stack")
        raise LookupError("an interrupt's stack")

    def follow(self, now: UnwindState, depth: int, pieces: list[_Piece], low: U64, running: Mask) -> _Lost:
        """Unwind as far as it goes: a row of ``pieces`` for each frame. ``low`` becomes the lowest address in use."""
        lost: _Lost = []
        for at in range(depth, depth + MAX_DEPTH):
            if not len(now):
                return lost
            how = np.where(running[now.row] & (at == 0), How.REGISTERS, How.ORC).astype(np.uint8)
            pieces.append(_Piece(now.row, np.full(len(now), at, np.int32), now.ip, now.sp, how, now.signal))
            found = step(self.orc, now, self._places, self.words, self.end[now.row])
            row = found.state.row
            own = (found.low >= self.tasks.stack[row]) & (found.low <= self.end[row])
            np.minimum.at(low, row[own], found.low[own])
            lost.append((found.lost, found.lost_sp))
            now = found.state
        return [*lost, (now.row, now.sp)]

    def scan(self, lost: _Lost, depth: int, pieces: list[_Piece], state: U8) -> UnwindState:
        """Return addresses on what is left of stacks that could not be unwound to their end.

        Returns:
            Where unwinding goes on: at what the interrupts among them interrupted.
        """
        onward = [UnwindState.empty()]
        for rows, sps in lost:
            for row, sp in zip(rows.tolist(), sps.tolist(), strict=True):
                state[row] = StackState.SCANNED
                place, word = np.empty(0, np.uint64), np.empty(0, np.uint64)
                if int(self.end[row]) - _MAX_THREAD_SIZE <= sp < int(self.end[row]):
                    place, word = self._return_addresses(sp, int(self.end[row]))
                elif self.owner(sp) < 0:
                    now, place, word = self._resumed(sp, row)
                    if len(now) and self.owner(int(now.sp[0])) == row:
                        onward.append(now)
                n = len(word)
                # Behind whatever was unwound.
                at = np.arange(depth, depth + n, dtype=np.int32)
                how = np.full(n, How.SCAN, np.uint8)
                pieces.append(_Piece(np.full(n, row), at, word, place + np.uint64(8), how, np.zeros(n, np.bool_)))
        return UnwindState.concat(onward)

    def _return_addresses(self, sp: int, end: int) -> tuple[U64, U64]:
        """Where addresses of code are on a part of a stack, and these addresses."""
        # What a damaged stack names may lie at the end of all addresses.
        place = np.arange(min(sp + 7 & ~7, end), end, 8, dtype=np.uint64)
        word, ok = self.words(place)
        hit = np.flatnonzero(self._in_code(word) & ok)
        return place[hit], word[hit]

    def _in_code(self, words: U64) -> Mask:
        out = np.zeros(len(words), np.bool_)
        for code in self.orc.codes:
            out |= (words > np.uint64(code.base)) & (words < np.uint64(code.end))
        return out

    def _resumed(self, sp: int, row: int) -> tuple[UnwindState, U64, U64]:
        """What an interrupt or exception interrupted whose own stack could not be unwound from ``sp`` on.

        Entry code saved all registers (struct pt_regs) above the address to which its handler returns; the CPU itself
        pushed ip, cs, flags, sp and ss at the top of the stack of an exception (arch/x86/entry/entry_64.S); and at the
        top of the stack of interrupts is the stack pointer from before (call_on_stack(), asm/irq_stack.h).

        Returns:
            The interrupted frame for stack ``row``, none if it cannot be found or was in user space; and where return
            addresses were up to there, and these.
        """
        end = sp + 8 & ~7
        while end % _PAGE or (end - sp < _THREAD_SIZE and self.layout.memory.read(end, 8) is not None):
            end = (end | _PAGE - 1) + 1
        place, word = self._return_addresses(sp, end)
        saved = np.flatnonzero(self.orc.saves_registers(word)) if len(word) else np.empty(0, np.int64)
        none = UnwindState.empty()
        for at in saved.tolist():
            one = slice(at, at + 1)
            here = UnwindState(
                word[one], place[one] + np.uint64(8), np.zeros(1, np.uint64), np.zeros(1, np.bool_), np.full(1, row)
            )
            found = step(self.orc, here, self._places, self.words, np.full(1, _NOWHERE))
            if len(found.state) or len(found.ended):
                return found.state, place[: at + 1], word[: at + 1]
        top, known = self.words(np.arange(end - 40, end, 8, dtype=np.uint64))
        if not known.all():
            return none, place, word
        if top[1] == _KERNEL_CS and self._in_code(top[:1])[0] and self.owner(int(top[3])) >= 0:
            frame = UnwindState(top[:1], top[3:4], np.zeros(1, np.uint64), np.ones(1, np.bool_), np.full(1, row))
            below = place < np.uint64(end - 40)
            return frame, place[below], word[below]
        at = self.owner(int(top[4]))
        if at >= 0:
            # Where the function that changed stacks goes on is unknown: the next address of code on its own stack.
            places, words = self._return_addresses(int(top[4]), int(self.end[at]))
            first = slice(0, min(len(words), 1))
            sp_of = places[first] + np.uint64(8)
            zero = np.zeros(len(sp_of), np.uint64)
            return UnwindState(words[first], sp_of, zero, zero != 0, np.full(len(sp_of), row)), place, word
        return none, place, word


def _running(unwinder: _Unwinder, state: U8) -> tuple[UnwindState, Mask, I32]:
    """The frames that the CPUs are in, on whose stacks they are or may be, and whose note each task's is."""
    tasks = unwinder.tasks
    found: dict[int, Registers] = {}
    lost: dict[int, Registers] = {}
    notes = [decode(note) for note in unwinder.layout.target.prstatus]
    in_user = {cpu for cpu, note in enumerate(notes) if note is not None and note.user}
    for cpu, note in enumerate(notes):
        if note is None or note.user:
            continue
        try:
            row = unwinder.came_from(_state_of([note], [0]))
        except LookupError:
            lost[cpu] = note
        else:
            if row == _OF_USER:
                in_user.add(cpu)
            elif row >= 0:
                found.setdefault(row, note)
    running = np.zeros(len(tasks), np.bool_)
    for row in np.flatnonzero(tasks.on_cpu & (state == StackState.UNWOUND)).tolist():
        cpu = int(tasks.cpu[row])
        here = notes[cpu] if 0 <= cpu < len(notes) else None
        if row in found:
            continue
        if here is None:
            state[row], running[row] = StackState.RUNNING, True
        elif cpu in in_user:
            state[row], running[row] = StackState.USER, True
        elif cpu in lost:
            found[row] = lost.pop(cpu)
    running[list(found)] = True
    note_of = np.full(len(tasks), -1, np.int32)
    for row, registers in found.items():
        note_of[row] = next(cpu for cpu, each in enumerate(notes) if each is registers)
    return _state_of(list(found.values()), list(found)), running, note_of


def _state_of(registers: list[Registers], rows: list[int]) -> UnwindState:
    ip, sp, bp = (np.array([getattr(r, name) for r in registers], np.uint64) for name in ("ip", "sp", "bp"))
    return UnwindState(ip, sp, bp, np.ones(len(rows), np.bool_), np.array(rows, np.int64))


def _switched_out(unwinder: _Unwinder, waits: Mask, state: U8) -> UnwindState:
    """The frames of tasks that were switched out (__unwind_start())."""
    layout, words, tasks = unwinder.layout, unwinder.words, unwinder.tasks
    frame = layout.struct("struct inactive_task_frame")
    rows = np.flatnonzero(waits & (state == StackState.UNWOUND)).astype(np.int64)
    sp = tasks.sp[rows]
    ip, ip_ok = words(sp + np.uint64(frame.field("ret_addr").offset))
    bp, bp_ok = words(sp + np.uint64(frame.field("bp").offset))
    ok = ip_ok & bp_ok
    state[rows[~ok]] = StackState.UNREADABLE
    fork = layout.target.symbol("ret_from_fork_asm") or layout.target.symbol("ret_from_fork") or 0
    return UnwindState(ip, sp + np.uint64(frame.size), bp, ip == np.uint64(fork), rows).take(ok)


def _mark_interrupted(tasks: Tasks, end: U64, pieces: list[_Piece], state: U8) -> None:
    """Stacks of which no frame is known because the interrupt that stopped their tasks could not be followed."""
    frames = _Piece.concat([_Piece.empty(), *pieces])
    row = frames.task_idx
    own = (frames.sp >= tasks.stack[row]) & (frames.sp <= end[row])
    seen = np.zeros(len(tasks), np.bool_)
    seen[row[own]] = True
    state[~seen & (state == StackState.SCANNED)] = StackState.INTERRUPTED


def _collect(layout: Layout, orc: OrcTables, pieces: list[_Piece]) -> tuple[Frames, list[str], dict[int, str]]:
    """The frames in order, with names (`Stacks.functions`, `Stacks.places`)."""
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
    return frames, functions, places


def _names(layout: Layout, orc: OrcTables, ip: U64, signal: Mask) -> tuple[I32, list[str], dict[int, str]]:
    """Function of each address, the functions' names, and each address with its offset."""
    # A call that never returns is the last instruction of its function: what is behind it belongs to another.
    inside = ip - np.where(signal, 0, 1).astype(np.uint64)
    distinct, back = np.unique(inside, return_inverse=True)
    functions: dict[str, int] = {}
    number = np.zeros(len(distinct), np.int32)
    labels: dict[int, str] = {}
    for i, address in enumerate(distinct.tolist()):
        label = labels[address] = code_name(layout, orc.codes, address)
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
