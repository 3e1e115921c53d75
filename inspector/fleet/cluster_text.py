"""Clusters as text: each with where it was seen, how often, and the command that opens an exemplar."""

from __future__ import annotations

from collections.abc import Iterator

from inspector.fleet.clusters import AffectedShare, Cluster, FleetReport, Outcomes
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.text import clean, counted, grouped

_BADGES = {"fail": ("FAIL", "fail"), "warn": ("WARN", "yellow")}
_INDENT = "      "
_LISTED = 6
"""Kernels and machines that are listed of a cluster."""

_OUTCOMES = ("dumps", "consistent", "with findings", "incomplete", "errors")
_KERNELS = (TableColumn("kernel"), *(TableColumn(name, right=True) for name in _OUTCOMES))
_ERRORS = (TableColumn("dumps", right=True), TableColumn("error"), TableColumn("reason"), TableColumn("such as"))


def render_fleet(screen: Screen, report: FleetReport) -> Iterator[str]:
    """The report for people."""
    for cluster in report.clusters:
        yield from _cluster(screen, cluster)
        yield ""
    if report.errors:
        rows = [(grouped(e.dumps), e.error, clean(e.text), clean(e.path or "")) for e in report.errors]
        yield from render_table(screen, _ERRORS, rows)
        yield ""
    if report.kernels:
        yield from render_table(screen, _KERNELS, [(clean(k.kernel), *_numbers(k.outcomes)) for k in report.kernels])
        yield ""
    yield from render_facts(screen, _closing(report))


def _numbers(o: Outcomes) -> tuple[str, ...]:
    return tuple(map(grouped, (o.dumps, o.consistent, o.with_findings, o.incomplete, o.errors)))


def _cluster(screen: Screen, c: Cluster) -> Iterator[str]:
    badge, style = _BADGES[c.severity]
    change = f" [{c.change}]" if c.change else ""
    yield f"{screen.paint(style, badge)}  {screen.paint('bold', clean(c.rule))}{change}"
    yield from screen.wrap(clean(c.title) + ".", _INDENT)
    facts = [("in", in_words(c)), ("fingerprint", c.fingerprint), ("made of", clean(c.signature))]
    if c.first_seen is not None:
        facts.append(("seen", seen_words(c)))
    facts += [("kernels", shares_words(c.kernels)), ("machines", shares_words(c.hardware))]
    facts += [("because" if not nth else "", clean(reason)) for nth, reason in enumerate(c.exemplar.because)]
    facts += [("looks like" if not nth else "", clean(words)) for nth, words in enumerate(c.exemplar.looks_like)]
    yield from render_facts(screen, facts, _INDENT)
    # Not wrapped: it is to be copied.
    yield f"{_INDENT}open: {screen.paint('cyan', clean(c.exemplar.command))}"


def in_words(c: Cluster) -> str:
    """How many dumps have it, now and before."""
    words = f"{grouped(c.dumps)} of {counted(c.checked, 'checked dump')}, {counted(c.findings, 'finding')}"
    if c.dumps_before is None:
        return words
    return f"{words}; before {grouped(c.dumps_before)} of {grouped(c.checked_before or 0)}"


def seen_words(c: Cluster) -> str:
    """When it was seen first and last."""
    first, last = (c.first_seen or "")[:10], (c.last_seen or "")[:10]
    return first if first == last else f"{first} to {last}"


def shares_words(shares: list[AffectedShare]) -> str:
    """Kernels or machines, and how many dumps of each have it."""
    words = [f"{clean(s.of)} ({grouped(s.dumps)} of {grouped(s.checked)})" for s in shares[:_LISTED]]
    more = len(shares) - len(words)
    return "; ".join(words) + (f"; and {more} more" if more > 0 else "")


def chosen_words(report: FleetReport) -> str:
    """Which dumps of the dataset the report is about; "" for all."""
    words = [f"kernel {report.kernel}"] * bool(report.kernel) + [f"crashed since {report.since}"] * bool(report.since)
    return ", ".join(words)


def _closing(report: FleetReport) -> Iterator[tuple[str, str]]:
    o = report.outcomes
    yield "dataset", clean(report.dataset)
    if chosen_words(report):
        yield "chosen", clean(chosen_words(report))
    if report.compared_with is not None:
        yield "compared", f"with {clean(report.compared_with)}"
    counts = f"{grouped(o.consistent)} consistent, {grouped(o.with_findings)} with findings"
    yield (
        "dumps",
        f"{grouped(o.dumps)}: {counts}, {grouped(o.incomplete)} not fully checked, {counted(o.errors, 'error')}",
    )
    if report.undated:
        yield "left out", counted(report.undated, "dump whose time is not known", "dumps whose time is not known")
    yield "clusters", grouped(len(report.clusters))
