"""Rules that need no walk of all page tables are run by other processes while this one is at that walk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from inspector import workers
from inspector.check import run
from inspector.check.aside import RulesAside
from inspector.check.prepare import prepare
from inspector.check.run import take_look, violations_of
from inspector.rules import Rule, all_rules
from inspector.rules.page_pieces import PagesPredicate
from inspector.snapshot import Snapshot, WholeWalkError
from inspector.target.target import open_core
from inspector.violations import Violations
from inspector.walk import batches
from tests.faults.overlay import core_path
from tests.rules.broken import broken, with_holes


@pytest.fixture(autouse=True)
def _is_shared_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(batches, "WORTH_SHARING", 2)
    monkeypatch.setattr(batches, "RUNS_KEPT", 0)
    # As if there were enough to do for the other process in the meantime.
    monkeypatch.setattr(workers.Share, "some_left", lambda _: True)
    workers.use_workers(2)
    yield
    workers.use_workers(None)


def sound() -> Snapshot:
    return Snapshot(open_core(core_path("fixture", "7.3"), types="btf"))


def run_here(s: Snapshot, monkeypatch: pytest.MonkeyPatch) -> set[Rule]:
    """Take a look, and say which rules this process ran itself."""
    here, parent = set(), os.getpid()

    def noted(s: Snapshot, rule: Rule) -> Violations:
        if os.getpid() == parent:
            here.add(rule)
        return violations_of(s, rule)

    monkeypatch.setattr(run, "violations_of", noted)
    take_look(s, all_rules())
    return here


def test_rules_that_hold_are_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    s = sound()
    here = run_here(s, monkeypatch)
    others = [r for r in all_rules() if not r.applies(s.scheme) and not isinstance(r.predicate, PagesPredicate)]
    assert sum(rule not in here for rule in others) > len(others) // 2


def test_rules_that_find_something_are_run_where_their_tables_are_then(monkeypatch: pytest.MonkeyPatch) -> None:
    s = broken("7.3")
    here = run_here(s, monkeypatch)
    found = {rule for rule in all_rules() if not rule.applies(s.scheme) and len(violations_of(s, rule))}
    assert found
    assert found <= here


def test_nothing_is_taken_from_others_that_could_not_read_something(monkeypatch: pytest.MonkeyPatch) -> None:
    s = with_holes("7.3")
    run_here(s, monkeypatch)
    assert s.missing.counts == _missing_alone()


def _missing_alone() -> dict[str, int]:
    workers.use_workers(1)
    s = with_holes("7.3")
    take_look(s, all_rules())
    return s.missing.counts


def test_no_rule_is_begun_when_nothing_is_left_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.Share, "some_left", lambda _: False)
    s = sound()
    here = run_here(s, monkeypatch)
    assert here == {rule for rule in all_rules() if not rule.applies(s.scheme)}


def test_a_rule_that_wants_the_walk_is_left_for_later() -> None:
    s = sound()
    prepare(s, lambda *_: None, 0)
    wanting = next(rule for rule in all_rules() if rule.collects)
    asked: list[Rule] = []

    def walk(s: Snapshot, rule: Rule) -> Violations:
        asked.append(rule)
        raise WholeWalkError

    aside = RulesAside(s, [wanting], walk)
    aside.begin()
    try:
        assert aside.do(lambda: True) == []
    finally:
        aside.end()
    assert asked == [wanting]
    aside.done([[]])
    assert not aside.held


def test_tables_that_only_rules_aside_built_are_not_kept() -> None:
    s = sound()
    prepare(s, lambda *_: None, 0)
    known = set(vars(s))

    class Builds:
        def begin(self) -> None:
            """Nothing."""

        def do(self, some_left: Callable[[], bool]) -> bool:
            with pytest.raises(WholeWalkError):
                s.collected(next(make for rule in all_rules() for make in rule.collects))
            return len(s.files.entries) > 0

        def done(self, results: list[bool]) -> None:
            """Nothing."""

        def end(self) -> None:
            """Nothing."""

    assert s.do_aside(Builds(), lambda: True)
    assert set(vars(s)) == known
