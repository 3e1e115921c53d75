"""Lists whose members are all known beforehand, followed by doubling steps instead of one by one."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U64, Mask, rows_of, rows_of_unordered, take_or
from inspector.records import dataclass


@dataclass(frozen=True)
class Chains:
    """Which list each known node is on.

    Attributes:
        owner: int32 per node; the list, -1 for none.
        broken: bool per list; it leads to an unknown node, runs in a circle, or into another list.
    """

    owner: I32
    broken: Mask


def follow_chains(addr: U64, following: U64, heads: U64) -> Chains:
    """Follow lists among known nodes.

    The work grows with the nodes times the logarithm of the longest list, where following pointers through memory
    would take a read for each step.

    Args:
        addr: uint64[n]; addresses of the known nodes, ascending.
        following: uint64[n]; what each points to, 0 at the end.
        heads: uint64[k]; first node of each list, 0 for an empty one.
    """
    n = len(addr)
    owner = np.full(n, -1, np.int32)
    jump = np.append(_rows(addr, following), n)
    at = _rows(addr, heads)
    started = np.flatnonzero(at < n)
    owner[at[started]] = started
    for _ in range(max(n, 1).bit_length() + 1):
        known = np.flatnonzero(owner >= 0)
        target = jump[known]
        fresh = target < n
        target, from_ = target[fresh], owner[known[fresh]]
        new = owner[target] < 0
        owner[target[new]] = from_[new]
        jump = jump[jump]
    ended = np.zeros(len(heads), np.bool_)
    last = (owner >= 0) & (following == 0)
    ended[owner[last]] = True
    return Chains(owner, (heads != 0) & ~ended)


def _rows(addr: U64, wanted: U64) -> I64:
    """Row of each address; the number of rows where it is unknown or 0."""
    at = rows_of(addr, wanted)
    return np.where((at >= 0) & (wanted != 0), at, len(addr))


def owners_of_nodes(node: U64, after: U64, before: U64, nr_heads: int) -> tuple[I32, Mask]:
    """Which list each node is on, found backwards, and the nodes whose neighbour does not name them.

    For lists whose nodes are all known beforehand: they are not followed but doubled along, so that a long list costs
    no more steps than its length has bits.

    Args:
        node: uint64[n]; addresses, of the list heads first.
        after: uint64[n]; their next links.
        before: uint64[n]; their previous ones.
        nr_heads: How many heads there are.

    Returns:
        ``(owner, wrong)``: int32[n], -1 for a node whose links lead back to no head; bool[n].
    """
    n = len(node)
    following, behind = np.split(rows_of_unordered(node, np.concatenate([after, before])), 2)
    at = np.arange(n, dtype=np.int64)
    wrong = (following < 0) | (behind < 0)
    wrong |= (take_or(behind, following, -1) != at) | (take_or(following, behind, -1) != at)
    step = np.where(behind < 0, at, behind)
    step[:nr_heads] = at[:nr_heads]
    for _ in range(max(n, 2).bit_length()):
        step = step[step]
    return np.where(step < nr_heads, step, -1).astype(np.int32), wrong
