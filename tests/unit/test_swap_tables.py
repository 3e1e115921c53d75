"""Swap entries taken apart, and kernels without swap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inspector.rules import select_rules
from inspector.snapshot import Snapshot
from inspector.tables.swap_devices import entry_offsets, entry_types, swap_entries
from inspector.target.target import Target, open_core
from inspector.walk.swap_view import slot_exists, slot_users, swap_devices
from tests.fixtures import KERNELS

GONE = (
    *("swap_info", "swapper_spaces", "nr_swapper_spaces", "swp_slots", "shmem_swaplist", "total_swap_pages"),
    *("swap_entry_free", "get_swap_device", "si_swapinfo"),
)
"""What a kernel without CONFIG_SWAP has not."""


def test_entries_are_put_together_and_taken_apart() -> None:
    types = np.array([0, 1, 31], np.int64)
    offsets = np.array([1, 0x3FFF, (1 << 58) - 1], np.int64)
    entries = swap_entries(types, offsets)
    assert entries.tolist() == [1, 1 << 58 | 0x3FFF, (31 << 58) | ((1 << 58) - 1)]
    assert entry_types(entries).tolist() == types.tolist()
    assert entry_offsets(entries).tolist() == offsets.tolist()


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_without_swap(core: Callable[[str], str], kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Target.symbol
    monkeypatch.setattr(Target, "symbol", lambda self, name: None if name in GONE else known(self, name))
    s = Snapshot(open_core(core(kernel), types="btf"))
    assert len(s.swap.devices) == len(s.swap.slots) == len(swap_devices(s)) == 0
    assert s.swap.unreadable == 0
    assert len(slot_users(s, 0)) == 0
    assert not slot_exists(s.swap, 0, 1)
    # The page tables still hold swap entries, which now lead nowhere; nothing else is said.
    found = {r.slug for r in select_rules(["swap"]) if len(r.run(s))}
    assert found == {"swap-entry-slot-invalid"}
