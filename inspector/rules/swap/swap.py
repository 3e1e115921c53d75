"""Rules of swap slots: references against their users, and what devices count."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, AnyArray, Mask, take_or
from inspector.rules.diagnosis import cow_break
from inspector.rules.needs import SLOTS, SWAP, TABLES, VMAS
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import NONPRESENT, SWAP_DEVICE, SWAP_SLOT
from inspector.tables.swap_devices import SWP_HIBERNATION, SWP_WRITEOK
from inspector.violations import Unread, Violations, cannot_check, connected, holds, one, violations
from inspector.windows.locks import entries_in_flight
from inspector.windows.swap import reclaim_in_flight, slot_tables_locked, user_gone
from inspector.windows.window import Effect


def unread_slots(s: Snapshot) -> Unread:
    """Devices with slots that are not in the dump."""
    return cannot_check(s.swap.unreadable, "slots of some swap devices are not in the dump")


def _whole(s: Snapshot, device_idx: I64) -> Mask:
    """Slots of devices that were read whole; where that is not so, a slot may only seem free."""
    return s.swap.whole[device_idx] if len(s.swap.whole) else np.zeros(len(device_idx), np.bool_)


def expected_counts(s: Snapshot) -> I64:
    """References that each slot must have: page-table entries, with swap tables also shmem's."""
    refs = s.swap_refs
    return refs.pte_refs + refs.shmem_refs if s.swap.counts_shmem else refs.pte_refs


def counted_slots(s: Snapshot) -> Mask:
    """Slots whose count can be compared: read whole, sound, and not shmem's own, which have none before 6.18."""
    slots = s.swap.slots
    hibernating = s.swap.devices.flags[slots.device_idx] & np.uint64(SWP_HIBERNATION) if len(s.swap.devices) else 0
    return _whole(s, slots.device_idx) & ~slots.is_bad & ~slots.is_shmem & (slots.count >= 0) & (hibernating == 0)


@rule(
    "swap-entry-slot-invalid",
    NONPRESENT,
    "swap",
    Phase.FOLIO_COUNTS,
    effect=Effect.SWAP,
    needs=SWAP,
    decides="120",
    was="swap-entry-without-slot",
)
def swap_entry_slot_invalid(s: Snapshot) -> Violations:
    """A swap entry names no slot: no such device, an offset beyond its end, or a bad slot.

    Invariant: every swap entry names a device in use and one of its slots, not the header or a bad one.
    Why: mm/swapfile.c, _swap_info_get() prints "Bad swap file entry" and "Bad swap offset entry".
    Consequence: the page is lost: the process gets SIGBUS where it reads it; the entry's bits were overwritten.
    Exceptions: never; a device leaves only after every entry to it was read back.
    See also: folioscope va PID ADDRESS; folioscope swap
    """
    users, slots, n = s.swap_refs.users, s.swap.slots, s.nonpresent
    mine = np.flatnonzero(users.nonpresent_row >= 0)
    slot = users.slot_idx[mine]
    bad = take_or(slots.is_bad, slot, False)
    rows = users.nonpresent_row[mine[(slot < 0) | bad]]
    names = np.where(bad[(slot < 0) | bad], "a bad slot", "no slot of a device in use")
    return violations(
        rows,
        observed={"slot": names, "swap_type": n.swap_type[rows], "swap_offset": n.swap_offset[rows]},
        expected={"slot": np.full(len(rows), "a slot of a swap device")},
        checked=len(mine),
        unread=unread_slots(s),
        facts={"entry": n.entry[rows]},
        claims=one(_STRAY, np.arange(len(rows))),
        transient=entries_in_flight(s, rows) & ~bad[(slot < 0) | bad],
    )


