"""The rules as a table, and each rule's docstring as its manual page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from inspector.findings import Exactness, Severity
from inspector.model.scheme import Scheme
from inspector.report.screen import Screen, TableColumn, render_facts, render_table, table_width
from inspector.rules.catalogue import catalogue
from inspector.rules.registry import Rule
from inspector.text import counted


class DecidedLine(msgspec.Struct, frozen=True):
    """A line of the catalogue that a rule decides, wholly or in part."""

    id: str
    """As ``rules --catalogue`` numbers it."""
    title: str
    """What must hold."""


class RuleInfo(msgspec.Struct, frozen=True):
    """One rule."""

    rule: str
    was: str
    """Its name before it was renamed, which still selects it; "" for none."""
    group: str
    severity: Severity
    exactness: Exactness
    catalogue: list[DecidedLine]
    kernels: str
    schemes: list[str] | None
    """Names of the accounting schemes it applies to; null for all."""
    title: str
    page: str
    """The manual page."""


class RulesReport(msgspec.Struct, frozen=True):
    """The object that ``rules --format json`` prints."""

    schema: Literal["folioscope.rules/2"]
    rules: list[RuleInfo]


def build_rules(rules: list[Rule]) -> RulesReport:
    """Describe some rules."""
    decided: dict[str, list[DecidedLine]] = {}
    for line in catalogue():
        for slug in line.rules:
            decided.setdefault(slug, []).append(DecidedLine(line.id, line.title))
    return RulesReport("folioscope.rules/2", [_info(r, decided.get(r.slug, [])) for r in rules])


def _info(rule: Rule, decided: list[DecidedLine]) -> RuleInfo:
    schemes = None if rule.schemes is None else [s.name for s in Scheme if s in rule.schemes]
    return RuleInfo(
        rule.slug,
        rule.was,
        rule.group,
        rule.severity,
        rule.exactness,
        decided,
        kernels(rule.schemes),
        schemes,
        rule.title,
        rule.page,
    )


def kernels(schemes: frozenset[Scheme] | None) -> str:
    """The kernels that a rule applies to, by their accounting schemes."""
    if schemes is None or schemes >= set(Scheme):
        return "all"
    chain = [s for s in Scheme if s is not Scheme.NO_PAGE_MAPCOUNT]
    inside = [s for s in chain if s in schemes]
    counts = Scheme.NO_PAGE_MAPCOUNT not in schemes and Scheme.MM_IDS in schemes
    if len(inside) == len(chain):
        words = "all"
    elif inside and inside[-1] is chain[-1] and inside == chain[-len(inside) :]:
        words = inside[0].kernels.split(" ", 1)[0] + "+"
    else:
        words = ", ".join(s.kernels for s in inside)
    return words + (" with page counts" if counts else "")


_COLUMNS = (
    TableColumn("rule", style="bold"),
    TableColumn("severity"),
    TableColumn("exactness"),
    TableColumn("kernels"),
    TableColumn("catalogue"),
    TableColumn("title"),
)


def render_rules(screen: Screen, report: RulesReport) -> Iterator[str]:
    """The table for people; titles on lines of their own where the terminal is too narrow."""
    rows = [
        (r.rule, r.severity, r.exactness, r.kernels, ", ".join(x.id for x in r.catalogue), r.title)
        for r in report.rules
    ]
    if screen.fits(table_width(_COLUMNS, rows)):
        yield from render_table(screen, _COLUMNS, rows)
    else:
        table = list(render_table(Screen(screen.color), _COLUMNS[:3], [row[:3] for row in rows]))
        yield table[0]
        for line, rule in zip(table[1:], report.rules, strict=True):
            yield line
            yield from screen.wrap(rule.title + ("" if rule.kernels == "all" else f" ({rule.kernels})"), "    ")
    yield ""
    yield f"{counted(len(rows), 'rule')}; folioscope rules RULE shows the page of one, --catalogue all lines"


def render_page(screen: Screen, report: RulesReport) -> Iterator[str]:
    """The manual page of the one rule of a report."""
    rule = report.rules[0]
    head = rule.page.partition("\n")[0]
    yield screen.paint("bold", rule.rule)
    yield from screen.wrap(head, "  ")
    yield ""
    yield from render_facts(screen, rule_facts(rule), "  ")
    for name, text in rule_sections(rule.page):
        yield ""
        yield "  " + screen.paint("bold", name)
        for paragraph in text:
            yield from screen.wrap(paragraph, "    ")


def rule_facts(rule: RuleInfo) -> list[tuple[str, str]]:
    """What a rule's page says at its top, name and value."""
    facts = [("severity", f"{rule.severity}, {rule.exactness}"), ("kernels", rule.kernels), ("group", rule.group)]
    if rule.catalogue:
        facts.append(("catalogue", "; ".join(f"{line.id}: {line.title}" for line in rule.catalogue)))
    if rule.was:
        facts.append(("was", f"{rule.was}, which still selects it"))
    return facts


def rule_sections(page: str) -> Iterator[tuple[str, list[str]]]:
    """Sections of a manual page, each with its paragraphs.

    ``Name:  text`` at the left margin opens a section; lines under it go on with the same text.
    """
    name, text = "", [""]
    body = page.partition("\n")[2]
    for line in [*body.splitlines(), "End:"]:
        opening, colon, rest = line.partition(":")
        if colon and line[:1].isalpha() and len(opening) < 16:
            if name:
                yield name, [" ".join(part.split()) for part in text if part.strip()]
            name, text = opening, [rest]
        else:
            text[-1] += " " + line.strip()
