"""The tables that nearly every question over a whole target rests on, built step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from inspector.errors import LayoutError
from inspector.scratch import give_back

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""

STAGES: tuple[tuple[str, Callable[[Snapshot], object]], ...] = (
    ("memory map", lambda s: s.folios),
    ("processes", lambda s: s.vmas),
    ("page tables", lambda s: s.tables),
    ("counting", lambda s: s.counts),
    ("model", lambda s: s.expected),
)
"""Each step's name and what it builds."""


def prepare(snapshot: Snapshot, progress: Progress, steps_after: int = 0) -> None:
    """Build the tables that everything rests on, reporting each step."""
    for done, (what, build) in enumerate(STAGES):
        progress(what, done, len(STAGES) + steps_after)
        try:
            build(snapshot)
        except LayoutError as error:
            snapshot.missing.note(f"{what}: {error.what}")
        give_back(snapshot.nr_pages)
