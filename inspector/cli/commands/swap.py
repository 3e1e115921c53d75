"""The command that shows swap devices, or one slot."""

from __future__ import annotations

import click

from inspector.cli.params import ALL_HELP, InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import exit_code, opened, print_report, show
from inspector.errors import Exit, UsageError


@click.command(cls=InspectorCommand, schemas=("inspector.report.swap:SwapReport",))
@click.argument("entry", required=False, metavar="[TYPE:OFFSET|PID:ADDRESS]")
@click.option("--all", "everything", is_flag=True, help=ALL_HELP)
@list_options("devices")
@click.pass_obj
def swap(settings: Settings, listing: Listing, entry: str | None, everything: bool) -> int:
    """Show the swap devices, or one slot: its count, its folio in the swap cache, and every entry that refers to it.

    Nothing leads from a slot to those entries. They are searched for where the kernel does when a device is turned off:
    in the page tables of mms, and in the shmem files, that it lists as swapped out, until as many are found as the slot
    counts.
    """
    from inspector.report.swap import build_slot, build_swap, render_swap  # noqa: PLC0415

    if entry is None or everything:
        if entry is None and everything:
            raise UsageError("--all is about one slot", "", "Give TYPE:OFFSET; without a slot all is searched")
        snapshot, _ = show(settings, lambda s: build_swap(s, entry), render_swap, listing)
        return exit_code(snapshot)
    with opened(settings) as (snapshot, _):
        report, whole = build_slot(snapshot, entry)
    print_report(settings, report, render_swap)
    return Exit.CLEAN if whole else Exit.INCOMPLETE
