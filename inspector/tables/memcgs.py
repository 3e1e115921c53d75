"""Memory cgroups, the dying ones included, and the LRU vector that each has on every node."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U8, U64, AnyArray, Mask, Table, rows_of_unordered
from inspector.layout.kernel import Layout
from inspector.lib.list import walk_lists
from inspector.records import dataclass
from inspector.tables.locks import held
from inspector.tables.node_stats import nodes
from inspector.text import clean_bytes

_ONLINE = 1 << 1
"""CSS_ONLINE (include/linux/cgroup-defs.h)."""

_MOST = 1 << 20
_DEEPEST = 1024
"""Memory cgroups, and levels of them, beyond which the tree is taken for damaged."""

_NAME = 64
"""Bytes of a directory's name that are kept."""

MEMCG_TAGS = np.uint64(3)
"""MEMCG_DATA_OBJEXTS and MEMCG_DATA_KMEM: the low bits of folio->memcg_data (include/linux/memcontrol.h)."""


@dataclass(frozen=True, slots=True)
class Memcgs(Table):
    """One row a memory cgroup, parents before their children.

    Attributes:
        addr: uint64; struct mem_cgroup.
        parent: int32; row of the parent, -1 for the root.
        online: bool; False for one that is dying: removed, and kept by what is charged to it.
        name: bytes; of its directory, "" where it is not known.
    """

    addr: U64
    parent: I32
    online: Mask
    name: AnyArray

    def path(self, row: int) -> str:
        """The path of a memory cgroup in its hierarchy."""
        names: list[str] = []
        while row >= 0 and self.parent[row] >= 0:
            names.append(clean_bytes(bytes(self.name[row])) or "?")
            row = int(self.parent[row])
        return "/" + "/".join(reversed(names))


@dataclass(frozen=True, slots=True)
class Lruvecs(Table):
    """One row an LRU vector: the lists of a memory cgroup's folios on a node (include/linux/mmzone.h, struct lruvec).

    Attributes:
        addr: uint64; struct lruvec.
        memcg: int32; row in `Memcgs`, -1 where there are none.
        node: int32.
        max_seq: uint64; of the youngest generation.
        locked: bool; lru_lock is held.
        readable: bool.
    """

    addr: U64
    memcg: I32
    node: I32
    max_seq: U64
    locked: Mask
    readable: Mask


@dataclass(frozen=True)
class LruShape:
    """Where the lists of an LRU vector are, and how many there are of each kind.

    Attributes:
        zones: Zones of a node (MAX_NR_ZONES).
        gens: Generations that have lists, 0 where the kernel has no multi-gen LRU.
        lists: Offset of the classic lists.
        folios: Offset of the generations' lists, [gen][type][zone].
    """

    zones: int
    gens: int
    lists: int
    folios: int

    @property
    def nr_lists(self) -> int:
        """Lists of one vector: the four classic ones that hold folios, then those of generations."""
        return CLASSIC + self.gens * 2 * self.zones


CLASSIC = 4
"""Inactive and active lists of anonymous and of file folios; that of unevictable folios is never used."""


@dataclass(frozen=True)
class Lru:
    """All LRU vectors.

    Attributes:
        memcgs: The memory cgroups; empty where the kernel has none, or they are disabled.
        lruvecs: Their vectors.
        shape: Of each.
        heads: uint64[lruvecs, lists]; addresses of the list heads.
        links: uint64[lruvecs, lists, 2]; what they point to.
        nr_pages: int64[lruvecs, gens, 2, zones]; lrugen.nr_pages.
        sizes: int64[lruvecs, zones, 5]; lru_zone_size, of the classic and the unevictable folios.
        has_memcgs: Whether folios are charged to memory cgroups.
        is_by_objcg: Whether their memcg_data is an obj_cgroup (since 7.x).
        whole: Every memory cgroup and vector was read.
    """

    memcgs: Memcgs
    lruvecs: Lruvecs
    shape: LruShape
    heads: U64
    links: U64
    nr_pages: I64
    sizes: I64
    has_memcgs: bool
    is_by_objcg: bool
    whole: bool

    def vector_rows(self, memcg: I32, node: I32) -> I64:
        """Row of the vector of each memory cgroup, by its row or -1 where there are none, on each node; -1 for none."""
        vectors = zip(self.lruvecs.memcg.tolist(), self.lruvecs.node.tolist(), strict=True)
        row_of = {pair: row for row, pair in enumerate(vectors)}
        return np.array([row_of.get(pair, -1) for pair in zip(memcg.tolist(), node.tolist(), strict=True)], np.int64)


