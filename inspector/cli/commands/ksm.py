"""The command that shows KSM's stable nodes."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import exit_code, show


@click.command(cls=InspectorCommand, schemas=("inspector.report.ksm:KsmReport",))
@list_options("nodes")
@click.pass_obj
def ksm(settings: Settings, listing: Listing) -> int:
    """Show KSM's stable nodes, their pages and who maps them, beside its own totals."""
    from inspector.report.ksm import build_ksm_report, render_ksm  # noqa: PLC0415

    snapshot, _ = show(settings, build_ksm_report, render_ksm, listing)
    return exit_code(snapshot)
