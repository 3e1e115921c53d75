"""Dumps with pages left out, without touching the file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import drgn

from inspector.snapshot import Snapshot
from inspector.target.target import Target
from tests.faults.overlay import opened

PAGE = 4096


def leave_out(target: Target, pages: Iterable[int], *, physical: bool = True) -> None:
    """Let the target lack some pages.

    Args:
        target: An opened dump with memory of its own.
        pages: Their addresses.
        physical: Whether these are physical; virtual ones are of the memory map.
    """

    def fault(address: int, _count: int, _offset: int, _physical: bool) -> NoReturn:
        raise drgn.FaultError("page is left out", address)

    for page in pages:
        target.prog.add_memory_segment(page // PAGE * PAGE, PAGE, fault, physical)


def with_holes(path: str, pages: Iterable[int], *, physical: bool = True) -> Snapshot:
    """The dump without some pages."""
    target = opened(path)
    leave_out(target, pages, physical=physical)
    return Snapshot(target)
