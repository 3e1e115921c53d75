"""One letter means one thing on every screen."""

from __future__ import annotations

import importlib
import pkgutil

from textual.binding import Binding
from textual.dom import DOMNode

import tui

_ALIKE = {
    "m": {"Memory map", "In memory"},
    "n": {"Next", "Next !", "Finding"},
    "q": {"Quit", "Close"},
}
"""Words for what is the same: the memory map, or a folio there; the next finding, or a folio's; an end."""


def _classes(of: type[DOMNode]) -> set[type[DOMNode]]:
    below: list[type[DOMNode]] = of.__subclasses__()
    return {of}.union(*map(_classes, below))


def _meanings() -> dict[str, set[str]]:
    """By letter, what bindings of our own say of it."""
    for module in pkgutil.walk_packages(tui.__path__, "tui."):
        importlib.import_module(module.name)
    out: dict[str, set[str]] = {}
    for each in _classes(DOMNode):
        if not each.__module__.startswith("tui"):
            continue
        for binding in vars(each).get("BINDINGS", []):
            assert isinstance(binding, Binding), binding
            for key in binding.key.split(","):
                if len(key) == 1 and key.isalpha():
                    out.setdefault(key, set()).add(binding.description)
    return out


def test_one_letter_means_one_thing() -> None:
    meanings = _meanings()
    assert len(meanings) > 20
    assert {key: words for key, words in meanings.items() if len(words) > 1 and words != _ALIKE.get(key)} == {}
