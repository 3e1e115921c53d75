"""The command that compares the rmap walk of a folio with the page tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inspector.cli.params import InspectorCommand, Settings, as_option
from inspector.cli.show import list_limit, opened, print_report
from inspector.errors import Exit

if TYPE_CHECKING:
    from inspector.report.rmap import RmapReport
    from inspector.snapshot import Snapshot


@click.command(cls=InspectorCommand, schemas=("inspector.report.rmap:RmapReport",))
@click.argument("place", metavar="PLACE")
@as_option
@click.option("--all", "everything", is_flag=True, help="Compare with all page tables, not only where the walk leads.")
@click.option("--limit", type=click.IntRange(0), help="VMAs and mappings to list; 0 for all. 100 in text, all in JSON.")
@click.pass_obj
def rmap(settings: Settings, place: str, form: str | None, everything: bool, limit: int | None) -> int:
    """Show a folio's mappings by the kernel's rmap walk, each step of it, beside what the folio counts.

    PLACE is as for folio. With --all the walk is compared with all page tables: a mapping that it does not find can be
    neither swapped out nor migrated, and survives truncation. Exit code 1 when the two differ, or when the walk finds
    more mappings than the folio counts; 4 when it finds fewer and not all page tables were searched.
    """
    from inspector.folio.look import look_at, settled  # noqa: PLC0415  (drgn and NumPy)
    from inspector.report.places import find_place  # noqa: PLC0415
    from inspector.report.rmap import build_rmap, render_rmap  # noqa: PLC0415

    limit = list_limit(settings, limit, 100)
    with opened(settings) as (snapshot, progress):
        found = find_place(snapshot, place, form)

        def ask(s: Snapshot) -> RmapReport:
            return build_rmap(look_at(s, found.pfn, everything=everything, progress=progress), found, limit)

        report = settled(snapshot, ask, lambda r: r.exit_code == Exit.FINDINGS)
    print_report(settings, report, render_rmap)
    return report.exit_code
