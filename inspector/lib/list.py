"""Doubly linked lists and hash chains (include/linux/list.h) of many owners followed in step, one gather a step."""

from __future__ import annotations

import dataclasses
import struct
import time

import numpy as np

from inspector.columns import I32, U8, U64, Mask, distinct
from inspector.memory import Memory
from inspector.records import dataclass

_LINKS = struct.Struct("<QQ")
"""``next`` and ``prev``, or ``next`` and ``pprev`` (include/linux/types.h)."""

MAX_LENGTH = 1 << 20
"""Steps after which a list is given up as endless."""

_BETWEEN_CLOCKS = 64
"""Entries of one list that are read before the time is checked again."""

_TRIES = 4
"""How often a list of a kernel that runs on is followed until its links agree."""


@dataclass(frozen=True)
class ListEntries:
    """The entries of many lists.

    Attributes:
        owner: int32[n]; which list the entry is on.
        addr: uint64[n]; address of the containing struct.
        raw: uint8[n, size]; its bytes.
        position: int32[n]; 0 for the first.
        unreadable, broken: int32[k]; lists that left readable memory, or whose links do not agree or never end.
    """

    owner: I32
    addr: U64
    raw: U8
    position: I32
    unreadable: I32
    broken: I32


def walk_lists(
    memory: Memory, heads: U64, size: int, link: int, *, hash_chain: bool = False, max_length: int = MAX_LENGTH
) -> ListEntries:
    """Follow lists from their heads, all of them a step at a time.

    Args:
        memory: For the entries.
        heads: uint64[n]; address of each list_head (or hlist_head with ``hash_chain``).
        size: Bytes of the containing struct.
        link: Offset of the list_head (hlist_node) in it.
        hash_chain: The lists are hlists: they end with a null pointer instead of at their head.
        max_length: Entries after which a list counts as endless.

    Returns:
        The entries ordered by list, then position. An entry whose back link does not name the one before it is still
        returned, its list is in ``broken``.

    Where the kernel runs on, a list is followed again, a few times, when its links did not agree or led to what cannot
    be read: an entry was moved meanwhile, and beyond it is another list. If they never agree its entries end there. A
    list that is not at its end in time (`Memory.deadline`) counts as not readable.
    """
    deadline = memory.deadline()
    found = _walk_all(memory, heads, (size, link, hash_chain), max_length, deadline)
    for _ in range(_TRIES - 1 if memory.runs_on else 0):
        torn = np.union1d(found.broken, found.unreadable).astype(np.int32)
        if not len(torn) or time.monotonic() > deadline:
            break
        again = _walk_all(memory, heads[torn], (size, link, hash_chain), max_length, deadline)
        found = _with(found, torn, again)
    return found


def _with(found: ListEntries, some: I32, again: ListEntries) -> ListEntries:
    """The entries with those of some lists put in the place of the ones found before."""
    keep = ~np.isin(found.owner, some)
    owner = np.concatenate([found.owner[keep], some[again.owner]])
    position = np.concatenate([found.position[keep], again.position])
    order = np.lexsort((position, owner))
    return ListEntries(
        owner[order],
        np.concatenate([found.addr[keep], again.addr])[order],
        np.concatenate([found.raw[keep], again.raw])[order],
        position[order],
        some[again.unreadable],
        np.unique(some[again.broken]),
    )


