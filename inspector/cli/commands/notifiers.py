"""The command that shows MMU notifiers."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import exit_code, show


@click.command(cls=InspectorCommand, schemas=("inspector.report.notifiers:NotifiersReport",))
@list_options("notifiers")
@click.pass_obj
def notifiers(settings: Settings, listing: Listing) -> int:
    """Show MMU notifiers: drivers called back when the page tables of a process change, such as KVM."""
    from inspector.report.notifiers import build_notifiers_report, render_notifiers  # noqa: PLC0415

    snapshot, _ = show(settings, build_notifiers_report, render_notifiers, listing)
    return exit_code(snapshot)
