"""Which screen shows which kind of place; the screens' modules are imported when they are first gone to, or before.

``AnonVmaPlace`` is shown by ``AnonVmaScreen`` in ``tui/screens/anon_vma.py``, and so on.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args

from tui.places import Place, UserPlace

if TYPE_CHECKING:
    from tui.screens.base import PlaceScreen
    from tui.session import Session

_INNER_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def prepare() -> None:
    """Import what the screens of all places need, so that no key waits for it."""
    for kind in get_args(Place):
        # A user address is looked up first: it has no screen of its own.
        if kind is not UserPlace:
            _class_for(kind)


def screen_for(session: Session, place: Place) -> PlaceScreen[Any]:
    """A new screen for a place."""
    return _class_for(type(place))(session, place)


def _class_for(kind: type[Place]) -> type[PlaceScreen[Any]]:
    name = kind.__name__.removesuffix("Place")
    module = import_module(f"tui.screens.{_INNER_CAPITAL.sub('_', name).lower()}")
    found: type[PlaceScreen[Any]] = getattr(module, f"{name}Screen")
    return found
