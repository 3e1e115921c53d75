"""The command that lists, shows and copies the scripts for drgn; it opens no target."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import print_report
from inspector.errors import UsageError


def _names(_context: click.Context, _parameter: click.Parameter, word: str) -> list[CompletionItem]:
    from inspector.report.scripts import build_scripts  # noqa: PLC0415  (msgspec)

    return [CompletionItem(script.name) for script in build_scripts().scripts if script.name.startswith(word)]


@click.command(cls=InspectorCommand, schemas=("inspector.report.scripts:ScriptsReport",))
@click.argument("name", required=False, metavar="[NAME]", shell_complete=_names)
@click.option("--copy", "folder", metavar="DIR", help="Copy the scripts, or the one named, into a folder.")
@click.option("--force", is_flag=True, help="Replace files of that name which are there already.")
@click.pass_obj
def scripts(settings: Settings, name: str | None, folder: str | None, *, force: bool) -> None:
    """List the scripts for drgn, show one, or copy them to change them. No target is opened.

    Each is a short lesson that begins with what it shows and what it prints. They run under drgn itself, on a dump as
    on the running kernel, with or without debug information: drgn -c VMCORE check.py
    """
    from inspector.report.scripts import (  # noqa: PLC0415  (msgspec)
        build_scripts,
        copy_scripts,
        render_copies,
        render_script,
        render_scripts,
    )

    if force and folder is None:
        raise UsageError("--force is about copies", "", "Name a folder with --copy")
    report = build_scripts([name] if name else [])
    if folder is not None:
        copied = copy_scripts(report, Path(folder), is_forced=force)
        print_report(settings, copied, render_copies)
    else:
        print_report(settings, report, render_script if name else render_scripts)
