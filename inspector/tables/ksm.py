"""KSM's tables: stable nodes, the rmap_items on their lists, and the counters of merged pages of each mm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.columns import I32, I64, U8, U64, Mask, Table, rows_of
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Struct
from inspector.lib.chains import follow_chains
from inspector.lib.list import walk_lists
from inspector.lib.rbtree import check_colours, walk_rbtrees
from inspector.memory import Raw
from inspector.records import dataclass

TREE, CHAIN, DUP, MIGRATE = range(4)
"""Kinds of a stable node: alone in a tree; head of a chain of copies; one of them; waiting for another node's tree."""

KINDS = ("tree", "chain", "dup", "migrate")

_CHAIN_LENGTH = -1024
"""STABLE_NODE_CHAIN, mm/ksm.c: rmap_hlist_len of a chain's head."""

STABLE_FLAG = 0x200
_FLAGS = 0xFFF
_MAX_NODES = 1024
"""No kernel is built for more NUMA nodes (MAX_NUMNODES)."""

TOTALS = {
    "ksm_pages_shared": "pages_shared",
    "ksm_pages_sharing": "pages_sharing",
    "ksm_pages_unshared": "pages_unshared",
    "ksm_rmap_items": "rmap_items",
    "ksm_stable_node_chains": "stable_node_chains",
    "ksm_stable_node_dups": "stable_node_dups",
}
"""Variables of mm/ksm.c and the names under which /sys/kernel/mm/ksm shows most of them."""


@dataclass(frozen=True, slots=True)
class StableNodes(Table):
    """One row a ksm_stable_node, ordered by address.

    Attributes:
        addr: uint64.
        kind: uint8; `TREE`, `CHAIN`, `DUP` or `MIGRATE`.
        kpfn: int64; page frame it names, -1 for the head of a chain.
        hlist_len: int32; rmap_hlist_len as stored.
        nid: int32; as stored.
        tree: int32; which tree it or its chain is in, -1 for those that wait for one.
        chain_idx: int32; row of its chain's head, -1 for none.
        nr_items: int64; rmap_items found on its list.
        broken: bool; its list (of rmap_items, of a chain's head that of its members) cannot be followed to its end.
        misplaced: bool; it hangs wrongly in its tree: parent, colour, or a tree that runs in a circle.
    """

    addr: U64
    kind: U8
    kpfn: I64
    hlist_len: I32
    nid: I32
    tree: I32
    chain_idx: I32
    nr_items: I64
    broken: Mask
    misplaced: Mask


@dataclass(frozen=True, slots=True)
class RmapItems(Table):
    """One row a ksm_rmap_item that is on a list, ordered by address.

    Attributes:
        addr: uint64.
        mm: uint64; mm_struct.
        va: uint64; user address it is of.
        flags: int32; STABLE_FLAG, a flag of the unstable tree (0x100) and the scan number.
        head: uint64; the stable node that a stable item names itself (0 for others), on that node's list or not.
        anon_vma: uint64; of stable items, else 0.
        linear_index: uint64; linear_page_index of stable items (7.2 and later), else all ones.
        node_idx: int32; row of the stable node on whose list it is, -1 for none.
        slot_idx: int32; row of the mm slot on whose list it is, -1 for none.
    """

    addr: U64
    mm: U64
    va: U64
    flags: I32
    head: U64
    anon_vma: U64
    linear_index: U64
    node_idx: I32
    slot_idx: I32


@dataclass(frozen=True, slots=True)
class KsmSlots(Table):
    """One row a ksm_mm_slot: an mm that KSM knows.

    Attributes:
        addr: uint64.
        mm: uint64; mm_struct.
        nr_items: int64; rmap_items on its list.
        broken: bool; the list cannot be followed to its end.
    """

    addr: U64
    mm: U64
    nr_items: I64
    broken: Mask


@dataclass(frozen=True, slots=True)
class KsmMms(Table):
    """One row an mm of the mm table, in its order: counters as stored, -1 where this kernel has none.

    Attributes:
        merging_pages: int64; ksm_merging_pages.
        rmap_items: int64; ksm_rmap_items.
        zero_pages: int64; ksm_zero_pages.
        readable: bool.
    """

    merging_pages: I64
    rmap_items: I64
    zero_pages: I64
    readable: Mask


