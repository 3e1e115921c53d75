"""One cause, one finding: what a broken folio drags along is named in its finding instead of drowning it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from inspector.arch.base import Level
from inspector.check.subjects import head_pfns
from inspector.columns import I64
from inspector.rules.registry import Keys, Rule, Violations
from inspector.snapshot import Snapshot
from inspector.tables.mms import RSS_SWAP
from inspector.walk.census import Sort
from inspector.walk.rss import rss_class


@dataclass
class Cause:
    """A finding in the making.

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
            elif rule.slug not in known.also and rule is not known.rule:
                known.also.append(rule.slug)
            for key in own:
                blamed.setdefault(key, known)
    of_folio = {number: cause for (kind, number), cause in blamed.items() if kind == "folio"}
    _attach_rss(s, causes, of_folio)
    return causes


def _is_transient(found: Violations, position: int) -> bool:
    return found.transient is not None and bool(found.transient[position])


def _keys(s: Snapshot, found: Violations) -> tuple[Keys, Keys]:
    """What each violation lays blame on, and what else would explain it; things are named by kind and number."""
    heads = head_pfns(s, found.subject, found.rows)
    return (("folio", heads), *found.claims), found.depends


def _attach_rss(s: Snapshot, causes: list[Cause], of_folio: dict[int, Cause]) -> None:
    """Drop rss findings that the mappings missing from (or foreign to) broken folios account for to the page."""
    rss = [c for c in causes if c.rule.slug == "rss-mismatch"]
    if not rss or len(rss) == len(causes):
        return
    rows = np.array([int(c.violations.rows[c.rows[0]]) for c in rss], np.int64)
    excess = s.mms.rss[rows] - s.rss[0][rows]
    excess[:, RSS_SWAP] = 0
    by_class = _folio_excess(s, causes, of_folio)
    bad_mms = _mms_with_bad_entries(s)
    for i, cause in enumerate(rss):
        delta = s.mms.rss[rows[i]] - s.rss[0][rows[i]]
        if delta[RSS_SWAP] != 0:
            continue
        classes = np.flatnonzero(delta)
        folded = bad_mms.get(int(rows[i])) or next(
            (
                by_class[int(c)][1]
                for c in classes
                if int(c) in by_class and all(_accounts(by_class, excess, int(k)) for k in classes)
            ),
            None,
        )
        if folded is None:
            continue
        causes.remove(cause)
        if "rss-mismatch" not in folded.also:
            folded.also.append("rss-mismatch")
        pid = int(s.mms.pid[rows[i]])
        folded.facts[f"rss of mm {int(s.mms.addr[rows[i]]):#x}"] = (
            f"pid {pid}: stored minus rebuilt is {delta.tolist()} (file, anon, swap, shmem): the entry was lost there"
        )


def _accounts(by_class: dict[int, tuple[int, Cause]], excess: I64, kind: int) -> bool:
    return kind in by_class and by_class[kind][0] == int(excess[:, kind].sum())


def _folio_excess(s: Snapshot, causes: list[Cause], of_folio: dict[int, Cause]) -> dict[int, tuple[int, Cause]]:
    """By rss class: mappings that broken folios count beyond the rebuilt ones, and a cause among them."""
    out: dict[int, tuple[int, Cause]] = {}
    for head, cause in of_folio.items():
        if cause not in causes:
            continue
        row = s.pages.memmap.row(head)
        if row < 0 or s.pages.type_[row] != 0:
            continue
        nr = stored_minus_rebuilt(s, row)
        if nr:
            kind = int(rss_class(s.layout, s.pages, np.array([row]))[0])
            total, first = out.get(kind, (0, cause))
            out[kind] = (total + nr, first)
    return out


def stored_minus_rebuilt(s: Snapshot, head_row: int) -> int:
    """Pages' worth of mappings that a folio's own counters claim beyond the page tables (negative: lack)."""
    folio = int(s.folio_of_page[head_row])
    if s.expected is None:
        return 0
    nr = int(s.folios.nr_pages[folio]) if folio >= 0 else 1
    pages = slice(head_row, head_row + nr)
    delta = int((s.pages.mapcount_raw[pages].astype(np.int64) - s.expected.page_mapcount_raw[pages]).sum())
    if folio >= 0:
        entire = int(s.folios.entire_raw[folio]) - int(s.expected.entire_raw[folio])
        large = int(s.folios.large_raw[folio]) - int(s.expected.large_raw[folio])
        # The large mapcount counts a lost huge entry once, but rss lost all of its pages.
        delta = max((delta, large), key=abs) if not entire else entire * nr
    return delta


def _mms_with_bad_entries(s: Snapshot) -> dict[int, Cause]:
    """Mms whose entries point to pages that cannot be counted: their rss cannot balance."""
    return {}


def mms_of_bad_entries(s: Snapshot) -> I64:
    """Rows of mms with entries that no census counts."""
    bad = np.isin(s.census.sort, np.array([Sort.FREE, Sort.TYPED, Sort.BROKEN, Sort.NO_PAGE], np.uint8))
    return np.unique(s.mappings.mm_idx[bad & (s.mappings.level >= Level.PTE)]).astype(np.int64)
