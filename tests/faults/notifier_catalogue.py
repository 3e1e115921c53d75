"""Faults of MMU notifiers. None of the captured processes is watched: a sound notifier is put in their memory first."""

from __future__ import annotations

import numpy as np

from inspector.snapshot import Snapshot
from tests.faults.catalogue import fault
from tests.faults.overlay import Patch, pfn_of, put
from tests.faults.plants import MissingError, Planted, pick
from tests.faults.state_catalogue import quiet_mms

_SUBSCRIPTIONS, _NOTIFIER, _CALLBACKS = "mmu_notifier_subscriptions", "mmu_notifier", "mmu_notifier_ops"
_EVEN = 2
"""invalidate_seq begins with it (mm/mmu_notifier.c, __mmu_notifier_register())."""


def _watched(s: Snapshot, **changed: int) -> tuple[Patch, ...]:
    """A process that a driver watches, with some words of its notifier changed: by the names of members."""
    mm = pick(np.flatnonzero(quiet_mms(s)), "a quiet process", 5)
    if s.layout.struct("struct mm_struct").find("notifier_subscriptions") is None:
        raise MissingError("MMU notifiers")
    free = s.buddy_pages[s.pages.type_[s.buddy_pages] == 0]
    base = s.layout.memory.direct_map_base
    # Pages that are free, and none of them beside another.
    place = {
        name: base + (pfn_of(s, pick(free, "a free page", 100 * i)) << 12)
        for i, name in enumerate((_SUBSCRIPTIONS, _NOTIFIER, _CALLBACKS), 1)
    }
    own = int(s.mms.addr[mm])
    mm_field = s.layout.struct("struct mm_struct").field("notifier_subscriptions")
    code = s.target.symbol("schedule") or 0
    link = s.layout.struct("struct mmu_notifier").field("hlist").offset
    words: dict[tuple[str, str], int] = {
        (_SUBSCRIPTIONS, "list"): place[_NOTIFIER] + link,
        (_SUBSCRIPTIONS, "invalidate_seq"): _EVEN,
        (_NOTIFIER, "hlist.pprev"): place[_SUBSCRIPTIONS]
        + s.layout.struct(f"struct {_SUBSCRIPTIONS}").field("list").offset,
        (_NOTIFIER, "ops"): place[_CALLBACKS],
        (_NOTIFIER, "mm"): own,
        (_NOTIFIER, "users"): 1,
        (_CALLBACKS, "release"): code,
    }
    known = {key[1].rpartition(".")[2]: key for key in words}
    for name, value in changed.items():
        words[known.get(name, (_SUBSCRIPTIONS, name))] = value
    patches = [put(s, own + mm_field.offset, place[_SUBSCRIPTIONS])]
    for name, address in place.items():
        struct = s.layout.struct(f"struct {name}")
        data = bytearray(struct.size)
        for (of, member), value in words.items():
            if of == name:
                field = struct.field(member)
                data[field.offset : field.offset + field.size] = (value % (1 << 8 * field.size)).to_bytes(
                    field.size, "little"
                )
        patches.append(Patch(address - base, bytes(data), True))
    return tuple(patches)


@fault
def notifier_linked_back_to_nothing(s: Snapshot) -> Planted:
    return Planted(_watched(s, pprev=0), ("notifier-list-damaged",), None)


@fault
def notifier_of_another_mm_on_the_list(s: Snapshot) -> Planted:
    """Its driver freed it, and the memory became the notifier of another process."""
    other = int(s.mms.addr[pick(np.flatnonzero(quiet_mms(s)), "another process", 9)])
    return Planted(_watched(s, mm=other), ("notifier-mm-mismatch",), None)


@fault
def notifier_freed_and_left_on_the_list(s: Snapshot) -> Planted:
    return Planted(_watched(s, users=0), ("notifier-users-low",), None)


@fault
def notifier_dropped_once_too_often(s: Snapshot) -> Planted:
    return Planted(_watched(s, users=-1), ("notifier-users-low",), None)


@fault
def notifier_without_callbacks(s: Snapshot) -> Planted:
    return Planted(_watched(s, ops=0), ("notifier-callbacks-invalid",), None)


@fault
def notifier_of_a_module_that_is_gone(s: Snapshot) -> Planted:
    """The module was unloaded without mmu_notifier_synchronize(): its callback is no code any more."""
    return Planted(_watched(s, release=int(s.mms.addr[0])), ("notifier-callbacks-invalid",), None)


@fault
def invalidation_that_never_ended(s: Snapshot) -> Planted:
    """An error path went without mmu_notifier_invalidate_range_end()."""
    return Planted(_watched(s, active_invalidate_ranges=1, invalidate_seq=3), ("notifier-ranges-unexpected",), None)


@fault
def invalidation_ended_twice(s: Snapshot) -> Planted:
    return Planted(_watched(s, active_invalidate_ranges=-1), ("notifier-ranges-unexpected",), None)


@fault
def sequence_left_odd(s: Snapshot) -> Planted:
    return Planted(_watched(s, invalidate_seq=5), ("notifier-sequence-mismatch",), None)
