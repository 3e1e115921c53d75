"""Run rules over a snapshot and report what they found, what they checked and what they could not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np

from inspector.check.aside import RulesAside
from inspector.check.cause import gather_causes
from inspector.check.fingerprint import fingerprint
from inspector.check.left_out import likely_reason, tables_left_out
from inspector.check.one_word import Explained, find_words, join_explained
from inspector.check.overwritten import find_stretches, together, with_what_broke
from inspector.check.prepare import STAGES, Progress, prepare
from inspector.check.target_facts import target_facts
from inspector.columns import spans
from inspector.errors import Exit, LayoutError
from inspector.findings import SCHEMA, Confirmation, Coverage, Evidence, Finding, Report, RuleCoverage, Scalar
from inspector.records import dataclass
from inspector.rules import Rule, all_rules, select_rules
from inspector.rules.catalogue import NOT_AUDITED
from inspector.rules.cause import Cause, Causes
from inspector.rules.memory.overwritten import memory_stretch_damaged
from inspector.rules.needs import lacking
from inspector.rules.page_pieces import PagesPredicate, judge_together
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.tables.overwritten import Stretch
from inspector.text import counted, size
from inspector.violations import Unread, Violations, cannot_check, holds
from inspector.walk.batches import MakeCollector
from inspector.windows.grading import IN_FLIGHT, grade, unknown_stacks

MAX_FINDINGS = 200
"""Findings listed for one rule; the rest is counted in the last of them."""


@dataclass(frozen=True)
class RulesRun:
    """What rules found in one snapshot, before causes are gathered.

    Attributes:
        snapshot: Of the target.
        results: Rules that apply, causes before consequences, with what each found.
        covered: How far each rule got.
        explained: What single words brought about.
    """

    snapshot: Snapshot
    results: list[tuple[Rule, Violations]]
    covered: list[RuleCoverage]
    explained: tuple[Explained, ...] = ()

    def causes(self) -> Causes:
        """What the violations come down to."""
        causes = gather_causes(self.snapshot, self.results)
        join_explained(causes, self.explained)
        return causes

    def findings(self, limit: int = MAX_FINDINGS) -> list[Finding]:
        """One finding for each cause, ``limit`` for each rule."""
        return _findings(self.snapshot, self.causes(), limit)

    def report(
        self,
        limit: int = MAX_FINDINGS,
        confirmation: Confirmation | None = None,
        missing: dict[str, int] | None = None,
    ) -> Report:
        """The report, its ``exit_code`` set.

        Args:
            limit: Findings to list for each rule.
            confirmation: How what the look found was confirmed, where that was done.
            missing: What could not be read in any of several looks; what this one could not read when not given.
        """
        s, covered = self.snapshot, self.covered
        causes = self.causes()
        findings = _findings(s, causes, limit)
        lacks = dict(s.missing.counts) if missing is None else missing
        coverage = _coverage(s, covered, self.results, lacks, is_confirmed=confirmation is not None)
        summary = _summary(s, findings, len(causes), covered)
        return Report(
            SCHEMA, target_facts(s), coverage, summary, findings, int(_exit_code(findings, coverage)), confirmation
        )


def run_check(
    snapshot: Snapshot,
    rules: Iterable[str] = (),
    *,
    progress: Progress | None = None,
    found: Callable[[list[Finding]], None] | None = None,
    max_findings: int = MAX_FINDINGS,
    collects: Iterable[MakeCollector] = (),
) -> Report:
    """Check one target once; `inspector.check.confirm.check_target` checks several times where it runs on.

    Args:
        snapshot: Of the target.
        rules: Slugs or groups; all when empty.
        progress: Called at each step.
        found: Called after each rule that found something, with all findings so far; causes come before consequences,
            so later rules add to them.
        max_findings: Findings to list for each rule.
        collects: What shall see all leaf entries in the same walk, for others (`Snapshot.collected`).

    Returns:
        The report, its ``exit_code`` set.

    Raises:
        UsageError: A rule does not exist.
        TargetError: The target cannot be read far enough to check anything.
    """

    def show(look: RulesRun) -> None:
        if found is not None:
            found(look.findings(max_findings))

    chosen = select_rules(rules)
    look = take_look(snapshot, chosen, progress, show, collects)
    return _with_fewest_causes(look, chosen, progress).report(max_findings)


def _with_fewest_causes(look: RulesRun, chosen: Sequence[Rule], progress: Progress | None) -> RulesRun:
    """The look without stretches that were overwritten, or one in which single words explain more than these do."""
    apart = _apart_from_overwritten(look, chosen, progress)
    last = _with_words(apart, chosen, progress)
    if apart is look or len(last.causes()) == 1:
        return last
    least = len(last.causes())
    other = _with_words(look, chosen, progress, least)
    return other if len(other.causes()) < least else last


def _with_words(
    look: RulesRun, chosen: Sequence[Rule], progress: Progress | None, fewer_than: int | None = None
) -> RulesRun:
    """The look with what single words in it brought about, as far as these may leave fewer causes than some."""
    s = look.snapshot
    if s.target.ran_on or s.search != "all page tables":
        return look

    def without(places: tuple[Stretch, ...]) -> RulesRun:
        return take_look(s.without(places), chosen, progress)

    return replace(look, explained=tuple(find_words(s, look.causes(), without, fewer_than)))


_ROUNDS = 3
"""How often stretches are looked for: without one, another may show."""


def _apart_from_overwritten(look: RulesRun, chosen: Sequence[Rule], progress: Progress | None) -> RulesRun:
    """The look, or one that does not read stretches of memory in which something else was written.

    Where the kernel runs on, what looks overwritten may be memory that was given away while it was read.
    """
    stretches: tuple[Stretch, ...] = ()
    last = look
    if memory_stretch_damaged not in chosen or look.snapshot.target.ran_on:
        return look
    for _ in range(_ROUNDS):
        more = find_stretches(last.snapshot, last.results)
        if not more:
            break
        stretches = together(look.snapshot, stretches, more)
        last = take_look(look.snapshot.without(stretches), chosen, progress)
    if not stretches:
        return look
    last.snapshot.overwritten = with_what_broke(stretches, look.results, last.results)
    results = [
        (rule, violations_of(last.snapshot, rule) if rule is memory_stretch_damaged else found)
        for rule, found in last.results
    ]
    return replace(last, results=results)


def take_look(
    snapshot: Snapshot,
    chosen: Sequence[Rule],
    progress: Progress | None = None,
    found: Callable[[RulesRun], None] | None = None,
    collects: Iterable[MakeCollector] = (),
) -> RulesRun:
    """Run some rules, causes before consequences.

    Args:
        snapshot: Of the target.
        chosen: The rules, in their order.
        progress: Called at each step.
        found: Called after each rule that found something, with what there is by then.
        collects: What shall see all leaf entries in the same walk, for others.

    Raises:
        TargetError: The target cannot be read far enough to check anything.
    """
    before = len(STAGES) + 1
    steps = len(chosen) + before
    report_step = progress or (lambda _what, _done, _all: None)
    aside = RulesAside(snapshot, chosen, violations_of)
    with aside:
        prepare(snapshot, report_step, len(chosen) + 1)
    report_step("entries", len(STAGES), steps)
    with aside:
        collect_for(snapshot, chosen, collects)
    predicates = [rule.predicate for rule in chosen if not rule.applies(snapshot.scheme)]
    with aside:
        judge_together(snapshot, [p for p in predicates if isinstance(p, PagesPredicate)])
    look = RulesRun(snapshot, [], [])
    for done, rule in enumerate(chosen, before):
        report_step(rule.slug, done, steps)
        reason = rule.applies(snapshot.scheme)
        if reason:
            look.covered.append(RuleCoverage(rule.slug, 0, state="not-applicable", reason=reason))
            continue
        held = aside.held.get(rule)
        violations = violations_of(snapshot, rule) if held is None else held
        look.results.append((rule, violations))
        look.covered.append(_covered(rule, violations))
        if found is not None and len(violations):
            found(look)
    report_step("findings", steps, steps)
    return look


def collect_for(s: Snapshot, rules: Iterable[Rule], others: Iterable[MakeCollector] = ()) -> None:
    """Let everything that some rules, and others, want to know of leaf entries be gathered in one walk."""
    wanted = [make for rule in rules if not rule.applies(s.scheme) for make in rule.collects]
    makers = [*wanted, *others]
    try:
        s.collect(makers)
    except LayoutError:
        # One at a time: the rule of the one that fails says why.
        for make in makers:
            with suppress(LayoutError):
                s.collect([make])


def violations_of(s: Snapshot, rule: Rule) -> Violations:
    """What a check takes a rule to have found, work in flight marked; nothing from a rule that lacks what it needs."""
    try:
        found = rule.run(s)
    except LayoutError as error:
        return holds(0, cannot_check(1, error.what))
    gone = lacking(s, rule.needs) if len(found) else ""
    if gone:
        why = f"{counted(len(found), 'possible violation')} suppressed: required data is missing ({gone})"
        return holds(0, cannot_check(found.checked + found.unread.nr, why), found.note)
    return grade(s, rule.about, rule.effect, found)


def _covered(rule: Rule, found: Violations) -> RuleCoverage:
    return covered_but(rule.slug, found.checked, found.unread)


def covered_but(slug: str, checked: int, unread: Unread) -> RuleCoverage:
    """How far a rule got."""
    if not unread.nr:
        return RuleCoverage(slug, checked)
    state: Literal["partial", "not-checked"] = "partial" if checked else "not-checked"
    return RuleCoverage(slug, checked, unread.nr, state, unread.why)


def _coverage(
    s: Snapshot,
    covered: list[RuleCoverage],
    results: list[tuple[Rule, Violations]],
    missing: dict[str, int],
    *,
    is_confirmed: bool,
) -> Coverage:
    notes = [*s.missing.notes, *dict.fromkeys(found.note for _, found in results if found.note)]
    if any(len(found) and rule.effect for rule, found in results) and unknown_stacks(s):
        notes.append(unknown_stacks(s))
    notes += filter(None, (likely_reason(s.layout, s.missing), tables_left_out(s)))
    if s.target.ran_on and not is_confirmed:
        what, todo = ("read", "check") if s.target.is_live else ("captured", "capture it")
        notes.append(
            f"the kernel ran on while it was {what}: a finding may be a change caught half way, so {todo} again"
        )
    if s.scheme is None:
        notes.append("the accounting scheme of this kernel is not known: rules that depend on it were not applied")
    if s.target.missing_bytes:
        notes.append(f"the dump is truncated: {size(s.target.missing_bytes)} of memory at its end are missing")
    whole = not missing and not s.target.missing_bytes
    complete = whole and s.scheme is not None and not any(c.state in ("partial", "not-checked") for c in covered)
    not_audited = list(NOT_AUDITED) if len(covered) == len(all_rules()) else []
    return Coverage(complete, missing, covered, notes, not_audited)


def _exit_code(findings: list[Finding], coverage: Coverage) -> Exit:
    if any(f.severity in ("fail", "warn") for f in findings):
        return Exit.FINDINGS
    return Exit.CLEAN if coverage.complete else Exit.INCOMPLETE


def _number(count: Callable[[], int]) -> int | None:
    """A number of the summary; None where what it counts is not known of this kernel."""
    try:
        return int(count())
    except LayoutError:
        return None


def _summary(s: Snapshot, findings: list[Finding], causes: int, covered: list[RuleCoverage]) -> dict[str, Scalar]:

    def mapped_pages() -> int:
        return sum(int(np.count_nonzero(s.counts.page_mappings[rows])) for rows in spans(len(s.pages)))

    return {
        "struct_pages": _number(lambda: len(s.pages)),
        "compound_pages": _number(lambda: len(s.folios)),
        "mms": _number(lambda: len(s.mms)),
        "vmas": _number(lambda: len(s.vmas)),
        "page_tables": _number(lambda: s.tables.first.sum()),
        "leaf_entries": _number(lambda: s.counts.nr_entries),
        "nonpresent_entries": _number(lambda: len(s.nonpresent)),
        "mapped_pages": _number(mapped_pages),
        "rules_run": sum(c.state != "not-applicable" for c in covered),
        "causes": causes,
        "fail": sum(f.severity == "fail" for f in findings),
        "warn": sum(f.severity == "warn" for f in findings),
        "info": sum(f.severity == "info" for f in findings),
    }


def _findings(s: Snapshot, causes: Causes, limit: int) -> list[Finding]:
    chosen: list[Cause] = []
    listed: dict[str, int] = {}
    surplus: dict[str, int] = {}
    for cause in causes:
        slug = cause.rule.slug
        if listed.get(slug, 0) >= limit:
            surplus[slug] = surplus.get(slug, 0) + len(cause.positions)
            continue
        listed[slug] = listed.get(slug, 0) + 1
        chosen.append(cause)
    # The mappings that prove them are looked for together.
    s.known_entries.of_pages(c.rule.about.stretch(s, c.first_row) for c in chosen if c.rule.about.stretch is not None)
    out = [_finding(s, cause) for cause in chosen]
    out = [msgspec.structs.replace(f, fingerprint=fingerprint(f)) for f in out]
    if not surplus:
        return out
    last = {f.rule: i for i, f in enumerate(out)}
    for slug, more in surplus.items():
        at = last[slug]
        facts = {**out[at].evidence.facts, "not_listed": f"{more} more of the same rule"}
        evidence = msgspec.structs.replace(out[at].evidence, facts=facts)
        out[at] = msgspec.structs.replace(out[at], evidence=evidence, count=out[at].count + more)
    return out


def _finding(s: Snapshot, cause: Cause) -> Finding:
    rule, details, first, row = cause.rule, cause.violations.details, cause.positions[0], cause.first_row
    facts: dict[str, Scalar] = {name: plain_value(column[first]) for name, column in details.facts.items()}
    if not facts.get(IN_FLIGHT, True):
        del facts[IN_FLIGHT]
    if len(cause.positions) > 1 and rule.about is PAGE:
        pfns = s.pages.memmap.pfns_of_rows(cause.rows)
        shown = ", ".join(f"{p:#x}" for p in pfns[:8].tolist())
        facts["pages"] = f"{len(pfns)} pages: {shown}{' ...' if len(pfns) > 8 else ''}"
    facts.update(cause.facts)
    mappings, total = rule.about.evidence(s, row)
    in_flight = details.transient is not None and bool(details.transient[cause.positions].all())
    subject = rule.about.describe(s, row)
    finding = Finding(
        rule=rule.slug,
        severity="info" if in_flight else rule.severity,
        exactness="transient" if in_flight else rule.exactness,
        subject=subject,
        title=rule.title,
        observed={name: plain_value(column[first]) for name, column in details.observed.items()},
        expected={name: plain_value(column[first]) for name, column in details.expected.items()},
        evidence=Evidence(facts, mappings, total, cause.also),
        look=f"folioscope {s.target.options} {rule.about.look(subject)}",
        count=len(cause.positions),
    )
    if cause.diagnosis is not None:
        return msgspec.structs.replace(finding, diagnosis=cause.diagnosis)
    # Where work in flight explains it, or it is only worth knowing, there is nothing to diagnose.
    if rule.diagnose is None or finding.severity == "info":
        return finding
    return msgspec.structs.replace(finding, diagnosis=rule.diagnose(s, finding))


def plain_value(value: object) -> Scalar:
    """A NumPy scalar as the plain value that goes into a report."""
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (int, bool)) or value is None:
        return value
    return str(value)


__all__ = ["MAX_FINDINGS", "RulesRun", "Progress", "collect_for", "prepare", "run_check", "take_look", "violations_of"]
