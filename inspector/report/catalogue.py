"""The catalogue of what must hold, as a table and as one object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from inspector.report.screen import Screen
from inspector.rules.catalogue import Decidability, Invariant
from inspector.text import counted


class CatalogueLine(msgspec.Struct, frozen=True):
    """One line: an invariant of the rmap model, or a numbered one."""

    id: str
    """``I1`` and so on, or a number."""
    family: str
    title: str
    state: Decidability
    """``decided`` by the rules, ``partly`` (the reason says what is not), ``later``: none does yet, or
    ``undecidable`` from a memory image."""
    rules: list[str]
    reason: str


class CatalogueReport(msgspec.Struct, frozen=True):
    """The object that ``rules --catalogue --format json`` prints."""

    schema: Literal["folioscope.catalogue/1"]
    lines: list[CatalogueLine]


def build_catalogue(lines: list[Invariant]) -> CatalogueReport:
    """Describe the lines."""
    described = [CatalogueLine(x.id, x.family, x.title, x.state, list(x.rules), x.reason) for x in lines]
    return CatalogueReport("folioscope.catalogue/1", described)


_STYLES = {"decided": "green", "partly": "yellow", "later": "dim", "undecidable": "dim"}


def render_catalogue(screen: Screen, report: CatalogueReport) -> Iterator[str]:
    """Line by line, by family: what must hold, the rules that decide it, or why none does."""
    family = ""
    for line in report.lines:
        if line.family != family:
            family = line.family
            yield screen.paint("bold", family)
        mark = "" if line.state == "decided" else screen.paint(_STYLES[line.state], f"  [{line.state}]")
        yield f"{line.id:>4}  {line.title}{mark}"
        if line.rules:
            yield from screen.wrap(", ".join(line.rules), "      ")
        if line.reason:
            yield from screen.wrap(f"in part: {line.reason}" if line.rules else line.reason, "      ")
    yield ""
    number = {state: sum(x.state == state for x in report.lines) for state in _STYLES}
    yield (
        f"{counted(len(report.lines), 'line')}: {number['decided']} decided, {number['partly']} in part, "
        f"{number['later']} not yet, {number['undecidable']} not to be decided from a memory image"
    )
