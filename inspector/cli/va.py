"""The command that follows one user address through the page tables."""

from __future__ import annotations

import click

from inspector.cli.params import DoorCommand, Number, Settings
from inspector.errors import Exit


@click.command(cls=DoorCommand, schemas=("inspector.report.va:VaReport",))
@click.argument("pid", type=Number(), metavar="PID")
@click.argument("address", type=Number(), metavar="ADDRESS")
@click.option("--limit", type=click.IntRange(0), help="Mappings to list; 0 for all. 100 in text, all in JSON.")
@click.pass_obj
def va(settings: Settings, pid: int, address: int, limit: int | None) -> int:
    """Follow one user address through the page tables: each entry raw and decoded, the VMA, the page, who else maps it.

    PID is a process or thread in the initial namespace, or the address of an mm_struct. ADDRESS in hex with 0x.
    """
    from inspector.check.run import prepare  # noqa: PLC0415  (drgn and NumPy)
    from inspector.cli.progress import Progress  # noqa: PLC0415
    from inspector.report.processes import find_mm  # noqa: PLC0415
    from inspector.report.va import build_va, render_va  # noqa: PLC0415

    if limit is None and settings.format == "text":
        limit = 100
    with Progress(settings) as progress:
        progress("opening", 0, 1)
        snapshot = settings.snapshot()
        mm = find_mm(snapshot, pid)
        prepare(snapshot, progress)
        report = build_va(snapshot, mm, address, limit or None)
    if settings.format == "json":
        settings.output.json(report)
    else:
        settings.output.lines(render_va(settings.output.screen, report))
    return Exit.INCOMPLETE if report.ends == "unreadable" else Exit.CLEAN
