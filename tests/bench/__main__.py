"""`make bench`: what the sweeps and a whole check cost, against the plain ways, in one run on one dump."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from inspector.check.run import run_check
from inspector.snapshot import Snapshot
from inspector.target.target import open_core
from tests.bench import recipe
from tests.bench.guest import large_dump
from tests.bench.recipe import Rate
from tests.fixtures import fixture_path

ROUNDS = 3


def opened(core: Path) -> Snapshot:
    """A fresh snapshot, with nothing built but the layout."""
    snapshot = Snapshot(open_core(str(core), types="btf"))
    assert snapshot.layout is not None
    return snapshot


def best(measure: Callable[[], Rate]) -> Rate:
    """The fastest of some rounds: what the machine can do when nobody disturbs it."""
    return max((measure() for _ in range(ROUNDS)), key=lambda rate: rate.per_second)


def our_sweep(core: Path) -> Rate:
    snapshot = opened(core)
    start = time.perf_counter()
    nr = len(snapshot.pages)
    return Rate(nr, time.perf_counter() - start)


def our_walk(core: Path) -> Rate:
    snapshot = opened(core)
    snapshot.vmas  # noqa: B018  (built outside the measurement)
    start = time.perf_counter()
    nr = len(snapshot.tables)
    seconds = time.perf_counter() - start
    assert nr
    return Rate(int(snapshot.mappings.nr.sum()), seconds)


def one_check(core: str, rules: str) -> None:
    """In a process of its own: one whole check, its seconds and its peak memory, as JSON."""
    start = time.perf_counter()
    report = run_check(Snapshot(open_core(core, types="btf")), rules.split(",") if rules else ())
    facts = {
        "seconds": time.perf_counter() - start,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "findings": len(report.findings),
        "leaf_entries": report.summary["leaf_entries"],
        "struct_pages": report.summary["struct_pages"],
    }
    print(json.dumps(facts))


def subprocess_check(core: Path, rules: str = "") -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench", "--one-check", str(core), "--rules", rules]
    done = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(ROUNDS)]
    found: list[dict[str, float]] = [json.loads(d.stdout) for d in done]
    return min(found, key=lambda facts: facts["seconds"])


def start_up(core: Path, pfn: int) -> float:
    """Seconds of the whole process that answers ``folioscope folio PFN`` without debug info."""
    command = [sys.executable, "-c", "from inspector.cli import main; raise SystemExit(main())"]
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run(
            [*command, "-c", str(core), "--types", "btf", "folio", hex(pfn)], check=True, stdout=subprocess.DEVNULL
        )
        times.append(time.perf_counter() - start)
    return min(times)


def line(what: str, value: str, beside: str = "") -> None:
    print(f"{what:<58} {value:>16}  {beside}".rstrip(), flush=True)


def rate(found: Rate, unit: str) -> str:
    return f"{found.per_second / 1e6:.2f} M {unit}/s"


def bench(core: Path) -> None:
    """Measure and print everything."""
    snapshot = opened(core)
    gib = snapshot.layout.memmap.nr_pages * 4096 / (1 << 30)
    print(f"{core}: {snapshot.layout.memmap.nr_pages:,} struct pages, {gib:.1f} GiB; best of {ROUNDS} rounds\n")
    read = best(lambda: recipe.timed_read_memmap(snapshot))
    plain = best(lambda: recipe.timed_recipe_sweep(snapshot))
    ours = best(lambda: our_sweep(core))
    line("memory map: only read the bytes", rate(read, "pages"))
    line("memory map: plain NumPy recipe, with fields", rate(plain, "pages"))
    line("memory map: folioscope", rate(ours, "pages"), f"{ours.per_second / plain.per_second:.1f} x the recipe")

    tables = snapshot.tables
    leaves = int(snapshot.mappings.nr.sum())
    pte = best(lambda: recipe.timed_read_tables(snapshot, tables.pfn.astype(np.uint64)))
    walk_plain = best(lambda: recipe.timed_recipe_walk(snapshot))
    walk = best(lambda: our_walk(core))
    line("page tables: only read the bytes", f"{leaves / pte.seconds / 1e6:.2f} M entries/s")
    line("page tables: plain NumPy recipe, a row an entry", rate(walk_plain, "entries"))
    beside = f"{walk.per_second / walk_plain.per_second:.1f} x the recipe; attributed to VMAs, merged into runs"
    line("page tables: folioscope", rate(walk, "entries"), beside)

    pages = recipe.timed_drgn_pages(snapshot)
    entries = recipe.timed_drgn_entries(snapshot)
    addresses = recipe.timed_drgn_addresses(snapshot)
    slots = 512 * int((tables.level == 1).sum())
    page_seconds = snapshot.layout.memmap.nr_pages / pages.per_second
    bare_seconds = page_seconds + slots / entries.per_second
    drgn_seconds = page_seconds + leaves / addresses.per_second
    sampled = f"a sample of {pages.count:,} pages and {addresses.count:,} addresses, extrapolated"
    line("the same with drgn: for_each_page(), follow_page()", f"{drgn_seconds:.0f} s", sampled)
    sampled = f"a sample of {pages.count:,} pages and {entries.count:,} slots, extrapolated"
    line("the same with bare drgn objects, tables known", f"{bare_seconds:.0f} s", sampled)
    counts = subprocess_check(core, "mapcount,entire,pages-mapped,mm-ids,refcount,rss,targets")
    every = subprocess_check(core)
    for what, facts in (("check: mapping counts (the same questions)", counts), ("check: all rules", every)):
        beside = f"{drgn_seconds / facts['seconds']:.0f} x the drgn loop; {facts['peak_mib'] / gib:.0f} MiB per GiB"
        line(what, f"{facts['seconds']:.2f} s", f"{beside}, peak {facts['peak_mib']:.0f} MiB")
    small = fixture_path("7.3")
    mapped = opened(small)
    pfn = int(mapped.folios.pfn[np.flatnonzero(mapped.folio_totals > 1)[0]])
    line("folio PFN on a captured dump, process start to answer", f"{start_up(small, pfn):.2f} s", "without debug info")
    line("folio PFN on this dump, process start to answer", f"{start_up(core, 0x1000):.2f} s", "without debug info")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--core", type=Path, help="measure on this dump instead of the large guest")
    parser.add_argument("--one-check", help=argparse.SUPPRESS)
    parser.add_argument("--rules", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_check:
        one_check(options.one_check, options.rules)
        return
    bench(options.core or large_dump())


if __name__ == "__main__":
    main()
