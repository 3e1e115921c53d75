"""The inspector's own process in a kernel that it runs on: its memory changes because it is at work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from inspector.columns import Mask
    from inspector.snapshot import Snapshot

_PLACES = {"start_code": 26, "start_stack": 28, "arg_start": 48, "env_start": 50}
"""Members of struct mm_struct and their fields of /proc/PID/stat, counted from 1 (fs/proc/array.c, do_task_stat())."""

_STAT = Path("/proc/self/stat")


def own_mms(s: Snapshot) -> Mask:
    """Which mm is the inspector's own; none where the target is another kernel than the one that it runs on.

    It is known by where the kernel put code, stack, arguments and environment, not by its pid, which is another one in
    a container.
    """
    mms = s.mms.addr
    out = np.ones(len(mms), np.bool_)
    where = _own_places() if s.target.kind == "live" else {}
    if not where:
        return ~out
    struct = s.layout.struct("struct mm_struct")
    raw = s.layout.memory.gather(mms, struct.size)
    for name, value in where.items():
        out &= struct.field(name).column(raw.bytes).astype(np.uint64) == np.uint64(value)
    return out & raw.valid


def _own_places() -> dict[str, int]:
    """By member of mm_struct; empty where /proc does not show it."""
    try:
        words = _STAT.read_text("ascii", "replace").rpartition(")")[2].split()
        # The third field is the first behind the name.
        return {name: int(words[field - 3]) for name, field in _PLACES.items()}
    except (OSError, ValueError, IndexError):
        return {}
