"""Checks in the formats of others, read by the parsers of others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel
from sarif_pydantic import Level, Sarif

from inspector.check.run import run_check
from inspector.findings import Finding, Report
from inspector.report.errors import ErrorReport
from inspector.report.exchange import CheckedTarget
from inspector.report.junit import render_junit
from inspector.report.prometheus import render_prometheus
from inspector.report.sarif import render_sarif
from inspector.rules import all_rules
from tests.cli.conftest import Run
from tests.faults.every import CATALOGUE
from tests.faults.overlay import core_path, planted, sound

HOSTILE = "a\"b\\c<d>&'\x1b[31m\n]]>\u202e\udcff{}"


@pytest.fixture(scope="module")
def report() -> Report:
    path = core_path("fixture", "6.1")
    return run_check(planted(path, *CATALOGUE["mapcount-of-a-private-page-raised"](sound(path)).patches))


@pytest.fixture(scope="module")
def targets(report: Report) -> list[CheckedTarget]:
    """One with a finding and remarks, one that is not whole, one that was not opened; names are hostile."""
    (finding,) = report.findings
    remark = msgspec.structs.replace(
        finding, severity="info", rule="refcount-invalid", look=HOSTILE.replace("\udcff", "")
    )
    rules = [
        msgspec.structs.replace(covered, state="partial", unchecked=7, reason=HOSTILE)
        if covered.rule == "mapcount-too-low"
        else msgspec.structs.replace(covered, state="not-checked", reason="nothing there")
        if covered.rule == "entry-invalid"
        else covered
        for covered in report.coverage.rules
    ]
    coverage = msgspec.structs.replace(report.coverage, rules=rules, missing={HOSTILE: 3}, complete=False)
    odd = msgspec.structs.replace(
        report, coverage=coverage, findings=[remark], exit_code=4, target={**report.target, "release": HOSTILE}
    )
    error = ErrorReport("folioscope.error/1", "gone", "no such dump", "gone", HOSTILE, 3)
    return [
        CheckedTarget("/crash/one", report, 1795811412.976),
        CheckedTarget(f"/crash/{HOSTILE}", odd, 0.0),
        CheckedTarget("gone", error, 0.0),
    ]


def test_junit(targets: list[CheckedTarget], report: Report) -> None:
    text = render_junit(targets)
    read = JUnitXml.fromstring(text.encode())
    one, odd, gone = read
    nr = len(all_rules())
    assert (read.tests, read.failures, read.errors) == (2 * nr + 1, 1, 1)
    assert (one.name, one.tests, one.failures, one.errors) == ("/crash/one", nr, 1, 0)
    failed = [case for case in one if any(isinstance(result, Failure) for result in case.result)]
    assert [(case.classname, case.name) for case in failed] == [("mapcount", "mapcount-too-high")]
    (failure,) = failed[0].result
    assert failure.type == "fail"
    assert "page pfn" in failure.message
    assert "look: folioscope" in failure.text
    skipped = {case.name: case.result[0].message for case in odd if any(isinstance(r, Skipped) for r in case.result)}
    assert skipped["entry-invalid"] == "not-checked: nothing there"
    assert len(skipped) == odd.skipped
    said = {case.name: case.system_out for case in odd if case.system_out}
    assert set(said) == {"mapcount-too-low", "refcount-invalid"}
    assert "7 not" in said["mapcount-too-low"]
    (case,) = gone
    assert isinstance(case.result[0], Error)
    assert case.result[0].message == "no such dump"
    assert "\x1b" not in text
    assert report.target["release"] in {prop.value for prop in one.properties()}  # type: ignore[no-untyped-call]


def extras(model: BaseModel) -> Iterator[str]:
    """Members that the parser does not know, but for property bags."""
    yield from model.model_extra or ()
    for name in type(model).model_fields:
        value = getattr(model, name)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, BaseModel):
                yield from extras(one)


def test_sarif(targets: list[CheckedTarget], report: Report) -> None:
    text = render_sarif(targets)
    log = Sarif.model_validate_json(text)
    # Of the standard, but not among this parser's classes.
    unknown = {"$schema", "exitCode", "occurrenceCount", "properties", "toolExecutionNotifications"}
    assert set(extras(log)) <= unknown
    assert log.version == "2.1.0"
    one, odd, gone = log.runs
    assert one.results is not None
    (result,) = one.results
    assert (result.rule_id, result.level, result.kind) == ("mapcount-too-high", Level.ERROR, None)
    rules = one.tool.driver.rules
    assert rules is not None
    assert len(rules) == len(all_rules())
    assert result.rule_index is not None
    assert rules[result.rule_index].id == result.rule_id
    assert result.partial_fingerprints == {"folioscope/v1": report.findings[0].fingerprint}
    raw = json.loads(text)["runs"]
    place = raw[0]["results"][0]["locations"][0]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "file:///crash/one"
    assert raw[0]["results"][0]["properties"]["observed"] == {"_mapcount": 1}
    assert raw[1]["results"][0]["level"] == "note"
    notes = [note["message"]["text"] for note in raw[1]["invocations"][0]["toolExecutionNotifications"]]
    assert any(note.startswith("entry-invalid is not-checked") for note in notes)
    assert raw[2]["invocations"][0] == {
        "executionSuccessful": False,
        "exitCode": 3,
        "toolExecutionNotifications": [{"level": "error", "message": {"text": "no such dump: gone"}}],
    }
    assert gone.results == []
    assert odd.results is not None
    assert "\\u001b" not in text


def test_prometheus(targets: list[CheckedTarget]) -> None:
    text = render_prometheus(targets) + "\n"
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(family.type == "gauge" and family.documentation for family in families.values())
    found: dict[tuple[str, str], float] = {}
    for family in families.values():
        for sample in family.samples:
            others = ",".join(v for k, v in sample.labels.items() if k not in ("target", "release", "build_id"))
            if sample.labels["target"] == "/crash/one":
                found[family.name.removeprefix("folioscope_check_"), others] = sample.value
    assert found["success", ""] == 1
    assert found["exit_code", ""] == 1
    assert found["timestamp_seconds", ""] == pytest.approx(1795811412.976)
    assert found["findings", "fail"] == 1
    assert found["findings", "warn"] == 0
    assert found["rule_findings", "mapcount-too-high,fail"] == 1
    by_target = {s.labels["target"]: s.value for s in families["folioscope_check_success"].samples}
    assert list(by_target.values()) == [1, 1, 0]
    assert any("\\x1b[31m" in name and '"b\\c<d>' in name for name in by_target)
    assert [s.value for s in families["folioscope_check_missing"].samples] == [3]
    assert {s.labels["target"] for s in families["folioscope_check_info"].samples} == set(list(by_target)[:2])
    assert text.isascii() or "\x1b" not in text


READ: dict[str, Callable[[str], Any]] = {
    "junit": lambda text: JUnitXml.fromstring(text.encode()),
    "sarif": Sarif.model_validate_json,
    "prometheus": lambda text: list(text_string_to_metric_families(text)),
}


@pytest.mark.parametrize("name", READ)
def test_command(name: str, run: Run, core: Callable[[str], str], tmp_path: Path) -> None:
    sound_one = run("check", "--format", name, core("6.12"))
    assert (sound_one.code, sound_one.err) == (0, "")
    READ[name](sound_one.out)
    gone = str(tmp_path / "gone")
    both = run("check", "--format", name, gone, core("6.12"), "-r", "refcount-invalid")
    assert both.code == 3
    assert both.err.count("\n") == 1
    assert gone in both.out
    READ[name](both.out)
    assert run("check", "--format", name, core("6.12"), "-r", "zzz").code == 2
    assert run("info", "--format", name, "-c", core("6.12")).code == 2


def test_findings_are_never_left_out(report: Report) -> None:
    """Each finding of a rule is in each document, also where a rule has several."""
    (finding,) = report.findings
    more: list[Finding] = [
        msgspec.structs.replace(finding, subject=msgspec.structs.replace(finding.subject, pfn=0xABC00 + nth))
        for nth in range(3)
    ]
    target = CheckedTarget("x", msgspec.structs.replace(report, findings=more), 0.0)
    for render in (render_junit, render_sarif):
        text = render([target])
        assert all(f"0xabc0{nth}" in text for nth in range(3))
    assert 'rule="mapcount-too-high",severity="fail"} 3' in render_prometheus([target])
