"""Rules of the entire and the large mapcount."""

from __future__ import annotations

import numpy as np

from inspector.columns import AnyArray, Mask
from inspector.model.counters import RmapCounter, field_name
from inspector.model.scheme import Scheme
from inspector.rules.diagnosis import miscounted
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO
from inspector.violations import Violations, cannot_check, violations
from inspector.windows.grading import count_in_flight
from inspector.windows.window import Effect

_LARGE = (Scheme.LARGE, Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT)


def countable(s: Snapshot) -> Mask:
    """Folios whose counters can be held against the page tables: readable, and of no type but hugetlb."""
    folios = s.folios
    return folios.readable & ((s.pages.type_[folios.row] == 0) | folios.is_hugetlb)


def compare_folios(s: Snapshot, counter: RmapCounter, stored: AnyArray, expected: AnyArray) -> Violations:
    """Folios whose stored counter differs from the expected one; only too-low counts when tables are missing."""
    able = countable(s)
    wrong = able & (stored != expected)
    unchecked = int((~s.folios.readable).sum())
    why = "struct pages are missing" if unchecked else ""
    if not s.tables_complete:
        wrong &= stored < expected
        unchecked, why = int(able.sum()), "page tables are missing: a count can only be shown to be too low"
    rows = np.flatnonzero(wrong)
    name = field_name(s.scheme, counter) if s.scheme else counter.value
    # Only a count that is too high can be work in flight: see rules/windows.py.
    return violations(
        rows,
        observed={name: stored[rows]},
        expected={name: expected[rows]},
        checked=int(able.sum()),
        unread=cannot_check(unchecked, why),
        facts={
            "entire_mappings": s.counts.entire[rows],
            "pte_mappings": s.expected.total[rows] - s.counts.entire[rows] if s.expected else rows * 0,
        },
        transient=(stored > expected)[rows] & count_in_flight(s, s.folios.row[rows]),
    )


@rule(
    "entire-mapcount-mismatch",
    FOLIO,
    "entire",
    Phase.FOLIO_COUNTS,
    effect=Effect.ENTIRE,
    decides="I1 13 18 22 149",
    schemes=tuple(Scheme),
    diagnose=miscounted,
)
def entire_mapcount_mismatch(s: Snapshot) -> Violations:
    """A folio's entire mapcount is not the number of huge entries that map it.

    Invariant: _entire_mapcount + 1 (compound_mapcount + 1 on 6.1) is the number of PMD and PUD leaf entries that map
        the folio as a whole (E); for hugetlb the number of its huge entries, a shared page table counted once.
    Why: mm/rmap.c, folio_add_*_rmap_pmd(), folio_remove_rmap_pmd(), hugetlb_add_file_rmap(), hugetlb_remove_rmap().
    Consequence: too low: the folio is freed or split while a huge entry still maps it. Too high: it is never freed.
    Exceptions: the compound page is a slab or another typed page.
    See also: folioscope folio PFN
    """
    assert s.expected is not None
    return compare_folios(s, RmapCounter.ENTIRE, s.folios.entire_raw, s.expected.entire_raw)


@rule(
    "large-mapcount-mismatch",
    FOLIO,
    "entire",
    Phase.SUMS,
    effect=Effect.LARGE,
    decides="I1 13 17 149",
    schemes=_LARGE,
    diagnose=miscounted,
)
def large_mapcount_mismatch(s: Snapshot) -> Violations:
    """A folio's large mapcount is not the sum of all entries that map it.

    Invariant: _large_mapcount + 1 is the number of all mappings of the folio: one for each PTE and one for each huge
        entry (M = E + S). Kept since 6.10.
    Why: mm/rmap.c, folio_add_return_large_mapcount() and folio_sub_return_large_mapcount() in every operation.
    Consequence: folio_mapcount() lies: COW reuse, migration and reclaim decide by it. Too low frees a mapped folio.
    Exceptions: the compound page is a slab or another typed page.
    See also: folioscope folio PFN
    """
    assert s.expected is not None
    return compare_folios(s, RmapCounter.LARGE, s.folios.large_raw, s.expected.large_raw)
