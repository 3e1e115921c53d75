"""One cause, one finding: what a broken folio drags along is named in its finding instead of drowning it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.check.flipped import join_flipped
from inspector.rules.cause import Cause, Causes
from inspector.rules.registry import Rule
from inspector.subjects import FOLIO
from inspector.violations import Things, Violations

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


def gather_causes(s: Snapshot, results: list[tuple[Rule, Violations]]) -> Causes:
    """Join what the rules found into causes.

    Of all rules that one folio breaks, the first gives the finding; the same rule broken by several pages of one folio
    gives one. Totals that are off by exactly what other causes lost or gained are attached to them (`Rule.settle`). A
    page that lost a mapping and the entry that is its own but for one bit are one.

    Args:
        s: The snapshot.
        results: Rules, causes before consequences, with what each found.
    """
    causes: list[Cause] = []
    at_fault: dict[tuple[str, int], Cause] = {}
    for rule, found in results:
        if not len(found):
            continue
        own_things = _own(s, rule, found).by_violation(len(found))
        upstream = found.details.depends.by_violation(len(found))
        in_flight: Cause | None = None
        for position, own in enumerate(own_things):
            known = next((at_fault[key] for key in (*own, *upstream[position]) if key in at_fault), None)
            if known is None and in_flight is not None and _is_transient(found, position):
                # Work in flight is no fault: one line for all of it.
                known = in_flight
                known.positions.append(position)
            elif known is None:
                known = Cause(rule, found, [position])
                causes.append(known)
                if _is_transient(found, position):
                    in_flight = known
            elif known.rule is rule and any(at_fault.get(key) is known for key in own):
                known.positions.append(position)
            elif rule is not known.rule:
                known.add(rule.slug)
            for key in own:
                at_fault.setdefault(key, known)
    for cause in causes:
        # What work in flight explains is not what a finding shows that is one for another reason.
        explained = {at for at in cause.positions if _is_transient(cause.violations, at)}
        cause.positions = [*(at for at in cause.positions if at not in explained), *sorted(explained)]
    of_folio = {number: cause for (kind, number), cause in at_fault.items() if kind == FOLIO.name}
    made = Causes(causes, of_folio)
    for rule, _ in results:
        if rule.settle is not None:
            rule.settle(s, rule, made)
    join_flipped(s, made)
    return made


def _is_transient(found: Violations, position: int) -> bool:
    transient = found.details.transient
    return transient is not None and bool(transient[position])


def _own(s: Snapshot, rule: Rule, found: Violations) -> Things:
    """The folio that each violation is about, by the page frame of its head, and what the rule lays at fault beside."""
    pages = s.pages
    heads = rule.about.heads(s, found.rows)
    # A tail without a head is known by its own page frame, an entry that leads to no folio by the one it names.
    alone = rule.about.pfns(s, found.rows)
    pfns = np.where(heads >= 0, pages.memmap.pfns_of_rows(np.maximum(heads, 0)), alone)
    at = np.flatnonzero(pfns >= 0)
    return Things(((FOLIO.name, at, pfns[at].astype(np.int64)),)) + found.details.claims
