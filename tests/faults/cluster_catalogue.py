"""Faults of swap clusters: their counts, flags and lists, and counts of slots that go beyond the swap table."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.snapshot import Snapshot
from inspector.tables.swap_clusters import Home
from inspector.tables.swap_table import COUNT_MAX
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, add, put, word
from tests.faults.plants import MissingError, Planted, pick
from tests.faults.swap_plants import cluster_address, has_table, slot_address, slots_used_by


def _of_home(s: Snapshot, *homes: Home, order: int | None = None) -> I64:
    """Rows of the clusters whose flags tell one of the homes."""
    clusters = s.swap_clusters.clusters
    wanted = np.isin(clusters.flagged_home, homes)
    return np.flatnonzero(wanted if order is None else wanted & (clusters.order == order))


def _partly_used(s: Snapshot) -> int:
    """Row of a cluster with slots in use and free ones."""
    clusters = s.swap_clusters.clusters
    used = clusters.used + clusters.beyond
    return pick(np.flatnonzero((used > 3) & (used < s.swap_clusters.per - 3)), "a cluster that is partly used")


def _at(s: Snapshot, row: int, *names: str) -> int:
    return int(s.swap_clusters.clusters.addr[row]) + s.layout.struct("struct swap_cluster_info").field(*names).offset


def _chained(s: Snapshot) -> bool:
    return not s.swap_clusters.has_homes


def _data(s: Snapshot, row: int) -> int:
    """Address of the word of data (24 bits) and flags (above) of kernels that chain clusters by number."""
    bits = s.layout.struct("struct swap_cluster_info").bits("data")
    assert bits is not None
    return int(s.swap_clusters.clusters.addr[row]) + bits.offset


def _count_patch(s: Snapshot, row: int, delta: int) -> Patch:
    return add(s, _data(s, row), delta, 4) if _chained(s) else add(s, _at(s, row, "count"), delta, 2)


def _flags_patch(s: Snapshot, row: int, home: Home) -> Patch:
    """The flags of a cluster made those of another home."""
    if _chained(s):
        at = _data(s, row)
        return put(s, at, word(s, at, 4) & 0xFFFFFF | (int(home == Home.FREE) << 24), 4)
    names = s.layout.enum("enum swap_cluster_flags")
    number = names[f"CLUSTER_FLAG_{home.name}"] if names else 1 << home >> 1
    return put(s, _at(s, row, "flags"), number, 1)


@fault
def cluster_counts_a_slot_too_many(s: Snapshot) -> Planted:
    return Planted((_count_patch(s, _partly_used(s), 1),), ("swap-cluster-count-mismatch",), None)


@fault
def cluster_counts_a_slot_too_few(s: Snapshot) -> Planted:
    return Planted((_count_patch(s, _partly_used(s), -1),), ("swap-cluster-count-mismatch",), None)


@fault
def cluster_count_lost(s: Snapshot) -> Planted:
    """It reads as empty, though it is on no list of free ones."""
    row = _partly_used(s)
    if _chained(s):
        at = _data(s, row)
        return Planted((put(s, at, word(s, at, 4) & ~0xFFFFFF, 4),), ("swap-cluster-count-mismatch",), None)
    return Planted((put(s, _at(s, row, "count"), 0, 2),), ("swap-cluster-count-mismatch",), None)


def _free_slot(s: Snapshot) -> tuple[int, int]:
    """Row of the device and offset of a free slot beside slots in use."""
    clusters, slots = s.swap_clusters.clusters, s.swap.slots
    row, per = _partly_used(s), s.swap_clusters.per
    device, first = int(clusters.device_idx[row]), int(clusters.number[row]) * per
    taken = slots.offset[(slots.device_idx == device) & (slots.raw != 0)]
    last = min(first + per, int(s.swap.devices.max[device]))
    return device, pick(np.setdiff1d(np.arange(first, last), taken), "a free slot")


@fault
def swap_map_byte_of_a_free_slot_set(s: Snapshot) -> Planted:
    """A free slot reads as cached: nobody's, and neither cluster nor device have counted it."""
    if has_table(s):
        raise MissingError("a mark: a swap table names the folio")
    device, free = _free_slot(s)
    patch = put(s, int(s.swap.devices.swap_map[device]) + free, 0x40, 1)
    return Planted((patch,), ("swap-slot-user-missing",), None, "warn")


@fault
def slot_of_a_cluster_made_bad(s: Snapshot) -> Planted:
    """A free slot reads as one that can never be used: cluster and device still have it for free."""
    device, free = _free_slot(s)
    if has_table(s):
        table = word(s, cluster_address(s, device, free, "table"))
        patch = put(s, table + 8 * (free % s.swap_clusters.per), -8)
    else:
        patch = put(s, int(s.swap.devices.swap_map[device]) + free, 0x3F, 1)
    return Planted((patch,), ("swap-cluster-count-mismatch",), None)


@fault
def free_cluster_without_its_mark(s: Snapshot) -> Planted:
    row = pick(_of_home(s, Home.FREE), "a free cluster", 3)
    return Planted((_flags_patch(s, row, Home.NONE),), ("swap-cluster-list-mismatch",), None)


@fault
def cluster_in_use_marked_as_free(s: Snapshot) -> Planted:
    row = _partly_used(s)
    rules = ("swap-cluster-list-mismatch", "swap-cluster-count-mismatch")
    return Planted((_flags_patch(s, row, Home.FREE),), rules, None)


