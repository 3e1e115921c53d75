"""The command that accounts for one folio: counters, references, decisions, operations tried on it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from inspector.cli.params import InspectorCommand, Settings, as_option
from inspector.cli.show import list_limit, opened, print_report
from inspector.errors import Exit

if TYPE_CHECKING:
    from inspector.report.explain import Explanation
    from inspector.snapshot import Snapshot

_LIMIT = 40


@click.command(cls=InspectorCommand, schemas=("inspector.report.explain:Explanation",))
@click.argument("place", metavar="PLACE")
@as_option
@click.option("--all", "everything", is_flag=True, help="Walk all page tables, and run the rules.")
@click.option("--births", is_flag=True, help="List all ways in which the kernel makes folios, with what excludes each.")
@click.option("--limit", type=click.IntRange(0), help=f"Mappings to list; 0 for all. {_LIMIT} in text, all in JSON.")
@click.option("--no-check", is_flag=True, help="With --all: do not run the rules.")
@click.option(
    "--op",
    "operations",
    multiple=True,
    metavar="NAME[:PAGE[+N]][@PROCESS]",
    help="Try an rmap operation on the folio and show what it changes; several, apart by commas or one each.",
)
@click.pass_obj
def explain(  # noqa: PLR0913, PLR0917  (one parameter an option)
    settings: Settings,
    place: str,
    form: str | None,
    everything: bool,
    births: bool,
    limit: int | None,
    no_check: bool,
    operations: tuple[str, ...],
) -> int:
    """Account for one folio: every counter with its formula, every reference with its holder.

    PLACE is a page frame number, a physical address, the address of a struct page or folio, any address of the kernel,
    PID:ADDRESS with the pid or name of a process, or FILE@PGOFF with a path and an offset in pages; any page of the
    folio will do. Beside the counters it shows which
    pages are exclusive to a process, what the kernel would do with the folio now (reuse or copy it on a write fault,
    split, migrate or reclaim it, move it for UFFDIO_MOVE), what may have made it (page fault, swap-in, copy, collapse
    ...) and what has happened since, and who may hold the unexplained references. With --op the kernel's operations, by
    old names or new ones, are tried on a model of the folio in its present state: each is shown with what it changes,
    or is refused with the kernel's condition.

    As folio does, it finds mappings by the reverse map, at the same cost on a machine of any size, and says what that
    leaves open: rules are not run, and holders of references that all processes would have to be searched for are not
    looked for. --all does both, and walks all page tables.
    """
    from inspector.folio.look import look_at, settled  # noqa: PLC0415  (drgn and NumPy)
    from inspector.folio.what_if import named_mms  # noqa: PLC0415
    from inspector.report.explain import build_explanation  # noqa: PLC0415
    from inspector.report.explain_text import render_explanation  # noqa: PLC0415
    from inspector.report.places import find_place  # noqa: PLC0415

    limit = list_limit(settings, limit, _LIMIT)
    words = [word for several in operations for word in several.split(",")]
    with opened(settings) as (snapshot, progress):
        found = find_place(snapshot, place, form)
        mms = named_mms(snapshot, words) if words else None

        def ask(s: Snapshot) -> Explanation:
            seen = look_at(s, found.pfn, everything=everything, progress=progress, mms=mms)
            return build_explanation(seen, found.pfn, place=found, limit=limit, check=not no_check, operations=words)

        report = settled(snapshot, ask, lambda r: r.exit_code == Exit.FINDINGS)
    print_report(settings, report, partial(render_explanation, all_births=births))
    return report.exit_code
