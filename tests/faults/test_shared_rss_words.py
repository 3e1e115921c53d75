"""An mm whose rss counters are kept in the per-CPU words of another: the finding says whose they are."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.findings import Finding
from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_SWAP
from tests.faults.overlay import Patch, core_path, planted, put, sound

PER_CPU = ("6.12", "7.3")
"""Kernels that keep the counters as percpu_counters (from 6.2 on)."""

COUNTERS = ("MM_FILEPAGES", "MM_ANONPAGES", "MM_SWAPENTS", "MM_SHMEMPAGES")


def two_mms(s: Snapshot) -> tuple[int, int]:
    """Two mms of one task each whose counters differ, per-CPU parts included."""
    rows = np.flatnonzero((s.mms.nr_tasks == 1) & ~s.mms.locked & (s.mms.rss > 0).any(axis=1))
    first = int(rows[0])
    other = next(int(row) for row in rows[1:] if (s.mms.rss[row] != s.mms.rss[first])[:2].all())
    return first, other


def pointed(s: Snapshot, mm: int, counter: int, words: int) -> Patch:
    field = s.layout.struct("struct mm_struct").field(f"rss_stat[{counter}].counters")
    return put(s, int(s.mms.addr[mm]) + field.offset, words)


def found(kernel: str, *patches: Patch) -> list[Finding]:
    report = run_check(planted(core_path("fixture", kernel), *patches))
    return [f for f in report.findings if f.severity != "info"]


@pytest.mark.parametrize("kernel", PER_CPU)
def test_all_counters_of_another_mm(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    mm, other = two_mms(s)
    findings = found(kernel, *(pointed(s, mm, at, int(s.mms.rss_words[other, at])) for at in range(len(COUNTERS))))
    assert [(f.rule, f.subject.pid) for f in findings] == [("rss-mismatch", int(s.mms.pid[mm]))]
    assert str(findings[0].evidence.facts["per_cpu_words"]).startswith(f"those of pid {int(s.mms.pid[other])} (")


@pytest.mark.parametrize("kernel", PER_CPU)
@pytest.mark.parametrize("counter", [0, 1])
def test_one_counter_of_another_mm(kernel: str, counter: int) -> None:
    s = sound(core_path("fixture", kernel))
    mm, other = two_mms(s)
    (finding,) = found(kernel, pointed(s, mm, counter, int(s.mms.rss_words[other, counter])))
    assert finding.subject.pid == int(s.mms.pid[mm])
    # What the CPUs hold may be the same by chance.
    assert finding.rule in ("rss-mismatch", "rss-words-mismatch")
    said = finding.evidence.facts if finding.rule == "rss-mismatch" else finding.observed
    assert str(said["per_cpu_words"]).startswith(f"{COUNTERS[counter]} of pid {int(s.mms.pid[other])} (")


@pytest.mark.parametrize("kernel", PER_CPU)
def test_a_counter_that_both_hold_at_zero(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    rows = np.flatnonzero((s.mms.nr_tasks > 0) & (s.mms.rss[:, RSS_SWAP] == 0))
    mm, other = int(rows[1]), int(rows[0])
    (finding,) = found(kernel, pointed(s, mm, RSS_SWAP, int(s.mms.rss_words[other, RSS_SWAP])))
    assert (finding.rule, finding.subject.pid) == ("rss-words-mismatch", int(s.mms.pid[mm]))
    assert str(finding.observed["per_cpu_words"]).startswith(f"MM_SWAPENTS of pid {int(s.mms.pid[other])} (")


@pytest.mark.parametrize("kernel", PER_CPU)
def test_another_counter_of_its_own(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    mm, _ = two_mms(s)
    findings = found(kernel, pointed(s, mm, 0, int(s.mms.rss_words[mm, 1])))
    assert [(f.rule, f.subject.pid) for f in findings] == [("rss-mismatch", int(s.mms.pid[mm]))]
    assert f"of pid {int(s.mms.pid[mm])} (" in str(findings[0].evidence.facts["per_cpu_words"])


@pytest.mark.parametrize("kernel", PER_CPU)
def test_counters_of_its_own_that_are_wrong(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    mm, _ = two_mms(s)
    field = s.layout.struct("struct mm_struct").field("rss_stat[1].count")
    findings = found(kernel, put(s, int(s.mms.addr[mm]) + field.offset, 1 << 40))
    assert [(f.rule, f.subject.pid) for f in findings] == [("rss-mismatch", int(s.mms.pid[mm]))]
    assert "per_cpu_words" not in findings[0].evidence.facts


def test_before_6_2_there_are_none() -> None:
    assert not sound(core_path("fixture", "6.1")).mms.rss_words.any()
