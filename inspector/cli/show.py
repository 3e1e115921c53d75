"""What most commands do around their own question: open the target under a progress bar, print as text or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from inspector.errors import Exit

if TYPE_CHECKING:
    from inspector.cli.params import Listing, Settings
    from inspector.cli.progress import ProgressBar
    from inspector.report.screen import Screen
    from inspector.snapshot import Snapshot

R = TypeVar("R")


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Snapshot, ProgressBar]]:
    """Open the target; while the body runs, a progress bar shows the steps that it reports."""
    from inspector.cli.progress import ProgressBar  # noqa: PLC0415  (with drgn and NumPy, when a target is opened)

    with ProgressBar(settings) as progress:
        progress("opening", 0, 1)
        yield settings.snapshot(), progress


def show(
    settings: Settings,
    build: Callable[[Snapshot], R],
    render: Callable[[Screen, R], Iterable[str]],
    listing: Listing | None = None,
) -> tuple[Snapshot, R]:
    """Open the target, build its tables and then a report, and print that.

    Returns:
        The snapshot and the report, for the exit code.
    """
    from inspector.check.prepare import prepare  # noqa: PLC0415  (drgn and NumPy)

    with opened(settings) as (snapshot, progress):
        prepare(snapshot, progress)
        report = build(snapshot)
    print_report(settings, report, render, listing)
    return snapshot, report


def print_report(
    settings: Settings,
    report: R,
    render: Callable[[Screen, R], Iterable[str]],
    listing: Listing | None = None,
    *,
    paged: bool = True,
) -> None:
    """Print a report as one JSON object, or as the text that ``render`` makes of it.

    Args:
        settings: Where to and how.
        report: It.
        render: Makes text of it.
        listing: In which order a list of it is wanted, and how much of it.
        paged: Whether long text may go through a pager.
    """
    left = ""
    if listing is not None and (listing.by is not None or listing.limit):
        from inspector.report.arranged import arranged  # noqa: PLC0415  (msgspec, not needed for --help)

        report, total = arranged(report, listing.member, listing.by, listing.limit)  # type: ignore[type-var]
        shown = len(getattr(report, listing.member))
        left = f"{shown:,} of {total:,} rows are shown; sums are of these" if shown < total else ""
    if settings.format == "json":
        settings.output.json(report)
        return
    write = settings.output.paged if paged else settings.output.lines
    write(chain(render(settings.output.screen, report), ["", left] if left else []))


def exit_code(snapshot: Snapshot) -> Exit:
    """The exit code of a command that found nothing wrong: whether all data could be read."""
    return Exit.CLEAN if snapshot.missing.complete else Exit.INCOMPLETE


def list_limit(settings: Settings, limit: int | None, default: int) -> int | None:
    """How many rows to list, None for all: ``default`` in text when no limit was given, and 0 means all."""
    if limit is None and settings.format == "text":
        return default
    return limit or None
