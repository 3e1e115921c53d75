"""Which kernel a target is of, on what machine, and how it ended; what is not known is None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Protocol, TypeVar

import drgn
import numpy as np

from inspector.errors import TargetError
from inspector.records import dataclass

_T = TypeVar("_T")

_UTS_FIELD = 65
"""Bytes of each field of struct new_utsname (include/uapi/linux/utsname.h, __NEW_UTS_LEN + 1)."""

_MAX_CPUS = 8192
_MAX_LOG_BITS = 26
_PANIC = b"Kernel panic - not syncing: "


class Opened(Protocol):
    """What is needed of a target to identify its kernel."""

    @property
    def prog(self) -> drgn.Program:
        """The program."""

    @property
    def vmcoreinfo(self) -> Mapping[str, str]:
        """VMCOREINFO."""

    def symbol(self, name: str) -> int | None:
        """Address of a symbol."""


@dataclass(frozen=True)
class Identity:
    """Facts about one kernel, raw as the kernel wrote them.

    Attributes:
        release: As ``uname -r`` prints it.
        version: As ``uname -v`` prints it.
        build_id: Build id of vmlinux in hex.
        architecture: As ``uname -m`` prints it.
        page_size: Bytes of a base page.
        paging_levels: Levels of the page tables.
        memory_bytes: RAM that the page allocator was given.
        nr_cpus: CPUs that were online.
        hostname: Of the initial UTS namespace.
        stopped_at: Seconds since 1970: when it crashed, else what its clock last showed.
        uptime: Seconds since boot, sleep included.
        panic_message: What panic() printed; empty when the log holds no panic.
        got_from: For each fact, in words, where it was read.
    """

    release: str | None = None
    version: str | None = None
    build_id: str | None = None
    architecture: str | None = None
    page_size: int | None = None
    paging_levels: int | None = None
    memory_bytes: int | None = None
    nr_cpus: int | None = None
    hostname: str | None = None
    stopped_at: int | None = None
    uptime: int | None = None
    panic_message: str | None = None
    got_from: dict[str, str] = field(default_factory=dict)


def identify(target: Opened) -> Identity:
    """Find out all that can be found out; nothing raises."""
    info, got = target.vmcoreinfo, {}
    facts: dict[str, str | int | None] = {}

    def learn(name: str, source: str, value: str | int | None) -> None:
        if value is not None and facts.get(name) is None:
            facts[name], got[name] = value, source

    uts = _try(lambda: _utsname(target)) or {}
    learn("release", "VMCOREINFO", info.get("OSRELEASE"))
    for name in ("release", "version", "architecture", "hostname"):
        learn(name, "init_uts_ns", uts.get(name))
    learn("build_id", "VMCOREINFO", info.get("BUILD-ID"))
    learn("page_size", "VMCOREINFO", _try(lambda: int(info["PAGESIZE"])))
    learn("paging_levels", "VMCOREINFO", _try(lambda: 4 + int(info["NUMBER(pgtable_l5_enabled)"])))
    pages = _try(lambda: _word(target, "_totalram_pages"))
    if pages and facts.get("page_size"):
        learn("memory_bytes", "_totalram_pages", pages * int(facts["page_size"] or 0))
    learn("nr_cpus", "__cpu_online_mask", _try(lambda: _online_cpus(target)))
    learn("stopped_at", "VMCOREINFO", _try(lambda: int(info["CRASHTIME"])))
    clock = _try(lambda: _clock(target)) or {}
    learn("stopped_at", "timekeeper", clock.get("now"))
    learn("uptime", "timekeeper", clock.get("uptime"))
    learn("panic_message", "log buffer", _try(lambda: _panic_message(target)))
    return Identity(**facts, got_from=got)  # type: ignore[arg-type]  # one dict for strings and numbers


def _try(read: Callable[[], _T]) -> _T | None:
    """What ``read`` gives, None when the dump lacks something it needs."""
    try:
        return read()
    except (drgn.FaultError, drgn.ObjectAbsentError, LookupError, AttributeError, ValueError, TypeError, TargetError):
        return None
    except OSError:
        # The guest is gone.
        return None


def _address(target: Opened, *names: str) -> int:
    for name in names:
        address = target.symbol(name)
        if address is not None:
            return address
    raise LookupError(names)


def _word(target: Opened, name: str) -> int:
    return int(target.prog.read_u64(_address(target, name)))


def _utsname(target: Opened) -> dict[str, str]:
    """What is in struct new_utsname of the initial namespace (init/version.c, init_uts_ns)."""
    offset = int(target.vmcoreinfo.get("OFFSET(uts_namespace.name)", "0"))
    raw = target.prog.read(_address(target, "init_uts_ns") + offset, 6 * _UTS_FIELD)
    fields = [raw[i : i + _UTS_FIELD].split(b"\0", 1)[0].decode("utf-8", "replace") for i in range(0, len(raw), 65)]
    return dict(zip(("system", "hostname", "release", "version", "architecture", "domain"), fields, strict=True))


def _online_cpus(target: Opened) -> int:
    bits = min(int(target.prog.read_u32(_address(target, "nr_cpu_ids"))), _MAX_CPUS)
    mask = target.prog.read(_address(target, "__cpu_online_mask"), -(-bits // 64) * 8)
    return int.from_bytes(mask, "little").bit_count()


def _clock(target: Opened) -> dict[str, int]:
    """Wall clock and time since boot as of the last tick (kernel/time/timekeeping.c, struct timekeeper)."""
    prog = target.prog
    timekeeper = prog.type("struct timekeeper")
    try:
        # 6.13 named the struct around it; 6.17 made an array of them, the core's first.
        skip = drgn.offsetof(prog.type("struct tk_data"), "timekeeper")
    except LookupError:
        # Before, a nameless struct: a sequence counter, then the timekeeper at its own alignment.
        skip = 8
    at = _address(target, "timekeeper_data", "tk_core") + skip
    base = drgn.Object(prog, timekeeper, address=at)
    seconds = base.ktime_sec.value_()
    return {"now": int(base.xtime_sec.value_()), "uptime": int(seconds + base.offs_boot.value_() // 10**9)}


def _panic_message(target: Opened) -> str:
    """The last panic message in the log buffer (kernel/printk/printk_ringbuffer.c; kernel/panic.c, panic())."""
    prog = target.prog
    ring_type = prog.type("struct printk_ringbuffer")
    ring = drgn.Object(prog, ring_type, address=_word(target, "prb"))
    bits, count_bits = int(ring.text_data_ring.size_bits), int(ring.desc_ring.count_bits)
    if not 0 < bits <= _MAX_LOG_BITS or not 0 < count_bits <= bits:
        return ""
    text: bytes = prog.read(int(ring.text_data_ring.data), 1 << bits)
    # The words come again inside "---[ end Kernel panic": the message is where a record begins with them.
    found = text.rfind(_PANIC)
    while found >= 0:
        length = _record_length(prog, ring, 1 << count_bits, found, (1 << bits) - 1)
        if length > len(_PANIC):
            return text[found + len(_PANIC) : found + length].decode("utf-8", "replace").rstrip("\n")
        found = text.rfind(_PANIC, 0, found)
    return ""


def _record_length(prog: drgn.Program, ring: drgn.Object, count: int, at: int, mask: int) -> int:
    """Bytes of the record whose text begins at ``at``; 0 when no descriptor points there."""
    desc, info = prog.type("struct prb_desc"), prog.type("struct printk_info")
    begin = drgn.offsetof(desc, "text_blk_lpos.begin")
    size, step = drgn.sizeof(desc), drgn.sizeof(info)
    raw = np.frombuffer(prog.read(int(ring.desc_ring.descs), count * size), np.uint8).reshape(count, size)
    # Each block begins with the id of its descriptor, one word; the text follows.
    starts = (raw[:, begin : begin + 8].copy().view("<u8")[:, 0] & np.uint64(mask)) + np.uint64(8)
    rows = np.flatnonzero(starts == np.uint64(at))
    if not len(rows):
        return 0
    length = int(ring.desc_ring.infos) + int(rows[0]) * step + drgn.offsetof(info, "text_len")
    return int(prog.read_u16(length))
