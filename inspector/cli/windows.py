"""The command that shows what a stopped kernel was in the middle of."""

from __future__ import annotations

import click

from inspector.cli.params import DoorCommand, Number, Settings
from inspector.errors import Exit


@click.command(
    cls=DoorCommand, schemas=("inspector.report.stacks:WindowsReport", "inspector.report.stacks:StackReport")
)
@click.option("--stack", type=Number(), metavar="PID", help="Show the kernel stack of one task instead.")
@click.pass_obj
def windows(settings: Settings, stack: int | None) -> int:
    """List the tasks that stand where counters and page tables are rightly out of step for a moment.

    Each by the innermost function that tells, with the address spaces that it works on. Stacks are unwound with the
    kernel's own tables; no debug information is needed. See folioscope manual windows.
    """
    from inspector.report.stacks import build_stack, build_windows, render_stack, render_windows  # noqa: PLC0415

    snapshot = settings.snapshot()
    if stack is None:
        report = build_windows(snapshot)
        lines = render_windows(settings.output.screen, report)
    else:
        one = build_stack(snapshot, stack)
        lines = render_stack(settings.output.screen, one)
    if settings.format == "json":
        settings.output.json(report if stack is None else one)
    else:
        settings.output.lines(lines)
    return Exit.INCOMPLETE if snapshot.stacks.incomplete or not snapshot.missing.complete else Exit.CLEAN
