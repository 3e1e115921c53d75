"""A check sees leaf entries a batch at a time: it keeps nothing for each, and finds the same whatever the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NoReturn

import numpy as np
import pytest

from inspector.arch.base import Level
from inspector.check.run import run_check
from inspector.columns import expand_runs
from inspector.errors import TargetError
from inspector.findings import Report
from inspector.snapshot import Snapshot
from inspector.walk import batches, counts, pagetable
from inspector.walk.batches import EntryBatch, Kinds, MappingsOfPages, run_collectors
from inspector.walk.mappings import entry_pages
from tests.faults.overlay import KERNELS, core_path, sound
from tests.rules.broken import broken, with_holes

DUMPS: dict[str, Callable[[str], Snapshot]] = {
    "sound": lambda kernel: sound(core_path("fixture", kernel)),
    "broken": broken,
    "with-holes": with_holes,
}


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a large target: every look at entries that were seen before is another walk."""
    monkeypatch.setattr(batches, "RUNS_KEPT", 0)


def refused(_s: Snapshot) -> NoReturn:
    raise AssertionError("a check asks for a table with a row for each mapping")


@lru_cache(maxsize=1)
def report_of(dump: str, kernel: str) -> Report:
    return run_check(DUMPS[dump](kernel))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dump", DUMPS)
