"""Both views of a folio's mappings: by an rmap walk, as the kernel does it, and by the page tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from inspector.arch.base import Level
from inspector.columns import I32, rows_of
from inspector.errors import Exit
from inspector.folio.numbers import one_folio, stored_mapcount
from inspector.hex_json import Hex, Wide
from inspector.report import mappings as mapping_view
from inspector.report.mappings import MappingRow, mapping_rows
from inspector.report.pages import FoundPage, PageRow, page_rows, render_place
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.snapshot import Search
from inspector.tables.vmas import vma_rows
from inspector.text import counted, grouped
from inspector.walk.counts import REJECTED
from inspector.walk.linear import linear_index, read_index
from inspector.walk.names import owners_of
from inspector.walk.rmap import ANON, FILE, KSM, Candidates, candidates_of, rmap_kinds
from inspector.walk.rmap_places import CONTENTS, contents_at, ksm_places, why_lost

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

WALKS = {ANON: "anonymous", FILE: "file", KSM: "ksm", 0: "none"}


class SearchedPlace(msgspec.Struct, frozen=True):
    """One place where the rmap walk searches for the folio."""

    mm: Hex
    pid: int | None
    comm: str | None
    vma: Hex
    first: Wide
    """Page offsets that the VMA spans, as its tree is ordered by: first and last."""
    last: Wide
    va: Hex
    page_index: int
    """The folio's page that would show there first."""
    pages: int
    via: Hex
    """The anon_vma_chain, address_space or rmap_item that leads there."""
    entries: int
    """Entries found there that map the folio; 0 is normal: a place where it is not mapped now."""
    level: str | None
    """Of the largest of these entries."""
    contents: dict[str, int]
    """What the pages of the place hold, in pages: "maps it", "other page", "swap entry", "empty" and the like."""


class Orphan(msgspec.Struct, frozen=True):
    """A mapping that the rmap walk does not reach."""

    mapping: MappingRow
    reason: str


class RmapReport(msgspec.Struct, frozen=True):
    """The object that ``rmap --format json`` prints."""

    schema: Literal["folioscope.rmap/3"]
    place: FoundPage
    folio: PageRow
    walk: str
    """Of which kind it is: anonymous, file, ksm or none."""
    steps: dict[str, str]
    """What the walk goes through, in order."""
    places: list[SearchedPlace]
    place_rows: int
    """How many places there are; ``places`` may hold fewer."""
    mappings: list[MappingRow]
    mapping_rows: int
    orphans: list[Orphan]
    by_walk: int
    """Entries found by the rmap walk."""
    by_tables: int
    """Entries found in the page tables that were searched."""
    rejected: int
    """Those of them that may not map the folio, which is free, say: no count has them."""
    searched: Search
    """Which page tables: all, those that the reverse map leads to, or none, for it leads to none."""
    gaps: list[str]
    """Why the search does not lead to everything that it should lead to, in sentences."""
    mapcount: int
    """Mappings that the folio counts itself (folio_mapcount())."""
    agree: bool
    """Whether both views have the same entries. Where not all page tables were searched: whether the walk comes to as
    many mappings as the folio counts."""
    exit_code: int