@fault
def partly_used_cluster_marked_as_full(s: Snapshot) -> Planted:
    if _chained(s):
        raise MissingError("lists of clusters in use")
    return Planted((_flags_patch(s, _partly_used(s), Home.FULL),), ("swap-cluster-list-mismatch",), None)


@fault
def cluster_kept_for_another_order(s: Snapshot) -> Planted:
    if _chained(s):
        raise MissingError("lists of clusters in use")
    row = pick(_of_home(s, Home.NONFULL, Home.FRAG), "a cluster in use")
    return Planted((add(s, _at(s, row, "order"), 2, 1),), ("swap-cluster-list-mismatch",), None)


@fault
def cluster_taken_off_its_list_but_not_marked(s: Snapshot) -> Planted:
    """list_del() without the rest; on kernels that chain free clusters by number one is passed over."""
    row = pick(_of_home(s, Home.FREE), "a free cluster", 3)
    if _chained(s):
        clusters = s.swap_clusters.clusters
        raw = np.array([word(s, _data(s, at), 4) & 0xFFFFFF for at in range(len(clusters))])
        before = pick(np.flatnonzero((raw == row) & (clusters.flagged_home == Home.FREE)), "a cluster before it")
        flags = word(s, _data(s, before), 4) & 0xFF000000
        return Planted((put(s, _data(s, before), flags | int(raw[row]), 4),), ("swap-cluster-list-mismatch",), None)
    at = _at(s, row, "list")
    after, before = word(s, at), word(s, at + 8)
    poison = 0xDEAD000000000100
    patches = (put(s, before, after), put(s, after + 8, before), put(s, at, poison), put(s, at + 8, poison + 0x22))
    return Planted(patches, ("swap-cluster-list-mismatch",), None)


@fault
def list_of_free_clusters_leads_astray(s: Snapshot) -> Planted:
    row = pick(_of_home(s, Home.FREE), "a free cluster", 4)
    if _chained(s):
        at = _data(s, row)
        return Planted((put(s, at, word(s, at, 4) | 0xFFFFFF, 4),), ("swap-cluster-list-damaged",), None)
    return Planted((put(s, _at(s, row, "list"), int(s.swap.devices.addr[0])),), ("swap-cluster-list-damaged",), None)


@fault
def list_of_free_clusters_in_a_circle(s: Snapshot) -> Planted:
    row = pick(_of_home(s, Home.FREE), "a free cluster", 4)
    if _chained(s):
        at = _data(s, row)
        return Planted((put(s, at, word(s, at, 4) & ~0xFFFFFF | row, 4),), ("swap-cluster-list-damaged",), None)
    at = _at(s, row, "list")
    return Planted((put(s, at, at),), ("swap-cluster-list-damaged",), None)


def _room(s: Snapshot) -> int:
    """Physical address of a page that no table is read from: the last one."""
    return (s.layout.memmap.max_pfn - 1) << 12


@fault
def free_cluster_with_a_swap_table(s: Snapshot) -> Planted:
    if not has_table(s):
        raise MissingError("swap tables")
    row = pick(_of_home(s, Home.FREE), "a free cluster", 2)
    at = put(s, _at(s, row, "table"), s.layout.memory.direct_map_base + _room(s))
    return Planted((at, Patch(_room(s), bytes(4096), True)), ("swap-cluster-list-mismatch",), None)


def extended(s: Snapshot, row: int, count: int, *, stored: int = COUNT_MAX) -> tuple[Patch, ...]:
    """A slot's count continued in an extend table of its cluster's.

    Args:
        s: The snapshot.
        row: Of the slot.
        count: What the extend table says.
        stored: What the swap table says.
    """
    if not has_table(s):
        raise MissingError("extend tables")
    slots = s.swap.slots
    device, offset = int(slots.device_idx[row]), int(slots.offset[row])
    at = slot_address(s, row)
    raw = word(s, at)
    table = bytearray(4 * s.swap_clusters.per)
    place = 4 * (offset % s.swap_clusters.per)
    table[place : place + 4] = count.to_bytes(4, "little")
    return (
        put(s, cluster_address(s, device, offset, "extend_table"), s.layout.memory.direct_map_base + _room(s)),
        Patch(_room(s), bytes(table), True),
        put(s, at, raw & ~(0xF << 60) | stored << 60),
    )


@fault
def full_count_without_an_extend_table(s: Snapshot) -> Planted:
    if not has_table(s):
        raise MissingError("extend tables")
    at = slot_address(s, int(slots_used_by(s, users=1, cached=False)[0]))
    return Planted((put(s, at, word(s, at) | 0xF << 60),), ("swap-extended-count-mismatch",), None)


@fault
def full_count_continued_below_its_maximum(s: Snapshot) -> Planted:
    row = int(slots_used_by(s, users=1, cached=False)[0])
    return Planted(extended(s, row, 3), ("swap-extended-count-mismatch",), None)


@fault
def count_continued_that_is_not_full(s: Snapshot) -> Planted:
    row = int(slots_used_by(s, users=1, cached=False)[0])
    return Planted(extended(s, row, 17, stored=1), ("swap-extended-count-mismatch",), None)


@fault
def continued_count_too_high(s: Snapshot) -> Planted:
    """Well formed, but nobody else refers to the slot."""
    row = int(slots_used_by(s, users=1, cached=False)[0])
    return Planted(extended(s, row, 17), ("swap-count-high",), None)
