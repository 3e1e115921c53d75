"""Rules are pure: tables in, violations out. They read nothing of the target, and none sees that others ran."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import pytest

from inspector.check.run import run_check
from inspector.findings import Report
from inspector.rules import Rule, all_rules
from inspector.rules.needs import lacking
from inspector.snapshot import Snapshot
from inspector.violations import Violations
from tests.faults.overlay import KERNELS
from tests.rules.broken import broken, same, with_holes

DUMPS = {"broken": broken, "with-holes": with_holes}


RULES = Path(__file__).resolve().parents[2] / "inspector" / "rules"


def test_no_rule_names_the_target_its_memory_or_a_tally() -> None:
    found = [
        f"{path.relative_to(RULES)}:{node.lineno}: {ast.unparse(node)}"
        for path in sorted(RULES.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("target", "memory", "variable", "prog", "missing")
        and ast.unparse(node.value) in ("s", "s.layout", "s.target", "p.s", "p.s.layout", "e.s", "e.s.layout")
    ]
    assert found == []


def results(s: Snapshot, rules: list[Rule]) -> dict[str, tuple[Violations, str]]:
    """What each rule finds, and what it lacks."""
    return {r.slug: (r.run(s), lacking(s, r.needs)) for r in rules if not r.applies(s.scheme)}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dump", DUMPS)
def test_rules_read_nothing_and_find_the_same_in_any_order(
    dump: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = DUMPS[dump](kernel)
    first = results(s, all_rules())
    counts, notes = dict(s.missing.counts), list(s.missing.notes)
    monkeypatch.setattr(s.layout.memory, "_read", read)
    again = results(s, all_rules())
    assert (s.missing.counts, s.missing.notes) == (counts, notes)
    backwards = results(DUMPS[dump](kernel), all_rules()[::-1])
    for slug, (found, gone) in first.items():
        assert same(found, again[slug][0]), slug
        assert same(found, backwards[slug][0]), slug
        assert gone == again[slug][1] == backwards[slug][1], slug
    if dump == "broken":
        assert sum(len(found) > 0 for found, _ in first.values()) > len(first) / 2


def read(address: int, size: int, _physical: bool = False) -> NoReturn:
    raise AssertionError(f"a rule reads {size} bytes at {address:#x}")


QUICK = ("anon-index-mismatch", "refcount-low", "rss-mismatch", "vma-unreachable")


@lru_cache(maxsize=1)
def full_check(kernel: str) -> Report:
    return run_check(with_holes(kernel))


@pytest.mark.parametrize(
    "slug",
    [pytest.param(r.slug, marks=() if r.slug in QUICK else pytest.mark.long) for r in all_rules()],
)
def test_a_rule_alone_covers_and_finds_what_it_does_among_all(slug: str) -> None:
    alone, together = run_check(with_holes("7.3"), [slug]), full_check("7.3")
    assert alone.coverage.rules == [x for x in together.coverage.rules if x.rule == slug]
    assert set(alone.coverage.notes) <= set(together.coverage.notes)
    # Among all it does not name what another rule is the cause of.
    known = [(f.subject, f.observed, f.expected) for f in alone.findings]
    assert all((f.subject, f.observed, f.expected) in known for f in together.findings if f.rule == slug)
