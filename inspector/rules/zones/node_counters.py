"""Rules of the node counters that follow the reverse map: what is mapped, and what is mapped by PMDs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.columns import I32, I64, Column, Mask, take_or
from inspector.model.expectation import Expected, Rebuilt, expect
from inspector.model.scheme import Scheme
from inspector.model.stats import PagePlacement, expect_node_stats
from inspector.rules.cause import Causes
from inspector.rules.folios.mapcount import keeps_mapcount
from inspector.rules.needs import PAGES, VMAS
from inspector.rules.page_pieces import PAGE_PIECES
from inspector.rules.registry import Phase, Rule, rule
from inspector.snapshot import Snapshot
from inspector.subjects import NODE_COUNTERS, VMSTAT
from inspector.violations import Violations, cannot_check, holds, several, violations
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
    assert s.scheme is not None
    folios = s.folios
    places = PagePlacement(
        folio_of_page=s.folio_of_page,
        page_node=Column(lambda at: np.zeros(len(s.folio_of_page[at]), np.uint8), len(s.pages)),
        page_is_anon=Column(s.pages.is_anon, len(s.pages)),
        folio_node=np.zeros(len(folios), np.uint8),
        folio_is_swapbacked=s.layout.flags.test(s.pages.flags[folios.row], "swapbacked"),
    )
    stats = expect_node_stats(s.scheme, rebuilt, expected, places, 1, s.layout.pmd_order)
    totals = {name: int(getattr(stats, name.lower())[0]) for name in MAPPED}
    if s.scheme is Scheme.OLD:
        twice = folios.is_anon & ~folios.is_hugetlb & (rebuilt.entire > 0) & ~folios.double_map
        totals["NR_ANON_MAPPED"] += int(expected.nr_mapped_pages[twice].sum())
    return totals


def _settle(s: Snapshot, rule: Rule, causes: Causes) -> None:
    """Attach totals that are off by no more than the pages of broken folios: those were counted there."""
    off = causes.of(rule)
    faulty = {head: cause for head, cause in causes.of_folio.items() if cause.rule.severity != "info"}
    if not off or not faulty:
        return
    rows = s.pages.memmap.rows(np.array(list(faulty), np.int64))
    folio = take_or(s.folio_of_page, rows, -1)
    pages = sum(int(s.folios.nr_pages[large]) if large >= 0 else 1 for large in folio.tolist())
    root = next(iter(faulty.values()))
    for cause in off:
        if abs(int(cause.observed("stored")[0] - cause.expected("stored")[0])) <= pages:
            causes.attach(cause, root)


@rule(
    "node-mapped-mismatch",
    VMSTAT,
    "node-counters",
    Phase.TOTALS,
    effect=Effect.STATISTIC,
    needs=VMAS | PAGES,
    decides="I11 138",
    severity="warn",
    settle=_settle,
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