@rule(
    "exclusive-swap-entry-sharing-unexpected",
    NONPRESENT,
    "swap",
    Phase.FOLIO_COUNTS,
    after=("swap-count-high",),
    effect=Effect.SWAP,
    needs=SWAP,
    decides="124",
    was="exclusive-swap-entry-shared",
    diagnose=cow_break(
        "the slot is marked as one process's own, but others refer to it: each would get the page back as its own"
    ),
)
def exclusive_swap_entry_sharing_unexpected(s: Snapshot) -> Violations:
    """A swap entry is marked exclusive although others refer to its slot too.

    Invariant: the exclusive bit of a swap entry says that the page belonged to one process alone: nothing else refers
        to the slot.
    Why: mm/rmap.c, try_to_unmap_one() sets it from PG_anon_exclusive; mm/memory.c, copy_nonpresent_pte() clears it at
        fork before the slot gets its second user.
    Consequence: the page is mapped writable when it is read back, although another process reads the same slot.
    Exceptions: never.
    See also: folioscope va PID ADDRESS; folioscope swap ENTRY
    """
    users, refs, n = s.swap_refs.users, s.swap_refs, s.nonpresent
    total = refs.pte_refs + refs.shmem_refs
    marked = np.flatnonzero(users.exclusive & (users.slot_idx >= 0))
    shared = marked[total[users.slot_idx[marked]] > 1]
    rows, slot = users.nonpresent_row[shared], users.slot_idx[shared]
    return violations(
        rows,
        observed={"exclusive": np.ones(len(rows), np.bool_), "users_of_slot": total[slot]},
        expected={"exclusive": np.zeros(len(rows), np.bool_)},
        checked=len(marked),
        facts={"entry": n.entry[rows], "slot": s.swap.slots.entry[slot]},
        claims=one("exclusive_slot", slot),
        depends=one("swap_slot", slot),
        transient=entries_in_flight(s, rows),
    )


_STRAY = "stray_swap_entry"
"""What entries that name no slot, and slots with too few references, have in common: some entry was overwritten."""


def _strays(s: Snapshot) -> tuple[int, I64]:
    """How many entries name no slot, and rows of the slots with too few references."""
    users, slots = s.swap_refs.users, s.swap.slots
    lost = users.slot_idx < 0
    if len(slots):
        lost |= slots.is_bad[np.maximum(users.slot_idx, 0)]
    low = np.flatnonzero(counted_slots(s) & (slots.count < expected_counts(s)))
    return int((lost & (users.nonpresent_row >= 0)).sum()), low


def _overwritten(s: Snapshot, rows: I64) -> I64:
    """For slots with too many references the stray that explains each (as many were lost as are astray), else -1."""
    lost, low = _strays(s)
    lacking = (expected_counts(s) - s.swap.slots.count)[low]
    surplus = (s.swap.slots.count - expected_counts(s))[rows]
    if not len(rows) or int(surplus.sum()) != lost + int(lacking.sum()):
        return np.full(len(rows), -1, np.int64)
    return np.minimum(np.arange(len(rows)), lost + len(low) - 1)


def _counts(s: Snapshot, rows: I64, transient: Mask) -> Violations:
    slots, refs = s.swap.slots, s.swap_refs
    return violations(
        rows,
        observed={"count": slots.count[rows]},
        expected={"count": expected_counts(s)[rows]},
        checked=int(counted_slots(s).sum()),
        unread=unread_slots(s),
        facts={
            "page_table_entries": refs.pte_refs[rows],
            "shmem_pages": refs.shmem_refs[rows],
            "stored": slots.raw[rows],
        },
        claims=one("swap_slot", rows),
        transient=transient,
    )


@rule(
    "swap-count-low",
    SWAP_SLOT,
    "swap",
    Phase.FOLIO_COUNTS,
    after=(
        "swap-entry-slot-invalid",
        "swap-extended-count-mismatch",
    ),
    effect=Effect.SWAP,
    needs=SWAP,
    decides="119 126",
)
def swap_count_low(s: Snapshot) -> Violations:
    """A swap slot's count is lower than the number of entries that refer to it.

    Invariant: a slot's count is the number of swap entries in page tables, with swap tables (6.18 and later) also of
        pages of shmem files.
    Why: mm/swapfile.c, swap_duplicate() or folio_dup_swap() for each entry before it is written.
    Consequence: the slot is freed and used again while entries still point to it: a process reads another's memory.
    Exceptions: the page table of one of the entries is locked: reading back and unmapping lower the count first.
    See also: folioscope swap ENTRY
    """
    slots = s.swap.slots
    rows = np.flatnonzero(counted_slots(s) & (slots.count < expected_counts(s)))
    found = _counts(s, rows, slot_tables_locked(s, rows))
    return connected(found, claims=one(_STRAY, _strays(s)[0] + np.arange(len(rows))))


