"""Whose stack a CPU is on, and what an interrupt on a stack of its own interrupted: registers and words planted."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from inspector.snapshot import Snapshot
from inspector.tables.stacks import How, StackState, stack_words
from inspector.target.prstatus import SIZE
from tests.faults.overlay import KERNELS, Patch, core_path, opened, plant, put, sound, word

KERNEL_CS, USER_CS = 0x10, 0x33


@pytest.fixture(params=KERNELS)
def path(request: pytest.FixtureRequest) -> str:
    return core_path("fixture", request.param)


def note(ip: int, sp: int, cs: int = KERNEL_CS, bp: int = 0) -> bytes:
    """Of a CPU with these registers."""
    regs = [0] * 27
    regs[4], regs[16], regs[17], regs[19] = bp, ip, cs, sp
    return (bytes(112) + struct.pack("<27Q", *regs) + bytes(8))[:SIZE]


def sleepers(s: Snapshot) -> tuple[int, int]:
    """Rows of two tasks that sleep in system calls."""
    deep = np.bincount(s.stacks.frames.task_idx, minlength=len(s.tasks)) > 5
    rows = np.flatnonzero(deep & (s.tasks.mm != 0) & (s.stacks.state == StackState.UNWOUND) & ~s.tasks.on_cpu)
    return int(rows[0]), int(rows[1])


def functions(s: Snapshot, row: int) -> list[str]:
    """Of a task, the innermost first."""
    mine = s.stacks.frames.task_idx == row
    return [s.stacks.functions[f] for f in s.stacks.frames.function[mine].tolist()]


def running(path: str, registers: list[bytes], rows: list[int], *patches: Patch) -> Snapshot:
    """The dump with these registers, and tasks that have on_cpu set, on CPU 0."""
    target, s = opened(path), sound(path)
    task = s.layout.struct("struct task_struct")
    cpu = task.field("thread_info.cpu", "cpu")
    for row in rows:
        plant(target, put(s, int(s.tasks.addr[row]) + task.field("on_cpu").offset, 1, 4))
        plant(target, put(s, int(s.tasks.addr[row]) + cpu.offset, 0, 4))
    for patch in patches:
        plant(target, patch)
    return Snapshot(replace(target, prstatus=tuple(registers)))


def frame(s: Snapshot, row: int, depth: int) -> tuple[int, int]:
    """ip and sp of a frame."""
    at = int(np.flatnonzero(s.stacks.frames.task_idx == row)[depth])
    return int(s.stacks.frames.ip[at]), int(s.stacks.frames.sp[at])


def spare_page(s: Snapshot) -> int:
    """Address in the direct map of a page that nothing else reads: behind all RAM, to be a stack of its own."""
    return s.layout.memory.direct_map_base + (1 << 40)


def test_inside_a_switch_the_stack_pointer_says_whose_registers_they_are(path: str) -> None:
    s = sound(path)
    previous, following = sleepers(s)
    ip, sp = frame(s, previous, 0)
    saved = s.layout.struct("struct inactive_task_frame").field("bp").offset
    bp = word(s, int(s.tasks.sp[previous]) + saved)
    # Both have on_cpu set; rq->curr and the CPU of both are those of the next task already.
    now = running(path, [note(ip, sp, bp=bp)], [previous, following])
    assert functions(now, previous) == functions(s, previous)
    assert functions(now, following) == functions(s, following)
    assert now.stacks.running[[previous, following]].tolist() == [True, False]
    assert now.stacks.incomplete == 0


def test_what_an_exception_on_its_own_stack_interrupted_is_followed_through_the_saved_registers(path: str) -> None:
    s = sound(path)
    row, _ = sleepers(s)
    ip, sp = frame(s, row, 1)
    page = spare_page(s)
    pushed = b"".join(struct.pack("<Q", word) for word in (ip, KERNEL_CS, 0x2, sp, 0))
    stack = bytes(4096 - len(pushed)) + pushed
    # Registers in code that no unwinding table covers, on the exception's stack (a panic in an NMI).
    now = running(path, [note(1 << 63, page + 0x800)], [row], Patch(page, stack))
    # The CPU pushes no rbp: what hangs on it is searched for.
    assert functions(now, row)[1:4] == functions(s, row)[1:4]
    assert now.stacks.frames.how[now.stacks.frames.task_idx == row].tolist()[:2] == [How.REGISTERS, How.ORC]
    assert now.stacks.incomplete == 0


def test_a_task_behind_an_exception_that_cannot_be_followed_is_unknown(path: str) -> None:
    s = sound(path)
    row, _ = sleepers(s)
    page = spare_page(s)
    now = running(path, [note(1 << 63, page + 0x800)], [row], Patch(page, bytes(4096)))
    assert now.stacks.state[row] == StackState.INTERRUPTED
    assert now.stacks.incomplete == 1
    assert len(stack_words(now.layout, now.stacks, row)[0]) == 0


def test_an_exception_that_just_came_from_user_space_holds_nothing(path: str) -> None:
    s = sound(path)
    row, _ = sleepers(s)
    area = 0xFFFFFE0000000000
    words = b"".join(struct.pack("<Q", word) for word in (0x401000, USER_CS, 0x2, 0x7FFF0000, 0x2B))
    entry = s.layout.target.symbol("asm_exc_page_fault")
    assert entry is not None
    # The error code lies below what the CPU pushed.
    now = running(path, [note(entry, area + 0x1FD0)], [row], Patch(area + 0x1FD0, bytes(8) + words))
    assert now.stacks.state[row] == StackState.USER
    assert now.stacks.incomplete == 0


def test_the_random_part_of_a_system_calls_frame_is_left_out(path: str) -> None:
    s = sound(path)
    row, _ = sleepers(s)
    mine = np.flatnonzero(s.stacks.frames.task_idx == row)
    at = next(i for i in mine.tolist() if s.stacks.functions[s.stacks.frames.function[i]] == "do_syscall_64")
    addresses, _ = stack_words(s.layout, s.stacks, row)
    inside = (addresses >= s.stacks.frames.sp[at]) & (addresses < s.stacks.frames.sp[at + 1])
    assert not inside.any()
    assert (addresses < s.stacks.frames.sp[at]).any()
