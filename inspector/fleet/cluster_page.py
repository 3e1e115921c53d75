"""The same as one HTML page with charts: it loads nothing, runs nothing, and is dark where its reader prefers that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from html import escape

from inspector.fleet.cluster_text import chosen_words, in_words, seen_words, shares_words
from inspector.fleet.clusters import Cluster, FleetReport, Outcomes
from inspector.text import clean, counted, grouped

_MOST_BARS = 92
"""Of a chart over time: more days are joined to months."""

_MOST_ROWS = 40
"""Clusters and kernels that a chart shows."""

_PARTS = (
    ("consistent", "consistent"),
    ("incomplete", "not fully checked"),
    ("with_findings", "with findings"),
    ("errors", "errors"),
)
"""Members of `Outcomes` that add up to all dumps, in the order in which bars stack them."""

_COLORS = {"fail": "with_findings", "warn": "incomplete"}

_STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --dim: #5f6670; --page: #ffffff; --box: #f4f5f7; --line: #d8dbe0;
  --consistent: #3c8a5b; --incomplete: #b98a1c; --with_findings: #c23b3b; --errors: #6b7280; --link: #1d5fb4; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6ea; --dim: #9aa2ad; --page: #16181c; --box: #202329;
  --line: #363b44; --consistent: #58b07c; --incomplete: #d9ac42; --with_findings: #e46a6a; --errors: #8d95a3;
  --link: #7fb2f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; } p { margin: .25rem 0; }
code { font: 13px/1.5 ui-monospace, monospace; }
.dim { color: var(--dim); }
.box { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem;
  margin: .75rem 0; }
.badge { display: inline-block; padding: 0 .4rem; border-radius: 4px; color: var(--page); font-weight: 600;
  font-size: .8rem; background: var(--errors); }
.fail { background: var(--with_findings); } .warn { background: var(--incomplete); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dt { color: var(--dim); } dd { margin: 0; min-width: 0; }
pre { margin: .5rem 0 0; padding: .5rem; overflow-x: auto; background: var(--page); border: 1px solid var(--line);
  border-radius: 4px; user-select: all; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; min-width: 30rem; }
th { white-space: nowrap; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.chart { overflow-x: auto; } svg { display: block; width: 100%; min-width: 40rem; height: auto; }
svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
.consistent { fill: var(--consistent); } .incomplete { fill: var(--incomplete); }
.with_findings { fill: var(--with_findings); } .errors { fill: var(--errors); } .axis { stroke: var(--line); }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin: 0 .3rem 0 1rem; }
.key.consistent { background: var(--consistent); } .key.incomplete { background: var(--incomplete); }
.key.with_findings { background: var(--with_findings); } .key.errors { background: var(--errors); }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .3rem; } }
"""

_NOTHING_LOADED = "default-src 'none'; style-src 'unsafe-inline'"


def cluster_page(report: FleetReport) -> str:
    """The page."""
    return "\n".join(_page(report)) + "\n"


def _text(words: object) -> str:
    """Words of a dump or a path as HTML: control characters never pass, and nothing is markup."""
    return escape(clean(str(words)))


def _page(report: FleetReport) -> Iterator[str]:
    title = f"Faults of {counted(report.outcomes.dumps, 'vmcore')}"
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_LOADED}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title><style>{_STYLE}</style></head><body>"
    yield f'<header><h1>{title}</h1><p class="dim">{_text(report.dataset)}'
    if chosen_words(report):
        yield f"<br>{_text(chosen_words(report))}"
    if report.compared_with is not None:
        yield f"<br>compared with {_text(report.compared_with)}"
    yield "</p></header><main>"
    yield from _summary(report)
    yield from _clusters(report)
    yield from _over_time(report)
    yield from _kernels(report)
    yield from _errors(report)
    yield "</main></body></html>"


def _summary(report: FleetReport) -> Iterator[str]:
    o = report.outcomes
    keys = (f'<span class="key {name}"></span>{grouped(getattr(o, name))} {words}' for name, words in _PARTS)
    yield f"<p>{grouped(o.dumps)} dumps:{''.join(keys)}</p>"
    if report.undated:
        yield f'<p class="dim">{grouped(report.undated)} more whose time is not known</p>'


def _clusters(report: FleetReport) -> Iterator[str]:
    yield "<section><h2>Clusters</h2>"
    if not report.clusters:
        yield "<p>None.</p></section>"
        return
    shown = report.clusters[:_MOST_ROWS]
    yield from _bars("Dumps by cluster", [(c.rule, [(_COLORS[c.severity], c.dumps)]) for c in shown])
    for cluster in report.clusters:
        yield from _cluster(cluster)
    yield "</section>"