def build_rmap(s: Snapshot, place: FoundPage, limit: int | None = None) -> RmapReport:
    """Search both ways for the folio that a place lies in.

    Args:
        s: A snapshot of the target, or one that is aimed at the folio (`inspector.folio.look.look_at`): then the page
            tables are those that the walk leads to, and what it found is compared with what the folio counts.
        place: Any page of the folio.
        limit: Places and mappings listed at most; None for all. All are compared.
    """
    head = int(s.pages.head_row[s.pages.memmap.row(place.pfn)])
    head = head if head >= 0 else s.pages.memmap.row(place.pfn)
    heads = np.array([head], np.int32)
    kind = int(rmap_kinds(s, heads)[0])
    found = ksm_places(s, head) if kind == KSM else candidates_of(s, heads)[0] if kind else Candidates.empty()
    places = _places(s, found, head, kind)
    folio = int(s.folio_of_page[head])
    nr = int(s.folios.nr_pages[folio]) if folio >= 0 else 1
    first = int(s.pages.memmap.pfns_of_rows(heads.astype(np.int64))[0])
    listed, _ = mapping_rows(s, first, nr, None)
    mapped = [m for m in listed if m.present and m.entry_class in _FOUND]
    rejected = sum(m.entries for m in mapped if m.entry_class != "normal")
    normal = [m for m in mapped if m.entry_class == "normal"]
    orphans = _orphans(s, normal, places, heads, kind) if kind or _needs_walk(s, head) else []
    by_tables, by_walk = sum(m.entries for m in mapped), sum(p.entries for p in places)
    agree = not orphans and (kind == 0 or by_walk == by_tables)
    proven = s.search == "all page tables"
    mapcount = stored_mapcount(s, one_folio(s, place.pfn, walked=False))
    found_counted = sum(m.entries for m in mapped if m.counted)
    exit_code = Exit.CLEAN if agree else Exit.FINDINGS
    if rejected:
        exit_code = Exit.FINDINGS
    elif agree and not proven and mapcount != found_counted:
        agree = s.search == "nothing"
        exit_code = Exit.INCOMPLETE if mapcount > found_counted else Exit.FINDINGS
    if exit_code is Exit.CLEAN and not (s.missing.complete if proven else s.mappings_whole or s.search == "nothing"):
        exit_code = Exit.INCOMPLETE
    return RmapReport(
        "folioscope.rmap/3",
        place,
        page_rows(s, np.array([head], np.int64))[0],
        WALKS[kind],
        _steps(s, head, kind),
        places[:limit],
        len(places),
        mapped[:limit],
        len(mapped),
        orphans,
        by_walk,
        by_tables,
        rejected,
        s.search,
        s.gaps,
        mapcount,
        agree,
        int(exit_code),
    )


_FOUND = ("normal", *(each.name.lower() for each in REJECTED))
"""Classes of entries that the kernel's walk finds: it compares page frames."""


def _needs_walk(s: Snapshot, head: int) -> bool:
    """Whether a page that no rmap walk starts from must have one: memory of processes or files, not of a driver."""
    flags = s.pages.flags[head : head + 1]
    return bool(s.pages.mapping[head] == 0 and any(s.layout.flags.test(flags, n)[0] for n in ("swapbacked", "lru")))


def _places(s: Snapshot, c: Candidates, head: int, kind: int) -> list[SearchedPlace]:
    found, base = contents_at(s, c, head), s.vmas.pgoff if kind == FILE else s.vmas.anon_pgoff
    vmas, nr_pages = s.vmas.take(c.vma_idx), s.vmas.nr_pages[c.vma_idx]
    levels = {0: None, **{int(level): level.name for level in Level}}
    columns = zip(
        owners_of(s, vmas.mm_idx),
        vmas.addr.tolist(),
        base[c.vma_idx].tolist(),
        nr_pages.tolist(),
        c.va.tolist(),
        c.page.tolist(),
        c.nr.tolist(),
        c.via.tolist(),
        found.entries.tolist(),
        found.level.tolist(),
        found.pages.tolist(),
        strict=True,
    )
    out = [
        SearchedPlace(
            mm=owner[0],
            pid=owner[1],
            comm=owner[2],
            vma=vma,
            first=first,
            last=first + nr_in_vma - 1,
            va=va,
            page_index=page,
            pages=nr,
            via=via,
            entries=entries,
            level=levels[level],
            contents={word: n for word, n in zip(CONTENTS, contents, strict=True) if n},
        )
        for owner, vma, first, nr_in_vma, va, page, nr, via, entries, level, contents in columns
    ]
    return sorted(out, key=lambda p: (1 << 40 if p.pid is None else p.pid, p.va))


def _orphans(s: Snapshot, mapped: list[MappingRow], places: list[SearchedPlace], heads: I32, kind: int) -> list[Orphan]:
    """Mappings that are at no place that the walk searches, each with the reason."""
    shift = s.layout.arch.page_shift
    by_vma: dict[int, list[SearchedPlace]] = {}
    for place in places:
        by_vma.setdefault(place.vma, []).append(place)
    lost = []
    for m in mapped:
        inside = [((m.va - p.va) >> shift, p) for p in by_vma.get(m.vma or 0, ())]
        if not any(0 <= page < p.pages and p.page_index + page == m.page_index for page, p in inside):
            lost.append(m)
    return [Orphan(m, _reason(s, m, heads, kind)) for m in lost]


