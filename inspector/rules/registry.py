"""How a rule is declared and found. A rule is known in one place: everything about it is in its declaration."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, TypedDict, Unpack

from inspector.errors import UsageError
from inspector.findings import Diagnosis, Exactness, Finding, Severity
from inspector.model.scheme import Scheme
from inspector.records import dataclass
from inspector.rules.needs import NOTHING, Needs
from inspector.rules.page_pieces import PAGE_PIECES, PagePiece, PagesPredicate
from inspector.rules.pieces import (
    ENTRIES,
    NONPRESENT_ENTRIES,
    CollectedPredicate,
    EntryPiece,
    Judged,
    NonPresentPiece,
    Predicate,
)
from inspector.subjects import ENTRY, NONPRESENT, PAGE, SubjectKind
from inspector.violations import Details, Violations
from inspector.walk.batches import MakeCollector
from inspector.windows.window import Effect

if TYPE_CHECKING:
    from inspector.columns import I64
    from inspector.rules.cause import Causes
    from inspector.snapshot import Snapshot


class Phase(IntEnum):
    """Causes before consequences: a rule of an earlier phase names the cause of what one of a later phase sees."""

    WORDS = 1
    """Words and entries that cannot be what they are, whatever the rest of memory holds."""
    STRUCTURES = 2
    """Structures by themselves: compound pages, VMAs, trees, lists."""
    LINKS = 3
    """Structures that name one another."""
    PAGE_COUNTS = 4
    """Counts of single pages."""
    STATES = 5
    """States that pages and entries must agree on: exclusive, writable, poisoned, migrated."""
    FOLIO_COUNTS = 6
    """Counts of folios, of page caches and of swap slots."""
    SUMS = 7
    """Counts that every other count of a folio or a process goes into."""
    TOTALS = 8
    """Totals of a process, a device, a zone or the machine."""


RuleFunction = Callable[["Snapshot"], Violations]
PagePredicate = Callable[[PagePiece], Judged]
EntryPredicate = Callable[[EntryPiece], Judged]
NonPresentPredicate = Callable[[NonPresentPiece], Judged]
AnyPredicate = Predicate[PagePiece] | Predicate[EntryPiece] | Predicate[NonPresentPiece]
Gather = Callable[["Snapshot", "I64"], Details]
Diagnose = Callable[["Snapshot", Finding], Diagnosis | None]
Settle = Callable[["Snapshot", "Rule", "Causes"], None]


@dataclass(frozen=True, eq=False)
class Rule:
    """A declared rule.

    Attributes:
        slug: How people name it; reads after "found:".
        about: The kind of its subjects.
        run: Snapshot to violations.
        page: The manual page.
        group: The family it is listed and selected with.
        phase, after: Its place in the order of causes: after the rules of earlier phases and after those named here.
        effect: What the rule compares, in the terms of the windows; None where no work in flight can explain a
            violation (an entry may point to a free page at no moment).
        needs: What must have been read whole before the rule may report anything.
        decides: Ids of the lines of `inspector.rules.catalogue` that it decides.
        severity, exactness: Of its findings; ``exact`` for an equality, ``bound`` for a one-sided rule.
        schemes: Accounting schemes it applies to; None for all, an unknown one included.
        was: Its slug before it was renamed, which selects it still; "" for none.
        diagnose: What a finding amounts to; None where the finding alone is all there is.
        settle: Attaches causes of this rule to other causes that account for them, after all rules ran.
        predicate: The rule as a predicate over pieces of a table; None where it needs its tables whole.
        collects: What it asks `inspector.snapshot.Snapshot.collected` for: a check lets all of these see the leaf
            entries in one walk.
    """

    slug: str
    about: SubjectKind
    run: RuleFunction
    page: str
    group: str
    phase: Phase
    after: tuple[str, ...] = ()
    effect: Effect | None = None
    needs: Needs = NOTHING
    decides: frozenset[str] = frozenset()
    severity: Severity = "fail"
    exactness: Exactness = "exact"
    schemes: frozenset[Scheme] | None = None
    was: str = ""
    diagnose: Diagnose | None = None
    settle: Settle | None = None
    predicate: AnyPredicate | None = None
    collects: tuple[MakeCollector, ...] = ()

    @property
    def title(self) -> str:
        """The first sentence of the manual page, without its full stop."""
        return self.page.split("\n", 1)[0].rstrip(".")

    def applies(self, scheme: Scheme | None) -> str:
        """Why the rule does not apply to this accounting scheme; "" when it does."""
        if self.schemes is None or scheme in self.schemes:
            return ""
        if scheme is None:
            return "the accounting scheme of this kernel is not known"
        return f"kernels with the {scheme.name} scheme do not keep this"


_RULES: dict[str, Rule] = {}


class Declared(TypedDict, total=False):
    """What may be declared beside slug, subject, group and phase; as the attributes of `Rule`."""

    after: tuple[str, ...]
    effect: Effect | None
    needs: Needs
    decides: str
    severity: Severity
    exactness: Exactness
    schemes: Iterable[Scheme]
    was: str
    diagnose: Diagnose
    settle: Settle
    collects: tuple[MakeCollector, ...]


def rule(
    slug: str, about: SubjectKind, group: str, phase: Phase, **declared: Unpack[Declared]
) -> Callable[[RuleFunction], Rule]:
    """Declare a rule that needs its tables whole; the function's docstring is its manual page."""

    def declare(function: RuleFunction) -> Rule:
        return _declare(slug, about, group, phase, _page(function), function, None, declared)

    return declare