@dataclass(frozen=True)
class Ksm:
    """Everything KSM keeps.

    Attributes:
        nodes, items, slots, mms: The tables.
        totals: Counters by the names of /sys/kernel/mm/ksm (rmap_items has none there), as stored.
        active: Whether ksm_thread_mutex is held: all of this may be half changed.
        known: Whether this kernel has KSM and its trees could be found.
        items_whole: Whether every rmap_item could be read: a list that cannot be followed is then damaged.
        damaged_lists: How many of the two lists of all mm slots and of all waiting nodes are damaged.
        unreadable: Trees, lists and items that leave the dump.
    """

    nodes: StableNodes
    items: RmapItems
    slots: KsmSlots
    mms: KsmMms
    totals: dict[str, int]
    active: bool
    known: bool
    items_whole: bool
    damaged_lists: int
    unreadable: int

    @property
    def sound(self) -> bool:
        """Whether everything could be found: nothing unreadable, no list or tree that cannot be followed."""
        damaged = self.nodes.broken.any() or self.nodes.misplaced.any() or self.slots.broken.any()
        return not (self.unreadable or self.damaged_lists or damaged)


def build_ksm(layout: Layout, item_slots: U64, mms: U64) -> Ksm:
    """Read KSM's stable trees, its rmap_items and its mm slots (mm/ksm.c).

    Args:
        layout: The kernel's layout.
        item_slots: Object slots of the slab cache that rmap_items come from, in use or free.
        mms: uint64; addresses of the mms whose counters are wanted.
    """
    known = layout.target.symbol("root_stable_tree") is not None
    nodes, heads, waiting = _read_nodes(layout) if known else (StableNodes.empty(), np.empty(0, np.uint64), _Lost())
    slots, lists, in_slots = _read_slots(layout) if known else (KsmSlots.empty(), np.empty(0, np.uint64), _Lost())
    raw = layout.memory.gather(np.unique(item_slots), layout.struct("struct ksm_rmap_item").size) if known else None
    no = np.empty(0, np.bool_)
    items, on_node, on_slot = (RmapItems.empty(), no, no) if raw is None else _read_items(layout, raw, heads, lists)
    whole = raw is not None and len(raw) > 0 and bool(raw.valid.all())
    nr = np.bincount(items.node_idx[items.node_idx >= 0], minlength=len(nodes)).astype(np.int64)
    lost = waiting.unreadable + in_slots.unreadable + (0 if whole else int(on_node.sum() + on_slot.sum()))
    per_slot = np.bincount(items.slot_idx[items.slot_idx >= 0], minlength=len(slots)).astype(np.int64)
    return Ksm(
        nodes=replace(nodes, nr_items=nr, broken=nodes.broken | on_node),
        items=items,
        slots=replace(slots, nr_items=per_slot, broken=on_slot),
        mms=_read_mms(layout, mms),
        totals={
            name: _signed(layout.variable(symbol))
            for symbol, name in TOTALS.items()
            if known and layout.target.symbol(symbol) is not None
        },
        active=known and _is_active(layout),
        known=known,
        items_whole=whole,
        damaged_lists=waiting.damaged + in_slots.damaged,
        unreadable=lost,
    )


def read_stable_node(layout: Layout, addr: int) -> Ksm:
    """One stable node and its rmap_items alone, as a page leads to it (mm/ksm.c, ksm_get_folio(), rmap_walk_ksm()).

    Whether it is in KSM's trees is not looked for: it is taken for a node when it can be read and is no chain's head.
    """
    struct, item = layout.struct("struct ksm_stable_node"), layout.struct("struct ksm_rmap_item")
    raw = layout.memory.gather(np.array([addr], np.uint64), struct.size)
    found = raw.bytes[raw.valid]
    is_chain = struct.field("rmap_hlist_len").column(found) == _CHAIN_LENGTH
    kind = np.where(is_chain, CHAIN, TREE).astype(np.uint8)
    none = np.full(len(found), -1, np.int32)
    nodes = _decode_nodes(struct, raw.addr[raw.valid], found, _FoundNodes(kind, none, none))
    heads = nodes.addr[~is_chain] + np.uint64(struct.field("hlist").offset)
    listed = walk_lists(layout.memory, heads, item.size, item.field("hlist").offset, hash_chain=True)
    items = _decode_items(item, listed.addr, listed.raw, np.zeros(len(listed.addr), np.int32))
    broken = np.full(len(nodes), len(listed.broken) + len(listed.unreadable) > 0)
    return Ksm(
        nodes=replace(nodes, nr_items=np.full(len(nodes), len(items)), broken=broken),
        items=items.take(np.argsort(items.addr, kind="stable")),
        slots=KsmSlots.empty(),
        mms=KsmMms.empty(),
        totals={},
        active=_is_active(layout),
        known=True,
        items_whole=True,
        damaged_lists=0,
        unreadable=len(listed.unreadable) + int((~raw.valid).sum()),
    )


