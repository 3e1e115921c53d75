"""Large folios of user memory: by kind and order, and the processes that map some in part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.columns import AnyArray, take_or
from inspector.hex_json import Hex, Wide
from inspector.report.mappings import owner_of
from inspector.report.screen import Screen, TableColumn, render_table
from inspector.snapshot import Snapshot
from inspector.tables.split_queue_heads import charged_to
from inspector.text import counted, size
from inspector.walk.kinds import KINDS
from inspector.walk.mthp import CONT_ORDER, LargeFolios, large_folios, large_of_mms, mapped_large_folios
from inspector.walk.node_sums import node_of


class MthpSize(msgspec.Struct, frozen=True):
    """The large folios of one kind and order."""

    kind: str
    """anon, ksm, shmem or file."""
    order: int
    folios: int
    bytes: int
    by_pmd: int
    """Folios that a PMD maps whole."""
    by_ptes: int
    """Folios all of whose pages PTEs map."""
    partly: int
    """Folios of which some pages are mapped."""
    unmapped: int
    """Folios that nothing maps: in the page cache or swap cache alone."""
    unmapped_bytes: int
    """Of those mapped in part, what nothing maps: of an anonymous one, what splitting would free."""
    queued: int
    """Folios on a split queue."""
    swapcache: int
    mlocked: int
    stored_anon: Wide | None
    """The kernel's own count of anonymous folios of this order (nr_anon); on the line of anonymous ones alone."""
    stored_partly: Wide | None
    """Its count of those marked as partially mapped (nr_anon_partially_mapped)."""


class MthpProcess(msgspec.Struct, frozen=True):
    """An address space that maps folios which are mapped in part."""

    mm: Hex
    pid: int | None
    comm: str | None
    folios: int
    """Large folios that it maps."""
    partly: int
    """Those of them of which some pages are mapped by no process."""
    unmapped_bytes: int
    """These pages. Several address spaces may map the same folio, and each has them in its number."""


class MthpVma(msgspec.Struct, frozen=True):
    """What a VMA maps of large folios of one kind and order, in bytes; as tools/mm/thpmaps of the kernel has it."""

    mm: Hex
    pid: int | None
    comm: str | None
    start: Hex
    end: Hex
    kind: str
    """anon or file; of shmem too."""
    order: int
    by_pmd: int
    aligned: int
    """Of folios that PTEs map whole, in a row, from a multiple of their size."""
    unaligned: int
    """The same from another address."""
    partial: int
    """Of folios of which the VMA maps a part."""
    cont: int
    """In blocks of 64 KiB that arm64 could hold in one TLB entry: in a row, and aligned in address and page frame."""


class MthpGroup(msgspec.Struct, frozen=True):
    """The large folios of one kind and order that are charged to a memory cgroup, on one node."""

    memcg: str | None
    """Its path; null where they are charged to none, or that is not known."""
    node: int
    kind: str
    order: int
    folios: int
    bytes: int
    partly: int
    """Folios of which some pages are mapped."""
    unmapped_bytes: int
    """Of those, what nothing maps."""
    queued: int
    """Folios on a split queue."""


class SplitQueue(msgspec.Struct, frozen=True):
    """A queue of folios that the shrinker is to split; an empty one is left out."""

    memcg: str | None
    """The memory cgroup whose folios it holds; null where folios of no memory cgroup are there."""
    node: int | None
    """Null for a queue of all nodes."""
    head: Hex
    length: Wide
    """As stored."""
    folios: list[int]
    """Page frames of its members."""
    orders: list[int]
    """Of each."""
    unmapped_bytes: int
    """What splitting them would free."""


class MthpReport(msgspec.Struct, frozen=True):
    """The object that ``mthp --format json`` prints."""

    schema: Literal["folioscope.mthp/1"]
    sizes: list[MthpSize]
    processes: list[MthpProcess]
    """Those with the most unmapped bytes first."""
    policy: dict[str, list[int]]
    """Orders for which anonymous folios are made: always, madvise, inherit (/sys/kernel/mm/transparent_hugepage)."""
    vmas: list[MthpVma] = []
    """By process and address; with --vmas alone."""
    groups: list[MthpGroup] = []
    """By memory cgroup and node; with --memcgs alone."""
    queues: list[SplitQueue] = []
    """With --memcgs alone."""


