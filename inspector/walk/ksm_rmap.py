"""The rmap walk of KSM pages (mm/ksm.c), and which of their entries it reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, U64, Mask, Table, matches, rows_of, take_or
from inspector.layout.flags import MAPPING_TAGS
from inspector.records import dataclass
from inspector.tables.ksm import CHAIN, Ksm
from inspector.walk.linear import Links

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_ANY = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True, slots=True)
class KsmEntries(Table):
    """One row an entry that maps a KSM page.

    Attributes:
        mapping_row: int32; row in the `Mappings` that they were made of.
        head_row: int32; row of the page.
        vma_idx: int32; row of the VMA.
        va: uint64; where.
        node_idx: int32; row of the stable node that the page names, -1 when it is not among KSM's.
        item_idx: int32; row of the rmap_item that leads to the entry, -1 when none does.
    """

    mapping_row: I32
    head_row: I32
    vma_idx: I32
    va: U64
    node_idx: I32
    item_idx: I32

    @property
    def reached(self) -> Mask:
        """Which entries rmap finds."""
        return self.item_idx >= 0


def nodes_of(ksm: Ksm, mapping: U64) -> I32:
    """Row of the stable node that each KSM page's ``mapping`` word names, -1 when it is not among KSM's."""
    node = rows_of(ksm.nodes.addr, mapping & ~np.uint64(MAPPING_TAGS))
    return np.where(take_or(ksm.nodes.kind, node, CHAIN) == CHAIN, -1, node).astype(np.int32)


class KsmRmap:
    """Finds the rmap_item by which rmap_walk_ksm() (mm/ksm.c) comes to an entry.

    The walk goes through the items of the page's stable node; for each through the interval tree of its anon_vma (from
    7.2 on only through the part around the item's page offset), and checks the item's address in every VMA there.
    An entry is reached when one of the anon_vmas that its VMA hangs in has an item of that node for that address.

    Args:
        s: The snapshot.
    """

    def __init__(self, s: Snapshot) -> None:
        ksm, table = s.ksm, s.anon_rmap
        stable = np.flatnonzero(ksm.items.node_idx >= 0)
        tree = rows_of(table.anon_vmas.addr, ksm.items.anon_vma[stable])
        stable, tree = stable[tree >= 0], tree[tree >= 0]
        self._s = s
        self._places, place = np.unique(ksm.items.va[stable], return_inverse=True)
        self._shape = len(ksm.nodes) + 1, len(table.anon_vmas) + 1
        key = (place * self._shape[0] + ksm.items.node_idx[stable]) * self._shape[1] + tree
        order = np.argsort(key, kind="stable")
        self._key, self._item = key[order], stable[order]
        avcs = table.avcs
        inside = np.flatnonzero((avcs.tree_idx >= 0) & (avcs.vma_idx >= 0))
        self._chains = inside[np.argsort(avcs.vma_idx[inside], kind="stable")]
        self._chain_vma = avcs.vma_idx[self._chains]

    def entries(self, links: Links) -> KsmEntries:
        """The entries of KSM pages among some links, each with its item."""
        ksm, avcs = self._s.ksm, self._s.anon_rmap.avcs
        links = links.take(np.flatnonzero(links.is_ksm))
        node = nodes_of(ksm, links.mapping)
        item = np.full(len(links), -1, np.int32)
        entry, at = matches(self._chain_vma, links.vma_idx)
        avc = self._chains[at]
        place = rows_of(self._places, links.va).astype(np.int64)
        want = (place[entry] * self._shape[0] + np.where(node < 0, len(ksm.nodes), node)[entry]) * self._shape[1]
        found = rows_of(self._key, np.where(place[entry] >= 0, want + avcs.tree_idx[avc], -1))
        entry, avc, candidate = entry[found >= 0], avc[found >= 0], self._item[found[found >= 0]]
        index = ksm.items.linear_index[candidate]
        near = (index == _ANY) | ((avcs.first[avc] <= index) & (index <= avcs.last[avc]))
        item[entry[near]] = candidate[near]
        return KsmEntries(links.mapping_row, links.head_row, links.vma_idx, links.va, node, item)