def _reason(s: Snapshot, m: MappingRow, heads: I32, kind: int) -> str:
    vma = int(vma_rows(s.vmas, np.array([m.vma or 0], np.uint64))[0])
    offsets = np.zeros(2, np.uint64)
    if vma >= 0:
        where, anon = np.array([vma]), np.array([kind == ANON])
        va = np.array([m.va], np.uint64)
        offsets[0] = linear_index(s.vmas, where, va, anon, s.layout.arch.page_shift)[0]
        index, _ = read_index(s.layout, s.pages, s.folios, heads, s.folio_of_page[heads])
        offsets[1] = index[0] + np.uint64(m.page_index)
    return why_lost(s, kind, int(heads[0]), vma, offsets)


_TAGS = {ANON: "tagged 1: an anon_vma", FILE: "no tag: an address_space", KSM: "tagged 3: a stable node", 0: "neither"}


def _steps(s: Snapshot, head: int, kind: int) -> dict[str, str]:
    """What the walk goes through."""
    mapping = int(s.pages.mapping[head])
    steps = {"folio->mapping": f"{mapping:#x}, {_TAGS[kind]}"}
    if kind in (ANON, FILE):
        heads = np.array([head], np.int32)
        index, known = read_index(s.layout, s.pages, s.folios, heads, s.folio_of_page[heads])
        steps["folio->index"] = f"{int(index[0]):#x}" if known[0] else "not in the dump"
    if kind == ANON:
        table = s.anon_rmap.anon_vmas
        row = int(rows_of(table.addr, np.array([mapping & ~3], np.uint64))[0])
        steps["anon_vma"] = f"{mapping & ~3:#x}" + ("" if row >= 0 else ", which cannot be read")
        if row >= 0:
            held = ", taken for writing" if s.anon_vma_locked[row] else ""
            steps["root, whose rwsem guards the walk"] = f"{int(table.root[row]):#x}{held}"
            nr = int((s.anon_rmap.avcs.tree_idx == row).sum())
            order = "ordered by page offset; those over the folio's offsets are followed"
            steps["interval tree"] = f"{counted(nr, 'chain')}, {order}"
    elif kind == FILE:
        spaces = s.file_rmap.address_spaces
        row = int(rows_of(spaces.addr, np.array([mapping], np.uint64))[0])
        steps["address_space"] = f"{mapping:#x}" + ("" if row >= 0 else ", which no VMA maps")
        if row >= 0:
            nr = int((s.file_rmap.nodes.address_space_idx == row).sum())
            steps["i_mmap, guarded by i_mmap_rwsem"] = f"{counted(nr, 'VMA')}, ordered by vm_pgoff"
    elif kind == KSM:
        row = int(rows_of(s.ksm.nodes.addr, np.array([mapping & ~3], np.uint64))[0])
        items = counted(int(s.ksm.nodes.nr_items[row]), "rmap_item") if row >= 0 else "not among KSM's"
        steps["stable node"] = f"{mapping & ~3:#x}: {items}; each names an anon_vma and an address"
    else:
        steps["rmap walk"] = "none: the word names no anon_vma, file or stable node; normal for pages of drivers"
    return steps


_PLACES = (
    TableColumn("pid", right=True, style="bold"),
    TableColumn("comm"),
    TableColumn("va", right=True),
    TableColumn("pages", right=True),
    TableColumn("page", right=True),
    TableColumn("vma", right=True),
    TableColumn("offsets", right=True),
    TableColumn("via", right=True),
    TableColumn("found there"),
)


