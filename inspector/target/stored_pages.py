"""Physical memory of a kdump-compressed dump, each page unpacked once.

libkdumpfile, by which drgn reads such dumps, keeps a thousand pages and searches them one by one. That takes as long
as unpacking does, and a check reads many times a thousand pages, most of them more than once. Here a page that was
unpacked is put into a scratch file, from which forked processes read it, too. Where that file finds no more room, pages
are unpacked again.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import NamedTuple, Protocol

import drgn
import numpy as np

from inspector import scratch
from inspector.records import dataclass
from inspector.target.corefile import PagesAt
from inspector.target.unpacking import Unpack, unpack_by

_DESCRIPTOR = struct.Struct("<QIIQ")
"""struct page_desc of makedumpfile's diskdump_mod.h: offset, size, flags, page_flags."""

_BLOCK = 512
"""Bytes of the bitmap that one word of ours holds."""

_PIECE = 1 << 20
"""Bytes of the bitmap that are counted together."""

_AHEAD = 170
"""Descriptors that are read together at least."""

_WORD = 8
_NR_TABLES = 256
"""Pages that are at hand for reading words."""

_FILE_SHIFT = 56
"""Bits of a place below those that say which file it is in."""

_LONG = 32
"""Pages of a read that passes through memory, where others go to a place in it and return."""


class PhysicalReader(Protocol):
    """Reads a dump by physical address."""

    def read(self, address: int, size: int, physical: bool, /) -> bytes:
        """Read ``size`` bytes; raises drgn.FaultError if any of them cannot be read."""


class Descriptors:
    """Where and how each page is stored.

    Args:
        file: Descriptor of the open file.
        index: Where it has its pages.

    Attributes:
        nr_pfns: Page frames that the bitmap is about.
        end: One more than the last page frame that it has rows of.
    """

    def __init__(self, file: int, index: PagesAt) -> None:
        self._file, self._bitmap, self._table = file, index.bitmap, index.table
        self._shift = index.page_size.bit_length() - 1
        self.nr_pfns = (index.table - index.bitmap) * 8
        self.end = self.nr_pfns if index.end is None else index.end
        counts = [np.zeros(1, np.int64)]
        for at in range(index.bitmap, index.table, _PIECE):
            bits = np.frombuffer(os.pread(file, min(_PIECE, index.table - at), at), np.uint8)
            counts.append(np.bitwise_count(bits).reshape(-1, _BLOCK).sum(axis=1, dtype=np.int64))
        # Rows of the table before each block of the bitmap.
        before = np.cumsum(np.concatenate(counts))
        if index.first:
            # Of those below it has no rows.
            block, bit = divmod(index.first, _BLOCK * 8)
            data = os.pread(file, _BLOCK, index.bitmap + block * _BLOCK)
            before -= before[block] + (int.from_bytes(data, "little") & (1 << bit) - 1).bit_count()
        self._before: list[int] = before.tolist()
        self._block, self._bits = -1, 0
        self._first = 0
        self._rows = b""

    def of(self, first: int, end: int) -> list[tuple[int, int, int, int]]:
        """Offset, size, flags and page flags of the page frames [first, end).

        Raises:
            drgn.FaultError: The file does not have all of them.
            OSError: The file has become shorter.
        """
        block, bit = divmod(first, _BLOCK * 8)
        if block != self._block:
            data = os.pread(self._file, _BLOCK, self._bitmap + block * _BLOCK) if first < self.nr_pfns else b""
            self._bits, self._block = int.from_bytes(data, "little"), block
        bits, nr = self._bits, min(_BLOCK * 8 - bit, end - first)
        mask = (1 << nr) - 1
        has = bits >> bit & mask
        if has != mask:
            raise drgn.FaultError("page is not in the dump", first + _trailing_ones(has) << self._shift)
        row = self._before[block] + (bits & (1 << bit) - 1).bit_count()
        size = _DESCRIPTOR.size
        at = (row - self._first) * size
        if not 0 <= at <= len(self._rows) - nr * size:
            # Those behind are wanted next, mostly.
            self._first, at = row, 0
            self._rows = os.pread(self._file, max(nr, _AHEAD) * size, self._table + row * size)
            if len(self._rows) < nr * size:
                raise _shorter()
        found = list(_DESCRIPTOR.iter_unpack(self._rows[at : at + nr * size]))
        return found if first + nr == end else found + self.of(first + nr, end)


