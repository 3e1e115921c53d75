"""Rules of the words that every struct page has: reference count and page type."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.rules.page_pieces import PagePiece
from inspector.rules.pieces import Judged
from inspector.rules.registry import Phase, page_rule
from inspector.snapshot import Snapshot
from inspector.violations import Details, details


def _refcount(s: Snapshot, rows: I64) -> Details:
    return details(rows, observed={"_refcount": s.pages.refcount[rows]}, expected={"at_least": 0})


@page_rule(
    "refcount-invalid",
    _refcount,
    "page-words",
    Phase.WORDS,
    decides="I5 9",
    was="refcount-negative",
)
def refcount_invalid(p: PagePiece) -> Judged:
    """_refcount is negative.

    Invariant: _refcount of every page is 0 or more.
    Why: include/linux/page_ref.h: put_page_testzero() has VM_BUG_ON_PAGE(page_ref_count(page) == 0); a reference
        dropped twice goes below it.
    Consequence: the page was freed once too often: it may be in use by two owners, or is never freed again.
    Exceptions: never.
    See also: folioscope explain PFN
    """
    return p.judge(p.refcount < 0, p.readable)


def _type(s: Snapshot, rows: I64) -> Details:
    words = s.pages.mapcount_raw[rows].view(np.uint32)
    return details(rows, observed={"page_type": words}, expected={"page_type": "a count or a known type"})


@page_rule(
    "page-type-invalid",
    _type,
    "page-words",
    Phase.WORDS,
    decides="I1 11",
    was="page-type-unknown",
)
def page_type_invalid(p: PagePiece) -> Judged:
    """page_type holds a type that this kernel does not have.

    Invariant: the word shared by _mapcount and the page type is a count, -1, or one of the kernel's types.
    Why: include/linux/page-flags.h, enum pagetype and PAGE_TYPE_OPS().
    Consequence: the word was overwritten: the page counts neither as mapped nor as free, and dump_page() shows
        nonsense.
    Exceptions: the struct page was never initialised (all ones: no section of memory uses it).
    See also: folioscope page PFN
    """
    types, words = p.s.layout.types, p.mapcount_raw.view(np.uint32)
    return p.judge(types.is_typed(words) & (p.type == 0) & ~types.is_known(words), p.readable)
