"""Kernel stacks unwound with the kernel's own ORC tables, many stacks in step (arch/x86/kernel/unwind_orc.c)."""

from __future__ import annotations

from collections.abc import Callable

import drgn
import numpy as np

from inspector.columns import I64, U8, U64, Mask, Table
from inspector.layout.kernel import Layout
from inspector.records import dataclass
from inspector.text import clean_bytes

SIZE = 6
"""Bytes of struct orc_entry, packed, since 4.14."""

_MAX_ENTRIES = 1 << 24
"""More entries than any kernel or module has: a larger number is damage and must not size a buffer."""

_MAX_MODULES = 4096

# Values of sp_reg and bp_reg, whatever the kernel's numbering. Registers that only a few instructions of entry code
# and of prologues keep a stack pointer in are OTHER.
UNDEFINED, PREV_SP, BP, SP, BP_INDIRECT, SP_INDIRECT, OTHER = range(7)

_NUMBERS = {
    5: {0: UNDEFINED, 1: PREV_SP, 4: BP, 5: SP, 8: BP_INDIRECT, 9: SP_INDIRECT},
    3: {0: UNDEFINED, 8: PREV_SP, 4: BP, 3: SP, 10: BP_INDIRECT, 9: SP_INDIRECT},
}
"""The numberings there have been (arch/x86/include/asm/orc_types.h), by the number of the stack pointer."""

# Kinds of frames as `OrcRows.kind` has them, whatever the kernel's numbering.
END, CALL, REGS, REGS_PARTIAL, UNKNOWN = range(5)

_USER_END = np.uint64(1 << 63)

_REGS_SLACK = 1 << 10
"""How far above the beginning of the user's registers a partly saved set of them may begin."""

ReadWords = Callable[[U64], tuple[U64, Mask]]
"""Words at the given addresses, and which of them could be read."""


@dataclass(frozen=True, slots=True)
class OrcRows(Table):
    """What has to be done at each of some instructions to find the caller.

    Attributes:
        sp_offset, bp_offset: int64.
        sp_reg, bp_reg: uint8; UNDEFINED, PREV_SP, BP, SP, BP_INDIRECT, SP_INDIRECT or OTHER.
        kind: uint8; END, CALL, REGS, REGS_PARTIAL or UNKNOWN.
        signal: bool; the caller's address is that of an instruction to be run next, not one behind a call.
    """

    sp_offset: I64
    bp_offset: I64
    sp_reg: U8
    bp_reg: U8
    kind: U8
    signal: Mask


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a kernel writes struct orc_entry.

    Attributes:
        is_old: Before 6.4 the kinds are numbered from 0 for calls, and a bit of its own ends a stack.
        stack_pointer: ORC_REG_SP, which gives away the numbering of registers; 0 when that is not known.
    """

    is_old: bool
    stack_pointer: int


def decode_orc(raw: U8, dialect: Dialect) -> OrcRows:
    """Rows from struct orc_entry as stored.

    Args:
        raw: uint8[n, 6].
        dialect: Of the kernel.
    """
    registers = np.full(16, OTHER, np.uint8)
    for number, meaning in _NUMBERS.get(dialect.stack_pointer, {0: UNDEFINED}).items():
        registers[number] = meaning
    words = np.ascontiguousarray(raw).view(np.dtype("<u2")).reshape(-1, SIZE // 2)
    regs, rest = words[:, 2] & 0xFF, words[:, 2] >> 8
    sp_reg = registers[regs & 15]
    if dialect.is_old:
        kind = np.array([CALL, REGS, REGS_PARTIAL, UNKNOWN], np.uint8)[rest & 3]
        # Without a stack pointer a row either says "end" (bit 2, from 6.3 on bit 3) or is of unknown code.
        kind = np.where(sp_reg == UNDEFINED, np.where((rest >> 2) & 3, END, UNKNOWN), kind).astype(np.uint8)
        signal = (kind == REGS) | (kind == REGS_PARTIAL)
    else:
        kind = np.array([UNKNOWN, END, CALL, REGS, REGS_PARTIAL, UNKNOWN, UNKNOWN, UNKNOWN], np.uint8)[rest & 7]
        signal = (rest & 8) != 0
    return OrcRows(
        sp_offset=np.ascontiguousarray(words[:, 0]).view(np.int16).astype(np.int64),
        bp_offset=np.ascontiguousarray(words[:, 1]).view(np.int16).astype(np.int64),
        sp_reg=sp_reg,
        bp_reg=registers[regs >> 4],
        kind=kind,
        signal=signal,
    )


@dataclass(frozen=True, slots=True)
class Code:
    """A stretch of code and its ORC table.

    Attributes:
        base, end: The code.
        entries, ips, nr: Where its struct orc_entry and their addresses (int32, each relative to its own address) are,
            and how many; 0 for none.
        name: Of the module, "" for the kernel image.
    """

    base: int
    end: int
    entries: int
    ips: int
    nr: int
    name: str = ""


def code_name(layout: Layout, codes: list[Code], address: int) -> str:
    """The symbol that an address lies in, ``name`` or ``name+0x10``; ``[module]`` in a module's code, else ""."""
    label = layout.target.symbol_name(address)
    if label is not None:
        return label
    module = next((c.name for c in codes[1:] if c.base <= address < c.end), "")
    return f"[{module}]" if module else ""