def build_mthp(
    s: Snapshot, *, by_vma: bool = False, by_memcg: bool = False, cont_order: int = CONT_ORDER
) -> MthpReport:
    """Count the large folios.

    Args:
        s: The snapshot.
        by_vma: Also VMA by VMA, for which every mapping is looked through.
        by_memcg: Also by memory cgroup and node, and each split queue.
        cont_order: Order of the blocks that are counted in each VMA (`MthpVma.cont`).
    """
    large = large_folios(s)
    vmas = _vmas(s, large, cont_order) if by_vma else []
    groups, queues = (_groups(s, large), _queues(s, large)) if by_memcg else ([], [])
    return MthpReport("folioscope.mthp/1", _sizes(s, large), _processes(s, large), _policy(s), vmas, groups, queues)


def _path(s: Snapshot, memcg: int) -> str | None:
    return s.lru.memcgs.path(memcg) if memcg >= 0 else None


def _groups(s: Snapshot, large: LargeFolios) -> list[MthpGroup]:
    rows = s.folios.row[large.folio]
    memcg, node = charged_to(s.layout, s.pages, s.lru, rows), node_of(s, rows)
    orders = s.folios.order[large.folio].astype(np.int64)
    queued = np.isin(large.folio, s.split_links.folio[s.split_links.queued])
    keys = np.stack([memcg.astype(np.int64), node, large.kind.astype(np.int64), orders])
    each, which = np.unique(keys, axis=1, return_inverse=True)
    which, n, shift = which.reshape(-1), each.shape[1], s.layout.memmap.page_shift

    def summed(column: AnyArray) -> list[int]:
        return np.bincount(which, column, n).astype(np.int64).tolist()

    folios, partly, on_queue = summed(np.ones(len(large))), summed(large.partly), summed(queued)
    pages, unmapped = summed(large.nr_pages), summed(large.unmapped_pages)
    return [
        MthpGroup(
            _path(s, of),
            at_node,
            KINDS[kind],
            order,
            folios[row],
            pages[row] << shift,
            partly[row],
            unmapped[row] << shift,
            on_queue[row],
        )
        for row, (of, at_node, kind, order) in enumerate(each.T.tolist())
    ]


def _queues(s: Snapshot, large: LargeFolios) -> list[SplitQueue]:
    queues, links = s.split_queues.queues, s.split_links
    place = np.full(len(s.folios), -1, np.int64)
    place[large.folio] = np.arange(len(large))
    out = []
    for row in range(len(queues)):
        mine = links.folio[links.queued & (links.queue == queues.head[row])]
        if not len(mine) and not queues.length[row]:
            continue
        unmapped = int(take_or(large.unmapped_pages, place[mine], 0).sum()) << s.layout.memmap.page_shift
        node = int(queues.node[row])
        out.append(
            SplitQueue(
                _path(s, int(queues.memcg[row])),
                node if node >= 0 else None,
                int(queues.head[row]),
                int(queues.length[row]),
                s.folios.pfn[mine].tolist(),
                s.folios.order[mine].tolist(),
                unmapped,
            )
        )
    return out


def _vmas(s: Snapshot, large: LargeFolios, cont_order: int) -> list[MthpVma]:
    found, shift = mapped_large_folios(s, large, cont_order), s.layout.memmap.page_shift
    anon = np.isin(large.kind[found.large], [KINDS.index("anon"), KINDS.index("ksm")])
    orders = s.folios.order[large.folio[found.large]]
    whole = found.pages == large.nr_pages[found.large]
    columns = (
        found.by_pmd,
        np.where(whole & found.aligned, found.pages, 0),
        np.where(whole & ~found.aligned, found.pages, 0),
        np.where(whole, 0, found.pages),
        found.cont,
    )
    mm, start, end = s.vmas.mm_idx[found.vma], s.vmas.start[found.vma], s.vmas.end[found.vma]
    keys = np.stack([mm.astype(np.int64), start.view(np.int64), ~anon, orders.astype(np.int64)])
    each, first, which = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    sums = [(np.bincount(which, c, each.shape[1]).astype(np.int64) << shift).tolist() for c in columns]
    return [
        MthpVma(
            *owner_of(s, int(mm[at])),
            start=int(start[at]),
            end=int(end[at]),
            kind="anon" if anon[at] else "file",
            order=int(orders[at]),
            by_pmd=sums[0][row],
            aligned=sums[1][row],
            unaligned=sums[2][row],
            partial=sums[3][row],
            cont=sums[4][row],
        )
        for row, at in enumerate(first.tolist())
    ]


