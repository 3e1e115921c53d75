"""One address of one process: every level's entry, the VMA around it, the page behind it, and who else maps that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.arch.base import Kind
from inspector.errors import UsageError
from inspector.report import mappings as mapping_view
from inspector.report.mappings import MappingRow, bit_words, kind_words, mapping_rows, owner_of
from inspector.report.pages import PageRow, page_rows
from inspector.report.processes import perms
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.snapshot import Snapshot
from inspector.text import grouped
from inspector.walk.lookup import LookupEnd, LookupStep, find_vma, look_up, user_end
from inspector.walk.names import vma_names


class Entry(msgspec.Struct, frozen=True):
    """One level of the way down."""

    level: str
    table_pfn: int
    index: int
    entry: int | None
    """As stored; null where the table is not in the dump."""
    kind: str
    pfn: int
    """Of the next table, the page, or the page that a non-present entry names; -1 for none."""
    bits: list[str]
    detail: str


class VmaInfo(msgspec.Struct, frozen=True):
    """The VMA that holds the address."""

    address: int
    start: int
    end: int
    perms: str
    name: str


class VaReport(msgspec.Struct, frozen=True):
    """The object that ``va --format json`` prints."""

    schema: Literal["folioscope.va/1"]
    va: int
    mm: int
    pid: int | None
    comm: str | None
    vma: VmaInfo | None
    entries: list[Entry]
    ends: LookupEnd
    """How the way down ends."""
    pfn: int
    """The page frame that the address maps to; -1 for none."""
    page: PageRow | None
    mappings: list[MappingRow]
    """Everything that maps that page, this address included."""
    mapping_rows: int


def build_va(s: Snapshot, mm_idx: int, va: int, limit: int | None) -> VaReport:
    """Walk down for one address and look who else is there.

    Raises:
        UsageError: The address is not a user address.
    """
    end = user_end(s.layout.arch)
    if va >= end:
        raise UsageError("this is not a user address", f"{va:#x}", f"User addresses end at {end - 1:#x}")
    pgd = int(s.mms.pgd_pfn[mm_idx])
    if pgd < 0:
        raise UsageError("this address space has no page tables", f"{int(s.mms.addr[mm_idx]):#x}", "")
    found = look_up(s.layout, pgd, va)
    mm, pid, comm = owner_of(s, mm_idx)
    vma = find_vma(s.vmas, mm_idx, va)
    row = s.pages.memmap.row(found.pfn) if found.pfn >= 0 else -1
    listed, total = mapping_rows(s, found.pfn, 1, limit) if row >= 0 else ([], 0)
    return VaReport(
        "folioscope.va/1",
        va,
        mm,
        pid,
        comm,
        _vma(s, vma) if vma >= 0 else None,
        [_entry(step) for step in found.steps],
        found.end,
        found.pfn,
        page_rows(s, np.array([row], np.int64))[0] if row >= 0 else None,
        listed,
        total,
    )


def _entry(step: LookupStep) -> Entry:
    kind = "unreadable" if step.entry is None else kind_words(step.kind)
    return Entry(
        step.level.name, step.table_pfn, step.index, step.entry, kind, step.pfn, bit_words(step.bits), step.detail
    )


def _vma(s: Snapshot, row: int) -> VmaInfo:
    vmas = s.vmas
    name = vma_names(s.layout, s.mms, vmas, np.array([row], np.int64))[0]
    return VmaInfo(int(vmas.addr[row]), int(vmas.start[row]), int(vmas.end[row]), perms(int(vmas.flags[row])), name)


_ENTRIES = (
    TableColumn("level"),
    TableColumn("table pfn", right=True),
    TableColumn("index", right=True),
    TableColumn("entry", right=True),
    TableColumn("what it is"),
)


def render_va(screen: Screen, report: VaReport) -> Iterator[str]:
    """The report for people."""
    who = f"pid {report.pid} {report.comm}" if report.pid is not None else "no task"
    vma = report.vma
    where = (
        f"{vma.start:#x}-{vma.end:#x} {vma.perms} {vma.name}".rstrip() + f" (vma {vma.address:#x})"
        if vma
        else "no VMA contains this address"
    )
    yield from render_facts(
        screen, [("address", f"{report.va:#x}"), ("process", f"{who}, mm {report.mm:#x}"), ("vma", where)]
    )
    yield ""
    rows = [(e.level, f"{e.table_pfn:#x}", str(e.index), _raw(e), _what(e)) for e in report.entries]
    yield from render_table(screen, _ENTRIES, rows)
    page = report.page
    if page is not None:
        yield ""
        part = "" if page.head_pfn == page.pfn else f", page {page.pfn - page.head_pfn} of folio {page.head_pfn:#x}"
        order = f", order {page.order}" if page.order else ""
        yield from render_facts(
            screen,
            [
                ("page", f"pfn {page.pfn:#x} ({page.pfn}), {page.kind}{part}{order}"),
                ("flags", " ".join(page.flags) or "none"),
            ],
        )
    elif report.pfn >= 0:
        yield ""
        yield f"pfn {report.pfn:#x} has no struct page."
    if report.mappings:
        yield ""
        yield from render_table(screen, mapping_view.COLUMNS, [mapping_view.cells(m) for m in report.mappings])
        more = report.mapping_rows - len(report.mappings)
        if more > 0:
            yield f"... and {grouped(more)} more; --limit 0 lists all"


_LEAF, _TABLE, _NONE = kind_words(Kind.LEAF), kind_words(Kind.TABLE), kind_words(Kind.NONE)


def _raw(e: Entry) -> str:
    return "not in the dump" if e.entry is None else f"{e.entry:#018x}"


def _what(e: Entry) -> str:
    if e.kind == "unreadable":
        return ""
    if e.kind == _NONE:
        return "empty"
    if e.kind == _TABLE:
        return f"table at pfn {e.pfn:#x}"
    words = [f"maps pfn {e.pfn:#x}" if e.kind == _LEAF else e.kind]
    if e.kind != _LEAF and e.pfn >= 0:
        words.append(f"for pfn {e.pfn:#x}")
    if e.detail:
        words.append(f"({e.detail})")
    return " ".join(words + e.bits)
