"""hugetlb's pools, folios, VMAs and shared page tables as rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from inspector.hex_json import Hex, Wide
from inspector.layout.flags import VM_MAYSHARE
from inspector.report.mappings import owner_of
from inspector.report.screen import Screen, TableColumn, render_table, wrong_words
from inspector.snapshot import Snapshot
from inspector.subjects import HSTATE
from inspector.tables.hugetlb import OFF_LIST, ON_FREE, hugetlb_flags
from inspector.text import clean_bytes, counted

_WHERE = ("on no list", "in use", "free")


class PoolOfNode(msgspec.Struct, frozen=True):
    """The pool of one NUMA node: counters as stored, and folios on its free list."""

    node: int
    nr: Wide
    free: Wide
    surplus: Wide
    listed_free: int


class HugetlbSize(msgspec.Struct, frozen=True):
    """One size of hugetlb folios: counters as stored beside what its lists hold."""

    name: str
    hstate: Hex
    order: int
    nr: Wide
    free: Wide
    reserved: Wide
    surplus: Wide
    overcommit: Wide
    listed_in_use: int
    listed_free: int
    off_lists: int
    """In the memory map, but on no list: isolated, or on their way."""
    lists_whole: bool
    nodes: list[PoolOfNode]
    wrong: list[str]
    """What the rules find about it: which of its values are not as they must be."""


class HugetlbFolio(msgspec.Struct, frozen=True):
    """One hugetlb folio."""

    pfn: int
    order: int
    where: str
    node: int | None
    """Of the free list it is on; of others that of their memory, null where their struct page is not in the dump."""
    refcount: int
    mappings: int
    mms: int
    anon: bool
    subpool: Hex | None
    flags: list[str]
    """What hugetlb noted in the private word of the head, such as restore_reserve (enum hugetlb_page_flags)."""


class HugetlbVma(msgspec.Struct, frozen=True):
    """One VMA of hugetlb memory."""

    mm: Hex
    pid: int | None
    comm: str | None
    vma: Hex
    start: Hex
    end: Hex
    order: int | None
    shared: bool
    lock: Hex | None
    """hugetlb_vma_lock of a VMA whose page tables can be shared."""
    reservations: Hex | None
    """resv_map: the file's, or a private VMA's own."""
    owns_reservations: bool


class TableSharer(msgspec.Struct, frozen=True):
    """One place from which a PMD table is reached."""

    mm: Hex
    pid: int | None
    comm: str | None
    va: Hex
    vma: Hex


class SharedTable(msgspec.Struct, frozen=True):
    """A PMD table of hugetlb memory that several processes share, or whose share count is not 0."""

    pfn: int
    share_count: Wide | None
    """Sharers beyond the first, as stored; null when it is not in the dump."""
    sharers: list[TableSharer]


class HugetlbReport(msgspec.Struct, frozen=True):
    """The object that ``hugetlb --format json`` prints."""

    schema: Literal["folioscope.hugetlb/2"]
    sizes: list[HugetlbSize]
    folios: list[HugetlbFolio]
    vmas: list[HugetlbVma]
    tables: int
    """PMD tables of hugetlb memory, shared or not."""
    shared_tables: list[SharedTable]
    active: bool
    """hugetlb_lock is held: all of this may be half changed."""
    unreadable: int


def build_hugetlb_report(s: Snapshot) -> HugetlbReport:
    """Everything hugetlb keeps."""
    from inspector.check.marks import marks_of  # noqa: PLC0415  (all rules, which few reports need)

    h, marks = s.hugetlb, marks_of(s, HSTATE)
    words = s.hugetlb_words[0][h.folios.folio_idx].tolist()
    return HugetlbReport(
        "folioscope.hugetlb/2",
        [_size(s, i, marks.get(i, [])) for i in range(len(h.hstates))],
        [_folio(s, i, word) for i, word in enumerate(words)],
        [_vma(s, i) for i in range(len(h.vmas))],
        len(s.hugetlb_tables[0]),
        _shared(s),
        h.active,
        h.unreadable,
    )


def _size(s: Snapshot, i: int, wrong: list[str]) -> HugetlbSize:
    h, nodes = s.hugetlb.hstates, s.hugetlb.nodes
    mine = [j for j in range(len(nodes)) if int(nodes.hstate_idx[j]) == i]
    return HugetlbSize(
        name=clean_bytes(bytes(h.name[i])),
        hstate=int(h.addr[i]),
        order=int(h.order[i]),
        nr=int(h.nr[i]),
        free=int(h.free[i]),
        reserved=int(h.resv[i]),
        surplus=int(h.surplus[i]),
        overcommit=int(h.overcommit[i]),
        listed_in_use=int(h.nr_active[i]),
        listed_free=int(h.nr_listed_free[i]),
        off_lists=int(h.nr_off_list[i]),
        lists_whole=not h.broken[i],
        nodes=[
            PoolOfNode(
                int(nodes.nid[j]),
                int(nodes.nr[j]),
                int(nodes.free[j]),
                int(nodes.surplus[j]),
                int(nodes.nr_listed_free[j]),
            )
            for j in mine
        ],
        wrong=wrong,
    )


def _folio(s: Snapshot, i: int, private: int) -> HugetlbFolio:
    pool, folios = s.hugetlb.folios, s.folios
    row = int(pool.folio_idx[i])
    return HugetlbFolio(
        pfn=int(folios.pfn[row]),
        order=int(folios.order[row]),
        where=_WHERE[int(pool.where[i])],
        node=int(pool.nid[i]) if pool.where[i] == ON_FREE else _node_of(s, int(folios.row[row])),
        refcount=int(s.pages.refcount[folios.row[row]]),
        mappings=int(s.counts.entire[row]),
        mms=int(s.counts.nr_mms[row]),
        anon=bool(folios.is_anon[row]),
        subpool=int(pool.subpool[i]) or None,
        flags=hugetlb_flags(s.layout, private),
    )


def _node_of(s: Snapshot, row: int) -> int | None:
    """The node that a struct page's flags name (include/linux/mm.h, page_to_nid())."""
    fields = s.layout.flag_fields
    return None if fields is None or not s.pages.readable[row] else int(fields.nodes(s.pages.flags[[row]])[0])


