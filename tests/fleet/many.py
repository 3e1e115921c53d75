"""Hundreds of vmcores through `folioscope batch`: all accounted for, the planted faults and no others in its report.

    python -m tests.fleet.many --dir DIR --dumps 300

makes vmcores in DIR/cores: captures with one, two or three faults planted, sound ones, dumps of guests where they were
built, and files that are truncated, damaged, empty, not to be read, never opened, or larger than the limit of memory
allows. It runs a batch over them, another one that is killed at three moments and taken up again, and one on a Dask
cluster of two workers of which one is killed, compares the three datasets byte for byte, and prints figures.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inspector.errors import Exit
from inspector.fleet.dataset import Dataset
from inspector.fleet.schema import DUMPS, FINDINGS, INPUTS
from inspector.fleet.usage import memory_of
from tests.arch.docs import ROOT
from tests.faults.every import CATALOGUE, UNLIKE
from tests.faults.overlay import KERNELS, core_path, sound
from tests.fixtures import NUMA_KERNELS, fixture_path, numa_fixture_path
from tests.fleet.files import edited_file
from tests.guests import dump_path

TIMEOUT = 30
"""Seconds that a vmcore may take; less than the kernel keeps a lease (/proc/sys/fs/lease-break-time)."""

MEMORY = 140
"""MiB that a vmcore may take: half as much again as captures need, and less than the largest guest."""

LARGEST = Path("~/.cache/folioscope/guests/big-7.3/12288.elf").expanduser()
"""A guest of 12 GB (`make bench-big`)."""

_ALONE = "only-pte-of-a-page-lost"
"""It is about a page that other plants choose too: together they are another fault."""

_DROP, _OVERRIDE, _SEARCH = 24, 1, 2
"""PR_CAPBSET_DROP (include/uapi/linux/prctl.h), CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH (linux/capability.h)."""


@dataclass
class Fleet:
    """Vmcores in a folder, and what is known of them.

    Attributes:
        folder: Where they are.
        words: What `batch` is given.
        planted: By path, the faults planted there.
        errors: By path, why it cannot be checked.
        sound: Paths in which nothing is wrong.
        stuck: A file that nobody can open in the time that a vmcore has.
    """

    folder: Path
    words: list[str] = field(default_factory=list)
    planted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    sound: list[str] = field(default_factory=list)
    stuck: Path = Path()

    def __len__(self) -> int:
        return len(self.planted) + len(self.errors) + len(self.sound)


def combinations() -> Iterator[tuple[str, tuple[str, ...]]]:
    """A kernel and faults that one vmcore of it can have: each alone, then pairs, then three at a time."""
    together = [fault for fault in UNLIKE if fault != _ALONE]
    for faults in itertools.chain(
        zip(UNLIKE, strict=True), itertools.combinations(together, 2), itertools.combinations(together, 3)
    ):
        for kernel in KERNELS:
            yield kernel, faults


def make_fleet(folder: Path, dumps: int, *, guests: bool = False) -> Fleet:
    """Make so many vmcores; what is in the folder is taken away.

    Args:
        folder: Where.
        dumps: How many: forty or more.
        guests: Dumps of guests are among them, where they were built.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fleet = Fleet(folder, [str(folder)])
    _add_bad(fleet, more=dumps >= 100)
    _add_sound(fleet)
    if guests:
        _add_guests(fleet)
    for nth, (kernel, faults) in enumerate(itertools.islice(combinations(), dumps - len(fleet))):
        path = core_path("fixture", kernel)
        patches = [patch for fault in faults for patch in CATALOGUE[fault](sound(path)).patches]
        # As servers keep them: a folder for each crash.
        where = folder / f"{kernel}-{nth:03}"
        where.mkdir()
        fleet.planted[str(edited_file(path, patches, where / "vmcore"))] = faults
    assert len(fleet) == dumps
    return fleet


