"""The table of flipped bits says what a check finds, and leaves no bit of a page-table entry undecided."""

from __future__ import annotations

import pytest

from tests.faults.bit_words import WORDS
from tests.faults.bits import TABLE, found_for, load, parse_ranges, place_of, ranges, render, undecided
from tests.faults.overlay import KERNELS

SAMPLE = (
    ("PTE of an anonymous page", (2, 4, 5, 8, 54, 59, 63)),
    ("PMD leaf", (12, 15)),
    ("PUD entry of a table", (5,)),
    ("swap entry", (4, 5)),
)
ENTRIES = [name for name in WORDS if ": " not in name]


def _cell(kernel: str, name: str, bit: int) -> str:
    place = place_of(kernel, name)
    assert place is not None
    return found_for(kernel, [place], bit)


def test_the_table_is_made_of_these_results() -> None:
    assert render(load()) == TABLE.read_text("utf-8"), "python -m tests.faults.bits -r"


def test_ranges() -> None:
    assert ranges([3, 1, 2, 7]) == "1-3 7"
    assert parse_ranges("1-3 7") == [1, 2, 3, 7]


@pytest.mark.parametrize("name", ENTRIES)
def test_no_bit_of_an_entry_is_undecided(name: str) -> None:
    found = load()
    for kernel in KERNELS:
        assert sorted(found[kernel, name]) == list(range(64))
        assert undecided(found, kernel, name) == []


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_sample_of_the_table(kernel: str) -> None:
    found = load()
    for name, bits in SAMPLE:
        assert {bit: _cell(kernel, name, bit) for bit in bits} == {bit: found[kernel, name][bit] for bit in bits}, name


@pytest.mark.parametrize("at", [pytest.param(n, marks=pytest.mark.whole if n else pytest.mark.long) for n in range(6)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_seventh_bit_of_the_table(kernel: str, at: int) -> None:
    """A sixth of them is a minute; the others are of the whole selection."""
    for (of, name), cell in load().items():
        some = sorted(cell)[7 * at :: 42] if of == kernel else []
        assert {bit: _cell(kernel, name, bit) for bit in some} == {bit: cell[bit] for bit in some}, name
