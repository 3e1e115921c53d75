"""What the two mm-id slots of a large folio may hold (6.15 and later, CONFIG_MM_ID)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.columns import I64, U64, AnyArray, Mask

ID_MASK = np.uint64(0x7FFFFFFF)
LOCK_BIT = np.uint64(1 << 31)
SHARED_BIT = np.uint64(1 << 63)


@dataclass(frozen=True)
class Slots:
    """The slots as stored, one row a folio.

    Attributes:
        ids: uint64; both words as one (``_mm_ids``).
        count0, count1: stored counts, -1 for a free slot.
    """

    ids: U64
    count0: AnyArray
    count1: AnyArray

    @property
    def id0(self) -> U64:
        """Id in the first slot, 0 when it is free."""
        return self.ids & ID_MASK

    @property
    def id1(self) -> U64:
        """Id in the second slot, 0 when it is free."""
        return (self.ids >> np.uint64(32)) & ID_MASK

    @property
    def shared(self) -> Mask:
        """The "maybe mapped shared" flag."""
        return (self.ids & SHARED_BIT) != 0

    @property
    def locked(self) -> Mask:
        """The bit lock of the ids."""
        return (self.ids & LOCK_BIT) != 0


def malformed(slots: Slots) -> Mask:
    """Slots that contradict themselves: free with a count, used without one, the same id twice, or locked.

    mm/rmap.c and include/linux/rmap.h, __folio_large_mapcount_sanity_checks().
    """
    bad = slots.locked | ((slots.id0 != 0) & (slots.id0 == slots.id1))
    for ident, count in ((slots.id0, slots.count0), (slots.id1, slots.count1)):
        bad = bad | ((ident == 0) != (count < 0)) | (count < -1)
    return bad


def above_mappings(slots: Slots, mapped0: I64, mapped1: I64) -> Mask:
    """Slots that claim more mappings for their mm than it has; fewer is legal (taken late).

    Args:
        slots: As stored.
        mapped0: int64; mappings of the folio by the mm named in the first slot.
        mapped1: int64; the same for the second.
    """
    return ((slots.id0 != 0) & (slots.count0 + 1 > mapped0)) | ((slots.id1 != 0) & (slots.count1 + 1 > mapped1))


def unshared_but_shared(slots: Slots, nr_mms: AnyArray) -> Mask:
    """Folios whose flag says one mm only although several map them; the flag may stay set for nothing."""
    return ~slots.shared & (nr_mms > 1)


def not_empty(slots: Slots, total: I64) -> Mask:
    """Folios that nothing maps but whose slots or flag are still set."""
    return (total == 0) & ((slots.id0 != 0) | (slots.id1 != 0) | slots.shared)
