"""MMU notifiers: who is called back when the page tables of an mm change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, Mask
from inspector.rules.needs import VMAS
from inspector.rules.registry import Phase, rule
from inspector.subjects import MM
from inspector.violations import Unread, Violations, cannot_check, holds, one, violations
from inspector.windows.window import Effect

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_GROUP = "mm-notifiers"


def _own(s: Snapshot, at: I32 | I64) -> I64:
    """Rows in the mms of rows of `NotifiedMms`."""
    return s.notifiers.mms.mm_idx[at].astype(np.int64)


def _first_of_each(s: Snapshot, wrong: Mask) -> I64:
    """The first wrong subscription of each mm: a broken list or one driver has many."""
    at = np.flatnonzero(wrong)
    return at[np.unique(s.notifiers.subscriptions.of[at], return_index=True)[1]]


def _unread(s: Snapshot) -> Unread:
    """What could not be read says nothing of what could: each list and tree is one mm's."""
    return cannot_check(s.notifiers.unreadable, "subscriptions, lists or callbacks cannot be read")


@rule("notifier-list-damaged", MM, _GROUP, Phase.STRUCTURES, needs=VMAS)
def notifier_list_damaged(s: Snapshot) -> Violations:
    """The list of an mm's MMU notifiers is broken.

    Invariant: each struct mmu_notifier on the list of its mm is linked both ways, and the list ends.
    Why: mm/mmu_notifier.c, __mmu_notifier_register() adds to it and mmu_notifier_unregister(), mmu_notifier_put() take
        off it, with mmu_notifier_subscriptions.lock held; readers follow next alone, under SRCU.
    Consequence: a driver does not learn that pages are gone, and its device or guest goes on writing to them.
    Exceptions: the lock is held: the list is being changed.
    See also: folioscope notifiers
    """
    mms = s.notifiers.mms
    at = np.flatnonzero(mms.is_broken)
    return violations(
        _own(s, at),
        observed={"linked_both_ways": False},
        expected={"linked_both_ways": True},
        checked=mms.readable,
        unread=_unread(s),
        facts={"mmu_notifier_subscriptions": mms.addr[at]},
        claims=one("mm", mms.mm_idx[at]),
        transient=mms.locked[at],
    )


@rule("notifier-mm-mismatch", MM, _GROUP, Phase.LINKS, after=("notifier-list-damaged",), needs=VMAS)
def notifier_mm_mismatch(s: Snapshot) -> Violations:
    """An MMU notifier is on the list of one mm and names another.

    Invariant: mm of each struct mmu_notifier and struct mmu_interval_notifier is the mm whose list or tree it is in.
    Why: mm/mmu_notifier.c, __mmu_notifier_register() and __mmu_interval_notifier_insert() set it before they put it
        there; nothing changes it afterwards.
    Consequence: the notifier was freed and its memory reused, or two lists have grown into each other; its driver looks
        for pages in the wrong process, and drops a reference of an mm that it does not hold.
    Exceptions: never.
    See also: folioscope notifiers
    """
    subs = s.notifiers.subscriptions
    wanted = s.mms.addr[s.notifiers.mms.mm_idx[subs.of]]
    at = _first_of_each(s, subs.mm != wanted)
    return violations(
        _own(s, subs.of[at]),
        observed={"mm": subs.mm[at]},
        expected={"mm": wanted[at]},
        checked=len(subs),
        unread=_unread(s),
        facts={"mmu_notifier": subs.addr[at]},
        claims=one("mm", _own(s, subs.of[at])),
    )


@rule("notifier-users-low", MM, _GROUP, Phase.STRUCTURES, after=("notifier-list-damaged",), needs=VMAS)
def notifier_users_low(s: Snapshot) -> Violations:
    """An MMU notifier without users is still on the list of its mm.

    Invariant: users of each struct mmu_notifier on a list is at least 1.
    Why: mm/mmu_notifier.c, __mmu_notifier_register() begins with 1, mmu_notifier_get() adds to it; mmu_notifier_put()
        takes it off the list in the same section of mmu_notifier_subscriptions.lock in which it drops the last one.
    Consequence: the driver has freed it, or is about to: the next change of the page tables calls into freed memory.
    Exceptions: the lock is held.
    See also: folioscope notifiers
    """
    subs = s.notifiers.subscriptions
    signed = subs.users.astype(np.uint32).view(np.int32)
    at = _first_of_each(s, signed < 1)
    return violations(
        _own(s, subs.of[at]),
        observed={"users": signed[at].astype(np.int64)},
        expected={"at_least": 1},
        checked=len(subs),
        unread=_unread(s),
        facts={"mmu_notifier": subs.addr[at]},
        claims=one("mm", _own(s, subs.of[at])),
        transient=s.notifiers.mms.locked[subs.of[at]],
    )


