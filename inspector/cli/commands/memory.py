"""The command that accounts for every page."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import exit_code, show


@click.command(cls=InspectorCommand, schemas=("inspector.report.memory:MemoryReport",))
@list_options("kinds")
@click.pass_obj
def memory(settings: Settings, listing: Listing) -> int:
    """Account for every page: what it is, and the sums beside what zones, CPUs and hugetlb count."""
    from inspector.report.memory import build_memory, render_memory  # noqa: PLC0415

    snapshot, _ = show(settings, build_memory, render_memory, listing)
    return exit_code(snapshot)
