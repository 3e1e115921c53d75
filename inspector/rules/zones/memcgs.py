"""Rules of memory cgroups: what they count, and what is charged to them."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, AnyArray, Mask, take_or
from inspector.rules.cause import Causes
from inspector.rules.files.page_cache import caches_change, moved_between_nodes, settle_share
from inspector.rules.needs import CACHES, NO_CGROUPS, PAGES
from inspector.rules.registry import Phase, Rule, rule
from inspector.rules.settling import settle_by_pages
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO, LRUVEC, MEMCG, PAGE
from inspector.tables.memcg_counters import vector_totals, with_descendants
from inspector.tables.memcgs import Lru
from inspector.tables.pages import page_words
from inspector.violations import Violations, cannot_check, holds, one, several, violations
from inspector.walk.memcg_sums import keeps_own_usage, usage_of
from inspector.windows.holders import runs_on
from inspector.windows.window import Effect, named

_LIVE = "charges and counters are read at different moments while the kernel runs"

_CHARGING = named(
    "charge_memcg try_charge_memcg try_charge __mem_cgroup_charge mem_cgroup_swapin_charge_folio"
    " mem_cgroup_swapin_charge_page mem_cgroup_charge_skmem mem_cgroup_uncharge_skmem mem_cgroup_sk_charge"
    " mem_cgroup_sk_uncharge mem_cgroup_charge_hugetlb mem_cgroup_hugetlb_try_charge __mem_cgroup_uncharge"
    " __mem_cgroup_uncharge_list __mem_cgroup_uncharge_folios uncharge_batch uncharge_folio mem_cgroup_migrate"
    " mem_cgroup_replace_folio obj_cgroup_charge obj_cgroup_charge_account obj_cgroup_charge_pages"
    " obj_cgroup_uncharge obj_cgroup_uncharge_pages obj_cgroup_release refill_stock consume_stock drain_stock"
    " drain_stock_fully drain_local_stock drain_local_memcg_stock drain_local_obj_stock refill_obj_stock"
    " drain_obj_stock drain_all_stock memcg_uncharge cancel_charge __memcg_kmem_charge_page"
    " __memcg_kmem_uncharge_page __memcg_slab_post_alloc_hook __memcg_slab_free_hook memcg_reparent_objcgs"
    " mem_cgroup_css_offline mem_cgroup_css_free mem_cgroup_css_online mem_cgroup_css_rstat_flush"
    " mem_cgroup_flush_stats cgroup_rstat_flush_locked css_rstat_flush __folio_put folios_put_refs release_pages"
    " __free_pages free_pages_and_swap_cache free_folio_and_swap_cache free_frozen_pages free_unref_folios"
    " shrink_folio_list __remove_mapping migrate_pages migrate_pages_batch migrate_folio_move move_to_new_folio"
    " __folio_migrate_mapping folio_migrate_mapping split_huge_page_to_list split_huge_page_to_list_to_order"
    " __folio_split __split_unmapped_folio split_page_memcg folio_split_memcg_refs collapse_huge_page collapse_file"
    " split_page __mem_cgroup_try_charge_swap __mem_cgroup_uncharge_swap mem_cgroup_swapout mem_cgroup_id_get_online"
    " free_huge_folio alloc_hugetlb_folio __alloc_pages __alloc_frozen_pages_noprof __alloc_pages_noprof"
    " __mod_memcg_state mod_memcg_state __mod_memcg_lruvec_state mod_memcg_lruvec_state __mod_lruvec_state"
    " mod_lruvec_state __lruvec_stat_mod_folio lruvec_stat_mod_folio __mod_lruvec_page_state css_free_rwork_fn"
    " css_release_work_fn css_killed_work_fn offline_css online_css"
)
"""Functions that charge pages to memory cgroups and take charges back, and those that hold folios without references
while they do: mm/memcontrol.c, mm/vmscan.c, mm/migrate.c, mm/huge_memory.c, mm/khugepaged.c, kernel/cgroup."""


def _is_charging(s: Snapshot) -> bool:
    """Whether a task is in such a function, or changes mappings, caches or lists: these charge and uncharge."""
    return bool(s.in_flight.task_idx.size) or s.stacks.any_in(_CHARGING)


def _why_not(s: Snapshot) -> Violations | None:
    if runs_on(s):
        return holds(0, note=_LIVE)
    if s.memcg_counters is None:
        return holds(0, note=NO_CGROUPS)
    if s.pages.nr_unreadable:
        return holds(0, cannot_check(len(s.lru.memcgs), "struct pages are missing"))
    return None


def _settle(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach what is off to pages whose charge is wrong, or whose size is."""
    settle_by_pages(s, rule, causes)
    off = causes.of(rule)
    charges = causes.of(memcg_charge_unreachable) + [
        cause for cause in causes.of_folio.values() if "memcg_data" in cause.violations.details.observed
    ]
    for cause in off:
        if charges:
            causes.attach(cause, charges[0])


