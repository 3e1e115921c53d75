"""Text: what may reach a terminal, and the numbers that people type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.text import (
    cell_width,
    clean,
    clean_bytes,
    counted,
    duration,
    grouped,
    parse_number,
    parse_size,
    size,
)


@given(st.text())
def test_clean_text_is_printable(text: str) -> None:
    assert clean(text).isprintable()
    assert clean(clean(text)) == clean(text)


@given(st.binary(max_size=32))
def test_clean_bytes_is_printable_and_ends_at_the_terminator(data: bytes) -> None:
    shown = clean_bytes(data)
    assert shown.isprintable()
    assert shown == clean_bytes(data.split(b"\0")[0])


def test_clean_keeps_what_can_be_read() -> None:
    assert clean("kworker/0:1-events") == "kworker/0:1-events"
    assert clean("naïve 漢字") == "naïve 漢字"
    assert clean("a\x1b[31mb\n\u202e") == "a\\x1b[31mb\\n\\u202e"
    assert clean_bytes(b"sh\0junk") == "sh"
    assert clean_bytes(b"\xff\xfe") == "\\xff\\xfe"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("4660", 4660),
        ("0x1234", 0x1234),
        ("0X1234", 0x1234),
        (" 0x10 ", 16),
        ("ffffea0000048d00", 0xFFFFEA0000048D00),
        ("dead", 0xDEAD),
        ("0xffff_8880_0000_0000", 0xFFFF888000000000),
        ("18446744073709551615", (1 << 64) - 1),
    ],
)
def test_numbers(text: str, number: int) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "x", "0x", "-1", "+1", "1.5", "0x1g", "18446744073709551616", "٣", "1 2", "0x-1"])
def test_no_numbers(text: str) -> None:
    assert parse_number(text) is None


@given(st.integers(0, (1 << 64) - 1))
def test_numbers_come_back(number: int) -> None:
    assert parse_number(str(number)) == parse_number(hex(number)) == parse_number(f"{number:#018x}") == number


def test_words() -> None:
    assert [counted(n, "finding") for n in (0, 1, 2, 1234)] == [
        "0 findings",
        "1 finding",
        "2 findings",
        "1,234 findings",
    ]
    assert counted(2, "entry", "entries") == "2 entries"
    assert grouped(163840) == "163,840"
    assert [duration(n) for n in (0, 18, 60, 3725, 90061)] == ["0 s", "18 s", "1 min", "1 h 2 min", "1 d 1 h"]
    assert [size(n) for n in (0, 1023, 4096, 2 << 20, 625459200, 1 << 60)] == [
        "0 B",
        "1023 B",
        "4 KiB",
        "2 MiB",
        "596 MiB",
        "1024 PiB",
    ]


def test_cells() -> None:
    assert cell_width("abc") == 3
    assert cell_width("漢字") == 4
    assert cell_width("e\u0301") == 1


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("4096", 4096), ("4G", 4 << 30), ("1.5GiB", 3 << 29), ("200 mb", 200 << 20), ("1k", 1024), ("2T", 2 << 40)],
)
def test_sizes(text: str, bytes_: int) -> None:
    assert parse_size(text) == bytes_


@pytest.mark.parametrize("text", ["", "G", "-1", "4X", "0x10", "1e3", "4 G G", "nan"])
def test_no_sizes(text: str) -> None:
    assert parse_size(text) is None
