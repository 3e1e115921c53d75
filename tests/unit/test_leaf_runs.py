"""Runs of page-table entries, found by the compiled loop and by NumPy."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector import loops
from inspector.arch.base import Level
from inspector.arch.swapentry import SwapTypes
from inspector.arch.x86_64 import X86_64
from inspector.columns import AnyArray
from inspector.loops import count_runs, cut_runs
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from inspector.walk.mappings import Mappings, PageTables
from inspector.walk.pagetable import Attributor, Batch, LeafRuns, leaf_runs
from tests.fixtures import fixture_path
from tests.unit.fake_tables import vmas_at

ARCH = X86_64(4, SwapTypes(27, 1, 3, 0, 1, 0))
ENTRIES = 512
ENTRY = st.one_of(
    st.just(0),
    st.integers(0, 7).map(lambda pfn: pfn << 12 | 0x67),
    st.integers(0, 7).map(lambda pfn: pfn << 12 | 0x65),
    # PROT_NONE: not present for the hardware, the page frame inverted.
    st.integers(0, 7).map(lambda pfn: ~(pfn << 12) & 0x000F_FFFF_FFFF_F000 | 0x120),
    st.just(0xFFFF_0000_0000_0002),
    st.integers(0, 2**64 - 1),
)
"""What a slot may hold; few page frames, so that neighbours often run on."""


def batch_of(entries: list[int], places: list[int]) -> Batch:
    words = np.zeros(2 * ENTRIES, np.uint64)
    words[places] = np.array(entries, np.uint64)
    n = 2
    tables = PageTables(
        pfn=np.array([10, 11]),
        level=np.full(n, Level.PTE, np.uint8),
        mm_idx=np.array([0, 1], np.int32),
        va=np.array([0, 1 << 21], np.uint64),
        parent=np.full(n, -1, np.int32),
        slot=np.zeros(n, np.uint16),
        first=np.ones(n, np.bool_),
        state=np.zeros(n, np.uint8),
    )
    return Batch(tables, np.arange(2), 0, ARCH.shapes[-1], words)


def both_ways(batch: Batch, attribute: Attributor) -> list[LeafRuns]:
    found = [leaf_runs(ARCH, attribute, batch)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "_COMPILED", None)
        found.append(leaf_runs(ARCH, attribute, batch))
    return found


def columns(runs: LeafRuns) -> list[list[int]]:
    return [column.tolist() for column in (runs.at, runs.nr, runs.vma_idx, runs.other)]


@given(
    st.lists(ENTRY, min_size=1, max_size=24),
    st.sampled_from([0, 3, ENTRIES - 6, ENTRIES + 1]),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(1, 8)), max_size=6),
)
def test_runs_are_the_same_both_ways(entries: list[int], first: int, vmas: list[tuple[int, int, int]]) -> None:
    batch = batch_of(entries, list(range(first, first + len(entries))))
    stretches = sorted((mm, ((mm << 9) + at) << 12, ((mm << 9) + at + nr) << 12) for mm, at, nr in vmas)
    apart = [v for i, v in enumerate(stretches) if not i or stretches[i - 1][0] != v[0] or stretches[i - 1][2] <= v[1]]
    compiled, plain = both_ways(batch, Attributor(12, vmas_at(apart)))
    assert columns(compiled) == columns(plain)


def test_a_run_ends_with_its_table_and_with_its_vma() -> None:
    entries = [(pfn << 12) | 0x67 for pfn in range(1, 9)]
    attribute = Attributor(12, vmas_at([(0, (ENTRIES - 6) << 12, (ENTRIES - 2) << 12), (1, 1 << 21, (1 << 21) + 4096)]))
    for runs in both_ways(batch_of(entries, list(range(ENTRIES - 4, ENTRIES + 4))), attribute):
        assert columns(runs) == [[508, 510, 512, 513], [2, 2, 1, 3], [0, -1, 1, -1], []]


def as_lists(found: tuple[AnyArray, ...]) -> list[list[int]]:
    return [column.tolist() for column in found]


@given(
    st.lists(st.booleans(), min_size=30, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(1, 40)), max_size=12),
)
def test_cuts_and_counts_are_the_same_both_ways(borders: list[bool], runs: list[tuple[int, int]]) -> None:
    border = np.array([*borders, False])
    first, nr = (np.array([r[i] for r in runs], np.int64) for i in (0, 1))
    inside = np.minimum(nr, 30 - first)
    found = []
    for compiled in (loops._COMPILED, None):
        counts = np.zeros(30, np.int32)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loops, "_COMPILED", compiled)
            count_runs(counts, first.astype(np.int32), nr.astype(np.uint32))
            found.append([*as_lists(cut_runs(border, first, inside)), counts.tolist()])
    assert found[0] == found[1]
    assert sum(found[0][-1]) == inside.sum()


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.3"])
def test_all_entries_of_a_captured_kernel_are_the_same_both_ways(kernel: str) -> None:
    found = []
    for compiled in (loops._COMPILED, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loops, "_COMPILED", compiled)
            found.append(Snapshot(open_core(str(fixture_path(kernel)), types="btf")).mappings)
    for field in fields(Mappings):
        assert np.array_equal(getattr(found[0], field.name), getattr(found[1], field.name)), field.name
