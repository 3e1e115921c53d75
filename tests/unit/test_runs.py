"""Runs of pages cut where something changes under them, and the arithmetic of page offsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.columns import AnyArray, Builder, Table, expand_runs, group_starts
from inspector.loops import cut_runs
from inspector.tables.vmas import Vmas
from inspector.walk.linear import linear_index, vma_address
from inspector.walk.mappings import PageTables


@given(
    st.lists(st.booleans(), min_size=30, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(1, 30)), max_size=12),
)
def test_cut_runs_cover_the_same_rows_and_cross_no_border(borders: list[bool], runs: list[tuple[int, int]]) -> None:
    runs = [(first, min(nr, 30 - first)) for first, nr in runs]
    border = np.array([*borders, False])
    first, nr = (np.array([r[i] for r in runs], np.int64) for i in (0, 1))
    owner, skip, length = cut_runs(border, first, nr)
    pieces = [(o, first[o] + k, n) for o, k, n in zip(owner.tolist(), skip.tolist(), length.tolist(), strict=True)]
    rows = [(o, r) for o, start, n in pieces for r in range(start, start + n)]
    assert rows == [(i, r) for i, (start, n) in enumerate(runs) for r in range(start, start + n)]
    assert not any(border[r] for _, start, n in pieces for r in range(start + 1, start + n))
    # No cut without a border.
    starts = [(o, start) for o, start, _ in pieces if start != first[o]]
    assert all(border[start] for _, start in starts)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=10))
def test_expanded_runs_are_their_ranges(runs: list[tuple[int, int]]) -> None:
    starts, counts = (np.array([r[i] for r in runs], np.int64) for i in (0, 1))
    assert expand_runs(starts, counts).tolist() == [x for s, n in runs for x in range(s, s + n)]


def test_group_starts_of_nothing_and_of_something() -> None:
    assert group_starts(np.empty(0, np.int64)).tolist() == []
    assert group_starts(np.array([4, 4, 7, 9, 9])).tolist() == [0, 2, 3]


def tables(n: int, base: int) -> PageTables:
    one = np.arange(base, base + n)
    return PageTables(
        one, one.astype(np.uint8), one.astype(np.int32), one.astype(np.uint64), one.astype(np.int32),
        one.astype(np.uint16), one > base, one.astype(np.uint8),
    )  # fmt: skip


def test_a_builder_gives_what_concatenation_gives() -> None:
    parts = [tables(3, 0), tables(0, 5), tables(70_000, 9), tables(2, 1)]
    builder = Builder(PageTables)
    assert builder.table() is None
    for part in parts:
        builder.add(part)
    built, joined = builder.table(), PageTables.concat(parts)
    assert built is not None
    for name in ("pfn", "level", "va", "first"):
        assert (getattr(built, name) == getattr(joined, name)).all()
    assert isinstance(built, Table)


def vma(start: int, end: int, pgoff: int, anon_pgoff: int) -> Vmas:
    def one(value: int, kind: Any = np.uint64) -> AnyArray:
        return np.array([value], kind)

    zero = one(0)
    return Vmas(
        zero, one(0, np.int32), one(start), one(end), one(start), one(end), zero, zero, zero, one(pgoff),
        one(anon_pgoff), zero, zero, zero, zero, np.array([True]),
    )  # fmt: skip


ROW = np.zeros(1, np.int64)


@pytest.mark.parametrize(
    ("pgoff", "nr", "address"),
    [
        (0x10, 1, 0x400000),
        (0x12, 1, 0x402000),
        (0x1F, 1, 0x40F000),
        (0x20, 1, None),
        (0x0F, 1, None),
        # A folio that began before the VMA shows from the VMA's first page on; one page alone would not.
        (0x0C, 8, 0x400000),
        (0x08, 8, None),
        (0x1E, 8, 0x40E000),
        # The end of the range must not wrap around to small offsets.
        ((1 << 64) - 2, 8, None),
    ],
)
def test_address_of_a_page_offset_in_a_vma(pgoff: int, nr: int, address: int | None) -> None:
    v = vma(0x400000, 0x410000, 0x10, 0x10)
    va, valid = vma_address(v, ROW, np.array([pgoff], np.uint64), np.array([nr], np.uint64), np.array([True]), 12)
    assert (int(va[0]) if valid[0] else None) == address


def test_anonymous_folios_of_a_file_vma_have_an_offset_of_their_own() -> None:
    v = vma(0x400000, 0x410000, 0x10, 0x7F0)
    va = np.array([0x403000], np.uint64)
    assert linear_index(v, ROW, va, np.array([False]), 12).tolist() == [0x13]
    assert linear_index(v, ROW, va, np.array([True]), 12).tolist() == [0x7F3]
    address, valid = vma_address(v, ROW, np.array([0x7F3], np.uint64), np.ones(1, np.uint64), np.array([True]), 12)
    assert (int(address[0]), bool(valid[0])) == (0x403000, True)
