"""The command that shows one folio in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inspector.cli.params import InspectorCommand, Settings, as_option
from inspector.cli.show import list_limit, opened, print_report
from inspector.errors import Exit

if TYPE_CHECKING:
    from inspector.report.folio import FolioReport
    from inspector.snapshot import Snapshot


@click.command(cls=InspectorCommand, schemas=("inspector.report.folio:FolioReport",))
@click.argument("place", metavar="PLACE")
@as_option
@click.option("--all", "everything", is_flag=True, help="Search all page tables for its mappings, not its reverse map.")
@click.option("--no-mappings", is_flag=True, help="Do not search for mappings: stored counts only.")
@click.option("--limit", type=click.IntRange(0), help="Mappings to list; 0 for all. 100 in text, all in JSON.")
@click.pass_obj
def folio(  # noqa: PLR0913, PLR0917  (one parameter an option)
    settings: Settings, place: str, form: str | None, everything: bool, no_mappings: bool, limit: int | None
) -> int:
    """Show one folio: what it is, every counter beside its rebuilt value, its pages, and who maps it.

    PLACE is a page frame number, a physical address, the address of a struct page or folio, any address of the kernel,
    PID:ADDRESS with the pid or name of a process, or FILE@PGOFF with a path and an offset in pages; any page of the
    folio will do. Its mappings are found as the
    kernel finds them, by its reverse map: that costs the same on a machine of any size. A mapping that the reverse map
    does not lead to is not seen then, so that a stored count above what was found is "not checked"; one below it is
    WRONG in any case. --all walks all page tables instead, and settles it.
    """
    from inspector.aimed.pages import partial_of_folio  # noqa: PLC0415  (drgn and NumPy)
    from inspector.folio.look import look_at, settled  # noqa: PLC0415
    from inspector.report.folio import build_folio, render_folio  # noqa: PLC0415
    from inspector.report.places import find_place  # noqa: PLC0415

    limit = list_limit(settings, limit, 100)
    with opened(settings) as (snapshot, progress):
        found = find_place(snapshot, place, form)

        def ask(s: Snapshot) -> FolioReport:
            if no_mappings:
                return build_folio(partial_of_folio(s, found.pfn), found, limit=limit)
            return build_folio(look_at(s, found.pfn, everything=everything, progress=progress), found, limit=limit)

        report = settled(snapshot, ask, lambda r: r.exit_code == Exit.FINDINGS)
    print_report(settings, report, render_folio)
    return report.exit_code
