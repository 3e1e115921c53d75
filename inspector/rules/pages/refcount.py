"""Rules of the reference count."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask
from inspector.layout.flags import MAPPING_TAGS
from inspector.rules.registry import Violations, rule
from inspector.snapshot import Snapshot


def cache_and_private(s: Snapshot, rows: I64, nr: I64, hugetlb: Mask) -> tuple[I64, I64]:
    """References that the page cache or swap cache, and a private pointer, must hold on folios headed by ``rows``."""
    pages, flags = s.pages, s.layout.flags
    mapping, word = pages.mapping[rows], pages.flags[rows]
    on_lru = flags.test(word, "lru") | flags.test(word, "unevictable")
    file = (mapping != 0) & ((mapping & np.uint64(MAPPING_TAGS)) == 0) & on_lru & ~hugetlb
    swap = flags.test(word, "swapcache") & flags.test(word, "swapbacked") & ~hugetlb
    swap &= ((mapping & np.uint64(MAPPING_TAGS)) == 1) | (mapping == 0)
    private = flags.test(word, "private") & file
    return np.where(file | (swap & on_lru), nr, 0), private.astype(np.int64)


@rule("refcount-low", was="refcount-below-mappings", group="refcount", invariant="I5", rank=70, exactness="bound")
def refcount_below_mappings(s: Snapshot) -> Violations:
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
    return Violations(
        "page",
        rows[low],
        {"_refcount": pages.refcount[rows[low]]},
        {"at_least": (mapped + cache + private)[low]},
        len(rows),
        int((~pages.readable).sum()),
        "struct pages are missing" if not pages.readable.all() else "",
        {"mappings": mapped[low], "cache": cache[low], "private": private[low]},
    )