@dataclass(frozen=True)
class _Part:
    """One file of a dump.

    Attributes:
        file: Descriptor of the open file.
        descriptors: Of its pages.
        end: One more than the last page frame that it is about.
        open_other: Opens what reads pages that are stored in an unknown way, and says what is wrong with damaged ones.
        others: What that gave, once it was asked.
    """

    file: int
    descriptors: Descriptors
    end: int
    open_other: Callable[[], PhysicalReader]
    others: list[PhysicalReader] = field(default_factory=list)


class Stored(NamedTuple):
    """A file of a dump: where it is, where it has its pages, and as `_Part` says."""

    path: str
    pages: PagesAt
    open_other: Callable[[], PhysicalReader]


class StoredPages:
    """Reads the physical memory of a dump.

    Processes forked from this one share what each of them keeps. A page that two of them unpack at the same time is
    unpacked twice. No two threads must read at the same time.

    Args:
        files: The dump; its parts in the order of the page frames, none of which lacks.
        is_read_once: Whether no page will be read a second time, so that none is kept.

    Attributes:
        nr_unpacked: Pages that this process has unpacked.
    """

    def __init__(self, *files: Stored, is_read_once: bool = False) -> None:
        self._parts: list[_Part] = []
        for path, pages, open_other in files:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, file)
            descriptors = Descriptors(file, pages)
            self._parts.append(_Part(file, descriptors, descriptors.end, open_other))
        self._ends = [part.end for part in self._parts]
        nr_pfns = max(part.descriptors.nr_pfns for part in self._parts)
        self._size = files[0].pages.page_size
        self._shift = self._size.bit_length() - 1
        self._unpack: dict[int, Unpack | None] = {}
        # A bit of a byte that two processes change at the same time may be lost: that page is unpacked once more.
        self._is_kept = mmap.mmap(-1, nr_pfns // 8 + 1)
        self._kept, self._room = -1, 0
        kept = None if is_read_once else scratch.nameless_file()
        if kept is not None:
            weakref.finalize(self, os.close, kept)
            self._kept, self._room = kept, scratch.room_in(kept) >> self._shift
        self._half = self._room // 2
        self._tables: dict[int, bytes] = {}
        self.nr_unpacked = 0

    def read(self, address: int, count: int, _offset: int = 0, _physical: bool = True) -> bytes:
        """Answer drgn (`drgn.Program.add_memory_segment`).

        Raises:
            drgn.FaultError: A page is not in the dump.
            OSError: The file cannot be read any more.
        """
        shift = self._shift
        first, end = address >> shift, ((address + count - 1) >> shift) + 1
        if count == _WORD and end - first == 1:
            return self._word(address, first)
        mask = (1 << (end - first)) - 1
        kept = int.from_bytes(self._is_kept[first >> 3 : end + 7 >> 3], "little") >> (first & 7) & mask
        if not kept:
            data = self._fresh(first, end)
        elif kept == mask:
            return os.pread(self._kept, count, address)
        else:
            data = b"".join(self._some_kept(first, end, kept))
        at = address - (first << shift)
        return data if len(data) == count else data[at : at + count]

    def _word(self, address: int, pfn: int) -> bytes:
        """One word, as drgn reads them of the kernel's page tables, those of the same few again and again."""
        page = self._tables.get(pfn)
        if page is None:
            if len(self._tables) >= _NR_TABLES:
                self._tables.clear()
            page = self._tables[pfn] = self.read(pfn << self._shift, self._size)
        at = address - (pfn << self._shift)
        return page[at : at + _WORD]

    def _some_kept(self, first: int, end: int, kept: int) -> Iterator[bytes]:
        """Pages [first, end), of which some are kept: a bit each."""
        while first < end:
            is_kept = kept & 1
            nr = _trailing_ones(kept if is_kept else ~kept & (1 << (end - first)) - 1)
            if is_kept:
                yield os.pread(self._kept, nr << self._shift, first << self._shift)
            else:
                yield self._fresh(first, first + nr)
            first, kept = first + nr, kept >> nr

    def _fresh(self, first: int, end: int) -> bytes:
        """Pages [first, end), of which none is kept."""
        nr = end - first
        pages = self.unpacked(first, end)
        data = b"".join(pages) if nr > 1 else pages[0]
        # What passes through memory must leave room for what is read again and again.
        if self._room - nr >= (self._half if nr >= _LONG else 0):
            self._keep(first, nr, data)
        return data

    def places(self, first: int, end: int) -> list[int]:
        """Where in the file the page frames [first, end) are stored: those with the same place are equal.

        Raises:
            drgn.FaultError: One is not in the dump.
            OSError: The file cannot be read any more.
        """
        return [
            row[0] | number << _FILE_SHIFT
            for number, start, stop in self._within(first, end)
            for row in self._parts[number].descriptors.of(start, stop)
        ]

    def _within(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The numbers of the files that page frames [first, end) are in, and which of these are in each."""
        number = bisect_right(self._ends, first) if len(self._ends) > 1 else 0
        last = len(self._ends) - 1
        number = min(number, last)
        while number < last and self._ends[number] < end:
            if first < self._ends[number]:
                yield number, first, self._ends[number]
                first = self._ends[number]
            number += 1
        yield number, first, end

    def unpacked(self, first: int, end: int) -> list[bytes]:
        """Page frames [first, end) as they are in the dump, whether they were unpacked before or not.

        Raises:
            drgn.FaultError: One is not in the dump.
            OSError: The file cannot be read any more.
        """
        within = list(self._within(first, end))
        if len(within) == 1:
            return self._of_part(self._parts[within[0][0]], first, end)
        return [page for number, start, stop in within for page in self._of_part(self._parts[number], start, stop)]

    def _of_part(self, part: _Part, first: int, end: int) -> list[bytes]:
        """Those of them that are in one file."""
        nr, file = end - first, part.file
        rows = part.descriptors.of(first, end)
        begin, span = rows[0][0], rows[-1][0] + rows[-1][1] - rows[0][0]
        # Neighbours are stored one behind the other, mostly.
        together = os.pread(file, span, begin) if 0 < span <= nr << self._shift else b""
        pages: list[bytes] = []
        last = -1
        for pfn, (at, stored, flag, _) in enumerate(rows, first):
            if at == last:
                # Pages alike are stored once.
                pages.append(pages[-1])
                continue
            last = at
            data = together[at - begin : at - begin + stored] if at >= begin else b""
            if len(data) != stored:
                stored = min(stored, 2 * self._size)
                data = os.pread(file, stored, at)
                if len(data) != stored:
                    raise _shorter()
            pages.append(self._page(part, pfn, data, flag))
        return pages

    def _page(self, part: _Part, pfn: int, data: bytes, flag: int) -> bytes:
        """One page, given what is stored of it."""
        self.nr_unpacked += 1
        if flag not in self._unpack:
            self._unpack[flag] = unpack_by(flag, self._size)
        unpack = self._unpack[flag]
        try:
            page = unpack(data) if unpack is not None else b""
        except ValueError:
            page = b""
        if len(page) == self._size:
            return page
        if not part.others:
            part.others.append(part.open_other())
        return part.others[0].read(pfn << self._shift, self._size, True)

    def _keep(self, first: int, nr: int, data: bytes) -> None:
        try:
            done = os.pwrite(self._kept, data, first << self._shift) >> self._shift
        except OSError:
            # The file system is full, or has no files of this size.
            self._room = 0
            return
        self._room -= nr
        place = slice(first >> 3, first + nr + 7 >> 3)
        bits = self._is_kept[place]
        marked = int.from_bytes(bits, "little") | ((1 << done) - 1) << (first & 7)
        self._is_kept[place] = marked.to_bytes(len(bits), "little")


def _trailing_ones(bits: int) -> int:
    """How many of the lowest bits are set in a row."""
    return (bits + 1 & ~bits).bit_length() - 1


def _shorter() -> OSError:
    return OSError(errno.EIO, "its file has become shorter")
