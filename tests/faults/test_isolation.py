"""Two top page tables for each process: on a captured kernel made to look isolated, and on one that is."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.arch.x86_64 import NX, X86_64
from inspector.check.run import run_check
from inspector.columns import I64, U64
from inspector.findings import Finding
from inspector.snapshot import Snapshot
from inspector.target.target import open_qemu
from tests.faults.overlay import KERNELS, Patch, core_path, plant, planted, sound
from tests.guests.live import running_guest

RULE = "user-page-table-mismatch"


def _half(s: Snapshot, pfn: int) -> U64:
    data = s.layout.memory.read(pfn << 12, 2048, physical=True)
    assert data is not None
    return np.frombuffer(data, np.uint64)


def _isolated(s: Snapshot, spare: int) -> list[Patch]:
    """NX in every top entry, and the entries without it in free pages: the table of each mm ``spare`` pages on."""
    patches = []
    for row, pfn in enumerate(s.mms.pgd_pfn.tolist()):
        entries = _half(s, pfn)
        patches.append(Patch(pfn << 12, np.where(entries != 0, entries | NX, entries).tobytes(), True))
        patches.append(Patch((spare + row) << 12, entries.tobytes(), True))
    return patches


def _free_pages(s: Snapshot) -> int:
    """The first of as many free pages in a row as there are mms."""
    pfns = s.pages.memmap.pfns_of_rows(s.buddy_pages)
    need = len(s.mms)
    first = np.flatnonzero(pfns[need:] - pfns[:-need] == need)
    assert len(first)
    return int(pfns[first[0]])


def _checked(path: str, patches: list[Patch]) -> tuple[int, list[Finding]]:
    report = run_check(planted(path, *patches))
    return next(c.checked for c in report.coverage.rules if c.rule == RULE), report.findings


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_entry_is_held_against_its_twin(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    spare = _free_pages(s)

    def twin(_arch: X86_64, pfns: I64) -> I64:
        return spare + order[np.searchsorted(known[order], pfns)]

    known = s.mms.pgd_pfn
    order = np.argsort(known)
    monkeypatch.setattr(X86_64, "user_top_pfn", twin)
    patches = _isolated(s, spare)
    assert _checked(path, patches) == (len(s.mms), [])
    row = int(np.flatnonzero((s.mms.nr_tasks == 1) & ~s.mm_in_motion)[9])
    slot = int(np.flatnonzero(_half(s, int(known[row])))[1])
    lost = Patch(((spare + row) << 12) + 8 * slot, bytes(8), True)
    _, found = _checked(path, [*patches, lost])
    assert [(f.rule, f.severity, f.subject.mm) for f in found] == [(RULE, "fail", int(s.mms.addr[row]))]
    assert found[0].observed["user_entry"] == 0
    assert found[0].evidence.facts["va"] == slot << 39


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_that_isolates_nothing_has_no_second_table(kernel: str) -> None:
    assert _checked(core_path("fixture", kernel), []) == (0, [])


@pytest.mark.guest
@pytest.mark.parametrize("kernel", ["6.1", "7.3"])
def test_a_kernel_that_isolates(kernel: str) -> None:
    with running_guest(kernel, options="pti=on") as socket:
        target = open_qemu(str(socket), types="btf")
        s = Snapshot(target)
        report = run_check(s, [RULE])
        assert report.findings == []
        assert report.coverage.rules[0].checked == len(s.mms)
        row = int(np.flatnonzero((s.mms.nr_tasks == 1) & ~s.mm_in_motion)[9])
        pfn = int(s.mms.pgd_pfn[row]) + 1
        slot = int(np.flatnonzero(_half(s, pfn))[0])
        plant(target, Patch((pfn << 12) + 8 * slot, bytes(8), True))
        found = run_check(Snapshot(target), [RULE]).findings
        assert [(f.rule, f.subject.mm) for f in found] == [(RULE, int(s.mms.addr[row]))]
