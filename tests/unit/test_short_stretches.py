"""Struct pages of many short stretches are those of the whole memory map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inspector.layout.memmap import GRAIN, MemMap
from inspector.tables.pages import sweep_pages
from tests.faults.overlay import KERNELS, core_path, sound


def test_a_memory_map_around_page_frames() -> None:
    whole = MemMap(0, 64, 12, np.array([0, 1 << 20]), np.array([1 << 12, 1 << 30]))
    some = whole.around(np.array([-1, 5, 40, 200, (1 << 13), (1 << 30) - 1, 1 << 30]))
    last = (1 << 30) - GRAIN
    assert some.starts.tolist() == [0, 192, last]
    assert some.ends.tolist() == [64, 224, 1 << 30]
    asked = np.array([-5, 0, 63, 64, 191, 192, 223, 224, last - 1, last, (1 << 30) - 1, 1 << 30, 1 << 52])
    assert some.rows(asked).tolist() == [-1, 0, 63, -1, -1, 64, 95, -1, -1, 96, 127, -1, -1]
    assert some.pfns_of_rows(some.rows(asked[[2, 5, 10]])).tolist() == asked[[2, 5, 10]].tolist()
    assert not len(whole.around(np.array([-1, 1 << 13])).starts)


@pytest.mark.parametrize("kernel", KERNELS)
def test_struct_pages_of_short_stretches(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    rng = np.random.default_rng(1)
    pfns = s.pages.memmap.pfns_of_rows(np.sort(rng.choice(len(s.pages), 300, replace=False)))
    memmap = s.layout.memmap.around(pfns)
    some = sweep_pages(replace(s.layout, memmap=memmap), np.empty(0, np.uint64))
    row = s.pages.memmap.rows(memmap.pfns_of_rows(np.arange(memmap.nr_pages)))
    for name in ("flags", "mapping", "mapcount_raw", "refcount", "readable", "type_"):
        assert (getattr(some.pages, name) == getattr(s.pages, name)[row]).all(), name
    # Hugetlb's shared struct pages look like heads until the true head is at hand.
    head = memmap.rows(s.pages.memmap.pfns_of_rows(s.pages.head_row[row]))
    assert (some.pages.head_row[head >= 0] == head[head >= 0]).all()
    assert np.isin(some.pages.head_row[head < 0], [-1, *np.flatnonzero(head < 0)]).all()
