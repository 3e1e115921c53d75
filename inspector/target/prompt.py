"""drgn's own prompt on a target, with the object at hand bound to a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import drgn
import drgn.cli

from inspector.target.target import Target

_BANNER = "drgn on {path}. Bound: prog{names}. Ctrl+D goes back to folioscope."


def open_prompt(target: Target, bound: Mapping[str, tuple[str, int]]) -> None:
    """Run drgn's prompt until its user leaves it.

    Args:
        target: The target, open.
        bound: By name: the type of a pointer, and the address.
    """
    objects: dict[str, Any] = {}
    for name, (kind, address) in bound.items():
        try:
            objects[name] = drgn.Object(target.prog, f"{kind} *", value=address)
        except (LookupError, SyntaxError, TypeError):
            # The type is not known to this kernel's types: the address alone.
            objects[name] = address
    names = "".join(f", {name}" for name in objects)

    def banner(_usual: str) -> str:
        return _BANNER.format(path=target.path, names=names)

    def names_of(usual: dict[str, Any]) -> dict[str, Any]:
        return {**usual, **objects}

    drgn.cli.run_interactive(target.prog, banner_func=banner, globals_func=names_of, quiet=True)
