"""Random damage beside an unrelated fault: how many findings the damage gives, and whether the fault is still found.

``python -m tests.faults.damage --runs 5000 --results FILE`` lays damage of realistic shape (`damage_places`) over the
captured dumps of all kernels in turn, each with a fault of the catalogue that has nothing to do with it, checks them,
and adds a line to the file for each; numbers that are there already are not run again. ``-s`` only sums up.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path

import msgspec
import numpy as np

from inspector.check.run import run_check
from inspector.findings import Finding, Report, Subject
from inspector.report.check import render_report
from inspector.report.screen import Screen
from inspector.snapshot import Snapshot
from tests.faults.damage_places import Damage, Damages, Touched
from tests.faults.every import CATALOGUE
from tests.faults.overlay import KERNELS, core_path, planted, sound
from tests.faults.plants import MissingError, Planted

LOCAL = ("page", "folio", "mm", "vma", "entry", "table", "anon_vma", "anon_vma_chain")
"""Kinds of subjects that are something of one folio or mm: sums and lists of the whole machine hold what is damaged."""

_MOST_TRIES = 200


class Result(msgspec.Struct):
    """What became of one damaged dump."""

    number: int
    seed: int
    kernel: str
    place: str
    kind: str
    shape: str
    contents: str
    members: str
    at: str
    fault: str
    found: list[str]
    """Rules of the findings that the damage gave, with their subjects."""
    info: list[str]
    fault_found: bool
    code: int
    missing: dict[str, int]
    ratio: float
    """Of processor time, to that of the same dump without damage."""
    error: str = ""


@dataclass(frozen=True)
class _Fault:
    name: str
    plan: Planted
    subject: Subject | None
    """Of its finding; None where its page says enough."""
    touched: Touched

    def is_found(self, found: Finding) -> bool:
        """Whether a finding is the fault's."""
        if found.rule not in self.plan.rules or found.severity != "fail":
            return False
        if self.subject is None:
            return found.subject.pfn in self.touched.pfns
        return _where(found.subject) == _where(self.subject)


class _Bench:
    """One kernel's dump, what can be damaged there, and the faults that can be planted beside."""

    def __init__(self, kernel: str) -> None:
        self.path = core_path("fixture", kernel)
        s = sound(self.path)
        self.damages = Damages(s)
        self.seconds = min(self._seconds() for _ in range(3))
        self.names = sorted(CATALOGUE)
        self._faults: dict[str, _Fault | None] = {}

    def _seconds(self) -> float:
        start = time.process_time()
        run_check(planted(self.path))
        return time.process_time() - start

    def fault(self, rng: np.random.Generator, damage: Damage) -> _Fault:
        """One that has nothing to do with the damage."""
        for _ in range(_MOST_TRIES):
            fault = self._known(self.names[int(rng.integers(len(self.names)))])
            if fault is not None and not fault.touched.meets(damage.touched):
                return fault
        raise MissingError("an unrelated fault")

    def _known(self, name: str) -> _Fault | None:
        if name not in self._faults:
            self._faults[name] = self._planned(name)
        return self._faults[name]

    def _planned(self, name: str) -> _Fault | None:
        """The fault, None where it is none of one folio or mm."""
        s = sound(self.path)
        try:
            plan = CATALOGUE[name](s)
        except MissingError:
            return None
        if plan.severity != "fail":
            return None
        if plan.pfn is not None:
            return _Fault(name, plan, None, self._touched(s, plan, Subject("page", plan.pfn)))
        found = run_check(planted(self.path, *plan.patches)).findings
        if len(found) != 1 or found[0].severity != "fail" or found[0].subject.kind not in LOCAL:
            return None
        return _Fault(name, plan, found[0].subject, self._touched(s, plan, found[0].subject))

    def _touched(self, s: Snapshot, plan: Planted, subject: Subject) -> Touched:
        damages = self.damages
        mms: set[int] = set()
        pfns = {pfn for pfn in (subject.pfn, plan.pfn) if pfn is not None}
        if subject.mm is not None:
            mms |= set(np.flatnonzero(s.mms.addr == np.uint64(subject.mm)).tolist())
        for pfn in list(pfns):
            row = s.pages.memmap.row(pfn)
            if row >= 0:
                mms |= damages.mms_of_page(pfn)
                pfns.add(int(s.pages.memmap.pfn(max(int(s.pages.head_row[row]), 0))))
        kind = {"vma": "vm_area_struct"}.get(subject.kind, subject.kind)
        for address in (subject.address, subject.vma):
            if address is not None:
                mms |= damages.mms_of_object(kind, address)
        all_ = [damages.touched(patch) for patch in plan.patches]
        return Touched(
            frozenset(mms).union(*(each.mms for each in all_)),
            frozenset(pfns).union(*(each.pfns for each in all_)),
            frozenset[int]().union(*(each.pages for each in all_)),
        )


@cache
def _bench(kernel: str) -> _Bench:
    return _Bench(kernel)


def _where(subject: Subject) -> tuple[object, ...]:
    return (subject.pfn, subject.mm, subject.va, subject.vma, subject.address)


