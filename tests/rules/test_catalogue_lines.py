"""Every invariant and every numbered line of the catalogue is decided by rules that exist, or says why it is not."""

from __future__ import annotations

import dataclasses
import json

import pytest

import inspector.rules  # noqa: F401  (declares the rules)
from inspector.check.run import run_check
from inspector.cli import main
from inspector.rules.catalogue import NOT_AUDITED, Invariant, catalogue
from inspector.rules.registry import all_rules, find_rule
from tests.faults.overlay import core_path, sound


@pytest.fixture(scope="module")
def lines() -> list[Invariant]:
    return catalogue()


def test_no_line_is_missing_or_repeated(lines: list[Invariant]) -> None:
    assert [x.id for x in lines] == [f"I{n}" for n in range(1, 19)] + [str(n) for n in range(1, 152)]


def test_each_line_has_rules_or_a_reason(lines: list[Invariant]) -> None:
    known = {rule.slug for rule in all_rules()}
    for line in lines:
        assert set(line.rules) <= known, line.id
        assert bool(line.rules) == (line.state in ("decided", "partly")), line.id
        assert bool(line.reason) == (line.state != "decided"), line.id
        assert len(set(line.rules)) == len(line.rules)


def test_each_rule_is_in_the_lines_that_it_decides(lines: list[Invariant]) -> None:
    of = {line.id: set(line.rules) for line in lines}
    for rule in all_rules():
        for line in rule.decides:
            assert rule.slug in of[line]


def test_a_line_that_lost_its_rules_is_not_decided() -> None:
    without = catalogue([rule for rule in all_rules() if "I12" not in rule.decides])
    assert [(x.state, x.reason) for x in without if x.id == "I12"] == [("later", "no rule checks it yet")]


def test_a_line_with_a_reason_is_never_wholly_decided() -> None:
    one = dataclasses.replace(find_rule("rss-mismatch"), decides=frozenset({"102"}))
    assert [(x.state, x.rules, bool(x.reason)) for x in catalogue([one]) if x.id == "102"] == [
        ("partly", ("rss-mismatch",), True)
    ]


def test_text_and_json_say_the_same(lines: list[Invariant], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "--catalogue"]) == 0
    text = capsys.readouterr().out
    assert main(["rules", "--catalogue", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [x["id"] for x in told["lines"]] == [x.id for x in lines]
    for line in lines:
        assert f"{line.id:>4}  {line.title}" in text
    assert "169 lines:" in text


def test_catalogue_of_one_rule_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "rss-mismatch", "--catalogue"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_no_rule_checks_is_named_by_a_check() -> None:
    """But for what only hints could be given about."""
    open_lines = {line.id for line in catalogue() if line.state == "later"}
    named = [name for lines in NOT_AUDITED.values() for name in lines]
    assert open_lines - set(named) == {"81"}
    assert set(named) <= open_lines
    assert len(named) == len(set(named))
    whole = run_check(sound(core_path("fixture", "7.3")))
    assert whole.coverage.not_audited == list(NOT_AUDITED)
    assert not run_check(sound(core_path("fixture", "7.3")), ["swap"]).coverage.not_audited
