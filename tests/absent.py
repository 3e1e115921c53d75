"""Kernels that lack a member, a type or a symbol: what a check asks a layout for, and a layout without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from inspector.check.run import run_check
from inspector.errors import LayoutError
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Field, Struct
from inspector.snapshot import Snapshot
from inspector.target.target import Target
from tests.faults.overlay import opened

Asked = tuple[str, tuple[str, ...]]
"""A struct and the spellings of a member of it; or "type" or "symbol" and a name."""

_find, _struct, _symbol = Struct.find, Layout.struct, Target.symbol


def asked_for(path: str) -> list[Asked]:
    """What a check of a dump asks for and gets."""
    found: dict[Asked, None] = {}

    def find(self: Struct, *paths: str) -> Field | None:
        field = _find(self, *paths)
        if field is not None:
            found[self.name, paths] = None
        return field

    def struct(self: Layout, name: str) -> Struct:
        known = _struct(self, name)
        found["type", (name,)] = None
        return known

    def symbol(self: Target, name: str) -> int | None:
        address = _symbol(self, name)
        if address is not None:
            found["symbol", (name,)] = None
        return address

    with (
        patch.object(Struct, "find", find),
        patch.object(Layout, "struct", struct),
        patch.object(Target, "symbol", symbol),
    ):
        run_check(Snapshot(opened(path)))
    return list(found)


@contextmanager
def lacking(asked: Asked) -> Iterator[None]:
    """Inside, kernels have none of it."""
    kind, names = asked

    def find(self: Struct, *paths: str) -> Field | None:
        return None if (self.name, paths) == asked else _find(self, *paths)

    def struct(self: Layout, name: str) -> Struct:
        if kind == "type" and name in names:
            raise LayoutError(f"this kernel has no type {name}")
        return _struct(self, name)

    def symbol(self: Target, name: str) -> int | None:
        return None if kind == "symbol" and name in names else _symbol(self, name)

    with (
        patch.object(Struct, "find", find),
        patch.object(Layout, "struct", struct),
        patch.object(Target, "symbol", symbol),
    ):
        yield
