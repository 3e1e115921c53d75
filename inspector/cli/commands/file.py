"""The command that shows who maps a file, and its page cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from inspector.cli.params import ALL_HELP, InspectorCommand, Listing, Settings, list_options
from inspector.cli.show import exit_code, opened, print_report, show
from inspector.errors import Exit

if TYPE_CHECKING:
    from inspector.report.file import FileReport
    from inspector.snapshot import Snapshot


@click.command(cls=InspectorCommand, schemas=("inspector.report.file:FileReport", "inspector.report.files:FilesReport"))
@click.argument("name", required=False, metavar="[FILE]")
@click.option("--all", "everything", is_flag=True, help=ALL_HELP)
@list_options("mappers")
@click.pass_obj
def file(settings: Settings, listing: Listing, name: str | None, everything: bool) -> int:
    """Show who maps which part of a file, and its page cache by order of folio; without a name, all mapped files.

    The file is named by a path as vmas shows it or a part of one, by its inode number, by the address of its
    address_space, inode or struct file, or of a VMA of it, or by PID:ADDRESS where it is mapped. A path is looked up in
    the first mount namespace, then among the files that processes map; a number in the kernel's
    hash of inodes and among those: other files may have it too. No more is read than the file's page cache and what its
    tree of VMAs leads to. Exit code 1 when that tree or a mapping breaks a rule; see folioscope rules.
    """
    from inspector.check.prepare import prepare  # noqa: PLC0415  (drgn and NumPy)
    from inspector.folio.look import settled  # noqa: PLC0415
    from inspector.report.file import aim_at_file, build_file, find_file, render_file  # noqa: PLC0415

    if name is None:
        from inspector.report.files import build_files, render_files  # noqa: PLC0415

        snapshot, _ = show(settings, build_files, render_files, Listing("files", listing.by, listing.limit))
        return exit_code(snapshot)

    def ask(s: Snapshot) -> tuple[Snapshot, FileReport]:
        if everything:
            prepare(s, progress)
            return s, build_file(s, find_file(s, name))
        one = aim_at_file(s, name)
        return one, build_file(one, 0)

    with opened(settings) as (snapshot, progress):
        seen, report = settled(snapshot, ask, lambda answer: bool(answer[1].damage))
    print_report(settings, report, render_file, listing)
    return Exit.FINDINGS if report.damage else exit_code(seen)