def is_by_objcg(layout: Layout) -> bool:
    """Whether folio->memcg_data of user memory is an obj_cgroup."""
    return layout.has_struct("struct obj_cgroup") and layout.struct("struct obj_cgroup").has("is_root")


def read_lru(layout: Layout) -> Lru:
    """Read the vectors of all memory cgroups, or those of the nodes where there are none.

    A removed cgroup is among its parent's children until it is freed (kernel/cgroup/cgroup.c, css_release_work_fn()).
    """
    shape = _shape(layout)
    none = Memcgs.empty(name=np.empty(0, "S1"))
    root = layout.variable("root_mem_cgroup")
    if root is None and layout.target.symbol("root_mem_cgroup") is not None:
        unknown = np.empty(0, np.int32)
        return _with_vectors(
            layout, shape, none, np.empty(0, np.uint64), unknown, unknown, has_memcgs=True, whole=False
        )
    if not root:
        return _with_vectors(layout, shape, none, *_of_nodes(layout), has_memcgs=False, whole=True)
    memcgs, pointers, whole = _tree(layout, root)
    per_node = layout.struct("struct mem_cgroup_per_node")
    nr = pointers.shape[1]
    there = pointers.ravel() != 0
    vectors = (pointers.ravel() + np.uint64(per_node.field("lruvec").offset))[there]
    owner = np.repeat(np.arange(len(memcgs), dtype=np.int32), nr)[there]
    node = np.tile(np.arange(nr, dtype=np.int32), len(memcgs))[there]
    return _with_vectors(layout, shape, memcgs, vectors, owner, node, has_memcgs=True, whole=whole)


def _shape(layout: Layout) -> LruShape:
    lruvec = layout.struct("struct lruvec")
    zones = layout.struct("struct pglist_data").field("node_zones").length
    folios = lruvec.find("lrugen.folios", "lrugen.lists")
    gens = 0 if folios is None else folios.size // (16 * 2 * zones)
    return LruShape(zones, gens, lruvec.field("lists").offset, 0 if folios is None else folios.offset)


def _of_nodes(layout: Layout) -> tuple[U64, I32, I32]:
    field = layout.struct("struct pglist_data").find("__lruvec")
    vectors = nodes(layout) + np.uint64(0 if field is None else field.offset)
    vectors = vectors if field is not None else vectors[:0]
    return vectors, np.full(len(vectors), -1, np.int32), np.arange(len(vectors), dtype=np.int32)


def _tree(layout: Layout, root: int) -> tuple[Memcgs, U64, bool]:
    """The memory cgroups, their nodeinfo[], and whether all could be read."""
    memory, memcg = layout.memory, layout.struct("struct mem_cgroup")
    children, css = memcg.field("css.children"), layout.struct("struct cgroup_subsys_state")
    sibling, base = css.field("sibling").offset, memcg.field("css").offset
    addr, parent = [np.array([root], np.uint64)], [np.full(1, -1, np.int32)]
    whole, start = True, 0
    for _ in range(_DEEPEST):
        found = walk_lists(memory, addr[-1] + np.uint64(children.offset), css.size, sibling)
        whole &= not len(found.unreadable) and not len(found.broken)
        fresh = ~np.isin(found.addr - np.uint64(base), np.concatenate(addr))
        if not fresh.any() or sum(map(len, addr)) > _MOST:
            break
        parent.append((start + found.owner[fresh]).astype(np.int32))
        start += len(addr[-1])
        addr.append((found.addr - np.uint64(base))[fresh])
    every = np.concatenate(addr)
    flags = memcg.field("css.flags")
    raw = memory.gather(every + np.uint64(flags.offset), flags.size)
    info = memory.gather(every + np.uint64(memcg.field("nodeinfo").offset), 8 * layout.nr_nodes)
    online = (raw.bytes.view(np.uint32)[:, 0] & np.uint32(_ONLINE)) != 0
    whole &= bool(raw.valid.all() and info.valid.all())
    return Memcgs(every, np.concatenate(parent), online, _names(layout, every)), info.bytes.view(np.uint64), whole


