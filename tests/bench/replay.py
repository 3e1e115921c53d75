"""The floor: what it costs to read the bytes that a question read, and to do nothing else.

``record`` runs a command and keeps which bytes it read; ``read`` reads them in a process that knows nothing else.
"""

from __future__ import annotations

import atexit
import os
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

import drgn
import numpy as np

from inspector.columns import I64, U64, Mask

HOLE = np.uint64(4096)
_AT_ONCE = 512


def record(out: Path, words: Sequence[str]) -> int:
    """Run a command and write to ``out`` which pages it read: uint64[n, 3] first address, pages, physical or not."""
    from inspector.cli import main  # noqa: PLC0415  (the reader must not pay for it)
    from inspector.memory import Memory  # noqa: PLC0415

    reads = array("Q")
    begin = Memory.__init__

    def init(self: Memory, prog: drgn.Program) -> None:
        begin(self, prog)
        self.on_read = lambda address, size, physical: reads.extend((address, size, physical))

    Memory.__init__ = init  # type: ignore[method-assign]
    own = os.getpid()

    def keep() -> None:
        if os.getpid() == own:
            np.save(out, merged(np.frombuffer(reads, np.uint64).reshape(-1, 3)))

    atexit.register(keep)
    return main(words)


def merged(reads: U64) -> U64:
    """Whole pages, each once, neighbours together.

    Args:
        reads: uint64[n, 3]; address, size, and whether the address is physical.
    """
    parts = []
    for physical in (0, 1):
        mine = reads[reads[:, 2] == physical]
        first, last = mine[:, 0] // HOLE, (mine[:, 0] + mine[:, 1] - np.uint64(1)) // HOLE
        order = np.argsort(first, kind="stable")
        first, last = first[order], last[order]
        if not len(first):
            continue
        reach = np.maximum.accumulate(last)
        starts: Mask = np.concatenate([[True], first[1:] > reach[:-1] + np.uint64(1)])
        at: I64 = np.flatnonzero(starts)
        end = reach[np.append(at[1:], len(first)) - 1]
        parts.append(
            np.stack([first[at] * HOLE, end - first[at] + np.uint64(1), np.full(len(at), physical, np.uint64)])
        )
    return np.concatenate(parts, axis=1).T.astype(np.uint64) if parts else np.empty((0, 3), np.uint64)


def read(core: str, reads: Path) -> int:
    """Read those pages, 2 MiB at a time at most.

    Returns:
        How many bytes they are.
    """
    with Path(core).open("rb") as file:
        is_kdump = file.read(5) == b"KDUMP"
    platform = drgn.Platform(drgn.Architecture.X86_64) if is_kdump else None
    prog = drgn.Program(platform)
    prog.set_core_dump(core)
    total = 0
    for address, pages, physical in np.load(reads).tolist():
        for at in range(0, pages, _AT_ONCE):
            n = min(_AT_ONCE, pages - at)
            try:
                total += len(prog.read(address + at * 4096, n * 4096, physical=bool(physical)))
            except drgn.FaultError:
                # A page at the end was read in part.
                continue
    return total


def main() -> None:
    """``record OUT WORDS...`` or ``read CORE READS``."""
    what, first, *rest = sys.argv[1:]
    if what == "record":
        raise SystemExit(record(Path(first), rest))
    print(read(first, Path(rest[0])))


if __name__ == "__main__":
    main()
