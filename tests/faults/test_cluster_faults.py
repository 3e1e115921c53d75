"""Swap clusters as they are, taken in hand, and with counts that go beyond the swap table."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from inspector.tables.swap_clusters import Home
from tests.faults.cluster_catalogue import extended
from tests.faults.overlay import Patch, add, findings, planted, put, sound, without_stacks, word
from tests.faults.swap_plants import has_table, slot_address, slots_used_by, users_of


def test_each_cluster_is_on_one_list(path: str) -> None:
    s = sound(path)
    found, clusters = s.swap_clusters, s.swap_clusters.clusters
    assert len(clusters) >= 32
    assert found.unreadable == 0
    assert clusters.readable.all()
    assert (clusters.count == clusters.used + clusters.beyond).all()
    slots = s.swap.slots
    # Disks that turn have no clusters before there were swap tables.
    clustered = s.swap.devices.cluster_info[slots.device_idx] != 0
    assert int(clusters.used.sum()) == int((clustered & (slots.raw != 0)).sum())
    assert ((clusters.list_idx >= 0) == (found.has_homes | (clusters.flagged_home == Home.FREE))).all()
    on = clusters.list_idx >= 0
    assert (found.lists.home[clusters.list_idx[on]] == clusters.flagged_home[on]).all()
    assert set(clusters.flagged_home.tolist()) > {Home.FREE}


def _in_hand(s: Snapshot) -> tuple[Patch, ...]:
    """A cluster in use taken off its list and marked so, as the allocator does (isolate_lock_cluster())."""
    clusters, struct = s.swap_clusters.clusters, s.layout.struct("struct swap_cluster_info")
    if not s.layout.enum("enum swap_cluster_flags"):
        pytest.skip("clusters are never taken off their lists")
    row = int(np.flatnonzero((clusters.flagged_home == Home.FRAG) | (clusters.flagged_home == Home.NONFULL))[0])
    at = int(clusters.addr[row]) + struct.field("list").offset
    after, before = word(s, at), word(s, at + 8)
    flags = put(s, int(clusters.addr[row]) + struct.field("flags").offset, 0, 1)
    links = put(s, before, after), put(s, after + 8, before)
    return *links, put(s, at, 0xDEAD000000000100), put(s, at + 8, 0xDEAD000000000122), flags


@pytest.mark.each_kernel
def test_cluster_in_hand_of_nobody(path: str) -> None:
    found = findings(path, *_in_hand(sound(path)))
    assert [(f.rule, f.severity) for f in found] == [("swap-cluster-list-mismatch", "fail")]
    assert found[0].subject.kind == "swap_cluster"
    assert found[0].observed["list"] == "no list"


@pytest.mark.each_kernel
def test_cluster_in_hand_of_somebody_unknown(path: str) -> None:
    found = run_check(without_stacks(path, *_in_hand(sound(path)))).findings
    assert [(f.rule, f.severity) for f in found] == [("swap-cluster-list-mismatch", "info")]


def _with_sharers(s: Snapshot, more: int) -> tuple[int, tuple[Patch, ...]]:
    """A slot with one user gets that many more: the entries of other slots, which are then free.

    Returns:
        Row of the slot, and the patches: the entries, the words of the free slots, and what counts those.
    """
    if not has_table(s):
        pytest.skip("no swap tables")
    n, slots, clusters = s.nonpresent, s.swap.slots, s.swap_clusters.clusters
    rows = slots_used_by(s, users=1, cached=False)
    rows = rows[slots.device_idx[rows] == slots.device_idx[rows[0]]][: more + 1]
    assert len(rows) == more + 1
    entries = np.array([int(users_of(s, row)[0]) for row in rows.tolist()])
    raw = (int(n.entry[entries[0]]) & ~(1 << 3)).to_bytes(8, "little")
    places = (s.tables.pfn[n.table_idx[entries]].astype(np.int64) << 12) + 8 * n.slot[entries]
    freed = rows[1:]
    number = slots.offset[freed] // s.swap_clusters.per
    count = s.layout.struct("struct swap_cluster_info").field("count").offset
    device = int(slots.device_idx[rows[0]])
    inuse = s.layout.struct("struct swap_info_struct").field("inuse_pages.counter").offset
    of_device = np.flatnonzero(clusters.device_idx == device)
    counts = [
        add(s, int(clusters.addr[of_device[at]]) + count, -int((number == at).sum()), 2) for at in np.unique(number)
    ]
    return int(rows[0]), (
        *(Patch(place, raw, True) for place in places.tolist()),
        *(put(s, slot_address(s, row), 0) for row in freed.tolist()),
        *counts,
        add(s, int(s.swap.devices.addr[device]) + inuse, -more),
        add(s, s.layout.symbol("nr_swap_pages"), more),
    )


@pytest.mark.each_kernel
@pytest.mark.parametrize("more", [14, 20])
def test_continued_count_that_fits_is_sound(path: str, more: int) -> None:
    """No guest has a slot with fifteen users: one is made of many slots with one."""
    s = sound(path)
    row, entries = _with_sharers(s, more)
    patches = (*entries, *extended(s, row, more + 1))
    assert planted(path, *patches).swap.slots.count[row] == more + 1
    assert findings(path, *patches) == []


@pytest.mark.each_kernel
def test_continued_count_that_is_one_off(path: str) -> None:
    s = sound(path)
    row, entries = _with_sharers(s, 16)
    found = findings(path, *entries, *extended(s, row, 16))
    assert [(f.rule, f.evidence.also) for f in found] == [("swap-count-low", [])]


@pytest.mark.each_kernel
def test_continued_count_left_behind_when_the_count_fell(path: str) -> None:
    """Fourteen users: the table's own word is enough, the continuation should be gone."""
    s = sound(path)
    row, entries = _with_sharers(s, 13)
    found = findings(path, *entries, *extended(s, row, 14, stored=14))
    assert [(f.rule, f.evidence.also) for f in found] == [("swap-extended-count-mismatch", [])]
    assert found[0].observed["extended"] == 14