@rule(
    "swap-count-high",
    SWAP_SLOT,
    "swap",
    Phase.FOLIO_COUNTS,
    after=("swap-count-low",),
    effect=Effect.SWAP,
    needs=SLOTS | TABLES | VMAS,
    decides="119 126",
)
def swap_count_high(s: Snapshot) -> Violations:
    """A swap slot's count is higher than the number of entries that refer to it.

    Invariant: a slot's count is the number of swap entries in page tables, with swap tables (6.18 and later) also of
        pages of shmem files.
    Why: mm/memory.c, zap_pte_range() and do_swap_page() give each reference back; mm/shmem.c, shmem_free_swap().
    Consequence: the slot is never freed: swap space leaks.
    Exceptions: a reference may be on its way: the slot's folio is locked, a process that uses the slot, or, for a slot
        without users, any process, is being forked, moved or unmapped, or shmem is being truncated. Slots that
        hibernation took have no users. As many references too many as entries name no slot are the same cause.
    See also: folioscope swap ENTRY
    """
    slots = s.swap.slots
    rows = np.flatnonzero(counted_slots(s) & (slots.count > expected_counts(s)))
    return connected(_counts(s, rows, user_gone(s, rows)), depends=one(_STRAY, _overwritten(s, rows)))


@rule(
    "shmem-swap-slot-mismatch",
    SWAP_SLOT,
    "swap",
    Phase.FOLIO_COUNTS,
    after=("swap-count-high",),
    effect=Effect.SWAP,
    needs=SLOTS,
    decides="122",
)
def shmem_swap_slot_mismatch(s: Snapshot) -> Violations:
    """A swap slot is marked as shmem's without a page of a shmem file in it, or the other way round.

    Invariant: SWAP_MAP_SHMEM counts exactly one page of a shmem file and no page-table entry.
    Why: mm/shmem.c, shmem_writepage() marks the slot before it puts the entry into the file's page cache.
    Consequence: the slot leaks, or the slot of the file's page is used for other data.
    Exceptions: the slot's folio is locked, or a shmem file is locked or being freed. Kernels with swap tables count
        shmem's references like all others (swap-count-low, swap-count-high).
    See also: folioscope swap ENTRY; folioscope file ADDRESS
    """
    slots, refs = s.swap.slots, s.swap_refs
    if s.swap.counts_shmem:
        return holds(0)
    known = _whole(s, slots.device_idx) & ~slots.is_bad
    wrong = (slots.is_shmem != (refs.shmem_refs > 0)) | (refs.shmem_refs > 1)
    wrong |= slots.is_shmem & (refs.pte_refs > 0)
    rows = np.flatnonzero(known & wrong)
    return violations(
        rows,
        observed={"marked": slots.is_shmem[rows], "shmem_pages": refs.shmem_refs[rows], "entries": refs.pte_refs[rows]},
        expected={
            "marked": refs.shmem_refs[rows] > 0,
            "entries": np.where(refs.shmem_refs[rows] > 0, 0, refs.pte_refs[rows]),
        },
        checked=int((known & (slots.is_shmem | (refs.shmem_refs > 0))).sum()),
        unread=unread_slots(s),
        claims=one("swap_slot", rows),
        depends=one("swap_slot", rows),
        transient=user_gone(s, rows),
    )


def _devices(s: Snapshot) -> I64:
    """Rows of devices that can be added up."""
    return np.flatnonzero(s.swap.devices.in_use & s.swap.whole)


def _used(s: Snapshot) -> I64:
    slots = s.swap.slots
    return np.bincount(slots.device_idx[slots.in_use], minlength=len(s.swap.devices)).astype(np.int64)


def odd_slots(s: Snapshot) -> I64:
    """Rows of the slots whose use is in doubt: free but referred to, or in use without a user."""
    slots, refs = s.swap.slots, expected_counts(s) + s.swap_refs.shmem_refs
    unused = slots.in_use & (refs == 0) & (slots.cache_pfn < 0) & ~slots.set_aside
    return np.flatnonzero((~slots.in_use & (refs > 0)) | unused)


def _odd_slot(s: Snapshot) -> I64:
    """By device a slot whose use is in doubt; -1 for none."""
    slots, rows = s.swap.slots, odd_slots(s)[::-1]
    out = np.full(len(s.swap.devices), -1, np.int64)
    out[slots.device_idx[rows]] = rows
    return out


