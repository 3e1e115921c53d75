"""The command that lists address spaces."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import show
from inspector.errors import Exit


@click.command(cls=InspectorCommand, schemas=("inspector.report.processes:PsReport",))
@list_options("processes")
@click.pass_obj
def ps(settings: Settings, listing: Listing) -> int:
    """List address spaces: their processes and their memory by kind, in KiB, which /proc calls kB.

    Address spaces that no task uses any more, or yet, are listed last. Kernel threads have none.
    """
    from inspector.report.processes import build_ps, render_ps  # noqa: PLC0415  (NumPy)

    _, report = show(settings, build_ps, render_ps, listing)
    return Exit.INCOMPLETE if report.missing else Exit.CLEAN
