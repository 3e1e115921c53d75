"""One folio in full: what it is, every counter beside its rebuilt value, its pages, and who maps it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from inspector.errors import Exit
from inspector.folio.account import FolioAccount, account_of, stored_account
from inspector.folio.counters import CounterLine, MmIdSlot, Relation
from inspector.folio.verdicts import Verdict
from inspector.hex_json import Wide
from inspector.report import mappings as mapping_view
from inspector.report.mappings import MappingRow, mapping_rows, rejected_words
from inspector.report.pages import FoundPage, PageRow, page_rows, render_place
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.report.searched import where_searched
from inspector.snapshot import Search
from inspector.text import counted, grouped, size

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


class CounterRow(msgspec.Struct, frozen=True):
    """One counter of the folio."""

    name: str
    stored: Wide
    relation: Relation
    """What the stored value must be to the expected one."""
    expected: int | None
    verdict: Verdict
    """"" where there is nothing to compare with."""
    note: str = ""


class PageRun(msgspec.Struct, frozen=True):
    """Neighbouring pages of the folio with the same counts."""

    first: int
    """Index in the folio."""
    pages: int
    pfn: int
    mapped: int | None
    """PTEs that map each of them."""
    mapcount_raw: int
    expected_raw: int | None
    verdict: Verdict


class FolioReport(msgspec.Struct, frozen=True):
    """The object that ``folio --format json`` prints."""

    schema: Literal["folioscope.folio/3"]
    place: FoundPage
    head: PageRow | None
    """The struct page of the head; null when it cannot be read."""
    kind: str
    order: int
    pages: int
    scheme: str | None
    mappings_walked: bool
    """False when its mappings were not searched for: nothing is then compared."""
    searched: Search
    """Where its mappings were searched for; "nothing" where no reverse map leads on from it, or only stored values were
    wanted."""
    gaps: list[str]
    """Why the search does not lead to everything that it should lead to, in sentences."""
    tables_complete: bool
    """False unless all page tables were walked and none is missing: a count can then only be shown to be too low."""
    entire_mappings: int
    """Huge entries that map the folio as a whole."""
    pte_mappings: int
    mms: int
    """Address spaces that map it."""
    rejected: int
    """Entries that map it and may not: no count has them, and ``mappings`` lists them with the reason as their sort."""
    counters: list[CounterRow]
    mm_ids: list[MmIdSlot]
    page_counts: list[PageRun]
    mappings: list[MappingRow]
    mapping_rows: int
    """How many rows of mappings there are; ``mappings`` may hold fewer."""
    exit_code: int


def build_folio(s: Snapshot, place: FoundPage, *, limit: int | None = None) -> FolioReport:
    """Gather everything about the folio that a page belongs to.

    Args:
        s: A snapshot of the target, or one that is aimed at the folio (`inspector.folio.look.look_at`). One of its
            struct pages alone, when stored values are all that is wanted (`inspector.aimed.pages.partial_of_folio`).
        place: Any page of the folio.
        limit: Mappings listed at most; None for all.
    """
    if s.knows("mappings"):
        account = account_of(s, place.pfn, found=False)
    else:
        account = stored_account(s, place.pfn, s.layout.scheme.scheme)
    f, walked = account.folio, account.walked
    head = page_rows(s, np.array([f.head], np.int64))[0]
    found, total = mapping_rows(s, f.pfn, f.nr_pages, limit) if walked else ([], 0)
    return FolioReport(
        schema="folioscope.folio/3",
        place=place,
        head=head if head.readable else None,
        kind=f.kind,
        order=f.order,
        pages=f.nr_pages,
        scheme=account.scheme.name if account.scheme else None,
        mappings_walked=walked,
        searched=s.search,
        gaps=s.gaps if s.knows("gaps") else [],
        tables_complete=walked and s.tables_complete,
        entire_mappings=f.pmd + f.pud,
        pte_mappings=int(f.pte.sum()),
        mms=f.nr_mms,
        rejected=int(s.mappings.nr[f.rejected].sum()) if walked else 0,
        counters=[_counter(x) for x in account.counters if not _is_of_pages(x)],
        mm_ids=account.slots,
        page_counts=_page_runs(account),
        mappings=found,
        mapping_rows=total,
        exit_code=int(_exit(account, readable=head.readable)),
    )


def _counter(x: CounterLine) -> CounterRow:
    """What the stored value is compared with, beside it; else what it means."""
    parts = " + ".join(f"{word} {_number(n)}" for word, n in x.terms.items())
    less_one = ", less one" if x.expected is not None and x.expected == sum(x.terms.values()) - 1 else ""
    note = x.note if x.verdict != "ok" or not parts else parts + less_one
    if x.pages:
        note = f"page +{x.first}: {note}"
    return CounterRow(x.counter, x.stored, x.relation, x.expected, x.verdict, note)


def _page_runs(account: FolioAccount) -> list[PageRun]:
    f = account.folio
    return [
        PageRun(
            x.first,
            x.pages,
            f.pfn + x.first,
            int(f.pte[x.first]) if account.walked else None,
            x.stored,
            x.expected,
            x.verdict,
        )
        for x in account.counters
        if _is_of_pages(x)
    ]


def _is_of_pages(x: CounterLine) -> bool:
    """Whether a line belongs to the table of mapcounts by page."""
    return x.pages > 0 and x.counter == "_mapcount"


def _exit(account: FolioAccount, *, readable: bool) -> Exit:
    if account.is_wrong:
        return Exit.FINDINGS
    return account.exit_unless_wrong(readable=readable)


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


def _counter_cells(c: CounterRow) -> tuple[str, ...]:
    if c.expected is None:
        return c.name, _number(c.stored), "", "", c.verdict, c.note
    return c.name, _number(c.stored), _RELATIONS[c.relation], _number(c.expected), c.verdict, c.note


def _number(value: int) -> str:
    """Small numbers in decimal; the "mapped as a whole" bit is recognised in hex."""
    return f"{value:#x}" if abs(value) >= 1 << 20 else str(value)


def _mapped(report: FolioReport) -> str:
    if not report.mappings_walked:
        return where_searched(report.searched, report.gaps)
    total = report.entire_mappings + report.pte_mappings
    words = (
        f"{counted(total, 'mapping')} ({counted(report.entire_mappings, 'huge entry', 'huge entries')}, "
        f"{counted(report.pte_mappings, 'PTE')}) in {counted(report.mms, 'address space')}"
    )
    return words + rejected_words(report.rejected) + where_searched(report.searched, report.gaps)


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
