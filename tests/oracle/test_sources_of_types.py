"""Debug info, BTF alone and the captured fixture: three ways to the same answer."""

from __future__ import annotations

import pytest

from inspector.check.run import run_check
from inspector.findings import Report
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.fixtures import KERNELS, fixture_path
from tests.guests import dump_path


def checked(path: str, **options: object) -> Report:
    report = run_check(Snapshot(open_core(path, **options)))  # type: ignore[arg-type]
    assert [f.rule for f in report.findings] == []
    assert report.exit_code == 0
    assert report.coverage.complete
    return report


@pytest.mark.parametrize("kernel", KERNELS)
def test_fixture_is_consistent(kernel: str) -> None:
    report = checked(str(fixture_path(kernel)))
    assert report.target["types_from"] == "BTF"
    applied = [c for c in report.coverage.rules if c.state != "not-applicable"]
    assert len(applied) > 50
    assert all(c.state == "done" for c in applied)


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
def test_three_ways_to_the_same_summary(kernel: str) -> None:
    path = str(dump_path(kernel, "rest"))
    btf = checked(path, types="btf")
    dwarf = checked(path, symbols=[str(dump_path(kernel, "rest").with_name("vmlinux"))], types="dwarf")
    assert (btf.target["types_from"], dwarf.target["types_from"]) == ("BTF", "DWARF")
    assert btf.summary == dwarf.summary
    assert btf.coverage == dwarf.coverage


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_in_a_busy_dump_is_graded_fail(kernel: str) -> None:
    report = run_check(Snapshot(open_core(str(dump_path(kernel, "busy")))))
    assert [f.rule for f in report.findings if f.severity == "fail"] == []
