"""Rules of LRU lists: their sizes, and the generation in the flags of a page."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, take_or
from inspector.rules.cause import Causes
from inspector.rules.lru.lists import lru_folio_unexpected, lru_list_mismatch, lru_list_missing
from inspector.rules.lru.mlock import mlocked_unevictable_missing
from inspector.rules.needs import PAGES, ZONES
from inspector.rules.page_pieces import PagePiece
from inspector.rules.pages.compound import compound_size_mismatch, tail_flags_unexpected, tail_head_invalid
from inspector.rules.pages.free_pages import free_page_state_unexpected
from inspector.rules.pages.page_flags import page_flags_invalid, page_flags_unexpected, page_zone_mismatch
from inspector.rules.pieces import Judged
from inspector.rules.registry import Phase, Rule, page_rule, rule
from inspector.rules.swap.swap_cache import lazyfree_swapcache_unexpected
from inspector.snapshot import Snapshot
from inspector.subjects import ZONE
from inspector.tables.buddy import LRU_ITEMS
from inspector.tables.lru import pages_on_lru
from inspector.violations import Details, Violations, cannot_check, details, holds, violations
from inspector.windows.holders import runs_on
from inspector.windows.window import named

_AT_WORK = named(
    "lru_add lru_add_fn folio_batch_move_lru pagevec_lru_move_fn lruvec_add_folio lruvec_del_folio lru_gen_add_folio"
    " lru_gen_del_folio move_folios_to_lru move_pages_to_lru isolate_lru_folios isolate_lru_pages isolate_folios"
    " isolate_lru_page folio_isolate_lru scan_folios sort_folio isolate_folio evict_folios inc_min_seq inc_max_seq"
    " try_to_inc_max_seq folio_inc_gen folio_update_gen walk_pte_range walk_pmd_range_locked lru_gen_look_around"
    " lru_gen_change_state fill_evictable drain_evictable shrink_inactive_list shrink_active_list shrink_folio_list"
    " __page_cache_release page_cache_release __folio_put folios_put_refs release_pages lru_deactivate"
    " lru_deactivate_fn lru_deactivate_file lru_deactivate_file_fn lru_lazyfree lru_lazyfree_fn lru_move_tail"
    " lru_move_tail_fn lru_activate folio_activate folio_activate_fn lru_add_drain_cpu __mlock_folio __mlock_new_folio"
    " __munlock_folio __mlock_page __mlock_new_page __munlock_page mlock_folio mlock_folio_batch mlock_pagevec"
    " check_move_unevictable_folios split_huge_page_to_list split_huge_page_to_list_to_order __split_huge_page"
    " __folio_split __split_unmapped_folio __split_folio_to_order __folio_freeze_and_split_unmapped lru_add_page_tail"
    " lru_add_split_folio isolate_migratepages_block lru_note_cost mem_cgroup_migrate lru_reparent_memcg"
    " __update_lru_size lru_gen_reparent_memcg memcg_reparent_objcgs folio_add_lru __folio_batch_add_and_move"
    " folio_mark_lazyfree lru_gen_refault folio_split_memcg_refs"
)
"""Functions that put folios on LRU lists, take them off, or change the flags that say on which one they are: mm/swap.c,
mm/vmscan.c, mm/mlock.c, mm/huge_memory.c, mm/compaction.c, include/linux/mm_inline.h."""


def _is_at_work(s: Snapshot) -> bool:
    """Whether a task is in such a function."""
    return s.stacks.any_in(_AT_WORK)


def _generation(s: Snapshot, rows: I64) -> Details:
    bits = s.layout.lru_gen_bits
    shift = np.uint64((bits & -bits).bit_length() - 1) if bits else np.uint64(0)
    flags = s.pages.flags[rows]
    on_list = s.layout.flags.test(flags, "lru") & ~s.layout.flags.test(flags, "unevictable")
    return details(
        rows,
        observed={"generation": (flags & np.uint64(bits)) >> shift, "flags": s.layout.flags.listed(flags)},
        expected={"generation": np.where(on_list, "one from 1 to 4, without active", "0")},
        transient=np.full(len(rows), _is_at_work(s)),
    )


_MAX_GENERATION = 4
"""MAX_NR_GENS (include/linux/mmzone.h)."""


@page_rule("lru-generation-mismatch", _generation, "lru", Phase.STATES, needs=PAGES | frozenset(("tasks",)))
def lru_generation_mismatch(p: PagePiece) -> Judged:
    """The generation in a page's flags and its place on LRU lists exclude each other.

    Invariant: where folios have generations (multi-generation LRU), those on an LRU list that can be evicted have one
        of 1 to 4 and no PG_active; all other pages have generation 0.
    Why: include/linux/mm_inline.h, lru_gen_add_folio() and lru_gen_del_folio(), both under lru_lock.
    Consequence: the folio is taken off the list of another generation; the sizes of both are wrong from then on.
    Exceptions: a task is in a function that moves folios between lists; tails; struct pages never initialised.
    See also: folioscope page PFN
    """
    bits = p.s.layout.lru_gen_bits
    if not bits or runs_on(p.s):
        return Judged(p.nothing, p.nothing)
    shift = np.uint64((bits & -bits).bit_length() - 1)
    among = p.readable & ~p.is_tail & (p.flags != np.uint64((1 << 64) - 1)) & ~p.in_free_block
    among &= (p.type == 0) | p.is_hugetlb
    generation = (p.flags & np.uint64(bits)) >> shift
    on_list = p.has("lru") & ~p.has("unevictable")
    if not p.s.uses_generations:
        return p.judge(generation != 0, among)
    wrong = np.where(
        on_list, (generation == 0) | (generation > np.uint64(_MAX_GENERATION)) | p.has("active"), generation != 0
    )
    return p.judge(wrong, among)


_OF_FLAGS = (
    page_flags_invalid,
    page_zone_mismatch,
    page_flags_unexpected,
    free_page_state_unexpected,
    compound_size_mismatch,
    tail_head_invalid,
    tail_flags_unexpected,
    lazyfree_swapcache_unexpected,
    lru_generation_mismatch,
    lru_list_missing,
    lru_folio_unexpected,
    lru_list_mismatch,
    mlocked_unevictable_missing,
)
"""Rules that say which flags of a page, or which size of a folio, are wrong."""


def _settle(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach sizes that are off by no more than the pages whose flags are wrong."""
    faulty = {head: cause for head, cause in causes.of_folio.items() if cause.rule in _OF_FLAGS}
    off = causes.of(rule)
    if not off or not faulty:
        return
    folio = take_or(s.folio_of_page, s.pages.memmap.rows(np.array(list(faulty), np.int64)), -1)
    # A folio that is broken itself may say that it has none.
    pages = int(np.maximum(np.where(folio >= 0, take_or(s.folios.nr_pages, folio, 1), 1), 1).sum())
    root = next(iter(faulty.values()))
    for cause in off:
        names = cause.violations.details.observed
        gaps = [abs(int(cause.observed(name)[0]) - int(cause.expected(name)[0])) for name in names]
        if max(gaps, default=0) <= pages:
            causes.attach(cause, root)


