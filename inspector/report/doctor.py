"""What this machine can inspect, and how to get what is missing. Files are opened for reading only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Literal

import msgspec

from inspector.errors import FolioscopeError
from inspector.loops import is_compiled
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.target.corefile import examine_core
from inspector.text import clean


class Ability(msgspec.Struct, frozen=True):
    """One thing that the inspector makes use of."""

    name: str
    state: Literal["yes", "no", "optional"]
    """Whether it is there; "optional": it is not, and nothing but speed or detail depends on it."""
    found: str
    """What was found, in words."""
    todo: str
    """How to get it; empty where it is there."""


class DoctorReport(msgspec.Struct, frozen=True):
    """The object that ``doctor --format json`` prints."""

    schema: Literal["folioscope.doctor/1"]
    release: str
    """Of the running kernel."""
    live: bool
    """Whether the running kernel can be inspected."""
    abilities: list[Ability]


_KCORE, _BTF, _LOCKDOWN, _PTRACE = (
    "proc/kcore",
    "sys/kernel/btf/vmlinux",
    "sys/kernel/security/lockdown",
    "proc/sys/kernel/yama/ptrace_scope",
)

_DEBUG_FILES = ("usr/lib/debug/boot/vmlinux-{}", "usr/lib/debug/lib/modules/{}/vmlinux", "lib/modules/{}/build/vmlinux")
"""Where distributions put a kernel's vmlinux with DWARF, as drgn looks for it."""


def build_doctor_report(root: Path = Path("/"), release: str = "") -> DoctorReport:
    """Try everything.

    Args:
        root: Where /proc, /sys and the file system of the machine are.
        release: Of the kernel; the running one's when not given.
    """
    release = release or os.uname().release
    live = [_kcore(root), _lockdown(root), _btf(root), _symbols(root)]
    rest = [_debug_info(root, release), _ptrace(root), _dumps(), _loops()]
    return DoctorReport("folioscope.doctor/1", release, all(a.state != "no" for a in live), live + rest)


def _kcore(root: Path) -> Ability:
    path, name = root / _KCORE, "memory of the running kernel"
    if not path.exists():
        return Ability(
            name, "no", "there is no /proc/kcore", "It needs a kernel with CONFIG_PROC_KCORE, outside a container"
        )
    reason = _refusal(path)
    if reason:
        return Ability(name, "no", f"/proc/kcore cannot be opened ({reason})", "Run as root (CAP_SYS_RAWIO)")
    return Ability(name, "yes", "/proc/kcore can be read", "")


def _lockdown(root: Path) -> Ability:
    name = "lockdown"
    text = _text(root / _LOCKDOWN)
    if not text:
        return Ability(name, "yes", "the kernel has none", "")
    chosen = text.partition("[")[2].partition("]")[0] or text.strip()
    if chosen == "confidentiality":
        return Ability(name, "no", "confidentiality: even root may not read", "Boot without lockdown=confidentiality")
    return Ability(name, "yes", f"{chosen}: memory may be read", "")


def _btf(root: Path) -> Ability:
    name = "types in the kernel (BTF)"
    if (root / _BTF).exists():
        return Ability(name, "yes", "/sys/kernel/btf/vmlinux", "")
    return Ability(
        name, "no", "the kernel has no BTF", "Give its vmlinux with -s, or use one with CONFIG_DEBUG_INFO_BTF"
    )


def _symbols(root: Path) -> Ability:
    name = "symbols in the kernel (kallsyms)"
    if not (root / "proc/kallsyms").exists():
        return Ability(name, "no", "the kernel has no kallsyms", "Give its vmlinux with -s")
    path = root / _KCORE
    if not path.exists() or _refusal(path):
        return Ability(name, "optional", "not known before the kernel's memory can be read", "See the first line")
    try:
        info = examine_core(str(path)).vmcoreinfo
    except FolioscopeError as error:
        return Ability(name, "no", f"VMCOREINFO cannot be read ({error.what})", "Give its vmlinux with -s")
    if b"SYMBOL(kallsyms_names)" in info:
        return Ability(name, "yes", "VMCOREINFO says where they are", "")
    return Ability(name, "no", "VMCOREINFO does not say where (before 6.0)", "Give its vmlinux with -s")


def _debug_info(root: Path, release: str) -> Ability:
    name = "debug information (DWARF)"
    for place in _DEBUG_FILES:
        if (root / place.format(release)).exists():
            return Ability(name, "yes", f"/{place.format(release)}", "")
    if os.environ.get("DEBUGINFOD_URLS"):
        return Ability(name, "yes", "debuginfod is asked (DEBUGINFOD_URLS)", "")
    todo = "Install the kernel's debug package (-dbg, -debuginfo), or give its vmlinux with -s"
    return Ability(name, "optional", f"none for {release}: types come from BTF", todo)


def _ptrace(root: Path) -> Ability:
    name = "QEMU guests at full speed"
    scope = _text(root / _PTRACE).strip() or "0"
    if os.geteuid() == 0 or scope == "0":
        return Ability(name, "yes", "memory of a QEMU of this user can be read directly", "")
    todo = "Run as root, or set kernel.yama.ptrace_scope to 0; without it guests are read through QMP, which is slow"
    return Ability(name, "optional", f"kernel.yama.ptrace_scope is {scope}", todo)


def _dumps() -> Ability:
    name = "dumps"
    if getattr(import_module("_drgn"), "_with_libkdumpfile", False):
        return Ability(name, "yes", "ELF, and kdump by drgn's libkdumpfile", "")
    return Ability(name, "no", "ELF only: this drgn has no libkdumpfile", "Install drgn's wheel: pip install drgn")


def _loops() -> Ability:
    name = "compiled loops"
    if is_compiled():
        return Ability(name, "yes", "in use", "")
    return Ability(name, "optional", "NumPy does their work, slower", "Install with a C compiler, or from a wheel")


def _refusal(path: Path) -> str:
    """Why a file cannot be opened; "" where it can."""
    try:
        path.open("rb").close()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


def render_doctor(screen: Screen, report: DoctorReport) -> Iterator[str]:
    """The table for people, and what to do below it."""
    can = "can be inspected" if report.live else "cannot be inspected"
    yield f"Linux {clean(report.release)}: the running kernel {can}"
    yield ""
    columns = (TableColumn("WHAT"), TableColumn("THERE"), TableColumn("FOUND"))
    yield from render_table(screen, columns, [(a.name, a.state, clean(a.found)) for a in report.abilities])
    todo = [a for a in report.abilities if a.todo]
    if todo:
        yield ""
    for ability in todo:
        yield from screen.wrap(f"{ability.name}: {clean(ability.todo)}.")
