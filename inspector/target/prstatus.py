"""Registers of each CPU as a dump's NT_PRSTATUS notes have them (struct elf_prstatus, x86-64)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import numpy as np

from inspector.columns import U64, Mask
from inspector.records import dataclass

NT_PRSTATUS = 1
OWNER = b"CORE"

_PID = 32
_REGS = 112
"""Offset of pr_reg (include/linux/elfcore.h); its words are those of struct pt_regs, in that order."""

_BP, _IP, _CS, _FLAGS, _SP, _NR_USED = 4, 16, 17, 18, 19, 20
_NR_REGS = 27
_FIXED = 1 << 1
"""X86_EFLAGS_FIXED: set in the flags of every CPU."""

_PRESENT_USER = 0x5
_UPPER = 0x7FF << 52
_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8"),
    *("rax", "rcx", "rdx", "rsi", "rdi", "orig_rax"),
    *("rip", "cs", "rfl", "rsp", "ss"),
)
"""The first of them, as QEMU calls them (arch/x86/include/asm/user_64.h, struct user_regs_struct)."""
SIZE = _REGS + 8 * _NR_REGS + 8


@dataclass(frozen=True, slots=True)
class Registers:
    """What unwinding a CPU's stack begins with.

    Attributes:
        pid: As the note has it: of the task that ran (kdump), or the CPU's number from 1 (QEMU).
        ip, sp, bp: Registers.
        user: Whether the CPU was in user mode.
    """

    pid: int
    ip: int
    sp: int
    bp: int
    user: bool


def decode(note: bytes) -> Registers | None:
    """The registers of one note; None where it is too short to be one."""
    if len(note) < _REGS + 8 * _NR_USED:
        return None
    (pid,) = struct.unpack_from("<i", note, _PID)
    words = struct.unpack_from(f"<{_NR_USED}Q", note, _REGS)
    return Registers(pid, words[_IP], words[_SP], words[_BP], (words[_CS] & 3) == 3)


def encode(pid: int, registers: Mapping[str, int]) -> bytes:
    """A note with some registers of a CPU, by the names that QEMU gives them; 0 for the others."""
    out = bytearray(SIZE)
    struct.pack_into("<i", out, _PID, pid)
    struct.pack_into(f"<{len(_NAMES)}Q", out, _REGS, *(registers.get(name, 0) for name in _NAMES))
    return bytes(out)


def all_registers(note: bytes) -> U64 | None:
    """The general registers of a note; None where it does not have them all (`stripped` before it kept pointers)."""
    if len(note) < _REGS + 8 * _NR_USED:
        return None
    words = np.frombuffer(note, np.uint64, _NR_USED, _REGS)
    return words if words[_FLAGS] & np.uint64(_FIXED) else None


def maps_for_user(words: U64) -> Mask:
    """Which words may be entries that map a page in user space (arch/x86/include/asm/pgtable_types.h).

    Present and user; above the address nothing but NX.
    """
    return ((words & np.uint64(_PRESENT_USER)) == np.uint64(_PRESENT_USER)) & ((words & np.uint64(_UPPER)) == 0)


def stripped(note: bytes, is_kept: Callable[[int], bool] = lambda _word: False) -> bytes:
    """A note with just what `decode` takes, and of a CPU in user mode not even that: it holds no data of a process.

    Args:
        note: As in the dump.
        is_kept: Which values of other registers stay as well, of a CPU in kernel mode.
    """
    found = decode(note)
    if found is None:
        return bytes(SIZE)
    words = struct.unpack_from(f"<{_NR_USED}Q", note, _REGS)
    pointers = tuple(i for i, word in enumerate(words) if is_kept(word))
    keep = (_CS,) if found.user else (_BP, _IP, _CS, _SP, *pointers)
    out = bytearray(SIZE)
    struct.pack_into("<i", out, _PID, found.pid)
    if not found.user:
        struct.pack_into("<Q", out, _REGS + 8 * _FLAGS, words[_FLAGS] & _FIXED)
    for i in keep:
        struct.pack_into("<Q", out, _REGS + 8 * i, words[i])
    return bytes(out)
