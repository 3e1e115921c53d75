"""The command that shows what a stopped kernel was in the middle of."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import print_report
from inspector.errors import Exit


@click.command(
    cls=InspectorCommand, schemas=("inspector.report.stacks:WindowsReport", "inspector.report.stacks:StackReport")
)
@click.option(
    "--stack", metavar="TASK", help="Show one task's kernel stack: of a pid, a name, a task_struct's address, 'cpu 1'."
)
@list_options("windows")
@click.pass_obj
def windows(settings: Settings, listing: Listing, stack: str | None) -> int:
    """List the tasks inside functions in which counters and page tables may legitimately differ for a moment.

    Each task with the innermost such function on its stack and the address spaces that it works on. Stacks are unwound
    with the kernel's own tables; no debug information is needed. See folioscope manual windows.
    """
    from inspector.report.stacks import build_stack, build_windows, render_stack, render_windows  # noqa: PLC0415

    snapshot = settings.snapshot()
    if stack is None:
        print_report(settings, build_windows(snapshot), render_windows, listing)
    else:
        print_report(settings, build_stack(snapshot, stack), render_stack)
    return Exit.INCOMPLETE if snapshot.stacks.incomplete or not snapshot.missing.complete else Exit.CLEAN
