"""Commands of the command line run at drgn's prompt, on the program that drgn has open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from drgn.commands import CommandArgumentError, CommandError

from inspector.cli import COMMANDS, cli
from inspector.cli.diagnostics import BrokenOutput, as_known, one_line
from inspector.cli.params import InspectorCommand, Settings
from inspector.errors import UsageError

if TYPE_CHECKING:
    from drgn import Program

    from inspector.target.target import Target

_TARGET = "folioscope.target"
"""The entry of `drgn.Program.cache` with the program as a target, and whether it had debug information then."""


def description(name: str) -> str:
    """One line about a command."""
    return COMMANDS[name]


def usage(called: str, name: str) -> str:
    """How a command is typed, that is called so at the prompt."""
    command, context = _prepared(called, name)
    return command.get_usage(context).removeprefix("Usage: ")


def help_text(called: str, name: str) -> str:
    """What its ``--help`` prints."""
    command, context = _prepared(called, name)
    return command.get_help(context)


def _prepared(called: str, name: str) -> tuple[InspectorCommand, click.Context]:
    command = _command(name)
    return command, click.Context(command, info_name=called, obj=Settings(at_hand=lambda: target_of(None)))


def _command(name: str) -> InspectorCommand:
    found = cli.get_command(click.Context(cli), name)
    assert isinstance(found, InspectorCommand)
    return found


def target_of(prog: Program | None) -> Target:
    """The program as a target, worked out once; anew when debug information was loaded since.

    The session's choice of debug information is kept: none is looked for here.

    Raises:
        TargetError: It is of no kernel that can be inspected.
    """
    import drgn  # noqa: PLC0415

    from inspector.target.offer import has_debug_info  # noqa: PLC0415  (drgn and NumPy)
    from inspector.target.target import from_program  # noqa: PLC0415

    prog = drgn.get_default_prog() if prog is None else prog
    has_dwarf = has_debug_info(prog)
    known: tuple[bool, Target] | None = prog.cache.get(_TARGET)
    if known is None or known[0] != has_dwarf:
        known = prog.cache[_TARGET] = (has_dwarf, from_program(prog, types="auto" if has_dwarf else "btf"))
    return known[1]


def run(prog: Program, called: str, name: str, words: Sequence[str]) -> None:
    """Run a command.

    Raises:
        CommandArgumentError: Its words cannot be understood, or name something that does not exist.
        CommandError: The program cannot be inspected, or its data is missing.
    """
    settings = Settings(at_hand=lambda: target_of(prog))
    try:
        with _command(name).make_context(called, list(words), obj=settings) as context:
            context.command.invoke(context)
        settings.output.flush()
    except click.exceptions.Exit:
        return
    except BrokenOutput:
        raise BrokenPipeError from None
    except Exception as error:  # noqa: BLE001  (drgn prints it as one line)
        known = as_known(error)
        kind = CommandArgumentError if isinstance(known, UsageError) else CommandError
        raise kind(one_line(known)) from None
