"""Kernels that are sound give no finding: the zoo at rest, and the zoo and the busy guest at random moments."""

from __future__ import annotations

import pytest

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.fixtures import KERNELS
from tests.guests.kernels import kernel_named
from tests.guests.silence import moments, row
from tests.guests.zoo import ZOO, ZOO_RACES

MOMENTS = 3

LACKING = {
    "6.1": {"zoo-bpf-arena", "zoo-mseal", "zoo-uffd-left", "zoo-uffd-async", "zoo-uffd-move-swap"},
    "6.12": set[str](),
    "7.3": set[str](),
}
"""What a kernel has no interface for."""


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
def test_zoo_holds_all_that_its_kernel_can(kernel: str) -> None:
    facts = ZOO.facts(kernel)
    held = {name for name in facts["ready"] if name.startswith("zoo-")}
    skipped = {name for name in facts["skipped"] if name.startswith("zoo-")} - {"zoo-races"}
    assert facts["failed"] == {}
    assert skipped == LACKING[kernel]
    assert len(held) + len(skipped) == 36


@pytest.mark.guest
@pytest.mark.parametrize("kernel", KERNELS)
def test_zoo_at_rest_is_consistent(kernel: str) -> None:
    report = run_check(Snapshot(open_core(str(ZOO.path(kernel)), types="btf")))
    assert report.findings == []
    assert report.coverage.complete
    assert report.exit_code == 0


@pytest.mark.guest
@pytest.mark.race
@pytest.mark.parametrize("kernel", KERNELS)
def test_racing_zoo_has_no_failure(kernel: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = list(moments(kernel_named(kernel), ZOO_RACES, MOMENTS))
    with capsys.disabled():
        print("", *map(row, seen), sep="\n  ")
    assert len(seen) == MOMENTS
    assert [f for moment in seen for f in moment.report.findings if f.severity == "fail"] == []
    assert all(int(moment.report.summary["leaf_entries"] or 0) > 5_000 for moment in seen)
