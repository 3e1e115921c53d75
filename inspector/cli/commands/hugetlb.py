"""The command that shows hugetlb's pools."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import exit_code, show


@click.command(cls=InspectorCommand, schemas=("inspector.report.hugetlb:HugetlbReport",))
@click.pass_obj
def hugetlb(settings: Settings) -> int:
    """Show hugetlb's pools, folios, VMAs and shared page tables."""
    from inspector.report.hugetlb import build_hugetlb_report, render_hugetlb  # noqa: PLC0415

    snapshot, _ = show(settings, build_hugetlb_report, render_hugetlb)
    return exit_code(snapshot)
