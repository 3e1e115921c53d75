"""The helpers that every table is built with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.columns import (
    I64,
    MAX_MMS,
    U64,
    AnyArray,
    Mask,
    Table,
    count_up,
    difference,
    distinct,
    expand_runs,
    is_among,
    matches,
    page_key,
    rows_covering,
    rows_of,
    rows_of_unordered,
    sorts_rightly,
    take_or,
    union,
)
from inspector.errors import TargetError
from inspector.tables.folios import Folios
from inspector.tables.mms import Mms
from inspector.tables.tasks import Tasks
from inspector.tables.vmas import Vmas
from inspector.target.target import open_core
from inspector.walk.mappings import Mappings
from tests.fixtures import fixture_path

few = st.lists(st.integers(0, 9), max_size=12)


@dataclass(frozen=True, slots=True)
class Example(Table):
    """A table of one column of each kind."""

    word: U64
    number: I64
    flag: Mask
    name: AnyArray


@given(few, few)
def test_rows_of_is_the_row_of_each_value_or_none(values: list[int], wanted: list[int]) -> None:
    column = np.unique(np.array(values, np.uint64))
    expected = [column.tolist().index(w) if w in values else -1 for w in wanted]
    assert rows_of(column, np.array(wanted, np.uint64)).tolist() == expected


@given(st.lists(st.integers(0, 9), unique=True), few)
def test_a_column_need_not_be_in_order(values: list[int], wanted: list[int]) -> None:
    found = rows_of_unordered(np.array(values, np.uint64), np.array(wanted, np.uint64))
    assert found.tolist() == [values.index(w) if w in values else -1 for w in wanted]


@given(few, few)
def test_matches_are_all_pairs_of_equals(values: list[int], wanted: list[int]) -> None:
    column = sorted(values)
    which, row = matches(np.array(column, np.int64), np.array(wanted, np.int64))
    pairs = [(i, j) for i, w in enumerate(wanted) for j, v in enumerate(column) if v == w]
    assert list(zip(which.tolist(), row.tolist(), strict=True)) == pairs


@given(few)
def test_counting_up_is_a_run_from_0_for_each_count(counts: list[int]) -> None:
    column = np.array(counts, np.int64)
    assert count_up(column).tolist() == [i for n in counts for i in range(n)]
    assert count_up(column).tolist() == expand_runs(np.zeros(len(counts), np.int64), column).tolist()


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), max_size=6), few)
def test_a_value_is_in_the_range_that_holds_it(sizes: list[tuple[int, int]], values: list[int]) -> None:
    starts, ends, at = [], [], 0
    for length, gap in sizes:
        starts.append(at + gap)
        at += gap + length
        ends.append(at)
    found = rows_covering(np.array(starts, np.int64), np.array(ends, np.int64), np.array(values, np.int64))
    expected = [next((i for i in range(len(starts)) if starts[i] <= v < ends[i]), -1) for v in values]
    assert found.tolist() == expected


def test_a_masked_take_has_the_type_of_its_column() -> None:
    rows = np.array([1, -1, 0], np.int32)
    flags = take_or(np.array([True, False]), rows, False)
    assert flags.tolist() == [False, False, True]
    assert flags.dtype == np.bool_
    words = take_or(np.array([5, 1 << 63], np.uint64), rows, 7)
    assert words.tolist() == [1 << 63, 7, 5]
    assert words.dtype == np.uint64
    assert take_or(np.empty(0, np.uint64), np.array([-1, -1]), 7).tolist() == [7, 7]
    assert take_or(np.zeros((0, 4), np.int64), np.array([-1]), 0).shape == (1, 4)


def test_page_keys_are_ordered_by_mm_then_page() -> None:
    mm = np.array([0, 0, 1, MAX_MMS - 1], np.int32)
    page = np.array([1, (1 << 44) - 1, 0, (1 << 44) - 1], np.uint64)
    keys = page_key(mm, page)
    assert (np.diff(keys.astype(object)) > 0).all()
    # What is no user page stays in its mm.
    wild = page_key(np.array([0], np.int32), np.array([(1 << 52) - 1], np.uint64))
    assert keys[1] <= wild[0] < keys[2]
    with pytest.raises(ValueError, match="no row of an mm"):
        page_key(np.array([MAX_MMS], np.int32), np.array([0], np.uint64))


def test_an_empty_table_has_the_types_of_its_class() -> None:
    empty = Example.empty(name=np.empty(0, "S16"))
    assert len(empty) == 0
    assert [c.dtype.str for c in (empty.word, empty.number, empty.flag)] == ["<u8", "<i8", "|b1"]
    assert len(Example.concat([empty, empty])) == 0


def test_empty_tables_hold_what_their_classes_name() -> None:
    """The names of the aliases say what hints resolved say."""
    for table in (Tasks, Vmas, Mms, Mappings, Folios):
        hints = get_type_hints(table)
        others = {n: np.empty(0, np.uint64) for n, hint in hints.items() if hint == AnyArray}
        made = table.empty(**others)
        for name in {f.name for f in fields(made)} - others.keys():
            assert getattr(made, name).dtype == np.dtype(get_args(get_args(hints[name])[1])[0])


def test_sorts_that_go_wrong_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of AVX2 do on QEMU's emulated processors."""
    assert sorts_rightly()
    right = np.argsort

    def wrong(values: AnyArray) -> AnyArray:
        order = right(values)
        order[[3, 4]] = order[[4, 3]]
        return order

    monkeypatch.setattr(np, "argsort", wrong)
    assert not sorts_rightly()
    with pytest.raises(TargetError, match="NumPy sorts wrongly on this processor"):
        open_core(str(fixture_path("7.3")))


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_sets_of_values_are_those_of_numpy(one: list[int], other: list[int]) -> None:
    for dtype in (np.uint64, np.int32):
        a, b = np.array(one, dtype), np.array(other, dtype)
        pairs = (
            (distinct(a), np.unique(a)),
            (union(a, b), np.union1d(a, b)),
            (difference(a, b), np.setdiff1d(a, b)),
            (is_among(a, b), np.isin(a, b)),
        )
        for ours, theirs in pairs:
            assert ours.dtype == theirs.dtype
            assert ours.tolist() == theirs.tolist()
