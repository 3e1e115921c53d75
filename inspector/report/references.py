"""References of all folios added up by who holds them, and the folios that have some left over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from inspector.columns import I64
from inspector.errors import Exit
from inspector.folio.look import still_wrong
from inspector.folio.numbers import one_folio
from inspector.folio.suspects import suspects
from inspector.hex_json import Wide
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.tables.node_stats import node_stats
from inspector.text import counted, grouped
from inspector.walk.kinds import page_kinds
from inspector.walk.references import PIN_BIAS, TERMS, ReferenceTerms

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


class TermTotal(msgspec.Struct, frozen=True):
    """One kind of holder over all folios."""

    term: str
    meaning: str
    basis: Literal["found", "stored", "inferred"]
    references: int
    folios: int


class LeftOver(msgspec.Struct, frozen=True):
    """A folio whose references are not all explained."""

    pfn: int
    kind: str
    refcount: int
    explained: int
    unexplained: int
    """Negative when more holders were found than references."""
    likeliest: str
    """Who may hold them."""


class ReferencesReport(msgspec.Struct, frozen=True):
    """The object that ``references --format json`` prints."""

    schema: Literal["folioscope.references/2"]
    folios: int
    """Folios of user memory and of the page cache that have references."""
    references: int
    exact: int
    """Folios explained to the last reference."""
    terms: list[TermTotal]
    pins: int
    """Pins by the folios' own counts."""
    pins_counted: Wide | None
    """NR_FOLL_PIN_ACQUIRED less NR_FOLL_PIN_RELEASED: the kernel's own number; null where it keeps none."""
    left: list[LeftOver]
    left_folios: int
    """How many folios have references left over, or lack some; ``left`` may hold fewer."""
    exit_code: int


def build_references(s: Snapshot, limit: int | None = None) -> ReferencesReport:
    """Add up the references of all folios.

    Args:
        s: A snapshot of the target.
        limit: Folios with references left over that are listed at most, those that lack some and the farthest off
            first; None for all.
    """
    t = s.reference_terms
    rest = t.remainder
    odd = np.flatnonzero(rest)
    odd = odd[np.lexsort((t.rows[odd], -np.abs(rest[odd]), rest[odd] >= 0))]
    stats = node_stats(s.layout)
    counted_pins = None
    if "NR_FOLL_PIN_ACQUIRED" in stats:
        counted_pins = stats["NR_FOLL_PIN_ACQUIRED"] - stats["NR_FOLL_PIN_RELEASED"]
    code = _code(s, is_wrong=bool((t.refcount < t.expected.total).any()))
    return ReferencesReport(
        schema="folioscope.references/2",
        folios=len(t),
        references=int(t.refcount.sum(dtype=np.int64)),
        exact=int((rest == 0).sum()),
        terms=[
            TermTotal(name, meaning, basis, int(t.terms[name].sum(dtype=np.int64)), int((t.terms[name] > 0).sum()))
            for name, basis, meaning in TERMS
        ],
        pins=_pins(s, t),
        pins_counted=counted_pins,
        left=_left(s, t, odd[:limit]),
        left_folios=len(odd),
        exit_code=int(code),
    )


def settled_references(s: Snapshot, limit: int | None = None) -> ReferencesReport:
    """The same of a kernel that may run on.

    Its exit code says that a folio lacks references only where one did in every look, with the same numbers.
    """

    def ask(one: Snapshot) -> tuple[ReferencesReport, Snapshot]:
        return build_references(one, limit), one

    (report, last), lacking = still_wrong(s, ask, lambda answer: _lacking(answer[1]))
    if lacking or report.exit_code != Exit.FINDINGS:
        return report
    return msgspec.structs.replace(report, exit_code=int(_code(last, is_wrong=False)))


def _lacking(s: Snapshot) -> frozenset[tuple[int, int, int]]:
    """Folios with fewer references than were found: page frame, references, and what they should have at least."""
    t = s.reference_terms
    at = np.flatnonzero(t.refcount < t.expected.total)
    pfns = s.pages.memmap.pfns_of_rows(t.rows[at])
    return frozenset(zip(pfns.tolist(), t.refcount[at].tolist(), t.expected.total[at].tolist(), strict=True))


def _code(s: Snapshot, *, is_wrong: bool) -> Exit:
    complete = s.tables_complete and not s.missing.counts
    return Exit.FINDINGS if is_wrong else Exit.CLEAN if complete else Exit.INCOMPLETE


def _pins(s: Snapshot, t: ReferenceTerms) -> int:
    """Pins, of which one to a small folio is 1024 references."""
    each = np.where(s.folio_of_page[t.rows] >= 0, 1, PIN_BIAS)
    return int((t.terms["pins"] // each).sum())


def _left(s: Snapshot, t: ReferenceTerms, odd: I64) -> list[LeftOver]:
    kinds = page_kinds(s.layout, s.pages, s.folios, s.folio_of_page, t.rows[odd])
    pfns = s.pages.memmap.pfns_of_rows(t.rows[odd])
    explained, rest = t.explained[odd], t.remainder[odd]
    return [
        LeftOver(
            int(pfns[i]),
            str(kinds[i]),
            int(t.refcount[at]),
            int(explained[i]),
            int(rest[i]),
            suspects(s, one_folio(s, int(pfns[i])), int(rest[i]))[0],
        )
        for i, at in enumerate(odd.tolist())
    ]


_COLUMNS = (
    TableColumn("pfn", right=True, style="bold"),
    TableColumn("kind"),
    TableColumn("refs", right=True),
    TableColumn("explained", right=True),
    TableColumn("left", right=True),
    TableColumn("likeliest"),
)


def render_references(screen: Screen, r: ReferencesReport) -> Iterator[str]:
    """The report for people."""
    yield screen.paint("bold", f"{counted(r.folios, 'folio')}, {counted(r.references, 'reference')}")
    columns = (
        TableColumn("references", right=True),
        TableColumn("folios", right=True),
        TableColumn("held by"),
        TableColumn("known"),
    )
    rows = [(grouped(x.references), grouped(x.folios), x.meaning, x.basis) for x in r.terms if x.references]
    yield from render_table(screen, columns, rows, "  ")
    yield ""
    yield from screen.wrap(f"{grouped(r.exact)} of {counted(r.folios, 'folio')} are explained to the last reference.")
    if r.pins_counted is not None:
        same = "as" if r.pins == r.pins_counted else "but"
        yield from screen.wrap(
            f"{counted(r.pins, 'pin')} by the folios' own counts, {same} {grouped(r.pins_counted)} by the kernel's "
            "counters (NR_FOLL_PIN_ACQUIRED less NR_FOLL_PIN_RELEASED)."
        )
    if not r.left:
        return
    yield ""
    left = [
        (f"{x.pfn:#x}", x.kind, str(x.refcount), str(x.explained), f"{x.unexplained:+d}", x.likeliest) for x in r.left
    ]
    yield from render_table(screen, _COLUMNS, left)
    more = r.left_folios - len(r.left)
    if more > 0:
        yield f"... and {grouped(more)} more; --limit 0 lists all"
