"""How tests drive the interface: screens opened on captured vmcores, waited for, and read as lines of text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, cast

from textual.pilot import Pilot

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from tests.faults.overlay import sound
from tests.fixtures import fixture_path
from tui.app import FolioscopeApp
from tui.places import Place
from tui.session import Session


@lru_cache(maxsize=3)
def snapshot_of(kernel: str) -> Snapshot:
    """A snapshot of a captured vmcore, shared by the tests of one process."""
    return sound(str(fixture_path(kernel)))


@lru_cache(maxsize=3)
def session_of(kernel: str) -> Session:
    """The same, checked."""
    snapshot = snapshot_of(kernel)
    return Session(snapshot, run_check(snapshot))


@asynccontextmanager
async def at(session: Session, place: Place, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[Any]]:
    """The interface opened at a place, everything loaded."""
    app = FolioscopeApp(session, place)
    # The variable in the environment is read when Textual is imported.
    app.animation_level = "none"
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield pilot


async def settle(pilot: Pilot[Any]) -> None:
    """Wait until nothing is under way."""
    for _ in range(3):
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()


async def press(pilot: Pilot[Any], *keys: str) -> None:
    """Press keys, each after what the one before it began."""
    for key in keys:
        await pilot.press(key)
        await settle(pilot)


def place_of(pilot: Pilot[Any]) -> Place:
    """Where one is."""
    app = cast("FolioscopeApp", pilot.app)
    return app.history[app.at][0]


def lines(pilot: Pilot[Any]) -> list[str]:
    """What stands on the screen."""
    strips = pilot.app.screen._compositor.render_strips()  # noqa: SLF001 - the only way to the text as it is shown
    return ["".join(segment.text for segment in strip) for strip in strips]


def text(pilot: Pilot[Any]) -> str:
    """The same as one string."""
    return "\n".join(lines(pilot))
