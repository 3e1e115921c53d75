"""Every page accounted for: what each page frame is, beside what zones and hugetlb count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from inspector.hex_json import Wide
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.snapshot import Snapshot
from inspector.subjects import zone_name
from inspector.tables.buddy import LRU_ITEMS
from inspector.tables.lru import pages_on_lru
from inspector.text import counted, size
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
    """A lock is held under which the two may differ."""


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
    stored = s.node_stats.get("NR_PAGETABLE")
    if stored is not None:
        tables = _pages(account, "page table")
        yield MemorySum("all nodes", "page tables", tables, "NR_PAGETABLE", stored, False)


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
    remark = "" if not off else f"{off:+}" + (" (locked)" if each.in_motion else "")
    return each.of, str(each.pages), each.what, str(each.stored), each.counter, remark
