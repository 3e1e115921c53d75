"""Each planted fault gives exactly one finding: the right rule, the right folio, and the mappings behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inspector.check.run import run_check
from inspector.findings import Report
from inspector.rules import all_rules
from tests.faults.conftest import FRESH
from tests.faults.corpus import CORPUS
from tests.faults.every import ABSENT, CATALOGUE
from tests.faults.matrix import MATRIX, parse, render
from tests.faults.overlay import KERNELS, core_path, planted, sound
from tests.faults.plants import MissingError, Planted


@pytest.fixture(
    params=[
        *(pytest.param(("fixture", k), id=f"fixture-{k}") for k in KERNELS),
        *(pytest.param(("rest", k), id=f"guest-{k}", marks=FRESH) for k in KERNELS),
    ]
)
def dump(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    where, kernel = request.param
    yield core_path(where, kernel), kernel


def checked(path: str, fault: Planted) -> Report:
    return run_check(planted(path, *fault.patches))


def _lacks(kernel: str, *, name: str, **_where: object) -> bool:
    return name in ABSENT[kernel]


@pytest.mark.each_kernel(where=_lacks)
@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_one_fault_gives_one_finding(dump: tuple[str, str], name: str) -> None:
    path, kernel = dump
    try:
        fault = CATALOGUE[name](sound(path))
    except MissingError as lacking:
        assert ABSENT[kernel].get(name) == str(lacking)
        return
    assert name not in ABSENT[kernel]
    report = checked(path, fault)
    found = report.findings
    told = [(f.rule, f.evidence.also) for f in report.findings]
    assert len(report.findings) == 1, told
    assert found[0].rule in fault.rules, told
    assert found[0].severity == fault.severity
    assert report.exit_code == (0 if fault.severity == "info" else 1)
    if "fixtures" in path:
        rule = found[0].rule if fault.severity == "fail" else f"{found[0].rule} ({fault.severity})"
        assert parse(MATRIX.read_text("utf-8"))[name, kernel] == rule, "python -m tests.faults"
    if fault.pfn is not None:
        heads = {found[0].subject.pfn, fault.pfn}
        folio = sound(path).pages.memmap.row(fault.pfn)
        head = sound(path).pages.head_row[folio] if folio >= 0 else -1
        assert found[0].subject.pfn in heads | {int(head)}, told
        assert found[0].subject.pfn == fault.pfn or found[0].subject.order, told
    assert found[0].observed
    assert found[0].look.startswith("folioscope ")


def test_counter_findings_offer_the_mappings_that_prove_them() -> None:
    path = core_path("fixture", "7.3")
    fault = CATALOGUE["mapcount-of-a-shared-file-page-lowered"](sound(path))
    finding = checked(path, fault).findings[0]
    assert finding.expected["_mapcount"] == finding.observed["_mapcount"] + 1  # type: ignore[operator]
    assert finding.evidence.nr_mappings == int(finding.expected["_mapcount"] or 0) + 1
    assert all(m.pfn == fault.pfn for m in finding.evidence.mappings)
    assert {m.level for m in finding.evidence.mappings} == {"PTE"}


def test_matrix_is_of_these_faults_and_bugs() -> None:
    text = MATRIX.read_text("utf-8")
    assert render(parse(text)) == text, "python -m tests.faults"


def test_every_bug_is_planted_or_says_why_not() -> None:
    for bugs in CORPUS.values():
        for bug in bugs:
            assert bool(bug.faults) != bool(bug.why_not), bug.what
            assert set(bug.faults) <= set(CATALOGUE), bug.what


def test_every_rule_is_planted_or_tested_somewhere() -> None:
    """A rule that no test names could be dead without anybody noticing."""
    tests = "".join(p.read_text() for p in Path(__file__).parents[1].rglob("*.py") if p != Path(__file__))
    assert [r.slug for r in all_rules() if f'"{r.slug}"' not in tests] == []
