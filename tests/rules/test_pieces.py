"""Rules that are predicates over pieces find the same however the table is cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inspector.rules import all_rules, find_rule
from inspector.rules.page_pieces import PAGE_PIECES, PagePiece, PagesPredicate, judge_together
from inspector.rules.pieces import ENTRIES, NONPRESENT_ENTRIES, Judgement
from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, core_path, sound
from tests.rules.broken import broken, same, with_holes

SIZES = (1009, 30011)
"""Rows of a piece: odd, so that large folios and the runs of a VMA lie across the borders."""

PREDICATES = [r for r in all_rules() if r.predicate is not None]
DUMPS: dict[str, Callable[[str], Snapshot]] = {
    "sound": lambda kernel: sound(core_path("fixture", kernel)),
    "broken": broken,
    "with-holes": with_holes,
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dump", DUMPS)
def test_pieces_of_any_size_give_what_the_whole_table_gives(dump: str, kernel: str) -> None:
    s = DUMPS[dump](kernel)
    whole = max(len(s.pages), len(s.mappings), len(s.nonpresent))
    found = 0
    for rule in PREDICATES:
        if rule.applies(s.scheme) or rule.predicate is None:
            continue
        expected = rule.predicate.run(s, whole)
        found += len(expected) > 0
        assert same(rule.run(s), expected), rule.slug
        for size in SIZES:
            assert same(rule.predicate.run(s, size), expected), (rule.slug, size)
    if dump == "broken":
        assert found > len(PREDICATES) / 2


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dump", DUMPS)
def test_pages_alike_give_what_each_page_gives(dump: str, kernel: str) -> None:
    s = DUMPS[dump](kernel)
    n = len(s.pages)
    predicates = {r.slug: r.predicate for r in all_rules() if isinstance(r.predicate, PagesPredicate)}
    predicates = {slug: p for slug, p in predicates.items() if not find_rule(slug).applies(s.scheme)}
    assert len(predicates) > 10
    each = PagePiece(s, 0, n, np.arange(n), np.ones(n, np.int64))
    assert sum(len(p) for p in PAGE_PIECES.cut(s, PAGE_PIECES.most)) < n / 4
    apart = {}
    for slug, predicate in predicates.items():
        judgement = Judgement(predicate.judge)
        judgement.add(each)
        apart[slug] = predicate.run(s)
        assert same(apart[slug], predicate.violations(s, judgement)), slug
    judge_together(s, predicates.values())
    for slug, predicate in predicates.items():
        assert same(predicate.run(s), apart[slug]), slug


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [*SIZES, 1])
def test_pieces_hold_every_row_once_and_cut_no_folio(size: int, kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    if size > 1:
        for pieces, n in ((ENTRIES, len(s.mappings)), (NONPRESENT_ENTRIES, len(s.nonpresent))):
            assert covers([(p.start, p.stop) for p in pieces.cut(s, size)], n)
    cut = [(p.start, p.stop) for p in PAGE_PIECES.cut(s, size)]
    assert covers(cut, len(s.pages))
    starts = np.array([start for start, _ in cut])
    assert not s.pages.is_tail[starts].any()


def covers(cut: list[tuple[int, int]], n: int) -> bool:
    """Whether ranges follow one another from 0 to ``n``, none of them empty."""
    ends = [0, *(stop for _, stop in cut)]
    return ends[-1] == n and all(start == end < stop for (start, stop), end in zip(cut, ends, strict=False))
