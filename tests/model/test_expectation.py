"""Expected counters against two other statements: the kernel's operations one by one, and slow loops over folios."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.columns import I32
from inspector.model import expectation as expect_module
from inspector.model.expectation import Expected, Rebuilt, expect, expect_page_mapcount, sum_over_folios
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from tests.examples import examples
from tests.model.build import machines, rebuilt_of
from tests.model.machine import Machine

SCHEMES = list(Scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(data=st.data())
def test_equals_what_operations_leave_behind(scheme: Scheme, data: st.DataObject) -> None:
    folios = data.draw(st.lists(machines(scheme), max_size=4))
    small = data.draw(st.lists(st.integers(0, 5), max_size=6))
    rebuilt, owner = rebuilt_of(folios, small)
    found = expect(scheme, rebuilt, owner)
    stored = [count for m in folios for count in m.page]
    assert found.page_mapcount_raw[owner >= 0].tolist() == stored
    assert found.page_mapcount_raw[owner < 0].tolist() == [p - 1 for p in rebuilt.page_mappings[owner < 0].tolist()]
    assert found.entire_raw.tolist() == [m.entire for m in folios]
    assert found.word_raw.tolist() == [m.word for m in folios]
    assert found.large_raw.tolist() == [m.large for m in folios]
    assert found.total.tolist() == [sum(m.ptes.values()) + sum(m.pmds.values()) for m in folios]


def slow_expect(scheme: Scheme, rebuilt: Rebuilt, owner: I32) -> Expected:
    """Section 3.1 of the specification, a folio and a page at a time."""
    page = [p - 1 for p in rebuilt.page_mappings.tolist()]
    entire, word, large, touched, total = [], [], [], [], []
    for row in range(len(rebuilt.entire)):
        mine = [i for i in range(len(owner)) if owner[i] == row]
        p = [int(rebuilt.page_mappings[i]) for i in mine]
        e = int(rebuilt.entire[row])
        t = len([x for x in p if x])
        hugetlb = bool(rebuilt.is_hugetlb[row])
        entire.append(e - 1)
        touched.append(t)
        total.append(e + sum(p))
        if hugetlb or scheme in (Scheme.OLD, Scheme.NO_PAGE_MAPCOUNT):
            word.append(0)
        else:
            word.append(t + 8388608 if e else t)
        if scheme in (Scheme.OLD, Scheme.SUBPAGES, Scheme.RMAP68):
            large.append(-1)
        else:
            count = e - 1 if hugetlb else e + sum(p) - 1
            large.append((count + (1 << 31)) % (1 << 32) - (1 << 31))  # an int wraps
        for i in mine:
            if hugetlb or scheme is Scheme.NO_PAGE_MAPCOUNT:
                page[i] = -1
            elif scheme is Scheme.OLD:
                page[i] += int(rebuilt.double_map[row]) if rebuilt.is_anon[row] else e
    return Expected(
        np.array(page, np.int32),
        np.array(entire, np.int32),
        np.array(word, np.int32),
        np.array(large, np.int32),
        np.array(touched, np.int64),
        np.array(total, np.int64),
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Rebuilt, I32]:
    """Any columns at all, those that no sequence of operations reaches too."""
    orders = draw(st.lists(st.integers(1, 4), max_size=5))
    gaps = draw(st.lists(st.integers(0, 3), min_size=len(orders) + 1, max_size=len(orders) + 1))
    owner: list[int] = [-1] * gaps[0]
    heads = []
    for row, order in enumerate(orders):
        heads.append(len(owner))
        owner += [row] * (1 << order) + [-1] * gaps[row + 1]
    count = st.sampled_from([0, 0, 1, 2, 511, 1 << 30])
    n = len(orders)

    def flags() -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), np.bool_)

    return Rebuilt(
        np.array(draw(st.lists(count, min_size=len(owner), max_size=len(owner))), np.int32),
        np.array(heads, np.int64),
        np.array(orders, np.uint8),
        np.array(draw(st.lists(st.sampled_from([0, 0, 1, 3, 1000]), min_size=n, max_size=n)), np.int32),
        flags(),
        flags(),
        flags(),
    ), np.array(owner, np.int32)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(world=worlds(), piece=st.sampled_from([1, 3, 1 << 20]))
def test_equals_the_slow_loops(scheme: Scheme, world: tuple[Rebuilt, I32], piece: int) -> None:
    rebuilt, owner = world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expect_module, "_PIECE", piece)
        found = expect(scheme, rebuilt, owner)
    wanted = slow_expect(scheme, rebuilt, owner)
    for name, column in vars(wanted).items():
        got = getattr(found, name)
        assert got.dtype == column.dtype, name
        assert got.tolist() == column.tolist(), name


@pytest.mark.parametrize("scheme", SCHEMES)
@examples(30)
@given(world=worlds(), cut=st.integers(1, 7))
def test_pages_in_pieces_equal_all_at_once(scheme: Scheme, world: tuple[Rebuilt, I32], cut: int) -> None:
    rebuilt, owner = world
    whole = expect(scheme, rebuilt, owner).page_mapcount_raw
    for first in range(0, len(owner), cut):
        piece = expect_page_mapcount(scheme, rebuilt, owner[first : first + cut], first)
        assert piece.dtype == np.int32
        assert piece.tolist() == whole[first : first + cut].tolist()


def one_folio(scheme: Scheme, *, anon: bool, mapped: list[int], entire: int, double_map: bool = False) -> Expected:
    rebuilt = Rebuilt(
        np.array(mapped, np.int32),
        np.array([0]),
        np.array([len(mapped).bit_length() - 1], np.uint8),
        np.array([entire], np.int32),
        np.array([False]),
        np.array([anon]),
        np.array([double_map]),
    )
    return expect(scheme, rebuilt, np.zeros(len(mapped), np.int32))


def test_the_difference_between_the_schemes_by_hand() -> None:
    mapped = [2, 0, 0, 1]
    old_file = one_folio(Scheme.OLD, anon=False, mapped=mapped, entire=3)
    assert old_file.page_mapcount_raw.tolist() == [4, 2, 2, 3]
    old_anon = one_folio(Scheme.OLD, anon=True, mapped=mapped, entire=3, double_map=True)
    assert old_anon.page_mapcount_raw.tolist() == [2, 0, 0, 1]
    assert (old_anon.word_raw[0], old_anon.large_raw[0], old_anon.entire_raw[0]) == (0, -1, 2)
    for scheme in (Scheme.SUBPAGES, Scheme.RMAP68, Scheme.LARGE, Scheme.MM_IDS):
        found = one_folio(scheme, anon=False, mapped=mapped, entire=3)
        assert found.page_mapcount_raw.tolist() == [1, -1, -1, 0]
        assert found.word_raw[0] == ENTIRELY_MAPPED + 2
        assert found.large_raw[0] == (5 if scheme.has_large_mapcount else -1)
    none = one_folio(Scheme.NO_PAGE_MAPCOUNT, anon=True, mapped=mapped, entire=0)
    assert none.page_mapcount_raw.tolist() == [-1] * 4
    assert (none.word_raw[0], none.large_raw[0], none.total[0], none.nr_mapped_pages[0]) == (0, 2, 3, 2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_gigantic_folio_does_not_overflow(scheme: Scheme) -> None:
    nr = 1 << 18
    rebuilt = Rebuilt(
        np.full(nr, 1 << 20, np.int32),
        np.array([0]),
        np.array([18], np.uint8),
        np.array([7], np.int32),
        np.array([True]),
        np.array([False]),
        np.array([False]),
    )
    found = expect(scheme, rebuilt, np.zeros(nr, np.int32))
    assert found.total.tolist() == [(1 << 38) + 7]
    assert found.nr_mapped_pages.tolist() == [nr]
    assert found.entire_raw.tolist() == [6]
    assert found.word_raw.tolist() == [0]
    assert found.large_raw.tolist() == [6 if scheme.has_large_mapcount else -1]
    assert (found.page_mapcount_raw == -1).all()


@given(world=worlds(), data=st.data())
def test_sums_of_folios_that_overlap_or_reach_beyond_the_end(world: tuple[Rebuilt, I32], data: st.DataObject) -> None:
    rebuilt, owner = world
    n = len(rebuilt.head_row)
    orders = data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 40, 63, 255]), min_size=n, max_size=n))
    heads = data.draw(st.permutations(rebuilt.head_row.tolist()))
    wild = replace(rebuilt, order=np.array(orders, np.uint8), head_row=np.array(heads, np.int64))
    column = rebuilt.page_mappings.tolist()
    wanted = [sum(column[h : h + (1 << min(o, 40))]) for h, o in zip(heads, orders, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expect_module, "_PIECE", 4)
        assert sum_over_folios(rebuilt.page_mappings, wild).tolist() == wanted
    assert len(owner) == len(column)


def test_temporaries_stay_small() -> None:
    pages, order = 1 << 23, 9
    folios = pages >> order
    rebuilt = Rebuilt(
        np.ones(pages, np.int32),
        np.arange(folios, dtype=np.int64) << order,
        np.full(folios, order, np.uint8),
        np.zeros(folios, np.int32),
        np.zeros(folios, np.bool_),
        np.ones(folios, np.bool_),
        np.zeros(folios, np.bool_),
    )
    owner = (np.arange(pages, dtype=np.int32) >> order).astype(np.int32)
    tracemalloc.start()
    try:
        found = expect(Scheme.OLD, rebuilt, owner)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.total.tolist() == [512] * folios
    # The result is 4 bytes a page; beside it no more than a mask of the pages and some pieces.
    assert peak < 4 * pages + pages + (32 << 20)


def test_lengths_must_agree() -> None:
    rebuilt, owner = rebuilt_of([Machine(Scheme.LARGE, 1, True)])
    with pytest.raises(ValueError, match="2 pages, but the folios of 1"):
        expect(Scheme.LARGE, rebuilt, owner[:1])


def test_nothing_at_all() -> None:
    rebuilt, owner = rebuilt_of([])
    for scheme in Scheme:
        assert [len(column) for column in vars(expect(scheme, rebuilt, owner)).values()] == [0] * 6
