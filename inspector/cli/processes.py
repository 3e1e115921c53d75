"""The commands that list address spaces, and the VMAs of one."""

from __future__ import annotations

import click

from inspector.cli.params import DoorCommand, Number, Settings
from inspector.errors import Exit


@click.command(cls=DoorCommand, schemas=("inspector.report.processes:PsReport",))
@click.pass_obj
def ps(settings: Settings) -> int:
    """List address spaces: whose they are and their memory by kind, in kB as /proc has it.

    Address spaces that no task uses any more, or yet, are listed last. Kernel threads have none.
    """
    from inspector.check.run import prepare  # noqa: PLC0415  (drgn and NumPy)
    from inspector.cli.progress import Progress  # noqa: PLC0415
    from inspector.report.processes import build_ps, render_ps  # noqa: PLC0415

    with Progress(settings) as progress:
        progress("opening", 0, 1)
        snapshot = settings.snapshot()
        prepare(snapshot, progress)
        report = build_ps(snapshot)
    if settings.format == "json":
        settings.output.json(report)
    else:
        settings.output.lines(render_ps(settings.output.screen, report))
    return Exit.INCOMPLETE if report.missing else Exit.CLEAN


@click.command(cls=DoorCommand, schemas=("inspector.report.processes:VmasReport",))
@click.argument("pid", type=Number(), metavar="PID")
@click.pass_obj
def vmas(settings: Settings, pid: int) -> int:
    """List the VMAs of one process with their memory by kind, defined as in /proc/PID/smaps, in kB.

    PID is a process or thread in the initial namespace, or the address of an mm_struct.
    """
    from inspector.check.run import prepare  # noqa: PLC0415  (drgn and NumPy)
    from inspector.cli.progress import Progress  # noqa: PLC0415
    from inspector.report.processes import build_vmas, find_mm, render_vmas  # noqa: PLC0415

    with Progress(settings) as progress:
        progress("opening", 0, 1)
        snapshot = settings.snapshot()
        mm = find_mm(snapshot, pid)
        prepare(snapshot, progress)
        report = build_vmas(snapshot, mm)
    if settings.format == "json":
        settings.output.json(report)
    else:
        settings.output.lines(render_vmas(settings.output.screen, report))
    return Exit.CLEAN if report.complete else Exit.INCOMPLETE
