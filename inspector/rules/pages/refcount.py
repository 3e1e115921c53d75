"""Rules of the reference count."""

from __future__ import annotations

import numpy as np

from inspector.rules.registry import Violations, rule
from inspector.snapshot import Snapshot
from inspector.walk.references import expected_references


@rule("refcount-low", was="refcount-below-mappings", group="refcount", invariant="I5", rank=70, exactness="bound")
def refcount_low(s: Snapshot) -> Violations:
    """A folio has fewer references than its mappings and its cache hold.

    True:  folio_ref_count >= mappings + pages in the page or swap cache + 1 for private data. Each of these holds a
           reference of its own; many other things may hold more, so this is a lower bound. A hugetlb folio in the page
           cache has one reference for that up to 6.6, and one for each of its base pages from 6.7 on.
    Why:   mm/rmap.c and mm/memory.c take a reference with each mapping; mm/filemap.c, __filemap_add_folio();
           mm/swap_state.c, add_to_swap_cache(); folio_attach_private(). The sum is folio_expected_ref_count().
    Then:  the folio is freed while it is mapped or cached: use after free.
    Silent when: the folio is frozen (0 references while it is split or migrated under its lock).
    Look further: folioscope folio PFN
    """
    pages, folios = s.pages, s.folios
    head = pages.readable & (pages.refcount > 0) & ~pages.is_tail
    head[folios.row[~folios.readable]] = False
    plain = pages.type_ == 0
    plain[folios.row[folios.is_hugetlb]] = True
    rows = np.flatnonzero(head & plain)
    expected = expected_references(s, rows)
    low = np.flatnonzero(pages.refcount[rows] < expected.total)
    return Violations(
        "page",
        rows[low],
        {"_refcount": pages.refcount[rows[low]]},
        {"at_least": expected.total[low]},
        len(rows),
        int((~pages.readable).sum()),
        "struct pages are missing" if not pages.readable.all() else "",
        {"mappings": expected.mappings[low], "cache": expected.cache[low], "private": expected.private[low]},
    )
