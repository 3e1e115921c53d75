"""Damage as it came from the field: edits of one captured dump, and the one finding that each must give."""

from __future__ import annotations

import pytest

from inspector.check.run import run_check
from inspector.findings import Finding
from inspector.places.processes import aim_at_mm, find_mm
from inspector.report.explain import build_explanation
from inspector.report.processes import build_vmas
from tests.faults.overlay import core_path, planted
from tests.faults.test_stretches import edits


def only(name: str) -> Finding:
    (found,) = run_check(planted(core_path("fixture", "7.3"), *edits(name))).findings
    assert found.severity == "fail"
    return found


def _decided(name: str, pfn: int) -> tuple[str, str]:
    """Whether the kernel would migrate and reclaim a folio."""
    explained = build_explanation(planted(core_path("fixture", "7.3"), *edits(name)), pfn, check=False)
    answers = {d.question: d.answer for d in explained.decisions}
    return answers["migrate"], answers["reclaim"]


def test_a_free_page_that_a_memory_cgroup_is_charged_for() -> None:
    found = only("free_memcg.7.3")
    assert (found.rule, found.subject.pfn) == ("free-page-state-unexpected", 0x10003)
    assert found.observed["memcg_data"] == 0xFFFF89604122DB00
    assert found.diagnosis is not None
    assert "a memory cgroup is charged for it still" in found.diagnosis.because


def test_a_tail_of_a_hugetlb_folio_without_tail_mapping() -> None:
    found = only("hugetlb_tail_mapping.7.3")
    assert (found.rule, found.subject.pfn) == ("tail-page-damaged", 0x4804)
    assert (found.observed["mapping"], found.expected["mapping"]) == (0, 0xDEAD000000000400)


def test_rss_counters_kept_in_the_words_of_another_process() -> None:
    found = only("rss_pointer_alias.7.3")
    assert (found.rule, found.subject.pid) == ("rss-mismatch", 304)
    assert str(found.evidence.facts["per_cpu_words"]).startswith("those of pid 172 (")


def test_a_folio_left_locked() -> None:
    found = only("folio_locked.7.3")
    assert (found.rule, found.subject.pfn) == ("folio-lock-holder-missing", 0x3442)
    assert _decided("folio_locked.7.3", 0x3442) == ("no", "no")


def test_a_folio_left_under_writeback() -> None:
    found = only("folio_writeback.7.3")
    assert (found.rule, found.subject.pfn) == ("folio-writeback-unexpected", 0x3442)
    assert _decided("folio_writeback.7.3", 0x3442) == ("no", "no")


@pytest.mark.parametrize(
    ("name", "writer"), [("vma_reader.7.3", False), ("vma_writer_waits.7.3", True)], ids=["reader", "writer"]
)
def test_the_lock_of_a_vma_that_nobody_holds(name: str, writer: bool) -> None:  # noqa: FBT001  (a parameter)
    found = only(name)
    assert (found.rule, found.subject.pid, found.subject.va) == ("vma-lock-holder-missing", 168, 0x7FCC8D936000)
    assert (found.observed["readers"], found.observed["writer"]) == (1, writer)
    s = planted(core_path("fixture", "7.3"), *edits(name))
    for report in (build_vmas(s, find_mm(s, 168)), build_vmas(aim_at_mm(s, 168), 0)):
        shown = {vma.start: vma.lock for vma in report.vmas if vma.lock}
        assert shown == {0x7FCC8D936000: "writer, 1 reader, no such task" if writer else "1 reader, no such task"}


def test_a_page_that_belongs_to_nobody() -> None:
    found = only("limbo.7.3")
    assert (found.rule, found.subject.pfn) == ("page-owner-missing", 0x25D6)
