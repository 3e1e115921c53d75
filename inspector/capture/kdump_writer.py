"""Write a kdump-compressed vmcore: each page compressed by itself, in the format of makedumpfile and libkdumpfile."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from inspector.capture.packing import DIGEST, Ahead, PageSource, digest, packed
from inspector.columns import I64, AnyArray
from inspector.deflate import LEVEL
from inspector.records import dataclass
from inspector.target.corefile import DESCRIPTOR
from inspector.target.prstatus import NT_PRSTATUS, OWNER
from inspector.workers import work_on

# struct disk_dump_header and struct kdump_sub_header of makedumpfile's diskdump_mod.h, 64-bit.
_HEADER = struct.Struct("<8si390s6xqqIiiIIIIIIi")
_SUB_HEADER = struct.Struct("<Qii11Q")
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
    """Pages in the order they came, in a file without a name, as they are.

    Args:
        folder: Where to make the file.
        page_size: Bytes of a page.

    Raises:
        OSError: The file cannot be made; from `add`: it cannot grow.
    """

    def __init__(self, folder: Path, page_size: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  (closed by `close`)
        self._page_size = page_size
        self._slots: dict[int, int] = {}

    def __contains__(self, pfn: int) -> bool:
        return pfn in self._slots

    def among(self, pfns: Sequence[int]) -> set[int]:
        """Which of some pages, each named once, are kept."""
        return self._slots.keys() & set(pfns)

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def add(self, pfn: int, page: bytes | memoryview) -> None:
        """Keep a page; it takes the place of one that was kept of the same number."""
        at = self._slots.get(pfn, len(self._slots)) * self._page_size
        with memoryview(page) as left:
            done = 0
            while done < len(left):
                done += os.pwrite(self._file.fileno(), left[done:], at + done)
        self._slots.setdefault(pfn, len(self._slots))

    def page(self, pfn: int) -> bytes:
        """A page that was kept."""
        return os.pread(self._file.fileno(), self._page_size, self._slots[pfn] * self._page_size)

    def pages(self, pfns: Sequence[int]) -> list[bytes]:
        """Several of them."""
        return [self.page(pfn) for pfn in pfns]

    def pfns(self) -> I64:
        """Page frame numbers of all pages, in the order they came."""
        return np.fromiter(self._slots, np.int64, len(self._slots))


@dataclass(frozen=True)
class Effort:
    """How pages are compressed.

    Attributes:
        level: Of `inspector.deflate.deflated`, 1 (quick) to 9 (small).
        nr_workers: Processes that compress at most.
        ahead: What was compressed before, in the same way.
    """

    level: int = LEVEL
    nr_workers: int = 1
    ahead: Ahead = Ahead.nothing()


PIECE = 1024
"""Pages worked on together."""


def write_kdump(
    file: BinaryIO,
    header: DumpHeader,
    source: PageSource,
    pfns: I64,
    ram: Iterable[tuple[int, int]],
    effort: Effort | None = None,
) -> None:
    """Write a dump of the given pages; the same input gives the same bytes. The file is at its end afterwards.

    Args:
        file: Empty, open for writing.
        header: What the headers hold.
        source: Has the pages.
        pfns: Which of them to write, ascending.
        ram: Page frame ranges [start, end) that have memory, in the dump or not.
        effort: How they are compressed.

    Raises:
        OSError: The file cannot be written.
        TargetError: A page cannot be read.
    """
    block, ranges, effort = header.page_size, list(ram), effort or Effort()
    max_pfn = max([int(pfns[-1]) + 1 if len(pfns) else 0, *(end for _, end in ranges)])
    sub_blocks = sub_header_blocks(header)
    bitmap_blocks = -(-max_pfn // (8 * block))
    file.write(encode_headers(header, len(pfns), max_pfn, sub_blocks, 2 * bitmap_blocks))
    file.write(encode_bitmap(pfns, ranges, bitmap_blocks * block))
    file.write(encode_bitmap(pfns, [], bitmap_blocks * block))
    table, table_at = np.zeros(len(pfns), DESCRIPTOR), file.tell()
    end = table_at + table.nbytes
    file.seek(end)
    sizes, which = _write_distinct(file, source, pfns, effort)
    table["size"] = sizes[which]
    table["offset"] = (end + np.cumsum(sizes) - sizes)[which]
    table["flags"] = np.where(table["size"] < block, _ZLIB, 0)
    file.seek(table_at)
    file.write(table.tobytes())
    file.seek(0, os.SEEK_END)


def _write_distinct(file: BinaryIO, source: PageSource, pfns: I64, effort: Effort) -> tuple[I64, I64]:
    """Write each distinct page once, in the order of the first of its page frames.

    Page tables of processes that were forked from one another are often equal.

    Returns:
        Bytes of each, and for each page frame which of them it has.
    """
    ahead, digests = effort.ahead, _digests(source, pfns, effort)
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    first = first[order]
    place, sizes = ahead.places_of(digests[first])
    todo = np.flatnonzero(sizes == 0)

    def compressed(rows: I64) -> tuple[I64, bytes]:
        """Bytes of each of them as it is stored, and what is stored."""
        stored = [packed(page, effort.level) for page in source.pages(pfns[first[rows]].tolist())]
        return np.array([len(data) for data in stored], np.int64), b"".join(stored)

    done = 0
    pieces = _pieces(todo)
    for rows, (nr, data) in zip(pieces, work_on(pieces, compressed, effort.nr_workers), strict=True):
        sizes[rows], at = nr, np.cumsum(nr) - nr
        for row, begin, end in zip(rows.tolist(), at.tolist(), (at + nr).tolist(), strict=True):
            ahead.copy(file, place[done:row], sizes[done:row])
            file.write(data[begin:end])
            done = row + 1
    ahead.copy(file, place[done:], sizes[done:])
    return sizes, number[which]


def _pieces(numbers: I64) -> list[I64]:
    return [numbers[at : at + PIECE] for at in range(0, len(numbers), PIECE)]


def _digests(source: PageSource, pfns: I64, effort: Effort) -> AnyArray:
    """What pages with equal content have in common."""

    def of(piece: I64) -> bytes:
        return b"".join([digest(page) for page in source.pages(piece.tolist())])

    out, is_known = effort.ahead.digests_of(pfns)
    out[~is_known] = np.frombuffer(b"".join(work_on(_pieces(pfns[~is_known]), of, effort.nr_workers)), DIGEST)
    return out


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