def _told(found: Finding) -> str:
    subject = found.subject
    where = next(
        (
            f"{name} {value:#x}"
            for name in ("pfn", "vma", "address", "mm")
            if (value := getattr(subject, name)) is not None
        ),
        subject.name,
    )
    count = f" x{found.count}" if found.count > 1 else ""
    return f"{found.rule}{count} ({subject.kind} {where})"


def run_one(number: int, seed: int, kernels: tuple[str, ...] = KERNELS) -> Result:
    """Damage a dump as the number says, plant a fault elsewhere, check it, and tell what became of it."""
    rng = np.random.default_rng((seed, number))
    kernel = kernels[number % len(kernels)]
    bench = _bench(kernel)
    damage = bench.damages.some(rng)
    fault = bench.fault(rng, damage)
    where = ("phys " if damage.patch.physical else "virt ") + f"{damage.patch.address:#x}"
    out = Result(
        number,
        seed,
        kernel,
        damage.place,
        damage.kind,
        damage.shape,
        damage.contents,
        damage.members,
        where,
        fault.name,
        [],
        [],
        fault_found=False,
        code=-1,
        missing={},
        ratio=0.0,
    )
    start = time.process_time()
    try:
        report: Report = run_check(planted(bench.path, *fault.plan.patches, damage.patch))
        out.ratio = round((time.process_time() - start) / bench.seconds, 2)
        list(render_report(Screen(), report))
    except Exception:  # noqa: BLE001  (whatever a damaged dump raises is what is looked for)
        out.error = traceback.format_exc()
        return out
    _fill(out, report, fault)
    return out


def _fill(out: Result, report: Report, fault: _Fault) -> None:
    out.code, out.missing = report.exit_code, report.coverage.missing
    for found in report.findings:
        if found.severity == "info":
            out.info.append(_told(found))
        elif not out.fault_found and fault.is_found(found):
            out.fault_found = True
        else:
            out.found.append(_told(found))


def load(path: Path) -> list[Result]:
    """Results so far."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Result) for line in lines]


def summary(results: list[Result]) -> str:
    """The figures."""
    if not results:
        return "nothing was run"
    lines = []
    for kernel in (*KERNELS, "all"):
        some = [r for r in results if kernel in (r.kernel, "all")]
        if not some:
            continue
        found = np.array([len(r.found) for r in some])
        seen = found[found > 0]
        median, most = (int(np.percentile(seen, q, method="higher")) if len(seen) else 0 for q in (50, 95))
        times = np.array([r.ratio for r in some])
        lost, raised = sum(not (r.fault_found or r.error) for r in some), sum(bool(r.error) for r in some)
        lines += [
            f"{kernel}: {len(some)} dumps, {len(seen)} with findings for the damage",
            f"  findings: median {median}, 95th percentile {most}, most {found.max()}",
            f"  other fault not found in {lost}, tracebacks {raised}",
            f"  time: median {np.median(times):.1f}, longest {times.max():.1f} times the sound dump's",
        ]
    return "\n".join(lines)


def by_kind(results: Iterable[Result]) -> str:
    """How many findings each kind of damage gives."""
    cells: dict[tuple[str, str, str], Counter[str]] = {}
    for r in results:
        nr = len(r.found)
        name = "lost" if not r.fault_found else "none" if not nr else "1" if nr == 1 else "2-3" if nr <= 3 else "more"
        cells.setdefault((r.place, r.kind, r.shape), Counter())[name] += 1
    names = ("none", "1", "2-3", "more", "lost")
    lines = [f"{'place':<12} {'kind':<24} {'shape':<6} " + " ".join(f"{name:>5}" for name in names)]
    for key, count in sorted(cells.items()):
        lines.append(f"{key[0]:<12} {key[1]:<24} {key[2]:<6} " + " ".join(f"{count[name]:>5}" for name in names))
    return "\n".join(lines)


def main() -> int:
    """The command; the exit code tells whether something was raised or a fault was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.damage", description=__doc__)
    parser.add_argument("-k", "--kernel", action="append", choices=KERNELS, help="only this kernel; may be repeated")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first run, to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("damage.jsonl"))
    parser.add_argument("-s", "--summary", action="store_true", help="only sum up what was run")
    parser.add_argument("-j", "--jobs", type=int, default=1)
    options = parser.parse_args()
    results = load(options.results)
    done = {(r.number, r.seed) for r in results}
    numbers = [n for n in range(options.first, options.first + options.runs) if (n, options.seed) not in done]
    if not options.summary and numbers:
        kernels = tuple(options.kernel or KERNELS)
        with ProcessPoolExecutor(options.jobs) as pool, options.results.open("ab") as file:
            for result in pool.map(run_one, numbers, repeat(options.seed), repeat(kernels), chunksize=3):
                results.append(result)
                file.write(msgspec.json.encode(result) + b"\n")
                file.flush()
    print(by_kind(results))
    print(summary(results))
    return int(any(r.error or not r.fault_found for r in results))


if __name__ == "__main__":
    sys.exit(main())
