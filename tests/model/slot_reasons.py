"""All that can be wrong with the mm-id slots of folios, put together from the single conditions of the model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from inspector.columns import I64, U64, AnyArray, Mask
from inspector.model import mm_ids
from inspector.model.mm_ids import Slots


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
        return np.bincount(self.folio_row, self.count, len(self.is_hugetlb)).astype(np.int64)

    def mapped_by(self, ids: U64) -> I64:
        """int64[folios]; mappings of each folio by the mm of the given id, 0 when no mm has it."""
        return mm_ids.mapped_by(ids, self.folio_row, self.mm_id, self.count)


def violations(slots: Slots, found: Credits) -> dict[Reason, Mask]:
    """Every reason, with the folios that it holds for.

    A hugetlb folio has one reason at most, for it has no business with slots at all; a slot of an unknown mm is not
    also called too high, one of a folio that nothing maps neither.

    Args:
        slots: As stored.
        found: Who maps the same folios; all page tables must have been read.
    """
    own = ~found.is_hugetlb
    unmapped = found.total == 0
    unknown = id_of_no_mm(slots, found.known_ids)
    above = mm_ids.above_mappings(slots, found.mapped_by(slots.id0), found.mapped_by(slots.id1))
    masks = {
        Reason.FREE_SLOT_WITH_COUNT: mm_ids.free_slot_with_count(slots),
        Reason.USED_SLOT_WITHOUT_COUNT: mm_ids.used_slot_without_count(slots),
        Reason.DUPLICATE_ID: mm_ids.duplicate_id(slots),
        Reason.LOCK_HELD: slots.locked,
        Reason.SLOT_ABOVE_TRUE_COUNT: above & ~unknown & ~unmapped,
        Reason.ID_OF_NO_MM: unknown,
        Reason.UNSHARED_BUT_SEVERAL_MMS: mm_ids.unshared_but_shared(slots, found.nr_mms),
        Reason.NOT_EMPTY_WHEN_UNMAPPED: mm_ids.not_empty(slots, found.total),
    }
    masks = {reason: mask & own for reason, mask in masks.items()}
    masks[Reason.HUGETLB_USES_SLOTS] = found.is_hugetlb & mm_ids.in_use(slots)
    return masks


def id_of_no_mm(slots: Slots, known_ids: AnyArray) -> Mask:
    """A slot names an mm that does not exist: its owner is gone, but its mappings were never taken back.

    Args:
        slots: As stored.
        known_ids: ids of all mms.
    """
    known = np.append(np.asarray(known_ids, np.uint64), np.uint64(0))
    return ~np.isin(slots.id0, known) | ~np.isin(slots.id1, known)