def _miscounted_cluster(s: Snapshot, used: I64, usable: I64) -> I64:
    """By device the first cluster that counts other slots than it has, if the device counts as many too many; or -1.

    Then slots were overwritten behind the back of both counts.
    """
    clusters, devices = s.swap_clusters.clusters, s.swap.devices
    off = clusters.count - clusters.used - clusters.beyond
    rows = np.flatnonzero(off)[::-1]
    total = np.bincount(clusters.device_idx, weights=off, minlength=len(devices)).astype(np.int64)
    out = np.full(len(devices), -1, np.int64)
    out[clusters.device_idx[rows]] = rows
    return np.where((devices.inuse - used) - (devices.pages - usable) == total, out, -1)


@rule(
    "swap-inuse-mismatch",
    SWAP_DEVICE,
    "swap",
    Phase.TOTALS,
    after=("swap-cluster-count-mismatch",),
    effect=Effect.SWAP,
    needs=SWAP,
    decides="123",
)
def swap_inuse_mismatch(s: Snapshot) -> Violations:
    """inuse_pages or pages of a swap device is not the number of its slots in use or usable.

    Invariant: inuse_pages is the number of slots that are neither free nor bad, those in per-CPU caches included; pages
        is all slots without the header and the bad ones.
    Why: mm/swapfile.c, swap_range_alloc() and swap_range_free(); inc_cluster_info_page() and setup at swapon().
    Consequence: swapoff() never ends or ends too early; free swap is misreported.
    Exceptions: the device or one of its clusters is locked.
    See also: folioscope swap
    """
    devices, slots = s.swap.devices, s.swap.slots
    used = _used(s)
    bad = np.bincount(slots.device_idx[slots.is_bad], minlength=len(devices)).astype(np.int64)
    able, usable = _devices(s), devices.max - bad
    rows = able[(devices.inuse[able] != used[able]) | (devices.pages[able] != usable[able])]
    return violations(
        rows,
        observed={"inuse_pages": devices.inuse[rows], "pages": devices.pages[rows]},
        expected={"inuse_pages": used[rows], "pages": usable[rows]},
        checked=len(able),
        unread=unread_slots(s),
        claims=one("swap_device", rows),
        depends=one("swap_slot", _odd_slot(s)[rows]) + one("swap_cluster", _miscounted_cluster(s, used, usable)[rows]),
        transient=devices.locked[rows],
    )


@rule(
    "swap-free-mismatch",
    SWAP_DEVICE,
    "swap",
    Phase.TOTALS,
    after=("swap-inuse-mismatch",),
    effect=Effect.SWAP,
    needs=SWAP,
    decides="123",
    severity="warn",
)
def swap_free_mismatch(s: Snapshot) -> Violations:
    """total_swap_pages or nr_swap_pages is not what the swap devices add up to.

    Invariant: total_swap_pages is the sum of pages, nr_swap_pages of those not in use, over all devices that are
        written.
    Why: mm/swapfile.c, enable_swap_info(), get_swap_pages() and swap_range_free().
    Consequence: swapping stops too early, or is tried in vain; free and meminfo report nonsense.
    Exceptions: a device or cluster is locked, or a swap-backed folio is (slots are taken off the sum before they are
        looked for).
    See also: folioscope swap
    """
    devices = s.swap.devices
    written = np.flatnonzero(devices.flags & np.uint64(SWP_WRITEOK))
    total, free = s.swap_totals
    if total is None or free is None or not len(written) or not s.swap.whole[devices.in_use].all():
        return holds(0, unread_slots(s))
    pages, left = int(devices.pages[written].sum()), int((devices.pages - _used(s))[written].sum())
    rows: I64 = written[:1] if (total, free) != (pages, left) else written[:0]
    busy = bool(devices.locked.any()) or reclaim_in_flight(s)
    columns: dict[str, AnyArray] = {"total_swap_pages": np.array([total]), "nr_swap_pages": np.array([free])}
    expected: dict[str, AnyArray] = {"total_swap_pages": np.array([pages]), "nr_swap_pages": np.array([left])}
    odd = _odd_slot(s)
    odd = odd[odd >= 0][:1] if (odd >= 0).any() else np.full(1, -1, np.int64)
    return violations(
        rows,
        observed={name: column[: len(rows)] for name, column in columns.items()},
        expected={name: column[: len(rows)] for name, column in expected.items()},
        checked=len(written),
        depends=one("swap_slot", odd[: len(rows)]) + one("swap_device", rows),
        transient=np.full(len(rows), busy),
    )
