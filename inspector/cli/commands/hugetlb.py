"""The command that shows hugetlb's pools."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import exit_code, show


@click.command(cls=InspectorCommand, schemas=("inspector.report.hugetlb:HugetlbReport",))
@list_options("folios")
@click.pass_obj
def hugetlb(settings: Settings, listing: Listing) -> int:
    """Show hugetlb's pools, folios, VMAs and shared page tables."""
    from inspector.report.hugetlb import build_hugetlb_report, render_hugetlb  # noqa: PLC0415

    snapshot, _ = show(settings, build_hugetlb_report, render_hugetlb, listing)
    return exit_code(snapshot)