def _sizes(s: Snapshot, large: LargeFolios) -> list[MthpSize]:
    orders, stats = s.folios.order[large.folio], s.mthp_stats
    queued = s.split_links.folio[s.split_links.queued]
    word = s.pages.flags[s.folios.row[large.folio]]
    columns = {
        "folios": np.ones(len(large), np.int64),
        "bytes": large.nr_pages << s.layout.memmap.page_shift,
        "by_pmd": large.by_pmd,
        "by_ptes": ~large.by_pmd & (large.mapped == large.nr_pages),
        "partly": large.partly,
        "unmapped": large.mapped == 0,
        "unmapped_bytes": large.unmapped_pages << s.layout.memmap.page_shift,
        "queued": np.isin(large.folio, queued),
        "swapcache": s.layout.flags.test(word, "swapcache"),
        "mlocked": s.layout.flags.test(word, "mlocked"),
    }
    out = []
    for kind, order in np.unique(np.stack([large.kind, orders]), axis=1).T.tolist():
        here = (large.kind == kind) & (orders == order)
        own = {name: int(column[here].sum()) for name, column in columns.items()}
        known = {name: by_order[order] for name, by_order in stats.items() if KINDS[kind] == "anon"}
        stored = known.get("NR_ANON"), known.get("NR_ANON_PARTIALLY_MAPPED")
        out.append(MthpSize(KINDS[kind], order, **own, stored_anon=stored[0], stored_partly=stored[1]))
    return out


def _processes(s: Snapshot, large: LargeFolios) -> list[MthpProcess]:
    of, shift = large_of_mms(s, large), s.layout.memmap.page_shift
    folios, partly, unmapped = of.folios, of.partly, of.unmapped << shift
    out = []
    for at in np.lexsort((-partly, -unmapped)).tolist():
        if not partly[at]:
            break
        address, pid, comm = owner_of(s, at)
        out.append(MthpProcess(address, pid, comm, int(folios[at]), int(partly[at]), int(unmapped[at])))
    return out


def _policy(s: Snapshot) -> dict[str, list[int]]:
    found = {}
    for name in ("always", "madvise", "inherit"):
        word = s.layout.variable(f"huge_anon_orders_{name}")
        if word is not None:
            found[name] = [order for order in range(64) if word >> order & 1]
    return found


_SIZES = (
    TableColumn("kind"),
    TableColumn("order", right=True),
    TableColumn("size", right=True),
    TableColumn("folios", right=True),
    TableColumn("memory", right=True),
    TableColumn("by PMD", right=True),
    TableColumn("by PTEs", right=True),
    TableColumn("partly", right=True),
    TableColumn("unmapped", right=True),
    TableColumn("splitting frees", right=True),
    TableColumn("queued", right=True),
    TableColumn("swapcache", right=True),
    TableColumn("mlocked", right=True),
    TableColumn("nr_anon", right=True),
)
_PROCESSES = (
    TableColumn("pid", right=True),
    TableColumn("comm"),
    TableColumn("large folios", right=True),
    TableColumn("partly mapped", right=True),
    TableColumn("unmapped of these", right=True),
)

_VMAS = (
    TableColumn("pid", right=True),
    TableColumn("comm"),
    TableColumn("start", right=True),
    TableColumn("end", right=True),
    TableColumn("kind"),
    TableColumn("order", right=True),
    *(TableColumn(name, right=True) for name in ("by PMD", "aligned", "unaligned", "partial", "in 64 KiB blocks")),
)

