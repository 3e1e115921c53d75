"""Which way a counter is off, and when work in flight can explain it."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.model.counters import Direction, RmapCounter, directions, field_name, meaning
from inspector.model.scheme import Scheme

STORED, EXPECTED = np.array([-1, 0, 3, 2], np.int32), np.array([-1, 1, 2, 2], np.int32)


def test_directions() -> None:
    assert directions(STORED, EXPECTED).tolist() == [0, -1, 1, 0]
    assert [Direction(d).label for d in (-1, 0, 1)] == ["too low", "equal", "too high"]


def test_the_whole_range_of_an_int_has_a_direction() -> None:
    low, high = np.array([-(1 << 31), (1 << 31) - 1], np.int32), np.array([(1 << 31) - 1, -(1 << 31)], np.int32)
    assert directions(low, high).tolist() == [-1, 1]


@pytest.mark.parametrize("counter", list(RmapCounter))
def test_every_mismatch_has_a_meaning(counter: RmapCounter) -> None:
    assert meaning(counter, Direction.EQUAL) is None
    high, low = meaning(counter, Direction.TOO_HIGH), meaning(counter, Direction.TOO_LOW)
    assert high is not None
    assert low is not None
    if counter is RmapCounter.STATISTIC:
        assert (high.name, low.name) == ("drift", "drift")
    else:
        assert (high.name, low.name) == ("leak", "premature free")
    assert high.transient  # counts are raised first and lowered last


def test_only_a_page_count_is_never_behind() -> None:
    for counter in RmapCounter:
        wanted = [False, counter is not RmapCounter.PAGE, True, False]
        found = [meaning(counter, Direction(way)) for way in directions(STORED, EXPECTED).tolist()]
        assert [m is not None and m.transient for m in found] == wanted


@pytest.mark.parametrize(
    ("scheme", "entire", "word"),
    [
        (Scheme.OLD, "compound_mapcount", "_nr_pages_mapped"),
        (Scheme.SUBPAGES, "_compound_mapcount", "_subpages_mapcount"),
        *((s, "_entire_mapcount", "_nr_pages_mapped") for s in Scheme if s not in (Scheme.OLD, Scheme.SUBPAGES)),
    ],
)
def test_members_are_called_as_the_kernel_calls_them(scheme: Scheme, entire: str, word: str) -> None:
    assert field_name(scheme, RmapCounter.ENTIRE) == entire
    assert field_name(scheme, RmapCounter.NR_PAGES_MAPPED) == word
    assert field_name(scheme, RmapCounter.LARGE) == "_large_mapcount"
    assert field_name(scheme, RmapCounter.PAGE) == field_name(scheme, RmapCounter.DOUBLY_MAPPED) == "_mapcount"
