"""The generations of accounting and what each keeps."""

from __future__ import annotations

import pytest

from inspector.model.scheme import ENTIRELY_MAPPED, Scheme


@pytest.mark.parametrize(
    ("scheme", "word", "large", "ids", "pages", "double_map"),
    [
        (Scheme.OLD, False, False, False, True, True),
        (Scheme.SUBPAGES, True, False, False, True, False),
        (Scheme.RMAP68, True, False, False, True, False),
        (Scheme.LARGE, True, True, False, True, False),
        (Scheme.MM_IDS, True, True, True, True, False),
        (Scheme.NO_PAGE_MAPCOUNT, False, True, True, False, False),
    ],
)
def test_what_each_keeps(scheme: Scheme, word: bool, large: bool, ids: bool, pages: bool, double_map: bool) -> None:
    assert scheme.has_pages_mapped_word is word
    assert scheme.has_large_mapcount is large
    assert scheme.has_mm_ids is ids
    assert scheme.has_page_mapcount is pages
    assert scheme.double_map is double_map


def test_every_scheme_names_its_kernels() -> None:
    assert len({s.kernels for s in Scheme}) == len(Scheme) == 6
    assert ENTIRELY_MAPPED == 8388608
