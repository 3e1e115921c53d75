"""A dump opened with the cache is the dump opened without: whatever is in the cache, whatever became of the file."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inspector.disk_cache import Kept
from inspector.errors import TargetError
from inspector.target import btf_parse, earlier, kallsyms, target
from inspector.target.btf import open_btf
from inspector.target.kallsyms import Kallsyms
from inspector.target.target import Target, open_core
from tests.opening import parse_symbols


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and openings that are not kept in memory."""
    monkeypatch.setattr(target, "_symbol_table", parse_symbols)
    monkeypatch.setattr(target, "open_btf", open_btf)
    monkeypatch.setenv("FOLIOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def dump(core: Callable[[str], str], tmp_path: Path) -> Path:
    """A copy that was written a while ago."""
    path = tmp_path / "dump"
    shutil.copyfile(core("7.3"), path)
    age(path)
    return path


def age(path: Path) -> None:
    """Let a file's last change be long ago, as far as that can be set."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is ahead: no file of the test was changed just now."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60)


def parsed(opened: Target) -> tuple[Any, ...]:
    """All that could differ."""
    table = opened.symbols
    assert isinstance(table, Kallsyms)
    columns = [table.addresses, *(getattr(table.index, n) for n in ("starts", "ends", "hashes", "kinds"))]
    return (
        [c.tolist() for c in columns],
        [table.name(i) for i in range(0, len(table), 997)],
        opened.symbol("init_task"),
        opened.symbol("kallsyms_lookup_name"),
        opened.prog.type("struct folio").size,
        [m.name for m in opened.prog.type("struct task_struct").members or ()],
        opened.prog["init_task"].address_,
        (opened.notes, opened.symbols_from, opened.types_from, opened.vmcoreinfo, opened.prstatus),
    )


def files(folder: Path) -> dict[str, int]:
    """How many files of each kind are kept."""
    kinds = [path.name.split("-")[0] for path in folder.iterdir()]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def refuse_to_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("parsed again")

    monkeypatch.setattr(kallsyms, "_bounds", never)
    monkeypatch.setattr(btf_parse, "_walk", never)


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.3"])
def test_opened_again(
    kernel: str, core: Callable[[str], str], tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dump"
    shutil.copyfile(core(kernel), path)
    plain = parsed(open_core(str(path)))
    assert not folder.exists()
    assert parsed(open_core(str(path), cache=True)) == plain
    assert files(folder) == {"dump": 1, "names": 1, "types": 1}
    refuse_to_parse(monkeypatch)
    # Not even the symbol table's place in the dump is looked up.
    monkeypatch.setattr(Kallsyms, "read", None)
    assert parsed(open_core(str(path), cache=True)) == plain


def test_dumps_of_one_kernel_share(dump: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = parsed(open_core(str(dump), cache=True))
    other = Path(shutil.copyfile(dump, dump.with_name("other")))
    refuse_to_parse(monkeypatch)
    assert parsed(open_core(str(other), cache=True)) == plain
    assert files(folder) == {"dump": 2, "names": 1, "types": 1}


def test_a_dump_replaced_in_place(dump: Path, core: Callable[[str], str]) -> None:
    """Same path, inode, size and time of change, but another kernel."""
    other = Path(core("6.12")).read_bytes()
    size = max(dump.stat().st_size, len(other))
    with dump.open("r+b") as file:
        file.truncate(size)
    age(dump)
    before = parsed(open_core(str(dump), cache=True))
    inode = dump.stat().st_ino
    with dump.open("r+b") as file:
        file.write(other.ljust(size, b"\0"))
    age(dump)
    assert (dump.stat().st_ino, dump.stat().st_size) == (inode, size)
    after = parsed(open_core(str(dump), cache=True))
    assert after == parsed(open_core(str(dump)))
    assert after != before


def test_damaged_files_are_made_anew(dump: Path, folder: Path) -> None:
    plain = parsed(open_core(str(dump), cache=True))
    paths = sorted(folder.iterdir())
    whole = {path: path.read_bytes() for path in paths}
    for path in paths:
        for damaged in (b"", whole[path][:-8], whole[path][:5000] + b"\xff" + whole[path][5001:], b"foreign" * 999):
            path.write_bytes(damaged)
            assert parsed(open_core(str(dump), cache=True)) == plain
            assert path.read_bytes() == whole[path]
        path.unlink()
        assert parsed(open_core(str(dump), cache=True)) == plain
        assert path.read_bytes() == whole[path]


def test_files_that_contradict_each_other(dump: Path, folder: Path) -> None:
    """Addresses for another number of names are not taken."""
    plain = parsed(open_core(str(dump), cache=True))
    cache = earlier.open_cache()
    assert cache is not None
    name = next(path.name for path in folder.iterdir() if path.name.startswith("dump-"))
    found = cache.load(name)
    assert found is not None
    cache.save(name, Kept(found.facts, {"addresses": found.columns["addresses"][:-1]}))
    assert parsed(open_core(str(dump), cache=True)) == plain
    cache.save(name, Kept({"names": "../../etc/passwd", "types": ""}, found.columns))
    assert parsed(open_core(str(dump), cache=True)) == plain


def test_a_file_written_just_now_is_not_kept(dump: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: dump.stat().st_ctime + 1)
    open_core(str(dump), cache=True)
    assert "dump" not in files(folder)


def test_a_file_that_changed_while_it_was_opened_is_not_kept(
    dump: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Kallsyms.read

    def read_and_touch(*args: Any) -> Kallsyms:
        os.utime(dump)
        return read(*args)

    monkeypatch.setattr(Kallsyms, "read", read_and_touch)
    open_core(str(dump), cache=True)
    assert "dump" not in files(folder)


def test_the_running_kernel_has_no_identity() -> None:
    assert earlier._identity("/proc/version") == ""
    assert earlier._identity("/proc/kcore") == ""
    assert earlier._identity("/dev/zero") == ""
    assert earlier._identity("/nonexistent") == ""


def test_no_cache(dump: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLIOSCOPE_CACHE", "no")
    open_core(str(dump), cache=True)
    assert not folder.exists()


def test_pages_outside_are_counted_until_a_dump_was_opened_whole(dump: Path, folder: Path) -> None:
    short = dump.with_name("short")
    short.write_bytes(dump.read_bytes()[:-5000])
    for _ in range(2):
        with pytest.raises(TargetError, match="truncated"):
            open_core(str(short), cache=True)
    assert not folder.exists()
    open_core(str(dump), cache=True)
    with dump.open("r+b") as file:
        file.truncate(dump.stat().st_size - 5000)
    with pytest.raises(TargetError, match="truncated"):
        open_core(str(dump), cache=True)