def render_rmap(screen: Screen, report: RmapReport) -> Iterator[str]:
    """The report for people."""
    yield from render_place(screen, report.place)
    folio = report.folio
    order = f", order {folio.order}" if folio.order else ""
    yield from render_facts(screen, [("folio", f"pfn {folio.pfn:#x}{order}, {folio.kind}"), *report.steps.items()])
    yield ""
    walked, tables = counted(report.by_walk, "entry", "entries"), counted(report.by_tables, "entry", "entries")
    vmas = counted(report.place_rows, "VMA")
    yield screen.paint("bold", f"rmap walk: {vmas} searched, {walked} found")
    yield from render_table(screen, _PLACES, [_cells(p) for p in report.places])
    yield from _more(report.place_rows - len(report.places))
    yield ""
    where = "" if report.searched == "all page tables" else " at these places"
    yield screen.paint("bold", f"page tables: {tables} found{where}")
    yield from render_table(screen, mapping_view.COLUMNS, [mapping_view.cells(m) for m in report.mappings])
    yield from _more(report.mapping_rows - len(report.mappings))
    yield ""
    for orphan in report.orphans:
        who = f"pid {orphan.mapping.pid} {orphan.mapping.comm}" if orphan.mapping.pid is not None else "no task"
        yield screen.paint("fail", f"orphan mapping: {who} at {orphan.mapping.va:#x}: {orphan.reason}")
    if report.rejected:
        words = f"Found: {counted(report.rejected, *mapping_view.NOT_ALLOWED)}: the folio is {folio.kind}."
        yield screen.paint("fail", words)
    if report.searched != "all page tables":
        yield from _unproven(screen, report)
    elif not report.agree:
        yield screen.paint("fail", f"The views differ: {walked} by the rmap walk, {tables} by the page tables.")
    elif report.walk == "none":
        yield "No rmap walk possible: folio->mapping names nothing."
    else:
        yield f"Both views agree: {tables}."


def _unproven(screen: Screen, report: RmapReport) -> Iterator[str]:
    """What the walk found beside what the folio counts, and what it leaves open."""
    counts, found = counted(report.mapcount, "mapping"), report.by_tables
    for gap in report.gaps if report.walk != "none" else ():
        yield screen.paint("yellow", f"The walk is incomplete: {gap}.")
    if report.walk == "none":
        first = f"No rmap walk possible: folio->mapping names nothing. The folio counts {counts}."
    elif report.agree:
        first = f"The folio counts {counts}: the walk finds {'it' if report.mapcount == 1 else 'all of them'}."
    elif report.exit_code == Exit.FINDINGS:
        first = screen.paint("fail", f"The folio counts {counts}, but the walk finds {found}.")
    else:
        words = f"The folio counts {counts}, but the walk finds {found}: it misses a mapping, or the count is too high."
        first = screen.paint("yellow", words)
    yield f"{first} Other page tables were not searched; --all does."


def _more(more: int) -> Iterator[str]:
    if more > 0:
        yield f"... and {grouped(more)} more; --limit 0 lists all"


def _cells(p: SearchedPlace) -> tuple[str, ...]:
    pid = "" if p.pid is None else str(p.pid)
    where = f"{p.va:#x}", str(p.pages), f"+{p.page_index}", f"{p.vma:#x}", f"{p.first:#x}-{p.last:#x}", f"{p.via:#x}"
    return pid, p.comm or "", *where, found_text(p)


_ONE = {"other page": "holds another page"}
_MANY = {
    "other page": "hold another page",
    "swap entry": "hold a swap entry",
    "migration entry": "hold a migration entry",
    "other entry": "hold another entry",
    "empty": "are empty",
}
"""What pages of a place hold that do not map the folio."""


def contents_text(p: SearchedPlace) -> str:
    """What a place holds beside the folio: for one page in a word, for more of them how many hold what."""
    rest = {word: n for word, n in p.contents.items() if word != "maps it"}
    if p.pages == 1:
        return ", ".join(_ONE.get(word, word) for word in rest)
    return ", ".join(f"{n} {_MANY[word]}" if n > 1 else f"1 {_single(_MANY[word])}" for word, n in rest.items())


def _single(words: str) -> str:
    return words.replace("hold ", "holds ").replace("are ", "is ")


def found_text(p: SearchedPlace) -> str:
    """What was found at a place."""
    rest = contents_text(p)
    if not p.entries:
        return f"not mapped here: {rest}"
    maps = p.contents.get("maps it", 0)
    here = f"{p.level} maps it" if p.pages == 1 else f"{counted(maps, 'page')} mapped by {p.level}"
    return f"{here}, {rest}" if rest else here
