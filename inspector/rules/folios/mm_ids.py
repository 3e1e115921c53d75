"""Rules of the mm ids that a large folio keeps to know whether one mm maps it alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.columns import I64, U64, Mask
from inspector.model import mm_ids
from inspector.model.scheme import Scheme
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO
from inspector.violations import Violations, cannot_check, together, unread_parts, violations
from inspector.windows.grading import count_in_flight
from inspector.windows.window import Effect

_SCHEMES = (Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT)


def _found(s: Snapshot, bad: Mask) -> Violations:
    """Violations of the folios in ``bad`` that keep mm ids."""
    folios = s.folios
    able = s.folio_whole & ~folios.is_hugetlb & (s.pages.type_[folios.row] == 0)
    rows, slots = np.flatnonzero(able & bad), s.folios.mm_id_slots
    return violations(
        rows,
        observed={
            "_mm_id[0]": slots.id0[rows],
            "_mm_id_mapcount[0]": slots.count0[rows],
            "_mm_id[1]": slots.id1[rows],
            "_mm_id_mapcount[1]": slots.count1[rows],
            "shared": slots.shared[rows],
            "locked": slots.locked[rows],
        },
        expected={
            "_mm_id[0] mapcount at most": _mapped_by(s, slots.id0)[rows] - 1,
            "_mm_id[1] mapcount at most": _mapped_by(s, slots.id1)[rows] - 1,
        },
        checked=able,
        unread=unread_parts(s),
        facts={"mms": s.counts.nr_mms[rows], "mappings": s.folio_totals[rows]},
    )


def _too_high(s: Snapshot, bad: Mask) -> Violations:
    """The same for slots that are too high: needs all page tables, and can be work in flight as the counts can."""
    # What counts no mapping has none, or its mapcount is wrong as well.
    unknown = s.may_be_mapped_unseen(s.folios.row) & (s.folios.large_raw >= 0)
    found = _found(s, bad & ~unknown)
    if unknown.any():
        why = f"{s.why_incomplete}: slots can only be too high by what was not read"
        found = replace(found, unread=together(cannot_check(int(unknown.sum()), why), found.unread))
    transient = count_in_flight(s, s.folios.row[found.rows])
    return replace(found, details=replace(found.details, transient=transient))


def _mapped_by(s: Snapshot, ids: U64) -> I64:
    """Mappings of each folio by the mm of the given id; 0 when no mm has it."""
    counts = s.counts
    return mm_ids.mapped_by(ids, counts.pair_folio, s.mms.mm_id[counts.pair_mm], counts.pair_count)


@rule(
    "mm-id-slot-invalid",
    FOLIO,
    "mm-ids",
    Phase.FOLIO_COUNTS,
    effect=Effect.MM_IDS,
    decides="I16 23 26",
    schemes=_SCHEMES,
    was="mm-id-slot-malformed",
)
def mm_id_slot_invalid(s: Snapshot) -> Violations:
    """The mm-id slots of a folio contradict one another.

    Invariant: a free slot has id 0 and count -1, a used one an id and a count of at least 0; the two ids differ; the
        lock bit is clear.
    Why: include/linux/rmap.h, __folio_large_mapcount_sanity_checks(), folio_add_large_mapcount().
    Consequence: a shared folio may be taken for an exclusive one and be written in place: data leaks between processes.
    Exceptions: an rmap operation holds the lock on another CPU.
    See also: folioscope folio PFN
    """
    return _found(s, mm_ids.malformed(s.folios.mm_id_slots))


@rule(
    "mm-id-slot-high",
    FOLIO,
    "mm-ids",
    Phase.SUMS,
    effect=Effect.MM_IDS,
    decides="I16 23",
    exactness="bound",
    schemes=_SCHEMES,
    was="mm-id-slot-above-mappings",
)
def mm_id_slot_high(s: Snapshot) -> Violations:
    """_mm_id_mapcount is higher than the number of entries by which that mm maps the folio.

    Invariant: a used slot's count + 1 is at most the number of entries by which the mm with that id maps the folio. It
        may be fewer: mappings made while both slots were taken by other mms are in no slot.
    Why: include/linux/rmap.h, folio_add_large_mapcount() and folio_sub_large_mapcount().
    Consequence: the folio can look exclusive to a process when it is not, or never become exclusive again.
    Exceptions: page tables that are missing or damaged may map the folio.
    See also: folioscope folio PFN
    """
    slots = s.folios.mm_id_slots
    bad = mm_ids.above_mappings(slots, _mapped_by(s, slots.id0), _mapped_by(s, slots.id1))
    return _too_high(s, bad)


@rule(
    "mm-id-shared-flag-missing",
    FOLIO,
    "mm-ids",
    Phase.FOLIO_COUNTS,
    effect=Effect.MM_IDS,
    decides="I16 24",
    exactness="bound",
    schemes=_SCHEMES,
    was="mm-id-unshared-but-shared",
)
def mm_id_shared_flag_missing(s: Snapshot) -> Violations:
    """The "maybe mapped shared" flag of a folio is clear although several mms map it.

    Invariant: while more than one mm maps a large folio its "maybe mapped shared" flag is set. The flag may stay set
        when only one is left.
    Why: include/linux/rmap.h, folio_maybe_mapped_shared(): copy-on-write reuse relies on it.
    Consequence: a write fault reuses the folio in place: one process sees what another writes.
    Exceptions: at most one process maps the folio.
    See also: folioscope folio PFN
    """
    return _found(s, mm_ids.unshared_but_shared(s.folios.mm_id_slots, s.counts.nr_mms))


@rule(
    "mm-id-slot-unexpected",
    FOLIO,
    "mm-ids",
    Phase.SUMS,
    effect=Effect.MM_IDS,
    decides="I16 13 25",
    schemes=_SCHEMES,
    was="mm-id-not-empty",
)
def mm_id_slot_unexpected(s: Snapshot) -> Violations:
    """A folio that nothing maps still holds an mm id.

    Invariant: when the last mapping goes, both slots are free and the flag is clear.
    Why: include/linux/rmap.h, folio_sub_large_mapcount(); mm/page_alloc.c tests it when the folio is freed.
    Consequence: "Bad page state" when it is freed; a later mapping is counted for the wrong process.
    Exceptions: page tables that are missing or damaged may map the folio.
    See also: folioscope folio PFN
    """
    return _too_high(s, mm_ids.not_empty(s.folios.mm_id_slots, s.folio_totals))
