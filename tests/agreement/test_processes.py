"""What a question about one process reads gives the same answers as all page tables of all processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import pytest

from inspector.errors import UsageError
from inspector.places.processes import aim_at_mm, find_mm
from inspector.report.processes import VmasReport, build_vmas
from inspector.snapshot import Snapshot
from tests.agreement.planted import each_planted
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, core_path, sound


def asked_both_ways(s: Snapshot, step: int = 1) -> Iterator[tuple[VmasReport, VmasReport]]:
    """Of each ``step``-th mm, asked for by pid and by address: what all page tables say, and what its own do."""
    apart = Snapshot(s.target)
    for row in range(0, len(s.mms), step):
        whole = build_vmas(s, row)
        for number in {whole.pid or 0, whole.mm} - {0}:
            try:
                aimed = aim_at_mm(apart, number)
            except UsageError:
                # Where the task's own pointer is damaged, both refuse.
                with pytest.raises(UsageError):
                    find_mm(s, number)
                continue
            yield whole, build_vmas(aimed, 0)
    assert not {"mms", "vmas", "_vmas", "_walk", "_sweep"} & set(vars(apart))


@pytest.mark.parametrize("kernel", KERNELS)
def test_vmas_of_every_process(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    shared = locked = 0
    for whole, own in asked_both_ways(s):
        assert (whole.searched, own.searched) == ("all page tables", "own page tables")
        assert msgspec.structs.replace(own, searched="all page tables") == whole
        shared += sum(v.hugetlb_shared_kb for v in whole.vmas)
        locked += sum(v.locked_kb for v in whole.vmas)
    assert shared and locked


COUNTED = ("hugetlb_private_kb", "hugetlb_shared_kb", "locked_kb")
"""What a look at one process takes from stored counts, which a fault may have made untrue."""


def without_counted(report: VmasReport) -> VmasReport:
    rows = [msgspec.structs.replace(v, **dict.fromkeys(COUNTED, 0)) for v in report.vmas]
    return msgspec.structs.replace(report, vmas=rows, searched="all page tables", complete=True)


def hold(kernel: str, names: Iterable[str], step: int = 1) -> None:
    for name, _, s in each_planted(kernel, names):
        for whole, own in asked_both_ways(s, step):
            assert without_counted(own) == without_counted(whole), name
            assert own.complete or not whole.complete


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["ghost-mapping", "mapcount-of-a-shared-file-page-lowered"])
def test_vmas_of_every_process_with_a_fault(kernel: str, name: str) -> None:
    hold(kernel, [name])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "part", [pytest.param(n, marks=pytest.mark.whole if n else pytest.mark.long) for n in range(8)]
)
def test_vmas_of_some_processes_with_all_faults(kernel: str, part: int) -> None:
    # Each fault on one of the kernels, and few processes with each: all of them would take an hour.
    hold(kernel, sorted(CATALOGUE)[KERNELS.index(kernel) :: len(KERNELS)][part::8], 16)
