"""KSM's stable nodes, their pages and who maps them, beside its own totals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from inspector.columns import I64, Mask, rows_of
from inspector.hex_json import Hex, Wide
from inspector.report.mappings import owner_of
from inspector.report.screen import Screen, TableColumn, render_facts, render_table
from inspector.snapshot import Snapshot
from inspector.tables.ksm import CHAIN, DUP, KINDS
from inspector.text import counted


class KsmNode(msgspec.Struct, frozen=True):
    """One stable node."""

    address: Hex
    kind: str
    """tree, chain (its head), dup (a member of a chain) or migrate (waits for the tree of its node)."""
    chain: Hex | None
    """Address of the head of its chain."""
    tree: int | None
    """Which of the trees it hangs in; null when it waits."""
    nid: int
    kpfn: Wide | None
    stale: bool
    """The page has gone or belongs to something else: the node will be pruned."""
    length: int
    """rmap_hlist_len as stored."""
    items: int
    """rmap_items on its list; of a chain's head, members of the chain."""
    entries: int
    """Page-table entries that map the page."""
    mms: int
    unreached: int
    """Of these entries, those that rmap does not find."""


class KsmProcess(msgspec.Struct, frozen=True):
    """One address space that KSM knows, or that holds zero pages placed by it."""

    mm: Hex
    pid: int | None
    comm: str | None
    rmap_items: int
    """On its list; merging_pages: of these on stable nodes."""
    merging_pages: int
    stored_rmap_items: Wide
    stored_merging_pages: Wide
    stored_zero_pages: Wide | None
    """ksm_zero_pages; null on kernels before 6.6."""
    in_list: bool
    """Whether KSM scans it."""


class KsmReport(msgspec.Struct, frozen=True):
    """The object that ``ksm --format json`` prints."""

    schema: Literal["folioscope.ksm/2"]
    known: bool
    """False when this kernel has no KSM."""
    active: bool
    """ksm_thread_mutex is held: all of this may be half changed."""
    stored: dict[str, Wide]
    rebuilt: dict[str, int]
    entries: int
    """Entries of KSM pages in all page tables, each compared with the rmap walk."""
    reached: int
    nodes: list[KsmNode]
    processes: list[KsmProcess]
    unreadable: int


def build_ksm_report(s: Snapshot) -> KsmReport:
    """Everything KSM keeps, by stable node and by process."""
    ksm, entries = s.ksm, s.ksm_entries
    return KsmReport(
        "folioscope.ksm/2",
        ksm.known,
        ksm.active,
        dict(ksm.totals),
        rebuilt_totals(s),
        len(entries),
        int(entries.reached.sum()),
        _nodes(s),
        _processes(s),
        ksm.unreadable,
    )


def rebuilt_totals(s: Snapshot) -> dict[str, int]:
    """KSM's totals as its nodes and items add up, by the names of /sys/kernel/mm/ksm."""
    nodes, items = s.ksm.nodes, s.ksm.items
    used = (nodes.kind != CHAIN) & (nodes.nr_items > 0)
    return {
        "pages_shared": int(used.sum()),
        "pages_sharing": int(nodes.nr_items[used].sum()) - int(used.sum()),
        "stable_node_chains": int((nodes.kind == CHAIN).sum()),
        "stable_node_dups": int((nodes.kind == DUP).sum()),
        "rmap_items": int((items.slot_idx >= 0).sum()),
    }


