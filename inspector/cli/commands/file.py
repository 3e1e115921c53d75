"""The command that shows who maps a file, and its page cache."""

from __future__ import annotations

import click

from inspector.cli.params import ALL_HELP, InspectorCommand, Settings
from inspector.cli.show import exit_code, opened, print_report, show
from inspector.errors import Exit


@click.command(cls=InspectorCommand, schemas=("inspector.report.file:FileReport",))
@click.argument("name", metavar="PATH|INODE|ADDRESS")
@click.option("--all", "everything", is_flag=True, help=ALL_HELP)
@click.pass_obj
def file(settings: Settings, name: str, everything: bool) -> int:
    """Show who maps which part of a file, and its page cache by order of folio.

    The file is named by a path as vmas shows it, by its inode number, or by the address of its address_space or inode.
    A path is looked up in the first mount namespace, then among the files that processes map; a number in the kernel's
    hash of inodes and among those: other files may have it too. No more is read than the file's page cache and what its
    tree of VMAs leads to. Exit code 1 when that tree or a mapping breaks a rule; see folioscope rules.
    """
    from inspector.report.file import aim_at_file, build_file, find_file, render_file  # noqa: PLC0415

    if everything:
        snapshot, report = show(settings, lambda s: build_file(s, find_file(s, name)), render_file)
        return Exit.FINDINGS if report.damage else exit_code(snapshot)
    with opened(settings) as (snapshot, _):
        one = aim_at_file(snapshot, name)
        report = build_file(one, 0)
    print_report(settings, report, render_file)
    return Exit.FINDINGS if report.damage else exit_code(one)
