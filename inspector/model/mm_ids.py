"""What the two mm-id slots of a large folio may hold (6.15 and later, CONFIG_MM_ID).

A slot says at least how many of the folio's mappings one mm has. It may say fewer, and a folio may have no slot for an
mm that maps it, because mappings made while both slots were taken are never credited. So nothing here demands equality.
include/linux/rmap.h, folio_add_return_large_mapcount() and folio_sub_return_large_mapcount().
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from inspector.columns import I64, U64, AnyArray, Mask

ID_MASK = np.uint64(0x7FFFFFFF)
LOCK_BIT = np.uint64(1 << 31)
SHARED_BIT = np.uint64(1 << 63)


class Reason(StrEnum):
    """The ways in which a folio's slots can be wrong."""

    FREE_SLOT_WITH_COUNT = "free-slot-with-count"
    USED_SLOT_WITHOUT_COUNT = "used-slot-without-count"
    DUPLICATE_ID = "duplicate-id"
    LOCK_HELD = "lock-held"
    SLOT_ABOVE_TRUE_COUNT = "slot-above-true-count"
    ID_OF_NO_MM = "id-of-no-mm"
    UNSHARED_BUT_SEVERAL_MMS = "unshared-but-several-mms"
    NOT_EMPTY_WHEN_UNMAPPED = "not-empty-when-unmapped"
    HUGETLB_USES_SLOTS = "hugetlb-uses-slots"


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

    @property
    def _each(self) -> tuple[tuple[U64, AnyArray], tuple[U64, AnyArray]]:
        return (self.id0, self.count0), (self.id1, self.count1)


@dataclass(frozen=True)
class Credits:
    """Who really maps the folios.

    Attributes:
        is_hugetlb: bool[folios].
        folio_row: int64; one row each (folio, mm) with mappings: row of the folio.
        mm_id: id of the mm (``mm->mm_id``).
        count: mappings of the folio by that mm, at least 1.
        known_ids: ids of all mms there are, in any order; those that map no large folio too.
    """

    is_hugetlb: Mask
    folio_row: I64
    mm_id: AnyArray
    count: AnyArray
    known_ids: AnyArray

    @property
    def nr_mms(self) -> I64:
        """int64[folios]; mms that map each folio."""
        return np.bincount(self.folio_row, minlength=len(self.is_hugetlb)).astype(np.int64)

    @property
    def total(self) -> I64:
        """int64[folios]; all mappings of each folio (M)."""
        return self._sum(np.ones(len(self.folio_row), np.bool_))

    def mapped_by(self, ids: U64) -> I64:
        """int64[folios]; mappings of each folio by the mm of the given id, 0 when no mm has it."""
        return self._sum(self.mm_id.astype(np.uint64) == ids[self.folio_row])

    def _sum(self, rows: Mask) -> I64:
        out = np.zeros(len(self.is_hugetlb), np.int64)
        np.add.at(out, self.folio_row[rows], self.count[rows])
        return out


def violations(slots: Slots, truth: Credits) -> dict[Reason, Mask]:
    """Every reason, with the folios that it holds for.

    A hugetlb folio has one reason at most, for it has no business with slots at all; a slot of an unknown mm is not
    also called too high, one of a folio that nothing maps neither.

    Args:
        slots: As stored.
        truth: Who maps the same folios; all page tables must have been read.
    """
    own = ~truth.is_hugetlb
    unmapped = truth.total == 0
    unknown = id_of_no_mm(slots, truth.known_ids)
    above = above_mappings(slots, truth.mapped_by(slots.id0), truth.mapped_by(slots.id1))
    found = {
        Reason.FREE_SLOT_WITH_COUNT: free_slot_with_count(slots),
        Reason.USED_SLOT_WITHOUT_COUNT: used_slot_without_count(slots),
        Reason.DUPLICATE_ID: duplicate_id(slots),
        Reason.LOCK_HELD: slots.locked,
        Reason.SLOT_ABOVE_TRUE_COUNT: above & ~unknown & ~unmapped,
        Reason.ID_OF_NO_MM: unknown,
        Reason.UNSHARED_BUT_SEVERAL_MMS: unshared_but_shared(slots, truth.nr_mms),
        Reason.NOT_EMPTY_WHEN_UNMAPPED: not_empty(slots, truth.total),
    }
    masks = {reason: mask & own for reason, mask in found.items()}
    masks[Reason.HUGETLB_USES_SLOTS] = truth.is_hugetlb & in_use(slots)
    return masks


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


def above_mappings(slots: Slots, mapped0: I64, mapped1: I64) -> Mask:
    """Slots that claim more mappings for their mm than it has; fewer is legal (taken late).

    Args:
        slots: As stored.
        mapped0: int64; mappings of the folio by the mm named in the first slot.
        mapped1: int64; the same for the second.
    """
    (id0, count0), (id1, count1) = slots._each
    return ((id0 != 0) & (count0 >= 0) & (count0 >= mapped0)) | ((id1 != 0) & (count1 >= 0) & (count1 >= mapped1))


def id_of_no_mm(slots: Slots, known_ids: AnyArray) -> Mask:
    """A slot names an mm that does not exist: its owner is gone, but its mappings were never taken back.

    Args:
        slots: As stored.
        known_ids: ids of all mms.
    """
    known = np.append(np.asarray(known_ids, np.uint64), np.uint64(0))
    return ~np.isin(slots.id0, known) | ~np.isin(slots.id1, known)


def unshared_but_shared(slots: Slots, nr_mms: AnyArray) -> Mask:
    """Folios whose flag says one mm only although several map them; the flag may stay set for nothing."""
    return ~slots.shared & (nr_mms > 1)


def not_empty(slots: Slots, total: I64) -> Mask:
    """Folios that nothing maps but whose slots or flag are still set."""
    return (total == 0) & ((slots.id0 != 0) | (slots.id1 != 0) | slots.shared)


def in_use(slots: Slots) -> Mask:
    """Folios of which a slot or a flag is not as prep_compound_head() in mm/internal.h left it."""
    return (slots.ids != 0) | (slots.count0 != -1) | (slots.count1 != -1)
