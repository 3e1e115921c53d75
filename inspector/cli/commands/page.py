"""The command that shows struct pages as rows."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings, as_option
from inspector.cli.show import print_report
from inspector.errors import Exit


@click.command(cls=InspectorCommand, schemas=("inspector.report.pages:PagesReport",))
@click.argument("places", nargs=-1, required=True, metavar="PLACE...")
@as_option
@click.pass_obj
def page(settings: Settings, places: tuple[str, ...], form: str | None) -> int:
    """Show struct pages; only those asked for are read.

    PLACE is a page frame number, a physical address, the address of a struct page or any address of the kernel, in
    decimal or in hex with 0x; PID:ADDRESS; FILE@PGOFF, in pages; or a range FIRST-LAST or FIRST+COUNT. Neighbours that
    are alike in everything are one row.
    """
    from inspector.report.pages import build_pages, render_pages  # noqa: PLC0415  (drgn and NumPy)
    from inspector.report.places import find_ranges  # noqa: PLC0415

    snapshot = settings.snapshot()
    found, ranges = find_ranges(snapshot, places, form)
    report = build_pages(snapshot, found, ranges)
    print_report(settings, report, render_pages)
    return Exit.CLEAN if report.complete else Exit.INCOMPLETE
