"""Memory cgroups: what each counts beside what is charged to it, and what keeps those that were removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.hex_json import Hex, Wide
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.rules.zones.node_counters import mapped_by_vector
from inspector.snapshot import Snapshot
from inspector.tables.memcg_counters import MemcgCounters, vector_totals
from inspector.text import counted
from inspector.walk.memcg_sums import ChargedFolios, keeps_own_usage, usage_of


class MemoryCgroup(msgspec.Struct, frozen=True):
    """One memory cgroup. Pages are its own and those of its descendants, where nothing else is written."""

    path: str
    address: Hex
    """struct mem_cgroup."""
    online: bool
    """False for one that was removed and that something still keeps."""
    folios: int
    """Folios charged to itself."""
    pages: int
    """Pages of these; of the root only those that it took over, for its own are not counted."""
    usage: Wide | None
    """memory.usage; null where it is not in the dump."""
    charged: int | None
    """What it must be: folios, kernel memory, sockets, and what CPUs keep. Null where that cannot be known."""
    kernel: Wide | None
    """MEMCG_KMEM, with what is not flushed yet."""
    sockets: Wide | None
    stocked: int | None
    """Pages that CPUs keep for the next charges to itself."""
    swap: Wide | None
    """MEMCG_SWAP, with what is not flushed yet."""
    slots: Wide | None
    """Swap slots that name itself by its number."""
    references: Wide | None
    """What keeps one that was removed: folios, descendants, its number, obj_cgroups. Null for one online."""
    children: int


class MemcgStatistic(msgspec.Struct, frozen=True):
    """A counter of a memory cgroup and its descendants on a node, beside the pages of their folios."""

    path: str
    node: int
    counter: str
    pages: int
    stored: Wide
    """All of it, exact."""
    shown: Wide
    """What was flushed: what its files show until the next flush."""


class MemcgReport(msgspec.Struct, frozen=True):
    """The object that ``memcg --format json`` prints."""

    schema: Literal["folioscope.memcg/1"]
    has_memcgs: bool
    """False where the kernel has no memory cgroups, or they are disabled."""
    known: bool
    """False where what they count is not in the dump."""
    memcgs: list[MemoryCgroup]
    statistics: list[MemcgStatistic]
    unknown_charges: int
    """Values of memcg_data that lead to no memory cgroup of these."""


def build_memcg(s: Snapshot) -> MemcgReport:
    """Every memory cgroup, parents before their children."""
    lru, counters = s.lru, s.memcg_counters
    if not lru.has_memcgs or not len(lru.memcgs):
        return MemcgReport("folioscope.memcg/1", lru.has_memcgs, False, [], [], 0)
    charged = s.charged_folios
    statistics = list(_statistics(s, counters)) if counters is not None else []
    usage = np.zeros(len(lru.memcgs), np.int64) if counters is None else usage_of(s, charged)
    judged = keeps_own_usage(lru) & (counters is not None and not charged.unknown)
    right = [int(pages) if able else None for pages, able in zip(usage.tolist(), judged.tolist(), strict=True)]
    parents = lru.memcgs.parent
    children = np.bincount(parents[parents >= 0], minlength=len(lru.memcgs)).tolist()
    rows = [_row(s, row, charged, counters, pages, children[row]) for row, pages in enumerate(right)]
    return MemcgReport("folioscope.memcg/1", True, counters is not None, rows, statistics, charged.unknown)


def _row(
    s: Snapshot, row: int, charged: ChargedFolios, counters: MemcgCounters | None, usage: int | None, children: int
) -> MemoryCgroup:
    memcgs = s.lru.memcgs

    def total(item: str) -> int | None:
        at = None if counters is None else counters.items.get(item)
        return None if at is None or counters is None else int(counters.total[row, at])

    slots = None if counters is None or counters.slots is None else int(counters.slots[row])
    return MemoryCgroup(
        path=memcgs.path(row),
        address=int(memcgs.addr[row]),
        online=bool(memcgs.online[row]),
        folios=int(charged.nr[row]),
        pages=int(charged.pages[row]),
        usage=None if counters is None else int(counters.usage[row]),
        charged=usage,
        kernel=total("MEMCG_KMEM"),
        sockets=total("MEMCG_SOCK"),
        stocked=None if counters is None else int(counters.stocked[row]),
        swap=total("MEMCG_SWAP"),
        slots=slots,
        references=None if counters is None or counters.references[row] < 0 else int(counters.references[row]),
        children=children,
    )


def _statistics(s: Snapshot, counters: MemcgCounters) -> Iterator[MemcgStatistic]:
    """Counters that are 0 by all are left out."""
    vectors, memcgs = s.lru.lruvecs, s.lru.memcgs
    found = {name: vector_totals(s.lru, own) for name, own in (mapped_by_vector(s) | s.cached_by_vector[0]).items()}
    for row in np.lexsort((vectors.node, vectors.memcg)).tolist():
        for name, every in found.items():
            if name not in counters.node_items:
                continue
            at = counters.node_items[name]
            pages = int(every[row])
            stored, shown = int(counters.total_by_vector[row, at]), int(counters.flushed_by_vector[row, at])
            if pages or stored or shown:
                path = memcgs.path(int(vectors.memcg[row]))
                yield MemcgStatistic(path, int(vectors.node[row]), name, pages, stored, shown)


_GROUPS = (
    TableColumn("memory cgroup"),
    TableColumn("usage", right=True),
    TableColumn("charged", right=True),
    TableColumn("own folios", right=True),
    TableColumn("own pages", right=True),
    TableColumn("kernel", right=True),
    TableColumn("sockets", right=True),
    TableColumn("on CPUs", right=True),
    TableColumn("swap", right=True),
    TableColumn("remarks"),
)
_STATISTICS = (
    TableColumn("memory cgroup"),
    TableColumn("node", right=True),
    TableColumn("counter"),
    TableColumn("pages", right=True),
    TableColumn("stored", right=True),
    TableColumn("not flushed", right=True),
    TableColumn("remarks"),
)


def render_memcg(screen: Screen, report: MemcgReport) -> Iterator[str]:
    """The report for people."""
    if not report.memcgs:
        yield from screen.wrap(
            "The memory cgroups are not in the dump." if report.has_memcgs else "The kernel has no memory cgroups."
        )
        return
    yield from render_table(screen, _GROUPS, [_cells(each) for each in report.memcgs])
    if report.statistics:
        yield ""
        yield from render_table(screen, _STATISTICS, [_statistic(each) for each in report.statistics])
    yield ""
    gone = sum(not each.online for each in report.memcgs)
    compared = sum(each.charged is not None for each in report.memcgs)
    odd = sum(each.charged is not None and each.charged != each.usage for each in report.memcgs)
    verdict = "what they count is not in the dump"
    if report.known:
        verdict = f"{compared} compared with what is charged to them, {odd} {'differs' if odd == 1 else 'differ'}"
    yield from screen.wrap(f"{counted(len(report.memcgs), 'memory cgroup')}, {gone} of them removed; {verdict}")


def _number(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def _cells(each: MemoryCgroup) -> tuple[str, ...]:
    remarks = []
    if not each.online:
        keeps = [counted(each.folios, "folio"), counted(each.children, "descendant"), counted(each.slots or 0, "slot")]
        kept = ", ".join(part for part in keeps if not part.startswith("0 "))
        references = "" if each.references is None else f"{counted(each.references, 'reference')}"
        remarks.append("removed" + (f", kept by {references}" if references else "") + (f": {kept}" if kept else ""))
    if each.charged is not None and each.usage is not None and each.charged != each.usage:
        remarks.append(f"usage {each.usage - each.charged:+}")
    numbers = (each.usage, each.charged, each.folios, each.pages, each.kernel, each.sockets, each.stocked, each.swap)
    return (each.path, *map(_number, numbers), "; ".join(remarks))


def _statistic(each: MemcgStatistic) -> tuple[str, ...]:
    late, off = each.stored - each.shown, each.stored - each.pages
    return (
        each.path,
        str(each.node),
        each.counter,
        str(each.pages),
        str(each.stored),
        f"{late:+}" if late else "",
        f"{off:+}" if off else "",
    )
