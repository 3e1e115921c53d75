"""The formulas for people give what the columns of `expect` give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.model.expectation import Rebuilt, expect
from inspector.model.formulas import Mapped, folio_formulas, page_formula, word_text
from inspector.model.scheme import Scheme


@given(
    scheme=st.sampled_from(list(Scheme)),
    pages=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    entire=st.integers(0, 3),
    hugetlb=st.booleans(),
    anon=st.booleans(),
    double=st.booleans(),
)
def test_the_formulas_are_those_of_expect(
    scheme: Scheme, pages: list[int], entire: int, hugetlb: bool, anon: bool, double: bool
) -> None:
    pages = [0] * 4 if hugetlb else pages
    rebuilt = Rebuilt(
        page_mappings=np.array(pages, np.int32),
        head_row=np.array([0]),
        order=np.array([2], np.uint8),
        entire=np.array([entire], np.int32),
        is_hugetlb=np.array([hugetlb]),
        is_anon=np.array([anon]),
        double_map=np.array([double]),
    )
    expected = expect(scheme, rebuilt, np.zeros(4, np.int32))
    mapped = Mapped(4, entire, 0, sum(pages), sum(p > 0 for p in pages), hugetlb, anon, double)
    found = {f.field.lstrip("_"): f.expected_raw for f in folio_formulas(scheme, mapped)}
    entire_raw = found.get("entire_mapcount", found.get("compound_mapcount"))
    assert entire_raw == expected.entire_raw[0]
    assert ("large_mapcount" in found) == scheme.has_large_mapcount
    assert found.get("large_mapcount", -1) == (expected.large_raw[0] if scheme.has_large_mapcount else -1)
    word = found.get("nr_pages_mapped", found.get("subpages_mapcount", 0))
    assert word == expected.word_raw[0]
    raws = [page_formula(scheme, mapped, p).expected_raw for p in pages]
    assert raws == expected.page_mapcount_raw.tolist()


def test_a_formula_reads_with_its_numbers() -> None:
    mapped = Mapped(512, 2, 0, 37, 17, is_anon=True)
    entire, large, word = folio_formulas(Scheme.LARGE, mapped)
    assert entire.text() == "_entire_mapcount + 1 = PMD 2 = 2"
    assert large.text(38) == "_large_mapcount + 1 = PTE 37 + PMD 2 = 39"
    assert large.text(39) == "_large_mapcount + 1 = PTE 37 + PMD 2 = 39, stored 40"
    assert word.text(0x800011) == "_nr_pages_mapped = pages mapped by PTEs 17 + mapped as a whole 0x800000 = 0x800011"
    assert word.text(17).endswith("= 0x800011, stored 17")


def test_6_1_adds_the_double_map_and_huge_mappings_of_files() -> None:
    anon = Mapped(512, 1, 0, 3, 2, is_anon=True, double_map=True)
    assert page_formula(Scheme.OLD, anon, 1).text() == "_mapcount + 1 = PTE 1 + PG_double_map 1 = 2"
    file = Mapped(512, 2, 0, 3, 2)
    assert page_formula(Scheme.OLD, file, 1).text() == "_mapcount + 1 = PTE 1 + PMD 2 = 3"
    assert page_formula(Scheme.OLD, file, 1, small=True).text() == "_mapcount + 1 = PTE 1 = 1"


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (0, "0 pages mapped by PTEs"),
        (3, "3 pages mapped by PTEs"),
        (0x800000, "mapped as a whole"),
        (0x800011, "mapped as a whole, 17 pages mapped by PTEs"),
        (0x1000000, "mapped as a whole 2 times over: only a race or damage does that"),
        (-1, "negative: more was taken away than added"),
    ],
)
def test_the_word_in_words(word: int, text: str) -> None:
    assert word_text(word) == text
