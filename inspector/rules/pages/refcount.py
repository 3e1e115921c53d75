"""Rules of the reference count."""

from __future__ import annotations

import numpy as np

from inspector.rules.diagnosis import reference_lost
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.violations import Violations, unread_pages, violations
from inspector.walk.references import expected_references
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

    Invariant: folio_ref_count >= mappings + pages in the page or swap cache + 1 for private data. Each of these holds a
        reference of its own; many other things may hold more, so this is a lower bound. A hugetlb folio in the page
        cache has one reference for that up to 6.6, and one for each of its base pages from 6.7 on.
    Why: mm/rmap.c and mm/memory.c take a reference with each mapping; mm/filemap.c, __filemap_add_folio();
        mm/swap_state.c, add_to_swap_cache(); folio_attach_private(). The sum is folio_expected_ref_count().
    Consequence: the folio is freed while it is mapped or cached: use after free.
    Exceptions: the folio is frozen (0 references while it is split or migrated under its lock).
    See also: folioscope folio PFN
    """
    pages, folios = s.pages, s.folios
    head = pages.readable & (pages.refcount > 0) & ~pages.is_tail
    head[folios.row[~folios.readable]] = False
    plain = pages.type_ == 0
    plain[folios.row[folios.is_hugetlb]] = True
    rows = np.flatnonzero(head & plain)
    expected = expected_references(s, rows)
    low = np.flatnonzero(pages.refcount[rows] < expected.total)
    return violations(
        rows[low],
        observed={"_refcount": pages.refcount[rows[low]]},
        expected={"at_least": expected.total[low]},
        checked=len(rows),
        unread=unread_pages(s),
        facts={"mappings": expected.mappings[low], "cache": expected.cache[low], "private": expected.private[low]},
    )
