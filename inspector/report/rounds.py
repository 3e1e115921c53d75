"""A kernel that is checked again and again: what is new and what is gone in each round, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import msgspec

from inspector.errors import Exit
from inspector.findings import Confirmation, Finding, Report
from inspector.report.check import looks_words, paused_words, render_finding, subject_words
from inspector.report.screen import Screen
from inspector.text import clean, counted


class Round(msgspec.Struct, frozen=True):
    """The object that ``watch`` and ``guard`` print with ``--format json``, one for each round."""

    schema: Literal["folioscope.round/2"]
    number: int
    """From 1."""
    at: str
    """When the round began: ISO 8601, UTC."""
    seconds: float
    """What the check took."""
    paused_seconds: float | None
    """For how long the guest was stopped; null where it ran on."""
    exit_code: int
    """As ``check`` would have ended."""
    new: list[Finding]
    """Findings graded ``fail`` or ``warn`` that the round before did not have; all, in the first."""
    gone: list[Finding]
    """Those of the round before that are there no more."""
    remaining: int
    """How many such findings there are."""
    confirmation: Confirmation | None
    """Of a kernel that ran on."""
    captured: str | None
    """The file in which the state of the first new finding is kept."""


class Rounds:
    """What is known of the rounds by now.

    Attributes:
        nr: Rounds taken.
        paused: Seconds that the guest was stopped in each round.
        worst: The exit code of the whole.
    """

    def __init__(self) -> None:
        self._before: dict[str, Finding] = {}
        self._began = datetime.now(UTC)
        self.nr = 0
        self.paused: list[float] = []
        self.worst = Exit.CLEAN

    def compare(self, report: Report) -> list[Finding]:
        """Which findings of a report are new."""
        return [f for f in _real(report) if f.key not in self._before]

    def add(
        self, report: Report, began: datetime, *, paused: float | None = None, captured: str | None = None
    ) -> Round:
        """Take a round.

        Args:
            report: Of its check.
            began: When it began.
            paused: For how many seconds the guest was stopped; None where it was not.
            captured: The file in which its state is kept.
        """
        new, now = self.compare(report), {f.key: f for f in _real(report)}
        gone = [f for key, f in self._before.items() if key not in now]
        self.nr += 1
        self._before = now
        self.paused += [] if paused is None else [paused]
        if report.exit_code == Exit.FINDINGS or self.worst == Exit.CLEAN:
            self.worst = Exit(report.exit_code)
        return Round(
            "folioscope.round/2",
            self.nr,
            began.isoformat(timespec="seconds"),
            round((datetime.now(UTC) - began).total_seconds(), 3),
            None if paused is None else round(paused, 3),
            report.exit_code,
            new,
            gone,
            len(now),
            report.confirmation,
            captured,
        )

    def closing(self) -> str:
        """What the rounds cost, in a line."""
        all_seconds = (datetime.now(UTC) - self._began).total_seconds()
        words = f"{counted(self.nr, 'round')} in {all_seconds:.0f} s"
        if not self.paused:
            return words
        total, share = sum(self.paused), sum(self.paused) / max(all_seconds, 1e-3)
        return (
            f"{words}; the guest was stopped for {total:.1f} s of them ({share:.1%}), {max(self.paused):.1f} s at most"
        )


def _real(report: Report) -> list[Finding]:
    return [f for f in report.findings if f.severity != "info"]


_VERDICTS = {
    Exit.CLEAN: ("consistent", "green"),
    Exit.FINDINGS: ("", "fail"),
    Exit.INCOMPLETE: ("nothing wrong found, but not everything could be checked", "yellow"),
}


def render_round(screen: Screen, taken: Round) -> Iterator[str]:
    """A line for the round, new findings in full, and a line for each that is gone."""
    words, style = _VERDICTS[Exit(taken.exit_code)]
    verdict = words or f"{counted(taken.remaining, 'finding')}, {len(taken.new)} new"
    cost = f"{taken.seconds:.1f} s"
    if taken.paused_seconds is not None:
        cost += f", stopped: {paused_words(taken.paused_seconds)}"
    if taken.confirmation is not None:
        cost = looks_words(taken.confirmation)
    yield from screen.wrap(f"{taken.at}  round {taken.number}: {screen.paint(style, verdict)} ({cost})")
    for finding in taken.gone:
        yield from screen.wrap(f"gone: {clean(finding.rule)}, {subject_words(finding.subject)}", "  ")
    for finding in taken.new:
        yield ""
        yield from render_finding(screen, finding)
    if taken.captured is not None:
        yield from screen.wrap(f"kept: {clean(taken.captured)}", "  ")
