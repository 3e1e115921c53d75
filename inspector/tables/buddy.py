"""The buddy allocator: zones, their free lists and the per-CPU lists before them.

Free blocks are found in the memory map, not by following lists: the links of all of them are read at once, and which
list a block is on comes out of doubling its way along them, so that a long list costs no more steps than its length
has bits.
"""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U64, AnyArray, Mask, Table
from inspector.errors import LayoutError
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Struct
from inspector.lib.chains import owners_of_nodes
from inspector.lib.list import walk_lists
from inspector.records import dataclass
from inspector.tables.locks import held
from inspector.tables.node_stats import nodes
from inspector.tables.pages import BuddyPages, Pages

_LOW_ORDERS = 4
"""Orders that have per-CPU lists of their own: up to PAGE_ALLOC_COSTLY_ORDER (include/linux/mmzone.h)."""


@dataclass(frozen=True, slots=True)
class Zones(Table):
    """One row a populated zone.

    Attributes:
        addr: uint64; struct zone.
        number: int32; place in its node, as ``enum zone_type`` counts.
        node: int32; number of the node.
        first_pfn, end_pfn: int64; the page frames it spans.
        free_pages: int64; NR_FREE_PAGES, the per-CPU parts added.
        free_cma: int64; NR_FREE_CMA_PAGES alike.
        unaccepted: int64; NR_UNACCEPTED alike, 0 where the kernel has none.
        on_lru: int64[n, 6]; NR_ZONE_INACTIVE_ANON ... NR_ZONE_UNEVICTABLE and NR_MLOCK alike, as `LRU_ITEMS` has them.
        present, managed: int64; present_pages, managed_pages.
        locked: bool; zone->lock is held.
    """

    addr: U64
    number: I32
    node: I32
    first_pfn: I64
    end_pfn: I64
    free_pages: I64
    free_cma: I64
    unaccepted: I64
    on_lru: I64
    present: I64
    managed: I64
    locked: Mask


LRU_ITEMS = (
    *("NR_ZONE_INACTIVE_ANON", "NR_ZONE_ACTIVE_ANON", "NR_ZONE_INACTIVE_FILE", "NR_ZONE_ACTIVE_FILE"),
    *("NR_ZONE_UNEVICTABLE", "NR_MLOCK"),
)
"""Counters of a zone for each kind of LRU list (include/linux/mmzone.h, enum lru_list), and that of mlocked pages."""


@dataclass(frozen=True, slots=True)
class FreeLists(Table):
    """One row a list of a zone's ``free_area``.

    Attributes:
        addr: uint64; the list_head.
        zone_idx: int32; row of the zone.
        order: int8; of its blocks.
        migratetype: int8.
        nr_free: int64; the counter that all lists of the order share.
        damaged: bool; its links lead to something that is no free block, or do not lead back.
        first_wrong: uint64; address of the first node where that shows, in the order of addresses; 0 for none.
    """

    addr: U64
    zone_idx: I32
    order: I32
    migratetype: I32
    nr_free: I64
    damaged: Mask
    first_wrong: U64


@dataclass(frozen=True, slots=True)
class FreeBlocks(Table):
    """One row a page of type buddy: the first of a free block.

    Attributes:
        row: int64; row of the page.
        order: int64; ``private`` as stored.
        list_idx: int32; row of the free list it is on, -1 for none.
        behind: bool; of a kernel that ran on: it is on no list, but both of its neighbours name it. The list changed
            while it was read.
    """

    row: I64
    order: I64
    list_idx: I32
    behind: Mask


@dataclass(frozen=True, slots=True)
class CpuLists(Table):
    """One row a zone's struct per_cpu_pages of a CPU.

    Attributes:
        addr: uint64; the struct.
        zone_idx: int32; row of the zone.
        cpu: int32; number of the CPU.
        count: int64; pages as it counts them.
        held: int64; pages on its lists.
        broken: bool; a list of its cannot be followed.
        unread: bool; of a kernel that runs on, a list of its was not followed to its end in time.
        locked: bool; its lock is held.
    """

    addr: U64
    zone_idx: I32
    cpu: I32
    count: I64
    held: I64
    broken: Mask
    unread: Mask
    locked: Mask


@dataclass(frozen=True)
class Buddy:
    """All of the allocator.

    Attributes:
        zones, lists, blocks, cpu_lists: Tables.
        cpu_page_row: int64[n]; rows of the first pages of blocks on per-CPU lists; -1 for what is no struct page.
        cpu_page_list: int32[n]; row in ``cpu_lists`` of each.
        cpu_page_order: int64[n]; of each block.
        unreadable: Zones, lists and blocks that are not in the dump.
    """

    zones: Zones
    lists: FreeLists
    blocks: FreeBlocks
    cpu_lists: CpuLists
    cpu_page_row: I64
    cpu_page_list: I32
    cpu_page_order: I64
    unreadable: int


