"""ELF dumps made from captured ones, with pages left out of segments as ``makedumpfile -E`` does."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from inspector.columns import I64
from inspector.target.corefile import examine_core
from tests.faults.overlay import opened

PAGE = 4096


def pages_of(path: str) -> I64:
    """Page frames that a kdump-compressed dump holds."""
    at = examine_core(path).pages
    assert at is not None
    raw = np.frombuffer(Path(path).read_bytes()[at.bitmap : at.table], np.uint8)
    return np.flatnonzero(np.unpackbits(raw, bitorder="little"))


def write_elf(path: str, out: Path, kept: I64) -> None:
    """Write a dump as ELF: a segment for each run of pages that are kept, which spans what is left out behind them."""
    prog, info = opened(path).prog, examine_core(path).vmcoreinfo
    name = b"VMCOREINFO\0\0"
    note = struct.pack("<III", 11, len(info), 0) + name + info + bytes(-len(info) % 4)
    first = np.flatnonzero(np.diff(kept, prepend=-2) != 1)
    runs = [(int(run[0]), len(run)) for run in np.split(kept, first[1:])]
    ends = [run[0] for run in runs[1:]] + [runs[-1][0] + runs[-1][1]]
    table = 64 + 56 * (len(runs) + 1)
    at = -(-(table + len(note)) // PAGE) * PAGE
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = ident + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(runs) + 1, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 4, 0, table, 0, 0, len(note), len(note), 0)
    with out.open("wb") as file:
        for (start, nr), end in zip(runs, ends, strict=True):
            head += struct.pack("<IIQQQQQQ", 1, 7, at, 0, start * PAGE, nr * PAGE, (end - start) * PAGE, PAGE)
            at += nr * PAGE
        file.write((head + note).ljust(-(-(table + len(note)) // PAGE) * PAGE, b"\0"))
        for start, nr in runs:
            for pfn in range(start, start + nr):
                file.write(prog.read(pfn * PAGE, PAGE, physical=True))
