"""The commands that follow the kernel's own links: reverse maps, files, KSM, hugetlb and swap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.params import DoorCommand, Number, Settings
from inspector.cli.places import as_option, find_place
from inspector.errors import Exit, UsageError

if TYPE_CHECKING:
    from inspector.report.screen import Screen
    from inspector.snapshot import Snapshot


def _show(
    settings: Settings, build: Callable[[Snapshot], Any], render: Callable[[Screen, Any], Iterable[str]]
) -> tuple[Snapshot, Any]:
    """Open the target, build a report under a progress bar, and print it."""
    from inspector.check.run import prepare  # noqa: PLC0415  (drgn and NumPy)
    from inspector.cli.progress import Progress  # noqa: PLC0415

    with Progress(settings) as progress:
        progress("opening", 0, 1)
        snapshot = settings.snapshot()
        prepare(snapshot, progress)
        report = build(snapshot)
    if settings.format == "json":
        settings.output.json(report)
    else:
        settings.output.lines(render(settings.output.screen, report))
    return snapshot, report


def _code(snapshot: Snapshot) -> int:
    return Exit.CLEAN if snapshot.missing.complete else Exit.INCOMPLETE


@click.command(cls=DoorCommand, schemas=("inspector.report.rmap:RmapReport",))
@click.argument("place", metavar="PLACE")
@as_option
@click.option(
    "--limit", type=click.IntRange(0), help="Places and mappings to list; 0 for all. 100 in text, all in JSON."
)
@click.pass_obj
def rmap(settings: Settings, place: str, form: str | None, limit: int | None) -> int:
    """Show a folio's mappings twice: by the kernel's own road, each step of it, and by the page tables.

    PLACE is as for folio. Exit code 1 when the two differ: a mapping that the road does not lead to can be neither
    swapped out nor migrated, and survives truncation.
    """
    from inspector.report.rmap import build_rmap, render_rmap  # noqa: PLC0415

    if limit is None and settings.format == "text":
        limit = 100
    snapshot, report = _show(settings, lambda s: build_rmap(s, find_place(s, place, form), limit or None), render_rmap)
    return _code(snapshot) if report.agree else Exit.FINDINGS


@click.command(cls=DoorCommand, name="anon-vma", schemas=("inspector.report.anon_vma:AnonVmaReport",))
@click.argument("address", type=Number(), required=False, metavar="[ADDRESS]")
@click.option("--of", metavar="PLACE", help="A page of the folio whose anon_vma is meant, named as for folio.")
@click.pass_obj
def anon_vma(settings: Settings, address: int | None, of: str | None) -> int:
    """Show the family of an anon_vma as a tree, who uses each member, and the interval tree of the one asked for.

    ADDRESS is that of an anon_vma, or of a VMA that has one; rmap and vmas show both. Exit code 1 when
    the family, its chains or its VMAs break a rule; see folioscope rules.
    """
    from inspector.report.anon_vma import (  # noqa: PLC0415
        build_anon_vma,
        find_anon_vma,
        find_anon_vma_of,
        render_anon_vma,
    )

    if (address is None) == (of is None):
        raise UsageError("one anon_vma must be named", "", "Give the address of it or of a VMA, or --of PLACE")

    def find(s: Snapshot) -> int:
        return find_anon_vma_of(s, find_place(s, of, None).pfn) if of else find_anon_vma(s, address or 0)

    snapshot, report = _show(settings, lambda s: build_anon_vma(s, find(s)), render_anon_vma)
    return Exit.FINDINGS if report.damage else _code(snapshot)


@click.command(cls=DoorCommand, schemas=("inspector.report.file:FileReport",))
@click.argument("name", metavar="PATH|INODE|ADDRESS")
@click.pass_obj
def file(settings: Settings, name: str) -> int:
    """Show who maps which part of a file, and its page cache by order of folio.

    The file is named by a path as vmas shows it, by its inode number, or by the address of its address_space or inode.
    Exit code 1 when its tree of VMAs or a mapping breaks a rule; see folioscope rules.
    """
    from inspector.report.file import build_file, find_file, render_file  # noqa: PLC0415

    snapshot, report = _show(settings, lambda s: build_file(s, find_file(s, name)), render_file)
    return Exit.FINDINGS if report.damage else _code(snapshot)


@click.command(cls=DoorCommand, schemas=("inspector.report.ksm:KsmReport",))
@click.pass_obj
def ksm(settings: Settings) -> int:
    """Show KSM's stable nodes, their pages and who maps them, beside its own totals."""
    from inspector.report.ksm import build_ksm_report, render_ksm  # noqa: PLC0415

    snapshot, _ = _show(settings, build_ksm_report, render_ksm)
    return _code(snapshot)


@click.command(cls=DoorCommand, schemas=("inspector.report.uffd:UffdReport",))
@click.pass_obj
def uffd(settings: Settings) -> int:
    """Show userfaultfd's contexts, the VMAs that each watches and what is write-protected in them."""
    from inspector.report.uffd import build_uffd_report, render_uffd  # noqa: PLC0415

    snapshot, _ = _show(settings, build_uffd_report, render_uffd)
    return _code(snapshot)


@click.command(cls=DoorCommand, schemas=("inspector.report.hugetlb:HugetlbReport",))
@click.pass_obj
def hugetlb(settings: Settings) -> int:
    """Show hugetlb's pools, folios, VMAs and shared page tables."""
    from inspector.report.hugetlb import build_hugetlb_report, render_hugetlb  # noqa: PLC0415

    snapshot, _ = _show(settings, build_hugetlb_report, render_hugetlb)
    return _code(snapshot)


@click.command(cls=DoorCommand, schemas=("inspector.report.swap:SwapReport",))
@click.argument("entry", required=False, metavar="[TYPE:OFFSET]")
@click.pass_obj
def swap(settings: Settings, entry: str | None) -> int:
    """Show the swap devices, or one slot: its count, its folio in the swap cache, and everybody who refers to it."""
    from inspector.report.swap import build_swap, render_swap  # noqa: PLC0415

    snapshot, _ = _show(settings, lambda s: build_swap(s, entry), render_swap)
    return _code(snapshot)
