"""Two captures of one boot compared by folio: which changed, and how one state leads to the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from inspector.errors import UsageError
from inspector.folio.compared import FolioCompared, compare_folio, same_boot
from inspector.folio.look import look_at
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.text import counted, grouped

if TYPE_CHECKING:
    from inspector.columns import I64
    from inspector.snapshot import Snapshot


class CompareReport(msgspec.Struct, frozen=True):
    """The object that ``compare --format json`` prints."""

    schema: Literal["folioscope.compare/1"]
    differing: int | None
    """Pages of user memory whose mapping word, mapcount or folio differ; null where certain ones were asked for."""
    folios: list[FolioCompared]


def build_comparison(a: Snapshot, b: Snapshot, pfns: Sequence[int], limit: int) -> CompareReport:
    """Compare folios of two captures.

    Args:
        a: The earlier one.
        b: The later one.
        pfns: Pages of the folios that are asked for; none for those that differ.
        limit: Of those that differ, how many are compared; 0 for all.

    Raises:
        UsageError: The captures are not of one boot of one kernel.
    """
    reason = same_boot(a, b)
    if reason:
        raise UsageError("these are no two captures of one boot", reason, "Give two dumps of a kernel that ran on")
    differing = None
    if not pfns:
        found = _differing(a, b)
        differing = len(found)
        pfns = found[: limit or None].tolist()
    compared: dict[int, FolioCompared] = {}
    for pfn in pfns:
        one = compare_folio(look_at(a, pfn), look_at(b, pfn), pfn)
        compared.setdefault(one.pfn, one)
    return CompareReport("folioscope.compare/1", differing, list(compared.values()))


def _differing(a: Snapshot, b: Snapshot) -> I64:
    """Page frames of small pages and heads that users had or have, and that differ in a word of their struct page."""
    rows = np.arange(min(len(a.pages), len(b.pages)), dtype=np.int64)
    mapped = (a.pages.mapping[rows] != 0) | (b.pages.mapping[rows] != 0)
    heads = ~(a.pages.is_tail[rows] & b.pages.is_tail[rows])
    rows = rows[mapped & heads & a.pages.readable[rows] & b.pages.readable[rows]]
    rows = rows[(a.pages.type_[rows] == 0) & (b.pages.type_[rows] == 0)]
    differ = a.pages.mapping[rows] != b.pages.mapping[rows]
    differ |= a.pages.mapcount_raw[rows] != b.pages.mapcount_raw[rows]
    differ |= a.pages.is_tail[rows] != b.pages.is_tail[rows]
    rows = rows[differ]
    # First folios that both captures have, whose mapcounts differ; then pages that hold something else; then those
    # that are free, or not yet used, in one of them.
    kept = a.pages.mapping[rows] == b.pages.mapping[rows]
    used = (a.pages.mapping[rows] != 0) & (b.pages.mapping[rows] != 0)
    return a.pages.memmap.pfns_of_rows(rows[np.lexsort((rows, ~used, ~kept))])


_LONG = 28
"""Values that are longer are sentences of their own, not cells."""

_COLUMNS = (TableColumn("what"), TableColumn("before", right=True), TableColumn(""), TableColumn("after", right=True))


def render_comparison(screen: Screen, report: CompareReport) -> Iterator[str]:
    """The report for people."""
    if report.differing is not None:
        yield f"{counted(report.differing, 'folio')} differ" + (
            f", of which {grouped(len(report.folios))} are compared" if len(report.folios) < report.differing else ""
        )
    for x in report.folios:
        yield ""
        yield screen.paint("bold", f"folio {x.pfn:#x}: {x.same}")
        for kept in x.kept:
            yield from screen.wrap(f"{kept.what} {kept.before} in both", "  ", "    ")
        long = [c for c in x.changes if max(len(c.before), len(c.after)) > _LONG]
        for c in long:
            yield from screen.wrap(f"{c.what} {c.before} before, {c.after} after", "  ", "    ")
        short = [c for c in x.changes if c not in long]
        if short:
            rows = [(c.what, c.before, "->" if c.before else "", c.after) for c in short]
            yield from render_table(Screen(width=screen.width), _COLUMNS, rows, "  ")
        for step in x.steps:
            yield from screen.wrap(f"by {step}", "  ", "    ")
        if x.note:
            yield from screen.wrap(x.note, "  ", "    ")
