"""Every page accounted for: what each page frame is, beside what zones and hugetlb count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.columns import I64
from inspector.hex_json import Wide
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.rules.zones.node_counters import mapped_by_node
from inspector.snapshot import Snapshot
from inspector.subjects import zone_name
from inspector.tables.buddy import LRU_ITEMS
from inspector.tables.lru import pages_on_lru
from inspector.tables.stacks import thread_size
from inspector.text import counted, size
from inspector.walk.node_sums import cached_by_node, pins_by_node, slabs_by_node, tables_by_node
from inspector.windows.page_account import PAGE_KINDS, PageAccount, account_for_pages


class PageKind(msgspec.Struct, frozen=True):
    """The pages of one kind."""

    kind: str
    pages: int
    bytes: int
    folios: int
    """Heads and small pages among them."""
    by_zone: list[int]
    """Pages in each of ``zones``, in their order; the rest name none of these."""


class MemorySum(msgspec.Struct, frozen=True):
    """A sum over pages beside the kernel's own."""

    of: str
    """A zone, a size of hugetlb folios, or all nodes."""
    what: str
    pages: int
    counter: str
    """The name of what the kernel counts."""
    stored: Wide
    in_motion: bool
    """A lock is held, or a task is at work, under which the two may differ."""


class MemoryReport(msgspec.Struct, frozen=True):
    """The object that ``memory --format json`` prints."""

    schema: Literal["folioscope.memory/1"]
    pages: int
    """All struct pages."""
    zones: list[str]
    kinds: list[PageKind]
    sums: list[MemorySum]
    lost: int
    """Pages that belong neither to the allocator nor to those that it gave pages to."""


def build_memory(s: Snapshot) -> MemoryReport:
    """Account for all pages."""
    account = account_for_pages(s)
    shift = s.layout.memmap.page_shift
    totals = account.pages.sum(axis=0).tolist()
    kinds = [
        PageKind(
            kind, totals[at], totals[at] << shift, int(account.folios[at]), account.pages[:-1, at].astype(int).tolist()
        )
        for at, kind in enumerate(PAGE_KINDS)
        if totals[at]
    ]
    zones = [zone_name(s, row) for row in range(len(s.buddy.zones))]
    sums = [*_of_zones(s, account, zones), *_of_hugetlb(s), *_of_nodes(s, account)]
    return MemoryReport("folioscope.memory/1", len(s.pages), zones, kinds, sums, _pages(account, "lost"))


def _pages(account: PageAccount, *kinds: str, zone: int | None = None) -> int:
    part = account.pages if zone is None else account.pages[zone : zone + 1]
    return int(sum(part[:, PAGE_KINDS.index(kind)].sum() for kind in kinds))


def _of_zones(s: Snapshot, account: PageAccount, names: list[str]) -> Iterator[MemorySum]:
    b = s.buddy
    zones, types = b.zones, s.layout.enum("enum migratetype")
    on_lru = pages_on_lru(s.layout, s.pages, s.folios, zones)
    listed = b.blocks.list_idx >= 0
    on, order = b.blocks.list_idx[listed], b.blocks.order[listed]
    apart = b.lists.migratetype[on] == types.get("MIGRATE_ISOLATE", -1)
    for row, name in enumerate(names):
        locked = bool(zones.locked[row])
        isolated = int((1 << order[apart & (b.lists.zone_idx[on] == row)]).sum())
        mine = b.cpu_lists.zone_idx == row
        free = _pages(account, "free block", zone=row) - isolated + int(zones.unaccepted[row])
        on_cpus = _pages(account, "free list of a CPU", zone=row)
        managed = int(account.pages[row].sum()) - _pages(account, "reserved", "offline memory", zone=row)
        yield MemorySum(name, "free, not isolated", free, "NR_FREE_PAGES", int(zones.free_pages[row]), locked)
        count = int(b.cpu_lists.count[mine].sum())
        held = bool(b.cpu_lists.locked[mine].any())
        yield MemorySum(name, "on free lists of CPUs", on_cpus, "per_cpu_pages.count", count, held)
        what = "neither reserved nor offline"
        yield MemorySum(name, what, managed, "managed_pages", int(zones.managed[row]), False)
        for what, items in _LRU:
            at = [LRU_ITEMS.index(item) for item in items]
            pages, stored = int(on_lru[row, at].sum()), int(zones.on_lru[row, at].sum())
            yield MemorySum(name, what, pages, " + ".join(items), stored, False)


_LRU = (
    ("anonymous on LRU lists", ("NR_ZONE_INACTIVE_ANON", "NR_ZONE_ACTIVE_ANON")),
    ("of files on LRU lists", ("NR_ZONE_INACTIVE_FILE", "NR_ZONE_ACTIVE_FILE")),
    ("unevictable", ("NR_ZONE_UNEVICTABLE",)),
    ("mlocked", ("NR_MLOCK",)),
)


def _of_hugetlb(s: Snapshot) -> Iterator[MemorySum]:
    states, folios = s.hugetlb.hstates, s.folios
    for name, order, nr in zip(states.name, states.order.tolist(), states.nr.tolist(), strict=True):
        own = folios.is_hugetlb & (folios.order == order)
        pages = int(folios.nr_pages[own].sum())
        yield MemorySum(_text(name), "hugetlb", pages, "nr_huge_pages", nr << order, s.hugetlb.active)


