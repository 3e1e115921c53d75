"""The command ``memory``: every page is somewhere, and the sums are the kernel's own."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.report.memory import build_memory
from inspector.snapshot import Snapshot
from inspector.windows.page_account import PAGE_KINDS, account_for_pages, kind_of_page
from tests.faults.conftest import FRESH
from tests.faults.overlay import KERNELS, core_path, flags_xor, opened, planted, sound
from tests.faults.plants import pick, small_anon

DUMPS = [
    *(pytest.param("fixture", kernel) for kernel in KERNELS),
    *(pytest.param(kind, kernel, marks=FRESH) for kind in ("rest", "zoo", "busy") for kernel in KERNELS),
]


@pytest.mark.each_kernel
@pytest.mark.parametrize(("kind", "kernel"), DUMPS)
def test_every_page_is_somewhere_and_sums_are_equal(kind: str, kernel: str) -> None:
    path = core_path(kind, kernel)
    s = sound(path) if kind == "fixture" else Snapshot(opened(path))
    report = build_memory(s)
    assert sum(each.pages for each in report.kinds) == report.pages == len(s.pages)
    assert report.lost == 0
    # A stopped kernel may be in the middle of making or freeing a hugetlb folio, and of a page of a CPU's list.
    moving = kind == "busy"
    off = [each for each in report.sums if each.pages != each.stored and not (moving and each.what == "hugetlb")]
    assert off == []
    assert "not known" not in [each.kind for each in report.kinds] or moving


@pytest.mark.parametrize("kernel", KERNELS)
def test_kinds_of_single_pages_are_those_of_the_account(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    rows = np.random.default_rng(7).integers(0, len(s.pages), 40)
    named = {kind_of_page(s, row) for row in rows.tolist()}
    assert named <= {PAGE_KINDS[at] for at in np.flatnonzero(account_for_pages(s).pages.sum(axis=0)).tolist()}
    free = int(s.buddy_pages[100])
    assert kind_of_page(s, free) == "free block"
    anon = pick(small_anon(s, 1), "an anonymous page", 3)
    assert kind_of_page(s, anon) == "anonymous"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_that_left_its_list_shows_in_a_sum(kernel: str) -> None:
    path = core_path("fixture", kernel)
    s = sound(path)
    swapbacked = small_anon(s, 1)[s.layout.flags.test(s.pages.flags[small_anon(s, 1)], "swapbacked")]
    row = pick(swapbacked, "an anonymous page", 3)
    report = build_memory(planted(path, flags_xor(s, s.pages.memmap.pfn(row), "lru")))
    off = [(each.what, each.stored - each.pages) for each in report.sums if each.pages != each.stored]
    assert off == [("anonymous on LRU lists", 1)]
