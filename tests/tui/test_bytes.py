"""What a key costs over ssh: the bytes that come back for it on a pseudo-terminal."""

from __future__ import annotations

import pytest

from tests.bench.keys import SIZES, sent
from tests.fixtures import fixture_path

MOST = {
    (80, 24): {"table arrow": 800, "map arrow": 1100, "map zoom": 10_900},
    (200, 60): {"table arrow": 1500, "map arrow": 2000, "map zoom": 55_000},
}


@pytest.mark.long
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_key_repaints_what_it_changes_alone(size: tuple[int, int]) -> None:
    found = sent(fixture_path("7.3"), size)
    assert {what: nr for what, nr in found.items() if nr > MOST[size][what]} == {}
    assert all(found.values())
