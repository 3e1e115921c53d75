"""MMU notifiers of each process: which driver is called back when page tables change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from inspector.hex_json import Hex, Wide
from inspector.lib.orc import code_name
from inspector.report.mappings import owner_of
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.snapshot import Snapshot
from inspector.text import counted


class Subscription(msgspec.Struct, frozen=True):
    """One notifier."""

    pid: int | None
    comm: str | None
    mm: Hex
    address: Hex
    """struct mmu_notifier, or struct mmu_interval_notifier."""
    ops: Hex
    """Its table of callbacks."""
    callback: str
    """The first of them: a function's name, [a module's name] where it is a module's, "" where it is no code."""
    users: int
    start: Hex | None
    """Of the interval; null where it is called for every change in the mm."""
    end: Hex | None


class NotifiedMm(msgspec.Struct, frozen=True):
    """What the notifiers of one mm share."""

    pid: int | None
    comm: str | None
    mm: Hex
    address: Hex
    """struct mmu_notifier_subscriptions."""
    notifiers: int
    active: Wide
    """Changes of page tables that have begun and not ended; counted only where intervals are subscribed to."""
    sequence: Wide
    has_intervals: bool


class NotifiersReport(msgspec.Struct, frozen=True):
    """The object that ``notifiers --format json`` prints."""

    schema: Literal["folioscope.notifiers/1"]
    known: bool
    """False when this kernel is built without MMU notifiers."""
    notifiers: list[Subscription]
    mms: list[NotifiedMm]
    """Those that have or once had a notifier."""
    unreadable: int


def build_notifiers_report(s: Snapshot) -> NotifiersReport:
    """Every notifier, and the mms that they watch."""
    n, subs, mms = s.notifiers, s.notifiers.subscriptions, s.notifiers.mms
    listed = []
    for row in range(len(subs)):
        of = int(mms.mm_idx[subs.of[row]])
        mm, pid, comm = owner_of(s, of)
        end, callback = int(subs.end[row]), int(subs.callback[row])
        listed.append(
            Subscription(
                pid,
                comm,
                mm,
                int(subs.addr[row]),
                int(subs.ops[row]),
                code_name(s.layout, n.codes, callback) if callback else "",
                int(subs.users[row]),
                int(subs.start[row]) if end else None,
                end or None,
            )  # fmt: skip
        )
    watched = []
    for row in range(len(mms)):
        mm, pid, comm = owner_of(s, int(mms.mm_idx[row]))
        nr = int((subs.of == row).sum())
        watched.append(
            NotifiedMm(
                pid,
                comm,
                mm,
                int(mms.addr[row]),
                nr,
                int(mms.active[row]),
                int(mms.sequence[row]),
                bool(mms.has_tree[row]),
            )  # fmt: skip
        )
    return NotifiersReport("folioscope.notifiers/1", n.is_known, listed, watched, n.unreadable)


_NOTIFIERS = (
    TableColumn("pid", right=True),
    TableColumn("comm"),
    TableColumn("notifier", right=True),
    TableColumn("of"),
    TableColumn("callback"),
    TableColumn("users", right=True),
)
_MMS = (
    TableColumn("pid", right=True),
    TableColumn("comm"),
    TableColumn("subscriptions", right=True),
    TableColumn("notifiers", right=True),
    TableColumn("active changes", right=True),
    TableColumn("sequence", right=True),
)


def render_notifiers(screen: Screen, report: NotifiersReport) -> Iterator[str]:
    """The report for people."""
    if not report.known:
        yield "this kernel has no MMU notifiers"
        return
    if report.notifiers:
        yield from render_table(screen, _NOTIFIERS, [_notifier(n) for n in report.notifiers])
        yield ""
    if report.mms:
        yield from render_table(screen, _MMS, [_mm(m) for m in report.mms])
        yield ""
    words = f"{counted(len(report.notifiers), 'notifier')} of {counted(len(report.mms), 'address space')}"
    yield from screen.wrap(words + (f"; not in the dump: {report.unreadable}" if report.unreadable else ""))


def _notifier(n: Subscription) -> tuple[str, ...]:
    where = "the whole mm" if n.start is None or n.end is None else f"{n.start:#x}-{n.end:#x}"
    return "" if n.pid is None else str(n.pid), n.comm or "", f"{n.address:#x}", where, n.callback, str(n.users)


def _mm(m: NotifiedMm) -> tuple[str, ...]:
    pid = "" if m.pid is None else str(m.pid)
    return pid, m.comm or "", f"{m.address:#x}", str(m.notifiers), str(m.active), str(m.sequence)
