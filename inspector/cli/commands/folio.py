"""The command that shows one folio in full."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings, as_option
from inspector.cli.show import list_limit, opened, print_report


@click.command(cls=InspectorCommand, schemas=("inspector.report.folio:FolioReport",))
@click.argument("place", metavar="PLACE")
@as_option
@click.option("--no-mappings", is_flag=True, help="Do not walk the page tables: stored counts only, at once.")
@click.option("--limit", type=click.IntRange(0), help="Mappings to list; 0 for all. 100 in text, all in JSON.")
@click.pass_obj
def folio(settings: Settings, place: str, form: str | None, no_mappings: bool, limit: int | None) -> int:
    """Show one folio: what it is, every counter beside its rebuilt value, its pages, and who maps it.

    PLACE is a page frame number, a physical address, the address of a struct page or folio, or a direct-map address;
    any page of the folio will do. To count its mappings all page tables are walked.
    """
    from inspector.report.folio import build_folio, render_folio  # noqa: PLC0415  (drgn and NumPy)
    from inspector.report.places import find_place  # noqa: PLC0415

    limit = list_limit(settings, limit, 100)
    with opened(settings) as (snapshot, progress):
        found = find_place(snapshot, place, form)
        report = build_folio(snapshot, found, progress=None if no_mappings else progress, limit=limit)
    print_report(settings, report, render_folio)
    return report.exit_code
