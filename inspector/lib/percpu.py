"""Per-CPU counters (lib/percpu_counter.c) summed exactly over all possible CPUs."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U64, Mask
from inspector.memory import Memory


def sum_percpu_counters(memory: Memory, offsets: U64, counts: I64, pointers: U64) -> tuple[I64, Mask]:
    """What percpu_counter_sum() would give for many counters.

    Args:
        memory: For the per-CPU parts.
        offsets: uint64[cpus]; ``__per_cpu_offset`` of the possible CPUs.
        counts: int64[n]; each counter's ``count``.
        pointers: uint64[n]; each counter's ``counters``, a per-CPU pointer.

    Returns:
        ``(sums, valid)``; a sum is invalid when one of its parts cannot be read, or the counter has none (not made yet,
        or percpu_counter_destroy_many() took them).
    """
    n = len(counts)
    where = (pointers[:, None] + offsets[None, :]).ravel()
    raw = memory.gather(where, 4)
    parts = raw.bytes.view(np.int32)[:, 0].astype(np.int64).reshape(n, -1) if n else np.zeros((0, 1), np.int64)
    valid = raw.valid.reshape(n, -1).min(axis=1) & (pointers != 0) if n else np.zeros(0, np.bool_)
    sums: I64 = counts + parts.sum(axis=1)
    return sums, valid
