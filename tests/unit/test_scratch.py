"""Columns in scratch files are as good as those in memory; where no file fits there is one clear error."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import inspector.scratch as scratch
from inspector.check.run import run_check
from inspector.errors import TargetError
from inspector.scratch import available_memory, is_shared, long_zeros, settled, use_at_most
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from inspector.workers import work_on
from tests.faults.overlay import KERNELS, core_path

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(scratch._Columns, "in_memory", 0)
    yield
    use_at_most(None)


def in_a_file(column: np.ndarray[tuple[int], np.dtype[np.generic]]) -> bool:
    return not column.flags.owndata


def test_long_columns_go_to_files_when_memory_is_short(tmp_path: Path) -> None:
    use_at_most(scratch._REST + 40 * MIB)
    first, second, short = (long_zeros(n, np.int32) for n in (6 * MIB, 6 * MIB, 1000))
    assert [in_a_file(c) for c in (first, second, short)] == [False, True, False]
    second[-1] = 7
    assert second.dtype == np.int32
    assert len(second) == 6 * MIB
    assert second.sum() == 7
    assert not list(tmp_path.iterdir())
    del first
    gc.collect()
    assert not in_a_file(long_zeros(6 * MIB, np.int32))


def test_shared_columns_are_shared_wherever_they_are() -> None:
    use_at_most(scratch._REST + 40 * MIB)
    columns = [long_zeros(n, np.int32, shared=True) for n in (1000, 6 * MIB, 6 * MIB)]
    assert all(is_shared(column) and is_shared(column[1:].view(np.uint8)) for column in columns)
    assert not is_shared(np.zeros(9))

    def fill(at: int) -> None:
        for column in columns:
            column[at::2] = at + 1

    list(work_on((0, 1), fill, 2))
    assert all(column[:4].tolist() == [1, 2, 1, 2] for column in columns)
    # Short ones and those in files stay where they are.
    done = [settled(column) for column in columns]
    assert [is_shared(column) for column in done] == [True, False, True]
    assert all((mine == theirs).all() for mine, theirs in zip(done, columns, strict=True))
    used = scratch._Columns.in_memory
    assert used == 48 * MIB
    columns.clear()
    done.clear()
    gc.collect()
    assert scratch._Columns.in_memory == 0


def test_without_a_limit_available_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < available_memory() < 1 << 50
    assert not in_a_file(long_zeros(8 * MIB, np.int32))
    monkeypatch.setattr(scratch, "available_memory", lambda: scratch._REST)
    assert in_a_file(long_zeros(8 * MIB, np.int32))


def test_the_tightest_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/a/b\n")
    for folder, limit, used in ((inner, "max", "5"), (inner.parent, "1000", "400")):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text(used + "\n")
    monkeypatch.setattr(scratch, "_CGROUPS", tmp_path)
    monkeypatch.setattr(scratch, "_OWN_CGROUP", tmp_path / "own")
    assert available_memory() == 600


def test_a_full_disk_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    use_at_most(0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TargetError, match="no room for a scratch file of 32 MiB") as caught:
        long_zeros(32 * MIB, np.uint8)
    assert caught.value.where == str(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(TargetError, match="no such file"):
        long_zeros(32 * MIB, np.uint8)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_check_on_scratch_files_finds_the_same(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core = core_path("fixture", kernel)
    in_memory = run_check(Snapshot(open_core(core, types="btf")))
    monkeypatch.setattr(scratch, "_LONG", 0)
    use_at_most(0)
    s = Snapshot(open_core(core, types="btf"))
    assert msgspec.json.encode(run_check(s)) == msgspec.json.encode(in_memory)
    assert in_a_file(s.pages.number)


def test_a_nameless_file_may_take_half_of_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = scratch.nameless_file()
    assert file is not None
    assert not list(tmp_path.iterdir())
    use_at_most(40 * MIB)
    assert scratch.room_in(file) == 20 * MIB
    os.pwrite(file, bytes(MIB), 1 << 40)
    assert 18 * MIB < scratch.room_in(file) <= 19 * MIB
    use_at_most(None)
    monkeypatch.setattr(scratch, "available_memory", lambda: 6 * MIB)
    assert 1 * MIB < scratch.room_in(file) <= 2 * MIB
    os.close(file)


@pytest.mark.parametrize("has", [True, False], ids=["named for a moment", "nowhere"])
def test_a_nameless_file_without_the_systems_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    real = os.open

    def unnamed(path: str, flags: int, *mode: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", unnamed)
    if not has:
        monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    file = scratch.nameless_file()
    assert (file is not None) == has
    if file is not None:
        assert not list(tmp_path.iterdir())
        os.close(file)
