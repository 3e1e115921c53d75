"""Rules of compound pages: heads, tails and sizes."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.rules.needs import PAGES
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO, PAGE
from inspector.violations import Violations, cannot_check, holds, violations
from inspector.windows.window import Effect

_TAIL_MAPPING = np.uint64(0xDEAD000000000400)
"""TAIL_MAPPING (include/linux/poison.h) with the illegal pointer delta of 64-bit kernels."""

_FIRST_PLAIN_TAIL = 4
"""Tails below this index lend their fields to struct folio (include/linux/mm_types.h)."""


def _why(s: Snapshot) -> tuple[int, str]:
    unreadable = int((~s.pages.readable).sum())
    return unreadable, "struct pages are missing" if unreadable else ""


@rule(
    "tail-head-invalid",
    PAGE,
    "compound",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    needs=PAGES,
    decides="I9 1 3",
    was="tail-without-head",
)
def tail_head_invalid(s: Snapshot) -> Violations:
    """A tail page points to something that is not the head of a compound page around it.

    Invariant: compound_head (or the mask in compound_info, since 7.1) of every tail leads to a page with PG_head, at
        most the folio's size before it.
    Why: include/linux/page-flags.h, _compound_head(); mm/page_alloc.c, prep_compound_page().
    Consequence: every operation on that page hits a foreign page's counts.
    Exceptions: the head's struct page is not in the dump. The fake heads of hugetlb vmemmap optimisation resolve.
    See also: folioscope page PFN
    """
    pages = s.pages
    tails: I64 = np.flatnonzero(pages.is_tail & pages.readable)
    head = pages.head_row[tails].astype(np.int64)
    at = np.maximum(head, 0)
    known = pages.readable[at] | (head < 0)
    folio = s.folio_of_page[tails]
    order = np.zeros(len(tails), np.int64)
    if len(s.folios):
        order = np.where(folio >= 0, s.folios.order[np.maximum(folio, 0)], 0).astype(np.int64)
    bad = (head < 0) | (folio < 0) | (tails < head) | (tails - head >= (np.int64(1) << np.minimum(order, 40)))
    # When the folio's own size is what is wrong, that is one cause: compound-size-mismatch names it.
    sized = s.compound_wrong[np.maximum(folio, 0)] & (folio >= 0) if len(s.folios) else np.zeros(len(tails), np.bool_)
    rows = np.flatnonzero(bad & known & ~sized)
    unreadable, why = _why(s)
    return violations(
        tails[rows],
        observed={"head_pfn": np.where(head[rows] >= 0, pages.memmap.pfns_of_rows(at[rows]), -1)},
        expected={},
        checked=len(tails),
        unread=cannot_check(unreadable, why),
        facts={"head_order": order[rows]},
    )


@rule(
    "compound-size-mismatch",
    FOLIO,
    "compound",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    needs=PAGES,
    decides="I9 2 3 4",
    was="compound-size-wrong",
)
def compound_size_mismatch(s: Snapshot) -> Violations:
    """A compound page's order does not agree with its cached size, its alignment or its tails.

    Invariant: the cached number of pages is 1 << order; the head's page frame is a multiple of it; as many pages as
        that, less one, are its tails.
    Why: mm/page_alloc.c, prep_compound_page() and folio_set_order().
    Consequence: mapping, splitting or freeing it touches too few or too many pages.
    Exceptions: some of its struct pages are not in the dump; nobody has a reference to it yet or any more, and it is on
        no list: it is being made or freed (prep_compound_page(), __free_pages_prepare()), which takes no lock.
    See also: folioscope folio PFN
    """
    folios, pages = s.folios, s.pages
    rows = np.flatnonzero(s.compound_wrong)
    head = folios.row[rows]
    in_hand = (pages.refcount[head] == 0) & (pages.type_[head] == 0) & ~folios.is_hugetlb[rows]
    unreadable, why = _why(s)
    return violations(
        rows,
        observed={"order": folios.order[rows], "nr_pages": folios.nr_stored[rows], "tails": s.nr_tails[rows]},
        expected={"nr_pages": folios.nr_pages[rows], "tails": folios.nr_pages[rows] - 1},
        checked=int(folios.readable.sum()),
        unread=cannot_check(unreadable, why),
        transient=in_hand,
    )


@rule(
    "tail-page-damaged",
    PAGE,
    "compound",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    needs=PAGES,
    decides="I9 5 6",
)
def tail_page_damaged(s: Snapshot) -> Violations:
    """A tail page carries a reference count or a mapping of its own.

    Invariant: the reference count of a tail is 0, and from the fifth page of a folio on its mapping is TAIL_MAPPING.
    Why: mm/page_alloc.c, prep_compound_tail() sets both, free_tail_page_prepare() tests the mapping.
    Consequence: "corrupted mapping in tail page" when the folio is freed; a speculative reference to a tail succeeds.
    Exceptions: hugetlb's vmemmap optimisation aliases the struct page with another one.
    See also: folioscope page PFN
    """
    pages = s.pages
    tails: I64 = np.flatnonzero(pages.is_tail & pages.readable & (pages.head_row >= 0))
    if not len(tails):
        return holds(0)
    # An alias of the head shows the head's own fields: told by PG_head, which no real tail has.
    alias = s.layout.flags.test(pages.flags[tails], "head")
    index = tails - pages.head_row[tails]
    counted = (pages.refcount[tails] != 0) & ~alias
    shared = s.hvo_folio[np.maximum(s.folio_of_page[tails], 0)] if len(s.folios) else alias
    plain = (index >= _FIRST_PLAIN_TAIL) & ~alias & ~shared
    mapped = plain & (pages.mapping[tails] != _TAIL_MAPPING)
    rows = np.flatnonzero(counted | mapped)
    unreadable, why = _why(s)
    return violations(
        tails[rows],
        observed={"_refcount": pages.refcount[tails[rows]], "mapping": pages.mapping[tails[rows]]},
        expected={"_refcount": np.zeros(len(rows), np.int64), "mapping": np.full(len(rows), _TAIL_MAPPING)},
        checked=len(tails),
        unread=cannot_check(unreadable, why),
        facts={"tail_index": index[rows]},
    )