def _names(layout: Layout, memcgs: U64) -> AnyArray:
    """Names of the directories (struct kernfs_node)."""
    at = memcgs
    for struct, path in (("struct mem_cgroup", "css.cgroup"), ("struct cgroup", "kn"), ("struct kernfs_node", "name")):
        field = layout.struct(struct).field(path)
        at, _ = layout.memory.words(at + np.uint64(field.offset))
    return layout.memory.gather(at, _NAME).bytes.view(f"S{_NAME}")[:, 0]


def _with_vectors(  # noqa: PLR0913  (its columns)
    layout: Layout,
    shape: LruShape,
    memcgs: Memcgs,
    vectors: U64,
    owner: I32,
    node: I32,
    *,
    has_memcgs: bool,
    whole: bool,
) -> Lru:
    lruvec, n = layout.struct("struct lruvec"), len(vectors)
    raw = layout.memory.gather(vectors, lruvec.size)
    seq = lruvec.find("lrugen.max_seq")
    max_seq = np.zeros(n, np.uint64) if seq is None else seq.column(raw.bytes)
    lock = held(lruvec, "lru_lock", raw.bytes)
    table = Lruvecs(vectors, owner, node, max_seq, lock, raw.valid)
    offsets = shape.lists + 16 * np.arange(CLASSIC), shape.folios + 16 * np.arange(shape.nr_lists - CLASSIC)
    offset = np.concatenate(offsets)
    links = np.stack([_words(raw.bytes, offset + word) for word in (0, 8)], axis=2)
    pages = lruvec.find("lrugen.nr_pages")
    nr_pages = np.zeros((n, 0), np.int64) if pages is None else _words(raw.bytes, pages.offset + _steps(pages.size))
    sizes, known = np.zeros((n, shape.zones, 5), np.int64), True
    if len(memcgs):
        per_node = layout.struct("struct mem_cgroup_per_node")
        place, field = per_node.field("lruvec").offset, per_node.field("lru_zone_size")
        stored = layout.memory.gather(vectors - np.uint64(place) + np.uint64(field.offset), field.size)
        sizes, known = (
            stored.bytes.view(np.int64).reshape(n, shape.zones, field.size // (8 * shape.zones)),
            bool(stored.valid.all()),
        )
    return Lru(
        memcgs,
        table,
        shape,
        vectors[:, None] + offset.astype(np.uint64)[None, :],
        links,
        nr_pages.view(np.int64).reshape(n, shape.gens, 2, shape.zones),
        sizes,
        has_memcgs,
        is_by_objcg(layout),
        whole and known and bool(raw.valid.all()),
    )


def _steps(size: int) -> I64:
    return np.arange(0, size, 8)


def _words(raw: U8, offsets: I64) -> U64:
    """The words at some offsets, multiples of 8, of each row."""
    whole = np.ascontiguousarray(raw[:, : raw.shape[1] // 8 * 8]).view(np.uint64)
    return whole[:, offsets // 8]


def memcg_of_data(layout: Layout, memcgs: Memcgs, data: U64) -> tuple[I32, Mask]:
    """Rows of the memory cgroups that words of folio->memcg_data lead to, -1 for none of them; and which are known.

    Up to 6.x the word is the cgroup, from 7.x on an obj_cgroup that leads to the one that it is charged to now
    (include/linux/memcontrol.h, folio_memcg()). A folio that is charged to none is on the lists of the root.
    """
    pointer, known = data & ~MEMCG_TAGS, np.ones(len(data), np.bool_)
    if is_by_objcg(layout):
        field = layout.struct("struct obj_cgroup").field("memcg")
        led, readable = layout.memory.words(pointer + np.uint64(field.offset))
        known = readable | (pointer == 0)
        pointer = np.where(pointer == 0, pointer, led)
    rows = rows_of_unordered(memcgs.addr, pointer)
    return np.where(data == 0, 0 if len(memcgs) else -1, rows).astype(np.int32), known
