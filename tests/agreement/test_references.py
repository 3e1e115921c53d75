"""How many references a folio must have: one number, whoever is asked."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.report.explain import build_explanation
from inspector.report.folio import build_folio
from inspector.report.pages import build_place
from inspector.snapshot import Snapshot
from inspector.walk.page_cache import CachedFolios, cached_folios
from inspector.walk.page_numbers import NumberMeaning
from inspector.walk.references import EXPECTED, break_down, expected_references
from tests.faults.overlay import KERNELS, add, core_path, page_word, pfn_of, planted, sound


def cached_hugetlb(s: Snapshot) -> list[int]:
    """Rows of the heads of hugetlb folios that are in the page cache."""
    cached = CachedFolios.concat(list(cached_folios(s)))
    return [int(row) for row in s.folios.row[s.folios.is_hugetlb] if (cached.head_row == row).any()]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_cached_hugetlb_folio_has_a_reference_for_each_index(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    rows = cached_hugetlb(s)
    assert len(rows) >= 3
    expected = expected_references(s, np.array(rows))
    # hugetlb counts indices in its own page size up to 6.6.
    assert expected.terms["page_cache"].tolist() == [1 if kernel == "6.1" else 512] * len(rows)
    assert (s.pages.refcount[rows] == expected.total).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_cached_hugetlb_folio_with_too_few_references(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    row = next(r for r in cached_hugetlb(s) if s.folio_totals[s.folio_of_page[r]])
    pfn, stored = pfn_of(s, row), int(s.pages.refcount[row])
    lost = 1 if kernel == "6.1" else 100
    field = page_word(s, pfn, "_refcount.counter", "_refcount")
    broken = planted(core_path("fixture", kernel), add(s, field, -lost, 4))
    (finding,) = run_check(broken).findings
    assert (finding.rule, finding.subject.pfn, finding.severity) == ("refcount-low", pfn, "fail")
    assert (finding.observed, finding.expected) == ({"_refcount": stored - lost}, {"at_least": stored})
    assert finding.diagnosis is not None
    assert finding.diagnosis.verdict == "reference lost"
    place = build_place(broken, f"{pfn:#x}", NumberMeaning("pfn", pfn, 0, "as given"), [])
    short = next(x for x in build_folio(broken, place).counters if x.name == "_refcount")
    assert (short.stored, short.expected, short.verdict) == (stored - lost, stored, "WRONG")
    long = next(x for x in build_explanation(broken, pfn).ledger if x.counter == "_refcount")
    assert (long.stored, long.expected, long.verdict) == (stored - lost, stored, "WRONG")
    assert long.formula.endswith(f"{lost} too few")


def test_the_folio_of_the_report_of_7_3() -> None:
    s = sound(core_path("fixture", "7.3"))
    field = page_word(s, 0x5800, "_refcount.counter", "_refcount")
    broken = planted(core_path("fixture", "7.3"), add(s, field, -100, 4))
    (finding,) = run_check(broken).findings
    assert (finding.rule, finding.subject.pfn) == ("refcount-low", 0x5800)
    assert (finding.observed, finding.expected) == ({"_refcount": 413}, {"at_least": 513})


@pytest.mark.parametrize("kernel", KERNELS)
def test_terms_of_expected_references_are_those_of_the_break_down(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    t = s.reference_terms
    apart = expected_references(s, t.rows)
    assert tuple(apart.terms) == EXPECTED == tuple(t.terms)[: len(EXPECTED)]
    for name in EXPECTED:
        assert (t.terms[name] == apart.terms[name]).all()
    assert (t.expected.total == apart.total).all()
    # Asked for alone a folio has the same numbers.
    for row in t.rows[:: len(t.rows) // 200]:
        one = break_down(s, np.array([row]))
        at = int(np.searchsorted(t.rows, row))
        assert {name: int(column[0]) for name, column in one.terms.items()} == {
            name: int(column[at]) for name, column in t.terms.items()
        }
