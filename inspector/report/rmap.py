"""Both views of a folio's mappings: by the kernel's own road, and by the page tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.report import mappings as mapping_view
from inspector.report.mappings import MappingRow, mapping_rows, owner_of
from inspector.report.pages import PageRow, Place, page_rows, render_place
from inspector.report.screen import Column, Screen, render_facts, render_table
from inspector.snapshot import Snapshot
from inspector.tables.anon_vmas import rows_of
from inspector.walk.rmap import ANON, FILE, KSM, Candidates, candidates_of, entries_at

ROADS = {ANON: "anonymous", FILE: "file", KSM: "ksm", 0: "none"}


class RoadPlace(msgspec.Struct, frozen=True):
    """One place where the kernel's road looks for the folio."""

    mm: int
    pid: int | None
    comm: str | None
    vma: int
    va: int
    page_index: int
    """The folio's page that would show there first."""
    pages: int
    via: int
    """The anon_vma_chain, address_space or rmap_item that leads there."""
    entries: int
    """Entries found there that map the folio; 0 is normal: a place where it is not mapped now."""


class Orphan(msgspec.Struct, frozen=True):
    """A mapping that the road does not lead to."""

    mapping: MappingRow
    reason: str


class RmapReport(msgspec.Struct, frozen=True):
    """The object that ``rmap --format json`` prints."""

    schema: Literal["folioscope.rmap/1"]
    place: Place
    folio: PageRow
    road: str
    """anonymous, file, ksm or none."""
    steps: dict[str, str]
    """What the road goes through, in order."""
    places: list[RoadPlace]
    mappings: list[MappingRow]
    orphans: list[Orphan]
    by_road: int
    by_tables: int
    agree: bool


def build_rmap(s: Snapshot, place: Place) -> RmapReport:
    """Walk both roads for the folio that a place lies in."""
    head = int(s.pages.head_row[s.pages.memmap.row(place.pfn)])
    head = head if head >= 0 else s.pages.memmap.row(place.pfn)
    heads = np.array([head], np.int32)
    found, kinds = candidates_of(s, heads)
    kind = int(kinds[0])
    places = _ksm_places(s, head) if kind == KSM else _places(s, found, heads)
    folio = int(s.folio_of_page[head])
    nr = int(s.folios.nr_pages[folio]) if folio >= 0 else 1
    first = int(s.pages.memmap.pfns_of_rows(heads.astype(np.int64))[0])
    listed, _ = mapping_rows(s, first, nr, None)
    mapped = [m for m in listed if m.present and m.sort == "normal"]
    orphans = [] if kind == 0 else [Orphan(m, why) for m in mapped if (why := _lost(s, m, places, kind))]
    by_tables = sum(m.entries for m in mapped)
    by_road = sum(p.entries for p in places)
    return RmapReport(
        "folioscope.rmap/1",
        place,
        page_rows(s, np.array([head], np.int64))[0],
        ROADS[kind],
        _steps(s, head, kind),
        places,
        mapped,
        orphans,
        by_road,
        by_tables,
        kind == 0 or (by_road == by_tables and not orphans),
    )


def _places(s: Snapshot, c: Candidates, heads: np.ndarray[tuple[int], np.dtype[np.int32]]) -> list[RoadPlace]:
    entries = entries_at(s, c, heads)
    out = []
    for i in range(len(c)):
        vma = int(c.vma_idx[i])
        mm, pid, comm = owner_of(s, int(s.vmas.mm_idx[vma]))
        numbers = int(c.va[i]), int(c.page[i]), int(c.nr[i]), int(c.via[i]), int(entries[i])
        out.append(RoadPlace(mm, pid, comm, int(s.vmas.addr[vma]), *numbers))
    return sorted(out, key=lambda p: (p.pid or 1 << 40, p.va))


def _ksm_places(s: Snapshot, head: int) -> list[RoadPlace]:
    """Entries of a KSM page that an rmap_item of its stable node leads to (rmap_walk_ksm())."""
    e = s.ksm_entries
    out = []
    for i in np.flatnonzero((e.head_row == head) & e.reached).tolist():
        vma = int(e.vma_idx[i])
        mm, pid, comm = owner_of(s, int(s.vmas.mm_idx[vma]))
        via = int(s.ksm.items.addr[e.item_idx[i]])
        out.append(RoadPlace(mm, pid, comm, int(s.vmas.addr[vma]), int(e.va[i]), 0, 1, via, 1))
    return sorted(out, key=lambda p: (p.pid or 1 << 40, p.va))


