"""What the rules find about the things that a command lists, so that the mark is beside the value that they judge.

A command asks for the marks of the kind of things that are its rows where a value that it shows is not as expected: one
that is needs no rule. The rules about this kind are run, as far as they decide from what the snapshot has; what work in
flight explains is left out, as in a check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.aimed.snapshot import AimedSnapshot, NotAimedAtError
from inspector.check.run import collect_for, plain_value, violations_of
from inspector.rules import all_rules
from inspector.text import clean

if TYPE_CHECKING:
    from inspector.rules.registry import Rule
    from inspector.snapshot import Snapshot
    from inspector.subjects import SubjectKind
    from inspector.violations import Violations

Marks = dict[int, list[str]]
"""By row of the thing, what is wrong with it: the rule's slug, and each value that is not as expected."""

_OF_ONE_THING = frozenset({"vma"})
"""Groups of rules that decide about each thing by its own words and those of its neighbours."""

_COUNTS = 1 << 40

_MOST = 10_000
"""Violations of one rule that are put into words: no table is read further."""


def marks_of(s: Snapshot, kind: SubjectKind) -> Marks:
    """What rules about one kind of things find; nothing of a kernel that runs on, where one look proves nothing.

    Args:
        s: The snapshot.
        kind: What the rows are.
    """
    out: Marks = {}
    if s.target.is_live:
        return out
    rules = [rule for rule in all_rules() if rule.about is kind and not rule.applies(s.scheme)]
    if isinstance(s, AimedSnapshot):
        # Rules that compare one structure with another have seen but a part of the other one.
        rules = [rule for rule in rules if rule.group in _OF_ONE_THING]
    else:
        collect_for(s, rules)
    for rule in rules:
        try:
            found = violations_of(s, rule)
        except NotAimedAtError:
            continue
        for row, words in _in_words(rule, found):
            out.setdefault(row, []).append(words)
    return out


def _in_words(rule: Rule, found: Violations) -> list[tuple[int, str]]:
    """Row and words of each violation that no work in flight explains; of rules that only inform, nothing."""
    if rule.severity == "info":
        return []
    details, out = found.details, []
    for at, row in enumerate(found.rows[:_MOST].tolist()):
        if details.transient is not None and details.transient[at]:
            continue
        values = []
        for name, column in details.observed.items():
            stored = plain_value(column[at])
            expected = plain_value(details.expected[name][at]) if name in details.expected else None
            if stored != expected:
                values.append(
                    f"{name} {_number(stored)}" + (f" (expected {_number(expected)})" if expected is not None else "")
                )
        out.append((row, clean(f"{rule.slug}: {'; '.join(values)}" if values else rule.slug)))
    return out


def _number(value: object) -> str:
    """A value in words; what is too large for a count is an address or a word of flags."""
    return f"{value:#x}" if isinstance(value, int) and not -_COUNTS < value < _COUNTS else str(value)
