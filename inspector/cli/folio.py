"""The commands that show one folio in full, and struct pages as rows."""

from __future__ import annotations

import click

from inspector.cli.params import DoorCommand, Settings
from inspector.cli.places import as_option, find_place, find_ranges
from inspector.errors import Exit


@click.command(cls=DoorCommand, schemas=("inspector.report.pages:PagesReport",))
@click.argument("places", nargs=-1, required=True, metavar="PLACE...")
@as_option
@click.pass_obj
def page(settings: Settings, places: tuple[str, ...], form: str | None) -> int:
    """Show struct pages; only those asked for are read.

    PLACE is a page frame number, a physical address, the address of a struct page or a direct-map address, in decimal
    or in hex with 0x; or a range FIRST-LAST or FIRST+COUNT. Neighbours that are alike in everything are one row.
    """
    from inspector.report.pages import build_pages, render_pages  # noqa: PLC0415  (drgn and NumPy)

    snapshot = settings.snapshot()
    found, ranges = find_ranges(snapshot, places, form)
    report = build_pages(snapshot, found, ranges)
    if settings.format == "json":
        settings.output.json(report)
    else:
        settings.output.lines(render_pages(settings.output.screen, report))
    return Exit.CLEAN if report.complete else Exit.INCOMPLETE


@click.command(cls=DoorCommand, schemas=("inspector.report.folio:FolioReport",))
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
    from inspector.cli.progress import Progress  # noqa: PLC0415
    from inspector.report.folio import build_folio, render_folio  # noqa: PLC0415  (drgn and NumPy)

    if limit is None and settings.format == "text":
        limit = 100
    with Progress(settings) as progress:
        progress("opening", 0, 1)
        snapshot = settings.snapshot()
        found = find_place(snapshot, place, form)
        report = build_folio(snapshot, found, progress=None if no_mappings else progress, limit=limit or None)
    if settings.format == "json":
        settings.output.json(report)
    else:
        settings.output.lines(render_folio(settings.output.screen, report))
    return report.exit_code
