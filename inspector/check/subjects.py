"""Rows of tables described for people and programs: subjects of findings, and the mappings offered as evidence."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, AnyArray
from inspector.findings import Mapping, Scalar, Subject
from inspector.rules.swap.swap_clusters import list_names
from inspector.rules.zones.buddy import zone_name
from inspector.rules.zones.node_counters import VMSTAT
from inspector.snapshot import Snapshot
from inspector.tables.ksm import KINDS
from inspector.text import clean_bytes
from inspector.walk.names import file_paths
from inspector.walk.page_cache import space_name

MAX_EVIDENCE = 16
"""Mappings listed with one finding; their full number is told beside."""


def scalar(value: object) -> Scalar:
    """A NumPy scalar as the plain value that goes into a report."""
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (int, bool)) or value is None:
        return value
    return str(value)


def mm_of(s: Snapshot, mm_idx: int) -> dict[str, int | str | None]:
    """The mm's address, and pid and name of its first task when it has one."""
    mms = s.mms
    pid = int(mms.pid[mm_idx])
    return {
        "mm": int(mms.addr[mm_idx]),
        "pid": pid if pid >= 0 else None,
        "comm": clean_bytes(bytes(mms.comm[mm_idx])) if pid >= 0 else None,
    }


def describe_mapping(s: Snapshot, row: int, *, pfn: int | None = None) -> Mapping:
    """One row of the mappings; with ``pfn`` the entry of the run that maps that page."""
    m = s.mappings
    skip = 0
    if pfn is not None and m.level[row] == Level.PTE:
        skip = max(0, pfn - int(m.pfn[row]))
    va = int(m.va[row]) + (skip << s.layout.arch.page_shift)
    step = int(s.layout.arch.leaf_step(Level.PTE, m.entry[row : row + 1])[0]) if skip else 0
    first = int(m.pfn[row]) + skip
    head = int(s.counts.head_row[row])
    head_pfn = int(s.pages.memmap.pfns_of_rows(np.array([head]))[0]) if head >= 0 else first
    vma = int(m.vma_idx[row])
    owner = mm_of(s, int(m.mm_idx[row]))
    return Mapping(
        mm=int(owner["mm"] or 0),
        va=va,
        level=Level(int(m.level[row])).name,
        pfn=first,
        entry=(int(m.entry[row]) + skip * step) & ((1 << 64) - 1),
        pid=owner["pid"],  # type: ignore[arg-type]
        comm=owner["comm"],  # type: ignore[arg-type]
        vma=int(s.vmas.addr[vma]) if vma >= 0 else None,
        page_index=first - head_pfn,
    )


def describe_mappings(s: Snapshot, pfn: int, nr: int) -> tuple[list[Mapping], int]:
    """The first mappings of the pages [pfn, pfn + nr), and how many entries there are in all."""
    rows = s.mappings_of(pfn, nr)
    m = s.mappings
    counted = rows[m.counted[rows]]
    begin = np.maximum(m.pfn[counted], pfn)
    pte = m.level[counted] == Level.PTE
    entries = np.where(pte, np.minimum(m.pfn[counted] + m.nr[counted], pfn + nr) - begin, 1)
    listed = [describe_mapping(s, int(r), pfn=max(pfn, int(m.pfn[r]))) for r in counted[:MAX_EVIDENCE]]
    return listed, int(entries.sum())


def page_subject(s: Snapshot, row: int) -> Subject:
    """A page; named as a folio when it heads one."""
    pfn = int(s.pages.memmap.pfns_of_rows(np.array([row]))[0])
    folio = int(s.folio_of_page[row])
    return Subject(
        kind="page",
        pfn=pfn,
        page=s.pages.memmap.page_addr(pfn),
        order=int(s.folios.order[folio]) if folio >= 0 else 0,
    )


