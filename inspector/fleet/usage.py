"""How much memory a process and those that it started take, files that they map left out."""

from __future__ import annotations

from pathlib import Path

_OWN = (b"RssAnon:", b"RssShmem:")
"""Of /proc/PID/status (fs/proc/task_mmu.c, task_mem())."""


_REST = 512 << 20
"""Bytes that are left to everything else."""


def memory_of(pid: int) -> int:
    """Bytes of memory of a process and all below it; what they share is counted for each."""
    total, left = 0, [pid]
    while left:
        one = left.pop()
        total += _own_memory(one)
        left += _children(one)
    return total


def _own_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_OWN))


def _children(pid: int) -> list[int]:
    out: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            out += map(int, file.read_bytes().split())
        except (OSError, ValueError):
            continue
    return out


def memory_for_each(jobs: int) -> int:
    """Bytes that each of some processes may take, of what is available on this machine."""
    from inspector.scratch import available_memory  # noqa: PLC0415  (NumPy)

    return max(available_memory() - _REST, _REST) // jobs
