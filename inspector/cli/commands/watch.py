"""The command that checks a kernel that runs on at an interval."""

from __future__ import annotations

import os
import time
from itertools import count

import click

from inspector.cli.params import InspectorCommand, Settings, confirm_option, every_option, rounds_option, until_option
from inspector.cli.rounds import end_of, print_round
from inspector.errors import UsageError

_NICE = 10
"""What the process adds to its nice value: what runs on the machine comes first."""


@click.command(cls=InspectorCommand, schemas=("inspector.report.rounds:Round",))
@every_option(60.0)
@until_option
@confirm_option
@rounds_option
@click.pass_obj
def watch(settings: Settings, every: float, until_finding: bool, looks: int, nr_rounds: int | None) -> int:
    """Check a kernel that runs on again and again, and show which findings are new and which are gone.

    It is only read, with a low priority, and rests between two checks for as long as a check took at least.

    Exit codes: 1 where there was a finding; 0 or 4 as for check where --rounds ended it.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from inspector.check.confirm import check_target  # noqa: PLC0415  (drgn and NumPy)
    from inspector.report.rounds import Rounds  # noqa: PLC0415
    from inspector.snapshot import Snapshot  # noqa: PLC0415

    if settings.cores:
        raise UsageError(
            "a dump does not change", settings.cores[0], "Watch the running kernel, or a guest with --qemu"
        )
    settings.refuse_pause("See folioscope guard")
    target, rounds = settings.open_running(), Rounds()
    os.nice(_NICE)
    with end_of(settings, rounds):
        for number in count(1):
            began, since = datetime.now(UTC), time.monotonic()
            report = check_target(Snapshot(target), looks=looks)
            is_new = bool(rounds.compare(report))
            print_round(settings, rounds.add(report, began))
            if (is_new and until_finding) or number == nr_rounds:
                break
            time.sleep(max(every, time.monotonic() - since))
    return rounds.worst