def _cluster(c: Cluster) -> Iterator[str]:
    change = f' <span class="badge">{c.change}</span>' if c.change else ""
    yield f'<article class="box" id="f{c.fingerprint}"><h3><span class="badge {c.severity}">{c.severity.upper()}</span>'
    yield f"{_text(c.rule)}{change}</h3><p>{_text(c.title)}.</p><dl>"
    facts = [("in", in_words(c)), ("fingerprint", c.fingerprint), ("made of", c.signature)]
    facts += [("diagnosis", c.verdict)] if c.verdict else []
    facts += [("seen", seen_words(c))] if c.first_seen else []
    facts += [("kernels", shares_words(c.kernels)), ("machines", shares_words(c.hardware))]
    for name, value in facts:
        yield f"<dt>{name}</dt><dd>{_text(value)}</dd>"
    for name, sentences in (("because", c.exemplar.because), ("looks like", c.exemplar.looks_like)):
        if sentences:
            yield f"<dt>{name}</dt><dd>{'<br>'.join(map(_text, sentences))}</dd>"
    yield f"</dl><pre><code>{_text(c.exemplar.command)}</code></pre></article>"


def _over_time(report: FleetReport) -> Iterator[str]:
    if not report.days:
        return
    yield "<section><h2>By the day of the crash</h2>"
    days = [(day.day, day.outcomes) for day in report.days]
    if len(days) > _MOST_BARS:
        months: dict[str, list[Outcomes]] = defaultdict(list)
        for day, outcomes in days:
            months[day[:7]].append(outcomes)
        days = [(month, _sum(parts)) for month, parts in months.items()][-_MOST_BARS:]
    yield from _columns("Dumps by the day of the crash", days)
    yield "</section>"


def _sum(parts: Iterable[Outcomes]) -> Outcomes:
    rows = [(o.dumps, o.consistent, o.with_findings, o.incomplete, o.errors) for o in parts]
    return Outcomes(*map(sum, zip(*rows, strict=True)))


def _kernels(report: FleetReport) -> Iterator[str]:
    if not report.kernels:
        return
    yield "<section><h2>By kernel</h2>"
    rows = [(k.kernel, [(name, getattr(k.outcomes, name)) for name, _ in _PARTS]) for k in report.kernels[-_MOST_ROWS:]]
    yield from _bars("Dumps by kernel", rows)
    yield "</section>"


def _errors(report: FleetReport) -> Iterator[str]:
    if not report.errors:
        return
    yield '<section><h2>Not checked</h2><div class="scroll"><table>'
    yield '<tr><th class="number">dumps</th><th>error</th><th>reason</th><th>such as</th></tr>'
    for e in report.errors:
        cells = "".join(f"<td>{_text(words)}</td>" for words in (e.error, e.text, e.path or ""))
        yield f'<tr><td class="number">{grouped(e.dumps)}</td>{cells}</tr>'
    yield "</table></div></section>"


_WIDTH = 960
_ROW = 22
_NAMES = 300
_NAME = 44
"""Characters of a name beside a bar."""


def _bars(title: str, rows: list[tuple[str, list[tuple[str, int]]]]) -> Iterator[str]:
    """A bar for each row, from left to right, of stacked parts (class and number)."""
    most = max((sum(nr for _, nr in parts) for _, parts in rows), default=0) or 1
    yield _svg(title, len(rows) * _ROW + 4)
    for at, (name, parts) in enumerate(rows):
        y = at * _ROW + 4
        shown = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
        yield f'<text x="{_NAMES - 8}" y="{y + 13}" text-anchor="end">{_text(shown)}</text>'
        x, room = float(_NAMES), _WIDTH - _NAMES - 60
        for kind, nr in parts:
            width = room * nr / most
            if nr:
                yield f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{max(width, 1):.1f}" height="{_ROW - 6}">'
                yield f"<title>{_text(name)}: {grouped(nr)}</title></rect>"
            x += width
        yield f'<text x="{x + 6:.1f}" y="{y + 13}">{grouped(sum(nr for _, nr in parts))}</text>'
    yield "</svg></div>"


_HEIGHT = 180


def _columns(title: str, rows: list[tuple[str, Outcomes]]) -> Iterator[str]:
    """A bar for each row, upright, of stacked outcomes."""
    most = max((o.dumps for _, o in rows), default=0) or 1
    yield _svg(title, _HEIGHT + 24)
    step = (_WIDTH - 60) / max(len(rows), 12)
    yield f'<line class="axis" x1="50" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>'
    yield f'<text x="44" y="14" text-anchor="end">{grouped(most)}</text>'
    yield f'<text x="44" y="{_HEIGHT}" text-anchor="end">0</text>'
    labelled = max(1, round(90 / step))
    for at, (name, outcomes) in enumerate(rows):
        x, y = 52 + at * step, float(_HEIGHT)
        for kind, words in _PARTS:
            nr: int = getattr(outcomes, kind)
            height = (_HEIGHT - 6) * nr / most
            y -= height
            if nr:
                yield f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{step * 0.85:.1f}" height="{height:.1f}">'
                yield f"<title>{_text(name)}: {grouped(nr)} {words}</title></rect>"
        if at % labelled == 0:
            yield f'<text x="{x:.1f}" y="{_HEIGHT + 16}">{_text(name)}</text>'
    yield "</svg></div>"


def _svg(title: str, height: int) -> str:
    name = _text(title)
    return (
        f'<div class="chart"><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{name}"><title>{name}</title>'
    )
