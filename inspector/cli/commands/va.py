"""The command that follows one user address through the page tables."""

from __future__ import annotations

import click

from inspector.cli.params import ALL_HELP, InspectorCommand, Number, Settings
from inspector.cli.show import list_limit, opened, print_report
from inspector.errors import Exit, UsageError
from inspector.text import parse_number


@click.command(cls=InspectorCommand, schemas=("inspector.report.va:VaReport",))
@click.argument("process", metavar="PID")
@click.argument("address", type=Number(), required=False, metavar="[ADDRESS]")
@click.option("--limit", type=click.IntRange(0), help="Mappings to list; 0 for all. 100 in text, all in JSON.")
@click.option("--all", "everything", is_flag=True, help=ALL_HELP)
@click.pass_obj
def va(settings: Settings, process: str, address: int | None, limit: int | None, everything: bool) -> int:
    """Follow one user address through the page tables: each entry raw and decoded, the VMA, the page, who else maps it.

    PID is a process or thread in the initial namespace, the name of a process, or the address of an mm_struct or
    task_struct. ADDRESS in hex with 0x; PID:ADDRESS in one word will do, and the address of a VMA for where it starts.
    Who else maps the page is found as the kernel finds it, by the page's reverse map.
    """
    from inspector.check.prepare import prepare  # noqa: PLC0415  (drgn and NumPy)
    from inspector.places.files import start_of_vma  # noqa: PLC0415
    from inspector.places.named import PROCESS, USER, taking  # noqa: PLC0415
    from inspector.places.processes import find_mm, find_process  # noqa: PLC0415
    from inspector.places.words import split_address  # noqa: PLC0415
    from inspector.report.va import build_aimed_va, build_va, render_va  # noqa: PLC0415
    from inspector.walk.page_numbers import KERNEL_HALF  # noqa: PLC0415

    if address is None:
        both = split_address(process)
        number = parse_number(process)
        if both is None and number is not None and number < KERNEL_HALF:
            raise UsageError("an address is missing", process, "Give PID ADDRESS, or PID:ADDRESS; see folioscope vmas")
        process, address = both or (process, None)
    with opened(settings) as (snapshot, progress):
        if address is None:
            with taking(snapshot, process, USER):
                process, address = start_of_vma(snapshot, process)
        listed = list_limit(settings, limit, 100)
        with taking(snapshot, process, PROCESS):
            pid = find_process(snapshot, process)
            if everything:
                mm = find_mm(snapshot, pid)
            else:
                report = build_aimed_va(snapshot, pid, address, listed)
        if everything:
            prepare(snapshot, progress)
            report = build_va(snapshot, mm, address, listed)
    print_report(settings, report, render_va)
    return Exit.INCOMPLETE if report.ends == "unreadable" else Exit.CLEAN
