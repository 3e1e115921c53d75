"""Rules of swap clusters: how full they are, which list they are on, and the counts that go beyond swap tables."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, AnyArray, Mask
from inspector.rules.needs import SWAP
from inspector.rules.registry import Phase, rule
from inspector.rules.swap.swap import odd_slots, unread_slots
from inspector.snapshot import Snapshot
from inspector.subjects import SWAP_CLUSTER, SWAP_CLUSTER_LIST, SWAP_SLOT
from inspector.tables.swap_clusters import NOWHERE, Home, home_names
from inspector.tables.swap_devices import SWP_BLKDEV
from inspector.tables.swap_table import BAD, COUNT_MAX, has_swap_table
from inspector.violations import Unread, Violations, cannot_check, holds, one, violations
from inspector.windows.window import Effect


def _unread(s: Snapshot) -> Unread:
    """Devices with unread slots, and unread clusters."""
    slots, clusters = unread_slots(s), s.swap_clusters.unreadable
    return cannot_check(slots.nr + clusters, slots.why or "some swap clusters are not in the dump")


def _whole(s: Snapshot) -> Mask:
    """Clusters that can be judged: read, of a device of which all slots were read."""
    clusters = s.swap_clusters.clusters
    whole = s.swap.whole if len(s.swap.whole) else np.zeros(1, np.bool_)
    return clusters.readable & whole[clusters.device_idx]


def _device_locked(s: Snapshot) -> Mask:
    """Clusters of devices of which anything is locked."""
    locked = s.swap.devices.locked if len(s.swap.devices) else np.zeros(1, np.bool_)
    return locked[s.swap_clusters.clusters.device_idx]


def _discarded(s: Snapshot) -> Mask:
    """Clusters taken off the list to discard what they hold: all slots are marked as bad then.

    Kernels with swap tables leave the slots alone and set a flag.
    """
    found, clusters = s.swap_clusters, s.swap_clusters.clusters
    alone = (clusters.flagged_home == Home.NONE) & (clusters.list_idx < 0)
    return alone & (clusters.bad + clusters.beyond == found.per) & (clusters.count != found.per)


def _discarding(s: Snapshot) -> Mask:
    """Clusters that wait to be discarded, or are just being."""
    return (s.swap_clusters.clusters.flagged_home == Home.DISCARD) | (_home(s) == Home.DISCARD) | _discarded(s)


def _home(s: Snapshot) -> I64:
    """The home of the list that each cluster is on."""
    clusters, lists = s.swap_clusters.clusters, s.swap_clusters.lists
    homes = np.append(lists.home, Home.NONE)
    return homes[clusters.list_idx]


def _odd_slot(s: Snapshot) -> I64:
    """By cluster a slot whose use is in doubt, -1 for none."""
    clusters, slots = s.swap_clusters.clusters, s.swap.slots
    rows = odd_slots(s)
    first = np.searchsorted(clusters.device_idx, slots.device_idx[rows])
    end = np.searchsorted(clusters.device_idx, slots.device_idx[rows], "right")
    at = first + slots.offset[rows] // s.swap_clusters.per
    known = at < end
    out = np.full(len(clusters), -1, np.int64)
    out[at[known]] = rows[known]
    return out


@rule(
    "swap-cluster-count-mismatch",
    SWAP_CLUSTER,
    "swap",
    Phase.TOTALS,
    effect=Effect.SWAP,
    needs=SWAP,
    decides="123",
)
def swap_cluster_count_mismatch(s: Snapshot) -> Violations:
    """A swap cluster's count is not the number of its slots in use.

    Invariant: a cluster's count is the number of its slots that are not free: those that can never be used are among
        them, those that CPUs have set aside, and those behind the end of the device. A free cluster has none.
    Why: mm/swapfile.c, inc_cluster_info_page() and dec_cluster_info_page(); swap_cluster_setup_bad_slot(),
        __swap_cluster_alloc_entries() and swap_entries_free().
    Consequence: the cluster is taken for free while slots are in use, and given away; or it is never free again.
    Exceptions: the cluster or the device is locked, or the cluster is being discarded.
    See also: folioscope swap
    """
    clusters, devices = s.swap_clusters.clusters, s.swap.devices
    most = clusters.used + clusters.beyond
    # A swap file may end before the length that its clusters were counted with (setup_swap_extents()).
    least = most.copy()
    if len(devices):
        files = (devices.flags[clusters.device_idx] & np.uint64(SWP_BLKDEV)) == 0
        least = np.where(files & ~np.bool_(s.swap_clusters.has_tables), clusters.used, most)
    able = _whole(s) & ~_discarding(s)
    rows = np.flatnonzero(able & ((clusters.count > most) | (clusters.count < least)))
    return violations(
        rows,
        observed={"count": clusters.count[rows]},
        expected={"count": most[rows]},
        checked=int(able.sum()),
        unread=_unread(s),
        facts={"unusable_slots": (clusters.bad + clusters.beyond)[rows], "list": _places(s)[rows]},
        claims=one("swap_cluster", rows),
        depends=one("swap_slot", _odd_slot(s)[rows]),
        transient=_device_locked(s)[rows],
    )


def _places(s: Snapshot) -> AnyArray:
    """In words the list that each cluster is on."""
    lists = s.swap_clusters.lists
    return np.append(home_names(lists.home, lists.order), NOWHERE)[s.swap_clusters.clusters.list_idx]


@rule(
    "swap-cluster-list-damaged",
    SWAP_CLUSTER_LIST,
    "swap",
    Phase.TOTALS,
    effect=Effect.SWAP,
    needs=SWAP,
    decides="123",
)
def swap_cluster_list_damaged(s: Snapshot) -> Violations:
    """A list of swap clusters leads to something that is no cluster of the device, or its links disagree.

    Invariant: each entry of a device's free, nonfull, frag, full and discard lists is one of its clusters, and its
        neighbours name it. Before 6.12 free clusters are chained by their numbers: the chain ends at the tail.
    Why: mm/swapfile.c, move_cluster() (cluster_list_add_tail() and cluster_list_del_first() before 6.12).
    Consequence: the next allocation writes over foreign memory, or loses all clusters behind the break.
    Exceptions: the device or one of its clusters is locked.
    See also: folioscope swap
    """
    lists, devices = s.swap_clusters.lists, s.swap.devices
    rows = np.flatnonzero(lists.damaged)
    if _unread(s).nr:
        return holds(0, _unread(s))
    owner = lists.device_idx[rows]
    return violations(
        rows,
        observed={"first_wrong_link": lists.first_wrong[rows]},
        expected={},
        checked=len(lists),
        claims=one("swap_cluster_lists", owner),
        transient=devices.locked[owner],
    )


@rule(
    "swap-cluster-list-mismatch",
    SWAP_CLUSTER,
    "swap",
    Phase.TOTALS,
    after=(
        "swap-cluster-count-mismatch",
        "swap-cluster-list-damaged",
    ),
    effect=Effect.SWAP,
    needs=SWAP,
    decides="123",
    was="swap-cluster-misplaced",
)
def swap_cluster_list_mismatch(s: Snapshot) -> Violations:
    """A swap cluster is on another list than its flags and its count require, or on none.

    Invariant: a cluster without slots in use is on the free list (or waits for its discard), a full one on the full
        list, any other on the nonfull or frag list of its order; its flags name the list; a free one has no swap table
        and any other has. Before 6.12 only free clusters are on a list, and a mark says so.
    Why: mm/swapfile.c, move_cluster(), relocate_cluster(), partial_free_cluster() and __free_cluster(); alloc_cluster()
        and dec_cluster_info_page() before.
    Consequence: free space is not found, or slots in use are taken for free ones.
    Exceptions: the device or the cluster is locked, or the allocator, reclaim or a discard has the cluster in hand: it
        is on no list then and marked so.
    See also: folioscope swap
    """
    found, clusters = s.swap_clusters, s.swap_clusters.clusters
    home, flagged = _home(s), clusters.flagged_home
    orders = np.append(found.lists.order, 0)[clusters.list_idx]
    by_order = (home == Home.NONFULL) | (home == Home.FRAG)
    discard = _discarded(s) | (_discarding(s) & (clusters.count == 0))
    # What waits to be discarded has no flag before there was one for it.
    elsewhere = (home != flagged) & ~(discard & (flagged == Home.NONE))
    elsewhere |= by_order & (orders != clusters.order)
    wanted = _wanted(s)
    unfit = (wanted != home) & ~discard & ~((wanted == Home.NONFULL) & (home == Home.FRAG))
    odd_table = (clusters.has_table == (flagged == Home.FREE)) & np.bool_(found.has_tables)
    in_hand = (home == Home.NONE) & ((flagged == Home.NONE) | (flagged == Home.DISCARD)) & np.bool_(found.has_homes)
    in_hand &= ~(discard & ~np.bool_(found.has_tables))
    able = _whole(s)
    rows = np.flatnonzero(able & (elsewhere | unfit | odd_table | in_hand))
    if _unread(s).nr:
        return holds(0, _unread(s))
    observed = {"list": _places(s)[rows], "flags": home_names(flagged, clusters.order)[rows]}
    fit = home_names(wanted, clusters.order)[rows]
    expected: dict[str, AnyArray] = {"list": fit, "flags": fit}
    if found.has_tables:
        observed["has_table"], expected["has_table"] = clusters.has_table[rows], wanted[rows] != Home.FREE
    lists = np.where(elsewhere | in_hand, clusters.device_idx, -1)
    return violations(
        rows,
        observed=observed,
        expected=expected,
        checked=int(able.sum()),
        facts={"count": clusters.count[rows], "of": np.full(len(rows), found.per)},
        claims=one("swap_cluster_lists", lists[rows]),
        depends=one("swap_cluster", rows) + one("swap_cluster_lists", clusters.device_idx[rows]),
        transient=(_device_locked(s) | in_hand)[rows],
    )


def _wanted(s: Snapshot) -> I64:
    """The home that each cluster's count asks for; nonfull includes frag."""
    found, clusters = s.swap_clusters, s.swap_clusters.clusters
    used = np.where(clusters.count >= found.per, Home.FULL, Home.NONFULL)
    # A cluster of bad slots alone was never allocated from: it is where swapon() put it.
    used = np.where(clusters.bad + clusters.beyond >= found.per, Home.NONFULL, used)
    if not found.has_homes:
        used = np.full(len(clusters), Home.NONE)
        return np.where(clusters.flagged_home == Home.FREE, Home.FREE, used).astype(np.int64)
    return np.where(clusters.count == 0, Home.FREE, used).astype(np.int64)