def build_buddy(layout: Layout, pages: Pages, found: BuddyPages) -> Buddy:
    """Read zones and lists (include/linux/mmzone.h; mm/page_alloc.c, __add_to_free_list()).

    Args:
        layout: The kernel's layout.
        pages: The memory map.
        found: The first pages of free blocks.
    """
    struct = layout.struct("struct zone")
    zones, raw, missing = _zones(layout, struct)
    lists = _lists(layout, struct, zones, raw)
    blocks, lists, unread = _blocks(layout, found, lists)
    cpu_lists, blocks_there, gone = _cpu_lists(layout, pages, zones, raw)
    return Buddy(zones, lists, blocks, cpu_lists, *blocks_there, missing + unread + gone)


def _zones(layout: Layout, struct: Struct) -> tuple[Zones, AnyArray, int]:
    node = layout.struct("struct pglist_data").field("node_zones")
    pglists = nodes(layout)
    if not len(pglists):
        raise LayoutError("the kernel has no symbol node_data or contig_page_data")
    addr = (
        pglists[:, None] + np.uint64(node.offset) + np.arange(node.length, dtype=np.uint64) * np.uint64(struct.size)
    ).ravel()
    found = layout.memory.gather(addr, struct.size)
    present = found.valid & (struct.field("present_pages").column(found.bytes) > 0)
    raw, at = found.bytes[present], np.flatnonzero(present)
    first = struct.field("zone_start_pfn").column(raw).astype(np.int64)
    items = layout.enum("enum zone_stat_item")
    stats, whole = _zone_items(layout, struct, raw, len(items))
    none, own = np.zeros(len(at), np.int64), struct.find("node")

    def item(name: str) -> I64:
        return stats[:, items[name]] if name in items else none

    zones = Zones(
        addr=addr[present],
        number=(at % node.length).astype(np.int32),
        node=(at // node.length if own is None else own.column(raw)).astype(np.int32),
        first_pfn=first,
        end_pfn=first + struct.field("spanned_pages").column(raw).astype(np.int64),
        free_pages=item("NR_FREE_PAGES"),
        free_cma=item("NR_FREE_CMA_PAGES"),
        unaccepted=item("NR_UNACCEPTED"),
        on_lru=np.stack([item(name) for name in LRU_ITEMS], axis=1),
        present=struct.field("present_pages").column(raw).astype(np.int64),
        managed=struct.field("managed_pages.counter", "managed_pages").column(raw).astype(np.int64),
        locked=held(struct, "lock", raw),
    )
    return zones, raw, int((~found.valid).sum()) + int((~whole).sum())


def _zone_items(layout: Layout, struct: Struct, raw: AnyArray, nr_names: int) -> tuple[I64, Mask]:
    """Counters of each zone with the parts that CPUs have not folded into them (mm/vmstat.c, zone_page_state_add())."""
    total = struct.field("vm_stat").matrix(raw).astype(np.int64)
    nr = min(total.shape[1], nr_names)
    diff = layout.struct("struct per_cpu_zonestat").field("vm_stat_diff")
    base = struct.field("per_cpu_zonestats").column(raw).astype(np.uint64)
    offsets = layout.per_cpu_offsets
    where = (base[:, None] + offsets[None, :]).ravel() + np.uint64(diff.offset)
    parts = layout.memory.gather(where, diff.size)
    shaped = parts.bytes.view(np.int8).astype(np.int64).reshape(len(raw), len(offsets), diff.size).sum(axis=1)
    total[:, : shaped.shape[1]] += shaped[:, : total.shape[1]]
    whole: Mask = parts.valid.reshape(len(raw), len(offsets)).min(axis=1, initial=True)
    return total[:, : max(nr, 1)], whole


def _lists(layout: Layout, struct: Struct, zones: Zones, raw: AnyArray) -> FreeLists:
    areas, area = struct.field("free_area"), layout.struct("struct free_area")
    heads, count = area.field("free_list"), area.field("nr_free")
    orders, types = areas.length, heads.length
    place = np.arange(len(zones) * orders * types)
    zone, order, kind = place // (orders * types), place // types % orders, place % types
    offset = areas.offset + order * area.size + heads.offset + kind * (heads.size // types)
    cut = raw[:, areas.offset : areas.offset + areas.size].reshape(-1, area.size)
    nr_free = count.column(cut).astype(np.int64)
    n = len(place)
    return FreeLists(
        addr=zones.addr[zone] + offset.astype(np.uint64),
        zone_idx=zone.astype(np.int32),
        order=order.astype(np.int32),
        migratetype=kind.astype(np.int32),
        nr_free=nr_free[zone * orders + order],
        damaged=np.zeros(n, np.bool_),
        first_wrong=np.zeros(n, np.uint64),
    )


def _blocks(layout: Layout, found: BuddyPages, lists: FreeLists) -> tuple[FreeBlocks, FreeLists, int]:
    link, memmap = layout.struct("struct page").field("lru"), layout.memmap
    own = memmap.page_addrs(memmap.pfns_of_rows(found.row))
    heads = layout.memory.gather(lists.addr, 16)
    of_lists = heads.bytes.view(np.uint64)
    node = np.concatenate([lists.addr, own + np.uint64(link.offset)])
    following = np.concatenate([of_lists[:, 0], found.following])
    before = np.concatenate([of_lists[:, 1], found.before])
    owner, wrong = owners_of_nodes(node, following, before, len(lists))
    damaged, first = np.zeros(len(lists), np.bool_), np.zeros(len(lists), np.uint64)
    bad = np.flatnonzero(wrong)
    mine = bad[owner[bad] >= 0]
    damaged[owner[mine]] = True
    first[owner[mine][::-1]] = node[mine][::-1]
    rows, orders = found.row.astype(np.int64), found.private.astype(np.int64)
    behind = (owner < 0) & ~wrong & layout.target.ran_on
    blocks = FreeBlocks(rows, orders, owner[len(lists) :], behind[len(lists) :])
    checked = FreeLists(lists.addr, lists.zone_idx, lists.order, lists.migratetype, lists.nr_free, damaged, first)
    return blocks, checked, int((~heads.valid).sum())


def _cpu_lists(layout: Layout, pages: Pages, zones: Zones, raw: AnyArray) -> tuple[CpuLists, tuple[I64, I32, I64], int]:
    """Blocks that wait on per-CPU lists (struct per_cpu_pages; order_to_pindex() in mm/page_alloc.c)."""
    pcp, zone = layout.struct("struct per_cpu_pages"), layout.struct("struct zone")
    base = zone.field("per_cpu_pageset").column(raw).astype(np.uint64)
    offsets = layout.per_cpu_offsets
    addr = (base[:, None] + offsets[None, :]).ravel()
    found = layout.memory.gather(addr, pcp.size)
    lists = pcp.field("lists")
    heads = (addr[:, None] + np.uint64(lists.offset) + np.arange(lists.length, dtype=np.uint64) * np.uint64(16)).ravel()
    page = layout.struct("struct page")
    entries = walk_lists(layout.memory, heads, page.size, page.field("lru").offset)
    # Migration types take turns; behind the low orders come the lists of huge pages.
    types = layout.enum("enum migratetype").get("MIGRATE_PCPTYPES", 3)
    index = entries.owner % lists.length
    order = np.where(index < _LOW_ORDERS * types, index // types, layout.pmd_order)
    owner = (entries.owner // lists.length).astype(np.int32)
    n = len(addr)
    broken, unread = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    broken[entries.broken // lists.length] = True
    # Where all struct pages could be read a link that leads to what cannot be read is wrong.
    (unread if layout.memory.runs_on or pages.nr_unreadable else broken)[entries.unreadable // lists.length] = True
    memmap = layout.memmap
    rows = memmap.rows(memmap.pfns(entries.addr))
    held_pages = np.bincount(owner, weights=np.float64(1) * (1 << order.astype(np.int64)), minlength=n).astype(np.int64)
    table = CpuLists(
        addr=addr,
        zone_idx=np.repeat(np.arange(len(zones), dtype=np.int32), len(offsets)),
        cpu=np.tile(layout.possible_cpus.astype(np.int32), len(zones)),
        count=pcp.field("count").column(found.bytes).astype(np.int64),
        held=held_pages,
        broken=broken,
        unread=unread,
        locked=held(pcp, "lock", found.bytes),
    )
    return table, (rows.astype(np.int64), owner, order.astype(np.int64)), int((~found.valid).sum())


def links_at(layout: Layout, link: int) -> list[int]:
    """The address of a list_head of a free list, and where its two links lead."""
    return [link, *layout.memory.words(np.array([link, link + 8], np.uint64))[0].tolist()]
