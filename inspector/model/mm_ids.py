"""What the two mm-id slots of a large folio may hold (6.15 and later, CONFIG_MM_ID).

A slot holds at most as many mappings as its mm has of the folio. It may hold fewer, and a folio may have no slot for an
mm that maps it, because mappings made while both slots are taken are never credited. So no rule demands
equality. include/linux/rmap.h, folio_add_return_large_mapcount() and folio_sub_return_large_mapcount().

Three mms map pages of an mTHP by PTEs; counts are stored less one, -1 in a free slot::

    mm 1 maps 4 pages     slots (1, 3) (0, -1)     shared clear    mm 1 alone
    mm 2 maps 2 pages     slots (1, 3) (2, 1)      shared set      two mms
    mm 3 maps 4 pages     slots (1, 3) (2, 1)      shared set      both slots taken: mm 3 is not credited
    mm 2 unmaps both      slots (1, 3) (0, -1)     shared set      mm 1 has 4 of 8 mappings, so the flag stays
    mm 3 maps 1 page      slots (1, 3) (3, 0)      shared set      one credited of its 5
"""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, AnyArray, Mask
from inspector.records import dataclass

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

    def one(self, row: int) -> Slots:
        """Those of one folio."""
        return Slots(*(column[row : row + 1] for column in (self.ids, self.count0, self.count1)))

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

    @property
    def _each(self) -> tuple[tuple[U64, AnyArray], tuple[U64, AnyArray]]:
        return (self.id0, self.count0), (self.id1, self.count1)


def malformed(slots: Slots) -> Mask:
    """Slots that contradict themselves: free with a count, used without one, the same id twice, or locked.

    include/linux/rmap.h, __folio_large_mapcount_sanity_checks().
    """
    return free_slot_with_count(slots) | used_slot_without_count(slots) | duplicate_id(slots) | slots.locked


def free_slot_with_count(slots: Slots) -> Mask:
    """A slot without id whose count is not -1."""
    (id0, count0), (id1, count1) = slots._each
    return ((id0 == 0) & (count0 != -1)) | ((id1 == 0) & (count1 != -1))


def used_slot_without_count(slots: Slots) -> Mask:
    """A slot with an id whose count is negative: it should have been freed."""
    (id0, count0), (id1, count1) = slots._each
    return ((id0 != 0) & (count0 < 0)) | ((id1 != 0) & (count1 < 0))


def duplicate_id(slots: Slots) -> Mask:
    """Both slots belong to the same mm."""
    return (slots.id0 != 0) & (slots.id0 == slots.id1)


def mapped_by(ids: U64, pair_folio: I64, pair_id: AnyArray, pair_count: AnyArray) -> I64:
    """int64[folios]; mappings of each folio by the mm of the given id, 0 where no mm has it.

    Args:
        ids: uint64[folios].
        pair_folio: int64; one row each (folio, mm) with mappings: row of the folio.
        pair_id: id of the mm (``mm->mm_id``).
        pair_count: mappings of the folio by that mm.
    """
    out = np.zeros(len(ids), np.int64)
    same = pair_id.astype(np.uint64) == ids[pair_folio]
    np.add.at(out, pair_folio[same], pair_count[same])
    return out


def excess(slots: Slots, mapped0: I64, mapped1: I64) -> tuple[I64, I64]:
    """int64[folios] for each slot; mappings that it counts beyond those of its mm, 0 for a free one.

    Negative is legal: the slot was taken late.

    Args:
        slots: As stored.
        mapped0: int64; mappings of the folio by the mm of the id in the first slot.
        mapped1: int64; the same for the second.
    """
    (id0, count0), (id1, count1) = slots._each
    over0 = np.where((id0 != 0) & (count0 >= 0), count0.astype(np.int64) + 1 - mapped0, 0)
    return over0, np.where((id1 != 0) & (count1 >= 0), count1.astype(np.int64) + 1 - mapped1, 0)


def above_mappings(slots: Slots, mapped0: I64, mapped1: I64) -> Mask:
    """Folios of which a slot counts more mappings than its mm has; arguments as of `excess`."""
    over0, over1 = excess(slots, mapped0, mapped1)
    return (over0 > 0) | (over1 > 0)


def unshared_but_shared(slots: Slots, nr_mms: AnyArray) -> Mask:
    """Folios whose flag is clear although several mms map them; it may stay set when one is left."""
    return ~slots.shared & (nr_mms > 1)


def not_empty(slots: Slots, total: I64) -> Mask:
    """Folios that nothing maps but whose slots or flag are still set."""
    return (total == 0) & ((slots.id0 != 0) | (slots.id1 != 0) | slots.shared)


def in_use(slots: Slots) -> Mask:
    """Folios of which a slot or a flag is not as prep_compound_head() in mm/internal.h left it."""
    return (slots.ids != 0) | (slots.count0 != -1) | (slots.count1 != -1)
