"""Rules of the reference count."""

from __future__ import annotations

import numpy as np

from inspector.rules.diagnosis import reference_lost
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.violations import Violations, unread_pages, violations
from inspector.walk.expected_references import cache_and_private
from inspector.windows.window import Effect


@rule(
    "refcount-low",
    PAGE,
    "refcount",
    Phase.SUMS,
    effect=Effect.REFCOUNT,
    decides="I5 29 67 72 150",
    exactness="bound",
    was="refcount-below-mappings",
    diagnose=reference_lost,
)
def refcount_low(s: Snapshot) -> Violations:
    """A folio has fewer references than its mappings and its cache hold.

    True:  folio_ref_count >= mappings + pages in the page or swap cache + 1 for private data. Each of these holds a
           reference of its own; many other things may hold more, so this is a lower bound.
    Why:   mm/rmap.c and mm/memory.c take a reference with each mapping; mm/filemap.c, __filemap_add_folio();
           mm/swap_state.c, add_to_swap_cache(); folio_attach_private().
    Then:  the folio is freed while it is mapped or cached: use after free.
    Silent when: the folio is frozen (0 references while it is split or migrated under its lock), or a hugetlb folio in
           the page cache, whose cache references differ by kernel.
    Look further: folioscope folio PFN
    """
    pages, folios = s.pages, s.folios
    head = pages.readable & (pages.type_ == 0) & (pages.refcount > 0) & ~pages.is_tail
    small = head.copy()
    small[folios.row] = False
    rows = np.flatnonzero(small)
    mapped = s.counts.page_mappings[rows].astype(np.int64)
    cache, private = cache_and_private(s, rows, np.ones(len(rows), np.int64), np.zeros(len(rows), np.bool_))
    able = folios.readable & (head[folios.row] | (folios.is_hugetlb & (pages.refcount[folios.row] > 0)))
    big = np.flatnonzero(able)
    total = s.folio_totals[big]
    big_cache, big_private = cache_and_private(s, folios.row[big], folios.nr_pages[big], folios.is_hugetlb[big])
    rows = np.concatenate([rows, folios.row[big]])
    mapped = np.concatenate([mapped, total])
    cache, private = np.concatenate([cache, big_cache]), np.concatenate([private, big_private])
    low = np.flatnonzero(pages.refcount[rows] < mapped + cache + private)
    return violations(
        rows[low],
        observed={"_refcount": pages.refcount[rows[low]]},
        expected={"at_least": (mapped + cache + private)[low]},
        checked=len(rows),
        unread=unread_pages(s),
        facts={"mappings": mapped[low], "cache": cache[low], "private": private[low]},
    )
