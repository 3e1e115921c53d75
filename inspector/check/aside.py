"""Rules that need no walk of all page tables, run by other processes while this one is at that walk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Self

from inspector.rules import Rule
from inspector.rules.page_pieces import PagesPredicate
from inspector.scratch import give_back
from inspector.snapshot import Snapshot, WholeWalkError
from inspector.violations import Unread, Violations, holds
from inspector.workers import Numbers

_Held = tuple[str, int, Unread, str]
"""Of a rule that found nothing: its slug, and the rest of `Violations`."""


class RulesAside:
    """Rules run by other processes (`inspector.snapshot.Aside`), those of one group in the same: they share tables.

    Taken from the others is what rules say that found nothing where everything could be read. The others are to be run
    here, where the tables are then that evidence is looked up in.

    Args:
        s: The snapshot.
        rules: The rules, in any order; those that look through all pages are left out.
        run: Runs one.

    Attributes:
        held: What rules found that were run; empty until then.
    """

    def __init__(self, s: Snapshot, rules: Iterable[Rule], run: Callable[[Snapshot, Rule], Violations]) -> None:
        self._s, self._run = s, run
        self._rules = {rule.slug: rule for rule in rules if not isinstance(rule.predicate, PagesPredicate)}
        self.held: dict[Rule, Violations] = {}

    def __enter__(self) -> Self:
        self._s.aside = self
        return self

    def __exit__(self, *_: object) -> None:
        self._s.aside = None

    def begin(self) -> None:
        """Before there are other processes."""
        groups: dict[str, list[Rule]] = {}
        for rule in self._rules.values():
            if rule not in self.held and not rule.applies(self._s.scheme):
                groups.setdefault(rule.group, []).append(rule)
        self._groups = list(groups.values())
        self._numbers = Numbers(len(self._groups))

    def do(self, some_left: Callable[[], bool]) -> list[_Held]:
        """What the rules of the groups that this process takes say, as far as there is time for them."""
        out: list[_Held] = []
        missing = self._s.missing
        before = dict(missing.counts), list(missing.notes)
        for number in self._numbers.numbers():
            for rule in self._groups[number]:
                if not some_left():
                    break
                # Holes that one rule leaves are not what the next one asks for, and the other process needs memory too.
                give_back(self._s.nr_pages)
                with suppress(WholeWalkError):
                    found = self._run(self._s, rule)
                    if not len(found):
                        out.append((rule.slug, found.checked, found.unread, found.note))
        return out if (missing.counts, missing.notes) == before else []

    def done(self, results: list[list[_Held]]) -> None:
        """Take in what the other processes say."""
        for some in results:
            self.held |= {self._rules[slug]: holds(checked, unread, note) for slug, checked, unread, note in some}

    def end(self) -> None:
        """No process takes another group."""
        self._numbers.close()
