"""One folio in full: what it is, every counter beside its rebuilt value, its pages, and who maps it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np

from inspector.check.run import Progress, prepare
from inspector.errors import Exit
from inspector.report import mappings as mapping_view
from inspector.report.counters import Counter, MmIdSlot, PageRun, folio_counters, mm_id_slots, page_runs
from inspector.report.mappings import MappingRow, mapping_rows
from inspector.report.pages import FoundPage, PageRow, page_rows, render_place
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.report.window import window_on_folio
from inspector.snapshot import Snapshot
from inspector.text import counted, grouped, size


class FolioReport(msgspec.Struct, frozen=True):
    """The object that ``folio --format json`` prints."""

    schema: Literal["folioscope.folio/1"]
    place: FoundPage
    head: PageRow | None
    """The struct page of the head; null when it cannot be read."""
    kind: str
    order: int
    pages: int
    scheme: str | None
    mappings_walked: bool
    """False when only stored values were wanted: nothing is then compared."""
    tables_complete: bool
    """False when page tables are missing: a count can then only be shown to be too low."""
    entire_mappings: int
    """Huge entries that map the folio as a whole."""
    pte_mappings: int
    mms: int
    """Address spaces that map it."""
    counters: list[Counter]
    mm_ids: list[MmIdSlot]
    page_counts: list[PageRun]
    mappings: list[MappingRow]
    mapping_rows: int
    """How many rows of mappings there are; ``mappings`` may hold fewer."""
    exit_code: int


def build_folio(s: Snapshot, place: FoundPage, *, progress: Progress | None, limit: int | None) -> FolioReport:
    """Gather everything about the folio that a page belongs to.

    Args:
        s: A snapshot of the target.
        place: Any page of the folio.
        progress: Told about the walk of all page tables; None when stored values are all that is wanted: then only
            the folio's own struct pages are read.
        limit: Mappings listed at most; None for all.
    """
    if progress is None:
        seen: Snapshot = window_on_folio(s, place.pfn)
        scheme = s.layout.scheme.scheme
    else:
        prepare(s, progress)
        seen, scheme = s, s.scheme
    row = seen.pages.memmap.row(place.pfn)
    head = int(seen.pages.head_row[row])
    at = head if head >= 0 else row
    head_row = page_rows(seen, np.array([at], np.int64))[0]
    folio = int(seen.folio_of_page[row])
    order = int(seen.folios.order[folio]) if folio >= 0 else 0
    nr = 1 << min(order, 20)
    walked = progress is not None
    counters = folio_counters(seen, at, folio, scheme, walked=walked)
    ids = mm_id_slots(seen, folio, scheme, walked=walked)
    runs = page_runs(seen, at, folio, scheme, walked=walked)
    found, total = mapping_rows(seen, head_row.pfn, nr, limit) if walked else ([], 0)
    complete = walked and s.tables_complete
    verdicts = [x.verdict for part in (counters, ids, runs) for x in part]
    return FolioReport(
        schema="folioscope.folio/1",
        place=place,
        head=head_row if head_row.readable else None,
        kind=head_row.kind,
        order=order,
        pages=nr,
        scheme=scheme.name if scheme else None,
        mappings_walked=walked,
        tables_complete=complete,
        entire_mappings=int(seen.counts.entire[folio]) if walked and folio >= 0 else 0,
        pte_mappings=int(seen.counts.page_mappings[at : at + nr].sum()) if walked else 0,
        mms=_nr_mms(seen, folio, head_row.pfn) if walked else 0,
        counters=counters,
        mm_ids=ids,
        page_counts=runs,
        mappings=found,
        mapping_rows=total,
        exit_code=int(_exit(verdicts, readable=head_row.readable, complete=complete or not walked)),
    )


def _nr_mms(s: Snapshot, folio: int, pfn: int) -> int:
    if folio >= 0:
        return int(s.counts.nr_mms[folio])
    return len(np.unique(s.mappings.mm_idx[s.mappings_of(pfn)]))


def _exit(verdicts: Sequence[str], *, readable: bool, complete: bool) -> Exit:
    if "WRONG" in verdicts:
        return Exit.FINDINGS
    return Exit.CLEAN if readable and complete and "not checked" not in verdicts else Exit.INCOMPLETE


_COUNTER_COLUMNS = (
    TableColumn("counter"),
    TableColumn("stored", right=True),
    TableColumn("", right=True),
    TableColumn("expected", right=True),
    TableColumn("verdict"),
    TableColumn(""),
)
_RUN_COLUMNS = (
    TableColumn("page", right=True),
    TableColumn("pages", right=True),
    TableColumn("pfn", right=True),
    TableColumn("mapped", right=True),
    TableColumn("_mapcount", right=True),
    TableColumn("expected", right=True),
    TableColumn("verdict"),
)


def render_folio(screen: Screen, report: FolioReport) -> Iterator[str]:
    """The report for people."""
    yield from render_place(screen, report.place)
    yield ""
    head = report.head
    if head is None:
        yield "The struct page is not in the dump."
        return
    what = f"folio {head.pfn:#x}, order {report.order}: {counted(report.pages, 'page')}, {size(report.pages * 4096)}"
    yield screen.paint("bold", f"{what}, {report.kind}")
    yield from render_facts(
        screen,
        [
            ("flags", " ".join(head.flags) or "none"),
            ("letters", head.letters or "none"),
            ("mapping", f"{head.mapping:#x}"),
            ("mapped", _mapped(report)),
        ],
        "  ",
    )
    yield ""
    yield from _colored(
        screen, render_table(Screen(width=screen.width), _COUNTER_COLUMNS, [_counter_cells(c) for c in report.counters])
    )
    yield from _mm_ids(screen, report)
    yield from _pages(screen, report)
    yield from _mappings(screen, report)


_RELATIONS = {"equal": "=", "at least": ">=", "at most": "<=", "none": ""}


def _counter_cells(c: Counter) -> tuple[str, ...]:
    if c.expected is None:
        return c.name, _number(c.stored), "", "", c.verdict, c.note
    return c.name, _number(c.stored), _RELATIONS[c.relation], _number(c.expected), c.verdict, c.note


def _number(value: int) -> str:
    """Small numbers in decimal; the "mapped as a whole" bit is recognised in hex."""
    return f"{value:#x}" if abs(value) >= 1 << 20 else str(value)


def _mapped(report: FolioReport) -> str:
    if not report.mappings_walked:
        return "not looked at: the page tables were not walked"
    total = report.entire_mappings + report.pte_mappings
    words = (
        f"{counted(total, 'mapping')} ({counted(report.entire_mappings, 'huge entry', 'huge entries')}, "
        f"{counted(report.pte_mappings, 'PTE')}) in {counted(report.mms, 'address space')}, "
        "counted over all page tables"
    )
    return words if report.tables_complete else words + ", of which some are not in the dump"


def _colored(screen: Screen, lines: Iterator[str]) -> Iterator[str]:
    """Verdicts in colour."""
    for line in lines:
        shown = line.replace("WRONG", screen.paint("fail", "WRONG"))
        yield shown.replace("  ok", "  " + screen.paint("green", "ok")) if "WRONG" not in line else shown


def _mm_ids(screen: Screen, report: FolioReport) -> Iterator[str]:
    if not report.mm_ids:
        return
    columns = (
        TableColumn("slot", right=True),
        TableColumn("mm id", right=True),
        TableColumn("count", right=True),
        TableColumn("at most", right=True),
        TableColumn("verdict"),
        TableColumn("pid", right=True),
        TableColumn("comm"),
    )
    rows = [
        (
            str(i.slot),
            str(i.mm_id) if i.mm_id else "free",
            str(i.count_raw),
            "" if i.at_most is None else str(i.at_most),
            i.verdict,
            "" if i.pid is None else str(i.pid),
            i.comm or "",
        )
        for i in report.mm_ids
    ]
    yield ""
    yield from _colored(screen, render_table(Screen(width=screen.width), columns, rows))


def _pages(screen: Screen, report: FolioReport) -> Iterator[str]:
    if not report.page_counts:
        return
    rows = [
        (
            f"+{r.first}",
            str(r.pages),
            f"{r.pfn:#x}",
            "" if r.mapped is None else str(r.mapped),
            str(r.mapcount_raw),
            "" if r.expected_raw is None else str(r.expected_raw),
            r.verdict,
        )
        for r in report.page_counts
    ]
    yield ""
    yield from _colored(screen, render_table(Screen(width=screen.width), _RUN_COLUMNS, rows))


def _mappings(screen: Screen, report: FolioReport) -> Iterator[str]:
    if not report.mappings_walked:
        return
    yield ""
    if not report.mappings:
        yield "Nothing maps it."
        return
    yield from render_table(screen, mapping_view.COLUMNS, [mapping_view.cells(m) for m in report.mappings])
    more = report.mapping_rows - len(report.mappings)
    if more > 0:
        yield f"... and {grouped(more)} more; --limit 0 lists all"
