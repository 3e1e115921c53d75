"""The README's file map and rule index are those of the code."""

from __future__ import annotations

import re

from inspector.errors import Exit
from tests.arch.readme_map import README, ROOT, first_sentence, written


def test_made_parts_are_current() -> None:
    readme = README.read_text("utf-8")
    assert readme == written(readme), "write them anew with: python -m tests.arch.readme_map"


def test_every_module_says_what_it_is_for() -> None:
    for path in (ROOT / "inspector").rglob("*.py"):
        assert first_sentence(path).endswith("."), path


def test_every_exit_code_is_documented() -> None:
    table = re.findall(r"^\| (\d+) \| ", README.read_text("utf-8"), re.MULTILINE)
    assert {int(code) for code in table} == {*map(int, Exit), 130, 141}


def test_every_command_is_shown() -> None:
    from inspector.cli import COMMANDS

    readme = README.read_text("utf-8")
    assert all(f"`{name}" in readme or f"folioscope {name}" in readme for name in COMMANDS)
