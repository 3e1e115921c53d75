"""Reports as text: layout, hostile strings, words of the verdict."""

from __future__ import annotations

import pytest

from inspector.findings import Coverage, Evidence, Finding, Mapping, Report, RuleCoverage, Subject
from inspector.model.scheme import Scheme
from inspector.report.check import render_report, show, subject_words
from inspector.report.rules import kernels
from inspector.report.screen import Screen, TableColumn, render_facts, render_table

EVIL = "evil\x1b[2J\nname"


def finding(**changes: object) -> Finding:
    base: dict[str, object] = {
        "rule": "mapcount-too-low",
        "severity": "fail",
        "exactness": "exact",
        "subject": Subject("page", pfn=0x1234, page=0xFFFFEA0000048D00, order=0),
        "title": "A page is mapped",
        "observed": {"_mapcount": 0},
        "expected": {"_mapcount": 1},
        "evidence": Evidence(
            {"mappings": 2}, [Mapping(1, 0x1000, "PTE", 0x1234, 0x67, pid=7, comm=EVIL)], 3, ["rss-mismatch"]
        ),
        "look": "folioscope -k folio 0x1234",
    }
    return Finding(**{**base, **changes})  # type: ignore[arg-type]  # fields by name


def report(findings: list[Finding], exit_code: int, rules: list[RuleCoverage] | None = None) -> Report:
    coverage = Coverage(exit_code != 4, {"page tables": 2} if exit_code == 4 else {}, rules or [], [EVIL])
    target = {"path": "/x", "release": "6.1", "architecture": "x86_64", "types_from": "BTF", "scheme": None}
    return Report("folioscope.check/2", target, coverage, {"mms": 1}, findings, exit_code)  # type: ignore[arg-type]


def text(screen: Screen, what: Report) -> str:
    return "\n".join(render_report(screen, what))


def test_a_finding_shows_everything() -> None:
    lines = text(Screen(), report([finding()], 1)).splitlines()
    assert "FAIL  mapcount-too-low" in lines
    assert "      page pfn 0x1234 (4660), struct page 0xffffea0000048d00" in lines
    assert "      ... and 2 more entries" in lines
    assert "      also breaks: rss-mismatch" in lines
    assert "      look: folioscope -k folio 0x1234" in lines
    assert any(
        line.split() == ["7", "evil\\x1b[2J\\nname", "0x1000", "PTE", "0x1234", "+0", "0x0000000000000067"]
        for line in lines
    )
    assert lines[-1] == "verdict     1 finding"


def test_nothing_of_the_kernel_reaches_the_terminal_raw() -> None:
    hostile = finding(
        rule=EVIL,
        title=EVIL,
        subject=Subject("mm", pid=1, comm=EVIL, mm=2, name=EVIL),
        observed={EVIL: EVIL},
        expected={EVIL: EVIL},
        evidence=Evidence({EVIL: EVIL}, [], 0, []),
        look=EVIL,
    )
    shown = text(Screen(), report([hostile], 1, [RuleCoverage("r", 0, 5, "partial", EVIL)]))
    assert all(line.isprintable() for line in shown.splitlines())
    assert "evil\\x1b[2J\\nname" in shown


@pytest.mark.parametrize(
    ("findings", "code", "verdict"),
    [
        ([], 0, "consistent"),
        ([finding(severity="info", exactness="transient")], 0, "consistent (1 remark above)"),
        ([finding(), finding()], 1, "2 findings"),
        ([finding(count=5)], 1, "1 finding, 4 more of the same kind folded into them"),
        ([], 4, "nothing wrong found, but not everything could be checked"),
    ],
)
def test_verdicts(findings: list[Finding], code: int, verdict: str) -> None:
    assert text(Screen(), report(findings, code)).splitlines()[-1] == f"verdict     {verdict}"


def test_colour_changes_no_text() -> None:
    import re

    plain = text(Screen(), report([finding()], 1))
    colored = text(Screen(color=True), report([finding()], 1))
    assert plain != colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain


def test_coverage_says_why() -> None:
    rules = [
        RuleCoverage("a", 10),
        RuleCoverage("b", 10, 3, "partial", "struct pages are missing"),
        RuleCoverage("c", 0, state="not-applicable", reason="kernels do not keep this"),
    ]
    shown = " ".join(text(Screen(), report([], 4, rules)).split())
    assert "2 run, 1 not applicable: c (kernels do not keep this)" in shown
    assert "partial b: struct pages are missing (10 checked, 3 not)" in shown
    assert "unreadable 2 page tables" in shown


def test_values() -> None:
    assert show("head_pfn", 16) == "0x10 (16)"
    assert show("head_pfn", -1) == "-1"
    assert show("x", True) == "yes"
    assert show("x", None) == "unknown"
    assert show("entry", 0x8000000000000067) == "0x8000000000000067"
    assert show("_mapcount", -1) == "-1"
    assert subject_words(Subject("anon_vma", address=0x1000)) == "anon vma at 0x1000"


def test_tables() -> None:
    columns = (TableColumn("name"), TableColumn("n", right=True), TableColumn("empty"))
    assert list(render_table(Screen(), columns, [("漢", "1", ""), ("abc", "22", "")])) == [
        "name   n",
        "漢     1",
        "abc   22",
    ]
    assert list(render_facts(Screen(), [("a", "one"), ("long", "")])) == ["a     one", "long"]


def test_kernels_of_rules() -> None:
    assert kernels(None) == "all"
    assert kernels(frozenset(Scheme)) == "all"
    assert kernels(frozenset({Scheme.OLD})) == "up to 6.1"
    assert kernels(frozenset({Scheme.LARGE, Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT})) == "6.10+"
    assert kernels(frozenset(set(Scheme) - {Scheme.NO_PAGE_MAPCOUNT})) == "all with page counts"
