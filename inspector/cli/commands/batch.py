"""The command that checks many vmcores, each in a process of its own, and keeps a dataset of what they say."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inspector.cli import completion
from inspector.cli.params import InspectorCommand, Settings, Size
from inspector.cli.show import print_report
from inspector.errors import TargetError, UsageError

if TYPE_CHECKING:
    from inspector.fleet.batch import Again, BatchProgress, BatchReport
    from inspector.report.screen import Screen


@click.command(cls=InspectorCommand, schemas=("inspector.fleet.batch:BatchReport",))
@click.argument("paths", nargs=-1, metavar="PATH...", shell_complete=completion.files)
@click.option("--out", type=click.Path(), required=True, metavar="DIR", help="Folder of the dataset.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Vmcores at a time; as many as processors.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=3600,
    show_default=True,
    metavar="S",
    help="Seconds that each may take.",
)
@click.option(
    "--again",
    type=click.Choice(["none", "errors", "all"]),
    default="none",
    show_default=True,
    help="Which of those that are in the dataset to check again.",
)
@click.option("--scheduler", metavar="ADDRESS", help="A Dask cluster to check them on: tcp://HOST:PORT.")
@click.option(
    "--fetch",
    type=Size(),
    default="64G",
    show_default=True,
    metavar="SIZE",
    help="What a vmcore at a URL may have at most.",
)
@click.pass_obj
def batch(  # noqa: PLR0913, PLR0917  (its options)
    settings: Settings,
    paths: tuple[str, ...],
    out: str,
    jobs: int | None,
    timeout: float,
    again: Again,
    scheduler: str | None,
    fetch: int,
) -> int:
    """Check many vmcores, each in a process of its own, and keep what they say as a dataset in DIR.

    A PATH is a file, a folder with all below it, or a pattern such as '/var/crash/*/vmcore'; - takes a list from
    standard input, a path each line or, as find -print0 gives them, each ended by a null byte. Of files that are found
    in folders, those that do not begin as dumps are left out.

    A vmcore that cannot be opened, or takes longer than --timeout or more memory than --memory, is an error in the
    dataset, and the run goes on. What is in the dataset already is not checked again, wherever it lies by now: after an
    interrupt the same command goes on where it was. --workers is for each vmcore, 1 unless given. The parts of a vmcore
    that makedumpfile --split wrote are refused: join them first with makedumpfile --reassemble.

    A PATH may be a URL that fsspec reads (s3://, https://, sftp://, file:// ...), a pattern of URLs, or all below one
    that ends in a slash: each is fetched to TMPDIR while it is checked. With --scheduler the workers of a Dask cluster
    do the same; paths are then those of a file system that all share, --timeout and --memory are for each vmcore there,
    and --jobs is how many are handed out at a time.

    The dataset is Parquet: see folioscope manual fleet, and folioscope report DIR. It needs the extra: pip install
    'folioscope[fleet]'.

    The exit code is the worst of all, in the order 3, 1, 4, 0; 130 or 143 when a signal ended it.
    """
    from inspector.cli.opening import leave_out_plugins  # noqa: PLC0415  (drgn)
    from inspector.fleet.batch import CheckPlace, Here, run_batch  # noqa: PLC0415  (msgspec, asyncio)
    from inspector.fleet.job import Options  # noqa: PLC0415
    from inspector.fleet.paths import LIST, expand, split_list  # noqa: PLC0415
    from inspector.fleet.remote import DaskCluster  # noqa: PLC0415
    from inspector.fleet.usage import memory_for_each  # noqa: PLC0415

    if settings.kernel or settings.qemu:
        raise UsageError("a batch is of vmcores", "", "See folioscope watch for a kernel that runs")
    words = [*settings.cores, *paths]
    if not words:
        raise UsageError("there is no vmcore to check", "", "Name files, folders or patterns, or - for a list")
    listed = split_list(sys.stdin.buffer.read()) if LIST in words else []
    named = expand(one for word in words for one in (listed if word == LIST else [word]))
    here = jobs or len(os.sched_getaffinity(0))
    memory = settings.memory or (0 if scheduler else memory_for_each(here))
    symbols = [str(Path(file).absolute()) for file in settings.symbols]
    options = Options(symbols, settings.types, not settings.no_cache, memory, settings.workers or 1, timeout, fetch)
    place: CheckPlace = DaskCluster(scheduler, options, jobs) if scheduler else Here(here, options)
    leave_out_plugins()
    line = _ProgressLine(settings)
    try:
        report = run_batch(named, Path(out).absolute(), place, again=again, show=line.show)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TargetError(f"the dataset cannot be written ({reason})", str(error.filename or out), "") from error
    finally:
        line.clear()
    print_report(settings, report, _lines)
    return report.exit_code


class _ProgressLine:
    """One line on a terminal, rewritten whenever a vmcore is through."""

    def __init__(self, settings: Settings) -> None:
        self._wanted = not settings.quiet and sys.stderr is not None and sys.stderr.isatty()

    def show(self, progress: BatchProgress) -> None:
        """Write it."""
        if self._wanted:
            import shutil  # noqa: PLC0415  (with every packer that Python knows)

            width = shutil.get_terminal_size().columns - 1
            self._write(_progress_words(progress)[:width])

    def clear(self) -> None:
        """Take it away."""
        if self._wanted:
            self._write("")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        except (OSError, ValueError):
            self._wanted = False


def _progress_words(p: BatchProgress) -> str:
    from inspector.errors import Exit  # noqa: PLC0415
    from inspector.text import counted, duration, grouped  # noqa: PLC0415

    words = [f"{grouped(p.done)} of {grouped(p.total)}"]
    words += [f"{grouped(p.codes[Exit.FINDINGS])} with findings", counted(p.codes[Exit.TARGET], "error")]
    if p.left is not None:
        words += [f"{grouped(round(p.done / p.seconds * 3600))} an hour", f"{duration(round(p.left))} left"]
    return ", ".join(words)


def _lines(screen: Screen, report: BatchReport) -> Iterator[str]:
    from inspector.report.screen import render_facts  # noqa: PLC0415  (with its caller)
    from inspector.text import clean, counted, duration, grouped, size  # noqa: PLC0415

    words = {"0": "consistent", "1": "with findings", "4": "not fully checked", "3": "in error"}
    codes = ", ".join(
        f"{grouped(report.exit_codes[code])} {text}" for code, text in words.items() if code in report.exit_codes
    )
    facts = [
        ("dataset", clean(report.out)),
        ("vmcores", f"{grouped(report.paths)}: {codes or 'none'}"),
        ("checked", f"{grouped(report.checked)} now, {grouped(report.known)} known before"),
    ]
    if report.left_out:
        facts.append(("left out", counted(report.left_out, "file that is no dump", "files that are no dumps")))
    if report.left:
        facts.append(("not done", f"{grouped(report.left)}: the same command goes on"))
    rate = f", {grouped(round(report.checked / report.seconds * 3600))} an hour" if report.seconds else ""
    facts.append(("took", f"{duration(round(report.seconds))}{rate}, at most {size(report.peak_bytes)} of memory each"))
    yield from render_facts(screen, facts)
    if "1" in report.exit_codes or "3" in report.exit_codes:
        yield ""
        yield from screen.wrap(f"folioscope report {clean(report.out)} shows what was found, and the errors.")
