"""Counters of each memory node and zone made exact: its own word, and what each CPU has not folded into it yet."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U64, AnyArray, Table
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Struct
from inspector.records import dataclass
from inspector.tables.node_stats import nodes

_MAX_ITEMS = 1024


@dataclass(frozen=True, slots=True)
class NodeCounters(Table):
    """One row an item of a node, or of a populated zone.

    Attributes:
        node: int32.
        zone: int32; as ``enum zone_type`` counts, -1 for items of the node.
        item: The item's name in ``enum node_stat_item`` or ``enum zone_stat_item``.
        stored: int64.
    """

    node: I32
    zone: I32
    item: AnyArray
    stored: I64


def read_node_counters(layout: Layout) -> NodeCounters:
    """Read the items of all nodes and zones (mm/vmstat.c, __mod_node_page_state() and __mod_zone_page_state()).

    Those of a node or zone of which a part cannot be read are left out: a partial sum would look like a wrong one.
    """
    pgdat, zone = layout.struct("struct pglist_data"), layout.struct("struct zone")
    own = nodes(layout)
    number = np.arange(len(own), dtype=np.int32)
    field = pgdat.field("node_zones")
    per_node = field.length
    zones = (
        own[:, None] + np.uint64(field.offset) + np.arange(per_node, dtype=np.uint64) * np.uint64(zone.size)
    ).ravel()
    present, known = layout.memory.words(zones + np.uint64(zone.field("present_pages").offset))
    there = np.flatnonzero(known & (present != 0))
    node_paths = ("per_cpu_nodestats", "struct per_cpu_nodestat", "vm_node_stat_diff")
    zone_paths = ("per_cpu_zonestats", "struct per_cpu_zonestat", "vm_stat_diff")
    of_zone = (number.repeat(per_node)[there], np.tile(np.arange(per_node, dtype=np.int32), len(own))[there])
    return NodeCounters.concat(
        [
            _counters(layout, pgdat, own, node_paths, layout.enum("enum node_stat_item"), (number, number * 0 - 1)),
            _counters(layout, zone, zones[there], zone_paths, layout.enum("enum zone_stat_item"), of_zone),
        ]
    )


def _counters(  # noqa: PLR0913, PLR0917  (nodes and zones are read alike)
    layout: Layout,
    struct: Struct,
    owners: U64,
    paths: tuple[str, str, str],
    items: dict[str, int],
    places: tuple[I32, I32],
) -> NodeCounters:
    pointer, per_cpu, member = paths
    stat = struct.field("vm_stat")
    nr = stat.size // 8
    names = {at: name for name, at in items.items() if at < nr and not name.startswith("NR_VM_")}
    if not len(owners) or not 0 < nr <= _MAX_ITEMS or not names:
        return NodeCounters.empty(item=np.empty(0, "U1"))
    raw = layout.memory.gather(owners + np.uint64(stat.offset), stat.size)
    base, known = layout.memory.words(owners + np.uint64(struct.field(pointer).offset))
    diff = layout.struct(per_cpu).field(member)
    where = (base[:, None] + layout.per_cpu_offsets[None, :]).ravel() + np.uint64(diff.offset)
    parts = layout.memory.gather(where, diff.size)
    cpus = len(layout.per_cpu_offsets)
    whole = raw.valid & known & parts.valid.reshape(len(owners), cpus).all(axis=1)
    total = raw.bytes.view(np.int64).reshape(len(owners), nr).copy()
    by_cpu = parts.bytes.view(np.int8).reshape(len(owners), cpus, -1)[:, :, :nr]
    total[:, : by_cpu.shape[2]] += by_cpu.astype(np.int64).sum(axis=1)
    at = np.array(sorted(names), np.int64)
    rows = np.flatnonzero(whole)
    node, zone = places
    return NodeCounters(
        np.repeat(node[rows], len(at)),
        np.repeat(zone[rows], len(at)),
        np.tile(np.array([names[place] for place in at.tolist()], np.str_), len(rows)),
        total[rows][:, at].ravel(),
    )