@dataclass(frozen=True)
class _Lost:
    """Lists and trees that leave the dump, and lists that are damaged."""

    unreadable: int = 0
    damaged: int = 0


def _signed(value: int | None) -> int:
    return -1 if value is None else value - (1 << 64) if value >> 63 else value


def _is_active(layout: Layout) -> bool:
    """Whether ksm_thread_mutex is held: the low bits of the owner are flags (kernel/locking/mutex.c)."""
    owner = layout.struct("struct mutex").field("owner.counter", "rtmutex.owner")
    word = layout.memory.read_u64((layout.target.symbol("ksm_thread_mutex") or 0) + owner.offset)
    return bool((word or 0) & ~7)


def _read_nodes(layout: Layout) -> tuple[StableNodes, U64, _Lost]:
    """All stable nodes, and the first rmap_item of each one's list."""
    struct, memory = layout.struct("struct ksm_stable_node"), layout.memory
    nr = min(max(layout.variable("ksm_nr_node_ids", size=4) or 1, 1), _MAX_NODES)
    roots, known = memory.words(
        np.uint64(layout.variable("root_stable_tree") or 0) + np.arange(nr, dtype=np.uint64) * np.uint64(8)
    )
    trees = walk_rbtrees(memory, roots, struct.size, struct.field("node").offset)
    waiting = walk_lists(
        memory, np.array([layout.symbol("migrate_nodes")], np.uint64), struct.size, struct.field("list").offset
    )
    length = struct.field("rmap_hlist_len").column(trees.raw)
    chains = np.flatnonzero(length == _CHAIN_LENGTH)
    hlist = struct.field("hlist").offset
    dups = walk_lists(
        memory, trees.addr[chains] + np.uint64(hlist), struct.size, struct.field("hlist_dup").offset, hash_chain=True
    )
    n = len(trees)
    addr, keep = np.unique(np.concatenate([trees.addr, waiting.addr, dups.addr]), return_index=True)
    kind = np.repeat(np.array([TREE, MIGRATE, DUP], np.uint8), [n, len(waiting.addr), len(dups.addr)])
    kind[chains] = CHAIN
    owner = chains[dups.owner]
    tree = np.concatenate([trees.root, np.full(len(waiting.addr), -1), trees.root[owner]])[keep].astype(np.int32)
    chain = np.concatenate([np.zeros(n + len(waiting.addr), np.uint64), trees.addr[owner]])[keep]
    raw, kind = np.concatenate([trees.raw, waiting.raw, dups.raw])[keep], kind[keep]
    odd, broken = np.zeros(len(keep), np.bool_), np.zeros(len(keep), np.bool_)
    odd[rows_of(addr, trees.addr)] = trees.mislinked | check_colours(trees) | np.isin(trees.root, trees.cyclic)
    broken[rows_of(addr, trees.addr[chains[np.union1d(dups.broken, dups.unreadable)]])] = True
    place = _FoundNodes(kind, tree, np.where(chain != 0, rows_of(addr, chain), -1).astype(np.int32))
    nodes = replace(_decode_nodes(struct, addr, raw, place), broken=broken, misplaced=odd)
    lost = int((~known).sum()) + len(trees.unreadable) + len(waiting.unreadable) + len(dups.unreadable)
    first = np.where(kind == CHAIN, 0, struct.field("hlist").column(raw)).astype(np.uint64)
    return nodes, first, _Lost(lost, len(waiting.broken))


@dataclass(frozen=True)
class _FoundNodes:
    """Where each stable node was found: kind, tree and row of its chain's head."""

    kind: U8
    tree: I32
    chain_idx: I32


