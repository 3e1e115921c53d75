"""One cause, one finding: what a broken folio drags along is named in its finding instead of drowning it."""

from __future__ import annotations

from inspector.check.balance import balance_counters
from inspector.check.cause_types import Cause
from inspector.check.subjects import head_pfns
from inspector.rules.registry import Keys, Rule, Violations
from inspector.snapshot import Snapshot


def gather_causes(s: Snapshot, results: list[tuple[Rule, Violations]]) -> list[Cause]:
    """Join what the rules found into causes.

    Of all rules that one folio breaks, the one of the lowest rank speaks; the same rule broken by several pages of
    one folio speaks once. rss that is off by exactly the mappings that broken folios lost or gained is attached to
    them.

    Args:
        s: The snapshot.
        results: Rules in the order of their ranks, with what each found.
    """
    causes: list[Cause] = []
    blamed: dict[tuple[str, int], Cause] = {}
    for rule, found in results:
        if not len(found):
            continue
        claims, depends = _keys(s, found)
        in_flight: Cause | None = None
        for position in range(len(found)):
            own = [(kind, int(column[position])) for kind, column in claims if column[position] >= 0]
            upstream = [(kind, int(column[position])) for kind, column in depends if column[position] >= 0]
            known = next((blamed[key] for key in (*own, *upstream) if key in blamed), None)
            if known is None and in_flight is not None and _is_transient(found, position):
                # Work in flight is no fault: one line for all of it.
                known = in_flight
                known.rows.append(position)
            elif known is None:
                known = Cause(rule, found, [position])
                causes.append(known)
                if _is_transient(found, position):
                    in_flight = known
            elif known.rule is rule and any(blamed.get(key) is known for key in own):
                known.rows.append(position)
            elif rule is not known.rule:
                known.add(rule.slug)
            for key in own:
                blamed.setdefault(key, known)
    of_folio = {number: cause for (kind, number), cause in blamed.items() if kind == "folio"}
    balance_counters(s, causes, of_folio)
    return causes


def _is_transient(found: Violations, position: int) -> bool:
    return found.transient is not None and bool(found.transient[position])


def _keys(s: Snapshot, found: Violations) -> tuple[Keys, Keys]:
    """What each violation lays blame on, and what else would explain it; things are named by kind and number."""
    heads = head_pfns(s, found.subject, found.rows)
    return (("folio", heads), *found.claims), found.depends
