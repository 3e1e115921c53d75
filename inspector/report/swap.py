"""Swap devices with what their slots add up to, or one slot and every entry that refers to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.aimed.slot import SlotSnapshot
from inspector.errors import UsageError
from inspector.hex_json import Hex, Wide
from inspector.places.named import SLOT, taking
from inspector.places.pages import slot_named
from inspector.report.screen import Screen, TableColumn, render_facts, render_table, wrong_words
from inspector.snapshot import Snapshot
from inspector.subjects import SWAP_DEVICE
from inspector.text import clean_bytes, counted
from inspector.walk.swap_view import find_slot, slot_exists, slot_users, swap_devices


class SwapDevice(msgspec.Struct, frozen=True):
    """One device; sizes as /proc/swaps shows them, the rest in slots."""

    type: int
    path: str
    partition: bool
    priority: int
    size_kb: Wide
    used_kb: Wide
    used: int
    stored_inuse_pages: Wide
    cached: int
    shared: int
    shmem: int
    pte_refs: int
    shmem_refs: int
    whole: bool
    wrong: list[str]
    """What the rules find about it: which of its values are not as they must be."""


class SlotUser(msgspec.Struct, frozen=True):
    """One reference to a slot: an entry of a page table, or a page of a shmem file."""

    kind: Literal["page table", "shmem"]
    mm: Hex | None
    pid: int | None
    comm: str | None
    va: Hex | None
    entry: Hex | None
    exclusive: bool
    address_space: Hex | None
    ino: Wide | None
    index: Wide | None


class SwapSlot(msgspec.Struct, frozen=True):
    """One slot."""

    type: int
    offset: Wide
    raw: Hex
    count: int
    """References as stored, continuations added; -1 when unknown."""
    bad: bool
    cached: bool
    cache_pfn: int | None
    users: list[SlotUser]


class SlotSearch(msgspec.Struct, frozen=True):
    """Where the references to a slot were searched for."""

    searched: Literal["all page tables", "as swapoff does"]
    """The second: the mms on the kernel's list of those that may have swap entries, and the shmem files on its list."""
    mms: int
    """Address spaces whose page tables were searched."""
    of_mms: int
    """Address spaces that were to be searched."""
    files: int
    """shmem files searched."""
    ended_at_count: bool
    """Whether the search ended because it had found as many as the slot counts."""


class SwapReport(msgspec.Struct, frozen=True):
    """The object that ``swap --format json`` prints."""

    schema: Literal["folioscope.swap/2"]
    devices: list[SwapDevice]
    """Empty where one slot was asked for and not all page tables were searched."""
    devices_unreadable: int
    """Devices of which something is not in the dump."""
    slot: SwapSlot | None
    search: SlotSearch | None


def build_swap(s: Snapshot, asked: str | None) -> SwapReport:
    """The devices, and one slot when it is asked for.

    Raises:
        UsageError: The slot cannot be understood, or no device in use has it.
    """
    if asked is None:
        return SwapReport("folioscope.swap/2", _devices(s), s.swap.unreadable, None, None)
    search = SlotSearch("all page tables", len(s.mms), len(s.mms), len(s.files.address_spaces), ended_at_count=False)
    with taking(s, asked, SLOT):
        slot = _slot(s, *slot_named(s, asked), asked)
    return SwapReport("folioscope.swap/2", _devices(s), s.swap.unreadable, slot, search)


def build_slot(s: Snapshot, asked: str) -> tuple[SwapReport, bool]:
    """One slot and what refers to it, searched for where swapoff would.

    Returns:
        The report, and whether all that was searched could be read.

    Raises:
        UsageError: The slot cannot be understood, or no device in use has it.
    """
    with taking(s, asked, SLOT):
        type_, at = slot_named(s, asked)
        one = SlotSnapshot(s, type_, at)
        slot = _slot(one, type_, at, asked)
    search = SlotSearch(
        "as swapoff does", one.mms_searched, len(one.mms_listed), one.files_searched, ended_at_count=one.all_found
    )
    return SwapReport("folioscope.swap/2", [], 0, slot, search), one.missing.complete


def _devices(s: Snapshot) -> list[SwapDevice]:
    d, marks = swap_devices(s), {}
    if ((d.used != d.inuse_pages) & d.whole).any():
        from inspector.check.marks import marks_of  # noqa: PLC0415  (all rules, which sound values do not need)

        marks = marks_of(s, SWAP_DEVICE)
    rows = np.flatnonzero(s.swap.devices.in_use).tolist()
    return [
        SwapDevice(
            type=int(d.type_[i]),
            path=str(d.path[i]),
            partition=bool(d.is_partition[i]),
            priority=int(d.prio[i]),
            size_kb=int(d.size_kb[i]),
            used_kb=int(d.used_kb[i]),
            used=int(d.used[i]),
            stored_inuse_pages=int(d.inuse_pages[i]),
            cached=int(d.cached[i]),
            shared=int(d.shared[i]),
            shmem=int(d.shmem[i]),
            pte_refs=int(d.pte_refs[i]),
            shmem_refs=int(d.shmem_refs[i]),
            whole=bool(d.whole[i]),
            wrong=marks.get(rows[i], []),
        )
        for i in range(len(d))
    ]


