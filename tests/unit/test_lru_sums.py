"""Lists on which all is as it must be are proved so by sums; whatever differs is left to be found out."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.columns import I64
from inspector.loops import is_compiled, list_sums, node_sums, pair_sum

needs_loops = pytest.mark.skipif(not is_compiled(), reason="the loops are not compiled")


def ring(head: int, *rows: int) -> list[tuple[int, int]]:
    """Pairs of a node and its next one: a list's head is -1 - its number, a page its row plus 1."""
    nodes = [-1 - head, *(row + 1 for row in rows)]
    return list(zip(nodes, [*nodes[1:], nodes[0]], strict=True))


def column(values: list[int]) -> I64:
    return np.array(values, np.int64)


def followed(*rings: list[tuple[int, int]], pages: int = 10, nr: int) -> list[int] | None:
    following, first = np.zeros(pages, np.int32), np.zeros(len(rings), np.int64)
    for node, to in (pair for each in rings for pair in each):
        if node > 0:
            following[node - 1] = to
        else:
            first[-1 - node] = to
    sums = list_sums(following, first, nr)
    return None if sums is None else sums.tolist()


def added(*rows: int) -> int:
    return int(node_sums(column([row + 1 for row in rows])).sum(dtype=np.uint64))


@needs_loops
def test_nodes_of_each_list_are_added_up() -> None:
    assert followed(ring(0, 3, 1, 8), ring(1), ring(2, 5), nr=4) == [added(1, 3, 8), 0, added(5)]
    assert added(1, 3) != added(1, 4)


@needs_loops
@pytest.mark.parametrize("nr", [3, 5])
def test_a_list_that_holds_more_or_fewer_than_there_are(nr: int) -> None:
    assert followed(ring(0, 3, 1, 8), ring(1, 5), nr=nr) is None


@needs_loops
def test_a_list_that_ends_at_another_head() -> None:
    crossed = [*ring(0, 3)[:1], (4, -2)]
    assert followed(crossed, ring(1, 5), nr=2) is None


@needs_loops
def test_a_circle_ends() -> None:
    assert followed([(-1, 4), (4, 2), (2, 4)], nr=2) is None


@needs_loops
def test_a_link_to_a_page_on_no_list() -> None:
    assert followed([(-1, 4)], nr=1) is None


def test_pairs_are_told_apart() -> None:
    one, other = column([1, 2, 3]), column([2, 3, -1])
    assert pair_sum(one, other) == pair_sum(one[::-1].copy(), other[::-1].copy())
    assert pair_sum(one, other) != pair_sum(other, one)
    assert pair_sum(one, other) != pair_sum(one, column([3, 2, -1]))
