"""Write dumps in which any number of pages share their content: ELF vmcores and kdump-compressed ones.

Content is stored once, page by page in the order it comes, and page frames are placed on it afterwards: an ELF program
header may name bytes that another one names too, and so may the descriptor of a page in a kdump-compressed file.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from inspector.capture.kdump_writer import (
    DumpHeader,
    encode_bitmap,
    encode_headers,
    encode_notes,
    sub_header_blocks,
)
from inspector.columns import I64, AnyArray, count_up
from inspector.target.corefile import DESCRIPTOR
from tests.bench.compression import Compression

PAGE = 4096
_PHDR = np.dtype(
    [("type", "<u4"), ("flags", "<u4"), *((n, "<u8") for n in ("offset", "va", "pa", "filesz", "memsz", "align"))]
)
_XNUM = 0xFFFF


class Writer(Protocol):
    """A dump that is being written; a context manager that ends it."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the headers and close the file."""

    def store(self, data: bytes | AnyArray) -> int:
        """Keep the content of whole pages.

        Returns:
            The number of the first of them; the others follow.
        """

    def place(self, pfn: int | I64, stored: int | I64, nr: int | I64) -> None:
        """Say that ``nr`` page frames from ``pfn`` hold the stored pages from ``stored`` on; arrays for many."""


class _Placed:
    """What has been placed where."""

    def __init__(self) -> None:
        self._parts: list[I64] = []

    def add(self, pfn: int | I64, stored: int | I64, nr: int | I64) -> None:
        self._parts.append(
            np.stack(np.broadcast_arrays(*map(np.atleast_1d, (pfn, stored, nr))), axis=1).astype(np.int64)
        )

    def rows(self) -> I64:
        """int64[n, 3]; page frame, stored page, how many; ascending, neighbours joined."""
        rows = np.concatenate(self._parts)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        pfn, stored, nr = rows.T
        joins = (pfn[1:] == pfn[:-1] + nr[:-1]) & (stored[1:] == stored[:-1] + nr[:-1])
        first = np.flatnonzero(np.concatenate([[True], ~joins]))
        return np.stack([pfn[first], stored[first], np.add.reduceat(nr, first)], axis=1)


class ElfWriter:
    """An ELF vmcore without virtual addresses, as QEMU writes it.

    Args:
        path: The file.
        header: For its notes.
    """

    def __init__(self, path: Path, header: DumpHeader) -> None:
        self._file, self._placed, self._notes = path.open("wb"), _Placed(), encode_notes(header)
        self._file.seek(64)
        self._file.write(self._notes)
        self._first = -(-(64 + len(self._notes)) // PAGE)
        self._nr = 0

    def __enter__(self) -> Self:
        return self

    def store(self, data: bytes | AnyArray) -> int:
        """As `Writer` says; pages of zeros become holes."""
        content, first = np.frombuffer(data, np.uint8).reshape(-1, PAGE), self._nr
        used = content.any(axis=1)
        edges = np.flatnonzero(np.diff(used, prepend=False, append=False)).reshape(-1, 2)
        for start, end in edges.tolist():
            self._file.seek((self._first + first + start) * PAGE)
            self._file.write(content[start:end].tobytes())
        self._nr += len(content)
        return first

    def place(self, pfn: int | I64, stored: int | I64, nr: int | I64) -> None:
        """As `Writer` says."""
        self._placed.add(pfn, stored, nr)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._file.close()
            return
        pfn, stored, nr = self._placed.rows().T
        table = np.zeros(len(pfn) + 1, _PHDR)
        table[0] = (4, 0, 64, 0, 0, len(self._notes), len(self._notes), 0)
        loads = table[1:]
        loads["type"], loads["offset"], loads["pa"] = 1, (self._first + stored) * PAGE, pfn * PAGE
        loads["filesz"] = loads["memsz"] = nr * PAGE
        phoff = (self._first + self._nr) * PAGE
        shoff, is_long = phoff + table.nbytes, len(table) >= _XNUM
        self._file.seek(phoff)
        self._file.write(table.tobytes())
        # More program headers than 16 bits count: the first section header holds how many.
        self._file.write(struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, len(table), 0, 0))
        words = (4, 62, 1, 0, phoff, shoff, 0, 64, 56, _XNUM if is_long else len(table), 64, 1, 0)
        self._file.seek(0)
        self._file.write(b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", *words))
        self._file.close()


class KdumpWriter:
    """A kdump-compressed vmcore.

    Args:
        path: The file.
        header: What its headers hold.
        compression: Of its pages.
        max_pfn: One more than the highest page frame number.
        room: No more pages than that are placed.
    """

    def __init__(self, path: Path, header: DumpHeader, compression: Compression, max_pfn: int, room: int) -> None:
        self._file, self._placed, self._header, self._max_pfn = path.open("wb"), _Placed(), header, max_pfn
        self._compression = compression
        self._bitmap_blocks = -(-max_pfn // (8 * PAGE))
        self._table = PAGE * (1 + sub_header_blocks(header) + 2 * self._bitmap_blocks)
        # Descriptors come first in the file and are known last: a hole is left for them.
        self._end = self._table + DESCRIPTOR.itemsize * room
        self._offsets, self._sizes, self._zero = array("Q"), array("I"), -1

    def __enter__(self) -> Self:
        return self

    def store(self, data: bytes | AnyArray) -> int:
        """As `Writer` says; all pages of zeros are stored once."""
        content, first = np.frombuffer(data, np.uint8).reshape(-1, PAGE), len(self._offsets)
        is_used = np.zeros(len(content), np.bool_)
        is_used[np.flatnonzero(content.any(axis=1))] = True
        parts: list[bytes] = []
        for page, has_content in zip(content, is_used.tolist(), strict=True):
            if not has_content and self._zero >= 0:
                self._offsets.append(self._offsets[self._zero])
                self._sizes.append(self._sizes[self._zero])
                continue
            if not has_content:
                self._zero = len(self._offsets)
            raw = page.tobytes()
            packed = self._compression.compress(raw)
            if len(packed) >= PAGE:
                packed = raw
            self._offsets.append(self._end)
            self._sizes.append(len(packed))
            self._end += len(packed)
            parts.append(packed)
        self._file.seek(self._end - sum(map(len, parts)))
        self._file.write(b"".join(parts))
        return first

    def place(self, pfn: int | I64, stored: int | I64, nr: int | I64) -> None:
        """As `Writer` says."""
        self._placed.add(pfn, stored, nr)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._file.close()
            return
        pfn, stored, nr = self._placed.rows().T
        within = count_up(nr)
        pfns, slots = np.repeat(pfn, nr) + within, np.repeat(stored, nr) + within
        table = np.zeros(len(pfns), DESCRIPTOR)
        table["offset"] = np.frombuffer(self._offsets, np.uint64)[slots]
        table["size"] = np.frombuffer(self._sizes, np.uint32)[slots]
        table["flags"] = np.where(table["size"] < PAGE, self._compression.flag, 0)
        sub_blocks = sub_header_blocks(self._header)
        self._file.seek(0)
        self._file.write(encode_headers(self._header, len(pfns), self._max_pfn, sub_blocks, 2 * self._bitmap_blocks))
        bitmap = encode_bitmap(pfns, [], self._bitmap_blocks * PAGE)
        self._file.write(bitmap + bitmap)
        self._file.write(table.tobytes())
        self._file.close()