class OrcTables:
    """The ORC tables of the kernel image and of its modules, of which only what is asked for is read.

    Args:
        layout: The kernel's layout.
    """

    def __init__(self, layout: Layout) -> None:
        self._memory = layout.memory
        is_old = _is_old(layout.prog)
        self.codes = all_code(layout, with_orc=is_old is not None)
        """The kernel image first."""
        self._known: dict[int, bytes] = {}
        self.dialect = Dialect(bool(is_old), 0)
        self.dialect = Dialect(bool(is_old), self._stack_pointer(layout))

    def _stack_pointer(self, layout: Layout) -> int:
        """ORC_REG_SP: where a function begins, the caller's frame is 8 above the stack pointer and nowhere else."""
        start = layout.target.symbol("schedule")
        entry = self._find(start) if start is not None else b""
        return entry[4] & 15 if entry[:2] == b"\x08\0" else 0

    def rows(self, ips: U64) -> OrcRows:
        """The row for each address; kind UNKNOWN where there is none or it cannot be read."""
        for ip in set(ips.tolist()) - self._known.keys():
            self._known[ip] = self._find(ip)
        raw = b"".join([self._known[ip] for ip in ips.tolist()])
        return decode_orc(np.frombuffer(raw, np.uint8).reshape(-1, SIZE), self.dialect)

    def saves_registers(self, ips: U64) -> Mask:
        """Which addresses are in entry code behind the place where it saved all registers (struct pt_regs)."""
        at = self.rows(ips - np.uint64(1))
        out: Mask = (at.kind == REGS) & (at.sp_reg == SP)
        return out

    def _find(self, ip: int) -> bytes:
        """The entry as stored that holds from the nearest address at or below (__orc_find())."""
        nothing = bytes(5) + (b"\x03" if self.dialect.is_old else b"\0")
        code = next((c for c in self.codes if c.base <= ip < c.end and 0 < c.nr <= _MAX_ENTRIES), None)
        if code is None:
            return nothing
        low, high = 0, code.nr
        while low < high:
            middle = (low + high) // 2
            place = code.ips + 4 * middle
            data = self._memory.read(place, 4)
            if data is None:
                return nothing
            if place + int.from_bytes(data, "little", signed=True) <= ip:
                low = middle + 1
            else:
                high = middle
        entry = self._memory.read(code.entries + SIZE * (low - 1), SIZE) if low else None
        return nothing if entry is None else bytes(entry)


