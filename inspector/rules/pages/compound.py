"""Rules of compound pages: heads, tails, sizes, and the words of tails."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask, rows_of, take_or
from inspector.layout.flags import type_code
from inspector.rules.needs import PAGES
from inspector.rules.page_pieces import PagePiece
from inspector.rules.pieces import Judged
from inspector.rules.registry import Phase, page_rule, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO
from inspector.tables.pages import FIRST_PLAIN_TAIL
from inspector.violations import Details, Violations, cannot_check, details, unread_pages, violations
from inspector.windows.window import Effect

_TAIL_MAPPING = np.uint64(0xDEAD000000000400)
"""TAIL_MAPPING (include/linux/poison.h) with the illegal pointer delta of 64-bit kernels."""

_OF_PAGES = ("anon_exclusive", "hwpoison")
"""Flags that each page of a folio has of its own (include/linux/page-flags.h, PF_ANY and PF_HEAD of each)."""
_OF_SECOND = ("double_map", "has_hwpoisoned", "large_rmappable", "partially_mapped")
"""Flags that the first tail keeps for its folio (PF_SECOND)."""
_ORDER = np.uint64(0xFF)
"""Bits of the first tail's flags that hold the folio's order since 6.6 (struct folio, _flags_1)."""


def _head_named(s: Snapshot, rows: I64) -> Details:
    pages, head, folio = s.pages, s.pages.head_row[rows].astype(np.int64), s.folio_of_page[rows]
    pfn = pages.memmap.pfns_of_rows(head)
    order = take_or(s.folios.order, folio, 0).astype(np.int64)
    return details(rows, observed={"head_pfn": pfn}, expected={}, facts={"head_order": order})


@page_rule(
    "tail-head-invalid",
    _head_named,
    "compound",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    needs=PAGES,
    decides="I9 1 3",
    was="tail-without-head",
)
def tail_head_invalid(p: PagePiece) -> Judged:
    """compound_head of a tail page does not point to the head of a compound page around it.

    Invariant: compound_head (or the mask in compound_info, since 7.1) of every tail leads to a page with PG_head, at
        most the folio's size before it.
    Why: include/linux/page-flags.h, _compound_head(); mm/page_alloc.c, prep_compound_page().
    Consequence: every operation on that page changes the counts of another folio.
    Exceptions: the head's struct page is not in the dump. The fake heads of hugetlb vmemmap optimisation resolve.
    See also: folioscope page PFN
    """
    tails = p.is_tail & p.readable
    size = np.int64(1) << np.minimum(p.of_folio(p.s.folios.order, 0), 40).astype(np.int64)
    outside = ~p.has_head | ~p.is_large | (p.index < 0) | (p.index >= size)
    # When the folio's own size is what is wrong, that is one cause: compound-size-mismatch names it.
    sized = p.of_folio(p.s.compound_wrong, 0)
    return Judged(tails & outside & p.of_head("readable") & ~sized, tails, p.unread)


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
    """The order of a compound page differs from its cached size, its alignment or its number of tails.

    Invariant: the cached number of pages is 1 << order; the head's page frame is a multiple of it; as many pages as
        that, less one, are its tails.
    Why: mm/page_alloc.c, prep_compound_page() and folio_set_order().
    Consequence: mapping, splitting or freeing it touches too few or too many pages.
    Exceptions: some of its struct pages are not in the dump; it has no references, no page type and is not hugetlb: it
        is being made or freed (prep_compound_page(), __free_pages_prepare()), which takes no lock.
    See also: folioscope folio PFN
    """
    folios, pages = s.folios, s.pages
    rows = np.flatnonzero(s.compound_wrong)
    head = folios.row[rows]
    return violations(
        rows,
        observed={"order": folios.order[rows], "nr_pages": folios.nr_stored[rows], "tails": s.nr_tails[rows]},
        expected={"nr_pages": folios.nr_pages[rows], "tails": folios.nr_pages[rows] - 1},
        checked=folios.readable,
        unread=unread_pages(s),
        transient=(pages.refcount[head] == 0) & (pages.type_[head] == 0) & ~folios.is_hugetlb[rows],
    )


def _tail_words(s: Snapshot, rows: I64) -> Details:
    """The words of some tails; of those whose mapping holds other fields of the folio any mapping is right."""
    index, mapping = rows - s.pages.head_row[rows], s.pages.mapping[rows]
    alias = take_or(s.hvo_folio, s.folio_of_page[rows], False) & (index >= s.layout.memmap.structs_a_page)
    other = (index < FIRST_PLAIN_TAIL) | alias
    charge = np.where(other, 0, take_or(s.claimed_pages.memcg_data, rows_of(s.claimed_pages.row, rows), 0))
    return details(
        rows,
        observed={"_refcount": s.pages.refcount[rows], "mapping": mapping, "memcg_data": charge},
        expected={"_refcount": 0, "mapping": np.where(other, mapping, _TAIL_MAPPING), "memcg_data": 0},
        facts={"tail_index": index},
    )


@page_rule(
    "tail-page-damaged",
    _tail_words,
    "compound",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    needs=PAGES,
    decides="I9 5 6",
)
def tail_page_damaged(p: PagePiece) -> Judged:
    """The _refcount of a tail page is not 0, its mapping is not TAIL_MAPPING, or it is charged by itself.

    Invariant: the reference count of a tail is 0, and from the fifth page of a folio on its mapping is TAIL_MAPPING and
        its memcg_data 0.
    Why: mm/page_alloc.c, prep_compound_tail() sets the first two, free_tail_page_prepare() tests the mapping and
        free_page_is_bad() the charge; mm/memcontrol.c, commit_charge() writes the head alone.
    Consequence: "corrupted mapping in tail page" when the folio is freed; a speculative reference to a tail succeeds.
    Exceptions: hugetlb's vmemmap optimisation aliases the struct page with another one.
    See also: folioscope page PFN
    """
    tails = p.is_tail & p.readable & p.has_head
    # An alias of the head shows the head's own fields, and PG_head, which no real tail has.
    alias = p.has("head")
    plain = (p.index >= FIRST_PLAIN_TAIL) & ~alias & _is_own(p)
    wrong = ((p.refcount != 0) & ~alias) | (plain & ((p.mapping != _TAIL_MAPPING) | p.is_claimed))
    return p.judge(wrong, tails)


def _is_own(p: PagePiece) -> Mask:
    """Pages whose struct page is their own.

    Of a hugetlb folio under vmemmap optimisation only those in the first page of its memory map are: the rest are
    aliases of them, with the head's or the first tail's words, or of a page that many folios share
    (mm/hugetlb_vmemmap.c).
    """
    return (p.index < p.s.layout.memmap.structs_a_page) | ~p.of_folio(p.s.hvo_folio, 0)


def _real_tails(p: PagePiece) -> Mask:
    """Tails of sound compound pages whose struct page is their own."""
    s = p.s
    sound = p.of_folio(s.folios.readable & ~s.compound_wrong, 0)
    return p.is_tail & p.readable & p.has_head & sound & _is_own(p)


def _odd_flags(s: Snapshot, flags: U64, index: I64, hugetlb: Mask) -> U64:
    """Flags that a tail may not have, given its own, its number in the folio, and whether that is hugetlb's."""
    known = np.uint64((1 << (max(s.layout.flags.bits.values(), default=0) + 1)) - 1 | s.layout.lru_bits)
    everywhere = np.bitwise_or.reduce([s.layout.flags.mask(name) for name in _OF_PAGES])
    second = np.bitwise_or.reduce([s.layout.flags.mask(name) for name in _OF_SECOND])
    if s.layout.order_in_flags:
        second |= _ORDER
    own = np.where(index == 1, everywhere | second, everywhere)
    return flags & known & ~np.where(hugetlb, own & ~s.layout.flags.mask("anon_exclusive"), own)


