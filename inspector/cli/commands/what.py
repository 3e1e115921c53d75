"""The command that looks a number up as everything that it can be."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import opened, print_report
from inspector.errors import Exit


@click.command(cls=InspectorCommand, schemas=("inspector.report.what:WhatReport",))
@click.argument("number", metavar="NAME")
@click.pass_obj
def what(settings: Settings, number: str) -> int:
    """Show what a number or name can be: a page, a symbol, an object of the kernel, a user address, a file.

    NAME is a page frame number, a pid, an inode number, or an address of any kind: of a page, of or in a task_struct,
    mm_struct, VMA, anon_vma, anon_vma_chain or address_space, of a symbol, of user memory; or the name of a symbol,
    process, file or memory cgroup, PID:ADDRESS, PATH@PGOFF, TYPE:OFFSET of swap, cpu N. Each line has the command that
    shows more. Exit code 4 when it is nothing that is known, and not all data could be read.
    """
    from inspector.report.what import build_what, render_what  # noqa: PLC0415  (drgn and NumPy)

    with opened(settings) as (snapshot, _progress):
        report = build_what(snapshot, number)
    print_report(settings, report, render_what)
    return Exit.CLEAN if report.meanings or snapshot.missing.complete else Exit.INCOMPLETE