def _vma(s: Snapshot, i: int) -> HugetlbVma:
    table, vmas, h = s.hugetlb.vmas, s.vmas, s.hugetlb.hstates
    row, hstate = int(table.vma_idx[i]), int(table.hstate_idx[i])
    mm, pid, comm = owner_of(s, int(vmas.mm_idx[row]))
    return HugetlbVma(
        mm=mm,
        pid=pid,
        comm=comm,
        vma=int(vmas.addr[row]),
        start=int(vmas.start[row]),
        end=int(vmas.end[row]),
        order=int(h.order[hstate]) if hstate >= 0 else None,
        shared=bool(int(vmas.flags[row]) & VM_MAYSHARE),
        lock=int(table.lock[i]) or None,
        reservations=int(table.resv_map[i]) or None,
        owns_reservations=bool(int(table.resv_flags[i]) & 1),
    )


def _shared(s: Snapshot) -> list[SharedTable]:
    tables, sharers = s.hugetlb_tables
    out = []
    for i in range(len(tables)):
        if tables.nr_sharers[i] == 1 and tables.share_count[i] == 0:
            continue
        places = []
        for j in range(int(tables.first[i]), int(tables.first[i] + tables.nr_sharers[i])):
            mm, pid, comm = owner_of(s, int(sharers.mm_idx[j]))
            places.append(TableSharer(mm, pid, comm, int(sharers.va[j]), int(s.vmas.addr[sharers.vma_idx[j]])))
        count = int(tables.share_count[i]) if tables.readable[i] else None
        out.append(SharedTable(int(tables.pfn[i]), count, places))
    return out


