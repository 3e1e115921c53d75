"""What planted faults amount to: counts and references together tell a lost entry from a count that was raised."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inspector.check.run import run_check
from inspector.findings import Finding
from inspector.layout.flags import type_code
from inspector.report.check import render_finding
from inspector.report.screen import Screen
from tests.faults.counter_catalogue import cpu_page
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, core_path, page_word, pfn_of, planted, put, sound

VERDICTS = {
    "only-pte-of-a-page-lost": "leaked mapping",
    "one-pte-of-a-shared-file-page-lost": "leaked mapping",
    "pmd-of-a-thp-lost": "leaked mapping",
    "mapcount-of-a-private-page-raised": "leaked count",
    "entire-mapcount-of-an-anon-thp-raised": "leaked count",
    "mapcount-of-a-shared-file-page-lowered": "underflow",
    "refcount-below-mapcount": "reference lost",
    "pte-to-a-free-page": "early free",
    "thp-freed-while-its-pages-are-mapped": "early free",
    "free-page-referenced": "freed in use",
    "shared-page-marked-exclusive": "COW break",
    "private-mapping-writes-the-page-cache": "wrong kind",
    "index-of-a-private-page-shifted": "rmap lost",
}


def only(path: str, name: str) -> Finding:
    findings = run_check(planted(path, *CATALOGUE[name](sound(path)).patches)).findings
    assert len(findings) == 1
    return findings[0]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", sorted(VERDICTS))
def test_verdict(kernel: str, name: str) -> None:
    found = only(core_path("fixture", kernel), name)
    assert found.diagnosis is not None
    assert found.diagnosis.verdict == VERDICTS[name]
    assert found.diagnosis.because


def test_reasons_are_shown(core: Callable[[str], str]) -> None:
    found = only(core("7.3"), "only-pte-of-a-page-lost")
    assert found.diagnosis is not None
    text = "\n".join(render_finding(Screen(width=200), found))
    assert "diagnosis: leaked mapping" in text
    assert all(reason in text for reason in found.diagnosis.because)


def test_page_on_two_lists_is_freed_twice(core: Callable[[str], str]) -> None:
    path = core("7.3")
    s = sound(path)
    buddy = next(row for row in s.buddy.blocks.row.tolist())
    pfn = pfn_of(s, cpu_page(s))
    assert s.pages.type_[buddy] == type_code("buddy")
    word = int(s.pages.mapcount_raw[buddy])
    patch = put(s, page_word(s, pfn, "_mapcount.counter", "_mapcount"), word, 4)
    findings = run_check(planted(path, patch)).findings
    assert [(f.rule, f.diagnosis and f.diagnosis.verdict) for f in findings] == [
        ("cpu-free-page-state-unexpected", "double free")
    ]


def test_no_verdict_where_the_finding_says_all(core: Callable[[str], str]) -> None:
    assert only(core("7.3"), "free-pages-of-a-zone-miscounted").diagnosis is None
