"""The command that checks one target or many; the worst outcome is the exit code."""

from __future__ import annotations

import gc
from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING

import click

from inspector.cli import completion
from inspector.cli.params import InspectorCommand, Settings, confirm_option, keep
from inspector.cli.show import print_report
from inspector.errors import Exit, UsageError

if TYPE_CHECKING:
    from inspector.findings import Report
    from inspector.report.exchange import CheckedTarget

EXCHANGE = ("junit", "sarif", "prometheus")
"""Formats of others, each made by the module of `inspector.report` that has its name."""

_WORST_FIRST = (Exit.TARGET, Exit.FINDINGS, Exit.INCOMPLETE, Exit.CLEAN)

_WORDS = {
    Exit.CLEAN: "consistent",
    Exit.FINDINGS: "with findings",
    Exit.INCOMPLETE: "not fully checked",
    Exit.TARGET: "not opened",
}


@click.command(
    cls=InspectorCommand,
    schemas=("inspector.findings:Report", "inspector.report.errors:ErrorReport"),
    epilog="With several cores the exit code is the worst of all, in the order 3, 1, 4, 0.",
)
@click.option(
    "-r",
    "--rule",
    "slugs",
    multiple=True,
    metavar="RULE",
    help="A rule or a group; may be repeated.",
    shell_complete=completion.rules,
)
@click.option(
    "--format",
    type=click.Choice(["text", "json", *EXCHANGE]),
    callback=keep,
    expose_value=False,
    help="For people (default), for programs, for CI (junit), code hosts (sarif), a node exporter (prometheus).",
)
@confirm_option
@click.argument("more_cores", nargs=-1, metavar="[CORE]...", shell_complete=completion.files)
@click.pass_obj
def check(settings: Settings, slugs: tuple[str, ...], looks: int, more_cores: tuple[str, ...]) -> int:
    """Rebuild every mapping count from the page tables and name each recorded count that differs.

    Several cores may be named; each is checked on its own, and with --format json each gives one line. A core that
    cannot be opened does not stop the others. The parts of one that makedumpfile --split wrote are one core.
    junit, sarif and prometheus are one document about all.

    A kernel that runs on is checked in several looks. What is not there in every look, with the same values, is counted
    and not reported.
    """
    from inspector.rules import select_rules  # noqa: PLC0415  (NumPy)

    settings.cores.extend(more_cores)
    settings.require_one_kind()
    select_rules(slugs)
    if settings.format in EXCHANGE:
        return _check_all(settings, slugs, looks)
    dumps = settings.dumps()
    if len(dumps) < 2:
        return _check_one(settings, slugs, looks, dumps[0] if dumps else None)
    outcomes = [_check_next(settings, slugs, looks, d, f"{i}/{len(dumps)}") for i, d in enumerate(dumps, 1)]
    if settings.format == "text":
        number = Counter(outcomes)
        words = ", ".join(f"{number[code]} {_WORDS[code]}" for code in reversed(_WORST_FIRST) if number[code])
        settings.output.lines([f"{len(outcomes)} targets: {words}"])
    return next(code for code in _WORST_FIRST if code in outcomes)


def _check_all(settings: Settings, slugs: tuple[str, ...], looks: int) -> int:
    """Check all targets, and print one document about them in a format of others."""
    import time  # noqa: PLC0415

    from inspector.cli.diagnostics import as_known, report_error  # noqa: PLC0415
    from inspector.report.errors import ErrorReport, error_report  # noqa: PLC0415  (msgspec)
    from inspector.report.exchange import CheckedTarget  # noqa: PLC0415

    targets = []
    dumps = settings.dumps()
    for number, dump in enumerate(dumps or [None], 1):
        outcome: Report | ErrorReport
        try:
            outcome = _look(settings, slugs, looks, dump, f"{number}/{len(dumps)}" if number > 1 else "")
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001  (one damaged core must not lose the others)
            report_error(error, settings)
            outcome = error_report(as_known(error), settings.target_name)
        targets.append(CheckedTarget(settings.target_name, outcome, time.time()))
        # The tables of one target are gone before those of the next are built.
        gc.collect()
    settings.output.lines([_document(settings.format, targets)])
    codes = {target.outcome.exit_code for target in targets}
    return next(code for code in _WORST_FIRST if code in codes)


def _document(name: str, targets: list[CheckedTarget]) -> str:
    module = import_module(f"inspector.report.{name}")
    made: str = getattr(module, f"render_{name}")(targets)
    return made


def _check_next(settings: Settings, slugs: tuple[str, ...], looks: int, dump: tuple[str, ...], place: str) -> Exit:
    """Check one of several cores; an error is reported and the run goes on."""
    from inspector.cli.diagnostics import BrokenOutput, OutputError, report_error  # noqa: PLC0415

    try:
        code = _check_one(settings, slugs, looks, dump, place)
        if settings.format == "text":
            settings.output.lines([""])
    except (BrokenOutput, OutputError, UsageError):
        raise
    except Exception as error:  # noqa: BLE001  (one damaged core must not lose the others)
        code = report_error(error, settings)
    settings.output.flush()
    # The tables of one target are gone before those of the next are built.
    gc.collect()
    return Exit(code)


def _check_one(
    settings: Settings, slugs: tuple[str, ...], looks: int, dump: tuple[str, ...] | None, place: str = ""
) -> int:
    from inspector.report.check import render_report  # noqa: PLC0415

    report = _look(settings, slugs, looks, dump, place)
    print_report(settings, report, render_report, paged=not place)
    return report.exit_code


def _look(settings: Settings, slugs: tuple[str, ...], looks: int, dump: tuple[str, ...] | None, place: str) -> Report:
    import msgspec  # noqa: PLC0415  (not needed for --help)

    from inspector.check.confirm import check_target  # noqa: PLC0415
    from inspector.cli.opening import open_target  # noqa: PLC0415
    from inspector.cli.progress import ProgressBar  # noqa: PLC0415
    from inspector.snapshot import Snapshot  # noqa: PLC0415

    with ProgressBar(settings, place) as progress:
        progress("opening", 0, 1)
        report = check_target(Snapshot(open_target(settings, dump)), slugs, looks=looks, progress=progress)
        return msgspec.structs.replace(report, paused_seconds=settings.resume())
