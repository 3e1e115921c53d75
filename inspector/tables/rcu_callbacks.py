"""Callbacks that wait for an RCU grace period (call_rcu(), kernel/rcu/tree.c), in the order of each CPU's list."""

from __future__ import annotations

import time

import numpy as np

from inspector.columns import I64, U64, Table
from inspector.layout.kernel import Layout
from inspector.records import dataclass

_MAX_CALLBACKS = 1 << 20
"""Steps after which one CPU's list is given up as endless."""

_LISTS = ("cblist", "nocb_bypass")
"""Where call_rcu() puts a callback: rcu_data.cblist, or before it where callbacks are offloaded to a thread."""


@dataclass(frozen=True, slots=True)
class RcuCallbacks(Table):
    """One row a callback.

    Attributes:
        cpu: int64; number of the CPU on whose list it is.
        addr: uint64; the struct rcu_head, which lies in what the callback will free.
        func: uint64; the function.
    """

    cpu: I64
    addr: U64
    func: U64


@dataclass(frozen=True)
class RcuLists:
    """The lists of all possible CPUs.

    Attributes:
        callbacks: What waits on them.
        invoked: Callbacks that the lists count but do not hold. A CPU that invokes callbacks has taken those that are
            due from its list (rcu_do_batch()), but not from its count.
        unreadable: Lists that could not be followed to their end.
    """

    callbacks: RcuCallbacks
    invoked: int
    unreadable: int


def read_rcu_callbacks(layout: Layout) -> RcuLists:
    """Follow the lists of all possible CPUs."""
    start = layout.target.symbol("rcu_data")
    if start is None or not layout.has_struct("struct rcu_data"):
        return RcuLists(RcuCallbacks.empty(), 0, 1)
    struct = layout.struct("struct rcu_data")
    raw = layout.memory.gather(np.uint64(start) + layout.per_cpu_offsets, struct.size)
    invoked, unreadable, parts = 0, int((~raw.valid).sum()), []
    for name in _LISTS:
        head, nr = struct.find(f"{name}.head"), struct.find(f"{name}.len.counter", f"{name}.len")
        if head is None or nr is None:
            continue
        heads, counts = head.column(raw.bytes).astype(np.uint64), nr.column(raw.bytes)
        for row in np.flatnonzero(raw.valid).tolist():
            found, ended = _follow(layout, int(heads[row]))
            unreadable += not ended
            invoked += max(int(counts[row]) - len(found), 0) if ended else 0
            cpu = np.full(len(found), layout.possible_cpus[row], np.int64)
            parts.append(RcuCallbacks(cpu, found[:, 0].copy(), found[:, 1].copy()))
    return RcuLists(RcuCallbacks.concat([RcuCallbacks.empty(), *parts]), invoked, unreadable)


def _follow(layout: Layout, address: int) -> tuple[U64, bool]:
    """Address and function of each callback of a list: uint64[n, 2]; and whether its end was reached."""
    found: list[tuple[int, int]] = []
    deadline = layout.memory.deadline()
    while address and len(found) < _MAX_CALLBACKS and time.monotonic() < deadline:
        data = layout.memory.read(address, 16)
        if data is None:
            break
        found.append((address, int.from_bytes(data[8:], "little")))
        address = int.from_bytes(data[:8], "little")
    return np.array(found, np.uint64).reshape(-1, 2), not address
