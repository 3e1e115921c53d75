"""Swap clusters: the stored count of each stretch of a device, and which of the device's lists it is on."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from inspector.columns import I64, U8, U64, AnyArray, Mask, Table
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Struct
from inspector.lib.chains import follow_chains, owners_of_nodes
from inspector.records import dataclass
from inspector.tables.locks import held
from inspector.tables.swap import Swap
from inspector.tables.swap_devices import records, slots_per_cluster

_FREE, _NEXT_NULL = 1, 2
"""CLUSTER_FLAG_FREE and CLUSTER_FLAG_NEXT_NULL of kernels that chain clusters by their numbers."""


class Home(IntEnum):
    """The kinds of lists that clusters are on (struct swap_info_struct)."""

    NONE = 0
    FREE = 1
    NONFULL = 2
    FRAG = 3
    FULL = 4
    DISCARD = 5


NOWHERE = "no list"
_HOME_NAMES = {
    Home.NONE: NOWHERE,
    Home.FREE: "free",
    Home.NONFULL: "nonfull",
    Home.FRAG: "frag",
    Home.FULL: "full",
    Home.DISCARD: "discard",
}
"""Homes of clusters in words."""


def home_names(home: I64, order: I64) -> AnyArray:
    """str[n]; a home in words, with its order where the kernel keeps a list for each."""
    names = np.array(["unknown", *(_HOME_NAMES[home] for home in Home)], dtype="<U16")[home + 1]
    by_order = (home == Home.NONFULL) | (home == Home.FRAG)
    return np.where(by_order, np.char.add(np.char.add(names, " order "), order.astype("<U4")), names)


_BITS = {1: Home.FREE, 2: Home.NONFULL, 4: Home.FRAG, 8: Home.FULL}
"""CLUSTER_FLAG_ bits before they became an enum (include/linux/swap.h)."""

_MEMBERS = {
    Home.FREE: "free_clusters",
    Home.NONFULL: "nonfull_clusters",
    Home.FRAG: "frag_clusters",
    Home.FULL: "full_clusters",
    Home.DISCARD: "discard_clusters",
}


@dataclass(frozen=True, slots=True)
class SwapClusters(Table):
    """One row a cluster, by device and number.

    Attributes:
        addr: uint64; struct swap_cluster_info.
        device_idx: int64; row of the device.
        number: int64; the cluster's first slot divided by the slots of a cluster.
        flags: int64; as stored.
        flagged_home: int64; the `Home` that the flags name, -1 for flags that do not exist.
        count: int64; slots in use or unusable as it counts them, 0 while it is free.
        order: int64; of the allocations that it is kept for, 0 where clusters have none.
        used, bad: int64; its slots that are not free, and those of them that can never be used.
        beyond: int64; its slots behind the end of the device, which count as used.
        list_idx: int64; row of the list that it is on, -1 for none.
        has_table: bool; it has a swap table.
        locked, readable: bool.
    """

    addr: U64
    device_idx: I64
    number: I64
    flags: I64
    flagged_home: I64
    count: I64
    order: I64
    used: I64
    bad: I64
    beyond: I64
    list_idx: I64
    has_table: Mask
    locked: Mask
    readable: Mask


@dataclass(frozen=True, slots=True)
class ClusterLists(Table):
    """One row a list of clusters.

    Attributes:
        addr: uint64; its head.
        device_idx: int64; row of the device.
        home: int64; a `Home`.
        order: int64; of the clusters on it, 0 where it is for all.
        damaged: bool; its links lead to something that is no cluster, do not lead back or not to its end.
        first_wrong: uint64; address of the first node where that shows; 0 for none.
    """

    addr: U64
    device_idx: I64
    home: I64
    order: I64
    damaged: Mask
    first_wrong: U64


@dataclass(frozen=True)
class Clusters:
    """All clusters of all devices that have them.

    Attributes:
        clusters, lists: The tables.
        per: Slots of a cluster.
        has_homes: Whether every cluster in use is on a list too; before 6.12 only free ones are.
        has_tables: Whether clusters in use have a swap table, and free ones none.
        unreadable: Clusters and lists that are not in the dump.
    """

    clusters: SwapClusters
    lists: ClusterLists
    per: int
    has_homes: bool
    has_tables: bool
    unreadable: int


def build_clusters(layout: Layout, swap: Swap) -> Clusters:
    """Read clusters and lists (mm/swapfile.c; struct swap_cluster_info in mm/swap.h, include/linux/swap.h)."""
    if not layout.has_struct("struct swap_cluster_info"):
        return Clusters(SwapClusters.empty(), ClusterLists.empty(), 1, has_homes=False, has_tables=False, unreadable=0)
    struct, per = layout.struct("struct swap_cluster_info"), slots_per_cluster(layout)
    chained = _is_chained(layout)
    clusters, lists, missing, first = [SwapClusters.empty()], [ClusterLists.empty()], 0, 0
    for row in np.flatnonzero(swap.devices.in_use & (swap.devices.cluster_info != 0)).tolist():
        part, raw, lost = _clusters(layout, struct, swap, row)
        info = layout.memory.gather(swap.devices.addr[row : row + 1], layout.struct("struct swap_info_struct").size)
        missing += lost + int((~info.valid).sum())
        read = _chained if chained else _linked
        mine = read(layout, swap, row, part, _DeviceBytes(struct, raw, info.bytes))
        part.list_idx[part.list_idx >= 0] += first
        first += len(mine)
        clusters.append(part)
        lists.append(mine)
    return Clusters(
        SwapClusters.concat(clusters),
        ClusterLists.concat(lists),
        per,
        has_homes=not chained,
        has_tables=struct.has("table"),
        unreadable=missing,
    )


def _is_chained(layout: Layout) -> bool:
    """Whether clusters name one another by number (before 6.12) and not by list_heads."""
    return layout.has_struct("struct swap_cluster_list")


@dataclass(frozen=True)
class _DeviceBytes:
    """Bytes of one device: of its clusters [n, size], and of its struct swap_info_struct [1, size]."""

    struct: Struct
    clusters: U8
    device: U8


def _clusters(layout: Layout, struct: Struct, swap: Swap, row: int) -> tuple[SwapClusters, U8, int]:
    """The clusters of one device, on no list yet, their bytes, and how many could not be read."""
    devices, slots, per = swap.devices, swap.slots, slots_per_cluster(layout)
    wanted = -(-int(devices.max[row]) // per)
    pieces, known = [np.empty((0, struct.size), np.uint8)], [np.empty(0, np.bool_)]
    for _, data, valid in records(layout, int(devices.cluster_info[row]), wanted, struct.size):
        pieces.append(data)
        known.append(valid)
    raw, readable = np.concatenate(pieces), np.concatenate(known)
    nr = len(raw)
    mine = (slots.device_idx == row) & (slots.offset < nr * per)
    taken = mine & (slots.raw != 0)
    beyond = np.zeros(nr, np.int64)
    if nr == wanted:
        beyond[-1:] = nr * per - int(devices.max[row])
    count, flags, order = _words(struct, raw)
    part = SwapClusters(
        addr=devices.cluster_info[row] + np.arange(nr, dtype=np.uint64) * np.uint64(struct.size),
        device_idx=np.full(nr, row, np.int64),
        number=np.arange(nr, dtype=np.int64),
        flags=flags,
        flagged_home=_by_flags(layout, struct, flags),
        count=count,
        order=order,
        used=np.bincount(slots.offset[taken] // per, minlength=nr).astype(np.int64),
        bad=np.bincount(slots.offset[mine & slots.is_bad] // per, minlength=nr).astype(np.int64),
        beyond=beyond,
        list_idx=np.full(nr, -1, np.int64),
        has_table=struct.field("table").column(raw) != 0 if struct.has("table") else np.zeros(nr, np.bool_),
        locked=held(struct, "lock", raw),
        readable=readable,
    )
    return part, raw, wanted - int(readable.sum())


def _words(struct: Struct, raw: U8) -> tuple[I64, I64, I64]:
    """Count (or number of the next one, while it is on a chain), flags and order of clusters."""
    data, bits = struct.bits("data"), struct.bits("flags")
    if data is not None and bits is not None:
        return data.column(raw), bits.column(raw), np.zeros(len(raw), np.int64)
    count, flags, order = (struct.field(name).column(raw).astype(np.int64) for name in ("count", "flags", "order"))
    return count, flags, order


def _by_flags(layout: Layout, struct: Struct, flags: I64) -> I64:
    """The `Home` that flags name, -1 for unknown flags."""
    if _is_chained(layout):
        return np.where(flags & _FREE, Home.FREE, Home.NONE).astype(np.int64)
    names = layout.enum("enum swap_cluster_flags")
    known = {
        number: home for home in Home for number in (names.get(f"CLUSTER_FLAG_{home.name}"),) if number is not None
    }
    table = np.full(256, -1, np.int64)
    table[0] = Home.NONE
    for number, home in (known or _BITS).items():
        table[number] = home
    return table[flags]


def _linked(layout: Layout, swap: Swap, row: int, part: SwapClusters, raw: _DeviceBytes) -> ClusterLists:
    """Lists of list_heads; ``list_idx`` of the clusters is filled in."""
    device = layout.struct("struct swap_info_struct")
    link = raw.struct.field("list").offset
    offsets, homes, orders = [], [], []
    for home, member in _MEMBERS.items():
        field = device.field(member)
        for order in range(max(field.size // 16, 1)):
            offsets.append(field.offset + 16 * order)
            homes.append(home)
            orders.append(order)
    place = np.array(offsets, np.int64)
    head = swap.devices.addr[row] + place.astype(np.uint64)
    heads = np.stack([raw.device[0, at : at + 16] for at in offsets]).view(np.uint64)
    links = np.ascontiguousarray(raw.clusters[:, link : link + 16]).view(np.uint64)
    node = np.concatenate([head, part.addr + np.uint64(link)])
    words = np.concatenate([heads, links])
    owner, wrong = owners_of_nodes(node, words[:, 0], words[:, 1], len(head))
    part.list_idx[:] = owner[len(head) :]
    bad = np.flatnonzero(wrong & (owner >= 0))
    damaged, first = np.zeros(len(head), np.bool_), np.zeros(len(head), np.uint64)
    damaged[owner[bad]] = True
    first[owner[bad][::-1]] = node[bad][::-1]
    return ClusterLists(
        addr=head,
        device_idx=np.full(len(head), row, np.int64),
        home=np.array(homes, np.int64),
        order=np.array(orders, np.int64),
        damaged=damaged,
        first_wrong=first,
    )


def _chained(layout: Layout, swap: Swap, row: int, part: SwapClusters, raw: _DeviceBytes) -> ClusterLists:
    """Chains of cluster numbers (struct swap_cluster_list); a free cluster's count is then no count."""
    device, size = layout.struct("struct swap_info_struct"), raw.struct.size
    homes = (Home.FREE, Home.DISCARD)
    offsets = [device.field(_MEMBERS[home]).offset for home in homes]
    number, flags, _ = _words(raw.struct, np.concatenate([_ends(raw.device, at, size) for at in offsets]))
    n, some = len(part), (flags[::2] & _NEXT_NULL) == 0
    # Numbers count from 1 here, 0 is what the end leads to; what the tail itself names does not matter.
    after = part.count + 1
    tails = number[1::2][some]
    after[tails[tails < n]] = 0
    heads = np.where(some, number[::2] + 1, 0).astype(np.uint64)
    chains = follow_chains(np.arange(1, n + 1, dtype=np.uint64), after.astype(np.uint64), heads)
    part.list_idx[:] = chains.owner
    first_wrong = np.where(chains.broken, swap.devices.addr[row] + np.array(offsets, np.uint64), np.uint64(0))
    astray = np.flatnonzero((chains.owner >= 0) & (after > n))
    first_wrong[chains.owner[astray]] = part.addr[astray]
    part.count[(part.flagged_home == Home.FREE) | (part.list_idx >= 0)] = 0
    return ClusterLists(
        addr=swap.devices.addr[row] + np.array(offsets, np.uint64),
        device_idx=np.full(2, row, np.int64),
        home=np.array(homes, np.int64),
        order=np.zeros(2, np.int64),
        damaged=chains.broken,
        first_wrong=first_wrong,
    )


def _ends(device: U8, offset: int, size: int) -> U8:
    """Head and tail of a chain (struct swap_cluster_list): uint8[2, size]."""
    ends: U8 = device[0, offset : offset + 2 * size].reshape(2, size)
    return ends
