"""``python -m tests.corrupt --runs 5000``: damage dumps at random and count what becomes of the checks."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from tests.corrupt.run import Outcome, bound_memory, run_one

EVERY = 500
"""Runs after which the counts so far are printed: an interrupted night loses little."""


def main() -> int:
    """Run, print the counts and every defect; the exit code tells whether there was one."""
    parser = argparse.ArgumentParser(prog="python -m tests.corrupt", description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first run, to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.runs)
    with ProcessPoolExecutor(options.jobs, initializer=bound_memory) as pool:
        bad = _tell(pool.map(run_one, numbers, repeat(options.seed), chunksize=8))
    return 1 if bad else 0


def _tell(outcomes: Iterator[Outcome]) -> int:
    counts: Counter[tuple[str, str]] = Counter()
    bad = 0
    longest = 0.0
    for outcome in outcomes:
        counts[outcome.kind, outcome.result] += 1
        longest = max(longest, outcome.seconds)
        if outcome.is_bad:
            bad += 1
            print(
                f"run {outcome.number}, {outcome.kernel}: {outcome.result}: {outcome.what}\n{outcome.detail}",
                flush=True,
            )
        if sum(counts.values()) % EVERY == 0:
            _print(counts, longest, bad)
    _print(counts, longest, bad)
    return bad


def _print(counts: Counter[tuple[str, str]], longest: float, bad: int) -> None:
    print("kind      result     runs")
    for (kind, result), number in sorted(counts.items()):
        print(f"{kind:<9} {result:<10} {number}")
    print(f"{sum(counts.values())} runs, longest {longest:.1f} s, defects {bad}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