@rule(
    "lru-size-mismatch",
    ZONE,
    "lru",
    Phase.TOTALS,
    needs=PAGES | ZONES | frozenset(("tasks",)),
    decides="105",
    severity="warn",
    settle=_settle,
)
def lru_size_mismatch(s: Snapshot) -> Violations:
    """The pages of a zone whose flags put them on LRU lists are not as many as the zone counts.

    Invariant: the pages of folios with PG_lru are, by PG_swapbacked and PG_unevictable and where there are no
        generations by PG_active, as many as NR_ZONE_INACTIVE_ANON and its neighbours say, the per-CPU parts added;
        those of folios with PG_mlocked as many as NR_MLOCK.
    Why: include/linux/mm_inline.h, lruvec_add_folio() and lruvec_del_folio() count by these flags, which change while a
        folio is on no list; mm/mlock.c, __mlock_folio() and __munlock_folio().
    Consequence: a folio lost from the lists is never reclaimed; one that is taken off another list than it was put on
        leaves both counts wrong, and "VM_WARN_ON_ONCE(size < 0)" follows.
    Exceptions: a task is in a function that moves folios between lists; a kernel that runs on.
    See also: folioscope memory
    """
    zones = s.buddy.zones
    if runs_on(s):
        return holds(0, note="sizes of LRU lists change while the kernel runs")
    if s.pages.nr_unreadable or s.buddy.unreadable:
        return holds(0, cannot_check(len(zones), "struct pages or zones are missing"))
    found, stored, names = pages_on_lru(s.layout, s.pages, s.folios, zones), zones.on_lru, list(LRU_ITEMS)
    if s.uses_generations:
        # Whether a generation counts as active is not in the flags (lru_gen_is_active()).
        found, stored = (
            np.stack([x[:, 0] + x[:, 1], x[:, 2] + x[:, 3], x[:, 4], x[:, 5]], axis=1) for x in (found, stored)
        )
        names = ["NR_ZONE_ANON", "NR_ZONE_FILE", *LRU_ITEMS[4:]]
    off = found != stored
    rows = np.flatnonzero(off.any(axis=1))
    shown = [at for at in range(len(names)) if off[:, at].any()]
    return violations(
        rows,
        observed={names[at]: stored[rows, at] for at in shown},
        expected={names[at]: found[rows, at] for at in shown},
        checked=len(zones),
        transient=np.full(len(rows), len(rows) > 0 and _is_at_work(s)),
    )
