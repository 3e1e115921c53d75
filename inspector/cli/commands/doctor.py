"""The command that shows what this machine can inspect; it opens no target."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import print_report


@click.command(cls=InspectorCommand, schemas=("inspector.report.doctor:DoctorReport",))
@click.pass_obj
def doctor(settings: Settings) -> None:
    """Show what can be inspected on this machine, and how to get what is missing. No target is opened.

    Files are only opened for reading, and nothing is changed.
    """
    from inspector.report.doctor import build_doctor_report, render_doctor  # noqa: PLC0415  (drgn and NumPy)

    print_report(settings, build_doctor_report(), render_doctor)
