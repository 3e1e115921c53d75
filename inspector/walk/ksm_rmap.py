"""The rmap walk of KSM pages (mm/ksm.c), and which of their entries it reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, U64, Mask, Table, matches, page_key, rows_of, take_or
from inspector.layout.flags import MAPPING_TAGS
from inspector.records import dataclass
from inspector.tables.ksm import CHAIN, STABLE_FLAG, Ksm
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


def own_items_lost(s: Snapshot, lost: KsmEntries, leading: I64) -> Mask:
    """Which entries that no rmap_item leads to should have been led to by one of their own mm.

    That an entry is found by no item is no fault by itself. fork() copies entries of KSM pages without items
    (mm/memory.c, copy_present_pte()): rmap_walk_ksm() finds the child's through the parent's item, in the tree of that
    item's anon_vma; and when the parent's item goes first (mm/ksm.c, remove_rmap_item_from_tree(), when it exits, or
    unmaps or writes the page), nothing leads to the child's until ksmd comes by (stable_tree_append()).

    What proves a lost one is an item of the same mm that was on the page's stable node: one for that very address, or
    one that leads nowhere while there is none for that address, although ksmd has passed it: it goes by ascending
    addresses and leaves an item at each page that it meets (scan_get_next_rmap_item()).

    Args:
        s: The snapshot.
        lost: The entries.
        leading: Rows of the items that lead to entries of their own mms.
    """
    items, shift = s.ksm.items, np.uint64(s.layout.memmap.page_shift)
    mm = rows_of(s.mms.addr, items.mm).astype(np.int64)
    node = np.where(items.node_idx >= 0, items.node_idx, rows_of(s.ksm.nodes.addr, items.head)).astype(np.int64)
    stable = ((items.flags & STABLE_FLAG) != 0) & (node >= 0)
    known = np.flatnonzero(mm >= 0)
    if not len(known) or not len(lost):
        return np.zeros(len(lost), np.bool_)
    own = s.vmas.mm_idx[lost.vma_idx].astype(np.int64)
    here = page_key(own, lost.va >> shift)
    at = page_key(mm[known], items.va[known] >> shift)
    entry, item = matches(at[np.argsort(at, kind="stable")], here)
    item = known[np.argsort(at, kind="stable")][item]
    exact, some = np.zeros(len(lost), np.bool_), np.zeros(len(lost), np.bool_)
    some[entry] = True
    exact[entry[stable[item] & (node[item] == lost.node_idx[entry])]] = True
    stray = stable & (mm >= 0)
    stray[leading] = False
    nr = len(s.ksm.nodes) + 1
    astray = np.isin(own * nr + lost.node_idx, mm[stray] * nr + node[stray]) & (lost.node_idx >= 0)
    furthest = np.zeros(len(s.mms), np.uint64)
    np.maximum.at(furthest, mm[known], items.va[known])
    proven = exact | (~some & astray & (furthest[own] > lost.va))
    # Copies of a lost entry that fork() made at the same address hung on the same item.
    _, place = np.unique(lost.va, return_inverse=True)
    key = place.reshape(-1) * nr + lost.node_idx
    return proven | (np.isin(key, key[proven]) & ~some)


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
