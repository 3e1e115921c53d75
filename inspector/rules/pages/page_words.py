"""Rules of the words that every struct page has: flags, zone, type and reference count."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, AnyArray, Mask
from inspector.rules.needs import PAGES
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.violations import Violations, cannot_check, holds, violations
from inspector.windows.window import Effect

_OF_PAGES = ("anon_exclusive", "hwpoison")
"""Flags that each page of a folio has of its own (include/linux/page-flags.h, PF_ANY and PF_HEAD of each)."""
_OF_SECOND = ("double_map", "has_hwpoisoned", "large_rmappable", "partially_mapped")
"""Flags that the first tail keeps for its folio (PF_SECOND)."""
_ORDER = np.uint64(0xFF)
"""Bits of the first tail's flags that hold the folio's order since 6.6 (struct folio, _flags_1)."""


def _missing(s: Snapshot) -> tuple[int, str]:
    missing = int((~s.pages.readable).sum())
    return missing, "struct pages are missing" if missing else ""


def _real_tails(s: Snapshot, *, of_users: bool) -> I64:
    """Tails of sound compound pages whose struct page is their own; ``of_users`` leaves those of user memory alone.

    Of a hugetlb folio under vmemmap optimisation only the struct pages in the first page of its memory map are: the
    rest are aliases of them, with the head's or the first tail's words (mm/hugetlb_vmemmap.c).
    """
    pages = s.pages
    tails: I64 = np.flatnonzero(pages.is_tail & pages.readable & (pages.head_row >= 0))
    folio = s.folio_of_page[tails]
    if not len(s.folios):
        return tails[:0]
    at = np.maximum(folio, 0)
    wanted = (s.folios.is_rmappable[at] | s.folios.is_hugetlb[at]) if of_users else folio >= 0
    own = (tails - pages.head_row[tails]) < (1 << s.layout.memmap.page_shift) // s.layout.memmap.page_size
    keep = (folio >= 0) & wanted & (own | ~s.hvo_folio[at]) & ~s.compound_wrong[at] & s.folios.readable[at]
    return tails[keep]


@rule(
    "tail-flags-unexpected",
    PAGE,
    "compound",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    needs=PAGES,
    decides="I9 7",
)
def tail_flags_unexpected(s: Snapshot) -> Violations:
    """A tail page carries a flag that only the head of a folio may have.

    Invariant: of the flags a tail has but its own PG_anon_exclusive and PG_hwpoison; the first tail has those that it
        keeps for the folio beside (PG_has_hwpoisoned, PG_large_rmappable, PG_partially_mapped, PG_double_map, and since
        6.6 the order).
    Why: mm/page_alloc.c, __free_pages_prepare() clears the flags of every page that is freed, so that all are given out
        with none; include/linux/page-flags.h: nearly all flags are PF_HEAD or PF_NO_TAIL, and of those that any page
        may carry (PF_ANY) the owners of user memory set no other on a tail.
    Consequence: "Bad page state" when the folio is freed or split; code that tests a page instead of its folio errs.
    Exceptions: the compound page belongs to a driver, which may flag its pages as it likes; it is a vmemmap alias of
        hugetlb; nobody has a reference to the folio (it is being split or freed).
    See also: folioscope page PFN
    """
    pages, flags = s.pages, s.layout.flags
    tails = _real_tails(s, of_users=True)
    if not len(tails):
        return holds(0)
    head = pages.head_row[tails]
    known = np.uint64((1 << (max(flags.bits.values(), default=0) + 1)) - 1)
    everywhere = np.bitwise_or.reduce([flags.mask(name) for name in _OF_PAGES])
    second = np.bitwise_or.reduce([flags.mask(name) for name in _OF_SECOND])
    if s.layout.order_in_flags:
        second |= _ORDER
    allowed = np.where(tails - head == 1, everywhere | second, everywhere)
    odd = pages.flags[tails] & known & ~allowed
    wrong = np.flatnonzero(odd)
    rows = tails[wrong]
    missing, why = _missing(s)
    return violations(
        rows,
        observed={"flags": _names(s, odd[wrong])},
        expected={"flags": np.full(len(rows), "none of these")},
        checked=len(tails),
        unread=cannot_check(missing, why),
        facts={"tail_index": rows - head[wrong]},
        transient=pages.refcount[head[wrong]] == 0,
    )


def _names(s: Snapshot, words: U64) -> AnyArray:
    return np.array([",".join(s.layout.flags.names(word)) for word in words.tolist()], dtype=np.str_)


@rule(
    "tail-zone-mismatch",
    PAGE,
    "compound",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    needs=PAGES,
    decides="I9 8",
    was="tail-in-another-zone",
)
def tail_zone_mismatch(s: Snapshot) -> Violations:
    """A page of a folio says that it lies in another zone or node than the folio's head.

    Invariant: the node and zone bits of all pages of a compound page are the same.
    Why: mm/mm_init.c, set_page_links() writes them once for each page; blocks of the buddy allocator lie in one zone
        (mm/page_alloc.c, __free_one_page()), and so do gigantic folios (zone_spans_last_pfn()).
    Consequence: the page is freed to another zone's lists and counted there.
    Exceptions: the widths of these bits cannot be told; the struct page is a vmemmap alias of hugetlb.
    See also: folioscope page PFN
    """
    pages, mask = s.pages, s.layout.zone_bits
    tails = _real_tails(s, of_users=False)
    if not mask:
        return holds(0, unread=cannot_check(len(tails), "the widths of the node and zone bits cannot be told"))
    head = pages.head_row[tails]
    differ = ((pages.flags[tails] ^ pages.flags[head]) & np.uint64(mask)) != 0
    rows, heads = tails[differ], head[differ]
    missing, why = _missing(s)
    shift = np.uint64((mask & -mask).bit_length() - 1)
    return violations(
        rows,
        observed={"node_and_zone": (pages.flags[rows] & np.uint64(mask)) >> shift},
        expected={"node_and_zone": (pages.flags[heads] & np.uint64(mask)) >> shift},
        checked=len(tails),
        unread=cannot_check(missing, why),
        facts={"tail_index": rows - heads},
    )


@rule(
    "refcount-invalid",
    PAGE,
    "page-words",
    Phase.WORDS,
    decides="I5 9",
    was="refcount-negative",
)
def refcount_invalid(s: Snapshot) -> Violations:
    """A page has fewer references than none.

    Invariant: _refcount of every page is 0 or more.
    Why: include/linux/page_ref.h: put_page_testzero() has VM_BUG_ON_PAGE(page_ref_count(page) == 0); a reference given
        back twice goes below it.
    Consequence: the page was freed once too often: it may be in use by two owners, or is never freed again.
    Exceptions: never.
    See also: folioscope explain PFN
    """
    pages = s.pages
    rows: I64 = np.flatnonzero(pages.readable & (pages.refcount < 0))
    missing, why = _missing(s)
    return violations(
        rows,
        observed={"_refcount": pages.refcount[rows]},
        expected={"at_least": np.zeros(len(rows), np.int64)},
        checked=int(pages.readable.sum()),
        unread=cannot_check(missing, why),
    )


@rule(
    "page-type-invalid",
    PAGE,
    "page-words",
    Phase.WORDS,
    decides="I1 11",
    was="page-type-unknown",
)
def page_type_invalid(s: Snapshot) -> Violations:
    """A page has a type that this kernel does not have.

    Invariant: the word shared by _mapcount and the page type is a count, -1, or one of the kernel's types.
    Why: include/linux/page-flags.h, enum pagetype and PAGE_TYPE_OPS().
    Consequence: the word was overwritten: the page counts neither as mapped nor as free, and dump_page() shows
        nonsense.
    Exceptions: the struct page was never initialised (all ones: no section of memory uses it).
    See also: folioscope page PFN
    """
    pages = s.pages
    typed: Mask = s.layout.types.is_typed(pages.mapcount_raw.view(np.uint32))
    rows: I64 = np.flatnonzero(typed & (pages.type_ == 0) & pages.readable)
    words = pages.mapcount_raw[rows].view(np.uint32)
    unknown = ~s.layout.types.is_known(words)
    rows = rows[unknown]
    missing, why = _missing(s)
    return violations(
        rows,
        observed={"page_type": words[unknown]},
        expected={"page_type": np.full(len(rows), "a count or a known type")},
        checked=int(pages.readable.sum()),
        unread=cannot_check(missing, why),
    )


@rule(
    "has-hwpoisoned-missing",
    PAGE,
    "targets",
    Phase.FOLIO_COUNTS,
    decides="I9 15",
    severity="warn",
    was="poisoned-page-unsaid",
)
def has_hwpoisoned_missing(s: Snapshot) -> Violations:
    """A large folio has a page of broken memory but does not say so.

    Invariant: a large folio of user memory, hugetlb aside, one of whose pages has PG_hwpoison carries
        PG_has_hwpoisoned.
    Why: mm/memory-failure.c, memory_failure() sets both before it splits the folio; a folio that could not be split
        keeps them.
    Consequence: mm/memory.c, do_set_pmd() maps the whole folio with one entry, the broken page too; since 6.12 the
        readers of tmpfs (mm/shmem.c) copy across it.
    Exceptions: the folio is locked, or nobody has a reference to it: a split is at work. memory_failure() marks the
        page first, and gives up before it marks the folio when it cannot get hold of the page: a warning only.
    See also: folioscope folio PFN
    """
    flags, folios, pages = s.layout.flags, s.folios, s.pages
    if not flags.mask("hwpoison") or not flags.mask("has_hwpoisoned"):
        return holds(0)
    poisoned: I64 = np.flatnonzero(flags.test(pages.flags, "hwpoison") & pages.readable)
    folio = s.folio_of_page[poisoned]
    poisoned = poisoned[folio >= 0]
    folio = folio[folio >= 0]
    large = folios.is_rmappable[folio] & ~folios.is_hugetlb[folio] & folios.readable[folio]
    poisoned, folio = poisoned[large], folio[large]
    head = folios.row[folio]
    unsaid = ~flags.test(pages.flags[head + 1], "has_hwpoisoned")
    rows, head = poisoned[unsaid], head[unsaid]
    missing, why = _missing(s)
    return violations(
        rows,
        observed={"has_hwpoisoned": np.zeros(len(rows), np.bool_)},
        expected={"has_hwpoisoned": np.ones(len(rows), np.bool_)},
        checked=len(poisoned),
        unread=cannot_check(missing, why),
        transient=flags.test(pages.flags[head], "locked") | (pages.refcount[head] == 0),
    )
