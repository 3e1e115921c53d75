"""The compiled loops and the ones in NumPy give the same."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector import loops
from inspector.columns import U64
from inspector.loops import Distinct, distinct_rows, is_compiled, list_misfits, list_owners


def both(width: int) -> list[Distinct]:
    """A table each way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "_COMPILED", None)
        numpy = distinct_rows(width)
    return [numpy, distinct_rows(width)]


def words(rows: list[list[int]], width: int) -> U64:
    return np.array(rows, np.uint64).reshape(-1, width)


def test_where_ci_runs_the_extension_is_built() -> None:
    assert is_compiled() or not os.environ.get("CI")


WORD = st.sampled_from([0, 1, 2, 0x8000_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF]) | st.integers(0, 2**64 - 1)


@given(st.integers(1, 4).flatmap(lambda w: st.tuples(st.just(w), st.lists(st.lists(WORD, min_size=w, max_size=w)))))
def test_rows_are_numbered_in_the_order_in_which_they_are_first_met(of: tuple[int, list[list[int]]]) -> None:
    width, rows = of
    seen: dict[tuple[int, ...], int] = {}
    wanted = [seen.setdefault(tuple(row), len(seen)) for row in rows]
    for table in both(width):
        half = len(rows) // 2
        found = [*table.codes(words(rows[:half], width)), *table.codes(words(rows[half:], width))]
        assert found == wanted
        assert [tuple(row) for row in table.values.tolist()] == list(seen)
        assert table.weights.tolist() == [wanted.count(code) for code in range(len(seen))]


def test_weights_are_summed_by_row() -> None:
    rows = words([[1, 2], [1, 2], [3, 4], [1, 2]], 2)
    for table in both(2):
        table.codes(rows, np.array([10, 1, 5, 100], np.int64))
        assert table.weights.tolist() == [111, 5]


def test_a_machine_whose_rows_all_differ_only_makes_a_longer_table() -> None:
    rows = np.arange(300_000, dtype=np.uint64).reshape(-1, 3) * np.uint64(0x1_0001)
    for table in both(3):
        for at in range(0, len(rows), 7001):
            table.codes(rows[at : at + 7001])
        assert len(table) == len(rows)
        assert (table.values == rows).all()
        assert (table.codes(rows) == np.arange(len(rows))).all()


LINKS = st.integers(1, 24).flatmap(lambda n: st.tuples(*(st.lists(st.integers(-3, n), min_size=n, max_size=n),) * 2))


@given(LINKS, st.data())
def test_links_of_lists_in_any_state(links: tuple[list[int], list[int]], data: st.DataObject) -> None:
    """Garbage ends, circles are of no list, and both ways say the same."""
    following, before = (np.array(column, np.int32) for column in links)
    n = len(before)
    chosen = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    rows = np.flatnonzero(chosen).astype(np.int32)
    found = []
    for compiled in (loops._COMPILED, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loops, "_COMPILED", compiled)
            owner = np.zeros(n, np.int32)
            list_owners(rows, before, owner)
            found.append((list_misfits(rows, following, before).tolist(), owner.tolist()))
    assert found[0] == found[1]
    assert set(found[0][1]) <= {0, 1, 2, 3}


def test_a_list_is_found_backwards_from_each_of_its_members() -> None:
    # Rows 1, 3 and 0 in this order on the first list, 2 alone on the second, 4 and 5 in a circle.
    before = np.array([4, -1, -2, 2, 6, 5], np.int32)
    following = np.array([-1, 4, -2, 1, 6, 5], np.int32)
    rows = np.arange(6, dtype=np.int32)
    owner = np.zeros(6, np.int32)
    list_owners(rows, before, owner)
    assert owner.tolist() == [1, 1, 2, 1, 0, 0]
    assert list_misfits(rows, following, before).tolist() == [0, 0, 0, 0, 0, 0]
    following[3] = 4
    assert list_misfits(rows, following, before).tolist() == [2, 0, 0, 1, 0, 0]
