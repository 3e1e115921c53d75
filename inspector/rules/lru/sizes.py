"""Rules of the sizes that LRU vectors keep of their lists, and of the counters of nodes and zones that add them up."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, AnyArray, Mask, take_or
from inspector.rules.lru.lists import looked_at
from inspector.rules.lru.mlock import evictable_mlocked
from inspector.rules.needs import NO_CGROUPS, PAGES
from inspector.rules.registry import Phase, rule
from inspector.rules.settling import settle_by_pages
from inspector.snapshot import Snapshot
from inspector.subjects import LRUVEC, NODE_COUNTER
from inspector.tables.lru_pages import LruPages
from inspector.violations import Violations, cannot_check, holds, one, several, violations
from inspector.windows.window import Effect

_UNKNOWN = -2
"""`inspector.tables.lru_pages.LruClasses.memcg` where it could not be read."""

_NO_OBJCG = "memory cgroups of folios are not in the dump"

_UNEVICTABLE = 4
"""LRU_UNEVICTABLE (include/linux/mmzone.h)."""


def rebuilt_sizes(s: Snapshot, found: LruPages) -> tuple[I64, I64]:
    """``nr_pages`` and ``sizes`` of `inspector.tables.memcgs.Lru` by the folios with PG_lru."""
    lru, of = s.lru, found.classes
    nr_pages, sizes = np.zeros_like(lru.nr_pages), np.zeros_like(lru.sizes)
    row = lru.vector_rows(of.memcg, of.node)
    young = (of.gen >= 0) & (row >= 0)
    old = (of.gen < 0) & (row >= 0)
    np.add.at(nr_pages, (row[young], of.gen[young], of.file[young].astype(int), of.zone[young]), of.nr_pages[young])
    kind = np.where(of.unevictable, _UNEVICTABLE, 2 * of.file.astype(np.int64) + of.active)
    np.add.at(sizes, (row[old], of.zone[old], kind[old]), of.nr_pages[old])
    return nr_pages, sizes


@rule(
    "lruvec-size-mismatch",
    LRUVEC,
    "lru",
    Phase.TOTALS,
    effect=Effect.LRU_SIZES,
    needs=PAGES,
    decides="100",
    severity="warn",
    settle=settle_by_pages,
)
def lru_size_mismatch(s: Snapshot) -> Violations:
    """A size that an LRU vector keeps of its lists is not that of the folios of its class.

    Invariant: lru_zone_size of a memory cgroup on a node is the pages of its folios with PG_lru and without a
        generation, by zone and list, the unevictable ones included. lrugen.nr_pages is the pages of those with one, by
        generation, type and zone.
    Why: include/linux/mm_inline.h, update_lru_size() and lru_gen_update_size(), both under lru_lock;
        mm/memcontrol.c, mem_cgroup_update_lru_size().
    Consequence: reclaim looks for folios where there are none, or leaves out what is there; a negative size warns.
    Exceptions: a task holds lru_lock, or ages generations: it counts in a batch of its own first
        (mm/vmscan.c, update_batch_size()).
    See also: folioscope info
    """
    found = looked_at(s)
    if isinstance(found, str):
        return holds(0, note=found)
    lru = s.lru
    if not len(lru.lruvecs) or not lru.whole:
        return holds(0, note=NO_CGROUPS)
    nr = lru.nr_pages[0].size + (lru.sizes[0].size if lru.has_memcgs else 0)
    if s.pages.nr_unreadable:
        return holds(0, cannot_check(len(lru.lruvecs) * nr, "struct pages are missing"))
    nr_pages, sizes = rebuilt_sizes(s, found)
    # Of a node with folios whose memory cgroup is not known, a size is at least that of the others.
    unknown = np.isin(lru.lruvecs.node, nodes_unknown(found))
    parts = [_apart("nr_pages", lru.nr_pages, nr_pages, unknown)]
    if lru.has_memcgs:
        parts.append(_apart("lru_zone_size", lru.sizes, sizes, unknown))
    rows = np.concatenate([rows for rows, *_ in parts])
    odd = np.unique(np.concatenate([found.odd.row, found.misplaced.row]))
    pfns = s.pages.memmap.pfns_of_rows(odd)
    return violations(
        rows,
        observed={"stored": np.concatenate([stored for _, stored, *_ in parts])},
        expected={"stored": np.concatenate([right for _, _, right, _ in parts])},
        facts={"counter": np.array([name for *_, names in parts for name in names], np.str_)},
        checked=int((~unknown).sum()) * nr,
        unread=cannot_check(int(unknown.sum()) * nr, _NO_OBJCG),
        transient=lru.lruvecs.locked[rows],
        claims=one("lruvec", rows),
        depends=several("folio", np.repeat(np.arange(len(rows)), len(pfns)), np.tile(pfns, len(rows))),
    )


def nodes_unknown(found: LruPages) -> AnyArray:
    """Nodes with folios whose memory cgroup could not be read: what their memcg_data leads to is not in the dump."""
    return np.unique(found.classes.node[(found.classes.memcg == _UNKNOWN) & (found.classes.nr_pages > 0)])


def _apart(name: str, stored: I64, right: I64, at_least: Mask) -> tuple[I64, I64, I64, list[str]]:
    """Where two differ, or in some rows the stored one is too small: rows, both values and names."""
    bound = at_least.reshape(-1, *[1] * (stored.ndim - 1))
    at = np.nonzero((stored < right) | ((stored > right) & ~bound))
    names = [name + "".join(f"[{i}]" for i in place) for place in zip(*(x.tolist() for x in at[1:]), strict=True)]
    return at[0].astype(np.int64), stored[at], right[at], names


_LISTS = ("INACTIVE_ANON", "ACTIVE_ANON", "INACTIVE_FILE", "ACTIVE_FILE", "UNEVICTABLE")
"""Of enum lru_list; the items of nodes are NR_ and of zones NR_ZONE_ before these."""


def list_totals(s: Snapshot, found: LruPages) -> dict[tuple[int, int], I64]:
    """Pages on each kind of list, by node and zone; by node alone under zone -1.

    Of the multi-gen LRU the two youngest generations count as active (include/linux/mm_inline.h,
    lru_gen_is_active()).
    """
    lru, of = s.lru, found.classes
    row = lru.vector_rows(of.memcg, of.node)
    youngest = take_or(lru.lruvecs.max_seq, row, 0).astype(np.int64)
    gens = max(lru.shape.gens, 1)
    is_young = (of.gen == youngest % gens) | (of.gen == (youngest - 1) % gens)
    active = np.where(of.gen >= 0, is_young, of.active)
    kind = np.where(of.unevictable, _UNEVICTABLE, 2 * of.file.astype(np.int64) + active)
    out: dict[tuple[int, int], I64] = {}
    for node, zone, at, nr in zip(of.node.tolist(), of.zone.tolist(), kind.tolist(), of.nr_pages.tolist(), strict=True):
        for place in ((node, zone), (node, -1)):
            out.setdefault(place, np.zeros(len(_LISTS), np.int64))[at] += nr
    return out


@rule(
    "lru-counter-mismatch",
    NODE_COUNTER,
    "lru",
    Phase.TOTALS,
    after=("lruvec-size-mismatch",),
    effect=Effect.LRU_SIZES,
    needs=PAGES,
    decides="101",
    severity="warn",
    settle=settle_by_pages,
)
def lru_counter_mismatch(s: Snapshot) -> Violations:
    """A counter of a node is not the pages on its LRU lists.

    Invariant: NR_INACTIVE_ANON to NR_UNEVICTABLE of a node are the pages of folios with PG_lru there, by list; of the
        multi-gen LRU the two youngest generations are active. The per-CPU parts are added.
    Why: include/linux/mm_inline.h, __update_lru_size(); mm/vmstat.c, __mod_node_page_state().
    Consequence: meminfo is wrong, and reclaim and compaction go by it: direct reclaim gives up or never ends.
    Exceptions: a task holds lru_lock, or ages generations.
    See also: folioscope check
    """
    found = looked_at(s)
    if isinstance(found, str):
        return holds(0, note=found)
    counters = s.node_counters
    if not len(counters) or not len(s.lru.lruvecs) or not s.lru.whole:
        return holds(0, note=NO_CGROUPS)
    mine = np.array([name in _ITEMS for name in counters.item.tolist()], np.bool_)
    if s.pages.nr_unreadable:
        return holds(0, cannot_check(int(mine.sum()), "struct pages are missing"))
    # Without its memory cgroup it is not known which generations of a folio's are active.
    unknown = np.isin(counters.node, nodes_unknown(found)) if s.lru.shape.gens else np.zeros(len(counters), np.bool_)
    unread, mine = int((mine & unknown).sum()), mine & ~unknown
    lists, none = list_totals(s, found), np.zeros(len(_LISTS), np.int64)
    rows, right = [], []
    for row in np.flatnonzero(mine).tolist():
        place = int(counters.node[row]), int(counters.zone[row])
        at = _ITEMS[str(counters.item[row])]
        expected = int(lists.get(place, none)[at])
        if expected != counters.stored[row]:
            rows.append(row)
            right.append(expected)
    every = np.array(rows, np.int64)
    rows_at_fault = np.concatenate([found.odd.row, found.misplaced.row, evictable_mlocked(s)])
    odd = s.pages.memmap.pfns_of_rows(np.unique(rows_at_fault))
    return violations(
        every,
        observed={"stored": counters.stored[every]},
        expected={"stored": np.array(right, np.int64)},
        checked=int(mine.sum()),
        unread=cannot_check(unread, _NO_OBJCG),
        transient=np.full(len(every), bool(s.lru.lruvecs.locked.any())),
        depends=several("folio", np.repeat(np.arange(len(every)), len(odd)), np.tile(odd, len(every)))
        + several("lruvec", *np.nonzero(counters.node[every][:, None] == s.lru.lruvecs.node[None, :])),
    )


_ITEMS = {
    **{f"NR_{name}": at for at, name in enumerate(_LISTS)},
}
"""Items by name, with their place in `_LISTS`."""
