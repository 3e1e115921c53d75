"""The kernel's own counts of large anonymous folios by order (struct mthp_stat, include/linux/huge_mm.h; since 6.9)."""

from __future__ import annotations

import numpy as np

from inspector.layout.kernel import Layout

_MAX_ITEMS = 64


def read_mthp_stats(layout: Layout) -> dict[str, list[int]]:
    """Each item of ``enum mthp_stat_item`` by name: its sum over all possible CPUs, by order.

    Empty where the kernel has none, or where a part of them cannot be read: a partial sum would look like a wrong one.
    """
    items, start = layout.enum("enum mthp_stat_item"), layout.target.symbol("mthp_stats")
    nr = items.get("__MTHP_STAT_COUNT", 0)
    if not 0 < nr <= _MAX_ITEMS or start is None or not layout.has_struct("struct mthp_stat"):
        return {}
    struct = layout.struct("struct mthp_stat")
    raw = layout.memory.gather(np.uint64(start) + layout.per_cpu_offsets, struct.size)
    if not raw.valid.all() or struct.size % (8 * nr):
        return {}
    # Counts are moved on any CPU: a single part may be negative, and the sum wraps as the kernel's does.
    sums = raw.bytes.view(np.uint64).reshape(len(raw), -1, nr).sum(axis=0, dtype=np.uint64).view(np.int64)
    return {name.removeprefix("MTHP_STAT_"): sums[:, at].tolist() for name, at in items.items() if at < nr}