def folio_subject(s: Snapshot, row: int) -> Subject:
    """A compound page."""
    pfn = int(s.folios.pfn[row])
    return Subject(kind="folio", pfn=pfn, page=s.pages.memmap.page_addr(pfn), order=int(s.folios.order[row]))


def entry_subject(s: Snapshot, table: AnyArray, mm_idx: int, va: int, vma_idx: int) -> Subject:
    """A page-table entry."""
    owner = mm_of(s, mm_idx)
    return Subject(
        kind="entry",
        mm=owner["mm"],  # type: ignore[arg-type]
        pid=owner["pid"],  # type: ignore[arg-type]
        comm=owner["comm"],  # type: ignore[arg-type]
        va=va,
        vma=int(s.vmas.addr[vma_idx]) if vma_idx >= 0 else None,
    )


def subject_of(s: Snapshot, kind: str, row: int) -> Subject:
    """The subject that row ``row`` of the table ``kind`` is."""
    match kind:
        case "page":
            return page_subject(s, row)
        case "folio":
            return folio_subject(s, row)
        case "task":
            tasks = s.tasks
            who, address = clean_bytes(bytes(tasks.comm[row])), int(tasks.addr[row])
            return Subject(kind="task", pid=int(tasks.pid[row]), comm=who, address=address)
        case "mm":
            return Subject(kind="mm", **mm_of(s, row))  # type: ignore[arg-type]
        case "vma":
            owner = mm_of(s, int(s.vmas.mm_idx[row]))
            return Subject(kind="vma", va=int(s.vmas.start[row]), vma=int(s.vmas.addr[row]), **owner)  # type: ignore[arg-type]
        case "mapping":
            m = s.mappings
            found = entry_subject(s, m.mm_idx, int(m.mm_idx[row]), int(m.va[row]), int(m.vma_idx[row]))
            return _with_pfn(found, int(m.pfn[row]))
        case "avc":
            return _chain_subject(s, row)
        case "anon_vma":
            return Subject(kind="anon_vma", address=int(s.anon_rmap.anon_vmas.addr[row]))
        case "space":
            return Subject(kind="address_space", address=int(s.file_rmap.spaces.addr[row]))
        case "i_mmap":
            nodes = s.file_rmap.nodes
            space = int(s.file_rmap.spaces.addr[nodes.space_idx[row]])
            return Subject(kind="address_space", address=space, vma=int(nodes.vma[row]))
        case "stable_node" | "ksm" | "hstate":
            return _pool_subject(s, kind, row)
        case "cached_space" | "cache_entry" | "swap_slot" | "swap_device" | "vmstat":
            return _cache_subject(s, kind, row)
        case "swap_cluster" | "swap_cluster_list":
            return _cluster_subject(s, kind, row)
        case "free_list" | "zone" | "cpu_list":
            return _zone_subject(s, kind, row)
        case "nonpresent":
            n = s.nonpresent
            return entry_subject(s, n.mm_idx, int(n.mm_idx[row]), int(n.va[row]), int(n.vma_idx[row]))
        case _:
            t = s.tables
            owner = mm_of(s, int(t.mm_idx[row]))
            return Subject(kind="table", pfn=int(t.pfn[row]), va=int(t.va[row]), **owner)  # type: ignore[arg-type]


def _pool_subject(s: Snapshot, kind: str, row: int) -> Subject:
    """A stable node of KSM, KSM as a whole, or a size of hugetlb folios."""
    if kind == "ksm":
        return Subject(kind="ksm")
    if kind == "stable_node":
        nodes = s.ksm.nodes
        return Subject(kind="stable_node", address=int(nodes.addr[row]), name=KINDS[int(nodes.kind[row])])
    hstates = s.hugetlb.hstates
    return Subject(kind="hstate", address=int(hstates.addr[row]), name=clean_bytes(bytes(hstates.name[row])))


