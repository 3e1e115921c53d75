"""Every task's stack, unwound without debug information, is what drgn unwinds with DWARF on the same dump."""

from __future__ import annotations

from itertools import takewhile

import drgn
import numpy as np
import pytest

from inspector.snapshot import Snapshot
from inspector.tables.stacks import How, StackState
from inspector.target.target import open_core
from tests.fixtures import KERNELS
from tests.guests import dump_path

_KERNEL_CODE = 0xFFFF_FFFF_8000_0000
"""Where the kernel's image and its modules begin (Documentation/arch/x86/x86_64/mm.rst)."""


def by_dwarf(prog: drgn.Program, pid: int) -> list[int]:
    """Return addresses inside the kernel; functions inlined into one another are one frame, as they are one call."""
    out: list[int] = []
    for frame in prog.stack_trace(pid):
        try:
            pc = frame.pc
        except LookupError:
            continue
        if pc >> 63 and (not out or out[-1] != pc):
            out.append(pc)
    return out


@pytest.mark.guest
@pytest.mark.parametrize("kind", ["rest", "busy"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_stacks_are_those_of_drgn(kernel: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = dump_path(kernel, kind)
    s = Snapshot(open_core(str(path), types="btf"))
    prog = open_core(str(path), [str(path.parent / "vmlinux")]).prog
    frames, tasks, stacks = s.stacks.frames, s.tasks, s.stacks
    compared, gone, astray, wrong = 0, 0, [], []
    for row in range(len(tasks)):
        if stacks.state[row] == StackState.NONE:
            # The dead keep a saved stack pointer; what drgn unwinds there is the stack's next user.
            gone += 1
            continue
        compared += 1
        own = frames.task_idx == row
        mine, theirs = frames.ip[own].tolist(), by_dwarf(prog, int(tasks.pid[row]))
        code = list(takewhile(lambda pc: pc >= _KERNEL_CODE, theirs))
        if len(code) < len(theirs):
            # Interrupted in a thunk (arch/x86/lib/retpoline.S), which has no CFI: drgn follows the frame pointer into
            # data from there, where we only guess, and say so.
            mine, theirs = frames.ip[own & (frames.how != How.SCAN)].tolist(), code
            astray.append(row)
        if mine != theirs:
            wrong.append(f"pid {tasks.pid[row]}: {[stacks.places[i] for i in mine]} but {[*map(hex, theirs)]}")
    with capsys.disabled():
        print(f"\n  {kernel} {kind}: {compared} stacks compared, {len(wrong)} differ, {gone} tasks without a stack")
    assert len(astray) <= 2
    assert compared > 100
    assert wrong == []
    known = np.delete(stacks.state, astray)
    assert np.isin(known, (StackState.UNWOUND, StackState.USER, StackState.NONE)).all()
