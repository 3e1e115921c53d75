"""MMU notifiers: who is called back when the kernel changes the page tables of an mm (mm/mmu_notifier.c)."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, I64, U64, Mask, Table
from inspector.layout.kernel import Layout
from inspector.lib.list import walk_lists
from inspector.lib.orc import Code, all_code
from inspector.lib.rbtree import walk_rbtrees
from inspector.records import dataclass
from inspector.tables.mms import Mms


@dataclass(frozen=True, slots=True)
class NotifiedMms(Table):
    """One row an mm with a ``struct mmu_notifier_subscriptions``, by mm.

    Attributes:
        mm_idx: int32; the mm.
        addr: uint64; its mmu_notifier_subscriptions.
        readable: bool.
        active: int64; ``active_invalidate_ranges``: changes of page tables that have begun and not ended; counted only
            once somewhere an interval was subscribed to.
        sequence: uint64; ``invalidate_seq``, odd while an interval is being invalidated.
        has_tree: bool; ``has_itree``.
        locked: bool; its spinlock is held: the members above are being changed.
        is_broken: bool; links of the list do not agree, or it never ends.
    """

    mm_idx: I32
    addr: U64
    readable: Mask
    active: I64
    sequence: U64
    has_tree: Mask
    locked: Mask
    is_broken: Mask


@dataclass(frozen=True, slots=True)
class Notifiers(Table):
    """One row a subscription: a struct mmu_notifier, or a struct mmu_interval_notifier; by mm.

    Attributes:
        of: int32; row in `NotifiedMms`.
        addr: uint64; the struct.
        mm: uint64; the mm_struct that it names.
        ops: uint64; its table of callbacks.
        callbacks: int8; 1: at least one, each in the code of the kernel or of a module; 0: not so; -1: not read.
        callback: uint64; address of the first of them, 0 for none.
        users: int64; how often the driver got it (struct mmu_notifier only, else 1).
        start, end: uint64; the interval, 0 for a struct mmu_notifier, which is called for all of the mm.
    """

    of: I32
    addr: U64
    mm: U64
    ops: U64
    callbacks: I64
    callback: U64
    users: I64
    start: U64
    end: U64


@dataclass(frozen=True)
class MmuNotifiers:
    """All of them.

    Attributes:
        mms: The mms that have any, or had.
        subscriptions: Theirs.
        unreadable: Objects, lists and callbacks that could not be read.
        is_known: Whether this kernel has them.
        codes: The code that callbacks may be in, where there are any.
    """

    mms: NotifiedMms
    subscriptions: Notifiers
    unreadable: int
    is_known: bool
    codes: list[Code]


def build_notifiers(layout: Layout, mms: Mms) -> MmuNotifiers:
    """Read the subscriptions of all mms."""
    where = layout.struct("struct mm_struct").find("notifier_subscriptions")
    if where is None or not layout.has_struct("struct mmu_notifier_subscriptions"):
        return MmuNotifiers(NotifiedMms.empty(), Notifiers.empty(), 0, is_known=False, codes=[])
    named, known = layout.memory.words(mms.addr + np.uint64(where.offset))
    mm_idx = np.flatnonzero(named != 0).astype(np.int32)
    addr = named[mm_idx]
    struct = layout.struct("struct mmu_notifier_subscriptions")
    raw = layout.memory.gather(addr, struct.size)
    codes = all_code(layout) if len(addr) else []
    lists, lost_lists, broken = _listed(layout, codes, addr + np.uint64(struct.field("list").offset))
    trees, lost_trees = _intervals(layout, codes, struct.field("itree.rb_root.rb_node").column(raw.bytes))
    notified = NotifiedMms(
        mm_idx,
        addr,
        raw.valid,
        struct.field("active_invalidate_ranges").column(raw.bytes).astype(np.int64),
        struct.field("invalidate_seq").column(raw.bytes),
        struct.field("has_itree").column(raw.bytes) != 0,
        # A spinlock is 0 when it is free (a mutex of PREEMPT_RT has an owner further in, and is taken for free).
        (raw.bytes[:, struct.field("lock").offset : struct.field("lock").offset + 4] != 0).any(axis=1),
        np.isin(np.arange(len(addr)), broken) & raw.valid,
    )
    of, at, mm, ops, users, start, end, callbacks, callback = (
        np.concatenate(both) for both in zip(lists, trees, strict=True)
    )
    found = Notifiers(of.astype(np.int32), at, mm, ops, callbacks, callback, users, start, end)
    lost = int((~known).sum()) + int((~raw.valid).sum()) + int((callbacks < 0).sum()) + lost_lists + lost_trees
    return MmuNotifiers(notified, found.take(np.argsort(of, kind="stable")), lost, is_known=True, codes=codes)


_Columns = tuple[I64, U64, U64, U64, I64, U64, U64, I64, U64]


def _listed(layout: Layout, codes: list[Code], heads: U64) -> tuple[_Columns, int, I32]:
    """Subscriptions to a whole mm: their columns, how many lists could not be read, and which are broken."""
    struct = layout.struct("struct mmu_notifier")
    found = walk_lists(layout.memory, heads, struct.size, struct.field("hlist").offset, hash_chain=True)
    none, ops = np.zeros(len(found.addr), np.uint64), struct.field("ops").column(found.raw)
    columns = (
        found.owner.astype(np.int64),
        found.addr,
        struct.field("mm").column(found.raw),
        ops,
        struct.field("users").column(found.raw).astype(np.int64),
        none,
        none,
        *_callbacks(layout, codes, ops, "struct mmu_notifier_ops"),
    )
    return columns, len(found.unreadable), found.broken


def _intervals(layout: Layout, codes: list[Code], roots: U64) -> tuple[_Columns, int]:
    """Subscriptions to an interval: their columns, and how many trees could not be read."""
    struct = layout.struct("struct mmu_interval_notifier")
    found = walk_rbtrees(layout.memory, roots, struct.size, struct.field("interval_tree.rb").offset)
    last, ops = struct.field("interval_tree.last").column(found.raw), struct.field("ops").column(found.raw)
    columns = (
        found.root.astype(np.int64),
        found.addr,
        struct.field("mm").column(found.raw),
        ops,
        np.ones(len(found.addr), np.int64),
        struct.field("interval_tree.start").column(found.raw),
        last + np.uint64(1),
        *_callbacks(layout, codes, ops, "struct mmu_interval_notifier_ops"),
    )
    return columns, len(found.unreadable)


def _callbacks(layout: Layout, codes: list[Code], ops: U64, name: str) -> tuple[I64, U64]:
    """Of each table of callbacks, a struct of that name, whether it is one, and the first of them."""
    state, first = np.zeros(len(ops), np.int64), np.zeros(len(ops), np.uint64)
    if not len(ops):
        return state, first
    raw = layout.memory.gather(ops, layout.struct(name).size)
    pointers = np.ascontiguousarray(raw.bytes).view(np.uint64)
    is_code = np.zeros(pointers.shape, np.bool_)
    for code in codes:
        is_code |= (pointers >= np.uint64(code.base)) & (pointers < np.uint64(code.end))
    state[:] = is_code.any(axis=1) & (is_code | (pointers == 0)).all(axis=1)
    # What is no address of the kernel's is no table, in the dump or not.
    state[~raw.valid & (ops >= np.uint64(1 << 63))] = -1
    first[:] = np.where(is_code.any(axis=1), pointers[np.arange(len(ops)), is_code.argmax(axis=1)], 0)
    return state, first
