"""Added pages on an LRU list, and the counters of nodes, zones and LRU vectors that count them.

The list is the inactive one, or where folios have generations that of the youngest.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from inspector.columns import I64, U64
from inspector.snapshot import Snapshot
from inspector.tables.memcgs import CLASSIC
from inspector.tables.node_stats import nodes
from tests.bench.patching import Patched


class Listed:
    """Puts pages behind the last of a list of the root memory cgroup.

    Args:
        s: The dump.
        patched: It with changes.
        file: Whether it is the list of file folios.

    Attributes:
        flags: What page flags have for it.
    """

    def __init__(self, s: Snapshot, patched: Patched, *, file: bool) -> None:
        self._layout, self._patched, self._file = s.layout, patched, file
        zones, lru = s.buddy.zones, s.lru
        row = int(np.argmax(zones.end_pfn))
        self._zone, self._zone_at, self._node = int(zones.number[row]), int(zones.addr[row]), int(zones.node[row])
        self._node_at = int(nodes(s.layout)[self._node])
        self._link = s.layout.struct("struct page").field("lru").offset
        self._vector = self._has_memcgs = self.flags = 0
        self._gen = -1
        fields = s.layout.flag_fields
        # Captures of before had no heads: there what leads to one address is a list.
        self._head = patched.address(patched.take(1))
        mine = np.flatnonzero((lru.lruvecs.memcg <= 0) & (lru.lruvecs.node == self._node))
        if lru.whole and len(mine):
            self._vector, self._has_memcgs = int(lru.lruvecs.addr[mine[0]]), int(lru.has_memcgs)
        if s.uses_generations and fields is not None:
            self._gen = int(lru.lruvecs.max_seq[mine[0]]) % max(lru.shape.gens, 1) if self._vector else 0
            self.flags = self._gen + 1 << fields.gen
        if self._vector:
            young = CLASSIC + (self._gen * 2 + file) * lru.shape.zones + self._zone
            self._head = int(lru.heads[mine[0], young if self._gen >= 0 else 2 * file])

    def links(self, start: int, nr: int) -> tuple[U64, U64]:
        """What the pages from a page frame on have as next and previous ones; counts them."""
        patched, memmap = self._patched, self._layout.memmap
        pfns: I64 = np.arange(start, start + nr)
        node = memmap.page_addrs(pfns) + np.uint64(self._link)
        last = self._head
        if self._vector:
            last = patched.word(self._head + 8)
            patched.set_word(last, int(node[0]))
            patched.set_word(self._head + 8, int(node[-1]))
        name = f"{'ACTIVE' if self._gen >= 0 else 'INACTIVE'}_{'FILE' if self._file else 'ANON'}"
        self.count(f"NR_{name}", nr)
        self.count_in_zone(f"NR_ZONE_{name}", nr)
        if self._vector and self._gen >= 0:
            struct = self._layout.struct("struct lruvec")
            zones = self._layout.struct("struct pglist_data").field("node_zones").length or 1
            place = (self._gen * 2 + self._file) * zones + self._zone
            patched.add_word(self._vector + struct.field("lrugen.nr_pages").offset + 8 * place, nr)
        elif self._has_memcgs:
            per_node = self._layout.struct("struct mem_cgroup_per_node")
            sizes = self._vector - per_node.field("lruvec").offset + per_node.field("lru_zone_size").offset
            patched.add_word(sizes + 8 * (5 * self._zone + 2 * self._file), nr)
        following = np.append(node[1:], np.uint64(self._head))
        return following, np.concatenate([np.array([last], np.uint64), node[:-1]])

    def count(self, name: str, nr: int) -> None:
        """Add to a counter of the node (enum node_stat_item), and of all."""
        self._add("enum node_stat_item", "vm_node_stat", self._node_at, "struct pglist_data", (name, nr))

    def count_in_zone(self, name: str, nr: int) -> None:
        """The same of the zone (enum zone_stat_item)."""
        self._add("enum zone_stat_item", "vm_zone_stat", self._zone_at, "struct zone", (name, nr))

    def _add(self, enum: str, total: str, owner: int, struct: str, what: tuple[str, int]) -> None:
        items, (name, nr) = self._layout.enum(enum), what
        if name not in items:
            return
        of_owner = owner + self._layout.struct(struct).field("vm_stat").offset
        for at in (self._layout.target.symbol(total), of_owner):
            # Captures hold no more than what a check reads.
            with suppress(SystemExit):
                if at is not None:
                    self._patched.add_word(at + 8 * items[name], nr)
