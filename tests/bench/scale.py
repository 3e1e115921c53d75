"""`make bench-scale`: a shared folio's rmap from cold, and a check beside the number of chains and of VMAs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.bench.guest import forks_dump, vmas_dump

ROUNDS = 3
FORKS = (1000, 2000)
VMAS = (30_000, 60_000)
ROWS = ("avcs", "vmas", "leaf_entries")


@dataclass(frozen=True)
class Measured:
    """One check of one dump, in a process of its own.

    Attributes:
        seconds: Of the whole check; the fastest of some.
        counts: How much there was of each of `ROWS`.
        pfn: The anonymous folio that is mapped most.
        mappings: How often it is.
    """

    seconds: float
    counts: dict[str, int]
    pfn: int
    mappings: int


def one_check(core: str) -> None:
    """In a process of its own: one whole check, and what there was to check, as JSON."""
    start = time.perf_counter()
    s = Snapshot(open_core(core, types="btf"))
    report = run_check(s)
    seconds = time.perf_counter() - start
    total = s.counts.page_mappings
    anon = np.flatnonzero(s.pages.is_anon(np.arange(len(s.pages))) & (s.folio_of_page < 0))
    row = int(anon[np.argmax(total[anon])])
    counts = {"avcs": len(s.anon_rmap.avcs), "vmas": len(s.vmas), "leaf_entries": int(s.mappings.nr.sum())}
    pfn = int(s.pages.memmap.pfns_of_rows(np.array([row]))[0])
    findings = [f.rule for f in report.findings]
    print(
        json.dumps({"seconds": seconds, "counts": counts, "pfn": pfn, "mappings": int(total[row]), "found": findings})
    )


def measure(core: Path) -> Measured:
    """Check a dump some times, each in a fresh process."""
    command = [sys.executable, "-m", "tests.bench.scale", "--one-check", str(core)]
    done = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(ROUNDS)
    ]
    best = min(done, key=lambda facts: float(facts["seconds"]))
    assert best["found"] == [], f"{core}: {best['found']}"
    return Measured(best["seconds"], best["counts"], best["pfn"], best["mappings"])


def forget(core: Path) -> None:
    """Drop what the page cache holds of a file."""
    with core.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold_rmap(core: Path, pfn: int) -> tuple[float, float]:
    """What a whole process costs that answers ``folioscope rmap PFN``, nothing of the dump in memory before.

    Returns:
        Seconds that passed, and seconds of a processor: fewer where others keep the machine busy.
    """
    program = "from inspector.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", program, "-c", str(core), "--types", "btf", "rmap", hex(pfn)]
    # An installed program has its byte code beside it, whatever the one who measures has set.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(ROUNDS):
        forget(core)
        start, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        times.append((time.perf_counter() - start, cpu))
    return min(times)


def compare(what: str, build: Callable[[int], Path], sizes: tuple[int, int], by: str) -> None:
    """Measure two sizes and print what the second costs beside the first."""
    cores = [build(size) for size in sizes]
    found = [measure(core) for core in cores]
    for core, size, one in zip(cores, sizes, found, strict=True):
        counts = ", ".join(f"{one.counts[name]:,} {name}" for name in ROWS)
        print(f"{size:,} {what}: {counts}")
        print(f"    check {one.seconds:.2f} s, {one.seconds / one.counts[by] * 1e6:.1f} us for each of {by}")
        passed, cpu = cold_rmap(core, one.pfn)
        print(f"    rmap {one.pfn:#x}, mapped {one.mappings:,} times, cold: {passed:.2f} s, {cpu:.2f} s of a processor")
    more = found[1].counts[by] / found[0].counts[by]
    longer = found[1].seconds / found[0].seconds
    print(f"{more:.2f} times the {by} take {longer:.2f} times as long\n", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--one-check"]:
        one_check(sys.argv[2])
        return
    print(f"The fastest of {ROUNDS} rounds, without debug info; cold: the dump is not in the page cache.\n")
    compare("children of one parent", forks_dump, FORKS, "avcs")
    compare("VMAs in one process", vmas_dump, VMAS, "vmas")


if __name__ == "__main__":
    main()
