"""The command that shows the family of an anon_vma."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inspector.cli.params import InspectorCommand, Number, Settings
from inspector.cli.show import exit_code, show
from inspector.errors import Exit, UsageError

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@click.command(cls=InspectorCommand, name="anon-vma", schemas=("inspector.report.anon_vma:AnonVmaReport",))
@click.argument("address", type=Number(), required=False, metavar="[ADDRESS]")
@click.option("--of", metavar="PLACE", help="A page of the folio whose anon_vma is meant, named as for folio.")
@click.pass_obj
def anon_vma(settings: Settings, address: int | None, of: str | None) -> int:
    """Show the family of an anon_vma as a tree, who uses each member, and the interval tree of the one asked for.

    ADDRESS is that of an anon_vma, or of a VMA that has one; rmap and vmas show both. Exit code 1 when
    the family, its chains or its VMAs break a rule; see folioscope rules.
    """
    from inspector.report.anon_vma import (  # noqa: PLC0415
        build_anon_vma,
        find_anon_vma,
        find_anon_vma_of,
        render_anon_vma,
    )
    from inspector.report.places import find_place  # noqa: PLC0415

    if (address is None) == (of is None):
        raise UsageError("one anon_vma must be named", "", "Give the address of it or of a VMA, or --of PLACE")

    def find(s: Snapshot) -> int:
        return find_anon_vma_of(s, find_place(s, of, None).pfn) if of else find_anon_vma(s, address or 0)

    snapshot, report = show(settings, lambda s: build_anon_vma(s, find(s)), render_anon_vma)
    return Exit.FINDINGS if report.damage else exit_code(snapshot)
