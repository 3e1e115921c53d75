"""One address of one process: every level's entry, the VMA around it, the page behind it, and who else maps that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from inspector.aimed.snapshot import AimedSnapshot, UserPlaces
from inspector.arch.base import Kind
from inspector.columns import U64
from inspector.errors import UsageError
from inspector.folio.look import look_at
from inspector.folio.moving import entry_move
from inspector.hex_json import Hex
from inspector.places.processes import aim_at_mm
from inspector.report import mappings as mapping_view
from inspector.report.explain import Decided
from inspector.report.mappings import MappingRow, bit_words, kind_words, mapping_rows, owner_of
from inspector.report.pages import PageRow, page_rows
from inspector.report.processes import perms
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.report.searched import where_searched
from inspector.snapshot import Search, Snapshot
from inspector.text import counted, grouped
from inspector.walk.lookup import Lookup, LookupEnd, LookupStep, find_vma, look_up, user_end
from inspector.walk.names import vma_names


class Entry(msgspec.Struct, frozen=True):
    """One level of the way down."""

    level: str
    table_pfn: int
    index: int
    entry: Hex | None
    """As stored; null where the table is not in the dump."""
    kind: str
    pfn: int
    """Of the next table, the page, or the page that a non-present entry names; -1 for none."""
    bits: list[str]
    detail: str


class VmaInfo(msgspec.Struct, frozen=True):
    """The VMA that holds the address."""

    address: Hex
    start: Hex
    end: Hex
    perms: str
    name: str


class VaReport(msgspec.Struct, frozen=True):
    """The object that ``va --format json`` prints."""

    schema: Literal["folioscope.va/2"]
    va: Hex
    mm: Hex
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
    """What maps that page, this address included."""
    mapping_rows: int
    searched: Search | None
    """Where those were searched for; null where the address leads to no struct page."""
    gaps: list[str]
    """Why the search does not lead to everything that it should lead to, in sentences."""
    led_here: bool
    """False where the page has a reverse map that does not lead to this address."""
    uffd_move: Decided | None
    """What UFFDIO_MOVE would do with the entry; null where it maps a page of its own, of which explain says it."""


def build_va(s: Snapshot, mm_idx: int, va: int, limit: int | None) -> VaReport:
    """Walk down for one address; who else is there is taken from all page tables.

    Raises:
        UsageError: The address is not a user address.
    """
    found = _look_up(s, mm_idx, va)
    listed, total = mapping_rows(s, found.pfn, 1, limit) if _row(s, found) >= 0 else ([], 0)
    return _report(s, mm_idx, va, found, _Others(s, listed, total, True))


def build_aimed_va(s: Snapshot, number: int, va: int, limit: int | None) -> VaReport:
    """Walk down for one address; who else is there is found by the reverse map of its page.

    Args:
        s: A snapshot of the target.
        number: Pid of a task, or address of an mm_struct.
        va: The address.
        limit: Mappings listed at most; None for all.

    Raises:
        UsageError: There is no such address space, or the address is not a user address.
    """
    mm = aim_at_mm(s, number).mms.addr
    at: U64 = np.array([min(va, (1 << 64) - 1)], np.uint64)
    one = AimedSnapshot(s, mm, places=UserPlaces(mm, at, at + np.uint64(at[0] != np.uint64((1 << 64) - 1))))
    if not len(one.mms):
        raise UsageError("this address space has ended meanwhile", str(number), "The kernel runs on: ask again")
    found = _look_up(one, 0, va)
    if found.pfn < 0 or not s.layout.memmap.valid(np.array([found.pfn], np.int64))[0]:
        return _report(one, 0, va, found, _Others(one, [], 0, True))
    # Where the page has no reverse map, or that does not lead here, this address maps it all the same.
    own, _ = mapping_rows(one, found.pfn, 1, None)
    seen = look_at(s, found.pfn, mms=mm)
    rows, _ = mapping_rows(seen, found.pfn, 1, None)
    more = [r for r in own if (r.mm, r.va) not in {(x.mm, x.va) for x in rows}]
    rows = sorted(rows + more, key=lambda r: (r.pid if r.pid is not None else 1 << 40, r.va))
    return _report(one, 0, va, found, _Others(seen, rows[:limit], len(rows), not more or seen.search == "nothing"))


class _Others(NamedTuple):
    """Who maps the page, and the snapshot that it was found in."""

    s: Snapshot
    listed: list[MappingRow]
    total: int
    led_here: bool


def _look_up(s: Snapshot, mm_idx: int, va: int) -> Lookup:
    end = user_end(s.layout.arch)
    if va >= end:
        raise UsageError("this is not a user address", f"{va:#x}", f"User addresses end at {end - 1:#x}")
    pgd = int(s.mms.pgd_pfn[mm_idx])
    if pgd < 0:
        raise UsageError("this address space has no page tables", f"{int(s.mms.addr[mm_idx]):#x}", "")
    return look_up(s.layout, pgd, va)


def _row(s: Snapshot, found: Lookup) -> int:
    """Row of the page that the address leads to, -1 for none."""
    return s.pages.memmap.row(found.pfn) if found.pfn >= 0 else -1


def _report(s: Snapshot, mm_idx: int, va: int, found: Lookup, others: _Others) -> VaReport:
    mm, pid, comm = owner_of(s, mm_idx)
    vma = find_vma(s.vmas, mm_idx, va)
    row = _row(others.s, found)
    return VaReport(
        "folioscope.va/2",
        va,
        mm,
        pid,
        comm,
        _vma(s, vma) if vma >= 0 else None,
        [_entry(step) for step in found.steps],
        found.end,
        found.pfn,
        page_rows(others.s, np.array([row], np.int64))[0] if row >= 0 else None,
        others.listed,
        others.total,
        others.s.search if row >= 0 else None,
        others.s.gaps if row >= 0 else [],
        others.led_here,
        _move(s, vma, found, others.s if row >= 0 else None),
    )


def _move(s: Snapshot, vma: int, found: Lookup, seen: Snapshot | None) -> Decided | None:
    """UFFDIO_MOVE of an entry that maps nothing, or the zero page."""
    if found.end == "unreadable" or not found.steps or found.steps[-1].entry is None:
        return None
    last = found.steps[-1]
    zero = False
    if last.kind == Kind.LEAF:
        kinds = [] if seen is None else page_rows(seen, np.array([_row(seen, found)], np.int64))
        zero = bool(kinds) and kinds[0].kind in ("zero", "huge zero")
        if not zero:
            return None
    d = entry_move(s, vma, last.kind, last.bits, zero=zero)
    return Decided(d.question, "", d.answer, d.reason, d.source)


def _entry(step: LookupStep) -> Entry:
    kind = "unreadable" if step.entry is None else kind_words(step.kind)
    bits = bit_words(step.bits, invalidated=step.invalidated)
    return Entry(step.level.name, step.table_pfn, step.index, step.entry, kind, step.pfn, bits, step.detail)


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
    facts = [("address", f"{report.va:#x}"), ("process", f"{who}, mm {report.mm:#x}"), ("vma", where)]
    if report.uffd_move is not None:
        d = report.uffd_move
        facts.append(("uffd move", f"{d.answer}: {d.reason} [{d.source}]"))
    yield from render_facts(screen, facts)
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
    if report.searched is not None:
        yield ""
        what = "other mappings of it: " if report.searched == "nothing" else counted(report.mapping_rows, "mapping")
        yield what + where_searched(report.searched, report.gaps)
    if not report.led_here:
        yield screen.paint("yellow", "Its reverse map does not lead to this address.")
    if report.mappings:
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
