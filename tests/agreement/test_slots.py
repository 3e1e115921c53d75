"""What is found of a swap slot where swapoff would search is what all page tables and files have."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from inspector.aimed.slot import SlotSnapshot
from inspector.report.swap import SwapReport, build_slot, build_swap
from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_SWAP
from tests.agreement.planted import each_planted
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, core_path, sound


def some_slots(s: Snapshot, most: int) -> list[str]:
    """Slots of every sort: free, bad, with one reference and several, of shmem, in the swap cache."""
    slots, refs = s.swap.slots, s.swap_refs
    kind = np.stack([
        slots.device_idx, np.minimum(slots.count, 3), slots.is_bad, np.minimum(refs.shmem_refs, 2),
        np.minimum(refs.pte_refs, 3), slots.cache_pfn >= 0, slots.set_aside,
    ])  # fmt: skip
    _, first = np.unique(kind, axis=1, return_index=True)
    rows = np.union1d(first, np.linspace(0, len(slots) - 1, most).astype(np.int64))
    types = s.swap.devices.type_[slots.device_idx[rows]]
    return [f"{t}:{o:#x}" for t, o in zip(types.tolist(), slots.offset[rows].tolist(), strict=True)]


def asked_both_ways(s: Snapshot, most: int) -> Iterator[tuple[str, SwapReport, SwapReport]]:
    apart = Snapshot(s.target)
    for slot in some_slots(s, most):
        found, _ = build_slot(apart, slot)
        yield slot, build_swap(s, slot), found
    assert not {"mms", "_vmas", "_walked", "_sweep", "files"} & set(vars(apart))


@pytest.mark.parametrize("kernel", KERNELS)
def test_slots_of_every_sort(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    ended = 0
    for slot, whole, found in asked_both_ways(s, 20):
        assert found.slot == whole.slot, slot
        assert whole.search and whole.search.searched == "all page tables"
        assert found.search and found.search.searched == "as swapoff does"
        assert found.search.mms <= found.search.of_mms < len(s.mms)
        assert not found.devices
        ended += found.search.ended_at_count
    assert ended > 10


def test_search_ends_with_the_last_reference_that_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    s = sound(core_path("fixture", KERNELS[-1]))
    monkeypatch.setattr("inspector.aimed.slot._TABLES_AT_ONCE", 1)
    row = int(np.flatnonzero((s.swap.slots.count == 1) & (s.swap_refs.pte_refs == 1))[0])
    one = SlotSnapshot(Snapshot(s.target), int(s.swap.devices.type_[s.swap.slots.device_idx[row]]),
                       int(s.swap.slots.offset[row]))  # fmt: skip
    assert len(one.nonpresent) == 1
    assert one.all_found
    assert one.mms_searched < len(one.mms_listed)
    assert one.files_searched == 0


FAULTS = [name for name in CATALOGUE if "swap" in name or "slot" in name]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kernel", KERNELS)
def test_slots_with_faults(kernel: str) -> None:
    for name, _, s in each_planted(kernel, FAULTS):
        listed = s.mms.addr[s.mms.on_mmlist | (s.mms.rss[:, RSS_SWAP] != 0)].tolist()
        for slot, whole, found in asked_both_ways(s, 6):
            assert found.slot and whole.slot and found.search, (name, slot)
            assert [u for u in found.slot.users if u not in whole.slot.users] == [], (name, slot)
            lost = [u for u in whole.slot.users if u not in found.slot.users]
            if found.search.ended_at_count:
                # A count that is too low ends the search too soon.
                assert len(found.slot.users) >= found.slot.count, (name, slot)
            else:
                assert not {u.mm for u in lost} & {*listed, None}, (name, slot)
            assert msgspec.structs.replace(found.slot, users=[]) == msgspec.structs.replace(whole.slot, users=[])
