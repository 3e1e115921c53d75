"""Checks as SARIF 2.1.0, which code hosts show: a run for each target, with the rules and their manual pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import inspector
from inspector.check.fingerprint import VERSION
from inspector.coverage import lost_words
from inspector.findings import Finding, Report
from inspector.hex_json import encode_json
from inspector.report.check import subject_words
from inspector.report.errors import ErrorReport
from inspector.report.exchange import CheckedTarget
from inspector.rules.registry import find_rule
from inspector.text import clean

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"fail": "error", "warn": "warning", "info": "note"}

_SHOWN = ("exactness", "observed", "expected", "evidence", "diagnosis")
"""Members of a finding that SARIF has no place of its own for."""


def render_sarif(targets: Sequence[CheckedTarget]) -> str:
    """One log. What could not be checked is in the notifications of the run's invocation."""
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [_run(target) for target in targets]}
    return msgspec.json.format(msgspec.json.encode(log), indent=1).decode()


def _run(target: CheckedTarget) -> dict[str, Any]:
    outcome = target.outcome
    run: dict[str, Any] = {"tool": {"driver": {"name": "folioscope", "version": inspector.__version__}}, "results": []}
    if isinstance(outcome, ErrorReport):
        words = ": ".join(filter(None, (outcome.error, outcome.where)))
        run["invocations"] = [_invocation(outcome.exit_code, "error", [words])]
        return run
    slugs = [covered.rule for covered in outcome.coverage.rules]
    run["tool"]["driver"]["rules"] = [_rule(slug) for slug in slugs]
    run["results"] = [_result(finding, slugs.index(finding.rule), target.name) for finding in outcome.findings]
    run["invocations"] = [_invocation(outcome.exit_code, "warning", _unchecked(outcome))]
    facts = {name: clean(value) if isinstance(value, str) else value for name, value in outcome.target.items()}
    run["properties"] = {name: value for name, value in facts.items() if name != "path"}
    return run


def _invocation(code: int, level: str, notes: list[str]) -> dict[str, Any]:
    return {
        "executionSuccessful": level != "error",
        "exitCode": code,
        "toolExecutionNotifications": [{"level": level, "message": {"text": clean(note)}} for note in notes],
    }


def _unchecked(report: Report) -> list[str]:
    missing = [f"{words} cannot be read" for words in lost_words(report.coverage.missing)]
    rules = [
        f"{c.rule} is {c.state}: {c.reason}" for c in report.coverage.rules if c.state in ("partial", "not-checked")
    ]
    return [*report.coverage.notes, *missing, *rules]


def _rule(slug: str) -> dict[str, Any]:
    rule = find_rule(slug)
    return {
        "id": slug,
        "shortDescription": {"text": f"{rule.title}."},
        "help": {"text": rule.page},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": [rule.group]},
    }


def _result(finding: Finding, index: int, target: str) -> dict[str, Any]:
    subject = subject_words(finding.subject)
    # As the report itself is printed: addresses in hex.
    facts = msgspec.json.decode(encode_json(finding))
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": clean(f"{finding.title}: {subject}. {finding.look}")},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": Path(target).absolute().as_uri()}},
                "logicalLocations": [{"fullyQualifiedName": subject, "kind": finding.subject.kind}],
            }
        ],
        "partialFingerprints": {f"folioscope/v{VERSION}": finding.fingerprint},
        "occurrenceCount": finding.count,
        "properties": {
            name: facts[name]
            for name in ("exactness", "observed", "expected", "evidence", "diagnosis")
            if name in facts
        },
    }
