"""Rules of the counter of pages of a large folio that PTEs map."""

from __future__ import annotations

import numpy as np

from inspector.model.counters import RmapCounter, field_name
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.rules.diagnosis import miscounted
from inspector.rules.folios.entire import compare_folios, countable
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO
from inspector.violations import Violations, unread_folios, violations
from inspector.windows.window import Effect

_WORD = (Scheme.SUBPAGES, Scheme.RMAP68, Scheme.LARGE, Scheme.MM_IDS)


@rule(
    "nr-pages-mapped-invalid",
    FOLIO,
    "pages-mapped",
    Phase.FOLIO_COUNTS,
    after=("entire-mapcount-mismatch",),
    effect=Effect.PAGES_MAPPED,
    decides="I2 20",
    schemes=_WORD,
    was="nr-pages-mapped-malformed",
)
def nr_pages_mapped_invalid(s: Snapshot) -> Violations:
    """_nr_pages_mapped holds a value that no sequence of mappings leaves.

    Invariant: the word is the number of pages mapped by PTEs, at most the folio's size, plus 0x800000 if and only if
        the folio is mapped as a whole; so it is never negative and always below twice 0x800000. 0 for hugetlb.
    Why: mm/rmap.c, ENTIRELY_MAPPED (COMPOUND_MAPPED before 6.8). The folio alone decides: no page table is needed, so
        that this is checked in a filtered dump too.
    Consequence: NR_ANON_MAPPED and NR_FILE_MAPPED drift; folio_mapped() can return false for a mapped folio.
    Exceptions: an operation is under way on another CPU: the entire count moves a few instructions earlier.
    See also: folioscope folio PFN
    """
    assert s.scheme is not None
    folios, able = s.folios, countable(s)
    word = folios.word_raw
    low = word & (ENTIRELY_MAPPED - 1)
    entire = (folios.entire_raw >= 0) & ~folios.is_hugetlb
    bad = (word < 0) | (word >= 2 * ENTIRELY_MAPPED) | (low > folios.nr_pages)
    bad |= (word >= ENTIRELY_MAPPED) != entire
    rows = np.flatnonzero(able & bad)
    return violations(
        rows,
        observed={
            field_name(s.scheme, RmapCounter.NR_PAGES_MAPPED): word[rows],
            field_name(s.scheme, RmapCounter.ENTIRE): folios.entire_raw[rows],
        },
        expected={
            "entirely_mapped_bit": entire[rows],
            "pages_at_most": np.where(folios.is_hugetlb[rows], 0, folios.nr_pages[rows]),
        },
        checked=able,
        unread=unread_folios(s),
    )


@rule(
    "nr-pages-mapped-mismatch",
    FOLIO,
    "pages-mapped",
    Phase.FOLIO_COUNTS,
    after=(
        "hugetlb-counts-unexpected",
        "nr-pages-mapped-invalid",
    ),
    effect=Effect.PAGES_MAPPED,
    decides="I1 13 20",
    schemes=_WORD,
    diagnose=miscounted,
)
def nr_pages_mapped_mismatch(s: Snapshot) -> Violations:
    """_nr_pages_mapped differs from the number of pages that PTEs map.

    Invariant: _nr_pages_mapped is the number of pages with at least one PTE mapping (T), plus 0x800000 when at least
        one huge entry maps the folio as a whole.
    Why: mm/rmap.c, __folio_add_rmap() and __folio_remove_rmap() move it on each page's first and last mapping.
    Consequence: NR_ANON_MAPPED and NR_FILE_MAPPED drift; partially mapped folios are not queued for splitting.
    Exceptions: the folio is hugetlb, which never uses the word.
    See also: folioscope folio PFN
    """
    assert s.expected is not None
    return compare_folios(s, RmapCounter.NR_PAGES_MAPPED, s.folios.word_raw, s.expected.word_raw)
