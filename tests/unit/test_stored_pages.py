"""Pages of kdump-compressed dumps: the same bytes however they are stored and read, each unpacked once."""

from __future__ import annotations

import gc
import os
import random
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drgn
import pytest

import inspector.scratch as scratch
from inspector.check.run import run_check
from inspector.errors import TargetError
from inspector.memory import Memory
from inspector.snapshot import Snapshot
from inspector.target.corefile import PagesAt
from inspector.target.stored_pages import Stored, StoredPages
from inspector.target.target import open_core
from inspector.workers import work_on
from tests.bench.compression import COMPRESSIONS, compression_named
from tests.faults.overlay import KERNELS, core_path

SIZE = 4096
PFNS = [0, 1, 2, 5, 6, 4090, *range(4093, 4100), 8191, 8192, *range(9000, 9080), 32767]
"""Stretches and single pages, at the ends of what is looked at together and across them."""


def page(pfn: int) -> bytes:
    chance = random.Random(pfn)
    return bytes(chance.choices(b"abcd\0", k=2048)) + chance.randbytes(64) + bytes(SIZE - 2048 - 64)


PAGES = {pfn: page(pfn) for pfn in PFNS}


class Other:
    """Stands in for drgn."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def read(self, address: int, size: int, _physical: bool) -> bytes:
        self.asked.append(address // SIZE)
        if address // SIZE == 5:
            raise drgn.FaultError("damaged", address)
        return PAGES[address // SIZE][:size]


def written(path: Path, stored: dict[int, tuple[int, bytes]]) -> PagesAt:
    """A file that has a bitmap, descriptors and pages, and nothing else."""
    bitmap = bytearray(SIZE)
    for pfn in stored:
        bitmap[pfn // 8] |= 1 << pfn % 8
    table, data = b"", b""
    first = SIZE + 24 * len(stored)
    for pfn in sorted(stored):
        flag, content = stored[pfn]
        table += struct.pack("<QIIQ", first + len(data), len(content), flag, 0)
        data += content
    path.write_bytes(bytes(bitmap) + table + data)
    return PagesAt(SIZE, 0, SIZE)


def opened(path: Path, how: str = "zlib", other: Other | None = None) -> StoredPages:
    compression = compression_named(how)
    index = written(path, {pfn: (compression.flag, compression.compress(data)) for pfn, data in PAGES.items()})
    return StoredPages(Stored(str(path), index, lambda: other or Other()))


def read_at_random(pages: StoredPages, nr: int = 600) -> set[int]:
    """Read here and there and compare; which pages were read."""
    chance, seen = random.Random(nr), set[int]()
    for _ in range(nr):
        first = chance.choice(PFNS)
        most = next(n for n in range(1, 99) if first + n not in PAGES)
        end = first + chance.randint(1, most)
        whole = b"".join(PAGES[pfn] for pfn in range(first, end))
        start = chance.randrange(SIZE)
        size = min(chance.choice([1, 8, 64, len(whole)]), len(whole) - start)
        assert pages.read(first * SIZE + start, size) == whole[start : start + size]
        seen.update(range(first, first + (start + size - 1) // SIZE + 1))
    return seen


@pytest.mark.parametrize("how", ["none", *COMPRESSIONS])
def test_pages_are_the_same_however_they_are_stored(tmp_path: Path, how: str) -> None:
    other = Other()
    pages = opened(tmp_path / "d", how, other)
    seen = read_at_random(pages)
    assert pages.nr_unpacked == len(seen)
    assert not other.asked
    whole = pages.read(9000 * SIZE, 80 * SIZE)
    assert whole == b"".join(PAGES[pfn] for pfn in range(9000, 9080))


@pytest.mark.parametrize(
    ("first", "count", "where"), [(3, 1, 3), (2, 3, 3), (4092, 3, 4092), (32768, 1, 32768), (1 << 38, 1, 1 << 38)]
)
def test_pages_that_are_not_there_fault(tmp_path: Path, first: int, count: int, where: int) -> None:
    pages = opened(tmp_path / "d")
    for size in (8, count * SIZE):
        if size == 8 and first in PAGES:
            continue
        with pytest.raises(drgn.FaultError) as fault:
            pages.read(first * SIZE, size)
        assert fault.value.address == where * SIZE


def no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "nameless_file", lambda: None)


def no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "room_in", lambda _file: -1)


@pytest.mark.parametrize("without", [no_file, no_space, no_room])
def test_where_nothing_can_be_kept_pages_are_unpacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: Callable[[pytest.MonkeyPatch], None]
) -> None:
    without(monkeypatch)
    pages = opened(tmp_path / "d")
    assert pages.nr_unpacked < len(read_at_random(pages)) < pages.nr_unpacked


def test_the_scratch_file_keeps_to_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "room_in", lambda _file: 64 * SIZE)
    pages = opened(tmp_path / "d")
    for _ in range(2):
        # A read through memory leaves half of the room.
        pages.read(9000 * SIZE, 80 * SIZE)
    assert pages.nr_unpacked == 160
    for _ in range(2):
        for pfn in range(9000, 9080):
            assert pages.read(pfn * SIZE, SIZE) == PAGES[pfn]
    assert pages.nr_unpacked == 160 + 80 + 16
    assert os.fstat(pages._kept).st_blocks * 512 <= 64 * SIZE


def test_pages_that_are_read_once_are_not_kept(tmp_path: Path) -> None:
    index = written(tmp_path / "d", {pfn: (1, compression_named("zlib").compress(PAGES[pfn])) for pfn in PFNS})
    pages = StoredPages(Stored(str(tmp_path / "d"), index, Other), is_read_once=True)
    for _ in range(2):
        assert pages.unpacked(9000, 9080) == [PAGES[pfn] for pfn in range(9000, 9080)]
        assert pages.read(9000 * SIZE, 2 * SIZE) == PAGES[9000] + PAGES[9001]
    assert pages.nr_unpacked == 164
    places = pages.places(4093, 4100)
    assert places == sorted(set(places))
    with pytest.raises(drgn.FaultError):
        pages.places(4090, 4092)
    with pytest.raises(drgn.FaultError):
        pages.unpacked(3, 4)


def test_forked_processes_share_what_they_unpack(tmp_path: Path) -> None:
    pages = opened(tmp_path / "d")

    def work(pfn: int) -> bytes:
        return pages.read(pfn * SIZE, SIZE)

    assert list(work_on(PFNS, work, 3)) == list(PAGES.values())
    assert pages.nr_unpacked == 0
    read_at_random(pages)
    # Two workers may have marked neighbours at the same time.
    assert pages.nr_unpacked <= 8


def test_drgn_reads_what_is_stored_in_another_way_or_damaged(tmp_path: Path) -> None:
    other = Other()
    bad = compression_named("zlib").compress(PAGES[0])[:-3]
    stored = {
        0: (1, bad),
        1: (0x40, b"?"),
        2: (0, b"short"),
        5: (1, b"never"),
        6: (2, bad),
        4090: (4, bad),
        4093: (0x20, bad),
    }
    pages = StoredPages(Stored(str(tmp_path / "d"), written(tmp_path / "d", stored), lambda: other))
    for pfn in sorted(stored):
        if pfn == 5:
            with pytest.raises(drgn.FaultError, match="damaged"):
                pages.read(pfn * SIZE, SIZE)
        else:
            assert pages.read(pfn * SIZE, 8) == PAGES[pfn][:8]
    assert other.asked == sorted(stored)


@pytest.mark.parametrize("left", [SIZE // 2, SIZE + 30, SIZE + 24 * len(PFNS) + 30])
def test_a_file_that_becomes_shorter_is_one_clear_error(tmp_path: Path, left: int) -> None:
    pages = opened(tmp_path / "d")
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    prog.add_memory_segment(0, 1 << 52, pages.read, True)
    os.truncate(tmp_path / "d", left)
    with pytest.raises(TargetError, match=r"cannot be read any more \(its file has become shorter\)"):
        Memory(prog).read(9000 * SIZE, SIZE, physical=True)


def test_files_are_closed_with_the_last_reader(tmp_path: Path) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    pages = opened(tmp_path / "d")
    assert len(os.listdir("/proc/self/fd")) == before + 2  # noqa: PTH208
    del pages
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.each_kernel
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_check_unpacks_no_page_twice(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: Counter[int] = Counter()
    unpack = StoredPages._page

    def counted(pages: StoredPages, part: Any, pfn: int, data: bytes, flag: int) -> bytes:
        unpacked[pfn] += 1
        return unpack(pages, part, pfn, data, flag)

    monkeypatch.setattr(StoredPages, "_page", counted)
    run_check(Snapshot(open_core(core_path("fixture", kernel), types="btf")))
    assert len(unpacked) > 1000
    assert set(unpacked.values()) == {1}
