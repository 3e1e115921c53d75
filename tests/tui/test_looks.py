"""Every screen at two sizes, compared with a picture of it; ``make pictures`` after a change that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.conftest import SIZES
from tests.tui.driving import press, settle
from tests.tui.scenes import DIALOGS, broken, places
from tui.app import FolioscopeApp

SCREENS = (
    *("overview", "findings", "finding", "rule", "processes", "mm", "vma"),
    *("folios", "folio", "rmap", "anon_vma", "file", "memory"),
    *("more", "cpus", "files", "mthp", "memory-list", "swap", "ksm", "hugetlb", "uffd"),
    *("notifiers", "memcg", "windows", "references", "slot"),
)


RULES = ("mapcount",)
"""Few, so that the pictures stay the same when rules are added."""

QUICK = {"overview", "findings", "folio", "rmap", "help"}
"""Screens that are compared in `make test`; the others open there too, but are compared in `make test-all`."""


def test_every_screen_has_a_scene() -> None:
    assert tuple(places(broken(*RULES))) == SCREENS


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.long) for n in (*SCREENS, *DIALOGS)]
)
def test_looks(
    name: str, size: tuple[int, int], snap_compare: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is cut off, columns are aligned, the cursor is seen."""
    # The folder that exports go to is shown.
    monkeypatch.chdir("/")
    scene, keys = DIALOGS.get(name, (name, ()))

    async def ready(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await press(pilot, *keys)
        await pilot.pause(0.3)
        await settle(pilot)

    session = broken(*RULES)
    app = FolioscopeApp(session, places(session)[scene])
    assert snap_compare(app, terminal_size=size, run_before=ready)
