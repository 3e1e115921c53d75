"""The command that shows the family of an anon_vma."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inspector.cli.params import ALL_HELP, InspectorCommand, Settings
from inspector.cli.show import exit_code, opened, print_report
from inspector.errors import Exit, UsageError

if TYPE_CHECKING:
    from inspector.report.anon_vma import AnonVmaReport
    from inspector.snapshot import Snapshot


@click.command(cls=InspectorCommand, name="anon-vma", schemas=("inspector.report.anon_vma:AnonVmaReport",))
@click.argument("place", required=False, metavar="[ADDRESS]")
@click.option("--of", metavar="PLACE", help="A page of the folio whose anon_vma is meant, named as for folio.")
@click.option("--all", "everything", is_flag=True, help=ALL_HELP)
@click.pass_obj
def anon_vma(settings: Settings, place: str | None, of: str | None, everything: bool) -> int:
    """Show the family of an anon_vma as a tree, who uses each member, and the interval tree of the one asked for.

    ADDRESS is that of an anon_vma, or of a VMA that has one, as rmap and vmas show both; or PID:ADDRESS, in such a VMA.
    No more is read than the family and the VMAs that its chains lead to. Exit code 1 when the family, its chains or
    its VMAs break a rule; see folioscope rules.
    """
    from inspector.aimed.pages import partial_of_folio  # noqa: PLC0415  (drgn and NumPy)
    from inspector.check.prepare import prepare  # noqa: PLC0415
    from inspector.folio.look import settled  # noqa: PLC0415
    from inspector.places.files import anon_vma_named  # noqa: PLC0415
    from inspector.places.named import ANON_VMA, taking  # noqa: PLC0415
    from inspector.report.anon_vma import (  # noqa: PLC0415
        aim_at_family,
        anon_vma_of,
        build_anon_vma,
        find_anon_vma,
        render_anon_vma,
    )
    from inspector.report.places import find_place  # noqa: PLC0415

    if (place is None) == (of is None):
        raise UsageError("one anon_vma must be named", "", "Give the address of it or of a VMA, or --of PLACE")
    with opened(settings) as (snapshot, progress):
        if of is not None:
            pfn = find_place(snapshot, of, None).pfn
            place = f"{anon_vma_of(partial_of_folio(snapshot, pfn), pfn):#x}"
        name = place or ""

        def ask(s: Snapshot) -> tuple[Snapshot, AnonVmaReport]:
            if everything:
                prepare(s, progress)
            with taking(s, name, ANON_VMA):
                address = anon_vma_named(s, name)
                seen, row = (s, find_anon_vma(s, address)) if everything else aim_at_family(s, address)
            return seen, build_anon_vma(seen, row)

        seen, report = settled(snapshot, ask, lambda answer: bool(answer[1].damage))
    print_report(settings, report, render_anon_vma)
    return Exit.FINDINGS if report.damage else exit_code(seen)
