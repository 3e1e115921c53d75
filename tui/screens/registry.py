"""Which screen shows which kind of place; a screen's module is imported when it is first gone to.

``AnonVmaPlace`` is shown by ``AnonVmaScreen`` in ``tui/screens/anon_vma.py``, and so on.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tui.places import Place
    from tui.screens.base import PlaceScreen
    from tui.session import Session

_INNER_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def prepare(place: Place) -> None:
    """Import what the screen of a place needs."""
    _class_for(place)


def screen_for(session: Session, place: Place) -> PlaceScreen[Any]:
    """A new screen for a place."""
    return _class_for(place)(session, place)


def _class_for(place: Place) -> type[PlaceScreen[Any]]:
    name = type(place).__name__.removesuffix("Place")
    module = import_module(f"tui.screens.{_INNER_CAPITAL.sub('_', name).lower()}")
    found: type[PlaceScreen[Any]] = getattr(module, f"{name}Screen")
    return found
