"""userfaultfd's contexts and the memory that each watches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.arch.base import Bit, Kind, Level
from inspector.arch.swapentry import MARKER_UFFD_WP
from inspector.hex_json import Hex
from inspector.report.mappings import owner_of
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.snapshot import Snapshot
from inspector.text import counted

_FEATURES = (
    "wp", "fork", "remap", "remove", "missing-hugetlb", "missing-shmem", "unmap", "sigbus", "thread-id",
    "minor-hugetlb", "minor-shmem", "exact-address", "wp-hugetlb-shmem", "wp-unpopulated", "poison", "wp-async", "move",
    "rwp", "rwp-async",
)  # fmt: skip
"""UFFD_FEATURE_* by bit, include/uapi/linux/userfaultfd.h."""


class UffdVma(msgspec.Struct, frozen=True):
    """One VMA that is registered."""

    address: Hex
    start: Hex
    end: Hex
    modes: list[str]
    """missing, wp; other when it is registered for minor faults or a mode of later kernels alone."""
    protected: int
    """Present entries with userfaultfd's bit, in pages: write-protected, or watched for any access (rwp of 7.x)."""
    markers: int
    """Markers that keep the protection of pages that are not there."""


class UffdContext(msgspec.Struct, frozen=True):
    """One userfaultfd."""

    address: Hex
    mm: Hex
    pid: int | None
    comm: str | None
    features: list[str]
    flags: int
    refcount: int
    released: bool
    changing: bool
    vmas: list[UffdVma]


class UffdReport(msgspec.Struct, frozen=True):
    """The object that ``uffd --format json`` prints."""

    schema: Literal["folioscope.uffd/2"]
    known: bool
    """False when this kernel has no userfaultfd."""
    contexts: list[UffdContext]
    """Those that a VMA is registered with; a userfaultfd without memory is not found."""
    unreadable: int


def build_uffd_report(s: Snapshot) -> UffdReport:
    """Every context with its VMAs and what is write-protected in them."""
    u = s.uffd
    vmas = _vmas(s)
    out = []
    for row in range(len(u.contexts)):
        c = u.contexts
        mm, pid, comm = owner_of(s, int(c.mm_idx[row])) if c.mm_idx[row] >= 0 else (int(c.mm[row]), None, None)
        out.append(
            UffdContext(
                int(c.addr[row]),
                mm,
                pid,
                comm,
                [name for bit, name in enumerate(_FEATURES) if int(c.features[row]) >> bit & 1],
                int(c.flags[row]),
                int(c.refcount[row]),
                bool(c.released[row]),
                bool(c.changing[row]),
                [vmas[int(v)] for v in np.flatnonzero(u.context_of_vma == row)],
            )
        )
    return UffdReport("folioscope.uffd/2", u.known, out, u.unreadable)


def _vmas(s: Snapshot) -> dict[int, UffdVma]:
    m, n, v = s.mappings, s.nonpresent, s.vmas
    rows = np.flatnonzero((s.mappings.bits & Bit.UFFD_WP) != 0)
    rows = rows[m.vma_idx[rows] >= 0]
    shift = {shape.level: shape.shift - s.layout.memmap.page_shift for shape in s.layout.arch.shapes}
    size = np.array([1 << shift[Level(x)] for x in m.level[rows].tolist()], np.int64) * m.nr[rows]
    protected = np.bincount(m.vma_idx[rows], weights=size, minlength=len(v))
    marks = (n.kind == Kind.MARKER) & ((n.swap_offset & np.uint64(MARKER_UFFD_WP)) != 0) & (n.vma_idx >= 0)
    markers = np.bincount(n.vma_idx[marks], minlength=len(v))
    out = {}
    for row in np.flatnonzero(s.uffd.context_of_vma >= 0).tolist():
        flags = int(v.flags[row])
        modes = [name for name, bit in s.uffd.modes.items() if flags & bit]
        out[row] = UffdVma(
            int(v.addr[row]),
            int(v.start[row]),
            int(v.end[row]),
            modes or ["other"],
            int(protected[row]),
            int(markers[row]),
        )
    return out


_COLUMNS = (
    TableColumn("pid", right=True),
    TableColumn("comm"),
    TableColumn("context", right=True),
    TableColumn("range"),
    TableColumn("modes"),
    TableColumn("protected pages", right=True),
    TableColumn("marked pages", right=True),
    TableColumn("features"),
    TableColumn("state"),
)


def render_uffd(screen: Screen, report: UffdReport) -> Iterator[str]:
    """The report for people."""
    if not report.known:
        yield "this kernel has no userfaultfd"
        return
    rows = [_cells(c, v) for c in report.contexts for v in c.vmas]
    yield from render_table(screen, _COLUMNS, rows)
    yield ""
    words = counted(len(report.contexts), "context")
    yield from screen.wrap(words + (f"; not in the dump: {report.unreadable}" if report.unreadable else ""))


def _cells(c: UffdContext, v: UffdVma) -> tuple[str, ...]:
    return (
        "" if c.pid is None else str(c.pid),
        c.comm or "",
        f"{c.address:#x}",
        f"{v.start:#x}-{v.end:#x}",
        ",".join(v.modes),
        str(v.protected or ""),
        str(v.markers or ""),
        ",".join(c.features),
        " ".join(word for word, on in (("released", c.released), ("changing", c.changing)) if on),
    )
