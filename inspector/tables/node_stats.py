"""Counters of memory nodes made exact: the global word and what each CPU has not folded into it yet."""

from __future__ import annotations

import numpy as np

from inspector.columns import U64
from inspector.layout.kernel import Layout

_MAX_NODES = 1024


def node_stats(layout: Layout) -> dict[str, int]:
    """Each item of ``enum node_stat_item`` by name, summed over nodes and CPUs (mm/vmstat.c, vm_node_stat).

    Empty when any part of it cannot be read: a partial sum would look like a wrong counter.
    """
    items, start = layout.enum("enum node_stat_item"), layout.target.symbol("vm_node_stat")
    nr = items.get("NR_VM_NODE_STAT_ITEMS", 0)
    if not nr or nr > _MAX_NODES or start is None:
        return {}
    data = layout.memory.read(start, 8 * nr)
    pointers = nodes(layout)
    if data is None or not len(pointers):
        return {}
    total = np.frombuffer(data, np.int64).copy()
    field = layout.struct("struct pglist_data").field("per_cpu_nodestats")
    per_cpu, known = layout.memory.words(pointers + np.uint64(field.offset))
    diff = layout.struct("struct per_cpu_nodestat").field("vm_node_stat_diff")
    where = (per_cpu[:, None] + layout.per_cpu_offsets[None, :]).ravel() + np.uint64(diff.offset)
    raw = layout.memory.gather(where, nr)
    if not (known.all() and raw.valid.all()):
        return {}
    total += raw.bytes.view(np.int8).astype(np.int64).sum(axis=0)
    return {name: int(total[at]) for name, at in items.items() if at < nr}


def nodes(layout: Layout) -> U64:
    """Addresses of the pglist_data of all nodes: node_data[] up to nr_node_ids, or the only one without NUMA."""
    start, only = layout.target.symbol("node_data"), layout.target.symbol("contig_page_data")
    if start is None:
        return np.array([only] if only is not None else [], np.uint64)
    raw, _ = layout.memory.read_range(start, 8 * layout.nr_nodes)
    found = raw.view(np.uint64)
    return found[found != 0]
