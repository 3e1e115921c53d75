"""Terminals of 80 columns and less: nothing is broken raw, nothing is left out."""

from __future__ import annotations

import pytest

from inspector.cli import output
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.text import cell_width
from tests.cli.conftest import Run
from tests.cli.test_commands import COMMAND_LINES

LINES = {
    **{name: (name, *words) for name, words in COMMAND_LINES.items()},
    "file": ("file", "/bin/keeper"),
    "va of many": ("va", "1", "0x401000"),
    "stack": ("windows", "--stack", "1"),
    "catalogue": ("rules", "--catalogue"),
    "vmas of a THP": ("vmas", "203"),
    "slot": ("swap", "0:10"),
}


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("name", LINES)
def test_lines_fit_the_terminal(
    name: str, width: int, run: Run, any_core: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = LINES[name]
    whole = run(*words, *(() if words[0] == "rules" else ("-c", any_core)))
    monkeypatch.setattr(output, "_is_terminal", lambda _stream: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    narrow = run(*words, *(() if words[0] == "rules" else ("-c", any_core)))
    assert narrow.code == whole.code == 0
    assert [line for line in narrow.out.splitlines() if cell_width(line) > width and " " in line.strip()] == []
    if words[0] not in ("rules", "doctor", "cache"):
        missing = set(whole.out.split()) - set(narrow.out.split())
        assert not missing


def test_columns_that_do_not_fit_are_below() -> None:
    columns = [TableColumn("pid", right=True), TableColumn("name", style="bold"), TableColumn("much", right=True)]
    rows = [("1", "a" * 10, "7"), ("22", "b", ""), ("3", "c", "1234")]
    assert list(render_table(Screen(width=21), columns, rows)) == [
        "pid  name        much",
        "  1  aaaaaaaaaa     7",
        " 22  b",
        "  3  c           1234",
    ]
    assert next(render_table(Screen(width=19), columns, rows)) == "pid name       much"
    assert list(render_table(Screen(width=18), columns, rows)) == [
        "pid  name",
        "    much",
        "  1  aaaaaaaaaa",
        "       7",
        " 22  b",
        "  3  c",
        "    1234",
    ]


def test_a_cell_that_does_not_fit_is_wrapped() -> None:
    columns = [TableColumn("pid"), TableColumn("words")]
    lines = list(render_table(Screen(width=40), columns, [("1", "one two three four five six seven eight nine ten")]))
    assert lines == ["pid", "    words", "1", "    one two three four five six seven", "        eight nine ten"]


def test_colour_takes_no_room() -> None:
    screen = Screen(color=True, width=20)
    line = screen.paint("red", "one two") + " three " + screen.paint("bold", "four five")
    assert screen.fold(line) == ["\x1b[31mone two\x1b[0m three \x1b[1mfour", "    five\x1b[0m"]
    assert screen.fold("x" * 30) == ["x" * 30]
    assert Screen().fold("word " * 90) == ["word " * 90]


def test_sizes_have_their_unit_in_the_heading(run: Run, any_core: str) -> None:
    ps = run("ps", "-c", any_core).out.splitlines()[0]
    for name in ("rss", "anon", "file", "shmem", "swap", "pmd-mapped", "hugetlb", "tables"):
        assert f"{name} KiB" in ps
    vmas = next(line for line in run("vmas", "1", "-c", any_core).out.splitlines() if "perm" in line)
    assert all(f"{name} KiB" in vmas for name in ("size", "rss", "anon", "file"))
