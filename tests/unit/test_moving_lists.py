"""Lists of a kernel that runs on: entries move, lists grow; a walk ends, and shows no other list's entries."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest

from inspector.lib.list import walk_lists
from tests.unit.fake_memory import FakeReader


def _ring(reader: FakeReader, *nodes: int) -> None:
    """A ring of list_heads."""
    for i, node in enumerate(nodes):
        reader.words(node, nodes[(i + 1) % len(nodes)], nodes[i - 1])


class Growing(FakeReader):
    """A list that is longer by one whenever its last entry is read, or runs in a circle past its head."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def read(self, address: int, size: int, physical: bool = False) -> bytes:
        after, before = address + self.step, address - self.step
        return struct.pack("<2Q", after, before) + bytes(size - 16) if size >= 16 else struct.pack("<Q", after)


@pytest.mark.parametrize("nr_lists", [1, 3])
def test_a_list_that_grows_as_fast_as_it_is_read_is_given_up(nr_lists: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.memory.WALK_SECONDS", 0.2)
    memory = Growing(64).memory()
    memory.runs_on = True
    began = time.monotonic()
    heads = np.arange(1, nr_lists + 1, dtype=np.uint64) << np.uint64(40)
    found = walk_lists(memory, heads, 16, 0)
    assert time.monotonic() - began < 5
    assert found.unreadable.tolist() == list(range(nr_lists))
    assert len(found.broken) == 0
    assert len(found.addr) > 0


class Torn(FakeReader):
    """A list whose entry moves to another list after it was reached, for as many reads as are given."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times
        _ring(self, 0x1000, 0x2000, 0x3000)
        _ring(self, 0x8000, 0x9000, 0xA000, 0xB000)

    def read(self, address: int, size: int, physical: bool = False) -> bytes:
        if address <= 0x3000 < address + size and size >= 16 and self.left:
            self.left -= 1
            data = bytearray(super().read(address, size))
            struct.pack_into("<2Q", data, 0x3000 - address, 0xA000, 0x9000)
            return bytes(data)
        return super().read(address, size)


def test_a_list_left_through_an_entry_that_moved_is_followed_again() -> None:
    memory = Torn(2).memory()
    memory.runs_on = True
    found = walk_lists(memory, np.array([0x1000], np.uint64), 16, 0)
    assert (found.addr.tolist(), found.broken.tolist()) == ([0x2000, 0x3000], [])


@pytest.mark.parametrize("heads", [[0x1000], [0x8000, 0x1000]])
def test_entries_of_a_list_that_never_agrees_end_where_it_is_left(heads: list[int]) -> None:
    memory = Torn(1000).memory()
    memory.runs_on = True
    found = walk_lists(memory, np.array(heads, np.uint64), 16, 0)
    of_it = found.addr[found.owner == heads.index(0x1000)]
    assert of_it.tolist() == [0x2000]
    assert found.broken.tolist() == [heads.index(0x1000)]
    still = Torn(1000).memory()
    assert 0xA000 in walk_lists(still, np.array([0x1000], np.uint64), 16, 0).addr, (
        "a dump's lists are shown as they are"
    )


def test_a_list_that_never_agrees_from_its_first_entry_on_is_not_an_empty_one() -> None:
    """It is followed alone, and nothing of it is kept."""
    reader = FakeReader()
    _ring(reader, 0x1000, 0x2000)
    reader.words(0x2000, 0xA000, 0x9000)
    memory = reader.memory()
    memory.runs_on = True
    found = walk_lists(memory, np.array([0x1000], np.uint64), 16, 0)
    assert (found.addr.tolist(), found.broken.tolist()) == ([], [0])
