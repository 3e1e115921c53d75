"""How far the direct map reaches: with KASLR its neighbours begin much nearer than its full size."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from inspector.layout.kernel import _direct_map_size
from tests.unit.fake_memory import FakeReader

BASE = 0xFF11000000000000


@pytest.mark.parametrize(
    ("vmalloc", "vmemmap", "size"),
    [
        (BASE + (10 << 40), BASE + (90 << 40), 10 << 40),
        (BASE - (1 << 40), BASE + (90 << 40), 90 << 40),
        (None, None, 32 << 50),
    ],
)
def test_the_direct_map_ends_where_the_next_region_begins(vmalloc: int | None, vmemmap: int | None, size: int) -> None:
    reader = FakeReader()
    places = {}
    for at, (name, value) in enumerate((("vmalloc_base", vmalloc), ("vmemmap_base", vmemmap))):
        if value is not None:
            places[name] = 0x1000 + 8 * at
            reader.words(places[name], value)
    target = SimpleNamespace(symbol=places.get)
    assert _direct_map_size(target, reader.memory(), BASE, 5) == size  # type: ignore[arg-type]