def page_rule(
    slug: str, evidence: Gather, group: str, phase: Phase, **declared: Unpack[Declared]
) -> Callable[[PagePredicate], Rule]:
    """Declare a rule about single struct pages: a predicate over pieces of the memory map.

    Args:
        slug: Its name.
        evidence: What to show of the pages that break it, given their rows.
        group: Its family.
        phase: Its place in the order of causes.
        **declared: The rest.
    """

    def declare(judge: PagePredicate) -> Rule:
        return _declare_predicate(slug, PAGE, group, phase, PagesPredicate(PAGE_PIECES, judge, evidence), declared)

    return declare


def entry_rule(
    slug: str, evidence: Gather, group: str, phase: Phase, **declared: Unpack[Declared]
) -> Callable[[EntryPredicate], Rule]:
    """Declare a rule about single leaf entries: a predicate over runs of entries with the words of their VMAs."""

    def declare(judge: EntryPredicate) -> Rule:
        predicate = CollectedPredicate(ENTRIES, judge, evidence)
        declared["collects"] = (predicate.collect,)
        return _declare_predicate(slug, ENTRY, group, phase, predicate, declared)

    return declare


def nonpresent_rule(
    slug: str, evidence: Gather, group: str, phase: Phase, **declared: Unpack[Declared]
) -> Callable[[NonPresentPredicate], Rule]:
    """Declare a rule about single non-present entries: a predicate over entries with the words of their VMAs."""

    def declare(judge: NonPresentPredicate) -> Rule:
        made = Predicate(NONPRESENT_ENTRIES, judge, evidence)
        return _declare_predicate(slug, NONPRESENT, group, phase, made, declared)

    return declare


def _declare_predicate(  # noqa: PLR0913, PLR0917  (called by the three decorators alone)
    slug: str, about: SubjectKind, group: str, phase: Phase, predicate: AnyPredicate, declared: Declared
) -> Rule:
    return _declare(slug, about, group, phase, _page(predicate.judge), predicate.run, predicate, declared)


def _page(function: Callable[..., object]) -> str:
    return inspect.cleandoc(function.__doc__ or "")


def _declare(  # noqa: PLR0913, PLR0917  (called by the decorators alone)
    slug: str,
    about: SubjectKind,
    group: str,
    phase: Phase,
    page: str,
    run: RuleFunction,
    predicate: AnyPredicate | None,
    declared: Declared,
) -> Rule:
    schemes = declared.get("schemes")
    made = Rule(
        slug=slug,
        about=about,
        run=run,
        page=page,
        group=group,
        phase=phase,
        predicate=predicate,
        after=declared.get("after", ()),
        effect=declared.get("effect"),
        needs=declared.get("needs", NOTHING),
        decides=frozenset(declared.get("decides", "").split()),
        severity=declared.get("severity", "fail"),
        exactness=declared.get("exactness", "exact"),
        schemes=None if schemes is None else frozenset(schemes),
        was=declared.get("was", ""),
        diagnose=declared.get("diagnose"),
        settle=declared.get("settle"),
        collects=declared.get("collects", ()),
    )
    _RULES[slug] = made
    return made


def all_rules() -> list[Rule]:
    """Every rule, causes before consequences."""
    return in_order(_RULES.values())


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """Rules by phase, within a phase after those that they name, else by slug.

    Raises:
        ValueError: A rule is to come after one of a later phase, after one that does not exist, or after itself.
    """
    known = {r.slug: r for r in rules}
    waits: dict[str, set[str]] = {}
    for r in known.values():
        for earlier in r.after:
            named = known.get(earlier) or _RULES.get(earlier)
            if named is None:
                raise ValueError(f"{r.slug} is to come after {earlier}, which is no rule")
            if named.phase > r.phase:
                raise ValueError(f"{r.slug} is to come after {earlier}, which is of a later phase")
        waits[r.slug] = {x for x in r.after if x in known and known[x].phase == r.phase}
    ready = [(r.phase, r.slug) for r in known.values() if not waits[r.slug]]
    heapify(ready)
    out: list[Rule] = []
    while ready:
        _, slug = heappop(ready)
        out.append(known[slug])
        for other, left in waits.items():
            if slug in left:
                left.discard(slug)
                if not left:
                    heappush(ready, (known[other].phase, other))
    if len(out) < len(known):
        raise ValueError(f"these rules wait for one another: {', '.join(sorted(x for x in waits if waits[x]))}")
    return sorted(out, key=lambda r: r.phase)


def find_rule(slug: str) -> Rule:
    """The rule of a slug, or of the slug that it had before.

    Raises:
        UsageError: There is none; the nearest ones are named.
    """
    if slug in _RULES:
        return _RULES[slug]
    for renamed in _RULES.values():
        if slug == renamed.was:
            return renamed
    near = difflib.get_close_matches(slug, _RULES, 3, 0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else "See folioscope rules"
    raise UsageError("there is no rule of that name", slug, hint)


def select_rules(slugs: Iterable[str]) -> list[Rule]:
    """The rules named by slug or by group; all when none is named.

    Raises:
        UsageError: A name is neither.
    """
    wanted = set(slugs)
    if not wanted:
        return all_rules()
    groups = {r.group for r in _RULES.values()}
    wanted = {name if name in groups else find_rule(name).slug for name in wanted}
    return [r for r in all_rules() if r.slug in wanted or r.group in wanted]
