"""The command that says what was opened, what kernel it is and what the dump lacks."""

from __future__ import annotations

import click

from inspector.cli.params import DoorCommand, Settings


@click.command(cls=DoorCommand, schemas=("inspector.report.info:InfoReport",))
@click.pass_obj
def info(settings: Settings) -> None:
    """Say what was opened, how, what kernel it is, how it counts mappings, and what the dump lacks.

    Of a large memory map only a sample is read, so that the answer comes at once.
    """
    from inspector.report.info import build_info, render_info  # noqa: PLC0415  (drgn and NumPy)

    report = build_info(settings.snapshot())
    if settings.format == "json":
        settings.output.json(report)
    else:
        settings.output.lines(render_info(settings.output.screen, report))