@rule("notifier-callbacks-invalid", MM, _GROUP, Phase.WORDS, needs=VMAS)
def notifier_callbacks_invalid(s: Snapshot) -> Violations:
    """The callbacks of an MMU notifier are not code of the kernel or of a module that is there.

    Invariant: ops of each notifier is a table of functions, each of them 0 or in the text of the kernel or of a loaded
        module, and at least one is there.
    Why: mm/mmu_notifier.c calls them whenever page tables change; a module that subscribes must not be unloaded before
        mmu_notifier_synchronize().
    Consequence: the kernel jumps into freed memory as soon as the process unmaps, forks or exits.
    Exceptions: the code of modules cannot be found (the list of modules is not in the dump).
    See also: folioscope notifiers
    """
    subs = s.notifiers.subscriptions
    at = _first_of_each(s, subs.callbacks == 0)
    return violations(
        _own(s, subs.of[at]),
        observed={"ops": subs.ops[at]},
        expected={"ops": "a table of functions"},
        checked=subs.callbacks >= 0,
        unread=_unread(s),
        facts={"mmu_notifier": subs.addr[at]},
        claims=one("mm", _own(s, subs.of[at])),
    )


@rule("notifier-sequence-mismatch", MM, _GROUP, Phase.STRUCTURES, needs=VMAS)
def notifier_sequence_mismatch(s: Snapshot) -> Violations:
    """invalidate_seq of an mm is odd though no change of its page tables has begun.

    Invariant: invalidate_seq is odd only while active_invalidate_ranges is above 0.
    Why: mm/mmu_notifier.c, mn_itree_inv_start_range() counts the range and makes the sequence odd; mn_itree_inv_end()
        makes it even again when it drops the last range; both in one section of mmu_notifier_subscriptions.lock.
    Consequence: drivers that wait in mmu_interval_read_begin() wait for ever; nothing is added to the tree any more.
    Exceptions: the lock is held: both words are being changed.
    See also: folioscope notifiers
    """
    mms = s.notifiers.mms
    at = np.flatnonzero(mms.readable & ((mms.sequence & np.uint64(1)) != 0) & (mms.active == 0))
    return violations(
        _own(s, at),
        observed={"invalidate_seq": mms.sequence[at]},
        expected={"invalidate_seq": "even"},
        checked=mms.readable,
        unread=_unread(s),
        facts={"mmu_notifier_subscriptions": mms.addr[at]},
        claims=one("mm", mms.mm_idx[at]),
        transient=mms.locked[at],
    )


@rule(
    "notifier-ranges-unexpected",
    MM,
    _GROUP,
    Phase.STRUCTURES,
    after=("notifier-sequence-mismatch",),
    effect=Effect.NOTIFIERS,
    needs=VMAS,
)
def notifier_ranges_unexpected(s: Snapshot) -> Violations:
    """An mm counts changes for its MMU notifiers that no task is making.

    Invariant: active_invalidate_ranges is the number of tasks between mmu_notifier_invalidate_range_start() and _end()
        for the mm; it is 0 when nothing changes its page tables.
    Why: mm/mmu_notifier.c, mn_itree_inv_start_range() and mn_itree_inv_end(); each caller in mm/ does both in one
        function.
    Consequence: intervals are neither added nor removed, and drivers that map the memory for a device try again for
        ever.
    Exceptions: a task is in one of those functions. Below 0 no task explains it.
    See also: folioscope notifiers; folioscope windows
    """
    mms = s.notifiers.mms
    if not len(mms):
        return holds(0)
    at = np.flatnonzero(mms.readable & (mms.active != 0))
    return violations(
        _own(s, at),
        observed={"active_invalidate_ranges": mms.active[at]},
        expected={"active_invalidate_ranges": np.zeros(len(at), np.int64)},
        checked=mms.readable,
        unread=_unread(s),
        facts={"mmu_notifier_subscriptions": mms.addr[at]},
        claims=one("mm", mms.mm_idx[at]),
        beyond=mms.active[at] < 0,
    )
