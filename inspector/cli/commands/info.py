"""The command that shows what was opened, what kernel it is and what the dump lacks."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import print_report


@click.command(cls=InspectorCommand, schemas=("inspector.report.info:InfoReport",))
@click.pass_obj
def info(settings: Settings) -> None:
    """Show what was opened, how, what kernel it is, how it counts mappings, and what the dump lacks.

    Of a large memory map only a sample is read, so that the answer comes at once.
    """
    from inspector.report.info import build_info, render_info  # noqa: PLC0415  (drgn and NumPy)

    print_report(settings, build_info(settings.snapshot()), render_info)