def _add_bad(fleet: Fleet, *, more: bool) -> None:
    for kernel in KERNELS if more else KERNELS[:1]:
        whole = fixture_path(kernel).read_bytes()
        half = len(whole) // 2
        damaged = whole[:half] + bytes(len(whole) - half)
        bad = {f"cut-{size}": whole[: len(whole) * size // 100] for size in ((5, 33, 70, 95) if more else (33,))}
        for name, data in (bad | {"zeros": damaged}).items():
            path = fleet.folder / f"{kernel}-{name}"
            path.write_bytes(data)
            fleet.errors[str(path)] = "target"
    for name, data in {
        "header-alone": b"KDUMP   " + bytes(4096),
        "elf-alone": b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x04\0\x3e\0" + bytes(100),
        "empty": b"",
        "not-to-be-read": fixture_path("6.1").read_bytes(),
    }.items():
        path = fleet.folder / name
        path.write_bytes(data)
        fleet.errors[str(path)] = "target"
    (fleet.folder / "not-to-be-read").chmod(0)
    # No dumps as their names say, and found in a folder: left out.
    (fleet.folder / "vmcore-dmesg.txt").write_text("no dump")
    (fleet.folder / "vmcore").mkdir()
    os.mkfifo(fleet.folder / "pipe")
    for name in ("pipe", "gone"):
        fleet.words.append(str(fleet.folder / name))
        fleet.errors[fleet.words[-1]] = "target"
    fleet.stuck = fleet.folder / "zzz-stuck"
    fleet.stuck.write_bytes(fixture_path("6.1").read_bytes() + b"stuck")
    fleet.errors[str(fleet.stuck)] = "timeout"


def _add_sound(fleet: Fleet) -> None:
    for file in (*map(fixture_path, KERNELS), *map(numa_fixture_path, NUMA_KERNELS)):
        fleet.sound.append(str(shutil.copy(file, fleet.folder / f"sound-{file.name}")))
    # Two paths, one dump.
    fleet.sound.append(str(shutil.copy(fixture_path("6.1"), fleet.folder / "zz-the-same")))


def _add_guests(fleet: Fleet) -> None:
    for kernel, name in itertools.product(KERNELS, ("rest", "busy", "zoo", "numa", "devices")):
        file = dump_path(kernel, name)
        if file.is_file():
            # A guest that is built anew meanwhile is another file.
            os.link(file, fleet.folder / f"guest-{kernel}-{name}")
            fleet.sound.append(str(fleet.folder / f"guest-{kernel}-{name}"))
    if LARGEST.is_file():
        os.link(LARGEST, fleet.folder / "largest")
        fleet.errors[str(fleet.folder / "largest")] = "memory"


@contextlib.contextmanager
def leased(path: Path) -> Iterator[None]:
    """A file that nobody else opens for 45 seconds: who tries waits (fcntl(2), F_SETLEASE)."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(file)
        signal.signal(signal.SIGIO, before)


def as_others() -> None:
    """Let what is executed next read no more than modes of files allow, root or not."""
    libc = ctypes.CDLL(None)
    for capability in (_OVERRIDE, _SEARCH):
        libc.prctl(_DROP, capability, 0, 0, 0)


def start_batch(fleet: Fleet, out: Path, *words: str) -> subprocess.Popen[str]:
    """A batch over them, two at a time."""
    arguments = [sys.executable, "-m", "inspector", "batch", *fleet.words, "--out", str(out), "--no-cache"]
    arguments += ["--jobs", "2", "--timeout", str(TIMEOUT), "--memory", f"{MEMORY}M", "--format", "json", *words]
    return subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=as_others
    )


def nr_done(out: Path) -> int:
    """How many dumps are through."""
    return len(list(out.glob("dumps/*/*.parquet")))


def run_whole(fleet: Fleet, out: Path, *words: str) -> tuple[dict[str, Any], int]:
    """A batch from beginning to end.

    Returns:
        What it printed, and the memory in bytes that it and all below it took at a time, at most.
    """
    with leased(fleet.stuck):
        process = start_batch(fleet, out, *words)
        most = 0
        while process.poll() is None:
            most = max(most, memory_of(process.pid))
            time.sleep(0.2)
        said, errors = process.communicate()
    assert (process.returncode, errors) == (Exit.TARGET, ""), errors
    return json.loads(said), most


def run_killed(fleet: Fleet, out: Path, *words: str) -> tuple[list[int], dict[str, Any]]:
    """A batch that is killed at three moments, then taken up again.

    Returns:
        The exit codes of those that were killed, and what the last printed.
    """
    codes = []
    for part, number in ((0.15, signal.SIGKILL), (0.45, signal.SIGTERM), (0.75, signal.SIGINT)):
        with leased(fleet.stuck):
            process = start_batch(fleet, out, *words)
            while nr_done(out) < part * len(fleet) and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(number)
            process.communicate()
        codes.append(process.returncode)
    return codes, run_whole(fleet, out, *words)[0]


@dataclass
class LocalCluster:
    """A Dask scheduler and workers of one thread each, on the loopback address.

    Attributes:
        scheduler: Its process.
        workers: Theirs.
        address: Of the scheduler.
    """

    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]
    address: str


@contextlib.contextmanager
def local_cluster(folder: Path, workers: int) -> Iterator[LocalCluster]:
    """Start one; nothing of it is left behind but files in the folder."""
    about = folder / "scheduler.json"
    about.unlink(missing_ok=True)
    alone = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(about))
    each = (*alone, "--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--local-directory", str(folder / "dask"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder / "dask", ignore_errors=True)
        scheduler = stack.enter_context(_dask("scheduler", *alone, "--port", "0"))
        deadline = time.monotonic() + 60
        while not about.exists():
            assert scheduler.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        started = [stack.enter_context(_dask("worker", *each)) for _ in range(workers)]
        yield LocalCluster(scheduler, started, json.loads(about.read_text())["address"])


@contextlib.contextmanager
def _dask(what: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [sys.executable, "-m", f"distributed.cli.dask_{what}", *words]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=quiet, stderr=quiet, preexec_fn=as_others)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run_on_cluster(fleet: Fleet, out: Path, folder: Path) -> dict[str, Any]:
    """A batch on a cluster of two workers, of which one is killed in the middle.

    Returns:
        What it printed.
    """
    with local_cluster(folder, 2) as cluster, leased(fleet.stuck):
        process = start_batch(fleet, out, "--scheduler", cluster.address)
        while nr_done(out) < 0.4 * len(fleet) and process.poll() is None:
            time.sleep(0.01)
        cluster.workers[0].kill()
        said, errors = process.communicate()
    assert (process.returncode, errors) == (Exit.TARGET, ""), errors
    found: dict[str, Any] = json.loads(said)
    return found


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a dataset, but for what is the batch's own."""
    files = (file for file in out.rglob("*") if file.is_file() and ".run" not in file.parts)
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files}


def compare(fleet: Fleet, out: Path) -> list[str]:
    """What a dataset says otherwise than is known of these vmcores; nothing where all is right."""
    wrong = []
    there = Dataset(out)
    dump_of = {row["path"]: row["dump"] for row in there.read(INPUTS).to_pylist()}
    dumps = {row["dump"]: row for row in there.read(DUMPS).to_pylist()}
    if set(dump_of) != {*fleet.planted, *fleet.errors, *fleet.sound}:
        wrong.append("paths are missing or too many")
    wrong += [
        f"{path}: {dumps[dump_of[path]]['error']}, not {kind}"
        for path, kind in fleet.errors.items()
        if dumps[dump_of[path]]["error"] != kind
    ]
    wrong += [f"{path}: not checked" for path in (*fleet.planted, *fleet.sound) if dumps[dump_of[path]]["error"]]
    found = defaultdict(set)
    for row in there.read(FINDINGS).to_pylist():
        if row["severity"] != "info":
            found[row["fingerprint"], row["rule"]].add(row["dump"])
    expected = {
        (fault, CATALOGUE[fault](sound(core_path("fixture", "6.1"))).rules): {
            dump_of[path] for path, faults in fleet.planted.items() if fault in faults
        }
        for fault in sorted(set().union(*fleet.planted.values()))
    }
    for (_, rule), where in found.items():
        of = [fault for fault, known in expected.items() if known == where and rule in fault[1]]
        if len(of) != 1:
            wrong.append(f"a cluster of {rule} in {len(where)} dumps is none that was planted")
    if len(found) != len(expected):
        wrong.append(f"{len(found)} clusters, {len(expected)} planted")
    said = subprocess.run(
        [sys.executable, "-m", "inspector", "report", str(out), "--format", "json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    shown = sorted((cluster["rule"], cluster["dumps"]) for cluster in json.loads(said.stdout)["clusters"])
    if shown != sorted((rule, len(where)) for (_, rule), where in found.items()):
        wrong.append("report shows other clusters than the dataset holds")
    return wrong


def main() -> None:
    """Run all, and print figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, required=True, help="A folder; it may hold what an earlier run left")
    parser.add_argument("--dumps", type=int, default=300)
    given = parser.parse_args()
    folder = given.dir.absolute()
    for name in ("at-once", "killed", "cluster"):
        shutil.rmtree(folder / name, ignore_errors=True)
    fleet = make_fleet(folder / "cores", given.dumps, guests=True)
    kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(fleet.errors.values()).items())
    size = sum(Path(path).stat().st_size for path in (*fleet.planted, *fleet.sound)) >> 20
    print(f"vmcores: {len(fleet)}: {len(fleet.planted)} planted, {len(fleet.sound)} sound, {kinds}; {size} MiB")
    whole, most = run_whole(fleet, folder / "at-once")
    _print_run("two processes", fleet, whole)
    print(f"memory: {whole['peak_bytes'] >> 20} MiB the largest process, {most >> 20} MiB all at a time")
    print(f"exit codes: {whole['exit_codes']}, left out: {whole['left_out']}")
    print(f"accounted for, and the planted clusters and no others: {compare(fleet, folder / 'at-once') or 'yes'}")
    codes, _ = run_killed(fleet, folder / "killed")
    print(f"killed at three moments ({codes}) and taken up again: {_same(folder, 'killed')}", flush=True)
    _print_run("two workers, one killed", fleet, run_on_cluster(fleet, folder / "cluster", folder))
    print(f"on a cluster: {_same(folder, 'cluster')}")


def _print_run(what: str, fleet: Fleet, said: dict[str, Any]) -> None:
    rate = len(fleet) / said["seconds"] * 3600
    print(f"{what}: {said['seconds']:.0f} s, {rate:,.0f} dumps an hour", flush=True)


def _same(folder: Path, name: str) -> str:
    return "the same bytes" if contents(folder / name) == contents(folder / "at-once") else "OTHER BYTES"


if __name__ == "__main__":
    main()
