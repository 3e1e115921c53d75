"""Run rules over a snapshot and report what they found, what they looked at and what they could not."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable

import msgspec
import numpy as np

from inspector.check.cause import gather_causes
from inspector.check.cause_types import Cause
from inspector.check.diagnosis import diagnose
from inspector.check.subjects import MAX_EVIDENCE, describe_mapping, describe_mappings, scalar, subject_of
from inspector.check.target_facts import target_facts
from inspector.errors import Exit
from inspector.findings import SCHEMA, Coverage, Evidence, Finding, Mapping, Report, RuleCoverage, Scalar, Subject
from inspector.rules import Rule, Violations, select_rules
from inspector.rules.needs import lacking
from inspector.rules.registry import nothing
from inspector.snapshot import Snapshot
from inspector.text import clean
from inspector.windows.grading import IN_FLIGHT, grade

MAX_FINDINGS = 200
"""Findings listed for one rule; the rest is counted in the last of them."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""


def run_check(
    snapshot: Snapshot,
    rules: Iterable[str] = (),
    *,
    progress: Progress | None = None,
    found: Callable[[list[Finding]], None] | None = None,
    max_findings: int = MAX_FINDINGS,
) -> Report:
    """Check one target.

    Args:
        snapshot: Of the target.
        rules: Slugs or groups; all when empty.
        progress: Told about each step.
        found: Told, after each rule that found something, all findings so far; causes come before consequences, so
            later rules add to them.
        max_findings: Findings to list for each rule.

    Returns:
        The report, its ``exit_code`` set.

    Raises:
        UsageError: A rule does not exist.
        TargetError: The target cannot be read far enough to check anything.
    """
    chosen = select_rules(rules)
    steps = len(chosen) + len(_STAGES)
    tell = progress or (lambda _what, _done, _all: None)
    prepare(snapshot, tell, len(chosen))
    results: list[tuple[Rule, Violations]] = []
    covered: list[RuleCoverage] = []
    for done, rule in enumerate(chosen, len(_STAGES)):
        tell(rule.slug, done, steps)
        reason = rule.applies(snapshot.scheme)
        if reason:
            covered.append(RuleCoverage(rule.slug, 0, state="not-applicable", reason=reason))
            continue
        violations = violations_of(snapshot, rule)
        results.append((rule, violations))
        covered.append(_covered(rule, violations))
        if found is not None and len(violations):
            found(_findings(snapshot, gather_causes(snapshot, results), max_findings))
    tell("findings", steps, steps)
    causes = gather_causes(snapshot, results)
    findings = _findings(snapshot, causes, max_findings)
    findings = [msgspec.structs.replace(f, diagnosis=diagnose(snapshot, f)) for f in findings]
    coverage = _coverage(snapshot, covered)
    return Report(
        SCHEMA,
        target_facts(snapshot),
        coverage,
        _summary(snapshot, findings, len(causes), covered),
        findings,
        int(_exit_code(findings, coverage)),
    )


_STAGES: tuple[tuple[str, Callable[[Snapshot], object]], ...] = (
    ("memory map", lambda s: s.folios),
    ("processes", lambda s: s.vmas),
    ("page tables", lambda s: s.tables),
    ("counting", lambda s: s.counts),
    ("model", lambda s: s.expected),
)


def prepare(snapshot: Snapshot, progress: Progress, steps_after: int = 0) -> None:
    """Build the tables that everything rests on, telling about each step."""
    for done, (what, build) in enumerate(_STAGES):
        progress(what, done, len(_STAGES) + steps_after)
        build(snapshot)


def violations_of(s: Snapshot, rule: Rule) -> Violations:
    """What a check takes a rule to have found: nothing where it lacks what it needs; work in flight marked."""
    return grade(s, rule, _withhold(rule, rule.function(s), s))


def _withhold(rule: Rule, found: Violations, s: Snapshot) -> Violations:
    """No accusation from a rule that lacks what it needs whole."""
    gone = lacking(rule, s.missing.counts)
    if not gone or not len(found):
        return found
    why = f"{gone} are missing: {len(found)} suspicions, which that may explain, are not reported"
    return nothing(found.subject, 0, found.checked + found.unchecked, why)


def _covered(rule: Rule, found: Violations) -> RuleCoverage:
    if not found.unchecked:
        return RuleCoverage(rule.slug, found.checked)
    state = "partial" if found.checked else "not-checked"
    return RuleCoverage(rule.slug, found.checked, found.unchecked, state, found.why_unchecked)  # type: ignore[arg-type]


def _coverage(s: Snapshot, covered: list[RuleCoverage]) -> Coverage:
    notes = list(s.missing.notes)
    if s.target.ran_on:
        what, todo = ("read", "check") if s.target.is_live else ("captured", "capture it")
        notes.append(
            f"the kernel ran on while it was {what}: a finding may be a change caught half way, so {todo} again"
        )
    if s.scheme is None:
        notes.append("the accounting scheme of this kernel is not known: rules that depend on it were not applied")
    complete = (
        s.missing.complete and s.scheme is not None and not any(c.state in ("partial", "not-checked") for c in covered)
    )
    return Coverage(complete, dict(s.missing.counts), covered, notes)


def _exit_code(findings: list[Finding], coverage: Coverage) -> Exit:
    if any(f.severity in ("fail", "warn") for f in findings):
        return Exit.FINDINGS
    return Exit.CLEAN if coverage.complete else Exit.INCOMPLETE


