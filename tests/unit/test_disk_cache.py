"""The cache directory: whole files of this user and this code, or nothing; no errors, and no more than the limit."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.disk_cache import DiskCache, Kept, code_name, user_cache_folder

NAMES = [f"names-{i:064x}" for i in range(10)]
ONE = NAMES[1]


def kept(seed: int = 1, rows: int = 1000) -> Kept:
    draw = np.random.default_rng(seed)
    words = draw.integers(0, 1 << 32, rows).astype(np.uint32)
    columns: dict[str, Any] = {
        "words": words,
        "bytes": words[:13].view(np.uint8)[:51],
        "long": words.astype(np.uint64) << np.uint64(7),
        "signed": words.view(np.int32),
        "none": words[:0],
    }
    return Kept({"tokens": f"a b {seed}", "empty": ""}, columns)


def is_same(one: Kept | None, other: Kept) -> bool:
    return (
        one is not None
        and one.facts == other.facts
        and one.columns.keys() == other.columns.keys()
        and all(np.array_equal(one.columns[n], c) and one.columns[n].dtype == c.dtype for n, c in other.columns.items())
    )


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "deep" / "dumps", "code 1")


def test_what_is_saved_is_loaded(cache: DiskCache) -> None:
    assert cache.load(ONE) is None
    assert cache.save(ONE, kept())
    assert is_same(cache.load(ONE), kept())
    assert cache.load(NAMES[2]) is None
    assert cache.save(ONE, kept(2))
    assert is_same(cache.load(ONE), kept(2))
    assert cache.usage() == (1, (cache.folder / ONE).stat().st_size)


def test_files_are_private(cache: DiskCache) -> None:
    before = os.umask(0)
    try:
        cache.save(ONE, kept())
    finally:
        os.umask(before)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert (cache.folder / ONE).stat().st_mode & 0o777 == 0o600
    assert [p.name for p in cache.folder.iterdir()] == [ONE]


def test_files_of_other_code_or_name_are_not_taken(cache: DiskCache) -> None:
    cache.save(ONE, kept())
    assert DiskCache(cache.folder, "code 2").load(ONE) is None
    (cache.folder / ONE).rename(cache.folder / NAMES[2])
    assert cache.load(NAMES[2]) is None


def test_damage_anywhere_is_found(cache: DiskCache) -> None:
    cache.save(ONE, kept(rows=20))
    path = cache.folder / ONE
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        found = cache.load(ONE)
        assert found is None, at
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert cache.load(ONE) is None, end
    for foreign in (whole + b"12345678", b"\x80\x04pickle" * 100, bytes(4096), whole[:40] * 50):
        path.write_bytes(foreign)
        assert cache.load(ONE) is None
    assert cache.save(ONE, kept())
    assert is_same(cache.load(ONE), kept())


def test_links_pipes_and_folders_are_not_taken(cache: DiskCache, tmp_path: Path) -> None:
    cache.save(ONE, kept())
    moved = (cache.folder / ONE).rename(tmp_path / "elsewhere")
    (cache.folder / ONE).symlink_to(moved)
    assert cache.load(ONE) is None
    assert cache.save(ONE, kept(3))
    assert not (cache.folder / ONE).is_symlink()
    assert moved.read_bytes()
    (cache.folder / ONE).unlink()
    os.mkfifo(cache.folder / ONE)
    assert cache.load(ONE) is None
    (cache.folder / ONE).unlink()
    (cache.folder / ONE).mkdir()
    assert cache.load(ONE) is None
    assert not cache.save(ONE, kept())
    assert [p.name for p in cache.folder.iterdir()] == [ONE]


def test_folders_that_others_can_write_are_left_alone(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save(ONE, kept())
    for mode in (0o777, 0o720):
        cache.folder.chmod(mode)
        assert cache.load(ONE) is None
        assert not cache.save(NAMES[2], kept())
        assert cache.usage() == (0, 0)
    cache.folder.chmod(0o755)
    assert cache.load(ONE) is not None
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert cache.load(ONE) is None
    assert not cache.save(NAMES[2], kept())
    monkeypatch.undo()
    link = cache.folder.with_name("link")
    link.symlink_to(cache.folder)
    assert DiskCache(link, "code 1").load(ONE) is None


def test_a_disk_that_takes_nothing(cache: DiskCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    assert not DiskCache(tmp_path / "file" / "dumps", "code 1").save(ONE, kept())
    cache.save(ONE, kept())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert not cache.save(NAMES[2], kept())
    assert [p.name for p in cache.folder.iterdir()] == [ONE]


def test_the_oldest_go_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "dumps", "code 1")
    cache.save(ONE, kept())
    size = cache.usage()[1]
    cache = DiskCache(cache.folder, "code 1", limit=4 * size + 100)
    foreign = cache.folder / "mine.txt"
    foreign.write_bytes(bytes(10 * size))
    for i, name in enumerate(NAMES[:4]):
        cache.save(name, kept())
        os.utime(cache.folder / name, (i, i))
    assert cache.load(NAMES[0]) is not None  # used now
    cache.save(NAMES[5], kept())
    assert sorted(p.name for p in cache.folder.iterdir()) == sorted(
        [NAMES[0], NAMES[2], NAMES[3], NAMES[5], "mine.txt"]
    )
    assert not cache.save(NAMES[6], kept(rows=20_000))
    assert cache.clear() == 4
    assert [p.name for p in cache.folder.iterdir()] == ["mine.txt"]


def test_what_dead_processes_left_goes(cache: DiskCache) -> None:
    cache.save(ONE, kept())
    dead, alive = (cache.folder / f".{NAMES[i]}.1234.{i:08x}" for i in (2, 3))
    for path in (dead, alive):
        path.write_bytes(b"half")
    os.utime(dead, (time.time() - 3600,) * 2)
    cache.save(NAMES[4], kept())
    assert not dead.exists()
    assert alive.exists()


def test_many_at_once(cache: DiskCache) -> None:
    """Readers see whole files, whoever writes or clears."""
    wrong: list[object] = []

    def work(seed: int) -> None:
        for i in range(40):
            cache.save(ONE, kept(seed))
            found = cache.load(ONE)
            if found is not None and not any(is_same(found, kept(s)) for s in range(4)):
                wrong.append(found)
            if i % 10 == seed:
                cache.clear()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [p.name for p in cache.folder.iterdir()] in ([], [ONE])


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for value in ("no", "0"):
        monkeypatch.setenv("FOLIOSCOPE_CACHE", value)
        assert user_cache_folder() is None
    monkeypatch.setenv("FOLIOSCOPE_CACHE", str(tmp_path))
    assert user_cache_folder() == tmp_path
    monkeypatch.delenv("FOLIOSCOPE_CACHE")
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/a")
    assert user_cache_folder() == Path("/var/a/folioscope/dumps")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache_folder() == Path("/home/a/.cache/folioscope/dumps")


def test_code_is_named_by_its_files() -> None:
    import inspector.text as module  # noqa: PLC0415

    assert code_name("1", module).startswith("1 ")
    assert code_name("1", module) != code_name("2", module)
    assert code_name("1", os) != code_name("1", module)
