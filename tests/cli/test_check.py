"""``check``: findings, exit codes, several cores."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import inspector.cli.opening
from inspector.findings import Report
from inspector.report.errors import ErrorReport
from tests.cli.conftest import Run
from tests.cli.planting import raised_mapcount
from tests.faults.overlay import sound


def report_of(printed: str) -> Report:
    """A report from its JSON, with the addresses that are printed as hex strings."""
    whole = re.sub('"(0x[0-9a-f]+)"', lambda found: str(int(found[1], 16)), printed)
    return msgspec.json.decode(whole, type=Report, strict=True)


def test_consistent(run: Run, any_core: str) -> None:
    result = run("check", any_core)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == "verdict     consistent"
    report = report_of(run("check", any_core, "--format", "json").out)
    assert (report.findings, report.exit_code, report.coverage.complete) == ([], 0, True)


@pytest.fixture
def damaged(core: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The 7.3 vmcore, opened with one _mapcount raised by one."""
    path = core("7.3")
    monkeypatch.setattr(inspector.cli.opening, "open_core", raised_mapcount(path))
    return path


def test_a_finding_names_stored_and_expected_and_the_mapping(run: Run, damaged: str) -> None:
    result = run("check", damaged)
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert "FAIL  mapcount-too-high" in lines
    assert any(line.split() == ["_mapcount", "1", "0"] for line in lines)
    assert lines[-1] == "verdict     1 finding"
    report = report_of(run("check", damaged, "--format", "json").out)
    (finding,) = report.findings
    assert (finding.rule, finding.observed, finding.expected) == (
        "mapcount-too-high",
        {"_mapcount": 1},
        {"_mapcount": 0},
    )
    assert finding.evidence.nr_mappings == len(finding.evidence.mappings) == 1
    assert f"folio {finding.subject.pfn:#x}" in finding.look
    folio = run(*finding.look.split()[1:])
    assert folio.code == 1
    assert "WRONG" in folio.out
    assert str(finding.evidence.mappings[0].pid) in folio.out


def test_rules_are_chosen_by_slug_and_group(run: Run, damaged: str) -> None:
    assert run("check", damaged, "-r", "compound").code == 0
    report = run("check", damaged, "-r", "mapcount", "--rule", "rss", "--format", "json").object
    assert {c["rule"] for c in report["coverage"]["rules"]} == {
        "mapcount-too-low",
        "mapcount-too-high",
        "mapcount-mapping-missing",
        "rss-mismatch",
        "rss-words-mismatch",
    }
    assert report["exit_code"] == 1


def test_several_cores(run: Run, damaged: str, core: Callable[[str], str], tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no core\n")
    absent, clean = str(text), core("6.12")
    result = run("check", clean, absent, damaged, "--format", "json")
    assert result.code == 3
    lines = result.out.splitlines()
    assert len(lines) == 3
    assert report_of(lines[0]).exit_code == 0
    error = msgspec.json.decode(lines[1], type=ErrorReport)
    assert (error.target, error.exit_code) == (absent, 3)
    assert report_of(lines[2]).exit_code == 1
    assert result.err == f"folioscope: error: this is a text file, not a vmcore: {absent}. Name a vmcore with -c.\n"
    assert run("check", clean, damaged, "-q").code == 1
    both = run("check", "-c", clean, clean)
    assert both.code == 0
    assert both.out.splitlines()[-1] == "2 targets: 2 consistent"
    mixed = run("check", absent, clean, damaged)
    assert mixed.out.splitlines()[-1] == "3 targets: 1 consistent, 1 with findings, 1 not opened"


def test_incomplete(run: Run, core: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    import drgn
    import numpy as np

    from inspector.target.target import Target, open_core

    def open_with_hole(path: str, symbols: object = (), *, types: object = "auto", cache: bool = False) -> Target:
        target = open_core(path, types="btf")
        tables = sound(path).tables
        lowest = int(tables.pfn[np.flatnonzero(tables.level == 1)[0]])

        def fault(address: int, _count: int, _offset: int, _physical: bool) -> bytes:
            raise drgn.FaultError("not in the dump", address)

        target.prog.add_memory_segment(lowest << 12, 4096, fault, True)
        return target

    monkeypatch.setattr(inspector.cli.opening, "open_core", open_with_hole)
    result = run("check", core("7.3"))
    assert (result.code, result.err) == (4, "")
    assert result.out.splitlines()[-1] == "verdict      nothing wrong found, but not everything could be checked"
    assert re.search(r"^unreadable +1 page table$", result.out, re.MULTILINE)
    assert json.loads(run("check", core("7.3"), "--format", "json").out)["coverage"]["missing"]["page tables"] == 1
    assert run("check", core("6.12"), core("7.3")).code == 4