def _columns(*names: str) -> tuple[TableColumn, ...]:
    """Columns flush right, but for those of words."""
    words = ("size", "comm", "where", "kind", "remarks")
    return tuple(TableColumn(n, right=n not in words, style="bold" if i == 0 else "") for i, n in enumerate(names))


_SIZES = _columns("size", "node", "total", "free", "reserved", "surplus", "in use", "listed free", "remarks")
_FOLIOS = _columns("pfn", "where", "node", "kind", "refs", "mappings", "processes", "remarks")
_TABLES = _columns("table", "count", "pid", "comm", "va")
_VMAS = _columns("pid", "comm", "start", "end", "kind", "lock", "reservations")


def render_hugetlb(screen: Screen, report: HugetlbReport) -> Iterator[str]:
    """The report for people."""
    if not report.sizes:
        yield "this kernel has no hugetlb folios of any size, or its pools are not in the dump"
        return
    yield from render_table(screen, _SIZES, [row for size in report.sizes for row in _size_rows(size)])
    if report.folios:
        yield ""
        yield from render_table(screen, _FOLIOS, [_folio_cells(f) for f in report.folios])
    if report.vmas:
        yield ""
        yield from render_table(screen, _VMAS, [_vma_cells(v) for v in report.vmas])
    if report.shared_tables:
        yield ""
        yield from render_table(screen, _TABLES, [row for t in report.shared_tables for row in _table_rows(t)])
    yield ""
    words = f"{counted(report.tables, 'PMD table')} of hugetlb memory, {len(report.shared_tables)} shared"
    words += "; hugetlb_lock was held" if report.active else ""
    yield words + (f"; not in the dump: {report.unreadable}" if report.unreadable else "")


def _size_rows(size: HugetlbSize) -> Iterator[tuple[str, ...]]:
    remarks = [f"{counted(size.off_lists, 'folio')} {_WHERE[OFF_LIST]}"] if size.off_lists else []
    remarks += [] if size.lists_whole else ["lists damaged"]
    remarks += [wrong_words(size.wrong)] if size.wrong else []
    numbers = (size.nr, size.free, size.reserved, size.surplus, size.listed_in_use, size.listed_free)
    yield (size.name, "", *map(str, numbers), ", ".join(remarks))
    for n in size.nodes:
        yield ("", str(n.node), str(n.nr), str(n.free), "", str(n.surplus), "", str(n.listed_free), "")


def _folio_cells(f: HugetlbFolio) -> tuple[str, ...]:
    kind = "" if f.where == _WHERE[ON_FREE] else "anon" if f.anon else "file"
    node = "" if f.node is None else str(f.node)
    remarks = ", ".join([*f.flags, *([] if f.subpool is None else [f"subpool {f.subpool:#x}"])])
    return f"{f.pfn:#x}", f.where, node, kind, str(f.refcount), str(f.mappings), str(f.mms), remarks


def _vma_cells(v: HugetlbVma) -> tuple[str, ...]:
    who = ("", f"mm {v.mm:#x}") if v.pid is None else (str(v.pid), v.comm or "")
    lock = "" if v.lock is None else f"{v.lock:#x}"
    kept = "" if v.reservations is None else f"{v.reservations:#x}"
    return (*who, f"{v.start:#x}", f"{v.end:#x}", "shared" if v.shared else "private", lock, kept)


def _table_rows(t: SharedTable) -> Iterator[tuple[str, ...]]:
    for i, place in enumerate(t.sharers):
        who = ("", f"mm {place.mm:#x}") if place.pid is None else (str(place.pid), place.comm or "")
        count = "?" if t.share_count is None else str(t.share_count)
        yield (f"{t.pfn:#x}" if not i else "", count if not i else "", *who, f"{place.va:#x}")
