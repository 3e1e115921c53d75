"""The command that shows the large folios of user memory."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import exit_code, show


@click.command(cls=InspectorCommand, schemas=("inspector.report.mthp:MthpReport",))
@click.option("--vmas", "by_vma", is_flag=True, help="Also VMA by VMA, as tools/mm/thpmaps of the kernel counts.")
@click.option("--memcgs", "by_memcg", is_flag=True, help="Also by memory cgroup and node, and each split queue.")
@list_options("processes")
@click.pass_obj
def mthp(settings: Settings, listing: Listing, *, by_vma: bool, by_memcg: bool) -> int:
    """Show the large folios of user memory: by size what maps them, and who maps some in part."""
    from functools import partial  # noqa: PLC0415

    from inspector.report.mthp import build_mthp, render_mthp  # noqa: PLC0415

    snapshot, _ = show(settings, partial(build_mthp, by_vma=by_vma, by_memcg=by_memcg), render_mthp, listing)
    return exit_code(snapshot)