@pytest.mark.usefixtures("nothing_kept")
def test_a_check_has_no_row_for_each_mapping(dump: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = report_of(dump, kernel)
    with monkeypatch.context() as patch:
        for table in ("mappings", "links", "ksm_entries"):
            patch.setattr(Snapshot, table, property(refused))
        found = run_check(DUMPS[dump](kernel))
    assert found.findings == expected.findings
    assert found.summary == expected.summary
    assert found.coverage == expected.coverage


def cases() -> Iterator[Any]:
    """Dumps, kernels and sizes; of what is broken in so many places one size of each kernel, as it is judged often."""
    for dump, kernel, size in product(DUMPS, KERNELS, (1, 7, 100)):
        is_slow = dump == "broken"
        marks = [pytest.mark.long] if size == 1 or is_slow else []
        if is_slow and (kernel, size) not in zip(KERNELS, (100, 7, 1), strict=True):
            marks = [pytest.mark.whole]
        if (dump, size) != ("sound", 7):  # Which has nothing that other sizes would not show.
            yield pytest.param(dump, kernel, size, marks=marks)


@pytest.mark.parametrize(("dump", "kernel", "size"), cases())
@pytest.mark.usefixtures("nothing_kept")
def test_batches_of_any_size_give_the_same_report(
    dump: str, kernel: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = report_of(dump, kernel)
    monkeypatch.setattr(pagetable, "_BATCH", size)
    found = run_check(DUMPS[dump](kernel))
    assert (found.findings, found.summary, found.coverage) == (expected.findings, expected.summary, expected.coverage)


@pytest.fixture(params=KERNELS)
def s(request: pytest.FixtureRequest) -> Iterator[Snapshot]:
    yield sound(core_path("fixture", request.param))


def test_a_walk_gives_each_entry_once_and_in_order(s: Snapshot) -> None:
    m = s.mappings
    assert len(np.unique(m.entry_id)) == len(m)
    level, place = m.level.astype(np.int64), s.tables.pfn[m.table_idx] << 9 | m.slot
    assert (np.diff(level) <= 0).all()
    same_level = np.diff(level) == 0
    again = ~m.counted[1:] & ~m.counted[:-1]
    assert (np.diff(place)[same_level & ~again & m.counted[1:]] > 0).all()


@pytest.mark.usefixtures("nothing_kept")
def test_entries_are_found_by_their_numbers(s: Snapshot) -> None:
    m = s.mappings
    some = np.random.default_rng(1).permutation(len(m))[:200]
    some = np.concatenate([some, some[:3]])
    fresh = Snapshot(s.target)
    assert fresh.counts.nr_entries == int(m.nr.sum())
    found = fresh.entries(m.entry_id[some])
    assert found.va.tolist() == m.va[some].tolist()
    assert found.nr.tolist() == m.nr[some].tolist()
    assert found.entry_class.tolist() == m.entry_class[some].tolist()
    assert "mappings" not in vars(fresh)


def test_mappings_of_stretches_are_those_of_each(s: Snapshot) -> None:
    m, rng = s.mappings, np.random.default_rng(2)
    end = m.pfn + m.nr * entry_pages(s.layout, m.level)
    # Stretches that overlap one another, that nothing maps, and one that holds all.
    first = np.concatenate([rng.choice(m.pfn, 40), rng.integers(0, int(end.max()) + 99, 20), [0]])
    nr = np.concatenate([rng.integers(1, 5, 30), rng.integers(1, 3000, 30), [int(end.max())]])
    for limit in (None, 3):
        found = MappingsOfPages(s, first, nr, limit=limit)
        run_collectors(s, [found])
        for at, (runs, low, high) in enumerate(zip(found.runs(), first, first + nr, strict=True)):
            rows = np.flatnonzero(m.counted & (m.pfn < high) & (end > low))
            pages = np.minimum(end[rows], high) - np.maximum(m.pfn[rows], low)
            assert found.nr_entries[at] == np.where(m.level[rows] == Level.PTE, pages, 1).sum()
            assert runs.entry_id.tolist() == m.entry_id[rows[:limit]].tolist()


def test_who_maps_a_stretch_is_one_number_however_runs_are_cut_and_another_without_one_mapper(s: Snapshot) -> None:
    m = s.mappings
    shared = np.unique(m.pfn[m.counted & (m.level == Level.PTE)], return_counts=True)
    first = shared[0][shared[1] >= 3][:20]
    whole = MappingsOfPages(s, first, np.full(len(first), 2))
    halves = MappingsOfPages(s, np.concatenate([first, first + 1]), np.ones(2 * len(first), np.int64))
    run_collectors(s, [whole, halves])
    assert (whole.mappers == halves.mappers[: len(first)] + halves.mappers[len(first) :]).all()
    assert (whole.mappers != 0).all()
    without = set()
    rows = np.flatnonzero(m.counted & (m.pfn == first[0]))
    for row in rows.tolist():
        one = MappingsOfPages(s, first[:1], np.full(1, 2))
        one.take(EntryBatch(s, m.take(np.arange(len(m)) != row), 0))
        without.add(int(one.mappers[0]))
    assert len(without | {int(whole.mappers[0])}) == len(rows) + 1


def test_runs_of_one_kind_are_alike(s: Snapshot) -> None:
    m, number = s.mappings, s.pages.number
    kinds = Kinds.of(s, m)
    assert kinds.runs.sum() == len(m)
    assert kinds.entries.sum() == m.nr.sum()
    assert len(kinds.m) < len(m)
    for name in ("level", "bits", "entry_class", "vma_idx"):
        assert (getattr(kinds.m, name)[kinds.kind] == getattr(m, name)).all(), name
    outside = m.vma_idx < 0
    assert (kinds.m.mm_idx[kinds.kind[outside]] == m.mm_idx[outside]).all()
    for column, first in ((m.head_row, kinds.m.head_row), (m.page_row, kinds.m.page_row)):
        known = column >= 0
        assert (number[first[kinds.kind[known]]] == number[column[known]]).all()
    # Of the pages of one run all or not all have the same words.
    some = m.take((m.page_row >= 0) & (m.level == Level.PTE))
    alike = kinds.alike[kinds.kind[(m.page_row >= 0) & (m.level == Level.PTE)]]
    pages = expand_runs(some.page_row, some.nr).astype(np.int64)
    differs = number[pages] != np.repeat(number[some.page_row], some.nr)
    assert (~differs | np.repeat(~alike, some.nr)).all()
    assert alike.any()


def test_more_than_can_be_numbered_is_one_clear_error(s: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagetable, "MAX_MMS", 3)
    with pytest.raises(TargetError, match="more address spaces than can be numbered: .* mms"):
        assert Snapshot(s.target).tables
    monkeypatch.setattr(counts, "MAX_PAGES", 100)
    with pytest.raises(TargetError, match="more memory than pages can be numbered for: .* struct pages"):
        assert Snapshot(s.target).counts
