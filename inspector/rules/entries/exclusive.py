"""Rules of exclusive anonymous pages: which of them may be written without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np

from inspector.columns import I64, Mask, expand_runs, take_or
from inspector.layout.flags import MAPPING_KSM, MAPPING_TAGS, VM_SHARED
from inspector.rules.diagnosis import cow_break
from inspector.rules.page_pieces import PagePiece, look_through_pages
from inspector.rules.pieces import EntryPiece, Judged, Judgement, MappedPages, mapped_pages
from inspector.rules.registry import Phase, entry_rule, page_rule, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.tables.mms import MMF_HAS_PINNED
from inspector.violations import Details, Violations, details, one, unread_pages, violations
from inspector.walk.batches import Collector, EntryBatch, run_collectors
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import entry_pages
from inspector.walk.references import PIN_BIAS
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect


def exclusive_pages(p: PagePiece) -> Mask:
    """Pages with PG_anon_exclusive.

    The bit means other things on other pages, so that the folio is tested first. Of a hugetlb folio only the head
    counts: its tails may be aliases of it.
    """
    return p.has("anon_exclusive") & p.readable & p.is_anon & ~(p.is_hugetlb & p.is_tail)


def page_mappers(s: Snapshot, rows: I64) -> tuple[I64, I64]:
    """How many entries map each of the given pages, and how many mms they belong to.

    Args:
        s: The snapshot.
        rows: Rows of pages, ascending.
    """
    if not len(rows):
        return rows, rows
    found = MappersOfPages(s, rows)
    run_collectors(s, [found])
    return found.entries, found.mms()


class MappersOfPages(Collector):
    """Counts the entries and the mms that map each of some pages.

    Args:
        s: The snapshot.
        rows: Rows of pages, ascending.

    Attributes:
        entries: int64[n]; entries that map each.
    """

    def __init__(self, s: Snapshot, rows: I64) -> None:
        super().__init__(s)
        self._rows = rows
        self._pairs = np.empty(0, np.int64)
        self.entries = np.zeros(len(rows), np.int64)

    def take(self, batch: EntryBatch) -> None:
        """Look through a batch."""
        m = batch.m
        first = m.page_row.astype(np.int64)
        low = np.searchsorted(self._rows, first)
        hits = np.searchsorted(self._rows, first + entry_pages(self.s.layout, m.level) * m.nr) - low
        hits[(m.entry_class != EntryClass.NORMAL) | ~m.counted] = 0
        owner = np.flatnonzero(hits)
        if len(owner):
            place = expand_runs(low[owner], hits[owner]).astype(np.int64)
            np.add.at(self.entries, place, 1)
            pairs = place * (len(self.s.mms) + 1) + np.repeat(m.mm_idx[owner], hits[owner])
            self._pairs = np.unique(np.concatenate([self._pairs, pairs]))

    def gathered(self) -> list[Any]:
        """As `Collector.gathered`."""
        return [self.entries, self._pairs]

    def merge(self, gathered: list[Any]) -> None:
        """As `Collector.merge`."""
        entries, pairs = gathered
        self.entries += entries
        self._pairs = np.union1d(self._pairs, pairs)

    def mms(self) -> I64:
        """int64[n]; mms that map each."""
        owner = self._pairs // (len(self.s.mms) + 1)
        return np.bincount(owner, minlength=len(self._rows)).astype(np.int64)


def _mappers(s: Snapshot, rows: I64) -> Details:
    entries, mms = page_mappers(s, rows)
    return details(
        rows,
        observed={"anon_exclusive": True, "mappings": entries},
        expected={"anon_exclusive": False, "mappings": "1, or a clear bit"},
        facts={
            "mms": mms,
            "huge_mappings": take_or(s.counts.entire, s.folio_of_page[rows], 0),
            "page_index": rows - s.pages.head_row[rows],
        },
    )


@page_rule(
    "exclusive-page-mapcount-high",
    _mappers,
    "exclusive",
    Phase.STATES,
    effect=Effect.ENTRIES,
    decides="I7 33",
    was="exclusive-page-mapped-twice",
    diagnose=cow_break("the page is marked as mapped once, but more entries map it: writes are not copied"),
)
def exclusive_page_mapcount_high(p: PagePiece) -> Judged:
    """An anonymous page with PG_anon_exclusive is mapped more than once.

    Invariant: PG_anon_exclusive on a page means that one entry maps it: P_i + E <= 1. While a PMD maps the folio, or
        for hugetlb, only the head has the bit.
    Why: mm/rmap.c, folio_add_anon_rmap_*() asserts it; include/linux/rmap.h, folio_try_dup_anon_rmap_*() clears the bit
        before fork maps the page a second time.
    Consequence: a write through one mapping makes no copy: parent and child see each other's data.
    Exceptions: the page is not mapped: zapping leaves the bit until the page is freed. KSM pages have a rule of their
        own (ksm-page-exclusive-unexpected).
    See also: folioscope folio PFN
    """
    tail_under_huge_entry = (p.entire > 0) & p.is_tail
    return p.judge((p.mapped + p.entire > 1) | tail_under_huge_entry, exclusive_pages(p) & ~p.is_ksm)


@rule(
    "exclusive-page-mm-count-high",
    PAGE,
    "exclusive",
    Phase.STATES,
    after=("exclusive-page-mapcount-high",),
    effect=Effect.ENTRIES,
    decides="I7 36",
    was="exclusive-page-in-several-mms",
    diagnose=cow_break(
        "the page is marked as one process's own, but several map it: writes by one are not copied, so that the others "
        "see them"
    ),
)
def exclusive_page_mm_count_high(s: Snapshot) -> Violations:
    """An anonymous page with PG_anon_exclusive is mapped by several mms.

    Invariant: PG_anon_exclusive means "exclusive to one process": all mappings of the page lie in one mm.
    Why: include/linux/page-flags.h, PG_anon_exclusive; mm/memory.c, copy_present_ptes() clears it at fork.
    Consequence: what one process writes the other one reads: a leak between processes.
    Exceptions: the page is not mapped.
    See also: folioscope folio PFN
    """
    # No predicate over pieces: which mms map a page is known from all mappings only.
    found = Judgement(_exclusive_but_shared)
    look_through_pages(s, found)
    rows = found.rows
    _, mms = page_mappers(s, rows)
    bad = mms > 1
    return violations(
        rows[bad], observed={"mms": mms[bad]}, expected={"mms": 1}, checked=found.checked, unread=unread_pages(s)
    )


def _exclusive_but_shared(p: PagePiece) -> Judged:
    """Exclusive pages, and those of them that several entries map."""
    exclusive = exclusive_pages(p)
    return Judged(exclusive & (p.mapped + p.entire > 1) & ~p.is_ksm, exclusive)


def _ksm_state(s: Snapshot, rows: I64) -> Details:
    return details(
        rows,
        observed={
            "anon_exclusive": s.layout.flags.test(s.pages.flags[rows], "anon_exclusive"),
            "large": s.folio_of_page[rows] >= 0,
        },
        expected={"anon_exclusive": False, "large": False},
    )


@page_rule(
    "ksm-page-exclusive-unexpected",
    _ksm_state,
    "exclusive",
    Phase.PAGE_COUNTS,
    effect=Effect.ENTRIES,
    decides="I7 35",
    was="exclusive-ksm-page",
)
def ksm_page_exclusive_unexpected(p: PagePiece) -> Judged:
    """A KSM page has PG_anon_exclusive, or is part of a large folio.

    Invariant: KSM pages are small and shared by intention: never exclusive.
    Why: mm/ksm.c, write_protect_page() clears the bit before a page becomes a KSM page and splits large folios.
    Consequence: a write through one mapping changes the page under all processes that were merged onto it.
    Exceptions: the page is free, or on no LRU list and unmapped: other owners use its mapping word for other data.
    See also: folioscope ksm; folioscope folio PFN
    """
    ksm = ((p.mapping & np.uint64(MAPPING_TAGS)) == MAPPING_KSM) & (p.type == 0) & p.readable & ~p.is_tail
    of_users = (p.refcount > 0) & (p.has("lru") | (p.mapped > 0))
    return p.judge((p.has("anon_exclusive") | p.is_large) & of_users, ksm)


def _not_exclusive(pages: MappedPages) -> MappedPages:
    return pages.where(pages.is_anon & ~pages.has("anon_exclusive"))


def _shared_pages(s: Snapshot, rows: I64) -> Details:
    m = s.entries(rows)
    found = _not_exclusive(mapped_pages(s, m))
    first = found.first
    head = s.pages.head_row[first].astype(np.int64)
    pfns = s.pages.memmap.pfns_of_rows
    return details(
        rows,
        observed={"writable": True, "anon_exclusive": False},
        expected={"anon_exclusive": "set, or the entry read-only"},
        facts={
            "entry": m.entry,
            "pages": found.nr,
            "first_pfn": pfns(first),
            "ksm": s.pages.is_ksm(head),
        },
        claims=one("folio", pfns(head)),
        transient=mm_in_flight(s)[m.mm_idx],
    )


@entry_rule(
    "writable-page-exclusive-missing",
    _shared_pages,
    "exclusive",
    Phase.STATES,
    effect=Effect.ENTRIES,
    decides="I7 34",
    was="writable-entry-without-exclusive",
    diagnose=cow_break("an entry allows writing to a page that may be shared: no fault comes to copy it first"),
)
def writable_page_exclusive_missing(e: EntryPiece) -> Judged:
    """A writable entry maps an anonymous page without PG_anon_exclusive.

    Invariant: an entry of an anonymous page lets user space write only if the page, the head under a PMD and for
        hugetlb, has PG_anon_exclusive.
    Why: mm/memory.c, do_wp_page() and can_change_pte_writable() set the bit before the entry becomes writable; fork
        clears it and write-protects both entries.
    Consequence: the copy on write is skipped: other processes that map the page see the write.
    Exceptions: fork works on the mm (mmap_lock held for writing: the bit goes before the entry is protected); a shared
        VMA (shared-vma-anon-page-unexpected).
    See also: folioscope va PID ADDRESS; folioscope folio PFN
    """
    pages = e.pages(e.writable & e.is_normal & ~e.vma_has(VM_SHARED))
    return Judged(e.with_any(_not_exclusive(pages)), pages.count(pages.is_anon), e.unread)


def _never_pinned(s: Snapshot, rows: I64) -> Details:
    m = s.entries(rows)
    head = np.maximum(m.head_row, 0)
    folio = s.folio_of_page[head]
    return details(
        rows,
        observed={"has_pinned": False},
        expected={"has_pinned": True},
        facts={
            "pins": np.where(folio >= 0, take_or(s.folios.pincount, folio, 0), s.pages.refcount[head] // PIN_BIAS),
            "pfn": s.pages.memmap.pfns_of_rows(head.astype(np.int64)),
        },
        claims=one("mm", m.mm_idx),
        depends=one("folio", s.pages.memmap.pfns_of_rows(s.pages.head_row[head].astype(np.int64))),
    )


@entry_rule(
    "has-pinned-flag-missing",
    _never_pinned,
    "exclusive",
    Phase.TOTALS,
    effect=Effect.ENTRIES,
    severity="warn",
    exactness="bound",
)
def has_pinned_flag_missing(e: EntryPiece) -> Judged:
    """A process maps an exclusive page that is pinned, and its mm says that it never pinned any.

    Invariant: an mm that maps an exclusive anonymous page of a folio with pins has MMF_HAS_PINNED.
    Why: mm/gup.c, mm_set_has_pinned_flag() sets it before the first pin, and nothing clears it. Only an exclusive page
        is pinned, and only one mm maps it.
    Consequence: fork does not ask whether pages may be pinned: it shares them, and the next write of the process goes
        to a copy that the device does not see.
    Exceptions: pins of small folios are known from their references alone (1024 each), so that other references may
        look like pins: a warning, no failure.
    See also: folioscope ps; folioscope folio PFN
    """
    s = e.s
    never = (s.mms.flags & MMF_HAS_PINNED) == 0
    head = np.maximum(e.head_row, 0)
    folio = s.folio_of_page[head]
    beyond = s.pages.refcount[head].astype(np.int64) - (s.pages.mapcount_raw[head].astype(np.int64) + 1)
    small = (folio < 0) & s.anon_pages[head] & ~s.pages.is_ksm(head) & (beyond >= PIN_BIAS)
    large = take_or(s.folios.is_anon & ~s.folios.is_ksm & (s.folios.pincount > 0), folio, False)
    pinned = e.is_normal & (e.head_row >= 0) & (small | large)
    if not pinned.any():
        return Judged(e.nothing, 0, e.unread)
    pages = e.pages(pinned & never[e.mm_idx])
    return Judged(e.with_any(pages.where(pages.has("anon_exclusive"))), e.count(pinned), e.unread)


def _pins(s: Snapshot, rows: I64) -> Details:
    pins = take_or(s.folios.pincount, s.folio_of_page[rows], 0)
    return details(
        rows,
        observed={
            "pins": np.where(s.folio_of_page[rows] >= 0, pins, s.pages.refcount[rows] // PIN_BIAS),
            "exclusive_pages": 0,
        },
        expected={"exclusive_pages": "at least 1"},
    )


@page_rule(
    "pinned-page-exclusive-missing",
    _pins,
    "exclusive",
    Phase.STATES,
    after=("writable-page-exclusive-missing",),
    effect=Effect.ENTRIES,
    decides="I7 71",
    severity="warn",
    exactness="bound",
    was="pinned-page-not-exclusive",
)
def pinned_page_exclusive_missing(p: PagePiece) -> Judged:
    """A pinned anonymous folio that is mapped has no page with PG_anon_exclusive.

    Invariant: get_user_pages() with FOLL_PIN pins anonymous pages only when they are exclusive, and a pinned page stays
        so while it is mapped: fork copies it and migration leaves it alone.
    Why: mm/gup.c, gup_must_unshare(); include/linux/rmap.h, folio_try_share_anon_rmap_*() fails on pinned pages.
    Consequence: the next write of the process goes to a copy: the device does not see it.
    Exceptions: the folio is not mapped. Pins of small folios are known from their references alone (1024 each), so that
        other references may look like pins: a warning, no failure.
    See also: folioscope folio PFN
    """
    folios = p.s.folios
    small = ~p.is_large & p.readable & ~p.is_tail & p.is_anon & ~p.is_ksm & (p.mapped > 0)
    small &= p.refcount - p.mapped >= PIN_BIAS
    pinned = folios.readable & folios.is_anon & ~folios.is_ksm & (folios.pincount > 0) & (p.s.folio_totals > 0)
    able = small | (p.of_folio(pinned, 0) & ~p.is_tail)
    here = np.flatnonzero(able)
    # The pages of a folio are all in the piece; of hugetlb the head represents all.
    nr = take_or(np.where(folios.is_hugetlb, 1, folios.nr_pages), p.folio[here], 1)
    marked = np.concatenate([[0], np.cumsum(p.has("anon_exclusive"))])
    wrong = p.nothing
    wrong[here] = marked[np.searchsorted(p.rows, p.rows[here] + nr)] == marked[here]
    return p.judge(wrong, able)