_GROUPS = (
    TableColumn("memory cgroup"),
    TableColumn("node", right=True),
    TableColumn("kind"),
    TableColumn("order", right=True),
    TableColumn("folios", right=True),
    TableColumn("memory", right=True),
    TableColumn("partly", right=True),
    TableColumn("unmapped", right=True),
    TableColumn("queued", right=True),
)
_QUEUES = (
    TableColumn("split queue of"),
    TableColumn("node", right=True),
    TableColumn("length", right=True),
    TableColumn("splitting frees", right=True),
    TableColumn("folios"),
)
_MEMBERS = 4
"""Folios of a split queue in the text."""

_LISTED = 20
"""Processes in the text."""


def render_mthp(screen: Screen, report: MthpReport) -> Iterator[str]:
    """The report for people."""
    if not report.sizes:
        yield "no large folios of user memory, hugetlb left out"
        return
    yield from render_table(screen, _SIZES, [_cells(each) for each in report.sizes])
    if report.policy:
        each = [f"{name} {', '.join(map(str, orders)) or 'none'}" for name, orders in report.policy.items()]
        yield ""
        yield from screen.wrap(f"orders of new anonymous folios: {'; '.join(each)}", hang="  ")
    if report.processes:
        yield ""
        rows = [
            (
                "" if p.pid is None else str(p.pid),
                p.comm or f"mm {p.mm:#x}",
                str(p.folios),
                str(p.partly),
                size(p.unmapped_bytes),
            )
            for p in report.processes[:_LISTED]
        ]
        yield from render_table(screen, _PROCESSES, rows)
        more = len(report.processes) - len(rows)
        if more > 0:
            yield from screen.wrap(f"{counted(more, 'more process', 'more processes')}: --format json lists all")
    if report.vmas:
        yield ""
        yield from render_table(screen, _VMAS, [_vma_cells(each) for each in report.vmas])
    if report.groups:
        yield ""
        yield from render_table(screen, _GROUPS, [_group_cells(each) for each in report.groups])
    if report.queues:
        yield ""
        yield from render_table(screen, _QUEUES, [_queue_cells(each) for each in report.queues])


def _group_cells(each: MthpGroup) -> tuple[str, ...]:
    return (
        each.memcg or "none",
        str(each.node),
        each.kind,
        str(each.order),
        str(each.folios),
        size(each.bytes),
        str(each.partly or ""),
        size(each.unmapped_bytes) if each.unmapped_bytes else "",
        str(each.queued or ""),
    )


def _queue_cells(each: SplitQueue) -> tuple[str, ...]:
    some = [f"{pfn:#x} (order {order})" for pfn, order in zip(each.folios, each.orders, strict=True)]
    words = ", ".join(some[:_MEMBERS]) + (f" and {len(some) - _MEMBERS} more" if len(some) > _MEMBERS else "")
    node = "all" if each.node is None else str(each.node)
    return each.memcg or "no memory cgroup", node, str(each.length), size(each.unmapped_bytes), words


def _vma_cells(each: MthpVma) -> tuple[str, ...]:
    bytes_ = (each.by_pmd, each.aligned, each.unaligned, each.partial, each.cont)
    return (
        "" if each.pid is None else str(each.pid),
        each.comm or f"mm {each.mm:#x}",
        f"{each.start:x}",
        f"{each.end:x}",
        each.kind,
        str(each.order),
        *(size(number) if number else "" for number in bytes_),
    )


def _cells(each: MthpSize) -> tuple[str, ...]:
    def number(value: int | None) -> str:
        return str(value) if value else ""

    frees = size(each.unmapped_bytes) if each.unmapped_bytes and each.kind == "anon" else ""
    return (
        each.kind,
        str(each.order),
        size(each.bytes // each.folios),
        str(each.folios),
        size(each.bytes),
        number(each.by_pmd),
        number(each.by_ptes),
        number(each.partly),
        number(each.unmapped),
        frees,
        number(each.queued),
        number(each.swapcache),
        number(each.mlocked),
        "" if each.stored_anon is None else str(each.stored_anon),
    )
