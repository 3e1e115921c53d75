"""Stacks unwound by ORC entries of each generation, and registers taken from a dump's notes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from inspector.capture.kdump_writer import DumpHeader, PageSpool, write_kdump
from inspector.columns import U64, Mask
from inspector.lib.orc import (
    BP,
    CALL,
    END,
    PREV_SP,
    REGS,
    SP,
    SP_INDIRECT,
    UNKNOWN,
    Dialect,
    OrcRows,
    RegisterPlaces,
    UnwindState,
    decode_orc,
    step,
)
from inspector.target.corefile import examine_core
from inspector.target.prstatus import SIZE, decode, stripped

pytestmark = pytest.mark.each_kernel
"""Each is about one dialect, which no other test knows."""

DIALECTS = {"6.1": Dialect(True, 5), "6.12": Dialect(False, 5), "7.3": Dialect(False, 3)}
TEXT = 0xFFFFFFFF81000000
STACK = 0xFFFFC90000010000
PLACES = RegisterPlaces(ip=128, sp=152, bp=32)


def entry(kernel: str, what: str) -> bytes:
    """A struct orc_entry as a kernel writes it: ``what`` is a call frame, one with a pushed rbp, or an end."""
    stack_pointer, caller = (3, 8) if kernel == "7.3" else (5, 1)
    call, end = (0, 4) if kernel == "6.1" else (2, 1)
    regs = call + 1
    return {
        "call": struct.pack("<hhBB", 8, 0, stack_pointer, call),
        "pushed": struct.pack("<hhBB", 16, -16, stack_pointer | caller << 4, call),
        "by rbp": struct.pack("<hhBB", 16, -16, 4 | caller << 4, call),
        "indirect": struct.pack("<hhBB", 24, 0, 9, call),
        "regs": struct.pack("<hhBB", 0, 0, stack_pointer, regs if kernel == "6.1" else regs | 8),
        "end": struct.pack("<hhBB", 0, 0, 0, end),
        "hole": bytes(6),
    }[what]


@pytest.mark.parametrize("kernel", DIALECTS)
def test_entries_of_every_generation_mean_the_same(kernel: str) -> None:
    names = ("call", "pushed", "by rbp", "indirect", "regs", "end", "hole")
    raw = np.frombuffer(b"".join(entry(kernel, n) for n in names), np.uint8).reshape(-1, 6)
    rows = decode_orc(raw, DIALECTS[kernel])
    assert rows.kind.tolist() == [CALL, CALL, CALL, CALL, REGS, END, UNKNOWN]
    assert rows.sp_reg[:5].tolist() == [SP, SP, BP, SP_INDIRECT, SP]
    assert rows.bp_reg[1:3].tolist() == [PREV_SP, PREV_SP]
    assert rows.sp_offset[:4].tolist() == [8, 16, 16, 24]
    assert rows.bp_offset[1] == -16
    assert rows.signal.tolist() == [False] * 4 + [True] + [False] * 2


class Tables:
    """One kind of entry for each 256 bytes of code from TEXT on."""

    def __init__(self, kernel: str, kinds: list[str]) -> None:
        self.kernel, self.kinds = kernel, kinds

    def rows(self, ips: U64) -> OrcRows:
        at = (ips - np.uint64(TEXT)) // np.uint64(256)
        raw = b"".join(entry(self.kernel, self.kinds[i]) for i in at.astype(int).tolist())
        return decode_orc(np.frombuffer(raw, np.uint8).reshape(-1, 6), DIALECTS[self.kernel])


class Stack:
    """Words of one stack; others cannot be read."""

    def __init__(self, *words: int) -> None:
        self.known = {STACK + 8 * i: word for i, word in enumerate(words)}

    def __call__(self, addresses: U64) -> tuple[U64, Mask]:
        found = [self.known.get(a) for a in addresses.tolist()]
        return np.array([f or 0 for f in found], np.uint64), np.array([f is not None for f in found])


def unwind(kernel: str, kinds: list[str], stack: Stack, end: int) -> tuple[list[int], str]:
    """Addresses met, and how it ended."""
    ip, sp, bp = (np.array([value], np.uint64) for value in (TEXT + 1, STACK, 0))
    state = UnwindState(ip, sp, bp, np.array([True]), np.array([7], np.int64))
    met = []
    for _ in range(16):
        met.append(int(state.ip[0]))
        found = step(Tables(kernel, kinds), state, PLACES, stack, np.array([end], np.uint64))  # type: ignore[arg-type]
        if len(found.ended):
            return met, "ended"
        if len(found.lost):
            assert found.lost.tolist() == [7]
            return met, f"lost at {int(found.lost_sp[0]) - STACK:#x}"
        state = found.state
    return met, "never"


@pytest.mark.parametrize("kernel", DIALECTS)
def test_a_stack_is_followed_to_the_entry_from_user_space(kernel: str) -> None:
    saved_bp = STACK + 0x28
    # innermost: nothing pushed; then one that pushed rbp; then one that keeps its frame in rbp; then the entry code.
    stack = Stack(TEXT + 0x110, saved_bp, TEXT + 0x210, 0, 0, 1, TEXT + 0x310)
    end = STACK + 0x38
    met, how = unwind(kernel, ["call", "pushed", "by rbp", "regs"], stack, end)
    assert ([hex(m - TEXT) for m in met], how) == (["0x1", "0x110", "0x210", "0x310"], "ended")


@pytest.mark.parametrize("kernel", DIALECTS)
def test_an_interrupt_leads_on_to_what_it_interrupted(kernel: str) -> None:
    regs = [0] * 21
    regs[PLACES.ip // 8], regs[PLACES.sp // 8] = TEXT + 0x200, STACK + 8 * 22
    stack = Stack(TEXT + 0x101, *regs, TEXT + 0x301)
    met, how = unwind(kernel, ["call", "regs", "call", "end"], stack, STACK + 0x1000)
    assert ([hex(m - TEXT) for m in met], how) == (["0x1", "0x101", "0x200", "0x301"], "ended")


@pytest.mark.parametrize("kernel", DIALECTS)
def test_code_that_nobody_knows_and_stacks_that_are_missing_end_it(kernel: str) -> None:
    assert unwind(kernel, ["call", "hole"], Stack(TEXT + 0x110), STACK + 0x1000)[1] == "lost at 0x8"
    assert unwind(kernel, ["call"], Stack(), STACK + 0x1000)[1] == "lost at 0x0"


@pytest.mark.parametrize("kernel", DIALECTS)
def test_a_stack_that_leads_back_into_itself_ends(kernel: str) -> None:
    stack = Stack(TEXT + 0x110, STACK - 8, TEXT + 0x110)
    assert unwind(kernel, ["call", "by rbp"], stack, STACK + 0x1000)[1].startswith("lost")


def note(ip: int, sp: int, cs: int) -> bytes:
    regs = [0xDEAD] * 27
    regs[4], regs[16], regs[17], regs[19] = 0xB, ip, cs, sp
    return bytes(32) + struct.pack("<i", 3) + bytes(76) + struct.pack("<27Q", *regs) + bytes(8)


def test_registers_come_from_the_note_and_nothing_else_stays_in_a_capture() -> None:
    kernel, user = note(TEXT, STACK, 0x10), note(0x401000, 0x7FFF0000, 0x33)
    assert len(kernel) == SIZE
    found = decode(kernel)
    assert found is not None
    assert (found.pid, found.ip, found.sp, found.bp, found.user) == (3, TEXT, STACK, 0xB, False)
    assert decode(stripped(kernel)) == found
    assert struct.pack("<Q", 0xDEAD) not in stripped(kernel)
    again = decode(stripped(user))
    assert again is not None
    assert (again.user, again.ip, again.sp) == (True, 0, 0)
    assert decode(b"short") is None
    assert decode(stripped(b"short")) is not None


def test_a_written_dump_has_the_registers(tmp_path: Path) -> None:
    spool = PageSpool(tmp_path, 4096)
    spool.add(0, bytes(4096))
    notes = (note(TEXT, STACK, 0x10), note(TEXT + 1, STACK + 0x4000, 0x10))
    header = DumpHeader("x86_64", "1", "1", 4096, 0, 0, b"OSRELEASE=1\n", 2, notes)
    with (tmp_path / "core").open("wb") as file:
        write_kdump(file, header, spool, np.array([0], np.int64), [(0, 1)])
    assert examine_core(str(tmp_path / "core")).prstatus == notes
