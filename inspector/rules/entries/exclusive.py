"""Rules of exclusive anonymous pages: which of them may be written without a copy."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, AnyArray, Mask, expand_runs, take_or
from inspector.rules.diagnosis import cow_break
from inspector.rules.entries.entries import anon_pages, in_shared_vma, offending, writable
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import ENTRY, PAGE
from inspector.violations import Violations, cannot_check, one, violations
from inspector.walk.counts import EntryClass
from inspector.walk.rss import entry_pages
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect

PIN_BIAS = 1024
"""GUP_PIN_COUNTING_BIAS, include/linux/mm.h: what one pin adds to the references of a small folio."""


def exclusive_pages(s: Snapshot) -> tuple[I64, I64]:
    """Rows of the pages that carry PG_anon_exclusive in earnest, and rows of their heads.

    The bit means other things on other pages, so that the folio is tested first. Of a hugetlb folio only the head is
    looked at: its tails may be aliases of it.
    """
    pages, folios = s.pages, s.folios
    rows = np.flatnonzero(s.layout.flags.test(pages.flags, "anon_exclusive") & pages.readable & (pages.head_row >= 0))
    head = pages.head_row[rows].astype(np.int64)
    keep = pages.is_anon(head)
    if len(folios):
        folio = s.folio_of_page[rows]
        safe = np.maximum(folio, 0)
        keep = np.where((folio >= 0) & folios.is_hugetlb[safe], folios.is_anon[safe] & (head == rows), keep)
    return rows[keep], head[keep]


def page_mappers(s: Snapshot, rows: I64) -> tuple[I64, I64]:
    """How many entries map each of the given pages, and how many mms they belong to.

    Args:
        s: The snapshot.
        rows: Rows of pages, ascending.
    """
    m, n = s.mappings, len(s.pages)
    mark = np.zeros(n, np.bool_)
    mark[rows] = True
    before = np.concatenate([[0], np.cumsum(mark)])
    normal = np.flatnonzero((s.counts.entry_class == EntryClass.NORMAL) & m.counted)
    first = s.pages.memmap.rows(m.pfn[normal])
    span = entry_pages(s.layout, m.level[normal]) * m.nr[normal]
    hits = before[np.minimum(first + span, n)] - before[first]
    owner = np.repeat(normal, hits)
    place = expand_runs(before[first[hits > 0]], hits[hits > 0]).astype(np.int64)
    entries = np.bincount(place, minlength=len(rows)).astype(np.int64)
    pairs = np.unique(place * (len(s.mms) + 1) + m.mm_idx[owner])
    return entries, np.bincount(pairs // (len(s.mms) + 1), minlength=len(rows)).astype(np.int64)


def _entire(s: Snapshot, rows: I64) -> I64:
    """Huge entries of the folio that each page belongs to."""
    folio = s.folio_of_page[rows]
    if not len(s.folios):
        return np.zeros(len(rows), np.int64)
    return take_or(s.counts.entire, folio, 0).astype(np.int64)


def _unreadable(s: Snapshot) -> tuple[int, str]:
    missing = int((~s.pages.readable).sum())
    return missing, "struct pages are missing" if missing else ""


@rule(
    "exclusive-page-mapcount-high",
    PAGE,
    "exclusive",
    Phase.STATES,
    effect=Effect.ENTRIES,
    decides="I7 33",
    was="exclusive-page-mapped-twice",
    diagnose=cow_break("the page is marked as mapped once, but more entries map it: writes are not copied"),
)
def exclusive_page_mapcount_high(s: Snapshot) -> Violations:
    """An anonymous page marked exclusive is mapped more than once.

    Invariant: PG_anon_exclusive on a page means that one entry maps it: P_i + E <= 1. While a PMD maps the folio, or
        for hugetlb, only the head carries the bit.
    Why: mm/rmap.c, folio_add_anon_rmap_*() asserts it; include/linux/rmap.h, folio_try_dup_anon_rmap_*() clears the bit
        before fork maps the page a second time.
    Consequence: a write through one mapping makes no copy: parent and child see each other's data.
    Exceptions: the page is not mapped: zapping leaves the bit until the page is freed. KSM pages have a rule of their
        own (ksm-page-exclusive-unexpected).
    See also: folioscope folio PFN
    """
    rows, head = exclusive_pages(s)
    plain = ~s.pages.is_ksm(head)
    rows, head = rows[plain], head[plain]
    entire = _entire(s, rows)
    tail = (entire > 0) & (rows != head)
    bad = np.flatnonzero((s.counts.page_mappings[rows] + entire > 1) | tail)
    entries, mms = page_mappers(s, rows[bad])
    missing, why = _unreadable(s)
    return violations(
        rows[bad],
        observed={"anon_exclusive": np.ones(len(bad), np.bool_), "mappings": entries},
        expected={"anon_exclusive": np.zeros(len(bad), np.bool_), "mappings": np.full(len(bad), "1, or a clear bit")},
        checked=len(rows),
        unread=cannot_check(missing, why),
        facts={"mms": mms, "huge_mappings": entire[bad], "page_index": rows[bad] - head[bad]},
    )


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
    """An anonymous page marked exclusive is mapped by several processes.

    Invariant: PG_anon_exclusive means "exclusive to one process": all mappings of the page lie in one mm.
    Why: include/linux/page-flags.h, PG_anon_exclusive; mm/memory.c, copy_present_ptes() clears it at fork.
    Consequence: what one process writes the other one reads: a leak between processes.
    Exceptions: the page is not mapped.
    See also: folioscope folio PFN
    """
    rows, head = exclusive_pages(s)
    checked = len(rows)
    rows = rows[(s.counts.page_mappings[rows] + _entire(s, rows) > 1) & ~s.pages.is_ksm(head)]
    _, mms = page_mappers(s, rows)
    bad = np.flatnonzero(mms > 1)
    missing, why = _unreadable(s)
    return violations(
        rows[bad],
        observed={"mms": mms[bad]},
        expected={"mms": np.ones(len(bad), np.int64)},
        checked=checked,
        unread=cannot_check(missing, why),
    )


@rule(
    "ksm-page-exclusive-unexpected",
    PAGE,
    "exclusive",
    Phase.PAGE_COUNTS,
    effect=Effect.ENTRIES,
    decides="I7 35",
    was="exclusive-ksm-page",
)
def ksm_page_exclusive_unexpected(s: Snapshot) -> Violations:
    """A KSM page is marked exclusive, or is part of a large folio.

    Invariant: KSM pages are small and shared by intention: never exclusive.
    Why: mm/ksm.c, write_protect_page() clears the bit before a page becomes a KSM page and splits large folios.
    Consequence: a write through one mapping changes the page under all processes that were merged onto it.
    Exceptions: the page is free or on no LRU list and unmapped: other users keep something else in its mapping word.
    See also: folioscope ksm; folioscope folio PFN
    """
    pages = s.pages
    ksm: I64 = np.flatnonzero(((pages.mapping & np.uint64(3)) == 3) & (pages.type_ == 0) & pages.readable)
    ksm = ksm[pages.head_row[ksm] == ksm]
    marked = s.layout.flags.test(pages.flags[ksm], "anon_exclusive")
    large = s.folio_of_page[ksm] >= 0
    bad = np.flatnonzero((marked | large) & ~_unused(s, ksm))
    missing, why = _unreadable(s)
    return violations(
        ksm[bad],
        observed={"anon_exclusive": marked[bad], "large": large[bad]},
        expected={"anon_exclusive": np.zeros(len(bad), np.bool_), "large": np.zeros(len(bad), np.bool_)},
        checked=len(ksm),
        unread=cannot_check(missing, why),
    )


def _unused(s: Snapshot, rows: I64) -> Mask:
    """Free pages, and others that keep something else in ``mapping``: pages that are not on the LRU's books."""
    lru = s.layout.flags.test(s.pages.flags[rows], "lru") | (s.counts.page_mappings[rows] > 0)
    return (s.pages.refcount[rows] <= 0) | ~lru


