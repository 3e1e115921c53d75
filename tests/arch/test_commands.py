"""Each command is in a file of its own, and the list of commands is that of the files."""

from __future__ import annotations

from importlib import import_module

import click

from inspector.cli import COMMANDS, cli
from tests.arch.readme_map import ROOT

FOLDER = ROOT / "inspector" / "cli" / "commands"


def test_the_list_of_commands_is_that_of_the_files() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_") for name in COMMANDS} == files


def test_every_file_holds_the_one_command_it_is_named_for() -> None:
    for path in FOLDER.glob("*.py"):
        found = [x for x in vars(import_module(f"inspector.cli.commands.{path.stem}")).values() if _is_command(x)]
        assert [command.name.replace("-", "_") for command in found] == ([path.stem] if path.stem != "__init__" else [])


def test_every_command_is_found_by_its_name() -> None:
    with click.Context(cli) as context:
        for name, line in COMMANDS.items():
            command = cli.get_command(context, name)
            assert command is not None
            assert command.name == name
            assert line.endswith(".")


def _is_command(value: object) -> bool:
    return isinstance(value, click.Command)
