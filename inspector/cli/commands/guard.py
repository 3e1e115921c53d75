"""The command that stops a guest again and again to check it."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inspector.cli.params import InspectorCommand, Settings, every_option, rounds_option, until_option
from inspector.cli.rounds import end_of, print_round
from inspector.errors import Exit, UsageError

if TYPE_CHECKING:
    from inspector.findings import Report
    from inspector.target.target import Target


@click.command(cls=InspectorCommand, schemas=("inspector.report.rounds:Round",))
@every_option(10.0)
@until_option
@click.option("--keep", type=click.Path(file_okay=False), metavar="DIR", help="Capture the first new finding there.")
@click.option("--stay-stopped", is_flag=True, help="Leave the guest stopped at the finding that ends the run.")
@rounds_option
@click.pass_obj
def guard(  # noqa: PLR0913, PLR0917  (its options)
    settings: Settings, every: float, until_finding: bool, keep: str | None, stay_stopped: bool, nr_rounds: int | None
) -> int:
    """Stop a QEMU guest, check it, let it run on, again and again: for tests and fuzzers of kernels.

    Each check is of one moment, with the registers of all CPUs. The guest runs between two checks for as long as it was
    stopped at least, and runs on however this ends, unless --stay-stopped leaves it at a finding. For how long it was
    stopped is printed.

    Exit codes: 1 where there was a finding; 0 or 4 as for check where --rounds ended it.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from inspector.check.run import run_check  # noqa: PLC0415  (drgn and NumPy)
    from inspector.report.rounds import Rounds  # noqa: PLC0415
    from inspector.snapshot import Snapshot  # noqa: PLC0415
    from inspector.target.qmp import pause_of  # noqa: PLC0415

    if not settings.qemu:
        raise UsageError("guard stops a QEMU guest", "", "Name it with --qemu")
    settings.refuse_pause("guard stops the guest by itself: leave it out")
    target, rounds = settings.open(), Rounds()
    with end_of(settings, rounds):
        for number in count(1):
            began, path = datetime.now(UTC), None
            with pause_of(target.monitor) as pause:
                stopped = target.paused(pause)
                report = run_check(Snapshot(stopped))
                is_new = bool(rounds.compare(report))
                if is_new and keep is not None and rounds.worst != Exit.FINDINGS:
                    path = _capture(stopped, Path(keep), report)
                if is_new and until_finding and stay_stopped:
                    pause.keep()
            print_round(settings, rounds.add(report, began, paused=pause.seconds, captured=path))
            if (is_new and until_finding) or number == nr_rounds:
                break
            time.sleep(max(every, pause.seconds))
    return rounds.worst


def _capture(target: Target, folder: Path, report: Report) -> str:
    """Keep the state of a guest that is stopped."""
    from inspector.capture import capture as captures  # noqa: PLC0415  (drgn and NumPy)
    from inspector.errors import TargetError  # noqa: PLC0415

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"no directory can be made ({error.strerror})", str(folder), "Name another place") from None
    rule = next(f.rule for f in report.findings if f.severity != "info")
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{rule}.kdump"
    return captures.capture(target, folder / name, nr_workers=1).path