@rule(
    "writable-page-exclusive-missing",
    ENTRY,
    "exclusive",
    Phase.STATES,
    effect=Effect.ENTRIES,
    decides="I7 34",
    was="writable-entry-without-exclusive",
    diagnose=cow_break("an entry allows writing to a page that may be shared: no fault comes to copy it first"),
)
def writable_page_exclusive_missing(s: Snapshot) -> Violations:
    """A writable entry maps an anonymous page that is not exclusive to the process.

    Invariant: an entry of an anonymous page lets user space write only if the page, the head under a PMD and for
        hugetlb, carries PG_anon_exclusive.
    Why: mm/memory.c, do_wp_page() and can_change_pte_writable() set the bit before the entry becomes writable; fork
        clears it and write-protects both entries.
    Consequence: the copy on write is skipped: other processes that map the page see the write.
    Exceptions: fork works on the mm (mmap_lock held for writing: the bit goes before the entry is protected); a shared
        VMA (shared-vma-anon-page-unexpected).
    See also: folioscope va PID ADDRESS; folioscope folio PFN
    """
    m = s.mappings
    anon = anon_pages(s)
    rows = np.flatnonzero(writable(s) & (s.counts.entry_class == EntryClass.NORMAL) & ~in_shared_vma(s))
    found = offending(s, rows, anon & ~s.layout.flags.test(s.pages.flags, "anon_exclusive"))
    bad = found.rows
    missing, why = _unreadable(s)
    return violations(
        bad,
        observed={"writable": np.ones(len(bad), np.bool_), "anon_exclusive": np.zeros(len(bad), np.bool_)},
        expected={"anon_exclusive": np.full(len(bad), "set, or the entry read-only")},
        checked=int(offending(s, rows, anon).pages.sum()),
        unread=cannot_check(missing, why),
        facts={
            "entry": m.entry[bad],
            "pages": found.pages,
            "first_pfn": found.first_pfn(s),
            "ksm": s.pages.is_ksm(np.maximum(s.pages.head_row[found.first], 0).astype(np.int64)),
        },
        claims=one("folio", found.first_head(s)),
        transient=mm_in_flight(s)[m.mm_idx[bad]],
    )


