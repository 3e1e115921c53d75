"""A check's report as text: each finding with its evidence, then what was checked and the verdict in words."""

from __future__ import annotations

from collections.abc import Iterator

from inspector.coverage import lost_words
from inspector.errors import Exit
from inspector.findings import Confirmation, Finding, Mapping, Report, RuleCoverage, Scalar, Subject
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.text import clean, counted, grouped

_BADGES = {"fail": ("FAIL", "fail"), "warn": ("WARN", "yellow"), "info": ("INFO", "cyan")}
_INDENT = "      "

_MAPPING_COLUMNS = (
    TableColumn("pid", right=True),
    TableColumn("comm"),
    TableColumn("va", right=True),
    TableColumn("level"),
    TableColumn("pfn", right=True),
    TableColumn("page", right=True),
    TableColumn("entry", right=True),
)


def render_report(screen: Screen, report: Report) -> Iterator[str]:
    """The whole report of one target."""
    yield from _head(screen, report)
    yield ""
    for finding in report.findings:
        yield from render_finding(screen, finding)
        yield ""
    verdict, style = verdict_of(report)
    *facts, last = render_facts(screen, [*_closing(report), ("verdict", verdict)])
    yield from facts
    # In a narrow terminal it is wrapped, and keeps the terminal's own colour.
    yield last.removesuffix(verdict) + screen.paint(style, verdict) if last.endswith(verdict) else last


def _head(screen: Screen, report: Report) -> Iterator[str]:
    target = report.target
    yield screen.paint("bold", str(target.get("path")))
    words = [
        f"Linux {target.get('release') or 'unknown'}",
        str(target.get("architecture") or "unknown architecture"),
        f"types from {target.get('types_from')}",
        f"counting scheme {target.get('scheme') or 'unknown'}",
    ]
    yield from screen.wrap(", ".join(words))


def render_finding(screen: Screen, finding: Finding) -> Iterator[str]:
    """One finding: what, about what, stored beside expected, the evidence, and where to look further."""
    badge, style = _BADGES[finding.severity]
    times = f" (x{finding.count})" if finding.count > 1 else ""
    kind = "" if finding.exactness == "exact" else f" [{finding.exactness}]"
    yield f"{screen.paint(style, badge)}  {screen.paint('bold', clean(finding.rule))}{times}{kind}"
    yield from screen.wrap(clean(finding.title) + ".", _INDENT)
    yield from screen.wrap(subject_words(finding.subject), _INDENT)
    yield from _values(screen, finding)
    facts = [(clean(name), show(name, value)) for name, value in finding.evidence.facts.items()]
    yield from render_facts(screen, facts, _INDENT)
    yield from _mappings(screen, finding)
    if finding.evidence.also:
        yield from screen.wrap(f"also breaks: {', '.join(finding.evidence.also)}", _INDENT)
    if finding.diagnosis is not None:
        yield from screen.wrap(f"diagnosis: {finding.diagnosis.verdict}", _INDENT)
        for reason in finding.diagnosis.because:
            yield from screen.wrap(f"- {clean(reason)}", _INDENT + "  ")
    yield f"{_INDENT}look: {screen.paint('cyan', clean(finding.look))}"


def subject_words(subject: Subject) -> str:
    """What a finding is about, as one line."""
    words = [subject.kind.replace("_", " ")]
    if subject.pfn is not None:
        words.append(f"pfn {subject.pfn:#x} ({subject.pfn})")
    if subject.page is not None:
        words.append(f"struct page {subject.page:#x}")
    if subject.order:
        words.append(f"order {subject.order}")
    if subject.address is not None:
        words.append(f"at {subject.address:#x}")
    if subject.pid is not None:
        words.append(f"pid {subject.pid} {clean(subject.comm or '')}".rstrip())
    elif subject.mm is not None:
        words.append("no task")
    if subject.mm is not None:
        words.append(f"mm {subject.mm:#x}")
    if subject.va is not None:
        words.append(f"va {subject.va:#x}")
    if subject.vma is not None:
        words.append(f"vma {subject.vma:#x}")
    if subject.name:
        words.append(clean(subject.name))
    return words[0] + (" " + ", ".join(words[1:]) if len(words) > 1 else "")


def _values(screen: Screen, finding: Finding) -> Iterator[str]:
    names = list(dict.fromkeys([*finding.observed, *finding.expected]))
    if not names:
        return
    rows = []
    for name in names:
        stored = show(name, finding.observed[name]) if name in finding.observed else ""
        wanted = show(name, finding.expected[name]) if name in finding.expected else ""
        rows.append((clean(name), stored, wanted))
    columns = (
        TableColumn(""),
        TableColumn("observed", right=True, style="red"),
        TableColumn("expected", right=True, style="green"),
    )
    yield from render_table(screen, columns, rows, _INDENT)