def _slot(s: Snapshot, type_: int, at: int, asked: str) -> SwapSlot:
    if type_ >= 1 << 6 or at >= 1 << 50 or not slot_exists(s.swap, type_, at):
        error = UsageError("no swap device in use has that slot", asked, "folioscope swap lists the devices")
        raise s.missing.unless_lost(error, "swap devices")
    row = find_slot(s.swap, type_, at)
    if row < 0:
        return SwapSlot(type_, at, 0, 0, False, False, None, [])
    slots, users = s.swap.slots, slot_users(s, row)
    pfn = int(slots.cache_pfn[row])
    made = []
    for i in range(len(users)):
        if users.is_shmem[i]:
            file = int(users.space[i]), int(users.ino[i]), int(users.index[i])
            made.append(SlotUser("shmem", None, None, None, None, None, bool(users.exclusive[i]), *file))
            continue
        pid = int(users.pid[i])
        who = int(users.mm[i]), pid if pid >= 0 else None, clean_bytes(bytes(users.comm[i])) if pid >= 0 else None
        entry = int(users.va[i]), int(users.entry[i]), bool(users.exclusive[i])
        made.append(SlotUser("page table", *who, *entry, None, None, None))
    return SwapSlot(
        type_, at, int(slots.raw[row]), int(slots.count[row]), bool(slots.is_bad[row]), bool(slots.has_cache[row]),
        pfn if pfn >= 0 else None, made,
    )  # fmt: skip


_DEVICES = (
    TableColumn("type", right=True, style="bold"),
    TableColumn("device"),
    *(
        TableColumn(name, right=True)
        for name in ("priority", "size KiB", "used KiB", "slots used", "stored", "cached", "shared", "shmem", "PTEs")
    ),
    TableColumn("", style="yellow"),
    TableColumn("", style="fail"),
)
_USERS = (
    TableColumn("pid", right=True, style="bold"),
    TableColumn("comm"),
    TableColumn("va", right=True),
    TableColumn("entry", right=True),
    TableColumn("shmem inode", right=True),
    TableColumn("index", right=True),
    TableColumn("attributes"),
)


def render_swap(screen: Screen, report: SwapReport) -> Iterator[str]:
    """The report for people."""
    if report.slot is None:
        if not report.devices:
            lost = report.devices_unreadable
            yield f"{counted(lost, 'swap device')} not in the dump" if lost else "no swap device is in use"
            return
        yield from render_table(screen, _DEVICES, [_device_cells(d) for d in report.devices])
        return
    slot = report.slot
    cache = f"pfn {slot.cache_pfn:#x}" if slot.cache_pfn is not None else "marked" if slot.cached else "no"
    facts = [
        ("slot", f"{slot.type}:{slot.offset:#x}" + (" (bad)" if slot.bad else "")),
        ("count", f"{slot.count} (raw {slot.raw:#x})"),
        ("in the swap cache", cache),
    ]
    if report.search is not None:
        facts.append(("searched", _where(report.search, len(slot.users))))
    yield from render_facts(screen, facts)
    yield ""
    yield from render_table(screen, _USERS, [_user_cells(u) for u in slot.users])


def _where(search: SlotSearch, found: int) -> str:
    if search.searched == "all page tables":
        return "all page tables and shmem files"
    words = f"page tables of {counted(search.mms, 'address space')} of the {search.of_mms} that may have swap entries"
    if search.files:
        words += f", {counted(search.files, 'shmem file')}"
    ended = f"; ended with the {counted(found, 'reference')} that the slot counts" if search.ended_at_count else ""
    return f"{words}{ended} (--all searches all page tables)"


def _device_cells(d: SwapDevice) -> tuple[str, ...]:
    numbers = d.priority, d.size_kb, d.used_kb, d.used, d.stored_inuse_pages, d.cached, d.shared, d.shmem, d.pte_refs
    return (
        str(d.type),
        d.path,
        *map(str, numbers),
        "" if d.whole else "not all slots could be read",
        wrong_words(d.wrong),
    )


def _user_cells(u: SlotUser) -> tuple[str, ...]:
    def show(value: int | None, form: str = "#x") -> str:
        return "" if value is None else format(value, form)

    exclusive = "exclusive" if u.exclusive else ""
    return show(u.pid, "d"), u.comm or "", show(u.va), show(u.entry), show(u.ino, "d"), show(u.index), exclusive
