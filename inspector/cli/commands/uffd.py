"""The command that shows userfaultfd's contexts."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import exit_code, show


@click.command(cls=InspectorCommand, schemas=("inspector.report.uffd:UffdReport",))
@list_options("contexts")
@click.pass_obj
def uffd(settings: Settings, listing: Listing) -> int:
    """Show userfaultfd's contexts, the VMAs that each watches and what is write-protected in them."""
    from inspector.report.uffd import build_uffd_report, render_uffd  # noqa: PLC0415

    snapshot, _ = show(settings, build_uffd_report, render_uffd, listing)
    return exit_code(snapshot)
