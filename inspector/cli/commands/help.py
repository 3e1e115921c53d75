"""The command that shows the help of another."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings
from inspector.errors import UsageError


@click.command(cls=InspectorCommand)
@click.argument("command", required=False, metavar="[COMMAND]")
@click.pass_obj
def help(settings: Settings, command: str | None) -> None:  # noqa: A001  (the command is called so)
    """Show the help of a command, as its --help does; alone, the list of commands."""
    context = click.get_current_context()
    group = context.find_root()
    assert isinstance(group.command, click.Group)
    if command is None:
        settings.output.paged(group.get_help().splitlines())
        return
    found = group.command.get_command(group, command)
    if found is None:
        raise UsageError("there is no such command", command, "See folioscope help; folioscope manual has pages, too")
    with click.Context(found, info_name=command, parent=group) as own:
        settings.output.paged(found.get_help(own).splitlines())
