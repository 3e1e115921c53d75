"""The rmap walk of KSM pages (mm/ksm.c), and which of their entries it reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, U64, Mask, Table, matches, rows_of, rows_of_unordered, take_or
from inspector.layout.flags import MAPPING_TAGS
from inspector.records import dataclass
from inspector.tables.ksm import CHAIN

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_ANY = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True, slots=True)
class KsmEntries(Table):
    """One row an entry that maps a KSM page.

    Attributes:
        mapping_row: int32; row in `Mappings`.
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


def ksm_entries(s: Snapshot) -> KsmEntries:
    """All entries of KSM pages, each with the rmap_item by which rmap_walk_ksm() (mm/ksm.c) comes to it.

    The walk goes through the items of the page's stable node; for each through the interval tree of its anon_vma (from
    7.2 on only through the part around the item's page offset), and checks the item's address in every VMA there.
    An entry is reached when one of the anon_vmas that its VMA hangs in has an item of that node for that address.
    """
    ksm, rows = s.ksm, np.flatnonzero(s.links.is_ksm)
    links = s.links.take(rows)
    node = rows_of(ksm.nodes.addr, links.mapping & ~np.uint64(MAPPING_TAGS))
    node = np.where(take_or(ksm.nodes.kind, node, CHAIN) == CHAIN, -1, node).astype(np.int32)
    item = np.full(len(links), -1, np.int32)
    entry, avc = _chains_of(s, links.vma_idx)
    table = s.anon_rmap
    stable = np.flatnonzero(ksm.items.node_idx >= 0)
    tree = rows_of(table.anon_vmas.addr, ksm.items.anon_vma[stable])
    stable, tree = stable[tree >= 0], tree[tree >= 0]
    pages, page = np.unique(np.concatenate([ksm.items.va[stable], links.va]), return_inverse=True)
    at_item, at_entry = page[: len(stable)], page[len(stable) :]
    shape = (len(ksm.nodes) + 1, len(table.anon_vmas) + 1)
    key = (at_item * shape[0] + ksm.items.node_idx[stable]) * shape[1] + tree
    want = (at_entry[entry] * shape[0] + np.where(node < 0, len(ksm.nodes), node)[entry]) * shape[1]
    want = want + table.avcs.tree_idx[avc]
    found = rows_of_unordered(key, want)
    entry, avc, candidate = entry[found >= 0], avc[found >= 0], stable[found[found >= 0]]
    index = ksm.items.linear_index[candidate]
    near = (index == _ANY) | ((table.avcs.first[avc] <= index) & (index <= table.avcs.last[avc]))
    item[entry[near]] = candidate[near]
    return KsmEntries(links.mapping_row, links.head_row, links.vma_idx, links.va, node, item)


def _chains_of(s: Snapshot, vma_idx: I32) -> tuple[I64, I64]:
    """Every (position in ``vma_idx``, row of a chain of that VMA that is in an interval tree)."""
    avcs = s.anon_rmap.avcs
    inside = np.flatnonzero((avcs.tree_idx >= 0) & (avcs.vma_idx >= 0))
    inside = inside[np.argsort(avcs.vma_idx[inside], kind="stable")]
    who, at = matches(avcs.vma_idx[inside], vma_idx)
    return who, inside[at]
