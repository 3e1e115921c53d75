"""How a rule is declared and found: its slug, what it is about, how sure it is, and its manual page."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from inspector.columns import I64, AnyArray, Mask
from inspector.errors import UsageError
from inspector.findings import Exactness, Severity
from inspector.model.scheme import Scheme
from inspector.snapshot import Snapshot

SubjectKind = Literal[
    "task",
    "page",
    "folio",
    "mm",
    "vma",
    "mapping",
    "nonpresent",
    "table",
    "avc",
    "anon_vma",
    "i_mmap",
    "space",
    "stable_node",
    "ksm",
    "hstate",
    "cached_space",
    "cache_entry",
    "swap_slot",
    "swap_device",
    "swap_cluster",
    "swap_cluster_list",
    "vmstat",
    "free_list",
    "zone",
    "cpu_list",
]


Keys = tuple[tuple[str, AnyArray], ...]


@dataclass(frozen=True)
class Violations:
    """What a rule found, as columns; check turns them into findings.

    Attributes:
        subject: Which table ``rows`` are rows of.
        rows: int64[n]; the subjects that break the rule.
        observed, expected: by name, arrays of length n: what the kernel stored and what it should have.
        checked: How many subjects were looked at.
        unchecked: How many could not be, because data is missing.
        why_unchecked: A sentence about that.
        facts: by name, arrays of length n: more that helps to understand each violation.
        claims: What each violation lays blame on beside its folio: a kind ("vma", "anon_vma" ...) and an array of
            length n of numbers, -1 for none. A later violation of the same thing is part of the same cause.
        depends: What else, when it is blamed already, explains the violation.
        transient: bool[n]; violations that work in flight explains (a lock held, an mm under construction or being
            torn down): told as ``info`` with exactness ``transient``.
        beyond: bool[n]; violations that are more than the tasks in flight could have brought about.
    """

    subject: SubjectKind
    rows: I64
    observed: dict[str, AnyArray]
    expected: dict[str, AnyArray]
    checked: int
    unchecked: int = 0
    why_unchecked: str = ""
    facts: dict[str, AnyArray] = field(default_factory=dict)
    claims: Keys = ()
    depends: Keys = ()
    transient: Mask | None = None
    beyond: Mask | None = None

    def __len__(self) -> int:
        return len(self.rows)


def nothing(subject: SubjectKind, checked: int, unchecked: int = 0, why: str = "") -> Violations:
    """A rule that holds everywhere."""
    return Violations(subject, np.empty(0, np.int64), {}, {}, checked, unchecked, why)


@dataclass(frozen=True)
class Rule:
    """A declared rule.

    Attributes:
        slug: How people name it; reads after "found:".
        function: Snapshot to violations.
        group: The family it belongs to.
        invariant: Id in the project's catalogue of invariants.
        severity: Of its findings.
        exactness: ``exact`` for an equality, ``bound`` for a one-sided rule.
        schemes: Accounting schemes it applies to; None for all, an unknown one included.
        rank: Causes have lower ranks than their consequences: of several rules that one folio breaks, the
            lowest rank gives the finding and the others are named in it.
        was: Its slug before it was renamed, which selects it still; "" for none.
    """

    slug: str
    function: Callable[[Snapshot], Violations]
    group: str
    invariant: str
    severity: Severity
    exactness: Exactness
    schemes: frozenset[Scheme] | None
    rank: int
    was: str = ""

    @property
    def title(self) -> str:
        """The first sentence of the manual page, without its full stop."""
        return self.page.split("\n", 1)[0].rstrip(".")

    @property
    def page(self) -> str:
        """The manual page: the function's docstring."""
        return inspect.cleandoc(self.function.__doc__ or "")

    def applies(self, scheme: Scheme | None) -> str:
        """Why the rule does not apply to this accounting scheme; "" when it does."""
        if self.schemes is None or scheme in self.schemes:
            return ""
        if scheme is None:
            return "the accounting scheme of this kernel is not known"
        return f"kernels with the {scheme.name} scheme do not keep this"


RuleFunction = Callable[[Snapshot], Violations]

_RULES: dict[str, Rule] = {}


def rule(  # noqa: PLR0913  (keywords that read as the declaration of a rule)
    slug: str,
    *,
    group: str,
    invariant: str,
    rank: int,
    severity: Severity = "fail",
    exactness: Exactness = "exact",
    schemes: Iterable[Scheme] | None = None,
    was: str = "",
) -> Callable[[RuleFunction], RuleFunction]:
    """Declare a rule; the function's docstring is its manual page."""

    def declare(function: RuleFunction) -> RuleFunction:
        wanted = None if schemes is None else frozenset(schemes)
        _RULES[slug] = Rule(slug, function, group, invariant, severity, exactness, wanted, rank, was)
        return function

    return declare


def all_rules() -> list[Rule]:
    """Every rule, causes first."""
    return sorted(_RULES.values(), key=lambda r: (r.rank, r.slug))


def find_rule(slug: str) -> Rule:
    """The rule of a slug.

    Raises:
        UsageError: There is none; the nearest ones are named.
    """
    if slug in _RULES:
        return _RULES[slug]
    for renamed in _RULES.values():
        if slug == renamed.was:
            return renamed
    import difflib  # noqa: PLC0415  (only to help after a mistake)

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