def _decode_nodes(struct: Struct, addr: U64, raw: U8, place: _FoundNodes) -> StableNodes:
    no = np.zeros(len(addr), np.bool_)
    return StableNodes(
        addr=addr,
        kind=place.kind,
        kpfn=np.where(place.kind == CHAIN, -1, struct.field("kpfn").column(raw).astype(np.int64)),
        hlist_len=struct.field("rmap_hlist_len").column(raw).astype(np.int32),
        nid=struct.field("nid").column(raw).astype(np.int32),
        tree=place.tree,
        chain_idx=place.chain_idx,
        nr_items=np.zeros(len(addr), np.int64),
        broken=no,
        misplaced=no,
    )


def _read_slots(layout: Layout) -> tuple[KsmSlots, U64, _Lost]:
    """The mms that KSM knows, and the first rmap_item of each (struct ksm_scan, ksm_mm_head)."""
    struct = layout.struct("struct ksm_mm_slot")
    link = struct.field("slot.mm_node", "mm_list").offset
    head = np.array([layout.symbol("ksm_mm_head") + link], np.uint64)
    found = walk_lists(layout.memory, head, struct.size, link)
    n = len(found.addr)
    slots = KsmSlots(
        found.addr,
        struct.field("slot.mm", "mm").column(found.raw),
        np.zeros(n, np.int64),
        np.zeros(n, np.bool_),
    )
    return slots, struct.field("rmap_list").column(found.raw), _Lost(len(found.unreadable), len(found.broken))


def _read_items(layout: Layout, raw: Raw, heads: U64, lists: U64) -> tuple[RmapItems, Mask, Mask]:
    """The rmap_items that are on a stable node's or an mm's list, and which of these lists are broken."""
    struct = layout.struct("struct ksm_rmap_item")
    addr, data = raw.addr[raw.valid], raw.bytes[raw.valid]
    link = np.uint64(struct.field("hlist").offset)
    nodes = follow_chains(addr, _less(struct.field("hlist.next").column(data), link), _less(heads, link))
    mms = follow_chains(addr, struct.field("rmap_list").column(data), lists)
    keep = np.flatnonzero((nodes.owner >= 0) | (mms.owner >= 0))
    items = _decode_items(struct, addr[keep], data[keep], nodes.owner[keep])
    items = replace(items, slot_idx=mms.owner[keep])
    return items, nodes.broken, mms.broken


def _decode_items(struct: Struct, addr: U64, data: U8, node_idx: I32) -> RmapItems:
    """The members of rmap_items, given on which stable node's list each is."""
    word, stable = struct.field("address").column(data), node_idx >= 0
    index = struct.find("linear_page_index")
    absent = np.full(len(addr), np.uint64(0xFFFFFFFFFFFFFFFF))
    return RmapItems(
        addr=addr,
        mm=struct.field("mm").column(data),
        va=word & ~np.uint64(_FLAGS),
        flags=(word & np.uint64(_FLAGS)).astype(np.int32),
        head=np.where(word & np.uint64(STABLE_FLAG), struct.field("head").column(data), 0).astype(np.uint64),
        anon_vma=np.where(stable, struct.field("anon_vma").column(data), 0).astype(np.uint64),
        linear_index=absent if index is None else np.where(stable, index.column(data), absent),
        node_idx=node_idx,
        slot_idx=np.full(len(addr), -1, np.int32),
    )


def _less(pointers: U64, offset: np.uint64) -> U64:
    """Pointers to a member turned into pointers to its struct; 0 stays 0."""
    return np.where(pointers == 0, pointers, pointers - offset)


def _read_mms(layout: Layout, mms: U64) -> KsmMms:
    struct = layout.struct("struct mm_struct")
    columns: list[I64] = []
    readable = np.ones(len(mms), np.bool_)
    for names in (("ksm_merging_pages",), ("ksm_rmap_items",), ("ksm_zero_pages.counter", "ksm_zero_pages")):
        field = struct.find(*names)
        if field is None:
            columns.append(np.full(len(mms), -1, np.int64))
            continue
        words, valid = layout.memory.words(mms + np.uint64(field.offset))
        readable &= valid
        columns.append(words.view(np.int64))
    return KsmMms(columns[0], columns[1], columns[2], readable)
