"""``python -m tests.bench.decompress CORE READS``: the decompressor alone, on the pages that a question read.

Of a kdump-compressed dump every such page is unpacked once, with the library itself and no reader around it. Finding
out which pages they are is not part of the figure.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

import numpy as np

from inspector.columns import I64, U64
from inspector.layout.kernel import Layout
from inspector.target.corefile import DESCRIPTOR
from inspector.target.target import open_core
from tests.bench.compression import COMPRESSIONS, Compression, compression_named
from tests.bench.patching import PAGE, Patched

_BLOCKS = struct.Struct("<iiI")
_BLOCKS_AT = 428
"""block_size, sub_hdr_size and bitmap_blocks of struct disk_dump_header (diskdump_mod.h)."""


class StoredPages:
    """The pages of a kdump-compressed dump as they are stored.

    Args:
        path: The dump.
    """

    def __init__(self, path: Path) -> None:
        self._data = np.memmap(path, np.uint8, "r")
        block, sub, bitmaps = _BLOCKS.unpack(self._data[_BLOCKS_AT : _BLOCKS_AT + _BLOCKS.size].tobytes())
        half = block * bitmaps // 2
        start = block * (1 + sub) + half
        self._pfns: I64 = np.flatnonzero(np.unpackbits(self._data[start : start + half], bitorder="little"))
        table = self._data[start + half : start + half + DESCRIPTOR.itemsize * len(self._pfns)]
        self._table = np.frombuffer(table.tobytes(), DESCRIPTOR)

    def of(self, pfns: I64) -> list[tuple[bytes, int]]:
        """The stored bytes and the compression's flag of those of the page frames that the dump has."""
        at = np.searchsorted(self._pfns, pfns)
        at = at[(at < len(self._pfns)) & (self._pfns[np.minimum(at, len(self._pfns) - 1)] == pfns)]
        rows = self._table[at]
        return [
            (self._data[offset : offset + size].tobytes(), flags)
            for offset, size, flags in zip(
                rows["offset"].tolist(), rows["size"].tolist(), rows["flags"].tolist(), strict=True
            )
        ]


def physical_pages(layout: Layout, reads: U64) -> I64:
    """Page frames of what was read, each once.

    Args:
        layout: Of the dump.
        reads: uint64[n, 3]; as `tests.bench.replay` records it.
    """
    patched, out = Patched(layout), [np.empty(0, np.int64)]
    for address, pages, physical in reads.tolist():
        if physical:
            out.append(np.arange(address // PAGE, address // PAGE + pages))
            continue
        at, end = address, address + pages * PAGE
        while at < end:
            # What a PMD maps lies together.
            stop = min(end, (at | (2 << 20) - 1) + 1) if patched.is_large(at) else at + PAGE
            first = patched.physical(at) // PAGE
            out.append(np.arange(first, first + (stop - at) // PAGE))
            at = stop
    return np.unique(np.concatenate(out))


def unpack(pages: list[tuple[bytes, int]]) -> int:
    """Unpack pages; how many bytes come out."""
    known: dict[int, Compression] = {c.flag: c for c in map(compression_named, COMPRESSIONS)}
    return sum(len(known[flag].decompress(data, PAGE)) if flag else len(data) for data, flag in pages)


def main() -> None:
    """Print the CPU seconds, and the MiB that came out, as JSON."""
    core, reads = sys.argv[1:]
    layout = Layout.probe(open_core(core, types="btf"))
    pages = StoredPages(Path(core)).of(physical_pages(layout, np.load(reads)))
    start = time.process_time()
    total = unpack(pages)
    print(json.dumps({"cpu": time.process_time() - start, "mib": total / (1 << 20)}))


if __name__ == "__main__":
    main()
