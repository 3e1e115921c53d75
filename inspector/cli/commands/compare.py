"""The command that compares two captures of one boot by folio."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings, as_option
from inspector.cli.show import print_report
from inspector.errors import Exit

_LIMIT = 20


@click.command(cls=InspectorCommand, schemas=("inspector.report.compare:CompareReport",))
@click.argument("later", metavar="LATER")
@click.argument("places", nargs=-1, metavar="[PLACE]...")
@as_option
@click.option("--limit", type=click.IntRange(0), default=_LIMIT, show_default=True, help="Folios compared; 0 for all.")
@click.pass_obj
def compare(settings: Settings, later: str, places: tuple[str, ...], form: str | None, limit: int) -> int:
    """Compare two captures of one boot, folio by folio: before and after.

    The first is the target, LATER is a dump that was made later of the same kernel while it ran on. Of each folio
    mapping, index, addresses and counters are shown as they were and as they are, and the fewest rmap operations that
    lead from one state to the other, with the pages and processes of each. A folio that was freed in between is one
    that was unmapped and made anew.

    PLACE is as explain takes it, looked up in the target. Without one, folios are compared whose mapping or mapcounts
    differ.
    """
    from inspector.cli.opening import open_target  # noqa: PLC0415  (drgn and NumPy)
    from inspector.report.compare import build_comparison, render_comparison  # noqa: PLC0415
    from inspector.report.places import find_place  # noqa: PLC0415
    from inspector.snapshot import Snapshot  # noqa: PLC0415

    before = settings.snapshot()
    after = Snapshot(open_target(settings, (later,)))
    pfns = [find_place(before, place, form).pfn for place in places]
    print_report(settings, build_comparison(before, after, pfns, limit), render_comparison)
    return Exit.CLEAN
