"""Heads of split queues, each with the length that the kernel keeps: one a memory cgroup or a node, or a list_lru."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U64, Mask, Table
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Struct
from inspector.lib.xarray import walk_xarrays
from inspector.records import dataclass
from inspector.tables.locks import held
from inspector.tables.memcgs import Lru, memcg_of_data
from inspector.tables.node_stats import nodes
from inspector.tables.pages import Pages, page_words


@dataclass(frozen=True, slots=True)
class SplitQueues(Table):
    """One row a split queue.

    Attributes:
        head: uint64; address of its list_head.
        memcg: int32; row in `inspector.tables.memcgs.Memcgs` of the cgroup whose folios it holds, -1 where folios of no
            cgroup are there.
        node: int32; the node whose folios it holds, -1 for all.
        length: int64; as stored.
        locked: bool; its lock is held.
    """

    head: U64
    memcg: I32
    node: I32
    length: I64
    locked: Mask


@dataclass(frozen=True)
class SplitQueueHeads:
    """All split queues.

    Attributes:
        queues: The queues.
        node_totals: int64; by node what a list_lru counts on all its lists there; empty before it is one.
        whole: All could be read.
    """

    queues: SplitQueues
    node_totals: I64
    whole: bool


def charged_to(layout: Layout, pages: Pages, lru: Lru, rows: I64) -> I32:
    """Rows of the memory cgroups that folios are charged to, -1 for none, -2 where it is not known.

    Args:
        layout: The kernel's layout.
        pages: The pages.
        lru: The memory cgroups.
        rows: Of the folios' heads.
    """
    if not lru.has_memcgs:
        return np.full(len(rows), -1, np.int32)
    data, read = page_words(layout, pages, rows, "memcg_data")
    memcg, led = memcg_of_data(layout, lru.memcgs, data)
    # Of a folio that is charged to none the queue is that of its node (mm/huge_memory.c, get_deferred_split_queue()).
    memcg = np.where((data == 0) & (not lru.is_by_objcg), -1, memcg)
    return np.where(read & led, memcg, -2).astype(np.int32)


def read_split_queues(layout: Layout, lru: Lru) -> SplitQueueHeads:
    """Read the queues of nodes and cgroups (struct deferred_split), from 7.x on the list_lru ``deferred_split_lru``."""
    at = layout.target.symbol("deferred_split_lru")
    if at is not None and layout.has_struct("struct list_lru_one"):
        return _of_list_lru(layout, lru, at)
    if not layout.has_struct("struct deferred_split"):
        return SplitQueueHeads(SplitQueues.empty(), np.empty(0, np.int64), whole=True)
    struct = layout.struct("struct deferred_split")
    of_node = layout.struct("struct pglist_data").find("deferred_split_queue")
    own = nodes(layout) + np.uint64(0 if of_node is None else of_node.offset)
    own = own if of_node is not None else own[:0]
    owners, memcg = [own], [np.full(len(own), -1, np.int32)]
    whole = lru.whole
    if len(lru.memcgs):
        field = layout.struct("struct mem_cgroup").field("deferred_split_queue")
        owners.append(lru.memcgs.addr + np.uint64(field.offset))
        memcg.append(np.arange(len(lru.memcgs), dtype=np.int32))
    node = np.concatenate([np.arange(len(own)), np.full(sum(map(len, owners)) - len(own), -1)]).astype(np.int32)
    paths = ("split_queue", "split_queue_len", "split_queue_lock")
    queues, known = _queues(layout, struct, np.concatenate(owners), paths, np.concatenate(memcg), node)
    return SplitQueueHeads(queues, np.empty(0, np.int64), whole and known)


def _of_list_lru(layout: Layout, lru: Lru, at: int) -> SplitQueueHeads:
    list_lru, of_node = layout.struct("struct list_lru"), layout.struct("struct list_lru_node")
    one, nr = layout.struct("struct list_lru_one"), layout.nr_nodes
    start = layout.memory.read_u64(at + list_lru.field("node").offset)
    if not start:
        # Made when the first large folio may be queued (mm/huge_memory.c, thp_shrinker_init()).
        return SplitQueueHeads(SplitQueues.empty(), np.empty(0, np.int64), whole=start is not None)
    roots = np.uint64(start) + np.arange(nr, dtype=np.uint64) * np.uint64(of_node.size)
    totals, known = layout.memory.words(roots + np.uint64(of_node.field("nr_items.counter").offset))
    owners = [roots + np.uint64(of_node.field("lru").offset)]
    memcg, node = [np.full(nr, 0 if len(lru.memcgs) else -1, np.int32)], [np.arange(nr, dtype=np.int32)]
    whole = lru.whole and bool(known.all())
    tree = list_lru.find("xa.xa_head")
    if tree is not None and len(lru.memcgs):
        field = layout.struct("struct mem_cgroup").field("kmemcg_id")
        raw = layout.memory.gather(lru.memcgs.addr + np.uint64(field.offset), field.size)
        ids = raw.bytes.view(np.int32)[:, 0].astype(np.int64)
        top, seen = layout.memory.words(np.array([at + tree.offset], np.uint64))
        tree_of_lists = walk_xarrays(layout.prog, layout.memory, top)
        entries = tree_of_lists.all()
        place = layout.struct("struct list_lru_memcg").field("node").offset
        for row, number in enumerate(ids.tolist()):
            lists = entries.value[entries.index == np.uint64(number)] if number >= 0 else top[:0]
            for address in lists.tolist():
                owners.append(np.uint64(address + place) + np.arange(nr, dtype=np.uint64) * np.uint64(one.size))
                memcg.append(np.full(nr, row, np.int32))
                node.append(np.arange(nr, dtype=np.int32))
        whole &= bool(raw.valid.all() and seen.all()) and not len(tree_of_lists.unreadable)
    paths = ("list", "nr_items", "lock")
    queues, read = _queues(layout, one, np.concatenate(owners), paths, np.concatenate(memcg), np.concatenate(node))
    return SplitQueueHeads(queues, totals.view(np.int64), whole and read)


def _queues(  # noqa: PLR0913, PLR0917  (its columns)
    layout: Layout, struct: Struct, owners: U64, paths: tuple[str, str, str], memcg: I32, node: I32
) -> tuple[SplitQueues, bool]:
    """Queues of one kind of struct, those that could be read, and whether all could."""
    raw = layout.memory.gather(owners, struct.size)
    list_, length, lock = paths
    queues = SplitQueues(
        owners + np.uint64(struct.field(list_).offset),
        memcg,
        node,
        struct.field(length).column(raw.bytes).astype(np.int64),
        held(struct, lock, raw.bytes),
    )
    return queues.take(np.flatnonzero(raw.valid)), bool(raw.valid.all())
