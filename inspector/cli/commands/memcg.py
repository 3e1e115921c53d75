"""The command that shows memory cgroups."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import exit_code, show


@click.command(cls=InspectorCommand, schemas=("inspector.report.memcg:MemcgReport",))
@list_options("memcgs")
@click.pass_obj
def memcg(settings: Settings, listing: Listing) -> int:
    """Show memory cgroups: what each counts beside what is charged to it, node by node, and what keeps removed ones."""
    from inspector.report.memcg import build_memcg, render_memcg  # noqa: PLC0415  (NumPy)

    snapshot, _ = show(settings, build_memcg, render_memcg, listing)
    return exit_code(snapshot)
