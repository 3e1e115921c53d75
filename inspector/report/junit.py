"""Checks as JUnit XML, which CI systems show: a suite for each target, a test for each rule."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from inspector.findings import Finding, Report, RuleCoverage
from inspector.report.check import render_finding, subject_words
from inspector.report.errors import ErrorReport
from inspector.report.exchange import CheckedTarget
from inspector.report.screen import Screen
from inspector.rules.registry import find_rule
from inspector.text import clean

_COUNTED = ("tests", "failures", "errors", "skipped")
_FACTS = ("release", "build_id", "architecture", "scheme")
_NOT_RUN = ("not-applicable", "not-checked")


def render_junit(targets: Sequence[CheckedTarget]) -> str:
    """One document.

    A rule with findings of severity fail or warn is a failed test. One that does not apply, or that could check
    nothing, is skipped. Remarks, and how much a rule could not check, are in the output of its test. A target that
    could not be opened is a suite with one test that has an error.
    """
    total: Counter[str] = Counter()
    suites: list[str] = []
    for target in targets:
        nr: Counter[str] = Counter()
        lines = list(_suite(target, nr))
        suites += [f"  <testsuite name={_value(target.name)} {_numbers(nr)}>", *lines, "  </testsuite>"]
        total += nr
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="folioscope" {_numbers(total)}>'
    return "\n".join([head, *suites, "</testsuites>"])


def _numbers(nr: Counter[str]) -> str:
    return " ".join(f'{name}="{nr[name]}"' for name in _COUNTED)


def _value(text: object) -> str:
    return quoteattr(clean(str(text)))


def _suite(target: CheckedTarget, nr: Counter[str]) -> Iterator[str]:
    outcome = target.outcome
    if isinstance(outcome, ErrorReport):
        nr.update(tests=1, errors=1)
        yield '    <testcase classname="target" name="open">'
        yield f"      <error message={_value(outcome.error)}>{_text([outcome.where, outcome.todo])}</error>"
        yield "    </testcase>"
        return
    facts = [(name, outcome.target.get(name)) for name in _FACTS]
    properties = [
        f"<property name={_value(name)} value={_value(value)}/>" for name, value in facts if value is not None
    ]
    yield f"    <properties>{''.join(properties)}</properties>"
    yield from _tests(outcome, nr)


def _tests(report: Report, nr: Counter[str]) -> Iterator[str]:
    of_rule: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        of_rule[finding.rule].append(finding)
    for covered in report.coverage.rules:
        inside = list(_test(covered, of_rule[covered.rule], nr))
        nr["tests"] += 1
        start = f"    <testcase classname={_value(find_rule(covered.rule).group)} name={_value(covered.rule)}"
        yield from [f"{start}>", *inside, "    </testcase>"] if inside else [f"{start}/>"]


def _test(covered: RuleCoverage, findings: list[Finding], nr: Counter[str]) -> Iterator[str]:
    bad = [finding for finding in findings if finding.severity != "info"]
    remarks = [line for finding in findings if finding.severity == "info" for line in _lines(finding)]
    if bad:
        nr["failures"] += 1
        message = f"{bad[0].title}: {subject_words(bad[0].subject)}"
        text = _text(line for finding in bad for line in _lines(finding))
        yield f"      <failure type={_value(bad[0].severity)} message={_value(message)}>{text}</failure>"
    elif covered.state in _NOT_RUN:
        nr["skipped"] += 1
        yield f"      <skipped message={_value(f'{covered.state}: {covered.reason}')}/>"
    if covered.state == "partial":
        remarks.append(f"partial: {covered.reason} ({covered.checked} checked, {covered.unchecked} not)")
    if remarks:
        yield f"      <system-out>{_text(remarks)}</system-out>"


def _lines(finding: Finding) -> Iterator[str]:
    return render_finding(Screen(), finding)


def _text(lines: Sequence[str] | Iterator[str]) -> str:
    return escape("\n".join(clean(line) for line in lines if line))
