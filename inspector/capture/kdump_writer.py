"""Write a kdump-compressed vmcore: each page compressed by itself, in the format of makedumpfile and libkdumpfile."""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from inspector.columns import I64, U8
from inspector.records import dataclass
from inspector.target.prstatus import NT_PRSTATUS, OWNER

# struct disk_dump_header and struct kdump_sub_header of makedumpfile's diskdump_mod.h, 64-bit.
_HEADER = struct.Struct("<8si390s6xqqIiiIIIIIIi")
_SUB_HEADER = struct.Struct("<Qii11Q")
DESCRIPTOR = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])
_VERSION = 6
_ZLIB = 1
"""DUMP_DH_COMPRESSED_ZLIB: of the compressions the format knows, the one that every reader has."""

_LEFT_OUT = 2 | 4 | 8 | 16
"""Dump level: no page cache, private page cache, user and free pages; zero pages are kept."""

_NOTE_HEAD = 24
"""Bytes before the content of the VMCOREINFO note: three words, and its name with padding."""

_UTS_FIELD = 65


@dataclass(frozen=True)
class DumpHeader:
    """What the headers of a dump hold.

    Attributes:
        machine, release, version: As uname prints them.
        page_size: Bytes of a page.
        phys_base: Physical address of the kernel image's base.
        stopped_at: Seconds since 1970.
        vmcoreinfo: VMCOREINFO as the kernel wrote it.
        nr_cpus: CPUs that were online.
        prstatus: Contents of NT_PRSTATUS notes, one a CPU.
    """

    machine: str
    release: str
    version: str
    page_size: int
    phys_base: int
    stopped_at: int
    vmcoreinfo: bytes
    nr_cpus: int = 1
    prstatus: tuple[bytes, ...] = ()


class PageSpool:
    """Compressed pages in the order they came, in a file without a name.

    Args:
        folder: Where to make the file.
        page_size: Bytes of a page.
        level: Of zlib, 1 to 9.

    Raises:
        OSError: The file cannot be made; from `add`: it cannot grow.
    """

    def __init__(self, folder: Path, page_size: int, level: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by `close`)
        self._level = level
        self._page_size = page_size
        self._slots: dict[int, int] = {}
        self._offsets, self._sizes, self._kinds = array("Q"), array("I"), array("B")
        self._end = 0

    def __contains__(self, pfn: int) -> bool:
        return pfn in self._slots

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def add(self, pfn: int, page: bytes | memoryview, kind: int) -> None:
        """Keep a page; ``kind`` is the caller's own mark (0 to 255)."""
        data = zlib.compress(page, self._level)
        if len(data) >= self._page_size:
            data = bytes(page)
        self._file.seek(self._end)
        self._file.write(data)
        self._slots[pfn] = len(self._offsets)
        self._offsets.append(self._end)
        self._sizes.append(len(data))
        self._kinds.append(kind)
        self._end += len(data)

    def replace(self, pfn: int, page: bytes) -> None:
        """Put other content in the place of a kept page."""
        data = zlib.compress(page, self._level)
        if len(data) >= self._page_size:
            data = bytes(page)
        slot = self._slots[pfn]
        self._file.seek(self._end)
        self._file.write(data)
        self._offsets[slot], self._sizes[slot] = self._end, len(data)
        self._end += len(data)

    def stored(self, pfn: int) -> bytes:
        """A page as it is stored: compressed, unless that would have made it no smaller."""
        slot = self._slots[pfn]
        self._file.flush()
        return os.pread(self._file.fileno(), self._sizes[slot], self._offsets[slot])

    def page(self, pfn: int) -> bytes:
        """The page itself."""
        data = self.stored(pfn)
        return data if len(data) == self._page_size else zlib.decompress(data)

    def pfns(self) -> I64:
        """Page frame numbers of all pages, in the order they came."""
        return np.fromiter(self._slots, np.int64, len(self._slots))

    def kinds(self) -> U8:
        """The marks, in the order of `pfns`."""
        return np.array(self._kinds, np.uint8)

    def sizes(self, pfns: I64) -> I64:
        """Stored size of each of the given pages."""
        return np.array([self._sizes[self._slots[p]] for p in pfns.tolist()], np.int64)


