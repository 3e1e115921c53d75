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
from inspector.violations import (
    Violations,
    cannot_check,
    lower_bound,
    together,
    unread_folios,
    unread_parts,
    violations,
)
from inspector.windows.grading import count_in_flight
from inspector.windows.window import Effect

_LARGE = (Scheme.LARGE, Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT)


def countable(s: Snapshot) -> Mask:
    """Folios whose counters can be compared with the page tables: readable, and of no type but hugetlb."""
    folios = s.folios
    return folios.readable & ((s.pages.type_[folios.row] == 0) | folios.is_hugetlb)


def compare_folios(s: Snapshot, counter: RmapCounter, stored: AnyArray, expected: AnyArray) -> Violations:
    """Folios whose stored counter differs from the expected one; only too-low counts where tables are missing.

    All but the entire mapcount are sums over the folio's pages, of which every struct page must have been read.
    """
    assert s.scheme is not None
    assert s.expected is not None
    is_sum = counter is not RmapCounter.ENTIRE
    able = countable(s) & s.folio_whole if is_sum else countable(s)
    wrong, unread = able & (stored != expected), unread_parts(s) if is_sum else unread_folios(s)
    unknown = s.may_be_mapped_unseen(s.folios.row)
    wrong &= (stored < expected) | ~unknown
    unread = together(cannot_check(int((able & unknown).sum()), lower_bound(s)), unread)
    rows = np.flatnonzero(wrong)
    name = field_name(s.scheme, counter)
    return violations(
        rows,
        observed={name: stored[rows]},
        expected={name: expected[rows]},
        checked=able,
        unread=unread,
        facts={
            "entire_mappings": s.counts.entire[rows],
            "pte_mappings": s.expected.total[rows] - s.counts.entire[rows],
        },
        # Only a count that is too high can be work in flight: it is raised before an entry is written.
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
    """_entire_mapcount differs from the number of huge entries that map the folio.

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
    """_large_mapcount differs from the number of entries that map the folio.

    Invariant: _large_mapcount + 1 is the number of all mappings of the folio: one for each PTE and one for each huge
        entry (M = E + S). Kept since 6.10.
    Why: mm/rmap.c, folio_add_return_large_mapcount() and folio_sub_return_large_mapcount() in every operation.
    Consequence: COW reuse, migration and reclaim decide by folio_mapcount(). Too low frees a mapped folio.
    Exceptions: the compound page is a slab or another typed page.
    See also: folioscope folio PFN
    """
    assert s.expected is not None
    return compare_folios(s, RmapCounter.LARGE, s.folios.large_raw, s.expected.large_raw)