_BY_CHARGE = ("lru", "split-queue")
"""Groups of rules that ask what a folio is charged to."""


def _settle_lost(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach folios that are on the list or queue of no known memory cgroup: they are charged to what is freed."""
    roots = {int(cause.observed("memcg_data")[0]): cause for cause in causes.of(rule)}
    if not roots:
        return
    lost = sum(int(cause.observed("pages")[0]) for cause in roots.values()) << s.layout.pmd_order
    for cause in [c for c in causes if c.rule.about is LRUVEC and c.rule.phase == Phase.TOTALS]:
        if abs(int(cause.observed("stored")[0]) - int(cause.expected("stored")[0])) <= lost:
            causes.attach(cause, next(iter(roots.values())))
    others = [c for c in causes if c.rule.about in {PAGE, FOLIO} and c.rule.group in _BY_CHARGE]
    if not others:
        return
    rows = [c.first_row if c.rule.about is PAGE else int(s.folios.row[c.first_row]) for c in others]
    heads = s.pages.head_row[np.array(rows, np.int64)].astype(np.int64)
    data, _ = page_words(s.layout, s.pages, heads, "memcg_data")
    for cause, word in zip(others, data.tolist(), strict=True):
        if word in roots:
            causes.attach(cause, roots[word])


@rule(
    "memcg-charge-unreachable",
    PAGE,
    "node-counters",
    Phase.STRUCTURES,
    after=("memcg-data-invalid",),
    effect=Effect.STATISTIC,
    needs=PAGES,
    settle=_settle_lost,
)
def memcg_charge_unreachable(s: Snapshot) -> Violations:
    """Pages are charged to a memory cgroup that is freed: it is in no hierarchy.

    Invariant: a memory cgroup that pages are charged to is the root or a descendant of it. One that was removed is
        dying, and stays among its parent's children until nothing is charged to it any more.
    Why: mm/memcontrol.c, charge_memcg() takes a reference for each folio (an obj_cgroup's from 7.x on), and
        uncharge_folio() gives it back; kernel/cgroup/cgroup.c, css_release_work_fn() runs when none is left.
    Consequence: its memory is used for something else, and uncharging writes there.
    Exceptions: a memory cgroup is being made or freed. A word that one folio on an LRU list alone has is its own fault,
        and named by the list that it is on.
    See also: folioscope memcg
    """
    if runs_on(s):
        return holds(0, note=_LIVE)
    memcgs, charges = s.lru.memcgs, s.charges
    if not len(memcgs) or not s.lru.whole:
        return holds(0, note=NO_CGROUPS)
    # An obj_cgroup that is not in the dump leads nowhere that is known.
    lost = s.charged_folios.lost
    lost = lost[~s.odd_charges[lost] & ~(charges.is_lru[lost] & (charges.nr[lost] == 1))]
    rows: I64 = charges.row[lost]
    return violations(
        rows,
        observed={"memcg_data": charges.memcg_data[lost], "pages": charges.nr[lost]},
        expected={"memcg_data": "a memory cgroup"},
        checked=len(charges),
        transient=np.full(len(rows), len(rows) > 0 and _is_charging(s), np.bool_),
    )


def _beyond_children(parent: AnyArray, off: I64) -> I64:
    """Differences, by row, but for those of rows that differ as their children together do.

    Args:
        parent: int[n]; the row of the parent of each, -1 for none.
        off: int64[n] or int64[n, items].
    """
    of_children = np.zeros_like(off)
    np.add.at(of_children, parent[parent >= 0], off[parent >= 0])
    return np.where(off != of_children, off, 0)


def _by_memcg(s: Snapshot, name: str, stored: I64, right: I64, judged: Mask) -> Violations:
    """A counter of memory cgroups that their ancestors count too; one whose children explain its difference is none."""
    memcgs = s.lru.memcgs
    rows = np.flatnonzero(_beyond_children(memcgs.parent, np.where(judged, stored - right, 0)))
    return violations(
        rows,
        observed={"stored": stored[rows]},
        expected={"stored": right[rows]},
        facts={"counter": name},
        checked=int(judged.sum()),
        transient=np.full(len(rows), len(rows) > 0 and _is_charging(s), np.bool_),
    )


@rule(
    "memcg-usage-mismatch",
    MEMCG,
    "node-counters",
    Phase.TOTALS,
    after=("memcg-data-invalid", "memcg-charge-unreachable"),
    effect=Effect.STATISTIC,
    needs=PAGES,
    severity="warn",
    settle=_settle,
)
def memcg_usage_mismatch(s: Snapshot) -> Violations:
    """The usage of a memory cgroup is not what is charged to it and to its descendants.

    Invariant: memory.usage is the pages of the folios that are charged, those of kernel memory and of sockets by
        MEMCG_KMEM and MEMCG_SOCK with what is not flushed yet, and what CPUs keep for the next charges (memcg_stock).
        The folios of the root are counted nowhere.
    Why: mm/memcontrol.c, try_charge() and refill_stock(), obj_cgroup_charge_pages(), mem_cgroup_charge_skmem(),
        uncharge_batch(); mm/page_counter.c, page_counter_charge() charges all ancestors.
    Consequence: a charge was lost or given back twice: memory is limited by what is not there, or not limited, and a
        memory cgroup that was removed is never freed.
    Exceptions: a task is in a function that charges or uncharges, or holds folios without references. From 7.x on
        what is charged to a removed one goes to its parent, and its own usage stays.
    See also: folioscope memcg
    """
    counters = s.memcg_counters
    why_not = _why_not(s)
    if why_not is not None or counters is None:
        return why_not or holds(0, note=NO_CGROUPS)
    charged = s.charged_folios
    judged = keeps_own_usage(s.lru)
    if charged.unknown:
        return holds(0, cannot_check(int(judged.sum()), "what some folios are charged to is not known"))
    return _by_memcg(s, "memory.usage", counters.usage, usage_of(s, charged), judged)


@rule(
    "memcg-swap-mismatch",
    MEMCG,
    "node-counters",
    Phase.TOTALS,
    effect=Effect.STATISTIC,
    severity="warn",
)
def memcg_swap_mismatch(s: Snapshot) -> Violations:
    """The swap that a memory cgroup and its descendants count is not the slots that name them.

    Invariant: MEMCG_SWAP with what is not flushed yet is the references to the numbers (id.ref) of a memory cgroup and
        its descendants, less one for each that is online.
    Why: mm/memcontrol.c, __mem_cgroup_try_charge_swap() and __mem_cgroup_uncharge_swap(): each slot holds a reference,
        for it names the memory cgroup by its number; mem_cgroup_css_online() and mem_cgroup_css_offline().
    Consequence: a number is used again while slots still name it, or the memory cgroup is never freed.
    Exceptions: a task is in a function that charges or uncharges.
    See also: folioscope memcg
    """
    counters = s.memcg_counters
    if runs_on(s):
        return holds(0, note=_LIVE)
    if counters is None or counters.slots is None or "MEMCG_SWAP" not in counters.items:
        return holds(0, note=NO_CGROUPS)
    memcgs = s.lru.memcgs
    right = with_descendants(memcgs, counters.slots)
    return _by_memcg(s, "MEMCG_SWAP", counters.total[:, counters.items["MEMCG_SWAP"]], right, memcgs.online)


@rule(
    "memcg-stat-mismatch",
    MEMCG,
    "node-counters",
    Phase.TOTALS,
    after=("memcg-cache-mismatch",),
    effect=Effect.STATISTIC,
    severity="warn",
)
def memcg_stat_mismatch(s: Snapshot) -> Violations:
    """A statistic of a memory cgroup is not the sum of the same over nodes.

    Invariant: what a memory cgroup counts of an item of enum node_stat_item (vmstats_percpu, CPUs added) is what its
        LRU vectors count of it (lruvec_stats_percpu).
    Why: mm/memcontrol.c, __mod_memcg_lruvec_state() adds to both.
    Consequence: memory.stat and memory.numa_stat differ, and reclaim goes by one and what limits memory by the other.
    Exceptions: a task is in that function.
    See also: folioscope memcg
    """
    counters = s.memcg_counters
    if runs_on(s):
        return holds(0, note=_LIVE)
    if counters is None:
        return holds(0, note=NO_CGROUPS)
    names = sorted(counters.node_items, key=counters.node_items.__getitem__)
    at = np.array([counters.node_items[name] for name in names], np.int64)
    summed = np.zeros((len(s.lru.memcgs), len(at)), np.int64)
    np.add.at(summed, s.lru.lruvecs.memcg, counters.by_vector[:, at])
    own = counters.own[:, at]
    rows, item = np.nonzero(own != summed)
    return violations(
        rows.astype(np.int64),
        observed={"stored": own[rows, item]},
        expected={"stored": summed[rows, item]},
        facts={"counter": np.array(names, np.str_)[item]},
        checked=own.size,
        depends=several("lruvec", *np.nonzero(rows[:, None] == s.lru.lruvecs.memcg[None, :])),
        transient=np.full(len(rows), len(rows) > 0 and _is_charging(s), np.bool_),
    )


@rule(
    "memcg-cache-mismatch",
    LRUVEC,
    "node-counters",
    Phase.TOTALS,
    after=("memcg-charge-unreachable", "cache-share-mismatch"),
    effect=Effect.STATISTIC,
    needs=CACHES,
    severity="warn",
    settle=settle_share,
)
def memcg_cache_mismatch(s: Snapshot) -> Violations:
    """Cached pages that a memory cgroup counts on a node are not those of its folios there.

    Invariant: NR_SWAPCACHE of a memory cgroup on a node (lruvec_stats_percpu, CPUs added) is the pages of its folios in
        the swap cache there, and those of its descendants; from 7.x on NR_SHMEM, and over all nodes NR_FILE_PAGES
        without the swap cache, too are those of its folios.
    Why: include/linux/vmstat.h, lruvec_stat_mod_folio() counts on the node and in the memory cgroup of the folio;
        mm/migrate.c, __folio_migrate_mapping() moves the counts with it.
    Consequence: memory.stat is wrong, and what goes by it: reclaim, and programs that keep memory.low by it.
    Exceptions: page caches or the swap cache are being changed. On 6.x a collapse leaves the counts of what it replaces
        where they were.
    See also: folioscope memcg
    """
    counters = s.memcg_counters
    why_not = _why_not(s)
    if why_not is not None or counters is None:
        return why_not or holds(0, note=NO_CGROUPS)
    if s.swap.unreadable:
        return holds(0, cannot_check(len(s.lru.lruvecs), "swap slots are missing"))
    found, unknown = s.cached_by_vector
    if unknown:
        return holds(0, cannot_check(len(s.lru.lruvecs), "what some folios are charged to is not known"))
    names = [name for name in moved_between_nodes(s) if name in found and name in counters.node_items]
    stored = np.stack([counters.total_by_vector[:, counters.node_items[name]] for name in names], axis=1)
    right = vector_totals(s.lru, np.stack([found[name] for name in names], axis=1))
    off = _unexplained(s.lru, names, stored - right)
    rows, item = np.nonzero(off)
    changing = len(rows) > 0 and (caches_change(s) or len(s.page_cache.locked) > 0 or _is_charging(s))
    return violations(
        rows.astype(np.int64),
        observed={"stored": stored[rows, item]},
        expected={"stored": right[rows, item]},
        facts={"counter": np.array(names, np.str_)[item]},
        checked=stored.size,
        claims=one("lruvec", rows.astype(np.int64)),
        transient=np.full(len(rows), changing, np.bool_),
    )


def _unexplained(lru: Lru, names: list[str], off: I64) -> I64:
    """Differences of vectors, [lruvecs, items], of which those that differ as their children together do are left out.

    A folio of the swap cache that is migrated to another node takes a count of NR_FILE_PAGES with it that it never had
    (mm/migrate.c, __folio_migrate_mapping()): of that item a memory cgroup is compared over all nodes.
    """
    vectors, memcgs = lru.lruvecs, lru.memcgs
    off = off.copy()
    if "NR_FILE_PAGES" in names:
        at = names.index("NR_FILE_PAGES")
        together = np.bincount(vectors.memcg, off[:, at], len(memcgs))
        off[together[vectors.memcg] == 0, at] = 0
    return _beyond_children(lru.vector_rows(take_or(memcgs.parent, vectors.memcg, -1), vectors.node), off)
