"""Pages compressed for a capture: ahead, beside the check that reads them, or when they are written.

Each page is compressed by itself, so that what is written does not depend on when, or in which process, that was.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

import numpy as np

from inspector.columns import I64, AnyArray, Mask
from inspector.deflate import deflated
from inspector.records import dataclass
from inspector.scratch import nameless_file, room_in
from inspector.workers import Beside

DIGEST = np.dtype("S32")
"""SHA-256 of a page: pages with the same are taken for equal."""

_STEP = 256
"""Pages that are compressed, and noted, together."""

_WAIT = 0.005
"""Seconds between two looks for pages that were read meanwhile."""

_LOOK = 1 << 20
"""Page frames that are searched together."""

_WORD = 8

_COPY = 1 << 20
"""Bytes that are copied together at most."""


class PageSource(Protocol):
    """Has the pages that are to be written."""

    def pages(self, pfns: Sequence[int]) -> list[bytes]:
        """The content of pages, by their page frame numbers, ascending."""


def digest(page: bytes) -> bytes:
    """What says whether two pages are equal (`DIGEST`)."""
    return hashlib.sha256(page).digest()


def packed(page: bytes, level: int) -> bytes:
    """A page as it is stored: one that would become no smaller is not compressed."""
    return min(deflated(page, level), page, key=len)


class Spool:
    """A scratch file to append to, closed with the last that has this.

    Attributes:
        number: Its descriptor; None where none can be made.
    """

    def __init__(self) -> None:
        self.number = nameless_file(os.O_APPEND)
        if self.number is not None:
            weakref.finalize(self, os.close, self.number)


@dataclass(frozen=True)
class Ahead:
    """What was compressed ahead.

    Attributes:
        spool: Has it; None where nothing was.
        pfns: int64[n] ascending; page frames whose digests are known.
        digests: `DIGEST` [n]; theirs.
        kept: `DIGEST` [m] ascending; of each distinct page.
        place: int64[m]; where in the file it is, compressed.
        size: int64[m]; how many bytes.
    """

    spool: Spool | None
    pfns: I64
    digests: AnyArray
    kept: AnyArray
    place: I64
    size: I64

    @classmethod
    def nothing(cls) -> Ahead:
        """Where nothing was."""
        none, digests = np.empty(0, np.int64), np.empty(0, DIGEST)
        return cls(None, none, digests, digests, none, none)

    def without(self, pfns: I64) -> Ahead:
        """As if the digests of some pages, whose content was replaced, were not known."""
        keep = ~np.isin(self.pfns, pfns)
        return Ahead(self.spool, self.pfns[keep], self.digests[keep], self.kept, self.place, self.size)

    def digests_of(self, pfns: I64) -> tuple[AnyArray, Mask]:
        """The digests of some pages, and of which they are known."""
        found, is_known = _found(self.pfns, pfns)
        out = np.zeros(len(pfns), DIGEST)
        out[is_known] = self.digests[found[is_known]]
        return out, is_known

    def places_of(self, digests: AnyArray) -> tuple[I64, I64]:
        """Place and size of what is stored of distinct pages, the size 0 where nothing is."""
        found, is_known = _found(self.kept, digests)
        place, size = np.zeros((2, len(digests)), np.int64)
        place[is_known], size[is_known] = self.place[found[is_known]], self.size[found[is_known]]
        return place, size

    def copy(self, file: BinaryIO, place: I64, size: I64) -> None:
        """Write what is stored at some places to a file, neighbours together."""
        if self.spool is None or self.spool.number is None or not len(place):
            return
        edges = np.flatnonzero(place[1:] != place[:-1] + size[:-1]) + 1
        for first, end in zip([0, *edges.tolist()], [*edges.tolist(), len(place)], strict=True):
            at, stop = int(place[first]), int(place[end - 1] + size[end - 1])
            while at < stop:
                data = os.pread(self.spool.number, min(stop - at, _COPY), at)
                if not data:
                    raise OSError(errno.EIO, "a scratch file has become shorter")
                file.write(data)
                at += len(data)


def _found(among: AnyArray, wanted: AnyArray) -> tuple[I64, Mask]:
    """Where values are in ascending ones, and which are there."""
    if not len(among):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    at = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    return at, np.asarray(among[at] == wanted, np.bool_)


class Packer:
    """Compresses pages in a process of its own while others are still to be read, and leaves them in a scratch file.

    It takes no room that is scarce (`room_in`). A record in the file is the number of its pages, their page frame
    numbers, digests and sizes, and what is stored of them; of pages equal to an earlier one nothing is, and the size is
    0. The process may be ended in the middle of the last record.

    Args:
        source: Has the pages, which do not change any more once they are noted.
        noted: uint8 by page frame number, shared: not 0 once a page was read.
        level: Of `inspector.deflate.deflated`.
    """

    def __init__(self, source: PageSource, noted: AnyArray, level: int) -> None:
        self._source, self._noted, self._level = source, noted, level
        self._spool = Spool()

    def beside(self) -> Beside:
        """The process (`Beside`)."""
        return Beside(self._steps)

    def _steps(self) -> Iterator[None]:
        """Compress what is noted, and what gets noted, until there is no room."""
        file = self._spool.number
        if file is None:
            return
        seen: set[bytes] = set()
        done = np.zeros(len(self._noted), np.bool_)
        while True:
            began, is_any = time.monotonic(), False
            for start in range(0, len(done), _LOOK):
                here = slice(start, start + _LOOK)
                fresh = start + np.flatnonzero((self._noted[here] != 0) & ~done[here])
                done[fresh] = True
                for at in range(0, len(fresh), _STEP):
                    if room_in(file) <= 0:
                        return
                    self._write(file, fresh[at : at + _STEP], seen)
                    is_any = True
                    yield
            if not is_any:
                # A long memory map takes long to search.
                time.sleep(max(_WAIT, time.monotonic() - began))
                yield

    def _write(self, file: int, pfns: I64, seen: set[bytes]) -> None:
        digests, stored = [], []
        for page in self._source.pages(pfns.tolist()):
            name = digest(page)
            digests.append(name)
            stored.append(b"" if name in seen else packed(page, self._level))
            seen.add(name)
        sizes = np.array([len(data) for data in stored], np.int64)
        head = len(pfns).to_bytes(_WORD, "little") + pfns.tobytes() + b"".join(digests) + sizes.tobytes()
        record = memoryview(head + b"".join(stored))
        while record:
            record = record[os.write(file, record) :]

    def ahead(self) -> Ahead:
        """What there is, when the process has ended."""
        if self._spool.number is None:
            return Ahead.nothing()
        pfns, digests, places, sizes = [], [], [], []
        for at, n, head in _records(self._spool.number):
            named, size = n * (_WORD + DIGEST.itemsize), np.frombuffer(head, np.int64, n, len(head) - n * _WORD)
            pfns.append(np.frombuffer(head, np.int64, n))
            digests.append(np.frombuffer(head[n * _WORD : named], DIGEST))
            places.append(at + np.cumsum(size) - size)
            sizes.append(size)
        if not pfns:
            return Ahead.nothing()
        pfn, name, place, size = map(np.concatenate, (pfns, digests, places, sizes))
        by_pfn, stored = np.argsort(pfn), np.flatnonzero(size)
        by_name = stored[np.argsort(name[stored])]
        return Ahead(self._spool, pfn[by_pfn], name[by_pfn], name[by_name], place[by_name], size[by_name])


def _records(file: int) -> Iterator[tuple[int, int, bytes]]:
    """Of each whole record: where its data begins, how many pages it has, and what is before the data but for that."""
    at, end = 0, os.fstat(file).st_size
    while at + _WORD <= end:
        n = int.from_bytes(os.pread(file, _WORD, at), "little")
        head = os.pread(file, n * (2 * _WORD + DIGEST.itemsize), at + _WORD)
        data = at + _WORD + n * (2 * _WORD + DIGEST.itemsize)
        if data > end:
            return
        at = data + int(np.frombuffer(head, np.int64, n, len(head) - n * _WORD).sum())
        if at > end:
            return
        yield data, n, head