def _lost(s: Snapshot, m: MappingRow, places: list[RoadPlace], kind: int) -> str:
    """Why the road does not lead to a mapping; "" when it does."""
    size = 1 << s.layout.arch.page_shift
    here = [p for p in places if p.mm == m.mm and p.va <= m.va < p.va + p.pages * size and p.entries]
    if here:
        return ""
    if m.vma is None:
        return "it lies in no VMA"
    if any(p.vma == m.vma for p in places):
        return "the folio's index leads to another address of its VMA"
    trees = {ANON: "the folio's anon_vma", FILE: "the folio's file", KSM: "the stable node's anon_vmas"}
    return f"its VMA is not in the tree of {trees[kind]}, or not at the folio's offset"


def _steps(s: Snapshot, head: int, kind: int) -> dict[str, str]:
    """What the road goes through."""
    mapping = int(s.pages.mapping[head])
    steps = {"folio->mapping": f"{mapping:#x}"}
    if kind == ANON:
        table = s.anon_rmap.anon_vmas
        row = int(rows_of(table.addr, np.array([mapping & ~3], np.uint64))[0])
        steps["anon_vma"] = f"{mapping & ~3:#x}" + ("" if row >= 0 else ", which cannot be read")
        if row >= 0:
            held = ", taken for writing" if s.anon_vma_locked[row] else ""
            steps["root, whose rwsem guards the walk"] = f"{int(table.root[row]):#x}{held}"
            nr = int((s.anon_rmap.avcs.tree_idx == row).sum())
            steps["interval tree"] = f"{nr} chains, ordered by page offset; those over the folio's offsets are followed"
    elif kind == FILE:
        spaces = s.file_rmap.spaces
        row = int(rows_of(spaces.addr, np.array([mapping], np.uint64))[0])
        steps["address_space"] = f"{mapping:#x}" + ("" if row >= 0 else ", which no VMA maps")
        if row >= 0:
            nr = int((s.file_rmap.nodes.space_idx == row).sum())
            steps["i_mmap, guarded by i_mmap_rwsem"] = f"{nr} VMAs, ordered by vm_pgoff"
    elif kind == KSM:
        steps["stable node"] = f"{mapping & ~3:#x}: each rmap_item on its list names an anon_vma and an address"
    else:
        steps["road"] = "none: the page belongs to the kernel or a driver, and rmap does not find its mappings"
    return steps


_PLACES = (
    Column("pid", right=True, style="bold"),
    Column("comm"),
    Column("va", right=True),
    Column("pages", right=True),
    Column("page", right=True),
    Column("vma", right=True),
    Column("via", right=True),
    Column("found there"),
)


def render_rmap(screen: Screen, report: RmapReport) -> Iterator[str]:
    """The report for people."""
    yield from render_place(screen, report.place)
    folio = report.folio
    order = f", order {folio.order}" if folio.order else ""
    yield from render_facts(screen, [("folio", f"pfn {folio.pfn:#x}{order}, {folio.kind}"), *report.steps.items()])
    yield ""
    yield screen.paint("bold", f"by the kernel's road: {len(report.places)} places, {report.by_road} mappings")
    yield from render_table(screen, _PLACES, [_cells(p) for p in report.places])
    yield ""
    yield screen.paint("bold", f"by the page tables: {report.by_tables} mappings")
    yield from render_table(screen, mapping_view.COLUMNS, [mapping_view.cells(m) for m in report.mappings])
    yield ""
    for orphan in report.orphans:
        who = f"pid {orphan.mapping.pid} {orphan.mapping.comm} at {orphan.mapping.va:#x}"
        yield screen.paint("fail", f"orphan mapping: {who}: {orphan.reason}")
    if report.road == "none":
        yield "There is no road to compare with."
    elif report.agree:
        yield f"Both views agree: {report.by_tables} mappings."
    else:
        yield screen.paint("fail", f"The views differ: {report.by_road} by the road, {report.by_tables} by the tables.")


def _cells(p: RoadPlace) -> tuple[str, ...]:
    what = f"{p.entries} mapped" if p.entries else "not mapped here"
    pid = "" if p.pid is None else str(p.pid)
    return pid, p.comm or "", f"{p.va:#x}", str(p.pages), f"+{p.page_index}", f"{p.vma:#x}", f"{p.via:#x}", what