def show(name: str, value: Scalar) -> str:
    """One value for people: big numbers are addresses or entries and go in hex, pfns in both ways."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return clean(value)
    if name.endswith("pfn") and value >= 0:
        return f"{value:#x} ({value})"
    return f"{value:#x}" if value > 1 << 31 else str(value)


def _mappings(screen: Screen, finding: Finding) -> Iterator[str]:
    evidence = finding.evidence
    if not evidence.mappings:
        return
    yield from render_table(screen, _MAPPING_COLUMNS, [mapping_row(m) for m in evidence.mappings], _INDENT)
    more = evidence.nr_mappings - len(evidence.mappings)
    if more > 0:
        yield f"{_INDENT}... and {counted(more, 'more entry', 'more entries')}"


def mapping_row(m: Mapping) -> tuple[str, ...]:
    """The cells of one mapping."""
    pid = "-" if m.pid is None else str(m.pid)
    return pid, clean(m.comm or ""), f"{m.va:#x}", m.level, f"{m.pfn:#x}", f"+{m.page_index}", f"{m.entry:#018x}"


_COUNTED = {
    "struct_pages": ("struct page",),
    "compound_pages": ("compound page",),
    "mms": ("address space",),
    "vmas": ("VMA",),
    "page_tables": ("page table",),
    "leaf_entries": ("leaf entry", "leaf entries"),
    "nonpresent_entries": ("non-present entry", "non-present entries"),
}
"""Numbers of the summary that say what was checked, in words."""


def _closing(report: Report) -> list[tuple[str, str]]:
    total = {k: v for k, v in report.summary.items() if isinstance(v, int)}
    checked = [
        counted(total[name], *words) if name in total else f"unknown {words[-1] if len(words) > 1 else words[0] + 's'}"
        for name, words in _COUNTED.items()
    ]
    missing = lost_words(report.coverage.missing)
    return [
        ("checked", ", ".join(checked)),
        ("rules", _rules(report.coverage.rules)),
        *[
            (c.state, f"{c.rule}: {clean(c.reason)} ({_unchecked(c)})")
            for c in report.coverage.rules
            if c.state in ("partial", "not-checked")
        ],
        ("unreadable", ", ".join(missing) or "none"),
        *([("unaudited", ", ".join(report.coverage.not_audited))] if report.coverage.not_audited else []),
        *([("stopped", paused_words(report.paused_seconds))] if report.paused_seconds is not None else []),
        *([("looks", looks_words(report.confirmation))] if report.confirmation is not None else []),
        *[("note", clean(n)) for n in report.coverage.notes],
    ]


def paused_words(seconds: float) -> str:
    """For how long a guest was stopped to be checked."""
    return f"the guest, for {seconds:.1f} s" if seconds else "the guest, before it was checked: it was left so"


def looks_words(c: Confirmation) -> str:
    """How many looks were taken, what each took, and what was dismissed for what reason."""
    times = ", ".join(f"{seconds:.1f} s" for seconds in c.seconds)
    words = f"{counted(c.looks, 'look')} ({times}), {counted(c.suspects, 'suspect')}"
    if not c.dismissed:
        return words
    why = ", ".join(f"{grouped(n)} {reason}" for reason, n in c.why.items())
    return f"{words}, {grouped(c.dismissed)} of them changed under us and are not reported: {why}"


def _rules(rules: list[RuleCoverage]) -> str:
    apart = [c for c in rules if c.state == "not-applicable"]
    words = f"{len(rules) - len(apart)} run"
    if not apart:
        return words
    reasons: dict[str, list[str]] = {}
    for c in apart:
        reasons.setdefault(clean(c.reason), []).append(c.rule)
    listed = "; ".join(f"{', '.join(slugs)} ({reason})" for reason, slugs in reasons.items())
    return f"{words}, {len(apart)} not applicable: {listed}"


def _unchecked(c: RuleCoverage) -> str:
    return f"{grouped(c.checked)} checked, {grouped(c.unchecked)} not"


def verdict_of(report: Report, remarks_are: str = " above") -> tuple[str, str]:
    """The verdict in words, and the style to show it in; where its remarks are shown."""
    remarks = sum(f.severity == "info" for f in report.findings)
    aside = f" ({counted(remarks, 'remark')}{remarks_are})" if remarks else ""
    if report.exit_code == Exit.FINDINGS:
        number = len(report.findings) - remarks
        more = sum(f.count - 1 for f in report.findings)
        hidden = f", {grouped(more)} more of the same kind folded into them" if more else ""
        return f"{counted(number, 'finding')}{hidden}{aside}", "fail"
    if report.exit_code == Exit.INCOMPLETE:
        return f"nothing wrong found, but not everything could be checked{aside}", "yellow"
    return f"consistent{aside}", "green"
