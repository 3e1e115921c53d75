"""Rules of page flags: the zone they name, bits without a meaning, and flags that pages of a kind never have."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask
from inspector.layout.flags import type_code
from inspector.rules.needs import PAGES, ZONES
from inspector.rules.page_pieces import PagePiece
from inspector.rules.pieces import Judged
from inspector.rules.registry import Phase, page_rule
from inspector.snapshot import Snapshot
from inspector.tables.zone_spans import of_no_zone
from inspector.violations import Details, cannot_check, details
from inspector.windows.window import Effect

_NEVER_INITIALISED = np.uint64((1 << 64) - 1)
"""Flags of struct pages that no memory uses (mm/page_alloc.c, page_init_poison())."""


def _links(s: Snapshot, rows: I64) -> Details:
    mask = s.layout.zone_bits
    shift = np.uint64((mask & -mask).bit_length() - 1) if mask else np.uint64(0)
    spans, pfn = s.zone_spans, s.pages.memmap.pfns_of_rows(rows)
    right = np.zeros(len(rows), np.uint64)
    for first, end, links in zip(spans.first_pfn.tolist(), spans.end_pfn.tolist(), spans.links, strict=True):
        right[(pfn >= first) & (pfn < end)] = links
    return details(
        rows,
        observed={"node_and_zone": (s.pages.flags[rows] & np.uint64(mask)) >> shift},
        expected={"node_and_zone": right >> shift},
    )


@page_rule(
    "page-zone-mismatch",
    _links,
    "page-words",
    Phase.WORDS,
    needs=PAGES | ZONES,
    decides="I9 8",
)
def page_zone_mismatch(p: PagePiece) -> Judged:
    """The zone or node in the flags of a page is none that spans the page.

    Invariant: the node and zone bits of a page in use name a zone that spans its page frame.
    Why: mm/mm_init.c, set_page_links() writes them from the zone that the page is initialised for; page_zone() in
        include/linux/mm.h is all that says to whose free lists the page goes.
    Consequence: the page is freed to another zone's lists and counted there; a zone that does not exist is memory
        behind node_data[].
    Exceptions: tails (they are compared with their head); reserved pages, for holes are initialised with the zone
        behind them, or with none (init_unavailable_range(), init_reserved_page()); memory that is offline; the widths
        of these bits are not known.
    See also: folioscope page PFN
    """
    s = p.s
    judged = p.readable & ~p.is_tail & ~p.has("reserved") & (p.flags != _NEVER_INITIALISED)
    if not len(s.zone_spans):
        why = "the zones of page frames are not known"
        return Judged(p.nothing, p.nothing, cannot_check(p.count(judged), why))
    pfn = s.pages.memmap.pfns_of_rows(p.rows)
    return p.judge(of_no_zone(s.zone_spans, s.layout.zone_bits, pfn, p.flags), judged)


def _bits(s: Snapshot, rows: I64) -> Details:
    odd = s.pages.flags[rows] & np.uint64(s.layout.unused_flag_bits)
    return details(rows, observed={"unused_bits": odd}, expected={"unused_bits": 0})


@page_rule("page-flags-invalid", _bits, "page-words", Phase.WORDS)
def page_flags_invalid(p: PagePiece) -> Judged:
    """A bit of a page's flags is set that means nothing on this kernel.

    Invariant: between the flags and what is kept above them (the last NUMA fault, the generation of multi-generation
        LRU) unused bits of the word are 0.
    Why: include/linux/page-flags-layout.h; nothing writes these bits (set_page_links(), set_mask_bits()).
    Consequence: the word was overwritten: what else was beside it is not what it should be either.
    Exceptions: the layout of the word is not known; struct pages that were never initialised.
    See also: folioscope page PFN
    """
    odd = (p.flags & np.uint64(p.s.layout.unused_flag_bits)) != 0
    return p.judge(odd, p.readable & (p.flags != _NEVER_INITIALISED))


_OF_NO_USER = ("arch_1", "arch_2", "uncached")
"""Of pages in drivers' hands alone (arch/x86/mm/pat/memtype.c, set_page_memtype())."""