@rule(
    "pinned-page-exclusive-missing",
    PAGE,
    "exclusive",
    Phase.STATES,
    after=("writable-page-exclusive-missing",),
    effect=Effect.ENTRIES,
    decides="I7 71",
    severity="warn",
    exactness="bound",
    was="pinned-page-not-exclusive",
)
def pinned_page_exclusive_missing(s: Snapshot) -> Violations:
    """A pinned anonymous folio that is mapped has no exclusive page.

    Invariant: get_user_pages() with FOLL_PIN pins anonymous pages only when they are exclusive, and a pinned page stays
        so while it is mapped: fork copies it and migration leaves it alone.
    Why: mm/gup.c, gup_must_unshare(); include/linux/rmap.h, folio_try_share_anon_rmap_*() fails on pinned pages.
    Consequence: the device and the process part ways: the next write of the process goes to a copy.
    Exceptions: the folio is not mapped. Pins of small folios are told by their references alone (1024 each), so that
        other references may look like pins: a warning, no failure.
    See also: folioscope folio PFN
    """
    pages, folios = s.pages, s.folios
    mapped = (s.counts.page_mappings > 0) & pages.readable & ~pages.is_tail
    mapped[folios.row] = False
    small = np.flatnonzero(mapped & (pages.refcount >= PIN_BIAS))
    excess = pages.refcount[small] - s.counts.page_mappings[small]
    small = small[pages.is_anon(small) & ~pages.is_ksm(small) & (excess >= PIN_BIAS)]
    pinned = folios.readable & folios.is_anon & ~folios.is_ksm & (folios.pincount > 0) & (s.folio_totals > 0)
    big = np.flatnonzero(pinned)
    marked = np.concatenate([[0], np.cumsum(s.layout.flags.test(pages.flags, "anon_exclusive"))])
    rows = np.concatenate([small, folios.row[big]])
    nr = np.concatenate([np.ones(len(small), np.int64), np.where(folios.is_hugetlb[big], 1, folios.nr_pages[big])])
    none = marked[np.minimum(rows + nr, len(pages))] == marked[rows]
    pins: AnyArray = np.concatenate([pages.refcount[small] // PIN_BIAS, folios.pincount[big]])
    bad = np.flatnonzero(none)
    missing, why = _unreadable(s)
    return violations(
        rows[bad],
        observed={"pins": pins[bad], "exclusive_pages": np.zeros(len(bad), np.int64)},
        expected={"exclusive_pages": np.full(len(bad), "at least 1")},
        checked=len(rows),
        unread=cannot_check(missing, why),
    )
