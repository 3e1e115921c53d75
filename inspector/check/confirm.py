"""Checks of kernels that run on: what a look finds is read again before it is reported.

Struct pages, page tables and lists are read one after the other while the kernel changes them, so that every look into
a busy kernel finds hundreds of differences that never were. A violation is reported only when it is there in every
look, about the same subject, with the same values, mapped by the same processes, and when what the kernel stores of
its subject stayed the same all the time in between. Everything else is counted. What is really wrong with something
that changes all the time is therefore missed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from inspector.check.own import own_mms
from inspector.check.prepare import Progress
from inspector.check.run import MAX_FINDINGS, RulesRun, covered_but, plain_value, run_check, take_look
from inspector.findings import Confirmation, Finding, Report, RuleCoverage, Scalar
from inspector.records import dataclass
from inspector.rules import Rule, select_rules
from inspector.snapshot import Snapshot
from inspector.subjects import stored_at
from inspector.text import counted
from inspector.violations import Unread, Violations, some_of
from inspector.windows.grading import explained, work_of_known_stacks

if TYPE_CHECKING:
    from inspector.columns import U8, U64
    from inspector.memory import Memory

LOOKS = 3
"""Looks into a kernel that runs on, unless asked otherwise."""

FIRST_GAP = 0.25
"""Seconds between the first look and the second; each further gap is twice as long."""

_MAX_GAP = 4.0

_PATIENCE = 2
"""How many times as many looks are taken while something could be read in none of them."""

_BETWEEN_SAMPLES = 0.01
"""Seconds between two samples of what is stored of the suspects."""

_MAX_SUSPECTS = 20_000
"""Violations of one rule that are followed; a rule with more counts as not checked beyond."""

_GONE, _VALUES, _MAPPERS, _STORED, _OWN = (
    "were gone in another look",
    "had other values in another look",
    "were mapped elsewhere in another look",
    "changed while they were watched",
    "were of the inspector's own memory",
)


def gaps(looks: int = LOOKS) -> list[float]:
    """Seconds between so many looks, one after the other."""
    return [min(FIRST_GAP * 2**number, _MAX_GAP) for number in range(looks - 1)]


@dataclass(frozen=True)
class Suspect:
    """A violation as it can be known again in another look.

    Attributes:
        rule: Slug.
        subject: `inspector.findings.Subject.identity`.
        values: What was stored and what was expected, by name.
    """

    rule: str
    subject: tuple[str | int | None, ...]
    values: tuple[tuple[str, Scalar], ...]
    is_gone: bool = False
    """An entry that mapped nothing any more when it was read again."""


def check_target(
    snapshot: Snapshot,
    rules: Iterable[str] = (),
    *,
    looks: int = LOOKS,
    progress: Progress | None = None,
    found: Callable[[list[Finding]], None] | None = None,
    max_findings: int = MAX_FINDINGS,
) -> Report:
    """Check a target: by one look where nothing in it changes, by several where the kernel runs on.

    Args:
        snapshot: Of the target; the first look is taken in it.
        rules: Slugs or groups; all when empty.
        looks: How often a violation must be there before it is reported, at least 2.
        progress: Called at each step.
        found: As for `run_check`; of a kernel that runs on it is called at the end alone, with what was confirmed.
        max_findings: Findings to list for each rule.

    Raises:
        UsageError: A rule does not exist.
        TargetError: The target cannot be read far enough to check anything.
    """
    if not snapshot.target.is_live:
        return run_check(snapshot, rules, progress=progress, found=found, max_findings=max_findings)
    report = _Confirming(snapshot, select_rules(rules), progress).run(looks, max_findings)
    if found is not None:
        found(report.findings)
    return report


class _Confirming:
    """The looks into one kernel that runs on.

    Args:
        snapshot: The first look's.
        chosen: The rules.
        progress: Called at each step.
    """

    def __init__(self, snapshot: Snapshot, chosen: list[Rule], progress: Progress | None) -> None:
        self._first = snapshot
        self._chosen = chosen
        self._progress = progress
        self._looks = 0
        self._seconds: list[float] = []
        self._suspects: set[Suspect] = set()
        self._covered: dict[str, RuleCoverage] = {}
        self._missing: dict[str, int] = {}
        self._explained: dict[Suspect, str] = {}
        self._mappers: dict[Suspect, int] = {}
        self._why: Counter[str] = Counter()
        self._by_rule: Counter[str] = Counter()

    def run(self, looks: int, max_findings: int) -> Report:
        """Take the looks and report what is there in all of them."""
        self._looks = looks
        look = self._take(self._first, self._chosen)
        self._suspects = look.followed()
        self._covered = {c.rule: _limited(c, look.run) for c in look.run.covered}
        self._missing = dict(look.snapshot.missing.counts)
        nr_suspects = len(self._suspects)
        watch = _Watch(self._first.layout.memory)
        self._drop(_own_suspects(look), _OWN)
        self._mappers = self._mappers_in(look)
        watch.add(self._places(look))
        # What none of the looks could read may only have been in motion in each: that is worth more of them.
        for gap in gaps(_PATIENCE * looks):
            self._drop(watch.moved(self._suspects, gap), _STORED)
            unread = {c.rule for c in self._covered.values() if c.unchecked}
            open_ = {s.rule for s in self._suspects} | unread
            if not open_ and not self._missing:
                break
            if len(self._seconds) >= looks and not unread and not self._missing:
                break
            look = self._take(Snapshot(self._first.target), [r for r in self._chosen if r.slug in open_])
            self._compare(look)
            self._drop(watch.moved(self._suspects, 0), _STORED)
            self._cover(look.run)
        kept = self._kept(look)
        why, rules = (dict(counter.most_common()) for counter in (self._why, self._by_rule))
        confirmation = Confirmation(len(self._seconds), self._seconds, nr_suspects, self._why.total(), why, rules)
        return kept.report(max_findings, confirmation, self._missing)

    def _take(self, snapshot: Snapshot, rules: list[Rule]) -> _Look:
        """One look, and what it took."""
        number, began = len(self._seconds) + 1, time.monotonic()

        def step(what: str, done: int, steps: int) -> None:
            if self._progress is not None:
                before = (number - 1) * steps
                self._progress(f"look {number} of {self._looks}: {what}", before + done, self._looks * steps)

        run = take_look(snapshot, rules, step)
        self._seconds.append(round(time.monotonic() - began, 3))
        return _Look(run, [_suspects(snapshot, rule, found) for rule, found in run.results])

    def _drop(self, gone: set[Suspect], why: str) -> None:
        """Dismiss suspects."""
        self._why.update({why: len(gone)} if gone else {})
        self._by_rule.update(s.rule for s in gone)
        self._suspects -= gone

    def _compare(self, look: _Look) -> None:
        """Dismiss what another look does not find with the same values."""
        there = look.followed()
        subjects = {(s.rule, s.subject) for s in there}
        away = self._suspects - there
        other = {s for s in away if (s.rule, s.subject) in subjects}
        self._drop(other, _VALUES)
        self._drop(away - other, _GONE)
        # One mapping too few may be of another process in each look: the number alone does not show it.
        mappers = self._mappers_in(look)
        self._drop({s for s, who in mappers.items() if who != self._mappers.get(s)}, _MAPPERS)
        for rule, found, suspects in look.results() if self._suspects else ():
            left, keep = self._left(found, suspects)
            work = work_of_known_stacks(look.snapshot, rule.about, rule.effect, left).tolist()
            self._explained.update({suspects[at]: words for at, words in zip(keep, work, strict=True) if words})

    def _cover(self, look: RulesRun) -> None:
        """What one look could not read another may have read."""
        for now in look.covered:
            before = self._covered[now.rule]
            if now.unchecked < before.unchecked:
                self._covered[now.rule] = now
        still, counts = look.snapshot.read_whole(frozenset(self._missing)), look.snapshot.missing.counts
        self._missing = {what: min(n, counts[what]) for what, n in self._missing.items() if what in still}

    def _places(self, look: _Look) -> dict[Suspect, list[tuple[int, int]]]:
        """Where what is stored of each suspect lies."""
        s = look.snapshot
        return {
            suspect: stored_at(s, rule.about.describe(s, int(found.rows[at])))
            for rule, found, suspects in look.results()
            for at, suspect in enumerate(suspects)
            if suspect in self._suspects
        }

    def _mappers_in(self, look: _Look) -> dict[Suspect, int]:
        """Who refers to each suspect, or maps its page frames (`inspector.walk.batches.MappingsOfPages.mappers`)."""
        s = look.snapshot
        out: dict[Suspect, int] = {}
        stretches: dict[Suspect, tuple[int, int]] = {}
        for rule, found, suspects in look.results():
            open_ = [(at, suspect) for at, suspect in enumerate(suspects) if suspect in self._suspects]
            if rule.about.users is not None:
                sums = rule.about.users(s, found.rows).tolist() if open_ else []
                out |= {suspect: sums[at] for at, suspect in open_}
            if rule.about.stretch is not None:
                stretches |= {suspect: rule.about.stretch(s, int(found.rows[at])) for at, suspect in open_}
        mapped = s.known_entries.of_pages(stretches.values())
        return out | {suspect: each.mappers for suspect, each in zip(stretches, mapped, strict=True)}

    def _left(self, found: Violations, suspects: list[Suspect]) -> tuple[Violations, list[int]]:
        """Those of what a rule found that are still suspects, and their positions."""
        keep = [at for at, suspect in enumerate(suspects) if suspect in self._suspects]
        return some_of(found, np.array(keep, np.int64)), keep

    def _kept(self, look: _Look) -> RulesRun:
        """What the last look found of the suspects that are left, graded by what any of the looks showed of them."""
        results = []
        for rule, found, suspects in look.results():
            left, keep = self._left(found, suspects)
            work = np.array([self._explained.get(suspects[at], "") for at in keep], np.str_)
            results.append((rule, explained(left, work) if (work != "").any() else left))
        return replace(look.run, results=results, covered=[self._covered[rule.slug] for rule in self._chosen])


class _Look(NamedTuple):
    """What the rules found in one look, and the suspects that it is known again by, rule by rule."""

    run: RulesRun
    suspects: list[list[Suspect]]

    @property
    def snapshot(self) -> Snapshot:
        """Of the target, as it was then."""
        return self.run.snapshot

    def results(self) -> Iterator[tuple[Rule, Violations, list[Suspect]]]:
        """Each rule with what it found and the suspects of that."""
        for (rule, found), suspects in zip(self.run.results, self.suspects, strict=True):
            yield rule, found, suspects

    def followed(self) -> set[Suspect]:
        """What is looked for in the next look; not entries that were gone when they were read once more in this one."""
        return {suspect for suspects in self.suspects for suspect in suspects if not suspect.is_gone}


def _suspects(s: Snapshot, rule: Rule, found: Violations) -> list[Suspect]:
    """The violations of a rule, those beyond the limit left out."""
    rows = found.rows[:_MAX_SUSPECTS]
    if not len(rows):
        return []
    # Of entries, those that are not known are looked for together.
    rule.about.heads(s, rows)
    columns = [*found.details.observed.items(), *found.details.expected.items()]
    subjects = [rule.about.describe(s, row) for row in rows.tolist()]
    return [
        Suspect(
            rule.slug,
            subject.identity,
            tuple((name, plain_value(column[at])) for name, column in columns),
            subject.pfn == -1,
        )
        for at, subject in enumerate(subjects)
    ]


def _own_suspects(look: _Look) -> set[Suspect]:
    """Suspects that are something of the inspector's own process, which changes while it reads."""
    s = look.snapshot
    own = own_mms(s)
    if not own.any():
        return set()
    out: set[Suspect] = set()
    for rule, found, suspects in look.results():
        rows = found.rows[:_MAX_SUSPECTS]
        mine = rule.about.owned(s, rows, own) if len(rows) else np.zeros(0, np.bool_)
        if mine.any():
            shared = rule.about.owned(s, rows, ~own)
            out |= {x for x, of_mine in zip(suspects, mine & ~shared, strict=True) if of_mine}
    return out


