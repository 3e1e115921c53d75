"""Rules of the swap cache: slots, folios and flags name each other."""

from __future__ import annotations

import numpy as np

from inspector.columns import expand_runs, rows_of, take_or
from inspector.layout.flags import MAPPING_ANON, MAPPING_TAGS
from inspector.rules.needs import PAGES, SLOTS
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE, SWAP_SLOT
from inspector.violations import Unread, Violations, cannot_check, holds, one, violations
from inspector.walk.page_cache import folio_pages
from inspector.walk.swap_cache import has_swapcache_bit, is_swap_cached
from inspector.windows.locks import pages_locked
from inspector.windows.swap import read_past_cache, reclaim_in_flight
from inspector.windows.window import Effect


def _unread(s: Snapshot) -> Unread:
    """Swap slots and struct pages that are not in the dump."""
    return cannot_check(s.swap.unreadable + s.pages.nr_unreadable, "swap slots or struct pages are missing")


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
    needs=SLOTS,
    decides="121",
)
def swapcache_slot_mismatch(s: Snapshot) -> Violations:
    """The swap cache leads from a slot to a folio that has another swap entry.

    Invariant: the folio that the cache has for a slot carries PG_swapcache, and its swap entry, plus the page's place
        in it, is the slot; the slot says that it is cached.
    Why: mm/swap_state.c, add_to_swap_cache(), __swap_cache_add_folio(); folio->swap is kept in page->private.
    Consequence: a process that reads the slot back gets another page.
    Exceptions: the folio is locked: it is on its way in or out.
    See also: folioscope folio PFN; folioscope swap ENTRY
    """
    slots, pages = s.swap.slots, s.pages
    cached, row, first = s.swap_cache.slot, s.swap_cache.row, s.swap_cache.named
    safe = np.maximum(row, 0)
    readable = take_or(pages.readable, row, False)
    is_head = (row >= 0) & (pages.head_row[safe] == row)
    marked = is_head & is_swap_cached(s, safe)
    place = slots.entry[cached] - first
    belongs = place < folio_pages(s, safe).astype(np.uint64)
    bad = np.flatnonzero((~(marked & belongs) & (readable | (row < 0))) | ~slots.has_cache[cached])
    rows = cached[bad]
    return violations(
        rows,
        observed={"swapcache": marked[bad], "swap_entry": first[bad], "has_cache": slots.has_cache[rows]},
        expected={
            "swapcache": np.ones(len(bad), np.bool_),
            "swap_entry": slots.entry[rows],
            "has_cache": np.ones(len(bad), bool),
        },
        checked=len(cached),
        unread=_unread(s),
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
    needs=SLOTS,
    decides="121",
    was="swapcache-folio-unlisted",
)
def swapcache_folio_missing(s: Snapshot) -> Violations:
    """A folio with PG_swapcache is not in the swap cache at its slots.

    Invariant: every page of a folio with PG_swapcache is found through the slot that folio->swap names for it.
    Why: mm/swap_state.c, add_to_swap_cache() and delete_from_swap_cache() change both under the folio lock.
    Consequence: the slot is read again from the device: two copies of one page, and the newer one may be lost.
    Exceptions: the folio is locked or frozen.
    See also: folioscope folio PFN; folioscope swap ENTRY
    """
    cache, slots = s.swap_cache, s.swap.slots
    entry = expand_runs(cache.first.view(np.int64), cache.nr)
    owner = np.repeat(np.arange(len(cache.head)), cache.nr)
    pfn = s.pages.memmap.pfns_of_rows(cache.head)
    slot = rows_of(slots.entry, entry)
    there = (slot >= 0) & (take_or(slots.cache_pfn, slot, -1) == pfn[owner])
    lacking = np.bincount(owner[~there], minlength=len(cache.head)).astype(np.int64)
    bad = np.flatnonzero(lacking)
    first_lost = np.full(len(cache.head), -1, np.int64)
    first_lost[owner[~there][::-1]] = slot[~there][::-1]
    if s.swap.unreadable:
        return holds(0, _unread(s))
    return violations(
        cache.head[bad],
        observed={"pages_found_through_slots": cache.nr[bad] - lacking[bad], "swap_entry": cache.first[bad]},
        expected={"pages_found_through_slots": cache.nr[bad]},
        checked=len(cache.head),
        unread=_unread(s),
        depends=one("swap_slot", first_lost[bad]),
        transient=pages_locked(s, cache.head[bad]),
    )


@rule(
    "lazyfree-swapcache-unexpected",
    PAGE,
    "swap-cache",
    Phase.FOLIO_COUNTS,
    effect=Effect.SWAP,
    needs=PAGES,
    decides="128",
    was="lazyfree-in-swapcache",
)
def lazyfree_swapcache_unexpected(s: Snapshot) -> Violations:
    """A lazily freed folio (anonymous, without PG_swapbacked) is in the swap cache.

    Invariant: an anonymous folio without PG_swapbacked (MADV_FREE, VM_DROPPABLE) is never in the swap cache.
    Why: mm/swap.c, folio_mark_lazyfree() leaves folios of the swap cache alone; mm/vmscan.c, shrink_folio_list() gives
        slots to PG_swapbacked folios only.
    Consequence: reclaim drops the folio while its slot still refers to it: content is lost.
    Exceptions: never.
    See also: folioscope folio PFN
    """
    words = s.pages.words
    anon = (words.mapping & np.uint64(MAPPING_TAGS)) == MAPPING_ANON
    lazy = anon & words.readable & (words.refcount > 0) & (words.type_ == 0)
    rows = s.pages.heads_where(lazy & ~s.layout.flags.test(words.flags, "swapbacked"))
    bad = rows[has_swapcache_bit(s, rows)]
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
    needs=SLOTS,
    decides="121 125",
    severity="warn",
    was="swap-slot-held-by-nobody",
)
def swap_slot_user_missing(s: Snapshot) -> Violations:
    """A swap slot is marked as cached or in use, but the swap cache has no folio for it.

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
    unreferenced = (slots.count == 0) & slots.in_use & ~slots.is_shmem
    lost = (slots.has_cache | unreferenced) & (slots.cache_pfn < 0) & ~slots.set_aside & ~slots.is_bad
    rows = np.flatnonzero(lost & whole)
    return violations(
        rows,
        observed={"stored": slots.raw[rows], "count": slots.count[rows], "folio": np.full(len(rows), "none")},
        expected={"folio": np.full(len(rows), "one in the swap cache")},
        checked=int(slots.in_use.sum()),
        unread=_unread(s),
        claims=one("swap_slot", rows),
        depends=one("swap_slot", rows),
        transient=read_past_cache(s, rows) | reclaim_in_flight(s),
    )
