"""Screens of one file and of one anon_vma show the same before all page tables were walked as after."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from inspector.snapshot import Snapshot
from tests.faults.overlay import KERNELS, core_path, sound
from tui.screens.anon_vma import AnonVmaScreen
from tui.screens.file import FileScreen


def loaded(screen: Any, s: Snapshot, address: int) -> Any:
    """What a screen loads for a place, without a terminal."""
    return screen.load(
        SimpleNamespace(session=SimpleNamespace(snapshot=s, file_names={}), place=SimpleNamespace(addr=address))
    )


def test_screens_before_and_after_the_walk() -> None:
    s = sound(core_path("fixture", KERNELS[-1]))
    assert s.counts is not None
    assert s.has_walked
    apart = Snapshot(s.target)
    table, spaces = s.anon_rmap.anon_vmas, s.file_rmap.address_space_of_vma
    anon_vma = int(table.addr[np.argmax(table.num_active_vmas)])
    file = int(s.file_rmap.address_spaces.addr[np.bincount(spaces[spaces >= 0]).argmax()])
    for screen, address in ((AnonVmaScreen, anon_vma), (FileScreen, file)):
        after, before = loaded(screen, s, address), loaded(screen, apart, address)
        for name in ("family", "tree", "mappers", "orders", "damage"):
            assert getattr(before.report, name, None) == getattr(after.report, name, None)
        rows = after.rows if screen is AnonVmaScreen else after.mappers
        same = before.rows if screen is AnonVmaScreen else before.mappers
        assert len(rows.columns) == len(same.columns)
        assert same.place(0) is not None
    assert not apart.has_walked
