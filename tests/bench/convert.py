"""``python -m tests.bench.convert CORE [--to zlib,lzo,...]``: a dump as kdump-compressed ones, kept beside it."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from inspector.capture.capture import header_of
from inspector.layout.kernel import Layout
from inspector.memory import CHUNK
from inspector.target.corefile import examine_core
from inspector.target.target import open_core
from tests.bench.compression import COMPRESSIONS, compression_named
from tests.bench.writers import PAGE, KdumpWriter


def pieces_of(layout: Layout) -> list[tuple[int, int]]:
    """Page frame ranges [start, end) that a dump holds, none longer than what is read at once."""
    memory, out, step = layout.memory, list[tuple[int, int]](), CHUNK // PAGE
    for first, end in zip(layout.memmap.starts.tolist(), layout.memmap.ends.tolist(), strict=True):
        for start in range(first, end, step):
            stop = min(start + step, end)
            _, valid = memory.read_range(start * PAGE, (stop - start) * PAGE, physical=True)
            edges = np.flatnonzero(np.diff(valid, prepend=False, append=False)).reshape(-1, 2)
            out += [(start + a, start + b) for a, b in edges.tolist()]
    return out


def converted(core: Path, compression: str) -> Path:
    """The same memory as a kdump-compressed dump; made when it is missing or older than the dump."""
    out = core.with_name(f"{core.stem}.{compression}.kdump")
    if out.is_file() and out.stat().st_mtime > core.stat().st_mtime:
        return out
    target = open_core(str(core), types="btf")
    layout = Layout.probe(target)
    header = header_of(target, examine_core(str(core)).vmcoreinfo)
    memmap, part = layout.memmap, out.with_name(f".{out.name}.part")
    try:
        writer = KdumpWriter(part, header, compression_named(compression), memmap.max_pfn, memmap.nr_pages)
        with writer:
            for start, end in pieces_of(layout):
                data, _ = layout.memory.read_range(start * PAGE, (end - start) * PAGE, physical=True)
                writer.place(start, writer.store(data), end - start)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return out


def main() -> None:
    """Convert one dump."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.convert", description=__doc__)
    parser.add_argument("core", type=Path)
    parser.add_argument("--to", default=",".join(COMPRESSIONS), help="which, with commas between [default: all]")
    asked = parser.parse_args()
    for compression in asked.to.split(","):
        print(converted(asked.core, compression), flush=True)


if __name__ == "__main__":
    main()
