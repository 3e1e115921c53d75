"""The command that shows who maps a file, and its page cache."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import exit_code, show
from inspector.errors import Exit


@click.command(cls=InspectorCommand, schemas=("inspector.report.file:FileReport",))
@click.argument("name", metavar="PATH|INODE|ADDRESS")
@click.pass_obj
def file(settings: Settings, name: str) -> int:
    """Show who maps which part of a file, and its page cache by order of folio.

    The file is named by a path as vmas shows it, by its inode number, or by the address of its address_space or inode.
    Exit code 1 when its tree of VMAs or a mapping breaks a rule; see folioscope rules.
    """
    from inspector.report.file import build_file, find_file, render_file  # noqa: PLC0415

    snapshot, report = show(settings, lambda s: build_file(s, find_file(s, name)), render_file)
    return Exit.FINDINGS if report.damage else exit_code(snapshot)
