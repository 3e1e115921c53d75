"""The command that writes a small vmcore of just what the inspector reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import print_report
from inspector.errors import Exit

if TYPE_CHECKING:
    from inspector.capture.capture import CaptureReport
    from inspector.report.screen import Screen


@click.command(cls=InspectorCommand, schemas=("inspector.capture.capture:CaptureReport",))
@click.argument("out", type=click.Path())
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--compression", type=click.IntRange(1, 9), default=2, show_default=True, help="1 is quickest, 9 smallest."
)
@click.pass_obj
def capture(settings: Settings, out: str, force: bool, compression: int) -> int:
    """Write a small vmcore of just what the inspector reads.

    OUT becomes a kdump-compressed vmcore that folioscope and drgn open like any other: memory map, page tables, what
    the kernel keeps of processes and their memory, type information and symbols. Nothing that belongs to users is in
    it: no page of a process, no content of a file, no swapped or free page. Names of processes and of the files that
    they map are, and so is the kernel's log.
    Before it gets its name it is opened again, and every read of its source's check is made again: the same bytes make
    the same report. Where they are not the same, it is checked and the reports are compared. A kernel that runs on
    while it is captured has no single state to compare with: the capture says so whenever it is checked.

    Exit codes: 0 written; 4 written, but its answers differ from those of its source, or the source ran on and pages
    had to be left out.
    """
    from inspector.capture import capture as captures  # noqa: PLC0415  (drgn and NumPy)
    from inspector.cli.progress import ProgressBar  # noqa: PLC0415

    target = settings.open()
    with ProgressBar(settings) as progress:
        report = captures.capture(target, out, compression=compression, is_forced=force, progress=progress)
    print_report(settings, report, _lines)
    is_whole = not report.left_out if report.same_answers is None else report.same_answers
    return Exit.CLEAN if is_whole else Exit.INCOMPLETE


def _lines(screen: Screen, report: CaptureReport) -> Iterator[str]:
    from inspector.report.screen import TableColumn, render_table  # noqa: PLC0415  (with its caller)
    from inspector.text import clean, counted, grouped, size  # noqa: PLC0415

    yield f"{clean(report.path)}: {size(report.bytes)}, {counted(report.nr_pages, 'page')} of the kernel's own memory"
    yield ""
    columns = [TableColumn("READ FOR"), TableColumn("PAGES", right=True), TableColumn("UNCOMPRESSED", right=True)]
    rows = [(name, grouped(n), size(n * report.page_size)) for name, n in report.pages.items()]
    yield from render_table(screen, columns, rows, "  ")
    yield ""
    if report.same_answers is None:
        yield from screen.wrap(
            "The kernel ran on while it was captured: it mixes pages of different moments, and there is no "
            "single state to compare with. Opened again and checked: it can be read to its end."
        )
    elif report.same_answers:
        if report.proof == "reads":
            yield "Opened again: it answers every read of its source's check with the same bytes,"
            yield "so a check gives the same report as its source."
        else:
            yield "Opened again and checked: it gives the same report as its source."
    else:
        yield screen.paint("yellow", "Opened again and checked: its report differs from that of its source.")
    for reason, n in report.left_out.items():
        yield from screen.wrap(f"Left out: {counted(n, 'page')} ({reason}) that stale or damaged pointers led to.")
    for note in report.notes:
        yield from screen.wrap(f"Note: {clean(note)}")
