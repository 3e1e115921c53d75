"""Pages compressed ahead are the same pages, whatever of them there is when they are wanted."""

from __future__ import annotations

import io
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import inspector.capture.packing as packing
from inspector.capture.kdump_writer import DumpHeader, Effort, write_kdump
from inspector.capture.packing import Ahead, Packer, digest, packed
from inspector.columns import I64, AnyArray
from inspector.deflate import LEVEL
from inspector.interrupts import PutOff
from inspector.scratch import shared_zeros

PAGE = 4096
NR = 3000
HEADER = DumpHeader("x86_64", "7.3", "#1", PAGE, 0, 0, b"OSRELEASE=7.3\n")


class Source:
    """Pages of which some are equal, some zero and some noise."""

    def pages(self, pfns: Sequence[int]) -> list[bytes]:
        return [self.page(int(pfn)) for pfn in pfns]

    def page(self, pfn: int) -> bytes:
        if pfn % 7 == 0:
            return bytes(PAGE)
        if pfn % 11 == 0:
            return np.random.default_rng(pfn).integers(0, 256, PAGE, np.uint8).tobytes()
        return (pfn % 500).to_bytes(8, "little") * (PAGE // 8)


class Spoilt(Source):
    """One page of another content."""

    def page(self, pfn: int) -> bytes:
        return b"\1" * PAGE if pfn == 42 else super().page(pfn)


@pytest.fixture
def noted() -> AnyArray:
    return shared_zeros(NR, np.uint8)


def pack(packer: Packer, nr: int) -> Ahead:
    """Until so many pages are done."""
    deadline = time.monotonic() + 60
    with PutOff(), packer.beside():
        while len(packer.ahead().pfns) < nr:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    return packer.ahead()


def number_of(ahead: Ahead) -> int:
    assert ahead.spool is not None
    assert ahead.spool.number is not None
    return ahead.spool.number


def written(source: Source, pfns: I64, ahead: Ahead | None = None) -> bytes:
    file = io.BytesIO()
    effort = Effort() if ahead is None else Effort(ahead=ahead)
    write_kdump(file, HEADER, source, pfns, [(0, NR)], effort)
    return file.getvalue()


def test_what_gets_noted_is_compressed_beside(noted: AnyArray) -> None:
    noted[[3, 14, 1000]] = 1
    packer = Packer(Source(), noted, LEVEL)
    with PutOff(), packer.beside():
        for wanted in ([3, 14, 1000], [3, 14, 28, 1000, 2999]):
            noted[wanted] = 2
            while len(packer.ahead().pfns) < len(wanted):
                time.sleep(0.01)
            ahead = packer.ahead()
            assert ahead.pfns.tolist() == wanted
            assert ahead.digests.tolist() == [digest(page).rstrip(b"\0") for page in Source().pages(wanted)]
    place, size = ahead.places_of(np.sort(ahead.digests))
    stored = {os.pread(number_of(ahead), n, at) for at, n in zip(place.tolist(), size.tolist(), strict=True)}
    assert stored == {packed(page, LEVEL) for page in Source().pages([3, 14, 1000, 2999])}
    assert zlib.decompress(packed(bytes(PAGE), LEVEL)) == bytes(PAGE)


@pytest.mark.parametrize("nr", [0, 1, 700, NR])
def test_a_dump_is_the_same_whatever_was_compressed_ahead(noted: AnyArray, nr: int) -> None:
    pfns = np.arange(5, NR - 5)
    noted[np.random.default_rng(nr).permutation(NR)[:nr]] = 1
    ahead = pack(Packer(Source(), noted, LEVEL), nr)
    assert written(Source(), pfns, ahead) == written(Source(), pfns)


def test_content_that_was_replaced_is_not_taken_from_ahead(noted: AnyArray) -> None:
    noted[:] = 1
    ahead, pfns = pack(Packer(Source(), noted, LEVEL), NR), np.arange(NR)
    assert written(Spoilt(), pfns, ahead.without(np.array([42]))) == written(Spoilt(), pfns)
    assert written(Spoilt(), pfns, ahead) != written(Spoilt(), pfns)


def test_a_record_that_was_not_finished_does_not_count(noted: AnyArray) -> None:
    noted[:] = 1
    packer, pfns = Packer(Source(), noted, LEVEL), np.arange(NR)
    file = number_of(pack(packer, NR))
    rng = np.random.default_rng(1)
    size, nr, seen = os.fstat(file).st_size, NR, set[int]()
    while size:
        size = int(rng.integers(max(size - 20_000, 0), size))
        os.truncate(file, size)
        ahead = packer.ahead()
        assert len(ahead.pfns) <= nr
        nr = len(ahead.pfns)
        seen.add(nr)
        if len(seen) % 4 == 0:
            assert written(Source(), pfns, ahead) == written(Source(), pfns)
    assert len(seen) > 8


def test_without_room_nothing_is_compressed_ahead(noted: AnyArray, monkeypatch: pytest.MonkeyPatch) -> None:
    noted[:] = 1
    for name, instead in (("room_in", lambda _file: 0), ("nameless_file", lambda _flags: None)):
        monkeypatch.setattr(packing, name, instead)
        packer = Packer(Source(), noted, LEVEL)
        with PutOff(), packer.beside():
            time.sleep(0.1)
        assert not len(packer.ahead().pfns)


def test_a_scratch_file_that_becomes_shorter_is_an_error(noted: AnyArray) -> None:
    noted[:] = 1
    ahead = pack(Packer(Source(), noted, LEVEL), NR)
    os.truncate(number_of(ahead), 10_000)
    with pytest.raises(OSError, match="shorter"):
        written(Source(), np.arange(NR), ahead)


def test_the_process_beside_ends_with_what_it_is_beside(noted: AnyArray) -> None:
    """Also one whose source cannot be read; none is left."""

    class Broken(Source):
        def page(self, pfn: int) -> bytes:
            raise RuntimeError("nothing there")

    noted[:] = 1
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    for source in (Source(), Broken()):
        packer = Packer(source, noted, LEVEL)
        with pytest.raises(KeyError), PutOff(), packer.beside():
            time.sleep(0.05)
            raise KeyError
        assert children.read_text() == before
    assert not len(packer.ahead().pfns)
