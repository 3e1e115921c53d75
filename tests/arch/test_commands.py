"""Each command is in a file of its own, and the list of commands is that of the files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from inspector.cli import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]

FOLDER = ROOT / "inspector" / "cli" / "commands"


def test_the_list_of_commands_is_that_of_the_files() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_") for name in COMMANDS} == files


def test_every_file_holds_the_one_command_it_is_named_for() -> None:
    for name in COMMANDS:
        stem = name.replace("-", "_")
        module = import_module(f"inspector.cli.commands.{stem}")
        found = {x.name for x in vars(module).values() if isinstance(x, click.Command)}
        assert found == {name}, stem


def test_every_command_is_found_by_its_name() -> None:
    with click.Context(cli) as context:
        for name, line in COMMANDS.items():
            command = cli.get_command(context, name)
            assert command is not None
            assert command.name == name
            assert line.endswith(".")
