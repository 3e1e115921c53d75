"""Findings in the making: what one cause broke."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, AnyArray
from inspector.findings import Diagnosis, Scalar
from inspector.violations import Violations

if TYPE_CHECKING:
    from inspector.rules.registry import Rule


@dataclass(eq=False)
class Cause:
    """What one cause broke.

    Attributes:
        rule: The rule that names it.
        violations: What that rule found.
        positions: Which of the ``violations`` belong to this cause.
        also: Slugs of other rules that the same cause breaks.
        facts: What connects them.
        diagnosis: What they amount to together; None where the rule's own diagnosis holds.
    """

    rule: Rule
    violations: Violations
    positions: list[int]
    also: list[str] = field(default_factory=list)
    facts: dict[str, Scalar] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None

    def add(self, *slugs: str) -> None:
        """Note other rules that this cause breaks."""
        self.also += [slug for slug in dict.fromkeys(slugs) if slug not in self.also]

    @property
    def rows(self) -> I64:
        """int64; the subjects of this cause."""
        return self.violations.rows[self.positions]

    @property
    def first_row(self) -> int:
        """The first of them."""
        return int(self.violations.rows[self.positions[0]])

    def observed(self, name: str) -> AnyArray:
        """A stored value of each of its violations."""
        return self.violations.details.observed[name][self.positions]

    def expected(self, name: str) -> AnyArray:
        """An expected value of each of its violations."""
        return self.violations.details.expected[name][self.positions]

    def fact(self, name: str) -> AnyArray:
        """A fact about each of its violations."""
        return self.violations.details.facts[name][self.positions]


class Causes:
    """All causes of a check, in the order of the rules that name them.

    Attributes:
        of_folio: The cause that names each folio, by the page frame of the folio's head.
    """

    def __init__(self, causes: list[Cause], of_folio: dict[int, Cause]) -> None:
        self._causes = causes
        self.of_folio = of_folio

    def __iter__(self) -> Iterator[Cause]:
        return iter(self._causes)

    def __len__(self) -> int:
        return len(self._causes)

    def of(self, rule: Rule) -> list[Cause]:
        """Those that a rule names."""
        return [cause for cause in self._causes if cause.rule is rule]

    def first_rows(self, rule: Rule) -> I64:
        """int64; the first subject of each of those."""
        return np.array([cause.first_row for cause in self.of(rule)], np.int64)

    def attach(self, cause: Cause, root: Cause) -> None:
        """Make a cause part of another one, which accounts for it: it is a finding of its own no more."""
        self._causes.remove(cause)
        root.add(cause.rule.slug, *cause.also)
