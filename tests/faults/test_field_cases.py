"""Damage as it came from the field: edits of one captured dump, and the one finding that each must give."""

from __future__ import annotations

from inspector.check.run import run_check
from inspector.findings import Finding
from tests.faults.overlay import core_path, planted
from tests.faults.test_stretches import edits


def only(name: str) -> Finding:
    (found,) = run_check(planted(core_path("fixture", "7.3"), *edits(name))).findings
    assert found.severity == "fail"
    return found


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