def _nodes(s: Snapshot) -> list[KsmNode]:
    nodes, entries, n = s.ksm.nodes, s.ksm_entries, len(s.ksm.nodes)
    known = entries.node_idx >= 0
    owner = entries.node_idx[known].astype(np.int64)
    mapped = np.bincount(owner, minlength=n)
    lost = np.bincount(owner[~entries.reached[known]], minlength=n)
    width = len(s.mms) + 1
    pairs = np.unique(owner * width + s.vmas.mm_idx[entries.vma_idx[known]]) if len(owner) else owner
    mms = np.bincount(pairs // width, minlength=n)
    members = np.bincount(nodes.chain_idx[nodes.chain_idx >= 0], minlength=n)
    stale = _stale(s)
    return [
        KsmNode(
            address=int(nodes.addr[i]),
            kind=KINDS[int(nodes.kind[i])],
            chain=int(nodes.addr[nodes.chain_idx[i]]) if nodes.chain_idx[i] >= 0 else None,
            tree=int(nodes.tree[i]) if nodes.tree[i] >= 0 else None,
            nid=int(nodes.nid[i]),
            kpfn=int(nodes.kpfn[i]) if nodes.kind[i] != CHAIN else None,
            stale=bool(stale[i]),
            length=int(nodes.hlist_len[i]),
            items=int(members[i] if nodes.kind[i] == CHAIN else nodes.nr_items[i]),
            entries=int(mapped[i]),
            mms=int(mms[i]),
            unreached=int(lost[i]),
        )
        for i in _in_order(s)
    ]


def _in_order(s: Snapshot) -> list[int]:
    """Nodes by tree, the members of a chain behind its head."""
    nodes = s.ksm.nodes
    rows = np.arange(len(nodes))
    leader = np.where(nodes.chain_idx >= 0, nodes.chain_idx, rows)
    return np.lexsort((rows, nodes.kind == DUP, leader, nodes.tree)).tolist()


def _stale(s: Snapshot) -> Mask:
    """Nodes whose page does not name them."""
    nodes, pages = s.ksm.nodes, s.pages
    row = pages.memmap.rows(nodes.kpfn)
    names = pages.mapping[np.maximum(row, 0)] == (nodes.addr | np.uint64(3))
    return (nodes.kind != CHAIN) & ((row < 0) | ~names)


def _processes(s: Snapshot) -> list[KsmProcess]:
    ksm, mms, n = s.ksm, s.mms, len(s.mms)
    merged, listed = np.zeros(n, np.int64), np.zeros(n, np.int64)
    in_list = np.zeros(n, np.bool_)
    for column, some in ((merged, ksm.items.node_idx >= 0), (listed, ksm.items.slot_idx >= 0)):
        at = rows_of(mms.addr, ksm.items.mm[some])
        column += np.bincount(at[at >= 0], minlength=n)
    at = rows_of(mms.addr, ksm.slots.mm)
    in_list[at[at >= 0]] = True
    zero = s.ksm.mms.zero_pages
    counts_zero = s.layout.struct("struct mm_struct").has("ksm_zero_pages")
    rows: I64 = np.flatnonzero(in_list | (merged > 0) | (counts_zero & (zero > 0)))
    out = []
    for i in rows.tolist():
        mm, pid, comm = owner_of(s, i)
        out.append(
            KsmProcess(
                mm,
                pid,
                comm,
                int(listed[i]),
                int(merged[i]),
                int(ksm.mms.rmap_items[i]),
                int(ksm.mms.merging_pages[i]),
                int(zero[i]) if counts_zero else None,
                bool(in_list[i]),
            )
        )
    return out


_NODES = (
    TableColumn("stable node", right=True, style="bold"),
    TableColumn("kind"),
    TableColumn("tree", right=True),
    TableColumn("node", right=True),
    TableColumn("pfn", right=True),
    TableColumn("items", right=True),
    TableColumn("entries", right=True),
    TableColumn("processes", right=True),
    TableColumn("remarks"),
)
_PROCESSES = (
    TableColumn("pid", right=True, style="bold"),
    TableColumn("comm"),
    TableColumn("items", right=True),
    TableColumn("merged", right=True),
    TableColumn("zero pages", right=True),
    TableColumn("remarks"),
)


def render_ksm(screen: Screen, report: KsmReport) -> Iterator[str]:
    """The report for people."""
    if not report.known:
        yield "this kernel has no KSM"
        return
    names = list(dict.fromkeys([*report.stored, *report.rebuilt]))
    yield from render_facts(screen, ((name, _both(report, name)) for name in names))
    yield ""
    yield from render_table(screen, _NODES, [_node_cells(n) for n in report.nodes])
    yield ""
    yield from render_table(screen, _PROCESSES, [_process_cells(p) for p in report.processes])
    yield ""
    words = f"{counted(report.entries, 'entry', 'entries')} of KSM pages compared: rmap finds {report.reached}"
    if report.active:
        words += "; KSM was active"
    yield from screen.wrap(words + (f"; not in the dump: {report.unreadable}" if report.unreadable else ""))


def _both(report: KsmReport, name: str) -> str:
    stored, rebuilt = report.stored.get(name), report.rebuilt.get(name)
    if rebuilt is None or stored == rebuilt:
        return str(stored)
    return f"{stored}, but there are {rebuilt}"


def _node_cells(n: KsmNode) -> tuple[str, ...]:
    remarks = ["stale"] if n.stale else []
    if n.kind != "chain" and n.length != n.items:
        remarks.append(f"rmap_hlist_len {n.length}")
    if n.unreached:
        remarks.append(f"{n.unreached} not found by rmap")
    pfn = "" if n.kpfn is None else f"{n.kpfn:#x}"
    tree = "" if n.tree is None else str(n.tree)
    return (
        f"{n.address:#x}",
        n.kind,
        tree,
        str(n.nid),
        pfn,
        str(n.items),
        str(n.entries),
        str(n.mms),
        ", ".join(remarks),
    )


def _process_cells(p: KsmProcess) -> tuple[str, ...]:
    remarks = [] if p.pid is not None else [f"mm {p.mm:#x}"]
    if p.stored_merging_pages != p.merging_pages:
        remarks.append(f"ksm_merging_pages {p.stored_merging_pages}")
    if p.stored_rmap_items != p.rmap_items:
        remarks.append(f"ksm_rmap_items {p.stored_rmap_items}")
    zero = "" if p.stored_zero_pages is None else str(p.stored_zero_pages)
    pid = "" if p.pid is None else str(p.pid)
    return pid, p.comm or "", str(p.rmap_items), str(p.merging_pages), zero, ", ".join(remarks)
