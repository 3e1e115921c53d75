"""What commands share that check again and again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inspector.cli.show import print_report

if TYPE_CHECKING:
    from inspector.cli.params import Settings
    from inspector.report.rounds import Round, Rounds


@contextmanager
def end_of(settings: Settings, rounds: Rounds) -> Iterator[None]:
    """However the rounds end, say what they cost."""
    try:
        yield
    finally:
        if settings.format == "text" and rounds.nr:
            settings.output.lines(["", rounds.closing()])


def print_round(settings: Settings, taken: Round) -> None:
    """Print a round at once."""
    from inspector.report.rounds import render_round  # noqa: PLC0415  (msgspec, for these commands only)

    print_report(settings, taken, render_round, paged=False)
    settings.output.flush()