def write_kdump(
    file: BinaryIO, header: DumpHeader, spool: PageSpool, pfns: I64, ram: Iterable[tuple[int, int]]
) -> None:
    """Write a dump of the given pages; the same input gives the same bytes.

    Args:
        file: Empty, open for writing.
        header: What the headers hold.
        spool: Has the pages.
        pfns: Which of them to write, ascending.
        ram: Page frame ranges [start, end) that have memory, in the dump or not.

    Raises:
        OSError: The file cannot be written.
    """
    block, ranges = header.page_size, list(ram)
    max_pfn = max([int(pfns[-1]) + 1 if len(pfns) else 0, *(end for _, end in ranges)])
    sub_blocks = sub_header_blocks(header)
    bitmap_blocks = -(-max_pfn // (8 * block))
    at = block * (1 + sub_blocks + 2 * bitmap_blocks)
    file.write(encode_headers(header, len(pfns), max_pfn, sub_blocks, 2 * bitmap_blocks))
    file.write(encode_bitmap(pfns, ranges, bitmap_blocks * block))
    file.write(encode_bitmap(pfns, [], bitmap_blocks * block))
    sizes = spool.sizes(pfns)
    table = np.zeros(len(pfns), DESCRIPTOR)
    table["offset"] = at + table.nbytes + np.cumsum(sizes) - sizes
    table["size"] = sizes
    table["flags"] = np.where(sizes < block, _ZLIB, 0)
    file.write(table.tobytes())
    for pfn in pfns.tolist():
        file.write(spool.stored(pfn))


def sub_header_blocks(header: DumpHeader) -> int:
    """Blocks that the sub-header and the notes behind it take."""
    return -(-(_SUB_HEADER.size + len(encode_notes(header))) // header.page_size)


def encode_headers(header: DumpHeader, nr_pages: int, max_pfn: int, sub_blocks: int, bitmap_blocks: int) -> bytes:
    """The first blocks of a dump, up to its bitmaps.

    Args:
        header: What they hold.
        nr_pages: Pages in the dump.
        max_pfn: One more than the highest page frame number.
        sub_blocks: Blocks of the sub-header (`sub_header_blocks`).
        bitmap_blocks: Blocks of both bitmaps.
    """
    block = header.page_size
    # The host's name is private.
    uts = ("Linux", "", header.release, header.version, header.machine, "")
    first = _HEADER.pack(
        b"KDUMP   ", _VERSION, b"".join(_uts_field(text) for text in uts), header.stopped_at, 0, _ZLIB, block,
        sub_blocks, bitmap_blocks, min(max_pfn, 0xFFFFFFFF), nr_pages, 0, nr_pages, 0, header.nr_cpus,
    )  # fmt: skip
    # VMCOREINFO is pointed to twice: as it is, and as the ELF note around it, which readers of version 4 on look for.
    note, note_at = encode_notes(header), block + _SUB_HEADER.size
    second = _SUB_HEADER.pack(
        header.phys_base, _LEFT_OUT, 0, 0, max_pfn, note_at + _NOTE_HEAD, len(header.vmcoreinfo), note_at, len(note),
        0, 0, 0, max_pfn, max_pfn,
    )  # fmt: skip
    return first.ljust(block, b"\0") + (second + note).ljust(sub_blocks * block, b"\0")


def encode_notes(header: DumpHeader) -> bytes:
    """VMCOREINFO and the registers as ELF notes (kernel/vmcore_info.c, fs/proc/vmcore.c)."""
    found = [(b"VMCOREINFO\0", 0, header.vmcoreinfo), *((OWNER + b"\0", NT_PRSTATUS, p) for p in header.prstatus)]
    return b"".join(
        struct.pack("<III", len(name), len(content), kind) + _padded(name) + _padded(content)
        for name, kind, content in found
    )


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 4) * 4, b"\0")


def _uts_field(text: str) -> bytes:
    return text.encode("utf-8", "replace")[: _UTS_FIELD - 1].ljust(_UTS_FIELD, b"\0")


def encode_bitmap(pfns: I64, ranges: list[tuple[int, int]], size: int) -> bytes:
    """One bit a page frame, lowest bit first."""
    bits = np.zeros(size, np.uint8)
    for start, end in ranges:
        whole_from, whole_to = -(-start // 8), end // 8
        bits[whole_from:whole_to] = 0xFF
        edges = (*range(start, min(whole_from * 8, end)), *range(max(whole_to * 8, start), end))
        pfns = np.concatenate([pfns, np.array(edges, np.int64)])
    np.bitwise_or.at(bits, pfns >> 3, np.uint8(1) << (pfns & 7).astype(np.uint8))
    return bits.tobytes()
