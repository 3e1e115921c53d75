"""The command that clusters the findings of a dataset: which faults there are, since when, on which kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from inspector.cli.params import InspectorCommand, Settings
from inspector.cli.show import print_report
from inspector.errors import TargetError
from inspector.new_file import new_file

if TYPE_CHECKING:
    from inspector.fleet.clusters import FleetReport


@click.command(cls=InspectorCommand, schemas=("inspector.fleet.clusters:FleetReport",))
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.option("--since", metavar="TIME", help="Only kernels that crashed since then: 2026-11-27, or 30d, 12h, 4w.")
@click.option("--release", metavar="RELEASE", help="Only kernels whose release begins so, or fits the pattern.")
@click.option(
    "--compare", metavar="OTHER", help="Say what is new, gone, more, fewer: than in another DIR, or another RELEASE."
)
@click.option("--html", "page", type=click.Path(), metavar="FILE", help="Also write one page with charts.")
@click.pass_obj
def report(
    settings: Settings, folder: str, since: str | None, release: str | None, compare: str | None, page: str | None
) -> int:
    """Cluster the findings of a dataset by fingerprint: which faults, in how many dumps, since when, on what.

    DIR is what folioscope batch wrote. Each cluster is one fault as far as can be seen (folioscope manual fleet), with
    the kernels and machines that have it and the command that opens an exemplar. Findings that are only worth knowing
    make no cluster.

    With --compare a cluster is new or gone where only one side has it, more or fewer where the shares of dumps differ
    by more than chance (two-sided, 5%); the exit code is 1 when one is new.

    The page of --html holds all that it shows and loads nothing.
    """
    from inspector.fleet.cluster_text import render_fleet  # noqa: PLC0415  (msgspec)
    from inspector.fleet.clusters import build_fleet_report  # noqa: PLC0415

    made = build_fleet_report(Path(folder), since=since, kernel=release, compare=compare)
    if page is not None:
        _write(Path(page), made)
    print_report(settings, made, render_fleet)
    return made.exit_code


def _write(path: Path, made: FleetReport) -> None:
    """Write the page whole or not at all, for its owner alone: it says what machines crashed of."""
    from inspector.fleet.cluster_page import cluster_page  # noqa: PLC0415

    try:
        with new_file(path, is_private=True) as (file, _):
            file.write(cluster_page(made).encode())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TargetError(f"the page cannot be written ({reason})", str(path), "") from error
