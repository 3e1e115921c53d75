"""What a check says of one dump, as rows of the dataset's tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import drgn

import inspector
from inspector.check.fingerprint import signature
from inspector.check.run import run_check
from inspector.errors import FolioscopeError
from inspector.findings import Finding, Report, Scalar
from inspector.fleet.content import Content, digest
from inspector.fleet.job import DumpTables
from inspector.fleet.schema import (
    COUNTERS,
    COVERAGE,
    DUMPS,
    EVIDENCE,
    FINDINGS,
    FOLIOS,
    MEMORY,
    MISSING,
    columns_of,
)
from inspector.folio.account import account_of
from inspector.report.memory import build_memory
from inspector.report.mthp import build_mthp
from inspector.snapshot import Snapshot
from inspector.subjects import kind_of
from inspector.target.target import Target
from inspector.text import clean

Row = dict[str, Any]

_UNKNOWN = (FolioscopeError, drgn.FaultError, LookupError, ValueError, AttributeError, TypeError)
"""What a part of a damaged or strange dump may raise."""

_INT64 = 1 << 63


def gather(target: Target, content: Content) -> DumpTables:
    """Check a dump, and give all that the dataset holds of it.

    Raises:
        FolioscopeError: It cannot be read far enough to check anything.
    """
    s = Snapshot(target)
    report = run_check(s)
    notes = [clean(note) for note in report.coverage.notes]
    parts = {
        COVERAGE: _coverage(report),
        MISSING: [{"what": what, "number": number} for what, number in report.coverage.missing.items()],
        FINDINGS: _findings(s, report.findings),
        EVIDENCE: [row for number, finding in enumerate(report.findings) for row in _evidence(number, finding)],
        FOLIOS: _part("folios", lambda: _folios(s), notes),
        COUNTERS: [*_of_check(report), *_part("counters", lambda: _counters(s), notes)],
        MEMORY: _part("memory", lambda: _memory(s), notes),
        DUMPS: [_checked(s, report, content, notes)],
    }
    of_it = {"dump": content.dump}
    return {table.name: columns_of(table, [row | of_it for row in rows]) for table, rows in parts.items()}


def _part(name: str, make: Callable[[], list[Row]], notes: list[str]) -> list[Row]:
    try:
        return make()
    except _UNKNOWN as error:
        reason = error.what if isinstance(error, FolioscopeError) else type(error).__name__
        notes.append(f"no {name}: {clean(reason)}")
        return []


def known_of(target: Target, content: Content) -> Row:
    """What is known of an opened dump, checked or not."""
    identity = target.identity
    stopped, uptime = identity.stopped_at, identity.uptime
    booted = stopped - uptime if stopped is not None and uptime is not None else None
    known = identity.build_id is not None and stopped is not None
    words = ("release", "version", "build_id", "architecture", "hostname", "panic_message")
    numbers = ("page_size", "paging_levels", "nr_cpus", "memory_bytes")
    return {
        "file_bytes": content.size,
        "crash": digest(identity.build_id, booted, stopped) if known else None,
        "kind": target.kind,
        "types_from": target.types_from,
        "booted_at": booted,
        "crashed_at": stopped,
        "missing_bytes": target.missing_bytes,
        "checked_by": inspector.__version__,
        **{name: None if getattr(identity, name) is None else clean(getattr(identity, name)) for name in words},
        **{name: getattr(identity, name) for name in numbers},
    }


def _checked(s: Snapshot, report: Report, content: Content, notes: list[str]) -> Row:
    return {
        **known_of(s.target, content),
        "state": "checked",
        "exit_code": report.exit_code,
        "scheme": s.scheme.name if s.scheme else None,
        "complete": report.coverage.complete,
        "notes": notes,
        **{severity: report.summary[severity] for severity in ("fail", "warn", "info")},
    }


def _coverage(report: Report) -> list[Row]:
    return [
        {"rule": c.rule, "state": c.state, "checked": c.checked, "unchecked": c.unchecked, "reason": clean(c.reason)}
        for c in report.coverage.rules
    ]


def _findings(s: Snapshot, findings: list[Finding]) -> list[Row]:
    seen: set[str] = set()
    out = []
    for number, finding in enumerate(findings):
        subject, diagnosis = finding.subject, finding.diagnosis
        first = finding.fingerprint not in seen
        seen.add(finding.fingerprint)
        out.append(
            {
                "number": number,
                "fingerprint": finding.fingerprint,
                "signature": clean(signature(finding)),
                "rule": finding.rule,
                "severity": finding.severity,
                "exactness": finding.exactness,
                "title": finding.title,
                "count": finding.count,
                "subject": subject.kind,
                **{name: getattr(subject, name) for name in ("pfn", "page", "order", "mm", "pid", "va", "vma")},
                "address": subject.address,
                "comm": _clean(subject.comm),
                "name": _clean(subject.name),
                "verdict": diagnosis.verdict if diagnosis else None,
                "because": [clean(reason) for reason in diagnosis.because] if diagnosis else [],
                "also": list(finding.evidence.also),
                "looks_like": _looks_like(s, finding) if first else [],
                "mappings": finding.evidence.nr_mappings,
                "look": clean(kind_of(subject).look(subject)),
            }
        )
    return out


def _clean(text: str | None) -> str | None:
    return None if text is None else clean(text)


def _looks_like(s: Snapshot, finding: Finding) -> list[str]:
    """What `explain` proposes about the folio that it concerns."""
    pfn = finding.subject.pfn
    if pfn is None:
        return []
    try:
        return [clean(sentence) for sentence in account_of(s, pfn).looks_like]
    except _UNKNOWN:
        return []


def _evidence(number: int, finding: Finding) -> list[Row]:
    evidence = finding.evidence
    values = (("observed", finding.observed), ("expected", finding.expected), ("fact", evidence.facts))
    out: list[Row] = [
        {"number": number, "what": what, "name": clean(name), "value": _value(value)}
        for what, members in values
        for name, value in members.items()
    ]
    for m in evidence.mappings:
        place = {"mm": m.mm, "va": m.va, "level": m.level, "pfn": m.pfn, "entry": m.entry}
        out.append({"number": number, "what": "mapping", **place, "pid": m.pid, "comm": _clean(m.comm)})
    return out


def _value(value: Scalar) -> str | None:
    if value is None or isinstance(value, str):
        return _clean(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _folios(s: Snapshot) -> list[Row]:
    return [{name: getattr(size, name) for name in size.__struct_fields__} for size in build_mthp(s).sizes]


def _of_check(report: Report) -> list[Row]:
    return [
        {"place": "check", "name": name, "counted": number}
        for name, number in report.summary.items()
        if isinstance(number, int) and name not in ("fail", "warn", "info")
    ]


def _counters(s: Snapshot) -> list[Row]:
    out: list[Row] = [
        {"place": each.of, "name": each.counter, "stored": _signed(each.stored), "counted": each.pages}
        | {"in_motion": each.in_motion}
        for each in build_memory(s).sums
    ]
    items = s.node_counters
    for node, zone, item, stored in zip(
        items.node.tolist(), items.zone.tolist(), items.item.tolist(), items.stored.tolist(), strict=True
    ):
        of = f"node {node}" if zone < 0 else f"node {node} zone {zone}"
        out.append({"place": of, "name": item, "stored": stored})
    return out


def _signed(value: int) -> int | None:
    """A word of 64 bits as the column holds it."""
    return value if -_INT64 <= value < _INT64 else value - 2 * _INT64


def _memory(s: Snapshot) -> list[Row]:
    report = build_memory(s)
    shift = s.layout.memmap.page_shift
    out: list[Row] = []
    for kind in report.kinds:
        by_zone = [*zip(report.zones, kind.by_zone, strict=True), (None, kind.pages - sum(kind.by_zone))]
        out += [
            {"kind": kind.kind, "zone": zone, "pages": pages, "bytes": pages << shift}
            for zone, pages in by_zone
            if pages
        ]
    return out