def _walk_all(
    memory: Memory, heads: U64, shape: tuple[int, int, bool], max_length: int, deadline: float
) -> ListEntries:
    """Follow lists once; ``shape`` is ``size``, ``link`` and ``hash_chain`` as for `walk_lists`."""
    size, link, hash_chain = shape
    first, known = memory.words(heads)
    owner = np.flatnonzero(known).astype(np.int32)
    unreadable = [np.flatnonzero(~known).astype(np.int32)]
    broken: list[I32] = []
    node = first[owner]
    before = heads[owner]
    mark = node.copy()
    parts: list[tuple[I32, U64, U8, I32]] = []
    for step in range(max_length):
        alive = _more(node, heads[owner], hash_chain=hash_chain)
        owner, node, before, mark = owner[alive], node[alive], before[alive], mark[alive]
        if not len(owner):
            break
        if time.monotonic() > deadline:
            unreadable.append(owner)
            break
        if len(owner) == 1:
            at = _Place(int(node[0]), int(before[0]), int(mark[0]))
            alone = _walk_one(memory, at, int(heads[owner[0]]), range(step, max_length), shape, deadline)
            if alone.addr:
                raw_of_it = np.frombuffer(b"".join(alone.raw), np.uint8).reshape(-1, size)
                positions = np.arange(step, step + len(alone.addr), dtype=np.int32)
                parts.append((np.repeat(owner, len(positions)), np.array(alone.addr, np.uint64), raw_of_it, positions))
            unreadable.append(owner[: int(alone.unreadable)])
            broken.append(owner[: int(alone.broken)])
            break
        raw = memory.gather(node - np.uint64(link), size)
        unreadable.append(owner[~raw.valid])
        owner, node, before, mark = owner[raw.valid], node[raw.valid], before[raw.valid], mark[raw.valid]
        data, addr = raw.bytes[raw.valid], raw.addr[raw.valid]
        words = np.ascontiguousarray(data[:, link : link + 16]).view(np.uint64)
        torn = words[:, 1] != before
        broken.append(owner[torn])
        if memory.runs_on and torn.any():
            owner, node, mark, words = owner[~torn], node[~torn], mark[~torn], words[~torn]
            data, addr = data[~torn], addr[~torn]
        parts.append((owner, addr, data, np.full(len(owner), step, np.int32)))
        node, before = words[:, 0], node
        # A list that never comes back to its head runs in a circle; it is met at a node marked at a power of two.
        circle = node == mark
        if step & (step + 1) == 0:
            mark = before.copy()
            circle = (node == mark) & (node != heads[owner])
        broken.append(owner[circle])
        owner, node, before, mark = owner[~circle], node[~circle], before[~circle], mark[~circle]
    else:
        broken.append(owner)
    if not parts:
        parts.append((owner[:0], node[:0], np.empty((0, size), np.uint8), owner[:0]))
    who, addr, data, position = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((position, who))
    return ListEntries(
        who[order],
        addr[order],
        data[order],
        position[order],
        np.concatenate(unreadable),
        distinct(np.concatenate([*broken, who[:0]])),
    )


@dataclasses.dataclass(eq=False, repr=False)
class _Place:
    """How far one list was followed: the next entry's link, the one before it, and the one that a circle ends at."""

    node: int
    before: int
    mark: int


@dataclasses.dataclass(eq=False, repr=False)
class _One:
    """Entries of one list, and whether it left readable memory or is broken."""

    addr: list[int] = dataclasses.field(default_factory=list)
    raw: list[bytes] = dataclasses.field(default_factory=list)
    unreadable: bool = False
    broken: bool = False


def _walk_one(  # noqa: PLR0913, PLR0917  (where it is, and how far it may go)
    memory: Memory, at: _Place, head: int, steps: range, shape: tuple[int, int, bool], deadline: float
) -> _One:
    """The same for the last list that has not ended: of thousands of entries, columns of one row cost ten times more.

    Args:
        memory: For the entries.
        at: Where it is; moved along.
        head: Address of the head.
        steps: Numbers of the steps that are left.
        shape: ``size``, ``link`` and ``hash_chain`` as for `walk_lists`.
        deadline: When it is given up.
    """
    size, link, hash_chain = shape
    end, found = 0 if hash_chain else head, _One()
    for step in steps:
        if at.node == end:
            return found
        address = (at.node - link) % (1 << 64)
        data = memory.read(address, size) if step % _BETWEEN_CLOCKS or time.monotonic() < deadline else None
        if data is None:
            found.unreadable = True
            return found
        after, back = _LINKS.unpack_from(data, link)
        if back != at.before:
            found.broken = True
            if memory.runs_on:
                return found
        found.addr.append(address)
        found.raw.append(data)
        at.node, at.before = after, at.node
        circle = at.node == at.mark
        if step & (step + 1) == 0:
            at.mark = at.before
            circle = at.node == at.mark and at.node != head
        if circle:
            break
    found.broken = True
    return found


def _more(node: U64, head: U64, *, hash_chain: bool) -> Mask:
    more: Mask = node != 0 if hash_chain else node != head
    return more
