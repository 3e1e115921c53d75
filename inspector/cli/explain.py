"""The commands that account for references: of one folio, and of all."""

from __future__ import annotations

import click

from inspector.cli.params import DoorCommand, Settings
from inspector.cli.places import as_option, find_place

_LIMIT = 40


@click.command(cls=DoorCommand, schemas=("inspector.report.explain:Explanation",))
@click.argument("place", metavar="PLACE")
@as_option
@click.option("--all", "everything", is_flag=True, help="List all mappings; JSON has them all anyway.")
@click.option("--limit", type=click.IntRange(0), help=f"Mappings to list; 0 for all. {_LIMIT} in text, all in JSON.")
@click.option("--no-check", is_flag=True, help="Compare the counters only; do not run the rules.")
@click.option(
    "--op",
    "operations",
    multiple=True,
    metavar="NAME[:PAGE[+N]][@PID]",
    help="Try an rmap operation on the folio and show what it changes; several, apart by commas or one each.",
)
@click.pass_obj
def explain(  # noqa: PLR0913, PLR0917  (one parameter an option)
    settings: Settings,
    place: str,
    form: str | None,
    everything: bool,
    limit: int | None,
    no_check: bool,
    operations: tuple[str, ...],
) -> int:
    """Account for one folio: every counter with its formula, every reference with its holder.

    PLACE is a page frame number, a physical address, the address of a struct page or folio, or a direct-map address;
    any page of the folio will do. Beside the counters it is told which pages are exclusive to a process, what the
    kernel would do with the folio now (reuse or copy it on a write fault, split, migrate or reclaim it), and who may
    hold references that nothing explains. With --op the kernel's operations, by old names or new ones, are tried on a
    model of the folio as it stands: each is shown with what it changes, or is refused with the kernel's condition.
    """
    from inspector.cli.progress import Progress  # noqa: PLC0415
    from inspector.report.explain import build_explanation  # noqa: PLC0415  (drgn and NumPy)
    from inspector.report.explain_text import render_explanation  # noqa: PLC0415

    if everything:
        limit = None
    elif limit is None and settings.format == "text":
        limit = _LIMIT
    with Progress(settings) as progress:
        progress("opening", 0, 1)
        snapshot = settings.snapshot()
        found = find_place(snapshot, place, form)
        report = build_explanation(
            snapshot,
            found.pfn,
            place=found,
            progress=progress,
            limit=limit or None,
            check=not no_check,
            operations=[word for words in operations for word in words.split(",")],
        )
    if settings.format == "json":
        settings.output.json(report)
    else:
        settings.output.lines(render_explanation(settings.output.screen, report))
    return report.exit_code


@click.command(cls=DoorCommand, schemas=("inspector.report.references:ReferencesReport",))
@click.option("--limit", type=click.IntRange(0), help="Folios to list; 0 for all. 20 in text, all in JSON.")
@click.pass_obj
def references(settings: Settings, limit: int | None) -> int:
    """Add up who holds the references of all folios, and list those with references left over.

    Looked at is user memory and the page cache. References left over keep a folio from being migrated, split or
    reclaimed, and many of them may be a leak; explain tells more of each.
    """
    from inspector.check.run import prepare  # noqa: PLC0415  (drgn and NumPy)
    from inspector.cli.progress import Progress  # noqa: PLC0415
    from inspector.report.references import build_references, render_references  # noqa: PLC0415

    if limit is None and settings.format == "text":
        limit = 20
    with Progress(settings) as progress:
        progress("opening", 0, 1)
        snapshot = settings.snapshot()
        prepare(snapshot, progress)
        report = build_references(snapshot, limit or None)
    if settings.format == "json":
        settings.output.json(report)
    else:
        settings.output.lines(render_references(settings.output.screen, report))
    return report.exit_code
