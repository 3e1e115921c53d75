"""The command that shows swap devices, or one slot."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import exit_code, show


@click.command(cls=InspectorCommand, schemas=("inspector.report.swap:SwapReport",))
@click.argument("entry", required=False, metavar="[TYPE:OFFSET]")
@click.pass_obj
def swap(settings: Settings, entry: str | None) -> int:
    """Show the swap devices, or one slot: its count, its folio in the swap cache, and every entry that refers to it."""
    from inspector.report.swap import build_swap, render_swap  # noqa: PLC0415

    snapshot, _ = show(settings, lambda s: build_swap(s, entry), render_swap)
    return exit_code(snapshot)
