"""Faults over all dumps of a dataset: findings with the same fingerprint are one cluster."""

from __future__ import annotations

import fnmatch
import math
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from inspector.errors import Exit, UsageError
from inspector.fleet.dataset import Dataset, require_arrow
from inspector.fleet.schema import DUMPS, FINDINGS, INPUTS
from inspector.records import dataclass

Change = Literal["new", "gone", "more", "fewer", "same"]
"""Against other dumps. ``more`` and ``fewer`` are shares of dumps that differ by more than chance."""

_BEYOND_CHANCE = 1.96
"""Standard deviations, of which one difference in twenty is more where only chance is at work."""

_SEVERITIES = ("fail", "warn")
"""The worst first; what is only worth knowing makes no cluster."""

_AGO = re.compile(r"(\d{1,5})\s*([dwh])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Outcomes(msgspec.Struct, frozen=True):
    """How many dumps ended how."""

    dumps: int
    consistent: int
    with_findings: int
    incomplete: int
    errors: int


class KernelRow(msgspec.Struct, frozen=True):
    """The dumps of one kernel release."""

    kernel: str
    outcomes: Outcomes


class DayRow(msgspec.Struct, frozen=True):
    """The dumps of kernels that crashed on one day, in UTC."""

    day: str
    outcomes: Outcomes


class ErrorRow(msgspec.Struct, frozen=True):
    """Dumps that could not be checked for the same reason."""

    error: str
    text: str
    dumps: int
    path: str | None
    """Of one of them."""


class AffectedShare(msgspec.Struct, frozen=True):
    """How many of some dumps have a fault."""

    of: str
    """A kernel release, or a machine in words."""
    dumps: int
    checked: int
    """Dumps that were checked, with or without it."""


class Exemplar(msgspec.Struct, frozen=True):
    """One finding of a cluster."""

    dump: str
    path: str | None
    """Of the dump, null where none is known any more."""
    crashed_at: str | None
    command: str
    """Opens it."""
    because: list[str]
    """The reasons of its diagnosis."""
    looks_like: list[str]
    """What `explain` proposes."""


class Cluster(msgspec.Struct, frozen=True):
    """Findings with the same fingerprint."""

    fingerprint: str
    signature: str
    rule: str
    severity: str
    title: str
    verdict: str | None
    findings: int
    dumps: int
    checked: int
    """Dumps that were checked, with or without it."""
    first_seen: str | None
    """When the first of the kernels that have it crashed; null where that is not known of any."""
    last_seen: str | None
    kernels: list[AffectedShare]
    hardware: list[AffectedShare]
    exemplar: Exemplar
    change: Change | None
    """Null where nothing is compared."""
    dumps_before: int | None
    checked_before: int | None


class FleetReport(msgspec.Struct, frozen=True):
    """The object that ``report --format json`` prints."""

    schema: Literal["folioscope.report/1"]
    dataset: str
    compared_with: str | None
    since: str | None
    kernel: str | None
    outcomes: Outcomes
    undated: int
    """Dumps that --since leaves out because it is not known when their kernels crashed."""
    kernels: list[KernelRow]
    days: list[DayRow]
    errors: list[ErrorRow]
    clusters: list[Cluster]
    exit_code: int


@dataclass(frozen=True)
class Chosen:
    """Some dumps of a dataset.

    Attributes:
        dataset: It.
        dumps: Rows of ``dumps``, by identity.
        undated: How many more there are whose time is not known.
    """

    dataset: Dataset
    dumps: dict[str, dict[str, Any]]
    undated: int

    @property
    def checked(self) -> int:
        """How many could be checked."""
        return sum(_is_checked(row) for row in self.dumps.values())


def since_when(words: str, now: datetime | None = None) -> datetime:
    """The time that some words mean: a date, a date and a time, or how long ago (``30d``, ``12h``, ``4w``).

    Raises:
        UsageError: They mean none.
    """
    ago = _AGO.fullmatch(words.strip())
    try:
        if ago:
            return (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        when = datetime.fromisoformat(words)
    except (ValueError, OverflowError):
        raise UsageError("this is no time", words, "Give a date such as 2026-11-27, or 30d, 12h, 4w") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def build_fleet_report(
    folder: Path, *, since: str | None = None, kernel: str | None = None, compare: str | None = None
) -> FleetReport:
    """Cluster the findings of a dataset.

    Args:
        folder: It.
        since: Only dumps of kernels that crashed since then, see `since_when`.
        kernel: Only dumps of these releases: the beginning of a name, or a pattern.
        compare: The folder of another dataset, or releases in this one, to compare with.

    Raises:
        UsageError: A folder holds no dataset, or pyarrow is missing.
        TargetError: A file of it is damaged.
    """
    require_arrow()
    start = None if since is None else since_when(since)
    now = _choose(folder, start, kernel)
    before = None
    if compare is not None:
        before = _choose(Path(compare), None, None) if Path(compare).is_dir() else _choose(folder, None, compare)
    clusters = _clusters(now, before)
    is_new = any(cluster.change == "new" for cluster in clusters)
    return FleetReport(
        schema="folioscope.report/1",
        dataset=str(folder),
        compared_with=compare,
        since=_time(start),
        kernel=kernel,
        outcomes=_outcomes(now.dumps.values()),
        undated=now.undated,
        kernels=[KernelRow(*row) for row in _by(now, lambda row: row["release"] or "unknown")],
        days=[DayRow(*row) for row in _by(now, lambda row: _day(row["crashed_at"]))],
        errors=_errors(now),
        clusters=clusters,
        exit_code=int(Exit.FINDINGS if is_new else Exit.CLEAN),
    )


def _choose(folder: Path, start: datetime | None, kernel: str | None) -> Chosen:
    dataset = Dataset(folder)
    dataset.require()
    dumps, undated = {}, 0
    for row in dataset.read(DUMPS).to_pylist():
        if kernel is not None and not _is_kernel(row["release"], kernel):
            continue
        if start is not None and (row["crashed_at"] is None or row["crashed_at"] < start):
            undated += row["crashed_at"] is None
            continue
        dumps[row["dump"]] = row
    return Chosen(dataset, dumps, undated)


def _is_kernel(release: str | None, wanted: str) -> bool:
    if release is None:
        return False
    # 6.1 is not the beginning of 6.12.
    begins = release.startswith(wanted) and not (wanted[-1:].isdigit() and release[len(wanted) :][:1].isdigit())
    return begins or fnmatch.fnmatchcase(release, wanted)


def _is_checked(row: dict[str, Any]) -> bool:
    return bool(row["state"] == "checked")


def _time(when: datetime | None) -> str | None:
    return None if when is None else when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _day(when: datetime | None) -> str | None:
    return None if when is None else when.strftime("%Y-%m-%d")


def _outcomes(rows: Iterable[dict[str, Any]]) -> Outcomes:
    nr = Counter(row["exit_code"] for row in rows)
    return Outcomes(sum(nr.values()), nr[Exit.CLEAN], nr[Exit.FINDINGS], nr[Exit.INCOMPLETE], nr[Exit.TARGET])


def _by(chosen: Chosen, name: Callable[[dict[str, Any]], str | None]) -> list[tuple[str, Outcomes]]:
    """Outcomes by what each dump is called; those that are called nothing are left out."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in chosen.dumps.values():
        called = name(row)
        if called is not None:
            rows[called].append(row)
    return [(called, _outcomes(rows[called])) for called in sorted(rows, key=_natural)]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key to order names by, in which 6.9 is before 6.12."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _paths(chosen: Chosen) -> dict[str, str]:
    """A path of each dump, the first by name."""
    out: dict[str, str] = {}
    for row in sorted(chosen.dataset.read(INPUTS).to_pylist(), key=lambda row: str(row["path"])):
        out.setdefault(row["dump"], row["path"])
    return out


def _errors(chosen: Chosen) -> list[ErrorRow]:
    paths = _paths(chosen)
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for dump, row in chosen.dumps.items():
        if not _is_checked(row):
            # Numbers differ from dump to dump, the reason does not.
            reasons[row["error"] or "", re.sub(r"\d+(,\d+)*", "N", row["error_text"] or "")].append(dump)
    return [
        ErrorRow(error, text, len(dumps), min(filter(None, map(paths.get, dumps)), default=None))
        for (error, text), dumps in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


@dataclass(frozen=True)
class _Seen:
    """One fingerprint in some dumps.

    Attributes:
        severity: Of its findings.
        findings: How many.
        first: By dump, the number of its first finding there.
    """

    severity: str
    findings: int
    first: dict[str, int]


def _seen(chosen: Chosen) -> dict[str, _Seen]:
    """What there is of each fingerprint."""
    columns = ("dump", "number", "fingerprint", "severity")
    found = chosen.dataset.read(FINDINGS, columns).group_by(["fingerprint", "severity", "dump"])
    first: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    count: Counter[tuple[str, str]] = Counter()
    for row in found.aggregate([("number", "min"), ("number", "count")]).to_pylist():
        if row["severity"] in _SEVERITIES and row["dump"] in chosen.dumps:
            key = row["fingerprint"], row["severity"]
            first[key][row["dump"]] = row["number_min"]
            count[key] += row["number_count"]
    # The severity is the rule's, and the rule a part of the fingerprint.
    return {key[0]: _Seen(key[1], count[key], dumps) for key, dumps in first.items()}


def _clusters(now: Chosen, before: Chosen | None) -> list[Cluster]:
    seen, paths = _seen(now), _paths(now)
    earlier = {} if before is None else _seen(before)
    out = [_cluster(name, one, now, paths, (before, earlier.get(name))) for name, one in seen.items()]
    if before is not None:
        paths = _paths(before)
        gone = {name: one for name, one in earlier.items() if name not in seen}
        out += [_cluster(name, one, before, paths, (before, one), now) for name, one in gone.items()]
    return sorted(out, key=lambda c: (_SEVERITIES.index(c.severity), -c.dumps, c.first_seen or "", c.fingerprint))


def _cluster(  # noqa: PLR0913, PLR0917  (where it is, and with what it is compared)
    fingerprint: str,
    seen: _Seen,
    chosen: Chosen,
    paths: dict[str, str],
    earlier: tuple[Chosen | None, _Seen | None],
    now: Chosen | None = None,
) -> Cluster:
    """A cluster.

    Args:
        fingerprint: Of its findings.
        seen: Where they are.
        chosen: The dumps that these are of.
        paths: Of dumps.
        earlier: The dumps to compare with, and what there is of it.
        now: Where it is gone, the dumps that it is gone from.
    """
    rows = {dump: chosen.dumps[dump] for dump in seen.first}
    times = sorted(row["crashed_at"] for row in rows.values() if row["crashed_at"] is not None)
    # The latest of which the file is known.
    dump = max(rows, key=lambda d: (d in paths, _time(rows[d]["crashed_at"]) or "", d))
    finding = _finding(chosen, dump, seen.first[dump])
    before, was = earlier
    dumps, checked = (len(rows), chosen.checked) if now is None else (0, now.checked)
    dumps_before = None if before is None else len(was.first) if was else 0
    checked_before = None if before is None else before.checked
    return Cluster(
        fingerprint=fingerprint,
        signature=finding["signature"],
        rule=finding["rule"],
        severity=seen.severity,
        title=finding["title"],
        verdict=finding["verdict"],
        findings=seen.findings if now is None else 0,
        dumps=dumps,
        checked=checked,
        first_seen=_time(times[0]) if times else None,
        last_seen=_time(times[-1]) if times else None,
        kernels=_shares(chosen, rows, lambda row: row["release"] or "unknown"),
        hardware=_shares(chosen, rows, _machine),
        exemplar=Exemplar(
            dump,
            paths.get(dump),
            _time(rows[dump]["crashed_at"]),
            f"folioscope -c {shlex.quote(paths.get(dump) or 'VMCORE')} {finding['look']}",
            finding["because"] or [],
            finding["looks_like"] or [],
        ),
        change=None if before is None else _change((dumps, checked), (dumps_before or 0, checked_before or 0)),
        dumps_before=dumps_before,
        checked_before=checked_before,
    )


def _finding(chosen: Chosen, dump: str, number: int) -> dict[str, Any]:
    rows = chosen.dataset.read(FINDINGS, dump=dump).to_pylist()
    found: dict[str, Any] = next(row for row in rows if row["number"] == number)
    return found


def _machine(row: dict[str, Any]) -> str:
    """What a kernel ran on, as far as the dump says; memory in powers of two, as it is sold."""
    memory = row["memory_bytes"]
    words = [row["architecture"] or "unknown architecture"]
    words.append(f"{row['nr_cpus']} CPUs" if row["nr_cpus"] else "unknown CPUs")
    words.append(f"{_sold(memory)}" if memory else "unknown memory")
    return ", ".join(words)


def _sold(memory: int) -> str:
    power = 1 << (memory - 1).bit_length()
    return f"up to {power >> 30} GiB" if power >= 1 << 30 else f"up to {power >> 20} MiB"


def _shares(
    chosen: Chosen, rows: dict[str, dict[str, Any]], name: Callable[[dict[str, Any]], str]
) -> list[AffectedShare]:
    checked = Counter(name(row) for row in chosen.dumps.values() if _is_checked(row))
    has = Counter(name(row) for row in rows.values())
    return [AffectedShare(of, has[of], checked[of]) for of in sorted(has, key=lambda of: (-has[of], _natural(of)))]


def _change(now: tuple[int, int], before: tuple[int, int]) -> Change:
    """How a share of dumps changed; one that differs by no more than chance makes it is the same (a z-test)."""
    if not before[0]:
        return "new"
    if not now[0]:
        return "gone"
    of = now[1] + before[1]
    pooled = (now[0] + before[0]) / of
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / now[1] + 1 / before[1]))
    difference = now[0] / now[1] - before[0] / before[1]
    if not deviation or abs(difference) <= _BEYOND_CHANCE * deviation:
        return "same"
    return "more" if difference > 0 else "fewer"
