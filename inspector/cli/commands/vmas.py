"""The command that lists the VMAs of one process."""

from __future__ import annotations

import click

from inspector.cli.params import ALL_HELP, InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import opened, print_report
from inspector.errors import Exit


@click.command(cls=InspectorCommand, schemas=("inspector.report.processes:VmasReport",))
@click.argument("process", metavar="PID")
@click.option("--all", "everything", is_flag=True, help=ALL_HELP)
@list_options("vmas")
@click.pass_obj
def vmas(settings: Settings, listing: Listing, process: str, everything: bool) -> int:
    """List the VMAs of one process with their memory by kind, defined as in /proc/PID/smaps, in KiB (its kB).

    PID is a process or thread in the initial namespace, the name of a process, or the address of an mm_struct or
    task_struct. No more is read than the process has; how often others map a page is taken from the kernel's own
    counts, as smaps does.
    """
    from inspector.check.prepare import prepare  # noqa: PLC0415  (drgn and NumPy)
    from inspector.places.named import PROCESS, taking  # noqa: PLC0415
    from inspector.places.processes import aim_at_mm, find_mm, find_process  # noqa: PLC0415
    from inspector.report.processes import build_vmas, render_vmas  # noqa: PLC0415

    with opened(settings) as (snapshot, progress):
        with taking(snapshot, process, PROCESS):
            pid = find_process(snapshot, process)
            seen, mm = (snapshot, find_mm(snapshot, pid)) if everything else (aim_at_mm(snapshot, pid), 0)
        if everything:
            prepare(snapshot, progress)
        report = build_vmas(seen, mm)
    print_report(settings, report, render_vmas, listing)
    return Exit.CLEAN if report.complete else Exit.INCOMPLETE
