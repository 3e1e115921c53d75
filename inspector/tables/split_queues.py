"""Split queues: large anonymous folios that wait to be split, by the links in their own struct pages."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U64, Mask, Table, rows_of, rows_of_unordered, take_or
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Field
from inspector.lib.chains import owners_of_nodes
from inspector.records import dataclass
from inspector.tables.folios import Folios

_LEAST_ORDER = 2
"""Folios of two pages have no third struct page, in which the links are."""


@dataclass(frozen=True, slots=True)
class SplitLinks(Table):
    """One row a folio that has a list node for a split queue, on a queue or not.

    Attributes:
        folio: int64; row in `inspector.tables.folios.Folios`.
        node: uint64; address of its node, which is ascending.
        following, before: uint64; the pointers of the node, 0 where they could not be read.
        queued: bool; the node leads elsewhere than to itself.
        queue: uint64; address of the list_head of its queue, 0 for none.
        points_back: bool; what the node leads to as the next one has it as the one before.
        pointed_to: bool; the one before has it as the next one.
        damaged: bool; its own links are the likely reason why neighbours do not fit together.
        readable: bool.
    """

    folio: I64
    node: U64
    following: U64
    before: U64
    queued: Mask
    queue: U64
    points_back: Mask
    pointed_to: Mask
    damaged: Mask
    readable: Mask


def read_split_links(layout: Layout, folios: Folios) -> SplitLinks:
    """Read the nodes of all folios that the kernel makes one for, and compare them with one another.

    That are folios of user memory of at least four pages (mm/internal.h, page_rmappable_folio(); 6.1
    prep_transhuge_page()). The head of a queue is in a pgdat, a memory cgroup, a list_lru, or on the shrinker's stack.
    """
    field = _node(layout)
    has_node = (folios.order >= _LEAST_ORDER) & (folios.is_anon | folios.is_rmappable) & ~folios.is_hugetlb
    rows = np.flatnonzero(has_node & folios.readable) if field is not None else np.empty(0, np.int64)
    own = layout.memmap.page_addrs(folios.pfn[rows]) + np.uint64(0 if field is None else field.offset)
    raw = layout.memory.gather(own, 16)
    following, before = (raw.bytes.view(np.uint64).reshape(-1, 2)[:, i].copy() for i in (0, 1))
    queued = raw.valid & ~((following == own) & (before == own))
    heads, first, last = _heads(layout, own, following, before, queued)
    nodes = np.concatenate([heads, own])
    after, behind = np.concatenate([first, following]), np.concatenate([last, before])
    at = rows_of_unordered(nodes, after), rows_of_unordered(nodes, behind)
    place = np.arange(len(nodes))
    points_back = take_or(at[1], at[0], -1) == place
    pointed_to = take_or(at[0], at[1], -1) == place
    owner, _ = owners_of_nodes(nodes, after, behind, len(heads))
    here = slice(len(heads), None)
    whole = queued & points_back[here] & pointed_to[here]
    queue = np.where(queued & (owner[here] >= 0), take_or(heads, owner[here], 0), np.uint64(0))
    asks = np.concatenate([np.ones(len(heads), np.bool_), queued])
    damaged = _changed_nodes(at, asks & ~points_back, asks & ~pointed_to)[here] & raw.valid
    # A ring of folios that leads to no head: each is as likely the changed one.
    damaged |= _in_rings(at[1], np.concatenate([np.zeros(len(heads), np.bool_), whole]))[here]
    return SplitLinks(
        rows,
        own,
        following,
        before,
        queued,
        queue,
        points_back[here] | ~queued,
        pointed_to[here] | ~queued,
        damaged,
        raw.valid,
    )


def _node(layout: Layout) -> Field | None:
    """Where the list_head is, from the first struct page of the folio: in the third one before struct folio had it."""
    found = layout.struct("struct folio").find("_deferred_list")
    page = layout.struct("struct page")
    if found is None and (tail := page.find("deferred_list")) is not None:
        found = Field(tail.offset + 2 * page.size, tail.size, tail.signed, tail.length)
    return found


def _heads(layout: Layout, own: U64, following: U64, before: U64, queued: Mask) -> tuple[U64, U64, U64]:
    """Heads of queues, with the first and the last node of each.

    A head is what nodes lead to outside of the memory map. Where it can be read it must lead to a node as well; in a
    dump without it one node must lead to it and one come from it, and these are its last and its first one.
    """
    memmap = layout.memmap
    end = np.uint64(memmap.vmemmap) + np.uint64(memmap.max_pfn * memmap.page_size)

    def outside(pointer: U64) -> I64:
        return np.flatnonzero(queued & ((pointer < np.uint64(memmap.vmemmap)) | (pointer >= end)))

    last, first = outside(following), outside(before)
    heads = np.unique(np.concatenate([following[last], before[first]]))
    raw = layout.memory.gather(heads, 16)
    after, behind = (raw.bytes.view(np.uint64).reshape(-1, 2)[:, i].copy() for i in (0, 1))
    is_head = raw.valid & ((rows_of(own, after) >= 0) | (rows_of(own, behind) >= 0))
    # Of nodes that lead to the same place the first is taken; the others fit nowhere.
    at = rows_of_unordered(following[last], heads), rows_of_unordered(before[first], heads)
    guessed = np.flatnonzero(~raw.valid & (at[0] >= 0) & (at[1] >= 0))
    behind[guessed], after[guessed] = own[last[at[0][guessed]]], own[first[at[1][guessed]]]
    is_head[guessed] = True
    return heads[is_head], after[is_head], behind[is_head]


def _in_rings(behind: I32, whole: Mask) -> Mask:
    """Nodes from which one comes back to no head and to no node whose links do not fit."""
    step = np.where(whole, behind, np.arange(len(behind)))
    for _ in range(max(len(behind), 2).bit_length()):
        step = step[step]
    return whole[step]


def _changed_nodes(at: tuple[I32, I32], breaks_after: Mask, breaks_before: Mask) -> Mask:
    """Of two neighbours that do not fit together the one with more such places: a changed node has two of them."""
    n = len(breaks_after)
    holder = np.concatenate([np.flatnonzero(breaks_after), np.flatnonzero(breaks_before)])
    other = np.concatenate([at[0][breaks_after], at[1][breaks_before]])
    places = np.bincount(holder, minlength=n) + np.bincount(other[other >= 0], minlength=n)
    out = np.zeros(n, np.bool_)
    out[np.where(take_or(places, other, 0) > places[holder], other, holder)] = True
    return out
