"""Whether a stored value of a folio is wrong: what the rules of a check say of it, and nothing else.

A value that is as expected needs no rule. Only where one differs are the rules about struct pages run and graded, in
the very way that a check does it, and the value's verdict is what they found about this folio: WRONG where a rule
reports it, "in flight" where work of a task explains every report, "not checked" where no rule can decide. Rules that
need more than was read of one folio are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from inspector.aimed.snapshot import NotAimedAtError
from inspector.records import cached_property
from inspector.subjects import ENTRY, FOLIO, PAGE

if TYPE_CHECKING:
    from inspector.columns import I64, Mask
    from inspector.folio.numbers import OneFolio
    from inspector.snapshot import Snapshot

Verdict = Literal["ok", "WRONG", "in flight", "not checked", ""]
"""``ok``: as expected; ``in flight``: differs, as it may while a task works on the folio; "": not compared."""


class Verdicts:
    """The verdicts on one folio's values.

    Args:
        s: The snapshot.
        f: The folio.
    """

    def __init__(self, s: Snapshot, f: OneFolio) -> None:
        self._s = s
        self._f = f

    @cached_property
    def _reports(self) -> list[tuple[frozenset[str], I64, Mask]]:
        """For each rule that found something here: names of values, page indexes (-1: the folio), work in flight."""
        from inspector.check.run import collect_for, violations_of  # noqa: PLC0415  (only where a value is not as expected)
        from inspector.rules import all_rules  # noqa: PLC0415
        from inspector.rules.needs import PAGES  # noqa: PLC0415

        s, f = self._s, self._f
        out = []
        rules = [r for r in all_rules() if r.about in (PAGE, FOLIO, ENTRY) and not r.applies(s.scheme)]
        if s.search == "all page tables":
            collect_for(s, rules)
        else:
            # Rules that compare whole structures have nothing to say of the values of one folio.
            rules = [r for r in rules if r.needs <= PAGES]
        for rule in rules:
            try:
                found = violations_of(s, rule)
            except NotAimedAtError:
                # It takes all of memory to decide: what is seen of one folio says nothing.
                continue
            if rule.about is ENTRY:
                mine = np.flatnonzero(np.isin(found.rows, s.mappings.entry_id[f.mapping_rows]))
            else:
                mine = np.flatnonzero(rule.about.heads(s, found.rows) == f.head)
            if not len(mine):
                continue
            page = found.rows[mine] - f.head if rule.about is PAGE else np.full(len(mine), -1)
            details = found.details
            transient = np.zeros(len(mine), np.bool_) if details.transient is None else details.transient[mine]
            out.append((frozenset(details.observed), page, transient))
        return out

    def of(self, name: str, first: int = -1, pages: int = 0) -> Verdict:
        """The verdict on a value that is not as expected.

        Args:
            name: Of the value, as findings have it.
            first: Index of the first page whose value it is; -1 for a value of the folio.
            pages: How many neighbouring pages share it.
        """
        flights: list[bool] = []
        for names, page, transient in self._reports:
            if name in names:
                here = (page < 0) | ((page >= first) & (page < first + pages)) | (not pages)
                flights += transient[here].tolist()
        if not flights:
            return "not checked"
        return "in flight" if all(flights) else "WRONG"