def _summary(s: Snapshot, findings: list[Finding], causes: int, covered: list[RuleCoverage]) -> dict[str, Scalar]:
    m, counts = s.mappings, s.counts
    return {
        "struct_pages": len(s.pages),
        "compound_pages": len(s.folios),
        "mms": len(s.mms),
        "vmas": len(s.vmas),
        "page_tables": int(s.tables.first.sum()),
        "leaf_entries": int(m.nr.sum()),
        "nonpresent_entries": len(s.nonpresent),
        "mapped_pages": int((counts.page_mappings > 0).sum()),
        "rules_run": sum(c.state != "not-applicable" for c in covered),
        "causes": causes,
        "fail": sum(f.severity == "fail" for f in findings),
        "warn": sum(f.severity == "warn" for f in findings),
        "info": sum(f.severity == "info" for f in findings),
    }


def _findings(s: Snapshot, causes: list[Cause], limit: int) -> list[Finding]:
    out: list[Finding] = []
    listed: dict[str, int] = {}
    surplus: dict[str, int] = {}
    for cause in causes:
        slug = cause.rule.slug
        if listed.get(slug, 0) >= limit:
            surplus[slug] = surplus.get(slug, 0) + len(cause.rows)
            continue
        listed[slug] = listed.get(slug, 0) + 1
        out.append(_finding(s, cause))
    if not surplus:
        return out
    last = {f.rule: i for i, f in enumerate(out)}
    for slug, more in surplus.items():
        at = last[slug]
        facts = {**out[at].evidence.facts, "not_listed": f"{more} more of the same rule"}
        kept = out[at].evidence
        evidence = Evidence(facts, kept.mappings, kept.nr_mappings, kept.also)
        out[at] = _replace(out[at], evidence, out[at].count + more)
    return out


def _replace(finding: Finding, evidence: Evidence, count: int) -> Finding:
    return Finding(
        finding.rule,
        finding.severity,
        finding.exactness,
        finding.subject,
        finding.title,
        finding.observed,
        finding.expected,
        evidence,
        finding.look,
        count,
    )


def _finding(s: Snapshot, cause: Cause) -> Finding:
    found, first = cause.violations, cause.rows[0]
    row = int(found.rows[first])
    facts: dict[str, Scalar] = {name: scalar(column[first]) for name, column in found.facts.items()}
    if not facts.get(IN_FLIGHT, True):
        del facts[IN_FLIGHT]
    if len(cause.rows) > 1 and found.subject == "page":
        pfns = s.pages.memmap.pfns_of_rows(found.rows[np.array(cause.rows)])
        shown = ", ".join(f"{p:#x}" for p in pfns[:8].tolist())
        facts["pages"] = f"{len(pfns)} pages: {shown}{' ...' if len(pfns) > 8 else ''}"
    facts.update(cause.facts)
    mappings, total = _evidence(s, found, row)
    in_flight = found.transient is not None and all(bool(found.transient[i]) for i in cause.rows)
    subject = subject_of(s, found.subject, row)
    return Finding(
        rule=cause.rule.slug,
        severity="info" if in_flight else cause.rule.severity,
        exactness="transient" if in_flight else cause.rule.exactness,
        subject=subject,
        title=cause.rule.title,
        observed={name: scalar(column[first]) for name, column in found.observed.items()},
        expected={name: scalar(column[first]) for name, column in found.expected.items()},
        evidence=Evidence(facts, mappings, total, cause.also),
        look=_look(s, found.subject, subject),
        count=len(cause.rows),
    )


def _evidence(s: Snapshot, found: Violations, row: int) -> tuple[list[Mapping], int]:
    match found.subject:
        case "page":
            return describe_mappings(s, int(s.pages.memmap.pfns_of_rows(np.array([row]))[0]), 1)
        case "folio":
            nr = min(int(s.folios.nr_pages[row]), 1 << 20)
            return describe_mappings(s, int(s.folios.pfn[row]), nr)
        case "mapping":
            return [describe_mapping(s, row)], int(s.mappings.nr[row])
        case _:
            return [], 0


def _look(s: Snapshot, kind: str, subject: Subject) -> str:
    """The command that shows more about the subject; an mm without a task is named by its address."""
    path = shlex.quote(clean(s.target.path))
    opened = {"core": f"-c {path}", "kdump": f"-c {path}", "qemu": f"--qemu {path}"}.get(s.target.kind, "-k")
    if kind == "task":
        return f"folioscope {opened} windows --stack {subject.pid}"
    if kind in ("ksm", "stable_node", "hstate"):
        return f"folioscope {opened} {'hugetlb' if kind == 'hstate' else 'ksm'}"
    if kind.startswith("swap_"):
        return f"folioscope {opened} swap"
    if kind == "anon_vma" and subject.address is not None:
        return f"folioscope {opened} anon-vma {subject.address:#x}"
    if kind in ("space", "i_mmap", "cached_space") and subject.address is not None:
        return f"folioscope {opened} file {subject.address:#x}"
    process = str(subject.pid) if subject.pid is not None else f"{subject.mm:#x}" if subject.mm is not None else ""
    if kind in ("page", "folio") and subject.pfn is not None:
        return f"folioscope {opened} folio {subject.pfn:#x}"
    if process and subject.va is not None and kind != "mm":
        return f"folioscope {opened} va {process} {subject.va:#x}"
    if process:
        return f"folioscope {opened} vmas {process}"
    return f"folioscope {opened} page {subject.pfn:#x}" if subject.pfn is not None else f"folioscope {opened} ps"


__all__ = ["MAX_EVIDENCE", "MAX_FINDINGS", "Progress", "prepare", "run_check", "violations_of"]
