"""Rules of the node counters that follow the reverse map: what is mapped, and what is mapped by PMDs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from inspector.columns import I32, I64, AnyArray, Column, Mask
from inspector.model.expectation import Expected, Rebuilt, expect
from inspector.model.scheme import Scheme
from inspector.model.stats import PagePlacement, expect_node_stats
from inspector.rules.folios.mapcount import keeps_mapcount
from inspector.rules.needs import NO_CGROUPS, PAGES, VMAS
from inspector.rules.page_pieces import PAGE_PIECES
from inspector.rules.registry import Phase, rule
from inspector.rules.settling import settle_by_pages
from inspector.snapshot import Snapshot
from inspector.subjects import NODE_COUNTER, NODE_COUNTERS, VMSTAT
from inspector.violations import Violations, cannot_check, holds, several, violations
from inspector.walk.memcg_sums import vectors_of_pages
from inspector.walk.node_sums import shares_to_compare
from inspector.windows.catalogue import WINDOWS
from inspector.windows.locks import mm_in_flight, tables_locked
from inspector.windows.window import Effect

MAPPED = ("NR_ANON_MAPPED", "NR_FILE_MAPPED", "NR_ANON_THPS", "NR_SHMEM_PMDMAPPED", "NR_FILE_PMDMAPPED")
"""Items of enum node_stat_item that this file adds up."""


def mapped_totals(s: Snapshot) -> dict[str, int]:
    """These items, summed over all nodes, as the page tables have them; empty when the scheme is not known.

    6.1 counts an anonymous THP twice that PMDs and PTEs map without PG_double_map, as after its migration
    (mm/rmap.c, page_add_anon_rmap()): once whole and once by the pages that PTEs map.
    """
    return {} if s.expected is None else _totals(s, s.rebuilt, s.expected)


def counted_totals(s: Snapshot) -> dict[str, int]:
    """The same by the counters stored in pages and folios; empty where the scheme keeps too few."""
    if s.scheme is None or not s.scheme.has_page_mapcount:
        return {}
    stored = replace(
        s.rebuilt,
        page_mappings=_stored_counts(s),
        entire=np.maximum(s.folios.entire_raw + 1, 0).astype(np.int32),
    )
    return _totals(s, stored, expect(s.scheme, stored, s.folio_of_page))


def _stored_counts(s: Snapshot) -> I32:
    """int32[pages]; PTEs that map each page, by its own count."""
    counts = np.zeros(len(s.pages), np.int32)
    doubled = s.folios.double_map & s.folios.is_anon
    for p in PAGE_PIECES.cut(s, PAGE_PIECES.most):
        stored = np.where(keeps_mapcount(p), p.mapcount_raw + 1 - p.of_folio(doubled, 0), 0)
        counts[p.start : p.stop] = np.repeat(np.maximum(stored, 0), p.nr)
    return counts


def _totals(s: Snapshot, rebuilt: Rebuilt, expected: Expected) -> dict[str, int]:
    return {name: int(by_node.sum()) for name, by_node in _by_node(s, rebuilt, expected).items()}


def mapped_by_node(s: Snapshot) -> dict[str, I64]:
    """`mapped_totals` by node."""
    return {} if s.expected is None else _by_node(s, s.rebuilt, s.expected)


def mapped_by_vector(s: Snapshot) -> dict[str, I64]:
    """`mapped_totals` by LRU vector: by memory cgroup and node, without descendants."""
    n = len(s.lru.lruvecs)

    def place(rows: AnyArray | slice) -> I64:
        some = np.arange(len(s.pages))[rows] if isinstance(rows, slice) else rows
        at = vectors_of_pages(s, some)
        return np.where(at < 0, n, at)

    if s.expected is None:
        return {}
    return {name: pages[:n] for name, pages in _by_place(s, s.rebuilt, s.expected, place, n + 1).items()}


def _by_node(s: Snapshot, rebuilt: Rebuilt, expected: Expected) -> dict[str, I64]:
    fields = s.layout.flag_fields

    def node_of(rows: AnyArray | slice) -> I64:
        nodes = s.pages.flags[rows].astype(np.int64) * 0 if fields is None else fields.nodes(s.pages.flags[rows])
        # What is no node of this machine is a fault of its own.
        return np.where(nodes < s.layout.nr_nodes, nodes, 0)

    return _by_place(s, rebuilt, expected, node_of, s.layout.nr_nodes)


def _by_place(
    s: Snapshot, rebuilt: Rebuilt, expected: Expected, place_of: Callable[[AnyArray | slice], I64], nr: int
) -> dict[str, I64]:
    assert s.scheme is not None
    folios = s.folios
    places = PagePlacement(
        folio_of_page=s.folio_of_page,
        page_node=Column(place_of, len(s.pages)),
        page_is_anon=Column(s.pages.is_anon, len(s.pages)),
        folio_node=place_of(folios.row),
        folio_is_swapbacked=s.layout.flags.test(s.pages.flags[folios.row], "swapbacked"),
    )
    stats = expect_node_stats(s.scheme, rebuilt, expected, places, nr, s.layout.pmd_order)
    totals: dict[str, I64] = {name: getattr(stats, name.lower()) for name in MAPPED}
    if s.scheme is Scheme.OLD:
        twice = folios.is_anon & ~folios.is_hugetlb & (rebuilt.entire > 0) & ~folios.double_map
        np.add.at(totals["NR_ANON_MAPPED"], places.folio_node[twice], expected.nr_mapped_pages[twice])
    return totals


@rule(
    "node-mapped-mismatch",
    VMSTAT,
    "node-counters",
    Phase.TOTALS,
    effect=Effect.STATISTIC,
    needs=VMAS | PAGES,
    decides="I11 138",
    severity="warn",
    settle=settle_by_pages,
)
def node_mapped_mismatch(s: Snapshot) -> Violations:
    """The node counters of mapped memory are not what the page tables map.

    Invariant: NR_ANON_MAPPED and NR_FILE_MAPPED are the pages of anonymous and of other folios that anything maps: all
        of a folio's as long as a huge entry maps it, else those that PTEs map. NR_ANON_THPS, NR_SHMEM_PMDMAPPED and
        NR_FILE_PMDMAPPED are the pages of folios that PMDs map. Hugetlb and zero pages count nowhere; the per-CPU parts
        are added. On 6.1 an anonymous THP mapped both ways without PG_double_map counts in both forms.
    Why: mm/rmap.c, __folio_mod_stat() (page_add_anon_rmap() and its kin on 6.1); mm/vmstat.c, __mod_node_page_state().
    Consequence: meminfo's AnonPages, Mapped and AnonHugePages are wrong, and a leak of mappings may be behind it.
    Exceptions: a page table is not in the dump, or a task is changing mappings. That explains what the counters of the
        folios themselves add up to, and on top of it one folio for each such task.
    See also: folioscope check
    """
    if not s.tables_complete or s.scheme is None:
        why = s.why_incomplete if not s.tables_complete else "the accounting scheme is not known"
        return holds(0, cannot_check(len(MAPPED), why))
    if s.pages.nr_unreadable:
        return holds(0, cannot_check(len(MAPPED), "struct pages are missing"))
    stored, totals = s.node_stats, mapped_totals(s)
    known = [name for name in MAPPED if name in stored]
    if not known:
        return holds(0, cannot_check(len(MAPPED), "the counters of memory nodes are not in the dump"))
    wrong = [name for name in known if stored[name] != totals[name]]
    resized = s.folios.pfn[s.compound_wrong]
    rows: I64 = np.array([NODE_COUNTERS.index(name) for name in wrong], np.int64)
    # What a compound page of a wrong size maps is summed up wrongly here.
    return violations(
        rows,
        observed={"stored": np.array([stored[name] for name in wrong], np.int64)},
        expected={"stored": np.array([totals[name] for name in wrong], np.int64)},
        checked=len(known),
        depends=several("folio", np.repeat(np.arange(len(rows)), len(resized)), np.tile(resized, len(rows))),
        transient=np.full(len(rows), bool(wrong) and _moving(s), np.bool_),
        beyond=_beyond(s, {name: stored[name] for name in wrong}) if wrong else None,
    )


@rule(
    "node-share-mismatch",
    NODE_COUNTER,
    "node-counters",
    Phase.TOTALS,
    after=("node-mapped-mismatch",),
    effect=Effect.STATISTIC,
    needs=VMAS | PAGES,
    decides="I11 138",
    severity="warn",
    settle=settle_by_pages,
)
def node_share_mismatch(s: Snapshot) -> Violations:
    """A counter of mapped memory is right for the machine, and wrong for a node.

    Invariant: NR_ANON_MAPPED, NR_FILE_MAPPED, NR_ANON_THPS, NR_SHMEM_PMDMAPPED and NR_FILE_PMDMAPPED of a node are
        those of the pages and folios on that node; the per-CPU parts are added.
    Why: mm/rmap.c, __folio_mod_stat(): the node is that of the folio; mm/vmstat.c, node_page_state_add(), which adds to
        the node and to the machine.
    Consequence: meminfo of the node is wrong, and what goes by it: NUMA balancing, reclaim of one node.
    Exceptions: a page table is not in the dump, or a task is changing mappings. What is wrong for the machine is
        reported of the machine alone.
    See also: folioscope check
    """
    if not s.tables_complete or s.scheme is None or s.pages.nr_unreadable:
        return holds(0, cannot_check(len(MAPPED), "page tables or struct pages are missing"))
    counters = s.node_counters
    if s.layout.flag_fields is None or not len(counters):
        return holds(0, note=NO_CGROUPS)
    mine, expected = shares_to_compare(s, mapped_by_node(s), MAPPED)
    off = np.flatnonzero(counters.stored[mine] != expected)
    return violations(
        mine[off],
        observed={"stored": counters.stored[mine[off]]},
        expected={"stored": expected[off]},
        checked=len(mine),
        transient=np.full(len(off), len(off) > 0 and _moving(s), np.bool_),
    )


def _beyond(s: Snapshot, stored: dict[str, int]) -> Mask | None:
    """Totals further from what the folios' own counters add up to than the tasks in flight can bring about.

    Each is moved by one folio at most between that folio's counters and this one (mm/rmap.c, __folio_mod_stat()).
    """
    counted = counted_totals(s)
    if not counted:
        return None
    flight = s.in_flight
    moving = [Effect.STATISTIC in WINDOWS[w].effects for w in flight.window.tolist()]
    tasks = len(np.unique(flight.task_idx[np.array(moving, np.bool_)]))
    largest = max(int(s.folios.nr_pages.max(initial=1)), 1 << s.layout.pmd_order)
    return np.array([abs(stored[name] - counted[name]) > tasks * largest for name in stored], np.bool_)


def _moving(s: Snapshot) -> bool:
    """Whether held locks show that mappings were changing: counters follow under the page table's lock, not with it."""
    if bool((mm_in_flight(s) & (s.mms.nr_tasks > 0)).any()):
        return True
    held: Mask = tables_locked(s, np.arange(len(s.tables)))
    return bool(held.any())
