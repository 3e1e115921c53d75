"""Rules of split queues: who is on one, the links, the lengths, and the counts of large folios by order."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, rows_of_unordered, take_or
from inspector.rules.needs import NO_CGROUPS, PAGES
from inspector.rules.registry import Phase, rule
from inspector.rules.settling import settle_by_pages
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO, MTHP_COUNTER, MTHP_COUNTERS, SPLIT_QUEUE
from inspector.violations import Unread, Violations, cannot_check, holds, several, violations
from inspector.windows.holders import runs_on
from inspector.windows.window import Effect


def _unread(s: Snapshot) -> Unread:
    return cannot_check(int((~s.split_links.readable).sum()), "struct pages are missing")


def _nr_read(s: Snapshot) -> int:
    return int(s.split_links.readable.sum())


@rule(
    "split-queue-list-damaged",
    FOLIO,
    "split-queue",
    Phase.STRUCTURES,
    effect=Effect.SPLIT_QUEUE,
    needs=PAGES,
    decides="I10",
)
def split_queue_list_damaged(s: Snapshot) -> Violations:
    """The links of a split queue do not fit together at a folio.

    Invariant: the folio that _deferred_list.next of a queued folio leads to has it as prev, and the one that prev leads
        to has it as next; each queue comes back to one head, which is outside of the memory map. Where two neighbours
        do not fit together the one is named that fits neither neighbour.
    Why: mm/huge_memory.c, deferred_split_folio() and folio_unqueue_deferred_split(); list_lru since 7.1.
    Consequence: the shrinker follows the list into memory that holds something else, or never splits what is behind.
    Exceptions: none of a kernel at rest; a task is at work on the queues.
    See also: folioscope folio PFN
    """
    links = s.split_links
    rows = np.flatnonzero(links.damaged)
    return violations(
        links.folio[rows],
        observed={
            "next": links.following[rows],
            "prev": links.before[rows],
            "next_points_back": links.points_back[rows],
            "prev_points_here": links.pointed_to[rows],
        },
        expected={"next_points_back": True, "prev_points_here": True},
        facts={"queue": links.queue[rows]},
        checked=_nr_read(s),
        unread=_unread(s),
    )


@rule(
    "split-queue-folio-unexpected",
    FOLIO,
    "split-queue",
    Phase.STRUCTURES,
    after=("split-queue-list-damaged",),
    effect=Effect.SPLIT_QUEUE,
    needs=PAGES,
    decides="I10 111",
)
def split_queue_folio_unexpected(s: Snapshot) -> Violations:
    """A folio that is not anonymous is on a split queue.

    Invariant: queued are large anonymous folios alone. Folios of files and of hugetlb are never put there.
    Why: mm/rmap.c, __folio_remove_rmap() and its kin queue anonymous folios alone; mm/huge_memory.c,
        folio_unqueue_deferred_split() before a folio is freed.
    Consequence: the shrinker splits a folio that something else counts on.
    Exceptions: none of a kernel at rest; a task is at work on the queues.
    See also: folioscope folio PFN
    """
    links = s.split_links
    rows = np.flatnonzero(links.queued & ~links.damaged & ~s.folios.is_anon[links.folio])
    return violations(
        links.folio[rows],
        observed={"queued": True, "anonymous": False},
        expected={"queued": False},
        checked=_nr_read(s),
        unread=_unread(s),
    )


@rule(
    "partially-mapped-flag-unexpected",
    FOLIO,
    "split-queue",
    Phase.STRUCTURES,
    after=("split-queue-list-damaged",),
    effect=Effect.SPLIT_QUEUE,
    needs=PAGES,
    decides="I10 109",
)
def partially_mapped_flag_unexpected(s: Snapshot) -> Violations:
    """PG_partially_mapped is set on a folio that is on no split queue.

    Invariant: since 6.12 the flag is set when a folio is queued because a part of it is no longer mapped, and cleared
        when it leaves the queue. Folios are also queued without it.
    Why: mm/huge_memory.c, deferred_split_folio(), folio_unqueue_deferred_split() and deferred_split_scan().
    Consequence: the part that nothing maps is never given back: the folio will not be split, and the flag keeps it from
        being queued and counted again.
    Exceptions: the shrinker has it in hand (deferred_split_scan()).
    See also: folioscope folio PFN
    """
    links, folios = s.split_links, s.folios
    rows = np.flatnonzero(folios.partially_mapped[links.folio] & links.readable & ~links.queued)
    return violations(
        links.folio[rows],
        observed={"partially_mapped": True, "queued": False},
        expected={"partially_mapped": False},
        checked=_nr_flagged(s, links.folio),
        unread=_unread(s),
    )


def _nr_flagged(s: Snapshot, folio: I64) -> int:
    """Folios whose flag is known; no kernel before 6.12 has it."""
    return int(s.folios.readable[folio].sum()) if s.layout.flags.mask("partially_mapped") else 0


_LIVE = "folios come and go on split queues while the kernel runs"


@rule(
    "split-queue-mismatch",
    FOLIO,
    "split-queue",
    Phase.LINKS,
    effect=Effect.SPLIT_QUEUE,
    needs=PAGES,
    decides="112",
)
def split_queue_mismatch(s: Snapshot) -> Violations:
    """A folio is on the split queue of another memory cgroup or node than its own.

    Invariant: a queued folio is on the queue of the memory cgroup that it is charged to, of none on that of its node.
        From 7.x on the queues are of a cgroup and a node, and of a cgroup that has none an ancestor's is taken.
    Why: mm/huge_memory.c, get_deferred_split_queue(); mm/list_lru.c, lock_list_lru_of_memcg().
    Consequence: it is taken off under the lock of another queue, and both go wrong.
    Exceptions: none of a kernel at rest; a cgroup goes offline.
    See also: folioscope folio PFN
    """
    if runs_on(s):
        return holds(0, note=_LIVE)
    heads, links = s.split_queues, s.split_links
    if not heads.whole:
        return holds(0, note=NO_CGROUPS)
    rows = np.flatnonzero(links.queued & ~links.damaged & (links.queue != 0))
    folio = links.folio[rows]
    at = rows_of_unordered(heads.queues.head, links.queue[rows])
    of, of_node = take_or(heads.queues.memcg, at, -1), take_or(heads.queues.node, at, -1)
    flags, fields = s.pages.flags[s.folios.row[folio]], s.layout.flag_fields
    node = np.full(len(rows), -1) if fields is None else fields.nodes(flags)
    memcg = s.split_charges[rows]
    known = (at >= 0) & (memcg > -2)  # noqa: PLR2004
    fits = memcg == of
    if s.lru.is_by_objcg:
        fits = np.array([_is_of(s, a, b) for a, b in zip(memcg.tolist(), of.tolist(), strict=True)], np.bool_)
    fits &= (of_node < 0) | (node < 0) | (of_node == node)
    bad = np.flatnonzero(known & ~fits)
    paths = s.lru.memcgs.path
    return violations(
        folio[bad],
        observed={
            "queue_memcg": np.array([paths(row) if row >= 0 else "none" for row in of[bad].tolist()], np.str_),
            "queue_node": of_node[bad],
        },
        expected={
            "queue_memcg": np.array([paths(row) if row >= 0 else "none" for row in memcg[bad].tolist()], np.str_),
            "queue_node": np.where(of_node[bad] < 0, -1, node[bad]),
        },
        facts={"queue": links.queue[rows[bad]]},
        checked=int(known.sum()),
        unread=cannot_check(int((~known).sum()), "the memory cgroup or the queue of the folio is not known"),
        transient=take_or(heads.queues.locked, at[bad], False),
    )


def _is_of(s: Snapshot, memcg: int, other: int) -> bool:
    """Whether a memory cgroup is another, or below it."""
    while memcg >= 0 and memcg != other:
        memcg = int(s.lru.memcgs.parent[memcg])
    return memcg == other


@rule(
    "split-queue-length-mismatch",
    SPLIT_QUEUE,
    "split-queue",
    Phase.SUMS,
    effect=Effect.SPLIT_QUEUE,
    needs=PAGES,
    decides="I10 108",
    severity="warn",
)
def split_queue_length_mismatch(s: Snapshot) -> Violations:
    """The length that is kept of a split queue is not the number of folios on it.

    Invariant: split_queue_len, from 7.x on nr_items of the list, is how many folios are on the queue; nr_items of a
        node is the sum over its lists.
    Why: mm/huge_memory.c, deferred_split_folio() and folio_unqueue_deferred_split(); mm/list_lru.c, __list_lru_add()
        and __list_lru_del().
    Consequence: the shrinker is called for folios that are not there, or never for those that are.
    Exceptions: the shrinker has some in hand (deferred_split_scan()).
    See also: folioscope mthp
    """
    if runs_on(s):
        return holds(0, note=_LIVE)
    heads, links = s.split_queues, s.split_links
    if not heads.whole:
        return holds(0, note=NO_CGROUPS)
    queues = heads.queues
    at = rows_of_unordered(queues.head, links.queue[links.queued])
    nr = np.bincount(at[at >= 0], minlength=len(queues))
    rows = np.flatnonzero(nr != queues.length)
    stored, right = queues.length[rows], nr[rows]
    # What a node counts on all its lists is shown at the first of them, that of the root.
    sums = np.zeros(len(heads.node_totals), np.int64)
    if len(sums):
        np.add.at(sums, queues.node, queues.length)
    off = np.flatnonzero(heads.node_totals != sums)
    broken = s.folios.pfn[links.folio[links.damaged]]
    every = np.concatenate([rows, off])
    return violations(
        every,
        observed={"length": np.concatenate([stored, heads.node_totals[off]])},
        expected={"length": np.concatenate([right, sums[off]])},
        facts={"counted": np.array(["folios on it"] * len(rows) + ["nr_items of all lists of the node"] * len(off))},
        checked=len(queues) + len(heads.node_totals),
        depends=several("folio", np.repeat(np.arange(len(every)), len(broken)), np.tile(broken, len(every))),
        transient=queues.locked[every],
    )


@rule(
    "mthp-count-mismatch",
    MTHP_COUNTER,
    "node-counters",
    Phase.TOTALS,
    effect=Effect.LARGE_FOLIOS,
    needs=PAGES,
    decides="110 113",
    severity="warn",
    settle=settle_by_pages,
)
def mthp_count_mismatch(s: Snapshot) -> Violations:
    """The kernel's count of large anonymous folios of an order is not how many there are.

    Invariant: nr_anon of an order, summed over all possible CPUs, is the large anonymous folios of that order, mapped
        or not; nr_anon_partially_mapped is those with PG_partially_mapped.
    Why: mm/rmap.c, folio_add_new_anon_rmap(); mm/huge_memory.c, __folio_split(), deferred_split_folio() and
        folio_unqueue_deferred_split(); mm/migrate.c, __folio_migrate_mapping(); mm/page_alloc.c, free_pages_prepare().
    Consequence: /sys/kernel/mm/transparent_hugepage/*/stats is wrong; a flag that is set or lost beside the queue.
    Exceptions: a task makes, replaces, splits or frees one. Kernels before 6.12 keep no such counts.
    See also: folioscope mthp
    """
    if runs_on(s):
        return holds(0, note=_LIVE)
    stats, folios = s.mthp_stats, s.folios
    known = [item for item, name in enumerate(MTHP_COUNTERS) if name in stats]
    if not known:
        has = "MTHP_STAT_NR_ANON" in s.layout.enum("enum mthp_stat_item")
        return holds(0, note=NO_CGROUPS if has else "")
    if s.pages.nr_unreadable:
        return holds(0, cannot_check(len(known), "struct pages are missing"))
    anon = folios.is_anon & ~folios.is_hugetlb & folios.readable & (folios.order > 0)
    rows, observed, expected = [], [], []
    for item in known:
        by_order = np.array(stats[MTHP_COUNTERS[item]], np.int64)
        some = anon & folios.partially_mapped if item else anon
        right = np.bincount(folios.order[some], minlength=len(by_order))[: len(by_order)]
        off = np.flatnonzero(by_order != right)
        rows.append(off * len(MTHP_COUNTERS) + item)
        observed.append(by_order[off])
        expected.append(right[off])
    every = np.concatenate(rows)
    broken = np.unique(np.concatenate([folios.pfn[s.compound_wrong], folios.pfn[s.split_links.folio[_flag_alone(s)]]]))
    return violations(
        every,
        observed={"stored": np.concatenate(observed)},
        expected={"stored": np.concatenate(expected)},
        checked=len(known) * len(stats[MTHP_COUNTERS[known[0]]]),
        depends=several("folio", np.repeat(np.arange(len(every)), len(broken)), np.tile(broken, len(every))),
    )


def _flag_alone(s: Snapshot) -> I64:
    """Folios whose flag is set beside the queue: their rows among the links."""
    links = s.split_links
    return np.flatnonzero(s.folios.partially_mapped[links.folio] & links.readable & ~links.queued)
