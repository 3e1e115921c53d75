"""Lists among known nodes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inspector.columns import U64
from inspector.lib.chains import follow_chains


def _words(*values: int) -> U64:
    return np.array(values, np.uint64)


def test_nodes_of_two_lists() -> None:
    found = follow_chains(_words(10, 20, 30, 40, 50), _words(30, 0, 50, 20, 0), _words(10, 40, 0))
    assert found.owner.tolist() == [0, 1, 0, 1, 0]
    assert found.broken.tolist() == [False, False, False]


def test_node_on_no_list() -> None:
    assert follow_chains(_words(10, 20), _words(0, 0), _words(20)).owner.tolist() == [-1, 0]


def test_circle() -> None:
    found = follow_chains(_words(10, 20, 30), _words(20, 30, 20), _words(10))
    assert found.owner.tolist() == [0, 0, 0]
    assert found.broken.tolist() == [True]


def test_list_that_leaves_the_known_nodes() -> None:
    assert follow_chains(_words(10, 20), _words(99, 0), _words(10, 77)).broken.tolist() == [True, True]


def test_two_lists_that_meet() -> None:
    found = follow_chains(_words(10, 20, 30), _words(30, 30, 0), _words(10, 20))
    assert sorted(found.broken.tolist()) == [False, True]


def test_nothing_known() -> None:
    found = follow_chains(_words(), _words(), _words(5, 0))
    assert found.broken.tolist() == [True, False]


@given(st.lists(st.integers(0, 12), max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_against_following_one_by_one(following: list[int], heads: list[int]) -> None:
    n = len(following)
    found = follow_chains(_words(*range(1, n + 1)), _words(*following), _words(*heads))
    for list_, head in enumerate(heads):
        at, steps = head, 0
        while 0 < at <= n and steps <= n:
            assert found.owner[at - 1] >= 0
            at, steps = following[at - 1], steps + 1
        if head and at:
            assert found.broken[list_]
    assert all(not found.broken[i] for i, head in enumerate(heads) if not head)