_NEVER = {
    "anonymous": ("private", "private_2", "dropbehind", *_OF_NO_USER),
    "file": ("reserved", *_OF_NO_USER),
    "hugetlb": (
        *("lru", "active", "swapcache", "reclaim", "swapbacked", "unevictable", "mlocked", "private", "private_2"),
        *("error", "reserved", "writeback", "dropbehind", *_OF_NO_USER),
    ),
    "slab": (
        *("referenced", "uptodate", "dirty", "lru", "waiters", "error", "owner_priv_1", "mappedtodisk", "owner_2"),
        *("private", "private_2", "writeback", "reclaim", "swapbacked", "unevictable", "mlocked", "young", "idle"),
        "dropbehind",
    ),
    "page table": (
        *("uptodate", "lru", "active", "waiters", "error", "mappedtodisk", "private", "private_2", "writeback"),
        *("reclaim", "swapbacked", "unevictable", "mlocked", "young", "idle", "dropbehind"),
    ),
}
"""By the kind of a page the flags that no code sets on such pages, under the names they have in any kernel."""


def _never(s: Snapshot, kind: str) -> np.uint64:
    mask = np.uint64(0)
    for name in _NEVER[kind]:
        mask |= s.layout.flags.mask(name)
    if kind in {"slab", "page table"}:
        mask |= np.uint64(s.layout.lru_bits)
    return mask


def _kinds(p: PagePiece) -> dict[str, Mask]:
    """The pages of each kind, heads and small pages alone."""
    own = p.readable & ~p.is_tail
    plain = own & (p.type == 0) & ~p.is_hugetlb
    used = p.has("lru") | p.is_mapped
    return {
        "anonymous": plain & p.is_anon & used,
        "file": plain & ~p.is_anon & p.has("lru"),
        "hugetlb": own & p.is_hugetlb,
        "slab": own & (p.type == type_code("slab")),
        "page table": own & (p.type == type_code("table")),
    }


def _unexpected(s: Snapshot, rows: I64) -> Details:
    pages, listed = s.pages, s.layout.flags.listed
    names = s.page_type_names(rows)
    folio = s.folio_of_page[rows]
    hugetlb = (folio >= 0) & s.folios.is_hugetlb[np.maximum(folio, 0)] if len(s.folios) else folio >= 0
    anon = pages.is_anon(rows)
    kind = np.select(
        [hugetlb, names == "slab", names == "table", anon], ["hugetlb", "slab", "page table", "anonymous"], "file"
    )
    masks = np.array([_never(s, each) for each in kind.tolist()], np.uint64)
    # Of the two that exclude each other both are shown.
    both = s.layout.flags.mask("active") | s.layout.flags.mask("unevictable")
    masks |= np.where((pages.flags[rows] & both) == both, both, np.uint64(0))
    odd = pages.flags[rows] & masks
    return details(
        rows,
        observed={"flags": listed(odd)},
        expected={"flags": "none of these"},
        facts={"kind": kind},
    )


@page_rule("page-flags-unexpected", _unexpected, "page-words", Phase.STRUCTURES, effect=Effect.PAGES)
def page_flags_unexpected(p: PagePiece) -> Judged:
    """A page has a flag that no page of its kind ever has.

    Invariant: anonymous pages have no private data, file pages on an LRU list are not reserved, pages of hugetlb, slabs
        and page tables have no flags of the LRU lists and none of a file system; user memory has no cache attributes of
        a driver. A page on an LRU list is not both active and unevictable (folio_lru_list()).
    Why: mm/page_alloc.c, __free_pages_prepare() clears all flags of every page that is freed, so that pages are given
        out with none (PAGE_FLAGS_CHECK_AT_PREP); the owners of these kinds set no others: mm/slub.c (SL_locked,
        SL_partial, SL_pfmemalloc), mm/hugetlb.c (its own are in folio->private), include/linux/mm.h (PT_kernel).
    Consequence: code that asks for the flag takes the page for another one: reclaim isolates it, a file system looks
        for its data behind it.
    Exceptions: the page belongs to a driver or the page is a tail (see tail-flags-unexpected).
    See also: folioscope page PFN
    """
    wrong, among = p.has("lru") & p.has("active") & p.has("unevictable"), p.nothing
    for kind, some in _kinds(p).items():
        wrong = wrong | (some & ((p.flags & _never(p.s, kind)) != 0))
        among = among | some
    return p.judge(wrong, among)
