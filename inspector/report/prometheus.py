"""Checks as metrics in Prometheus' text format, for the textfile directory of a node exporter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import inspector
from inspector.findings import Report
from inspector.report.errors import ErrorReport
from inspector.report.exchange import CheckedTarget
from inspector.text import clean

_METRICS = {
    "success": "Whether the target could be opened and checked.",
    "exit_code": "What the check ended with: 0 consistent, 1 findings, 3 not opened, 4 data is missing.",
    "timestamp_seconds": "When the check was over.",
    "info": "The kernel that was checked.",
    "complete": "Whether everything could be checked.",
    "findings": "Findings by severity.",
    "rule_findings": "Findings by rule; of rules without any there is no sample.",
    "rules": "Rules by how far they got.",
    "missing": "Things that could not be read, by kind.",
}
"""Gauges, without the prefix that they have all."""

_SEVERITIES = ("fail", "warn", "info")
_STATES = ("done", "partial", "not-applicable", "not-checked")

Sample = tuple[str, dict[str, object], float]


def render_prometheus(targets: Sequence[CheckedTarget]) -> str:
    """All samples, those of one metric together."""
    samples: dict[str, list[str]] = {name: [] for name in _METRICS}
    for target in targets:
        for name, labels, value in _samples(target):
            named = {"target": target.name, **labels}
            words = ",".join(f'{label}="{_escaped(content)}"' for label, content in named.items())
            samples[name].append(f"folioscope_check_{name}{{{words}}} {value:.15g}")
    lines = []
    for name, means in _METRICS.items():
        if not samples[name]:
            continue
        metric = f"folioscope_check_{name}"
        lines += [f"# HELP {metric} {means}", f"# TYPE {metric} gauge", *samples[name]]
    return "\n".join(lines)


def _escaped(value: object) -> str:
    text = clean("" if value is None else str(value))
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _samples(target: CheckedTarget) -> Iterator[Sample]:
    outcome = target.outcome
    yield "success", {}, isinstance(outcome, Report)
    yield "exit_code", {}, outcome.exit_code
    yield "timestamp_seconds", {}, round(target.ended, 3)
    if isinstance(outcome, ErrorReport):
        return
    kernel = {name: outcome.target.get(name) for name in ("release", "build_id", "architecture", "scheme")}
    yield "info", {**kernel, "version": inspector.__version__}, 1
    yield "complete", {}, outcome.coverage.complete
    severities = Counter(str(finding.severity) for finding in outcome.findings)
    for severity in _SEVERITIES:
        yield "findings", {"severity": severity}, severities[severity]
    for (rule, severity), number in sorted(Counter((f.rule, f.severity) for f in outcome.findings).items()):
        yield "rule_findings", {"rule": rule, "severity": severity}, number
    states = Counter(str(covered.state) for covered in outcome.coverage.rules)
    for state in _STATES:
        yield "rules", {"state": state}, states[state]
    for what, number in outcome.coverage.missing.items():
        yield "missing", {"what": what}, number
