"""Which screen shows which kind of place; a screen's module is imported when it is first gone to."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tui.places import Place
    from tui.screens.base import PlaceScreen
    from tui.session import Session

_SCREENS = {
    "Overview": "overview:OverviewScreen",
    "Findings": "findings:FindingsScreen",
    "FindingPlace": "finding:FindingScreen",
    "RulePlace": "rule:RuleScreen",
    "Processes": "processes:ProcessesScreen",
    "MmPlace": "mm:MmScreen",
    "VmaPlace": "vma:VmaScreen",
    "Folios": "folios:FoliosScreen",
    "FolioPlace": "folio:FolioScreen",
    "RmapPlace": "rmap:RmapScreen",
    "AnonVmaPlace": "anon_vma:AnonVmaScreen",
    "FilePlace": "file:FileScreen",
    "MemoryMap": "memory:MemoryScreen",
}


def prepare(place: Place) -> None:
    """Import what the screen of a place needs."""
    import_module(f"tui.screens.{_SCREENS[type(place).__name__].split(':')[0]}")


def screen_for(session: Session, place: Place) -> PlaceScreen[Any]:
    """A new screen for a place."""
    module, name = _SCREENS[type(place).__name__].split(":")
    made: PlaceScreen[Any] = getattr(import_module(f"tui.screens.{module}"), name)(session, place)
    return made