def _is_old(prog: drgn.Program) -> bool | None:
    """Whether struct orc_entry is of before 6.4; None where there is none, or one this code does not know."""
    try:
        type_ = prog.type("struct orc_entry")
    except LookupError:
        return None
    return bool(type_.has_member("end")) if type_.size == SIZE else None


def all_code(layout: Layout, *, with_orc: bool = False) -> list[Code]:
    """All code there is, the kernel image first; without ORC tables where the kernel has none."""
    symbol = layout.target.symbol
    text, end = symbol("_stext") or symbol("_text"), symbol("_etext")
    if text is None or end is None:
        return []
    places = [symbol(f"__{edge}_orc_unwind{ip}") for ip in ("", "_ip") for edge in ("start", "stop")]
    nr = 0
    if with_orc and all(places):
        entries, entries_end, ips, ips_end = (p or 0 for p in places)
        nr = min((entries_end - entries) // SIZE, (ips_end - ips) // 4)
    return [Code(text, end, places[0] or 0, places[2] or 0, nr), *_modules(layout, with_orc=with_orc)]


def _modules(layout: Layout, *, with_orc: bool) -> list[Code]:
    """The modules' code (kernel/module/main.c, list `modules`; MOD_TEXT is the first kind of memory from 6.4 on)."""
    head = layout.target.symbol("modules")
    if head is None or not layout.has_struct("struct module"):
        return []
    struct = layout.struct("struct module")
    base, size = struct.find("mem[0].base", "core_layout.base"), struct.find("mem[0].size", "core_layout.text_size")
    if base is None or size is None:
        return []
    link, name = struct.field("list").offset, struct.field("name")
    arch = [struct.find(f"arch.{n}") for n in ("orc_unwind", "orc_unwind_ip", "num_orcs")]
    found: list[Code] = []
    at, seen = layout.memory.read_u64(head), {head}
    while at and at not in seen and len(found) < _MAX_MODULES:
        seen.add(at)
        data = layout.memory.read(at - link, struct.size)
        if data is None:
            break
        raw = np.frombuffer(data, np.uint8)[None, :]
        start = int(base.column(raw)[0])
        label = clean_bytes(bytes(raw[0, name.offset : name.offset + name.size]).split(b"\0")[0])
        orc = [int(f.column(raw)[0]) if f is not None and with_orc else 0 for f in arch]
        # Of a module that comes or goes while it is read, or is damaged: no code ends above all addresses.
        end = min(start + int(size.column(raw)[0]), (1 << 64) - 1)
        found.append(Code(start, end, orc[0], orc[1], orc[2], label))
        at = int(struct.field("list.next").column(raw)[0])
    return found


@dataclass(frozen=True, slots=True)
class UnwindState(Table):
    """Where many stacks have been unwound to.

    Attributes:
        ip, sp, bp: uint64; registers of the frame.
        signal: bool; ``ip`` is to be run next, not the return address of a call.
        row: int64; the caller's number for the stack.
    """

    ip: U64
    sp: U64
    bp: U64
    signal: Mask
    row: I64


@dataclass(frozen=True, slots=True)
class UnwindStep:
    """What one step gave.

    Attributes:
        state: The callers' frames, of those stacks that go on.
        ended: Rows (`UnwindState.row`) of stacks whose end was reached: the last frame entered from user space or
            began the thread.
        lost: Rows of stacks that cannot be followed further.
        lost_sp: uint64; how far these were followed: where an interrupt's stack leads back to the interrupted one but
            the caller could not be found, that place on the interrupted one.
        low: uint64[len(state)]; the lowest address in use on the callers' stacks: below ``sp`` where the callee ran on
            a stack of its own, because the function that changed stacks has its own words there (call_on_stack() in
            arch/x86/include/asm/irq_stack.h).
    """

    state: UnwindState
    ended: I64
    lost: I64
    lost_sp: U64
    low: U64


@dataclass(frozen=True)
class RegisterPlaces:
    """Offsets in struct pt_regs."""

    ip: int
    sp: int
    bp: int

    @classmethod
    def of(cls, layout: Layout) -> RegisterPlaces:
        """Those of the kernel."""
        regs = layout.struct("struct pt_regs")
        return cls(*(regs.field(n).offset for n in ("ip", "sp", "bp")))


def step(orc: OrcTables, state: UnwindState, places: RegisterPlaces, words: ReadWords, end: U64) -> UnwindStep:
    """From each frame to its caller's (unwind_next_frame()).

    Args:
        orc: The tables.
        state: The frames.
        places: Of registers that an interrupt or a system call saved.
        words: Reads stacks.
        end: uint64[n]; where the saved registers of user space begin on each stack: a frame that saved its registers
            there or above was entered from there.
    """
    at = orc.rows(state.ip - np.where(state.signal, 0, 1).astype(np.uint64))
    kind, sp_reg, bp_reg = at.kind, at.sp_reg, at.bp_reg
    sp_offset, bp_offset = at.sp_offset.astype(np.uint64), at.bp_offset.astype(np.uint64)
    ended = kind == END
    by_bp = (sp_reg == BP) | (sp_reg == BP_INDIRECT)
    base = np.where(by_bp, state.bp, state.sp)
    indirect = (sp_reg == BP_INDIRECT) | (sp_reg == SP_INDIRECT)
    good = ~ended & np.isin(sp_reg, (BP, SP, BP_INDIRECT, SP_INDIRECT)) & (kind != UNKNOWN)
    cfa = base + np.where(sp_reg == SP_INDIRECT, np.uint64(0), sp_offset)
    led = _deref(cfa, indirect & good, good, words)
    reached = np.where(good & led & indirect, cfa, state.sp)
    good = led
    cfa += np.where(sp_reg == SP_INDIRECT, sp_offset, np.uint64(0))

    is_call, is_regs, is_partial = kind == CALL, kind == REGS, kind == REGS_PARTIAL
    frame = cfa - np.where(is_partial, places.ip, 0).astype(np.uint64)
    ip = np.where(is_call, cfa - np.uint64(8), frame + np.uint64(places.ip))
    outermost = good & ~is_call & (frame >= end) & (frame <= end + np.uint64(_REGS_SLACK))
    ended |= outermost
    good &= ~outermost
    good = _deref(ip, good, good, words)
    sp = np.where(is_call, cfa, frame + np.uint64(places.sp))
    good = _deref(sp, good & ~is_call, good, words)
    bp = np.where(bp_reg == PREV_SP, cfa + bp_offset, state.bp + bp_offset)
    has_bp = (bp_reg == PREV_SP) | (bp_reg == BP)
    bp = np.where(has_bp, bp, np.where(is_regs, frame + np.uint64(places.bp), state.bp))
    good = _deref(bp, good & (has_bp | is_regs), good, words)

    # An interrupt of user space saved its registers, a system call its address: what is above is not the kernel's.
    user = good & ~is_call & (ip < _USER_END)
    ended |= user
    # A stack is left towards higher addresses; only an interrupt's or exception's own stack may lie elsewhere.
    good &= ~user & (ip >= _USER_END) & ((sp > state.sp) | ~is_call | indirect)
    onward = UnwindState(ip, sp, bp, at.signal, state.row).take(good)
    lost = ~good & ~ended
    low = np.where(indirect & (reached < sp), reached, sp)
    return UnwindStep(onward, state.row[ended], state.row[lost], reached[lost], low[good])


def _deref(addresses: U64, wanted: Mask, good: Mask, words: ReadWords) -> Mask:
    """Replace the wanted addresses by the words they point to; which rows are still good."""
    rows = np.flatnonzero(wanted)
    if not len(rows):
        return good
    values, ok = words(addresses[rows])
    addresses[rows] = values
    out = good.copy()
    out[rows[~ok]] = False
    return out
