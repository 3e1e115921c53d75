"""What a file's page cache and its tree of VMAs lead to is what all of memory has of the file."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from inspector.aimed import file
from inspector.aimed.file import FileSnapshot
from inspector.errors import UsageError
from inspector.report.file import FileReport, aim_at_file, build_file, find_file
from inspector.snapshot import Snapshot
from inspector.walk.counts import Counter
from tests.agreement.planted import each_planted
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, core_path, sound


def asked_both_ways(s: Snapshot, step: int) -> Iterator[tuple[FileReport, FileReport]]:
    """Files by address, by inode, and by path where one leads to them."""
    apart = Snapshot(s.target)
    for row in np.flatnonzero(s.files.address_spaces.is_inode)[::step].tolist():
        whole = build_file(s, row)
        for asked in (hex(whole.address_space), hex(whole.inode), whole.name):
            try:
                find_file(s, asked)
            except UsageError:
                continue
            yield whole, build_file(aim_at_file(apart, asked), 0)
    assert not {"mms", "_vmas", "_walked", "_sweep", "files"} & set(vars(apart))


@pytest.mark.parametrize("kernel", KERNELS)
def test_files_by_address_and_path(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    mapped = paths = 0
    for whole, found in asked_both_ways(s, 1):
        assert (whole.searched, found.searched) == ("all page tables", "its tree of VMAs")
        assert msgspec.structs.replace(found, searched=whole.searched) == whole
        mapped += sum(o.mapped_pages for o in found.orders)
        paths += found.name.startswith("/")
    assert mapped > 1000
    assert paths > 10


@pytest.mark.parametrize("kernel", KERNELS)
def test_files_by_inode_number(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    apart, spaces, found = Snapshot(s.target), s.files.address_spaces, 0
    for row in np.flatnonzero(spaces.is_inode)[::4].tolist():
        asked = str(int(spaces.ino[row]))
        same = np.flatnonzero(spaces.is_inode & (spaces.ino == spaces.ino[row]))
        try:
            one = aim_at_file(apart, asked)
        except UsageError:
            # Several have it, or none that a process maps: file systems in memory keep no hash of inodes.
            continue
        assert int(one.files.address_spaces.addr[0]) in spaces.addr[same].tolist()
        found += 1
    assert found


def test_what_is_no_file() -> None:
    s = Snapshot(sound(core_path("fixture", KERNELS[-1])).target)
    for asked in (
        "/no/such/file",
        "relative",
        "",
        "99999999",
        hex(1 << 64),
        hex((1 << 64) - 8),
        "0xffff888000000003",
    ):
        with pytest.raises(UsageError, match="no cached or mapped file has that name"):
            aim_at_file(s, asked)


FAULTS = [name for name in CATALOGUE if any(word in name for word in ("i-mmap", "file", "cache", "vma-"))]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "kernel", [pytest.param(k, marks=pytest.mark.long if k == "6.1" else pytest.mark.whole) for k in KERNELS]
)
def test_files_with_faults(kernel: str) -> None:
    damaged = 0
    for name, _, s in each_planted(kernel, FAULTS):
        for whole, found in asked_both_ways(s, 3):
            assert {*found.damage} <= {*whole.damage}, name
            damaged += bool(found.damage)
    # On 6.12 no fault falls on one of the files that are asked for.
    assert damaged or kernel == "6.12"


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_processes_map_of_a_file_is_counted_and_not_kept(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "_MANY", 1)
    s = sound(core_path("fixture", kernel))
    space_of = s.file_rmap.address_spaces.addr[s.file_rmap.address_space_of_vma[s.file_rmap.address_space_of_vma >= 0]]
    spaces, nr = np.unique(space_of, return_counts=True)
    one = FileSnapshot(Snapshot(s.target), int(spaces[np.argmax(nr)]))
    build_file(one, 0)
    assert "mappings" not in vars(one)
    counter = Counter(one._ground)
    counter.take(one.mappings)
    assert len(one.mappings) > 10
    assert np.array_equal(counter.counts().page_mappings, one.counts.page_mappings)
    assert np.array_equal(counter.counts().entire, one.counts.entire)
