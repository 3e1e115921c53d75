"""The command that compares the rmap walk of a folio with the page tables."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings, as_option
from inspector.cli.show import exit_code, list_limit, show
from inspector.errors import Exit


@click.command(cls=InspectorCommand, schemas=("inspector.report.rmap:RmapReport",))
@click.argument("place", metavar="PLACE")
@as_option
@click.option("--limit", type=click.IntRange(0), help="VMAs and mappings to list; 0 for all. 100 in text, all in JSON.")
@click.pass_obj
def rmap(settings: Settings, place: str, form: str | None, limit: int | None) -> int:
    """Show a folio's mappings twice: by the kernel's rmap walk, each step of it, and by the page tables.

    PLACE is as for folio. Exit code 1 when the two differ: a mapping that the rmap walk does not find can be neither
    swapped out nor migrated, and survives truncation.
    """
    from inspector.report.places import find_place  # noqa: PLC0415
    from inspector.report.rmap import build_rmap, render_rmap  # noqa: PLC0415

    limit = list_limit(settings, limit, 100)
    snapshot, report = show(settings, lambda s: build_rmap(s, find_place(s, place, form), limit), render_rmap)
    return exit_code(snapshot) if report.agree else Exit.FINDINGS