def _tail_flags(s: Snapshot, rows: I64) -> Details:
    head = s.pages.head_row[rows]
    hugetlb = take_or(s.folios.is_hugetlb, s.folio_of_page[rows], False)
    odd = _odd_flags(s, s.pages.flags[rows], rows - head, hugetlb)
    return details(
        rows,
        observed={"flags": s.layout.flags.listed(odd), "generation": odd & np.uint64(s.layout.lru_bits) != 0},
        expected={"flags": "none of these", "generation": False},
        facts={"tail_index": rows - head},
        transient=s.pages.refcount[head] == 0,
    )


@page_rule(
    "tail-flags-unexpected",
    _tail_flags,
    "compound",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    needs=PAGES,
    decides="I9 7",
)
def tail_flags_unexpected(p: PagePiece) -> Judged:
    """A tail page has a flag that only the head of a folio may have.

    Invariant: of the flags a tail has but its own PG_anon_exclusive and PG_hwpoison; the first tail has those that it
        keeps for the folio beside (PG_has_hwpoisoned, PG_large_rmappable, PG_partially_mapped, PG_double_map, and since
        6.6 the order). It has no generation of an LRU list. Of hugetlb only the head is marked as exclusive.
    Why: mm/page_alloc.c, __free_pages_prepare() clears the flags of every page that is freed, so that all are given out
        with none; include/linux/page-flags.h: nearly all flags are PF_HEAD or PF_NO_TAIL, and of those that any page
        may carry (PF_ANY) the owners of user memory and of slabs set no other on a tail.
    Consequence: "Bad page state" when the folio is freed or split; code that tests a page instead of its folio errs.
    Exceptions: the compound page belongs to a driver, which may flag its pages as it likes; it is a vmemmap alias of
        hugetlb; the folio has no references (it is being split or freed).
    See also: folioscope page PFN
    """
    slab = p.of_head("type_") == type_code("slab")
    tails = _real_tails(p) & (p.of_folio(p.s.folios.is_rmappable | p.s.folios.is_hugetlb, 0) | slab)
    return p.judge(_odd_flags(p.s, p.flags, p.index, p.is_hugetlb) != 0, tails)


