"""Silence: kernels that are sound, stopped at random moments of their work, must give no finding that is none."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inspector.check.run import run_check
from inspector.findings import Finding, Report
from inspector.snapshot import Snapshot
from inspector.target.target import open_core

from .build import stop_idle
from .cache import BUSY, guests_folder
from .kernels import Kernel
from .packages import fetch_kernel
from .qemu import booted
from .zoo import ZOO, ZOO_RACES, await_kind, prepare

KINDS = (ZOO, ZOO_RACES, BUSY)
WAIT_SECONDS = (0.2, 4.0)
SEVERITIES = ("fail", "warn", "info")


@dataclass(frozen=True)
class Moment:
    """One dump of one guest and what a check says of it."""

    kernel: str
    kind: str
    number: int
    seconds: float
    """Since the guest was ready, time while it was stopped not counted."""
    report: Report
    kept: Path | None = field(default=None)

    @property
    def is_silent(self) -> bool:
        """Whether everything was looked at and nothing was called wrong."""
        return self.report.coverage.complete and not any(f.severity == "fail" for f in self.report.findings)


def moments(kernel: Kernel, kind: str, runs: int, keep: Path | None = None) -> Iterator[Moment]:
    """Boot one guest, stop it at ``runs`` random moments, and check a dump of each.

    Args:
        kernel: Which kernel.
        kind: zoo (at rest: one moment is as good as many), zoo-races or busy.
        runs: How many dumps.
        keep: Where dumps with findings are kept; None keeps none.
    """
    unpacked = fetch_kernel(kernel, guests_folder())
    with tempfile.TemporaryDirectory(prefix=".silence-", dir=guests_folder()) as name:
        folder = Path(name)
        prepared = prepare(kernel, unpacked, kind, folder)
        with booted(prepared.boot, lambda guest: await_kind(guest, kind)) as guest, guest.qmp() as qmp:
            ran = 0.0
            for number in range(runs):
                wait = random.uniform(*WAIT_SECONDS)
                time.sleep(wait)
                ran += wait
                if kind == ZOO:
                    stop_idle(qmp)
                else:
                    qmp.stop()
                dump = folder / "dump"
                qmp.dump(dump)
                dump.chmod(0o644)
                report = run_check(Snapshot(open_core(str(dump), types="btf")))
                kept = None
                if keep and report.exit_code:
                    kept = keep / f"{kernel.name}-{kind}-{number}-{int(time.time())}.elf"
                    dump.replace(kept)
                yield Moment(kernel.name, kind, number, ran, report, kept)
                dump.unlink(missing_ok=True)
                qmp.resume()


def row(moment: Moment) -> str:
    """One line of the table."""
    rules: Counter[tuple[str, str]] = Counter()
    for finding in moment.report.findings:
        rules[finding.severity, finding.rule] += finding.count
    counts = "".join(f"{sum(f.severity == s for f in moment.report.findings):>6}" for s in SEVERITIES)
    said = ", ".join(f"{severity} {rule} x{n}" for (severity, rule), n in sorted(rules.items()))
    lacks = "" if moment.report.coverage.complete else "  NOT COMPLETE: " + "; ".join(_lacking(moment.report))
    entries = int(moment.report.summary["leaf_entries"] or 0)
    where = f"{moment.kernel:<6} {moment.kind:<10} {moment.number:>3} {moment.seconds:>7.1f} s {entries:>10,}"
    return f"{where} {counts}  {said}{lacks}".rstrip()


def _lacking(report: Report) -> list[str]:
    partial = [f"{c.rule}: {c.reason}" for c in report.coverage.rules if c.state in ("partial", "not-checked")]
    return [*report.coverage.notes, *partial]


def silence(kernels: list[Kernel], kinds: list[str], runs: int, keep: Path | None) -> int:
    """Print the table, and every fail or warn below its row; return the exit code."""
    print(f"{'kernel':<6} {'guest':<10} {'no':>3} {'ran':>9} {'leaves':>10}   fail  warn  info  rules")
    bad = total = 0
    for kernel in kernels:
        for kind in kinds:
            for moment in moments(kernel, kind, 1 if kind == ZOO else runs, keep):
                total += 1
                bad += not moment.is_silent
                print(row(moment), flush=True)
                for finding in moment.report.findings:
                    if finding.severity != "info":
                        print(f"         {told(finding)}")
                if moment.kept:
                    print(f"         kept: {moment.kept}", flush=True)
    print(f"{total} moments, {bad} not silent")
    sys.stdout.flush()
    return 1 if bad else 0


def told(finding: Finding) -> str:
    """One line about a finding that is none."""
    evidence = finding.evidence
    who = {(m.pid, m.comm, hex(m.va), hex(m.entry)) for m in evidence.mappings[:6]} if evidence else set()
    return f"{finding.rule}: {finding.subject} {evidence.facts if evidence else ''} {sorted(who, key=str)}"