def _cache_subject(s: Snapshot, kind: str, row: int) -> Subject:
    """An address_space, an entry of its page cache, a swap slot or device, or a counter of a memory node."""
    spaces, entries, slots, devices = s.files.spaces, s.files.entries, s.swap.slots, s.swap.devices
    if kind == "cached_space":
        return Subject(kind="address_space", address=int(spaces.addr[row]), name=space_name(s, row))
    if kind == "cache_entry":
        space = int(entries.space_idx[row])
        name = f"{space_name(s, space)} index {int(entries.index[row]):#x}"
        return Subject(kind=kind, pfn=int(entries.pfn[row]), address=int(spaces.addr[space]), name=name)
    if kind == "swap_slot":
        device = int(devices.type_[slots.device_idx[row]])
        return Subject(
            kind=kind, address=int(slots.entry[row]), name=f"type {device} offset {int(slots.offset[row]):#x}"
        )
    if kind == "swap_device":
        path = file_paths(s.layout, devices.swap_file[row : row + 1])[0]
        return Subject(kind=kind, address=int(devices.addr[row]), name=path)
    return Subject(kind=kind, name=VMSTAT[row])


def _cluster_subject(s: Snapshot, kind: str, row: int) -> Subject:
    """A swap cluster, or a list of them."""
    clusters, lists, devices = s.swap_clusters.clusters, s.swap_clusters.lists, s.swap.devices
    if kind == "swap_cluster":
        device = int(devices.type_[clusters.device_idx[row]])
        return Subject(kind=kind, address=int(clusters.addr[row]), name=f"type {device} cluster {clusters.number[row]}")
    device = int(devices.type_[lists.device_idx[row]])
    return Subject(kind=kind, address=int(lists.addr[row]), name=f"type {device} {list_names(s)[row]}")


def _zone_subject(s: Snapshot, kind: str, row: int) -> Subject:
    """A zone, one of its free lists, or a CPU's lists of its free pages."""
    b = s.buddy
    if kind == "zone":
        return Subject(kind=kind, address=int(b.zones.addr[row]), name=zone_name(s, row))
    if kind == "free_list":
        name = f"{zone_name(s, int(b.lists.zone_idx[row]))} order {int(b.lists.order[row])}"
        return Subject(kind=kind, address=int(b.lists.addr[row]), name=f"{name} type {int(b.lists.migratetype[row])}")
    name = f"{zone_name(s, int(b.cpu_lists.zone_idx[row]))} cpu {int(b.cpu_lists.cpu[row])}"
    return Subject(kind=kind, address=int(b.cpu_lists.addr[row]), name=name)


def _chain_subject(s: Snapshot, row: int) -> Subject:
    """An anon_vma_chain, with the process of its VMA."""
    avcs = s.anon_rmap.avcs
    vma = int(avcs.vma_idx[row])
    owner = mm_of(s, int(s.vmas.mm_idx[vma])) if vma >= 0 else {}
    return Subject(kind="anon_vma_chain", address=int(avcs.addr[row]), vma=int(avcs.vma[row]), **owner)  # type: ignore[arg-type]


def _with_pfn(subject: Subject, pfn: int) -> Subject:
    return Subject(
        kind=subject.kind, pfn=pfn, mm=subject.mm, pid=subject.pid, comm=subject.comm, va=subject.va, vma=subject.vma
    )


def head_pfns(s: Snapshot, kind: str, rows: I64) -> I64:
    """Page frame of the folio head that each violation is about; -1 where it is about none."""
    pages = s.pages
    if kind == "page":
        head = pages.head_row[rows].astype(np.int64)
        return pages.memmap.pfns_of_rows(np.where(head >= 0, head, rows))
    if kind == "folio":
        return s.folios.pfn[rows]
    if kind == "mapping":
        head = s.counts.head_row[rows].astype(np.int64)
        return np.where(head >= 0, pages.memmap.pfns_of_rows(np.maximum(head, 0)), s.mappings.pfn[rows])
    return np.full(len(rows), -1, np.int64)
