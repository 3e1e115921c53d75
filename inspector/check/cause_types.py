"""A finding in the making."""

from __future__ import annotations

from dataclasses import dataclass, field

from inspector.rules.registry import Rule, Violations


@dataclass(eq=False)
class Cause:
    """What one cause broke.

    Attributes:
        rule: The rule that names it.
        violations: What that rule found.
        rows: Positions in ``violations`` that belong to this cause.
        also: Slugs of other rules that the same cause breaks.
        facts: Sentences that connect them.
    """

    rule: Rule
    violations: Violations
    rows: list[int]
    also: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    def add(self, slug: str) -> None:
        """Note another rule that this cause breaks."""
        if slug not in self.also:
            self.also.append(slug)
