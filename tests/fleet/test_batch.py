"""A batch over many vmcores: all accounted for, whatever they do, and the same result however often it was ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inspector.errors import Exit, UsageError
from inspector.fleet.batch import BatchProgress, BatchReport, Here, run_batch
from inspector.fleet.child import this_worker
from inspector.fleet.dataset import Dataset
from inspector.fleet.job import Options
from inspector.fleet.paths import expand, split_list
from inspector.fleet.schema import DUMPS, FINDINGS, INPUTS, OF_A_DUMP
from tests.arch.docs import ROOT
from tests.faults.every import UNLIKE
from tests.fixtures import fixture_path
from tests.fleet.files import planted_file
from tests.fleet.many import compare, contents, leased, make_fleet, nr_done, run_killed, run_whole

MEMORY = 1 << 30


def options(**changed: Any) -> Options:
    usual: dict[str, Any] = {
        "symbols": [],
        "types": "auto",
        "cache": False,
        "memory": MEMORY,
        "workers": 1,
        "timeout": 120,
        "fetch": 1 << 30,
    }
    return Options(**(usual | changed))


def run(out: Path, *words: Path | str, show: Callable[[BatchProgress], None] | None = None, **how: Any) -> BatchReport:
    worker = how.pop("worker", ())
    again = how.pop("again", "none")
    return run_batch(expand(map(str, words)), out, Here(2, options(**how), worker), again=again, show=show)


def rows(out: Path, table: Any) -> list[dict[str, Any]]:
    return list(Dataset(out).read(table).to_pylist())


def put_bad(folder: Path) -> None:
    """Files of which none can be checked."""
    whole = fixture_path("6.1").read_bytes()
    folder.joinpath("truncated.kdump").write_bytes(whole[: len(whole) // 3])
    folder.joinpath("no-header.kdump").write_bytes(b"KDUMP   " + bytes(4096))
    folder.joinpath("elf").write_bytes(b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x04\0\x3e\0" + bytes(100))
    folder.joinpath("empty").write_bytes(b"")
    damaged = bytearray(whole)
    damaged[len(whole) // 2 :] = bytes(len(whole) - len(whole) // 2)
    folder.joinpath("zeros.kdump").write_bytes(damaged)
    os.mkfifo(folder / "pipe")
    folder.joinpath("vmcore-dmesg.txt").write_text("no dump")


BAD_PATHS = ("pipe", "gone")
"""NamedPath by themselves: they are not found in folders."""


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a", "below/c", "[x]"):
        tmp_path.joinpath(name).parent.mkdir(exist_ok=True)
        tmp_path.joinpath(name).touch()
    tmp_path.joinpath("loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)

    def names(*words: str) -> list[str]:
        return [str(Path(named.path).relative_to(tmp_path)) for named in expand(words)]

    inside = ["[x]", "a", "b", "below/c"]
    assert names(".") == inside
    assert names("b", "a", "./b", "*") == ["b", "a", "[x]", "below/c", *(f"loop/{name}" for name in inside), "pipe"]
    assert names("[x]") == ["[x]"]
    assert names("[ab]") == ["a", "b"]
    tmp_path.joinpath("loop").unlink()
    assert names("**/c") == ["below/c"]
    assert names("gone", "*.none") == ["gone", "*.none"]
    assert split_list(b"a b\nc\n\n") == ["a b", "c"]
    assert split_list(b"a\nb\0c\0") == ["a\nb", "c"]
    assert os.fsencode(split_list(b"\xff\n")[0]) == b"\xff"


def test_every_vmcore_is_accounted_for(tmp_path: Path) -> None:
    cores, out = tmp_path / "cores", tmp_path / "out"
    cores.mkdir()
    put_bad(cores)
    for fault in UNLIKE[:2]:
        planted_file("7.3", fault, cores / f"{fault}.kdump")
    shutil.copy(fixture_path("7.3"), cores / "sound.kdump")
    shutil.copy(fixture_path("7.3"), cores / "the same.kdump")
    report = run(out, cores, *(cores / name for name in BAD_PATHS))
    assert (report.paths, report.left_out, report.errors, report.exit_code) == (11, 1, 7, Exit.TARGET)
    assert report.exit_codes == {"3": 7, "1": 2, "0": 2}
    dumps = {row["dump"]: row for row in rows(out, DUMPS)}
    of = {Path(row["path"]).name: dumps[row["dump"]] for row in rows(out, INPUTS)}
    assert of["sound.kdump"]["dump"] == of["the same.kdump"]["dump"]
    assert {name for name, row in of.items() if row["state"] == "unreadable"} == set(BAD_PATHS)
    assert {name: row["error"] for name, row in of.items() if row["state"] != "checked"} == dict.fromkeys(
        ("truncated.kdump", "no-header.kdump", "elf", "empty", "zeros.kdump", *BAD_PATHS), "target"
    )
    assert of["sound.kdump"]["release"].startswith("7.3")
    assert (of["sound.kdump"]["fail"], of["sound.kdump"]["complete"]) == (0, True)
    found = rows(out, FINDINGS)
    assert {row["rule"] for row in found} == {"mapcount-too-high", "mapcount-too-low"}
    assert all(row["looks_like"] for row in found)
    for table in OF_A_DUMP:
        assert {row["dump"] for row in rows(out, table)} <= set(dumps), table.name
    # What is there already is known wherever it lies; the rest is not tried again.
    (cores / "sound.kdump").rename(cores / "moved.kdump")
    before = contents(out)
    again = run(out, cores, *(cores / name for name in BAD_PATHS))
    assert (again.checked, again.known, again.exit_codes) == (0, 11, report.exit_codes)
    after = contents(out)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1


def test_what_is_read_now_is_no_longer_an_error(tmp_path: Path) -> None:
    core, out = tmp_path / "core", tmp_path / "out"
    assert run(out, core).exit_code == Exit.TARGET
    shutil.copy(fixture_path("6.1"), core)
    assert run(out, core).checked == 0
    report = run(out, core, again="errors")
    assert (report.checked, report.exit_code) == (1, Exit.CLEAN)
    assert [row["state"] for row in rows(out, DUMPS)] == ["checked"]
    assert len(rows(out, INPUTS)) == 1
    before = contents(out)
    assert run(out, core, again="all").checked == 1
    assert contents(out) == before


HOG = "import sys, time; from inspector.fleet import worker, content\n"
HOG += "def grown(path, of=content.content_of):\n    found = of(path)\n"
HOG += "    if 'hog' in path:\n        rest = [bytearray(b'x' * (1 << 24)) for _ in range(20)]; time.sleep(100)\n"
HOG += "    if 'mad' in path: import os; os.abort()\n"
HOG += "    if 'chatty' in path: print('nonsense' * 9999, flush=True); sys.exit(5)\n    return found\n"
HOG += "worker.content_of = grown; "


def test_limits(tmp_path: Path) -> None:
    """One that takes too much memory, one that dies, one that answers nonsense, one that never ends."""
    out = tmp_path / "out"
    for number, name in enumerate(("hog", "mad", "chatty", "sound", "stuck")):
        (tmp_path / name).write_bytes(fixture_path("6.1").read_bytes() + bytes([number]))
    words = this_worker()
    words[-1] = words[-1].replace("from inspector.fleet.worker import main", HOG + "main = worker.main")
    with leased(tmp_path / "stuck"):
        report = run(
            out, *(tmp_path / n for n in ("hog", "mad", "chatty", "sound", "stuck")),
            worker=words, memory=200 << 20, timeout=15,
        )  # fmt: skip
    assert report.exit_codes == {"3": 4, "0": 1}
    assert report.peak_bytes > 200 << 20
    named = {row["dump"]: Path(row["path"]).name for row in rows(out, INPUTS)}
    errors = {named[row["dump"]]: (row["error"], row["error_text"]) for row in rows(out, DUMPS) if row["error"]}
    assert errors == {
        "hog": ("memory", "it needs more memory than 200 MiB"),
        "mad": ("crashed", "the process that checked it was ended by SIGABRT"),
        "chatty": ("crashed", f"the process that checked it ended with exit code 5: {'nonsense' * 25}"),
        "stuck": ("timeout", "it was not through after 15 s"),
    }
    assert not alive()


def alive() -> list[str]:
    """Processes of batches."""
    out = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes()
            if b"inspector.fleet.worker" in words and repr(str(ROOT)).encode() in words:
                out.append(file.parent.name)
    return out


def test_two_batches_do_not_write_to_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Dataset(out).locked(), pytest.raises(UsageError, match="another batch"):
        run(out, fixture_path("6.1"))
    (tmp_path / "else").mkdir()
    (tmp_path / "else/file").touch()
    with pytest.raises(UsageError, match="no dataset"):
        run(tmp_path / "else", fixture_path("6.1"))
    assert [file.name for file in (tmp_path / "else").iterdir()] == ["file"]
    (out / "dataset.json").write_text(json.dumps({"format": "folioscope.dataset", "version": 99}))
    with pytest.raises(UsageError, match="version 99"):
        run(out, fixture_path("6.1"))


def test_the_dataset_is_private(tmp_path: Path) -> None:
    run(tmp_path / "out", fixture_path("6.1"))
    for path in (tmp_path / "out", *(tmp_path / "out").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def batch(out: Path, *words: Path | str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "inspector", "batch", *map(str, words), "--out", str(out), "--no-cache"]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end_after(process: subprocess.Popen[str], out: Path, dumps: int, number: int) -> int:
    """Send a signal when so many dumps are through, and give the exit code."""
    while nr_done(out) < dumps and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate()
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_and_taken_up_again(number: int, tmp_path: Path) -> None:
    cores = [planted_file("6.1", fault, tmp_path / f"{nth}.kdump") for nth, fault in enumerate(UNLIKE[:4])]
    code = end_after(batch(tmp_path / "out", *cores), tmp_path / "out", 1, number)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert [file.name for file in (tmp_path / "out/.run").iterdir()] == ["lock"]
    assert 1 <= nr_done(tmp_path / "out") < 4
    last = batch(tmp_path / "out", *cores)
    assert last.wait() == Exit.FINDINGS, last.communicate()
    last.communicate()
    assert run(tmp_path / "at once", *cores, cache=True).checked == 4
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")
    deadline = time.monotonic() + 20
    while alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_fleet_killed_at_three_moments(tmp_path: Path) -> None:
    """Some fifty vmcores of all kinds (`tests.fleet.many` takes hundreds); the result is the same byte for byte."""
    fleet = make_fleet(tmp_path / "cores", 52)
    whole, _ = run_whole(fleet, tmp_path / "at once")
    assert (whole["paths"], whole["errors"], whole["left_out"]) == (52, 9, 1)
    assert compare(fleet, tmp_path / "at once") == []
    codes, _ = run_killed(fleet, tmp_path / "killed")
    assert codes == [-9, 143, 130]
    assert contents(tmp_path / "killed") == contents(tmp_path / "at once")
    assert not alive()
