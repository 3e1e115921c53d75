"""The command that adds up the references of all folios."""

from __future__ import annotations

import click

from inspector.cli.params import InspectorCommand, Listing, Settings, sort_option
from inspector.cli.show import list_limit, show


@click.command(cls=InspectorCommand, schemas=("inspector.report.references:ReferencesReport",))
@click.option("--limit", type=click.IntRange(0), help="Folios to list; 0 for all. 20 in text, all in JSON.")
@sort_option
@click.pass_obj
def references(settings: Settings, limit: int | None, by: str | None) -> int:
    """Add up who holds the references of all folios, and list those with references left over.

    Covered are user memory and the page cache. References left over keep a folio from being migrated, split or
    reclaimed, and many of them may be a leak; explain shows more of each.
    """
    from inspector.report.references import render_references, settled_references  # noqa: PLC0415

    limit = list_limit(settings, limit, 20)
    # To sort them all are needed.
    taken = limit if by is None else None
    _, report = show(
        settings, lambda s: settled_references(s, taken), render_references, Listing("left", by, limit) if by else None
    )
    return report.exit_code
