"""zlib's format by either library: each reads what the other writes, and neither takes damage for data."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

import pytest

from inspector import deflate

PAGES = (bytes(4096), bytes(range(256)) * 16, random.Random(1).randbytes(4096), b"", b"\x01")


@pytest.mark.parametrize("level", range(1, 10))
@pytest.mark.parametrize("page", PAGES, ids=len)
def test_either_reads_it(page: bytes, level: int) -> None:
    stored = deflate.deflated(page, level)
    assert zlib.decompress(stored) == deflate.inflated(stored, bufsize=4096) == page
    assert deflate.inflated(zlib.compress(page, level), bufsize=4096) == page


def test_without_the_quick_one_zlib_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deflate, "quick", None)
    assert [deflate.deflated(PAGES[1], level) for level in (1, 3, 9)] == [zlib.compress(PAGES[1], n) for n in (1, 3, 9)]


def outcome(decompress: Callable[..., bytes], stored: bytes) -> bytes | None:
    try:
        return decompress(stored, bufsize=4096)
    except deflate.DAMAGED:
        return None


def test_both_refuse_the_same_damage() -> None:
    """The checksum at its end is held against the data; it is a weak one, by which now and then other data passes."""
    drawn = random.Random(2)
    stored = zlib.compress(bytes(drawn.choices(range(5), k=4096)))
    refused = 0
    for _ in range(500):
        damaged = bytearray(stored)
        damaged[drawn.randrange(len(stored))] ^= 1 << drawn.randrange(8)
        found = outcome(deflate.inflated, bytes(damaged))
        assert found == outcome(zlib.decompress, bytes(damaged))
        refused += found is None
    assert refused > 450
