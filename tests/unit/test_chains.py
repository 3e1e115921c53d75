"""Lists among known nodes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inspector.columns import U64
from inspector.lib.chains import follow_chains, owners_of_nodes


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


def _ring(*nodes: int) -> dict[int, tuple[int, int]]:
    """Links of a circular list through these nodes: by node the next and the one before."""
    return {node: (nodes[(i + 1) % len(nodes)], nodes[i - 1]) for i, node in enumerate(nodes)}


def _owners(links: dict[int, tuple[int, int]], heads: int) -> tuple[list[int], list[bool]]:
    owner, wrong = owners_of_nodes(
        _words(*links), _words(*(after for after, _ in links.values())), _words(*(b for _, b in links.values())), heads
    )
    return owner.tolist(), wrong.tolist()


def test_nodes_of_two_circular_lists() -> None:
    links = {1: (0, 0), 2: (0, 0), 40: (0, 0), 30: (0, 0), 20: (0, 0)} | _ring(1, 30, 20) | _ring(2, 40)
    assert _owners(links, 2) == ([0, 1, 1, 0, 0], [False] * 5)


def test_node_of_a_circular_list_without_head() -> None:
    links = _ring(1) | _ring(30, 20)
    assert _owners(links, 1) == ([0, -1, -1], [False] * 3)


def test_node_that_its_neighbours_pass_over() -> None:
    links = _ring(1, 20, 30, 40)
    links[20] = (40, links[20][1])
    owner, wrong = _owners(links, 1)
    assert owner == [0, 0, 0, 0]
    assert wrong == [False, True, True, False]


def test_node_that_leads_out_of_the_list() -> None:
    links = _ring(1, 20, 30)
    links[20] = (99, 1)
    assert _owners(links, 1) == ([0, 0, 0], [False, True, True])


@given(st.lists(st.integers(0, 3), max_size=40), st.randoms(use_true_random=False))
def test_owners_of_many_nodes(lists: list[int], random: object) -> None:
    nodes = [100 + i for i in range(len(lists))]
    random.shuffle(nodes)  # type: ignore[attr-defined]
    links = {head: (head, head) for head in range(1, 5)}
    links |= dict.fromkeys(nodes, (0, 0))
    for number in range(4):
        links |= _ring(number + 1, *(node for node, on in zip(nodes, lists, strict=True) if on == number))
    owner, wrong = _owners(links, 4)
    assert owner == [0, 1, 2, 3, *lists]
    assert not any(wrong)
