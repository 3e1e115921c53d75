"""Rules of the words that every struct page has: reference count, page type, memory cgroup."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.rules.needs import PAGES
from inspector.rules.page_pieces import PagePiece
from inspector.rules.pieces import Judged
from inspector.rules.registry import Phase, page_rule, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.violations import Details, Violations, details, unread_pages, violations


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
    """page_type holds a type that this kernel does not have, or more than a type.

    Invariant: the word shared by _mapcount and the page type is a count, -1, or one of the kernel's types and nothing
        beside it.
    Why: include/linux/page-flags.h, enum pagetype and PAGE_TYPE_OPS(), which write the whole word.
    Consequence: the word was overwritten: the page counts neither as mapped nor as free, and dump_page() shows
        nonsense.
    Exceptions: the struct page was never initialised (all ones: no section of memory uses it); zsmalloc keeps a number
        beside its type (mm/zsmalloc.c, set_first_obj_offset()).
    See also: folioscope page PFN
    """
    types, words = p.s.layout.types, p.mapcount_raw.view(np.uint32)
    unknown = (p.type == 0) & ~types.is_known(words)
    # Of a page that is mapped it is no type at all: typed-page-mapping-unexpected finds it.
    more = (p.type != 0) & ~types.is_whole(words) & (~p.is_mapped | p.is_hugetlb)
    return p.judge(types.is_typed(words) & (unknown | more), p.readable)


@rule("memcg-data-invalid", PAGE, "page-words", Phase.WORDS, needs=PAGES)
def memcg_data_invalid(s: Snapshot) -> Violations:
    """memcg_data of a page in use names no memory cgroup, nor an obj_cgroup of one.

    Invariant: memcg_data of pages on an LRU list is the address of a struct mem_cgroup (of an obj_cgroup, where user
        memory is charged through these), of others that or, with MEMCG_DATA_KMEM set, of an obj_cgroup; no other low
        bit is set.
    Why: mm/memcontrol.c, commit_charge() and __memcg_kmem_charge_page(); include/linux/memcontrol.h, folio_memcg().
        Both structs are objects of slab caches of their own kind: where most pages name objects of one cache, all do,
        and no two objects overlap.
    Consequence: uncharging the page writes to whatever lies there.
    Exceptions: slabs (see slab-page-damaged). Where memory cgroups are too large for the slab allocator, only addresses
        without memory behind them are found.
    See also: folioscope page PFN
    """
    wrong, charges = s.odd_charges, s.charges
    rows = np.flatnonzero(wrong)
    return violations(
        charges.row[rows],
        observed={"memcg_data": charges.memcg_data[rows], "pages": charges.nr[rows]},
        expected={"memcg_data": "a memory cgroup"},
        checked=len(charges),
        unread=unread_pages(s),
    )
