"""Rules of the reference count."""

from __future__ import annotations

from inspector.columns import I64
from inspector.rules.diagnosis import reference_lost
from inspector.rules.page_pieces import PagePiece
from inspector.rules.pieces import Judged
from inspector.rules.registry import Phase, page_rule
from inspector.snapshot import Snapshot
from inspector.violations import Details, details
from inspector.walk.references import expected_references
from inspector.windows.window import Effect


def _terms(s: Snapshot, rows: I64) -> Details:
    expected = expected_references(s, rows)
    return details(
        rows,
        observed={"_refcount": s.pages.refcount[rows]},
        expected={"at_least": expected.total},
        facts={"mappings": expected.mappings, "cache": expected.cache, "private": expected.private},
    )


@page_rule(
    "refcount-low",
    _terms,
    "refcount",
    Phase.SUMS,
    effect=Effect.REFCOUNT,
    decides="I5 29 67 72 150",
    exactness="bound",
    was="refcount-below-mappings",
    diagnose=reference_lost,
)
def refcount_low(p: PagePiece) -> Judged:
    """_refcount is lower than the number of mappings and page-cache entries that hold a reference.

    Invariant: folio_ref_count >= mappings + pages in the page or swap cache + 1 for private data. Each of these holds a
        reference of its own; many other things may hold more, so this is a lower bound. A hugetlb folio in the page
        cache has one reference for that up to 6.6, and one for each of its base pages from 6.7 on.
    Why: mm/rmap.c and mm/memory.c take a reference with each mapping; mm/filemap.c, __filemap_add_folio();
        mm/swap_state.c, add_to_swap_cache(); folio_attach_private(). The sum is folio_expected_ref_count().
    Consequence: the folio is freed while it is mapped or cached: use after free.
    Exceptions: the folio is frozen (0 references while it is split or migrated under its lock).
    See also: folioscope folio PFN
    """
    head = p.readable & (p.refcount > 0) & ~p.is_tail & p.of_folio(p.s.folios.readable, 1)
    able = head & ((p.type == 0) | p.is_hugetlb)
    here = able.nonzero()[0]
    wrong = p.nothing
    wrong[here] = p.refcount[here] < expected_references(p.s, p.rows[here]).total
    return p.judge(wrong, able)
