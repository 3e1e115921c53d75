"""Silence: kernels that are sound, stopped at random moments of their work, must give no finding that is none."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from inspector.capture.capture import capture
from inspector.check.run import run_check
from inspector.findings import Finding, Report
from inspector.snapshot import Snapshot
from inspector.target.target import open_core

from .build import Prepared, stop_idle
from .cache import BUSY, guests_folder
from .errors import GuestError
from .kernels import Kernel
from .packages import Unpacked, fetch_kernel
from .qemu import Boot, booted
from .storms import STORMS, prepare_storm
from .zoo import ZOO, ZOO_RACES, await_kind, prepare

KINDS = (ZOO.kind, ZOO_RACES, BUSY, *STORMS)
WAIT_SECONDS = (0.2, 4.0)
SEVERITIES = ("fail", "warn", "info")


@dataclass(frozen=True)
class Machine:
    """What a guest runs on, where it is not what all guests run on.

    Attributes:
        cpus: How many.
        has_five_levels: Page tables of five levels.
        words: More of the kernel's command line.
    """

    cpus: int = 2
    has_five_levels: bool = False
    words: str = ""

    def __str__(self) -> str:
        """What differs, in one word without spaces; empty where nothing does."""
        cpus = [] if self.cpus == Machine.cpus else [f"{self.cpus}cpus"]
        return "+".join([*cpus, *["la57"] * self.has_five_levels, *self.words.split()])

    def boot(self, boot: Boot) -> Boot:
        """The same guest on this machine."""
        line = f"{boot.command_line} {self.words}".rstrip()
        return replace(boot, cpus=self.cpus, has_five_levels=self.has_five_levels, command_line=line)


@dataclass(frozen=True)
class Moment:
    """One dump of one guest and what a check says of it."""

    kernel: str
    kind: str
    machine: str
    number: int
    seconds: float
    """Since the guest was ready, time while it was stopped not counted."""
    report: Report
    kept: Path | None = field(default=None)

    @property
    def is_silent(self) -> bool:
        """Whether the check of a sound kernel says what it must."""
        return is_silent(self.report)


def is_silent(report: Report) -> bool:
    """Whether everything was looked at and nothing above info was found."""
    return report.coverage.complete and all(f.severity == "info" for f in report.findings)


@dataclass(frozen=True)
class Keep:
    """Which dumps are kept, and where.

    Attributes:
        folder: Of the captures.
        is_all: Those in which nothing is found too, for checks of later versions (`judge`).
    """

    folder: Path
    is_all: bool = False


def moments(
    kernel: Kernel, kind: str, runs: int, keep: Keep | None = None, machine: Machine = Machine()
) -> Iterator[Moment]:
    """Boot one guest, stop it at ``runs`` random moments, and check a dump of each.

    Args:
        kernel: Which kernel.
        kind: zoo (at rest: one moment is as good as many), zoo-races, busy, or a storm.
        runs: How many dumps.
        keep: Which are kept, and where; None keeps none.
        machine: What it runs on.
    """
    unpacked = fetch_kernel(kernel, guests_folder())
    with tempfile.TemporaryDirectory(prefix=".silence-", dir=guests_folder()) as name:
        folder = Path(name)
        prepared, state = prepare_racing(kernel, unpacked, kind, folder)
        boot = machine.boot(prepared.boot)
        with booted(boot, lambda guest: await_kind(guest, state)) as guest, guest.qmp() as qmp:
            ran = 0.0
            for number in range(runs):
                wait = random.uniform(*WAIT_SECONDS)
                time.sleep(wait)
                ran += wait
                if kind == ZOO.kind:
                    stop_idle(qmp)
                else:
                    qmp.stop()
                dump = folder / "dump"
                qmp.dump(dump)
                dump.chmod(0o644)
                report = run_check(Snapshot(open_core(str(dump), types="btf")))
                kept = None
                if keep and (keep.is_all or not is_silent(report)):
                    kept = keep.folder / f"{kernel.name}-{kind}-{number}-{int(time.time())}.kdump"
                    keep_capture(dump, kept)
                yield Moment(kernel.name, kind, str(machine), number, ran, report, kept)
                dump.unlink(missing_ok=True)
                qmp.resume()


def prepare_racing(kernel: Kernel, unpacked: Unpacked, kind: str, folder: Path) -> tuple[Prepared, str]:
    """What a guest of any of `KINDS` is booted from, and the kind that it is waited for as."""
    if kind in STORMS:
        return prepare_storm(kernel, unpacked, kind, folder), BUSY
    return prepare(kernel, unpacked, kind, folder), kind


def keep_capture(dump: Path, path: Path) -> None:
    """Keep what a check reads of a dump."""
    capture(open_core(str(dump), types="btf"), str(path))


def row(moment: Moment) -> str:
    """One line of the table."""
    rules: Counter[tuple[str, str]] = Counter()
    for finding in moment.report.findings:
        rules[finding.severity, finding.rule] += finding.count
    counts = "".join(f"{sum(f.severity == s for f in moment.report.findings):>6}" for s in SEVERITIES)
    said = ", ".join(f"{severity} {rule} x{n}" for (severity, rule), n in sorted(rules.items()))
    lacks = "" if moment.report.coverage.complete else "  NOT COMPLETE: " + "; ".join(_lacking(moment.report))
    entries = int(moment.report.summary["leaf_entries"] or 0)
    kind = f"{moment.kind} {moment.machine}".rstrip()
    where = f"{moment.kernel:<8} {kind:<14} {moment.number:>3} {moment.seconds:>7.1f} s {entries:>10,}"
    return f"{where} {counts}  {said}{lacks}".rstrip()


def _lacking(report: Report) -> list[str]:
    partial = [f"{c.rule}: {c.reason}" for c in report.coverage.rules if c.state in ("partial", "not-checked")]
    return [*report.coverage.notes, *partial]


def silence(  # noqa: PLR0913, PLR0917  (the options of the command)
    kernels: list[Kernel], kinds: list[str], runs: int, keep: Keep | None, results: Path | None, machine: Machine
) -> int:
    """Print the table, and every fail or warn below its row; return the exit code.

    With a file of results a run that was ended goes on: only moments that the file lacks are made.
    """
    print(f"{'kernel':<8} {'guest':<14} {'no':>3} {'ran':>9} {'leaves':>10}   fail  warn  info  rules")
    bad = total = lacking = 0
    done = _done(results)
    for kernel in kernels:
        for kind in kinds:
            left = (1 if kind == ZOO.kind else runs) - done[kernel.name, kind, str(machine)]
            if left <= 0:
                continue
            try:
                for moment in moments(kernel, kind, left, keep, machine):
                    total += 1
                    bad += not moment.is_silent
                    _say(moment, results)
            except GuestError as error:
                lacking += 1
                print(f"{kernel.name:<8} {kind}: {error}", flush=True)
    print(f"{total} moments, {bad} not silent" + (f"; {lacking} guests did not go on" if lacking else ""), flush=True)
    return 1 if bad or lacking else 0


def judge(results: Path) -> int:
    """Check the captures of moments that were kept, and print those that are not silent or not as they were.

    Args:
        results: The file of results of `silence`.

    Returns:
        The exit code: 1 if one of them is not silent.
    """
    lines = [line for line in map(json.loads, results.read_text().splitlines()) if line["kept"]]
    total: Counter[tuple[str, ...]] = Counter()
    loud: Counter[tuple[str, ...]] = Counter()
    for number, line in enumerate(lines):
        report = run_check(Snapshot(open_core(line["kept"], types="btf")))
        which = (line["kernel"], line["guest"], line.get("machine", ""))
        total[which] += 1
        loud[which] += not is_silent(report)
        if not is_silent(report) or _found(report) != line["findings"]:
            _say(Moment(*which, number, line["seconds"], report), None)
            print(f"         {line['kept']}", flush=True)
    for guest, nr in sorted(total.items()):
        print(f"{' '.join(guest).rstrip():<44} {nr:>5} {loud[guest]:>5} not silent")
    print(f"{total.total()} moments, {loud.total()} not silent", flush=True)
    return 1 if loud.total() else 0


def _say(moment: Moment, results: Path | None) -> None:
    """Print a row and what lies below it, and keep it."""
    print(row(moment), flush=True)
    for finding in moment.report.findings:
        if finding.severity != "info":
            print(f"         {told(finding)}")
    if results:
        _note(results, moment)
    if moment.kept:
        print(f"         kept: {moment.kept}", flush=True)


def _done(results: Path | None) -> Counter[tuple[str, str, str]]:
    """How many moments of each kernel, guest and machine a file of results holds."""
    if results is None or not results.is_file():
        return Counter()
    lines = map(json.loads, results.read_text().splitlines())
    return Counter((line["kernel"], line["guest"], line.get("machine", "")) for line in lines)


def _found(report: Report) -> list[dict[str, str | int]]:
    return [{"severity": f.severity, "rule": f.rule, "count": f.count} for f in report.findings]


def _note(results: Path, moment: Moment) -> None:
    """Add a line to a file of results."""
    line = {
        "kernel": moment.kernel,
        "guest": moment.kind,
        "machine": moment.machine,
        "seconds": round(moment.seconds, 1),
        "silent": moment.is_silent,
        "findings": _found(moment.report),
        "kept": str(moment.kept) if moment.kept else None,
    }
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")


def told(finding: Finding) -> str:
    """One line about a finding that is none."""
    evidence = finding.evidence
    who = {(m.pid, m.comm, hex(m.va), hex(m.entry)) for m in evidence.mappings[:6]} if evidence else set()
    return f"{finding.rule}: {finding.subject} {evidence.facts if evidence else ''} {sorted(who, key=str)}"
