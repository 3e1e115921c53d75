"""Rules of the swap cache: slots, folios and flags tell of each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.columns import I64, U64, Mask, expand_runs, rows_of
from inspector.layout.flags import MAPPING_ANON, MAPPING_TAGS
from inspector.rules.needs import EVERYTHING
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE, SWAP_SLOT
from inspector.tables.pages import page_words
from inspector.violations import Violations, cannot_check, one, violations
from inspector.walk.page_cache import folio_pages
from inspector.windows.locks import pages_locked
from inspector.windows.swap import read_past_cache, reclaim_in_flight
from inspector.windows.window import Effect


def _swap_backed(s: Snapshot, rows: I64, flag: str) -> Mask:
    """Heads that carry PG_swapcache with or without PG_swapbacked; its bit means other things on other folios."""
    flags, word = s.layout.flags, s.pages.flags[rows]
    marked: Mask = flags.test(word, "swapcache") & (s.pages.type_[rows] == 0)
    return marked & flags.test(word, "swapbacked") if flag == "swapbacked" else marked


@dataclass(frozen=True)
class _Claims:
    """Folios that say they are in the swap cache.

    Attributes:
        head: int64; rows of their heads.
        first: uint64; entry of their first page.
        nr: int64; pages.
    """

    head: I64
    first: U64
    nr: I64


def _claims(s: Snapshot) -> _Claims:
    pages = s.pages
    own = pages.head_row == np.arange(len(pages), dtype=np.int32)
    rows = np.flatnonzero(own & pages.readable & (pages.refcount > 0))
    head = rows[_swap_backed(s, rows, "swapbacked")]
    first, _ = page_words(s.layout, pages, head, "private")
    return _Claims(head, first, np.minimum(folio_pages(s, head), 1 << s.layout.pmd_order))


def _unread(s: Snapshot) -> tuple[int, str]:
    missing = s.swap.unreadable + int((~s.pages.readable).sum())
    return missing, "swap slots or struct pages are missing" if missing else ""


@rule(
    "swapcache-slot-mismatch",
    SWAP_SLOT,
    "swap-cache",
    Phase.FOLIO_COUNTS,
    after=(
        "lazyfree-swapcache-unexpected",
        "shmem-swap-slot-mismatch",
    ),
    effect=Effect.SWAP,
    needs=EVERYTHING,
    decides="121",
)
def swapcache_slot_mismatch(s: Snapshot) -> Violations:
    """The swap cache leads from a slot to a folio that does not belong to it.

    Invariant: the folio that the cache has for a slot carries PG_swapcache, and its swap entry, plus the page's place
        in it, is the slot; the slot says that it is cached.
    Why: mm/swap_state.c, add_to_swap_cache(), __swap_cache_add_folio(); folio->swap is kept in page->private.
    Consequence: a process that reads the slot back gets another page.
    Exceptions: the folio is locked: it is on its way in or out.
    See also: folioscope folio PFN; folioscope swap ENTRY
    """
    slots, pages = s.swap.slots, s.pages
    cached = np.flatnonzero(slots.cache_pfn >= 0)
    row = pages.memmap.rows(slots.cache_pfn[cached])
    safe = np.maximum(row, 0)
    readable = pages.readable[safe] & (row >= 0)
    is_head = (row >= 0) & (pages.head_row[safe] == row)
    marked = is_head & _swap_backed(s, safe, "swapbacked")
    first, _ = page_words(s.layout, pages, safe, "private")
    place = slots.entry[cached] - first
    belongs = place < folio_pages(s, safe).astype(np.uint64)
    bad = np.flatnonzero((~(marked & belongs) & (readable | (row < 0))) | ~slots.has_cache[cached])
    rows = cached[bad]
    missing, why = _unread(s)
    return violations(
        rows,
        observed={"swapcache": marked[bad], "swap_entry": first[bad], "has_cache": slots.has_cache[rows]},
        expected={
            "swapcache": np.ones(len(bad), np.bool_),
            "swap_entry": slots.entry[rows],
            "has_cache": np.ones(len(bad), bool),
        },
        checked=len(cached),
        unread=cannot_check(missing, why),
        facts={"pfn": slots.cache_pfn[rows]},
        claims=one("swap_slot", rows) + one("folio", np.where(is_head[bad], slots.cache_pfn[rows], -1)),
        depends=one("swap_slot", rows),
        transient=pages_locked(s, row[bad]),
    )


@rule(
    "swapcache-folio-missing",
    PAGE,
    "swap-cache",
    Phase.FOLIO_COUNTS,
    after=("swapcache-slot-mismatch",),
    effect=Effect.SWAP,
    needs=EVERYTHING,
    decides="121",
    was="swapcache-folio-unlisted",
)
def swapcache_folio_missing(s: Snapshot) -> Violations:
    """A folio says that it is in the swap cache, but the cache does not lead from its slots to it.

    Invariant: every page of a folio with PG_swapcache is found through the slot that folio->swap names for it.
    Why: mm/swap_state.c, add_to_swap_cache() and delete_from_swap_cache() change both under the folio lock.
    Consequence: the slot is read again from the device: two copies of one page, and the newer one may be lost.
    Exceptions: the folio is locked or frozen.
    See also: folioscope folio PFN; folioscope swap ENTRY
    """
    claims, slots = _claims(s), s.swap.slots
    entry = expand_runs(claims.first.view(np.int64), claims.nr)
    owner = np.repeat(np.arange(len(claims.head)), claims.nr)
    pfn = s.pages.memmap.pfns_of_rows(claims.head)
    slot = rows_of(slots.entry, entry)
    there = (slot >= 0) & (slots.cache_pfn[np.maximum(slot, 0)] == pfn[owner]) if len(slots) else slot >= 0
    lacking = np.bincount(owner[~there], minlength=len(claims.head)).astype(np.int64)
    bad = np.flatnonzero(lacking)
    first_lost = np.full(len(claims.head), -1, np.int64)
    first_lost[owner[~there][::-1]] = slot[~there][::-1]
    missing, why = _unread(s)
    if s.swap.unreadable:
        return violations(bad[:0], observed={}, expected={}, checked=0, unread=cannot_check(missing, why))
    return violations(
        claims.head[bad],
        observed={"pages_found_through_slots": claims.nr[bad] - lacking[bad], "swap_entry": claims.first[bad]},
        expected={"pages_found_through_slots": claims.nr[bad]},
        checked=len(claims.head),
        unread=cannot_check(missing, why),
        depends=one("swap_slot", first_lost[bad]),
        transient=pages_locked(s, claims.head[bad]),
    )


@rule(
    "lazyfree-swapcache-unexpected",
    PAGE,
    "swap-cache",
    Phase.FOLIO_COUNTS,
    effect=Effect.SWAP,
    needs=EVERYTHING,
    decides="128",
    was="lazyfree-in-swapcache",
)
def lazyfree_swapcache_unexpected(s: Snapshot) -> Violations:
    """A folio that may be dropped without being written is in the swap cache.

    Invariant: an anonymous folio without PG_swapbacked (MADV_FREE, VM_DROPPABLE) is never in the swap cache.
    Why: mm/swap.c, folio_mark_lazyfree() leaves folios of the swap cache alone; mm/vmscan.c, shrink_folio_list() gives
        slots to PG_swapbacked folios only.
    Consequence: reclaim drops the folio while its slot still refers to it: content is lost.
    Exceptions: never.
    See also: folioscope folio PFN
    """
    pages = s.pages
    own = pages.head_row == np.arange(len(pages), dtype=np.int32)
    anon = (pages.mapping & np.uint64(MAPPING_TAGS)) == MAPPING_ANON
    rows = np.flatnonzero(own & anon & pages.readable & (pages.refcount > 0) & (pages.type_ == 0))
    rows = rows[~s.layout.flags.test(pages.flags[rows], "swapbacked")]
    bad = rows[_swap_backed(s, rows, "")]
    return violations(
        bad,
        observed={"swapcache": np.ones(len(bad), np.bool_), "swapbacked": np.zeros(len(bad), np.bool_)},
        expected={"swapcache": np.zeros(len(bad), np.bool_)},
        checked=len(rows),
    )


@rule(
    "swap-slot-user-missing",
    SWAP_SLOT,
    "swap-cache",
    Phase.FOLIO_COUNTS,
    after=("swapcache-slot-mismatch",),
    effect=Effect.SWAP,
    needs=EVERYTHING,
    decides="121 125",
    severity="warn",
    was="swap-slot-held-by-nobody",
)
def swap_slot_user_missing(s: Snapshot) -> Violations:
    """A swap slot is marked as cached or in use, but no folio is in the swap cache for it.

    Invariant: SWAP_HAS_CACHE means that the swap cache has a folio; with swap tables a slot without references is
        cached.
    Why: mm/swapfile.c, put_swap_folio() and swap_entries_free(); mm/swap_state.c.
    Consequence: the slot is never freed, and who reads it back waits for ever.
    Exceptions: the slot lies in a CPU's own cache of slots (mm/swap_slots.c, before 6.15), or some swap-backed folio is
        locked: a slot is marked before its folio is put in, and longer than it is in; or a page fault reads the slot
        from a memory device past the cache and marks it meanwhile.
    See also: folioscope swap ENTRY
    """
    slots = s.swap.slots
    whole = s.swap.whole[slots.device_idx] if len(slots) else slots.is_bad
    nobody = (slots.count == 0) & slots.in_use & ~slots.is_shmem
    lost = (slots.has_cache | nobody) & (slots.cache_pfn < 0) & ~slots.set_aside & ~slots.is_bad
    rows = np.flatnonzero(lost & whole)
    missing, why = _unread(s)
    return violations(
        rows,
        observed={"stored": slots.raw[rows], "count": slots.count[rows], "folio": np.full(len(rows), "none")},
        expected={"folio": np.full(len(rows), "one in the swap cache")},
        checked=int(slots.in_use.sum()),
        unread=cannot_check(missing, why),
        claims=one("swap_slot", rows),
        depends=one("swap_slot", rows),
        transient=read_past_cache(s, rows) | reclaim_in_flight(s),
    )