@rule(
    "swap-extended-count-mismatch",
    SWAP_SLOT,
    "swap",
    Phase.FOLIO_COUNTS,
    effect=Effect.SWAP,
    needs=SWAP,
    decides="126",
    was="swap-extended-count-wrong",
)
def swap_extended_count_mismatch(s: Snapshot) -> Violations:
    """A swap count is continued in the extend table without being full, or full without being continued.

    Invariant: a count in the swap table that is at its maximum refers to the one in the extend table, which is then at
        least as great; for any other slot the extend table has 0.
    Why: mm/swapfile.c, __swap_cluster_dup_entry() and __swap_cluster_put_entry().
    Consequence: the next reference more or less is taken from a wrong count: the slot is freed too early, or never;
        without a table the kernel runs into a null pointer.
    Exceptions: the cluster is locked.
    See also: folioscope swap ENTRY
    """
    slots = s.swap.slots
    if not has_swap_table(s.layout) or not s.layout.struct("struct swap_cluster_info").has("extend_table"):
        return holds(0)
    whole = s.swap.whole[slots.device_idx] if len(slots) else slots.is_bad
    plain = np.where(slots.raw == BAD, np.uint64(0), slots.raw)
    stored = (plain >> np.uint64(60)).astype(np.int64)
    known = whole & (slots.extended >= 0)
    full = stored == COUNT_MAX
    wrong = np.where(full, slots.extended < COUNT_MAX, slots.extended != 0)
    rows = np.flatnonzero(known & wrong)
    return violations(
        rows,
        observed={"count": stored[rows], "extended": slots.extended[rows]},
        expected={"extended": np.where(full[rows], np.maximum(slots.extended[rows], COUNT_MAX), 0)},
        checked=int(known.sum()),
        unread=unread_slots(s),
        facts={"users": (s.swap_refs.pte_refs + s.swap_refs.shmem_refs)[rows]},
        claims=one("swap_slot", rows),
        transient=s.swap.devices.locked[slots.device_idx[rows]],
    )
