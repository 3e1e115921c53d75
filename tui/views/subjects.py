"""Reports that are lists, for the screen: what each shows, its tables, and where its rows lead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.columns import AnyArray
from inspector.report.cpus import CpusReport, build_cpus, folio_words, render_cpus, stack_lines, where
from inspector.report.files import FilesReport, build_files, render_files
from inspector.report.hugetlb import HugetlbReport, build_hugetlb_report, render_hugetlb
from inspector.report.ksm import KsmReport, build_ksm_report, render_ksm
from inspector.report.memcg import MemcgReport, build_memcg, render_memcg
from inspector.report.memory import MemoryReport, build_memory, render_memory
from inspector.report.mthp import MthpReport, build_mthp, render_mthp
from inspector.report.notifiers import NotifiersReport, build_notifiers_report, render_notifiers
from inspector.report.references import ReferencesReport, render_references, settled_references
from inspector.report.screen import Screen
from inspector.report.stacks import WindowsReport, build_windows, render_windows
from inspector.report.swap import SwapReport, build_swap, render_swap
from inspector.report.uffd import UffdReport, build_uffd_report, render_uffd
from inspector.snapshot import Snapshot
from inspector.text import counted
from tui.places import FilePlace, FolioPlace, FoliosPlace, MemoryPlace, Place, SubjectPlace, UserPlace
from tui.views.rows import ColumnData, Rows, ViewColumn, number, sizes, words

Cell = Callable[[Any], Any]

_MOST_SIGNED = (1 << 63) - 1


@dataclass(frozen=True)
class Listed:
    """One table of a report.

    Attributes:
        title: What its rows are.
        rows: The rows, from the report.
        columns: Of a row.
        leads: Where a row leads.
        detail: Lines about a row, shown below the table.
    """

    title: str
    rows: Callable[[Any], Sequence[Any]]
    columns: tuple[Callable[[Sequence[Any]], ColumnData], ...]
    leads: Callable[[Any], Place | None] = lambda _row: None
    detail: Callable[[Any], list[str]] | None = None


@dataclass(frozen=True)
class ListReport:
    """One report.

    Attributes:
        line: What it shows.
        build: Makes the report.
        render: Makes the text of it that the command prints.
        facts: Its numbers, in a line above the table.
        tables: Its lists.
    """

    line: str
    build: Callable[[Snapshot], Any]
    render: Callable[[Screen, Any], Iterable[str]]
    facts: Callable[[Any], str]
    tables: tuple[Listed, ...]


def _num(title: str, of: Cell, *, drop: int = 0, blank: int | None = 0) -> Callable[[Sequence[Any]], ColumnData]:
    def column(rows: Sequence[Any]) -> ColumnData:
        values = [of(row) for row in rows]
        unknown = -1 if blank is None else blank
        numbers, unknown = _numbers(values, unknown)
        return number(title, numbers, drop=drop, blank=unknown)

    return column


def _numbers(values: Sequence[int | None], unknown: int) -> tuple[AnyArray, int]:
    """Numbers as a column, and the one that means None: a damaged word may need all of its 64 bits."""
    known = [v for v in values if v is not None]
    if max(known, default=0) <= _MOST_SIGNED:
        return np.array([unknown if v is None else v for v in values], np.int64), unknown
    unknown %= 1 << 64
    return np.array([unknown if v is None else max(v, 0) for v in values], np.uint64), unknown


def _id(title: str, of: Cell, *, drop: int = 0) -> Callable[[Sequence[Any]], ColumnData]:
    """A number that is a name: no separators, nothing for None."""
    return lambda rows: number(
        title,
        np.array([-1 if of(row) is None else of(row) for row in rows], np.int64),
        str,
        drop=drop,
        blank=-1,
        shade=lambda _: "heat1",
    )


def _hex(title: str, of: Cell, *, drop: int = 0) -> Callable[[Sequence[Any]], ColumnData]:
    return lambda rows: number(
        title,
        np.array([of(row) or 0 for row in rows], np.uint64),
        lambda n: f"{n:#x}",
        drop=drop,
        blank=0,
        shade=lambda _: "heat1",
    )


def _text(title: str, of: Cell, *, drop: int = 0) -> Callable[[Sequence[Any]], ColumnData]:
    return lambda rows: words(
        title, ["" if of(row) is None else str(of(row)) for row in rows], drop=drop, least=12, stays=title == "comm"
    )


def _size(title: str, of: Cell, unit: int, *, drop: int = 0) -> Callable[[Sequence[Any]], ColumnData]:
    return lambda rows: sizes(
        title, np.array([-1 if of(row) is None else of(row) for row in rows], np.int64), unit, drop=drop, blank=0
    )


def _memcg_facts(r: MemcgReport) -> str:
    if not r.memcgs:
        return "the memory cgroups are not in the dump" if r.has_memcgs else "no memory cgroups here"
    facts = f"{counted(len(r.memcgs), 'memory cgroup')}, {sum(not m.online for m in r.memcgs)} of them removed"
    return facts if r.known else f"{facts}; what they count is not in the dump"


def _notifier_facts(r: NotifiersReport) -> str:
    if not r.known:
        return "no MMU notifiers here"
    return f"{counted(len(r.notifiers), 'notifier')} of {counted(len(r.mms), 'address space')}"


def _owner(row: Any) -> Place | None:
    return UserPlace(row.mm) if row.mm else None


def _who(row: Any) -> str:
    return (row.comm or "") if row.pid is not None else f"mm {row.mm:#x}"


def _cpu_place(row: Any) -> Place | None:
    return UserPlace(row.mms[0].mm) if row.mms else FolioPlace(row.folios[0].pfn) if row.folios else None


def _cpu_folios(report: CpusReport) -> list[Any]:
    return [(row, folio) for row in report.cpus for folio in row.folios]


def _watched(report: UffdReport) -> list[Any]:
    return [(context, vma) for context in report.contexts for vma in context.vmas]


SUBJECTS: dict[str, ListReport] = {
    "cpus": ListReport(
        "what each CPU was doing: task, stack, window, address space, folios",
        build_cpus,
        render_cpus,
        lambda r: f"{counted(len(r.cpus), 'CPU')}, {sum(c.state == 'idle' for c in r.cpus)} idle",
        (
            Listed(
                "CPUs",
                lambda r: r.cpus,
                (
                    _id("cpu", lambda c: c.cpu),
                    _id("pid", lambda c: c.pid),
                    _text("comm", lambda c: c.comm),
                    _text("in", where),
                    _text("window", lambda c: " ".join(w.window for w in c.windows)),
                    _text("folios", folio_words, drop=1),
                ),
                _cpu_place,
                stack_lines,
            ),
            Listed(
                "folios named by their stacks",
                _cpu_folios,
                (
                    _id("cpu", lambda x: x[0].cpu),
                    _text("comm", lambda x: x[0].comm),
                    _hex("pfn", lambda x: x[1].pfn),
                    _num("order", lambda x: x[1].order, blank=None),
                    _text("kind", lambda x: x[1].kind),
                ),
                lambda x: FolioPlace(x[1].pfn),
            ),
        ),
    ),
    "files": ListReport(
        "the files that processes map, with what is cached of them",
        build_files,
        render_files,
        lambda r: counted(len(r.files), "mapped file"),
        (
            Listed(
                "files",
                lambda r: r.files,
                (
                    _size("cached", lambda f: f.cached_kb, 1024),
                    _num("vmas", lambda f: f.vmas, drop=3),
                    _num("processes", lambda f: f.processes, drop=1),
                    _text("kind", lambda f: f.kind, drop=2),
                    _text("file", lambda f: f.name),
                ),
                lambda f: FilePlace(f.address_space),
            ),
        ),
    ),
    "mthp": ListReport(
        "large folios: who maps some in part, what that wastes",
        build_mthp,
        render_mthp,
        lambda r: "; ".join(
            f"{name} orders {' '.join(map(str, orders)) or 'none'}" for name, orders in r.policy.items()
        ),
        (
            Listed(
                "processes that map folios in part",
                lambda r: r.processes,
                (
                    _id("pid", lambda p: p.pid),
                    _text("comm", _who),
                    _num("large", lambda p: p.folios, drop=1),
                    _num("partly mapped", lambda p: p.partly),
                    _size("wasted", lambda p: p.unmapped_bytes, 1),
                ),
                _owner,
            ),
            Listed(
                "by kind and order",
                lambda r: r.sizes,
                (
                    _text("kind", lambda z: z.kind),
                    _num("order", lambda z: z.order, blank=None),
                    _num("folios", lambda z: z.folios),
                    _size("memory", lambda z: z.bytes, 1),
                    _num("by PMD", lambda z: z.by_pmd),
                    _num("by PTEs", lambda z: z.by_ptes),
                    _num("partly", lambda z: z.partly),
                    _size("wasted", lambda z: z.unmapped_bytes, 1),
                    _num("queued", lambda z: z.queued, drop=1),
                ),
                lambda z: FoliosPlace(f"{z.kind} order={z.order}"),
            ),
        ),
    ),
    "memory": ListReport(
        "every page accounted for, beside the counters of zones and hugetlb",
        build_memory,
        render_memory,
        lambda r: f"{r.pages:,} pages in {counted(len(r.zones), 'zone')}",
        (
            Listed(
                "by kind",
                lambda r: r.kinds,
                (
                    _text("kind", lambda k: k.kind),
                    _num("pages", lambda k: k.pages),
                    _size("memory", lambda k: k.bytes, 1),
                    _num("folios", lambda k: k.folios),
                ),
                lambda _kind: MemoryPlace(),
            ),
            Listed(
                "sums beside counters",
                lambda r: r.sums,
                (
                    _text("of", lambda x: x.of),
                    _text("what", lambda x: x.what),
                    _num("pages", lambda x: x.pages, blank=None),
                    _num("stored", lambda x: x.stored, blank=None),
                    _text("counter", lambda x: x.counter),
                ),
            ),
        ),
    ),
    "swap": ListReport(
        "swap devices and what is on them",
        lambda s: build_swap(s, None),
        render_swap,
        lambda r: counted(len(r.devices), "swap device"),
        (
            Listed(
                "devices",
                lambda r: r.devices,
                (
                    _id("type", lambda d: d.type),
                    _text("device", lambda d: d.path),
                    _size("size", lambda d: d.size_kb, 1024),
                    _size("used", lambda d: d.used_kb, 1024),
                    _num("slots used", lambda d: d.used),
                    _num("slots cached", lambda d: d.cached),
                    _num("slots shared", lambda d: d.shared, drop=1),
                    _num("slots of shmem", lambda d: d.shmem, drop=2),
                    _num("PTEs", lambda d: d.pte_refs),
                ),
            ),
        ),
    ),
    "ksm": ListReport(
        "KSM's stable nodes, their pages and who shares them",
        build_ksm_report,
        render_ksm,
        lambda r: "  ".join(f"{name} {value:,}" for name, value in r.rebuilt.items()) if r.known else "no KSM here",
        (
            Listed(
                "stable nodes",
                lambda r: r.nodes,
                (
                    _hex("stable node", lambda n: n.address),
                    _text("kind", lambda n: n.kind),
                    _hex("pfn", lambda n: n.kpfn),
                    _num("items", lambda n: n.items),
                    _num("entries", lambda n: n.entries),
                    _num("processes", lambda n: n.mms),
                ),
                lambda n: FolioPlace(n.kpfn) if n.kpfn else None,
            ),
            Listed(
                "processes",
                lambda r: r.processes,
                (
                    _id("pid", lambda p: p.pid),
                    _text("comm", _who),
                    _num("items", lambda p: p.rmap_items),
                    _num("merged pages", lambda p: p.merging_pages),
                    _num("zero pages", lambda p: p.stored_zero_pages),
                ),
                _owner,
            ),
        ),
    ),
    "hugetlb": ListReport(
        "hugetlb's pools, folios and VMAs",
        build_hugetlb_report,
        render_hugetlb,
        lambda r: "  ".join(f"{z.name}: {z.nr} total, {z.free} free, {z.reserved} reserved" for z in r.sizes),
        (
            Listed(
                "folios",
                lambda r: r.folios,
                (
                    _hex("pfn", lambda f: f.pfn),
                    _num("order", lambda f: f.order, blank=None),
                    _text("where", lambda f: f.where),
                    _id("node", lambda f: f.node),
                    _text("kind", lambda f: "" if f.where == "free" else "anon" if f.anon else "file"),
                    _num("refs", lambda f: f.refcount),
                    _num("mappings", lambda f: f.mappings),
                    _num("processes", lambda f: f.mms),
                ),
                lambda f: FolioPlace(f.pfn),
            ),
            Listed(
                "VMAs",
                lambda r: r.vmas,
                (
                    _id("pid", lambda v: v.pid),
                    _text("comm", _who),
                    _hex("start", lambda v: v.start),
                    _hex("end", lambda v: v.end),
                    _num("order", lambda v: v.order, blank=None),
                    _text("shared", lambda v: "shared" if v.shared else "private"),
                ),
                lambda v: UserPlace(v.mm, v.start),
            ),
            Listed(
                "pools by node",
                lambda r: [(z, node) for z in r.sizes for node in z.nodes],
                (
                    _text("size", lambda x: x[0].name),
                    _id("node", lambda x: x[1].node),
                    _num("pages", lambda x: x[1].nr),
                    _num("free pages", lambda x: x[1].free),
                    _num("surplus pages", lambda x: x[1].surplus),
                ),
            ),
        ),
    ),
    "uffd": ListReport(
        "userfaultfd's contexts and the memory that each watches",
        build_uffd_report,
        render_uffd,
        lambda r: counted(len(r.contexts), "context") if r.known else "no userfaultfd here",
        (
            Listed(
                "watched memory",
                _watched,
                (
                    _id("pid", lambda x: x[0].pid),
                    _text("comm", lambda x: _who(x[0])),
                    _hex("start", lambda x: x[1].start),
                    _hex("end", lambda x: x[1].end, drop=1),
                    _text("modes", lambda x: " ".join(x[1].modes)),
                    _num("protected pages", lambda x: x[1].protected),
                    _num("marked pages", lambda x: x[1].markers),
                    _text("features", lambda x: " ".join(x[0].features), drop=2),
                ),
                lambda x: UserPlace(x[0].mm, x[1].start),
            ),
        ),
    ),
    "notifiers": ListReport(
        "MMU notifiers: drivers called back when page tables change",
        build_notifiers_report,
        render_notifiers,
        _notifier_facts,
        (
            Listed(
                "notifiers",
                lambda r: r.notifiers,
                (
                    _id("pid", lambda n: n.pid),
                    _text("comm", _who),
                    _hex("notifier", lambda n: n.address, drop=1),
                    _hex("from", lambda n: n.start),
                    _hex("to", lambda n: n.end, drop=1),
                    _text("callback", lambda n: n.callback),
                    _num("users", lambda n: n.users),
                ),
                lambda n: UserPlace(n.mm),
            ),
            Listed(
                "address spaces",
                lambda r: r.mms,
                (
                    _id("pid", lambda m: m.pid),
                    _text("comm", _who),
                    _hex("subscriptions", lambda m: m.address, drop=1),
                    _num("notifiers", lambda m: m.notifiers),
                    _num("active changes", lambda m: m.active),
                    _num("sequence", lambda m: m.sequence),
                ),
                lambda m: UserPlace(m.mm),
            ),
        ),
    ),
    "memcg": ListReport(
        "memory cgroups: what each counts beside what is charged to it",
        build_memcg,
        render_memcg,
        _memcg_facts,
        (
            Listed(
                "memory cgroups",
                lambda r: r.memcgs,
                (
                    _text("memory cgroup", lambda m: m.path),
                    _num("usage pages", lambda m: m.usage),
                    _num("charged", lambda m: m.charged),
                    _num("own folios", lambda m: m.folios),
                    _num("own pages", lambda m: m.pages, drop=1),
                    _num("kernel", lambda m: m.kernel, drop=2),
                    _num("swap", lambda m: m.swap, drop=2),
                    _text("state", lambda m: "" if m.online else "removed"),
                ),
            ),
            Listed(
                "counters by node",
                lambda r: r.statistics,
                (
                    _text("memory cgroup", lambda c: c.path),
                    _id("node", lambda c: c.node),
                    _text("counter", lambda c: c.counter),
                    _num("pages", lambda c: c.pages),
                    _num("stored", lambda c: c.stored),
                    _num("flushed", lambda c: c.shown),
                ),
            ),
        ),
    ),
    "windows": ListReport(
        "tasks stopped where counters may differ for a moment",
        build_windows,
        render_windows,
        lambda r: f"{counted(r.tasks, 'task')}, {len({w.pid for w in r.windows})} in windows",
        (
            Listed(
                "tasks in windows",
                lambda r: r.windows,
                (
                    _id("pid", lambda w: w.pid),
                    _text("comm", lambda w: w.comm),
                    _id("cpu", lambda w: w.cpu),
                    _text("state", lambda w: w.state),
                    _text("window", lambda w: w.window),
                    _text("function", lambda w: w.function),
                ),
                lambda w: UserPlace(w.mms[0].mm) if w.mms else None,
                lambda w: [
                    f"{w.window}  {w.title}",
                    f"works on {', '.join(_mm_words(m) for m in w.mms) or 'no address space'}",
                ],
            ),
        ),
    ),
    "references": ListReport(
        "who holds the references of all folios, and which are left over",
        settled_references,
        render_references,
        lambda r: f"{r.exact:,} of {counted(r.folios, 'folio')} are explained to the last reference",
        (
            Listed(
                "references left over",
                lambda r: r.left,
                (
                    _hex("pfn", lambda x: x.pfn),
                    _text("kind", lambda x: x.kind, drop=2),
                    _num("refs", lambda x: x.refcount),
                    _num("explained", lambda x: x.explained, drop=1),
                    _num("left", lambda x: x.unexplained),
                    _text("likeliest", lambda x: x.likeliest),
                ),
                lambda x: FolioPlace(x.pfn),
                lambda x: [x.likeliest],
            ),
            Listed(
                "held by",
                lambda r: r.terms,
                (
                    _num("references", lambda t: t.references),
                    _num("folios", lambda t: t.folios),
                    _text("held by", lambda t: t.meaning),
                    _text("known", lambda t: t.basis),
                ),
            ),
        ),
    ),
}
"""By the name of the command that prints the same; "files" is ``file`` without a name."""

REPORTS = (
    CpusReport | FilesReport | MthpReport | MemoryReport | ReferencesReport | SwapReport | KsmReport | HugetlbReport
    | UffdReport | WindowsReport
)  # fmt: skip
"""What the tables are made from."""


def _mm_words(mm: Any) -> str:
    return f"{mm.pid} {mm.comm}" if mm.pid is not None else f"mm {mm.mm:#x}"


def table_rows(listed: Listed, report: Any) -> tuple[Sequence[Any], Rows]:
    """The rows of a report's list, and how they are shown."""
    rows = listed.rows(report)
    return rows, Rows([column(rows) for column in listed.columns], lambda at: listed.leads(rows[at]))


def subject_rows() -> Rows:
    """One row a subject."""
    names, at = tuple(SUBJECTS), np.arange(len(SUBJECTS))
    return Rows(
        [
            ColumnData(ViewColumn("subject"), at, str, names),
            ColumnData(ViewColumn("what it shows"), at, str, tuple(each.line for each in SUBJECTS.values())),
        ],
        lambda row: SubjectPlace(names[row]),
    )
