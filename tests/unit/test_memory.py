"""Bulk reads: order, repetitions, neighbours, holes."""

from __future__ import annotations

import drgn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import inspector.memory
from inspector.columns import Seen, stable_order
from inspector.errors import TargetError
from inspector.memory import HOLE, Memory
from tests.unit.fake_memory import FakeReader


def patterned(start: int, size: int) -> FakeReader:
    reader = FakeReader()
    reader.put(start, bytes((start + i) * 7 & 0xFF for i in range(size)))
    return reader


@given(st.lists(st.integers(0x1000, 0x1000 + 4096 - 16), max_size=40))
def test_gather_gives_what_single_reads_give_in_the_order_asked(addresses: list[int]) -> None:
    reader = patterned(0x1000, 4096)
    raw = reader.memory().gather(np.array(addresses, np.uint64), 16)
    assert raw.valid.all()
    assert [bytes(row) for row in raw.bytes] == [reader.read(a, 16) for a in addresses]


class Computed:
    """Memory whose bytes follow from their address; every seventh page is a hole."""

    def read(self, address: int, size: int, physical: bool = False) -> bytes:
        if any(page % 7 == 0 for page in range(address // HOLE, (address + size - 1) // HOLE + 1)):
            raise drgn.FaultError("hole", address)
        return bytes((address + i) * 31 >> 3 & 0xFF for i in range(size))


@given(
    st.lists(st.integers(0, 400 * HOLE), max_size=200),
    st.sampled_from([0, 0xFFFF_8880_0000_0000, (1 << 64) - 500 * HOLE]),
)
def test_runs_far_apart_are_cut_up_together_and_bounded(offsets: list[int], base: int) -> None:
    addresses = np.array(offsets, np.uint64) + np.uint64(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspector.memory, "CHUNK", 3 * HOLE)
        raw = Memory(Computed()).gather(addresses, 24)
    for address, row, valid in zip(addresses.tolist(), raw.bytes, raw.valid, strict=True):
        try:
            assert bytes(row) == Computed().read(address, 24)
            assert valid
        except drgn.FaultError:
            assert not valid
            assert not row.any()


@given(st.lists(st.lists(st.integers(1, 30), max_size=12), max_size=6))
def test_what_a_walk_met_before_is_told(levels: list[list[int]]) -> None:
    seen, known = Seen(), set[int]()
    for level in levels:
        again = seen.take(np.array(level, np.uint64))
        for address, told in zip(level, again.tolist(), strict=True):
            assert told == (address in known)
            known.add(address)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64, np.int64, np.float64])
@pytest.mark.parametrize("bits", [4, 15, 20, 31, 40])
def test_numbers_are_put_in_the_order_that_numpy_gives(dtype: type[np.generic], bits: int) -> None:
    rng = np.random.default_rng(bits)
    values = rng.integers(-(1 << bits), 1 << bits, 10_000).astype(dtype)
    for column in (values, np.sort(values), np.unique(values)[::-1], np.sort(values)[::-1]):
        assert stable_order(column).tolist() == np.argsort(column, kind="stable").tolist()
    assert stable_order(values[:100]).tolist() == np.argsort(values[:100], kind="stable").tolist()


def test_neighbours_and_repetitions_cost_one_read() -> None:
    reader = patterned(0x1000, 4096)
    reader.memory().gather(np.array([0x1100, 0x1000, 0x1040, 0x1000], np.uint64), 32)
    assert reader.reads == 1


def test_a_hole_masks_only_what_lies_in_it() -> None:
    reader = patterned(0x1000, 256)
    reader.put(0x1200, bytes(range(64)))
    raw = reader.memory().gather(np.array([0x1200, 0x1110, 0x1000, 0x10F8], np.uint64), 16)
    assert raw.valid.tolist() == [True, False, True, False]
    assert bytes(raw.bytes[0]) == bytes(range(16))
    assert not raw.bytes[1].any()


def test_a_range_is_masked_by_whole_steps() -> None:
    reader = FakeReader()
    reader.put(0x10000, b"\1" * HOLE)
    reader.put(0x10000 + 2 * HOLE, b"\2" * 100)
    data, valid = reader.memory().read_range(0x10000, 2 * HOLE + 100)
    assert valid.tolist() == [True, False, True]
    assert (data[0], data[HOLE], data[2 * HOLE]) == (1, 0, 2)


def test_the_direct_map_is_read_physically() -> None:
    seen = []

    class Reader:
        def read(self, address: int, size: int, physical: bool = False) -> bytes:
            seen.append((address, physical))
            return bytes(size)

    memory = Memory(Reader())
    memory.set_direct_map(0xFFFF888000000000, 1 << 40)
    memory.read(0xFFFF888000005000, 8)
    memory.read(0xFFFFFFFF81000000, 8)
    assert seen == [(0x5000, True), (0xFFFFFFFF81000000, False)]


def test_a_target_that_goes_away_is_an_error_and_no_hole() -> None:
    class Gone:
        def read(self, address: int, size: int, physical: bool = False) -> bytes:
            raise ProcessLookupError(3, "No such process")

    with pytest.raises(TargetError, match="cannot be read any more"):
        Memory(Gone()).read(0, 8)


def test_senseless_addresses_are_unreadable() -> None:
    memory = patterned(0, 64).memory()
    assert memory.read(-8, 8) is None
    assert memory.read((1 << 64) - 4, 8) is None
    assert memory.read(0, 0) is None