def _zones(s: Snapshot, rows: I64) -> Details:
    mask, head = s.layout.zone_bits, s.pages.head_row[rows]
    shift = np.uint64((mask & -mask).bit_length() - 1) if mask else np.uint64(0)
    return details(
        rows,
        observed={"node_and_zone": (s.pages.flags[rows] & np.uint64(mask)) >> shift},
        expected={"node_and_zone": (s.pages.flags[head] & np.uint64(mask)) >> shift},
        facts={"tail_index": rows - head},
    )


@page_rule(
    "tail-zone-mismatch",
    _zones,
    "compound",
    Phase.STRUCTURES,
    effect=Effect.PAGES,
    needs=PAGES,
    decides="I9 8",
    was="tail-in-another-zone",
)
def tail_zone_mismatch(p: PagePiece) -> Judged:
    """The zone or node in the flags of a tail page differs from that of the folio's head.

    Invariant: the node and zone bits of all pages of a compound page are the same.
    Why: mm/mm_init.c, set_page_links() writes them once for each page; blocks of the buddy allocator lie in one zone
        (mm/page_alloc.c, __free_one_page()), and so do gigantic folios (zone_spans_last_pfn()).
    Consequence: the page is freed to another zone's lists and counted there.
    Exceptions: the widths of these bits are not known; the struct page is a vmemmap alias of hugetlb.
    See also: folioscope page PFN
    """
    mask, tails = np.uint64(p.s.layout.zone_bits), _real_tails(p)
    if not mask:
        why = "the widths of the node and zone bits are not known"
        return Judged(p.nothing, p.nothing, cannot_check(p.count(tails), why))
    return p.judge(((p.flags ^ p.of_head("flags")) & mask) != 0, tails)
