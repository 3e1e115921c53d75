"""A kernel's fixture with each of some faults in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from inspector.snapshot import Snapshot
from tests.faults.every import ABSENT, CATALOGUE
from tests.faults.overlay import core_path, planted, sound
from tests.faults.plants import MissingError, Planted


def each_planted(kernel: str, names: Iterable[str]) -> Iterator[tuple[str, Planted, Snapshot]]:
    """Each fault that this kernel can have, by name, and a snapshot of the fixture with it.

    Those that it cannot have are left out, and must be listed as such.
    """
    path = core_path("fixture", kernel)
    for name in names:
        try:
            fault = CATALOGUE[name](sound(path))
        except MissingError:
            assert name in ABSENT[kernel]
            continue
        yield name, fault, planted(path, *fault.patches)