def _limited(covered: RuleCoverage, look: RulesRun) -> RuleCoverage:
    """How far a rule got, where not all of its violations can be followed."""
    beyond = sum(max(0, len(found) - _MAX_SUSPECTS) for rule, found in look.results if rule.slug == covered.rule)
    if not beyond:
        return covered
    why = f"{counted(beyond, 'possible violation')} more than are read again"
    return covered_but(covered.rule, covered.checked - beyond, Unread(covered.unchecked + beyond, why))


class _Watch:
    """Bytes that are stored of suspects, sampled for changes.

    Args:
        memory: For the bytes.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._of: dict[Suspect, list[tuple[int, int]]] = {}
        self._before: dict[int, tuple[U64, U8]] = {}

    def add(self, places: dict[Suspect, list[tuple[int, int]]]) -> None:
        """Begin to watch suspects."""
        self._of = places
        sizes: dict[int, list[int]] = {}
        for address, size in {place for each in places.values() for place in each}:
            sizes.setdefault(size, []).append(address)
        for size, addresses in sizes.items():
            at = np.unique(np.array(addresses, np.uint64))
            self._before[size] = at, self._memory.gather(at, size).bytes

    def moved(self, suspects: set[Suspect], seconds: float) -> set[Suspect]:
        """Suspects of which something changed since they are watched, or does so in the next seconds."""
        end = time.monotonic() + seconds
        changed = self._sample()
        while suspects and time.monotonic() < end:
            time.sleep(_BETWEEN_SAMPLES)
            changed |= self._sample()
        return {s for s in suspects if not changed.isdisjoint(self._of.get(s, ()))}

    def _sample(self) -> set[tuple[int, int]]:
        """Places whose bytes are other ones than at first; they are watched no more."""
        out: set[tuple[int, int]] = set()
        for size, (at, before) in self._before.items():
            same = (self._memory.gather(at, size).bytes == before).all(axis=1)
            out.update((address, size) for address in at[~same].tolist())
            self._before[size] = at[same], before[same]
        return out