def _text(name: bytes | str) -> str:
    return name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)


def _of_nodes(s: Snapshot, account: PageAccount) -> Iterator[MemorySum]:
    """Counters of nodes that are 0 by both are left out."""
    moving = bool(s.in_flight.task_idx.size)
    for what, counter, rebuilt in _rebuilt(s):
        for node, pages in enumerate(rebuilt.tolist()):
            stored = _stored(s, node, counter)
            if stored is not None and (stored or pages):
                yield MemorySum(f"node {node}", what, pages, counter, stored, moving)
    stored = s.node_stats.get("NR_PAGETABLE")
    if stored is not None:
        tables = _pages(account, "page table")
        yield MemorySum("all nodes", "page tables", tables, "NR_PAGETABLE", stored, False)
    stored = s.node_stats.get("NR_KERNEL_STACK_KB")
    if stored is not None and len(s.tasks):
        # A task gives the count back right before it is dead (kernel/exit.c, do_exit()); that of the first idle task is
        # no allocation, the other ones are in no list.
        alive = int((s.tasks.state & _TASK_DEAD == 0).sum()) + len(s.layout.per_cpu_offsets) - 1
        shift = s.layout.memmap.page_shift
        yield MemorySum(
            "all nodes",
            "kernel stacks",
            alive * thread_size(s.layout) >> shift,
            "NR_KERNEL_STACK_KB, as pages",
            stored << 10 >> shift,
            moving,
        )


def _stored(s: Snapshot, node: int, counter: str) -> int | None:
    """A counter of a node as stored, or a sum or difference of some; None where one is not known."""
    counters, total = s.node_counters, 0
    for at, name in enumerate(counter.replace(" - ", " + -").split(" + ")):
        sign = -1 if at and name.startswith("-") else 1
        found = np.flatnonzero((counters.item == name.lstrip("-")) & (counters.node == node) & (counters.zone < 0))
        if not len(found):
            return None
        total += sign * int(counters.stored[found[0]])
    return total


_MAPPED = {
    "NR_ANON_MAPPED": "anonymous, mapped",
    "NR_FILE_MAPPED": "of files, mapped",
    "NR_ANON_THPS": "anonymous, mapped by PMDs",
    "NR_SHMEM_PMDMAPPED": "shmem, mapped by PMDs",
    "NR_FILE_PMDMAPPED": "of files, mapped by PMDs",
}
_CACHED = {
    "NR_FILE_PAGES": "in page cache and swap cache",
    "NR_SHMEM": "shmem in the page cache",
    "NR_SHMEM_THPS": "huge shmem in the page cache",
    "NR_FILE_THPS": "huge, of files in the page cache",
    "NR_SWAPCACHE": "in the swap cache",
}
_TASK_DEAD = np.uint32(0x80)
"""TASK_DEAD (include/linux/sched.h)."""
_SLABS = "NR_SLAB_RECLAIMABLE_B + NR_SLAB_UNRECLAIMABLE_B"


def _rebuilt(s: Snapshot) -> Iterator[tuple[str, str, I64]]:
    """What is summed up by node: in words, the name of what the kernel counts, int64[nodes]."""
    if s.layout.flag_fields is None:
        return
    mapped = mapped_by_node(s)
    yield from ((what, name, mapped[name]) for name, what in _MAPPED.items() if name in mapped)
    cached = cached_by_node(s)
    yield from ((what, name, cached[name]) for name, what in _CACHED.items())
    yield "page tables", "NR_PAGETABLE", tables_by_node(s)
    if "PGTY_large_kmalloc" in s.layout.enum("enum pagetype"):
        # Large kmalloc() is counted with slabs; what is not marked as such cannot be found.
        yield "slabs", _SLABS, slabs_by_node(s)
    yield "pins", "NR_FOLL_PIN_ACQUIRED - NR_FOLL_PIN_RELEASED", pins_by_node(s)[1]


_KINDS = (
    TableColumn("kind"),
    TableColumn("pages", right=True),
    TableColumn("memory", right=True),
    TableColumn("folios", right=True),
)
_SUMS = (
    TableColumn("of"),
    TableColumn("pages", right=True),
    TableColumn("that are"),
    TableColumn("stored", right=True),
    TableColumn("in"),
    TableColumn("remarks"),
)


def render_memory(screen: Screen, report: MemoryReport) -> Iterator[str]:
    """The report for people."""
    zones = tuple(TableColumn(name, right=True) for name in report.zones)
    rows = [
        (k.kind, str(k.pages), size(k.bytes), str(k.folios), *(str(nr) if nr else "" for nr in k.by_zone))
        for k in report.kinds
    ]
    yield from render_table(screen, (*_KINDS, *zones), rows)
    yield ""
    yield from render_table(screen, _SUMS, [_cells(each) for each in report.sums])
    yield ""
    odd = sum(each.pages != each.stored for each in report.sums)
    verdict = "all sums are equal" if not odd else f"{counted(odd, 'sum')} differ"
    yield from screen.wrap(f"{counted(report.pages, 'page')}, {verdict}, {counted(report.lost, 'page')} lost")


def _cells(each: MemorySum) -> tuple[str, ...]:
    off = each.pages - each.stored
    remark = "" if not off else f"{off:+}" + (" (in flight)" if each.in_motion else "")
    return each.of, str(each.pages), each.what, str(each.stored), each.counter, remark
