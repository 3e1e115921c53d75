"""The command that shows what each CPU was doing."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import print_report
from inspector.errors import Exit


@click.command(cls=InspectorCommand, schemas=("inspector.report.cpus:CpusReport",))
@list_options("cpus")
@click.pass_obj
def cpus(settings: Settings, listing: Listing) -> int:
    """Show what each CPU was doing: its task and stack, the window it is in, the memory that it worked on.

    Folios are those that the stack and the registers name: at hand, or used before. See folioscope manual windows.
    """
    from inspector.report.cpus import build_cpus, render_cpus  # noqa: PLC0415  (drgn and NumPy)

    snapshot = settings.snapshot()
    report = build_cpus(snapshot)
    print_report(settings, report, render_cpus, listing)
    lost = any(row.state == "unknown" for row in report.cpus)
    return Exit.INCOMPLETE if lost or not snapshot.missing.complete else Exit.CLEAN
