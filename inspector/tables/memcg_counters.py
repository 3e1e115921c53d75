"""What memory cgroups count: pages charged, statistics with the parts of CPUs added, and what is not flushed yet."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, rows_of_unordered
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Field, Struct
from inspector.records import dataclass
from inspector.tables.memcgs import Lru, Memcgs

_NO_INDEX = 255
"""What mem_cgroup_stats_index[] has for items that memory cgroups do not count (mm/memcontrol.c)."""

_MOST_ITEMS = 1024
_AT_ONCE = 1 << 14
"""Parts of CPUs that are read together."""


@dataclass(frozen=True)
class MemcgCounters:
    """The counters of all memory cgroups.

    Attributes:
        items: Columns of the statistics of a memory cgroup by name: enum node_stat_item, then enum memcg_stat_item.
        node_items: Columns of those of an LRU vector by name.
        own: int64[memcgs, items]; of each without its descendants: the sum over CPUs, exact.
        flushed: int64[memcgs, items]; with its descendants, as its files show it (vmstats->state).
        total: int64[memcgs, items]; the same with all that is not flushed yet: exact.
        by_vector: int64[lruvecs, node items]; of each memory cgroup on a node, without its descendants: exact.
        flushed_by_vector: int64[lruvecs, node items]; with its descendants, as memory.numa_stat shows it.
        total_by_vector: int64[lruvecs, node items]; the same with all that is not flushed yet: exact.
        usage: int64[memcgs]; pages charged to it and its descendants (memory.usage).
        stocked: int64[memcgs]; pages of the usage that CPUs keep for the next charges to it (memcg_stock).
        references: int64[memcgs]; references that keep it, -1 for one online, whose count is spread over CPUs.
        slots: int64[memcgs]; slots of swap that hold a reference to the number of each (id.ref); None without numbers.
    """

    items: dict[str, int]
    node_items: dict[str, int]
    own: I64
    flushed: I64
    total: I64
    by_vector: I64
    flushed_by_vector: I64
    total_by_vector: I64
    usage: I64
    stocked: I64
    references: I64
    slots: I64 | None


def read_memcg_counters(layout: Layout, lru: Lru) -> MemcgCounters | None:
    """Read them; None where there are no memory cgroups, or a part is not in the dump.

    A partial sum would look like a wrong counter.

    mm/memcontrol.c, mem_cgroup_css_rstat_flush(): a flush adds to a memory cgroup what its CPUs counted since the last
    one, and what its children had added (state_pending), and leaves both to its parent as pending.
    """
    memcgs = lru.memcgs
    names = ("struct mem_cgroup", "struct memcg_vmstats", "struct memcg_vmstats_percpu", "struct mem_cgroup_per_node")
    if not len(memcgs) or not lru.whole or not all(layout.has_struct(name) for name in names):
        return None
    columns = _columns(layout)
    memcg, vmstats, percpu, per_node = (layout.struct(name) for name in names)
    if columns is None or not memcg.has("memory.usage", "memory.usage.counter"):
        return None
    items, node_items = columns
    of_cpus, valid = layout.memory.words(memcgs.addr + np.uint64(memcg.field("vmstats_percpu").offset))
    own = _by_cpu(layout, of_cpus, percpu, "state")
    before = _by_cpu(layout, of_cpus, percpu, "state_prev")
    at, known = layout.memory.words(memcgs.addr + np.uint64(memcg.field("vmstats").offset))
    state, pending = (_words(layout, at, vmstats.field(name)) for name in ("state", "state_pending"))
    vectors = lru.lruvecs.addr - np.uint64(per_node.field("lruvec").offset)
    of_vectors, led = layout.memory.words(vectors + np.uint64(per_node.field("lruvec_stats_percpu").offset))
    of_vector = layout.struct("struct lruvec_stats_percpu")
    by_vector = _by_cpu(layout, of_vectors, of_vector, "state")
    vector_before = _by_cpu(layout, of_vectors, of_vector, "state_prev")
    vector_flushed, vector_pending = _vector_sums(layout, per_node, vectors)
    stocked = _stocked(layout, memcgs)
    raw = layout.memory.gather(memcgs.addr, memcg.size)
    if (
        own is None
        or before is None
        or state is None
        or pending is None
        or by_vector is None
        or vector_before is None
        or vector_flushed is None
        or vector_pending is None
        or stocked is None
        or not (valid.all() and known.all() and led.all() and raw.valid.all())
    ):
        return None

    def column(*paths: str) -> I64:
        found = memcg.find(*(part for path in paths for part in (path, f"{path}.counter", f"{path}.refs.counter")))
        return np.zeros(len(memcgs), np.int64) if found is None else found.column(raw.bytes).astype(np.int64)

    return MemcgCounters(
        items=items,
        node_items=node_items,
        own=own,
        flushed=state,
        total=state + with_descendants(memcgs, own - before + pending),
        by_vector=by_vector,
        flushed_by_vector=vector_flushed,
        total_by_vector=vector_flushed + vector_totals(lru, by_vector - vector_before + vector_pending),
        usage=column("memory.usage"),
        stocked=stocked,
        references=_references(layout, memcg, memcgs),
        slots=column("id.ref") - memcgs.online if memcg.has("id.ref") else None,
    )


def with_descendants(memcgs: Memcgs, values: I64) -> I64:
    """What each memory cgroup and its descendants have together."""
    out = values.copy()
    for row in range(len(memcgs) - 1, 0, -1):
        out[memcgs.parent[row]] += out[row]
    return out


def vector_totals(lru: Lru, values: I64) -> I64:
    """What each memory cgroup and its descendants have together on a node."""
    memcgs, vectors = lru.memcgs, lru.lruvecs
    out = values.copy()
    for node in np.unique(vectors.node).tolist():
        mine = np.flatnonzero(vectors.node == node)
        by_memcg = np.zeros((len(memcgs), *values.shape[1:]), np.int64)
        by_memcg[vectors.memcg[mine]] = values[mine]
        out[mine] = with_descendants(memcgs, by_memcg)[vectors.memcg[mine]]
    return out


def _vector_sums(layout: Layout, per_node: Struct, owners: U64) -> tuple[I64 | None, I64 | None]:
    """What was flushed into the vectors of struct mem_cgroup_per_node, and what their children left to them."""
    field, struct = per_node.field("lruvec_stats"), layout.struct("struct lruvec_stats")
    at, known = owners + np.uint64(field.offset), np.ones(len(owners), np.bool_)
    if field.size == np.dtype(np.uint64).itemsize:
        at, known = layout.memory.words(at)
    if not known.all():
        return None, None
    return _words(layout, at, struct.field("state")), _words(layout, at, struct.field("state_pending"))


def _columns(layout: Layout) -> tuple[dict[str, int], dict[str, int]] | None:
    """Columns of statistics of memory cgroups and of vectors by name; until 6.9 they were numbered as the enums are."""
    nodes, memcgs = layout.enum("enum node_stat_item"), layout.enum("enum memcg_stat_item")
    nr = memcgs.get("MEMCG_NR_STAT", 0)
    if not 0 < nr <= _MOST_ITEMS or not layout.has_struct("struct lruvec_stats_percpu"):
        return None
    named = {name: at for name, at in (nodes | memcgs).items() if at < nr and "NR_VM_" not in name}
    start = layout.target.symbol("mem_cgroup_stats_index")
    if start is not None:
        raw = layout.memory.read(start, nr)
        if raw is None or _NO_INDEX not in raw:
            return None
        named = {name: raw[at] for name, at in named.items() if raw[at] != _NO_INDEX}
    width = layout.struct("struct lruvec_stats_percpu").field("state").size // 8
    return named, {name: at for name, at in named.items() if name in nodes and at < width}


def _by_cpu(layout: Layout, pointers: U64, struct: Struct, member: str) -> I64 | None:
    """An array of words summed over CPUs: [pointers, words]; None where a part cannot be read."""
    field = struct.field(member)
    cpus = layout.per_cpu_offsets
    out = np.zeros((len(pointers), field.size // 8), np.int64)
    step = max(_AT_ONCE // max(len(cpus), 1), 1)
    for start in range(0, len(pointers), step):
        some = pointers[start : start + step]
        read = _words(layout, (some[:, None] + cpus[None, :]).ravel(), field)
        if read is None:
            return None
        out[start : start + step] = read.reshape(len(some), len(cpus), -1).sum(axis=1)
    return out


def _words(layout: Layout, owners: U64, field: Field) -> I64 | None:
    """An array of words of some structs; None where one cannot be read."""
    raw = layout.memory.gather(owners + np.uint64(field.offset), field.size)
    return raw.bytes.view(np.int64).reshape(len(owners), -1) if raw.valid.all() else None


def _stocked(layout: Layout, memcgs: Memcgs) -> I64 | None:
    """Pages that CPUs keep charged to each memory cgroup (mm/memcontrol.c, refill_stock())."""
    start, out = layout.target.symbol("memcg_stock"), np.zeros(len(memcgs), np.int64)
    if start is None or not layout.has_struct("struct memcg_stock_pcp"):
        return None
    struct = layout.struct("struct memcg_stock_pcp")
    raw = layout.memory.gather(np.uint64(start) + layout.per_cpu_offsets, struct.size)
    if not raw.valid.all():
        return None
    cached, nr = struct.field("cached").matrix(raw.bytes), struct.field("nr_pages").matrix(raw.bytes)
    row = rows_of_unordered(memcgs.addr, cached.astype(np.uint64).ravel())
    pages = nr.astype(np.int64).ravel()
    if ((row < 0) & (cached.ravel() != 0) & (pages != 0)).any():
        return None
    np.add.at(out, row[row >= 0], pages[row >= 0])
    return out


def _references(layout: Layout, memcg: Struct, memcgs: Memcgs) -> I64:
    """References to each, where they are counted in one place: of those that were removed (lib/percpu-refcount.c)."""
    out = np.full(len(memcgs), -1, np.int64)
    pointer, data = memcg.find("css.refcnt.data"), layout.has_struct("struct percpu_ref_data")
    if pointer is None or not data:
        return out
    gone = np.flatnonzero(~memcgs.online)
    at, led = layout.memory.words(memcgs.addr[gone] + np.uint64(pointer.offset))
    count, read = layout.memory.words(at + np.uint64(layout.struct("struct percpu_ref_data").field("count").offset))
    out[gone] = np.where(led & read, count.view(np.int64), -1)
    return out
