"""What a rule finds, as columns: which subjects break it, how, and what else each of them explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

import numpy as np

from inspector.columns import I64, AnyArray, Mask
from inspector.records import dataclass

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

Columns = dict[str, AnyArray]
"""Values by name, each an array with an element for every violation."""

Values = Mapping[str, AnyArray | np.generic | int | str]
"""The same to build them from: a single value is the same for every violation."""


class Unread(NamedTuple):
    """What a rule could not check.

    Attributes:
        nr: How many subjects.
        why: A sentence about them; "" when there are none.
    """

    nr: int = 0
    why: str = ""


def cannot_check(count: int, why: str) -> Unread:
    """So many subjects could not be checked, for this reason; nothing when there are none."""
    return Unread(count, why) if count else Unread()


def together(one: Unread, other: Unread) -> Unread:
    """What could not be checked for either reason; whichever comes first, the sentence is the same."""
    why = {*one.why.split("; "), *other.why.split("; ")} - {""}
    return Unread(one.nr + other.nr, "; ".join(sorted(why)))


def lower_bound(s: Snapshot) -> str:
    """Why counts of mappings that are not all known can be judged on one side only."""
    return f"{s.why_incomplete}: a count can only be shown to be too low"


def unread_pages(s: Snapshot) -> Unread:
    """Struct pages that are not in the dump."""
    return cannot_check(s.pages.nr_unreadable, "struct pages are missing")


def unread_folios(s: Snapshot) -> Unread:
    """Compound pages whose first struct pages are not in the dump."""
    return cannot_check(int((~s.folios.readable).sum()), "struct pages are missing")


def unread_parts(s: Snapshot) -> Unread:
    """Compound pages some of whose struct pages are not in the dump: what maps those is not known to map the folio."""
    return cannot_check(int((~s.folio_whole).sum()), "struct pages are missing")


@dataclass(frozen=True)
class Things:
    """Which things each violation is connected with: rows (violation, kind, id), any number for each violation.

    Attributes:
        parts: A kind ("vma", "anon_vma" ...) with int64[k] positions of violations and int64[k] ids of things of that
            kind. A violation's things are in the order of the parts.

    Example: violation 0 of three names VMA 7 and the anon_vmas 1 and 2, violation 2 names VMA 9:
    ``one("vma", [7, -1, 9]) + several("anon_vma", [0, 0], [1, 2])``; ``by_violation(3)`` then gives
    ``[("vma", 7), ("anon_vma", 1), ("anon_vma", 2)]``, ``[]``, ``[("vma", 9)]``.
    """

    parts: tuple[tuple[str, I64, I64], ...] = ()

    def __add__(self, other: Things) -> Things:
        return Things(self.parts + other.parts)

    def by_violation(self, n: int) -> list[list[tuple[str, int]]]:
        """For each of ``n`` violations its things."""
        out: list[list[tuple[str, int]]] = [[] for _ in range(n)]
        for kind, at, ids in self.parts:
            for position, number in zip(at.tolist(), ids.tolist(), strict=True):
                out[position].append((kind, number))
        return out

    def of(self, keep: I64, n: int) -> Things:
        """The things of some of ``n`` violations, in that order, which is ascending."""
        place = np.full(n, -1, np.int64)
        place[keep] = np.arange(len(keep))
        return Things(tuple((kind, place[at][place[at] >= 0], ids[place[at] >= 0]) for kind, at, ids in self.parts))


NOTHING = Things()
"""Violations that are connected with no thing."""


def one(kind: str, ids: AnyArray) -> Things:
    """A thing of that kind for each violation, -1 for none."""
    at = np.flatnonzero(ids >= 0)
    return Things(((kind, at, ids[at].astype(np.int64)),))


def several(kind: str, violations: AnyArray, ids: AnyArray) -> Things:
    """Things of that kind, each with the position of its violation."""
    return Things(((kind, violations.astype(np.int64), ids.astype(np.int64)),))


@dataclass(frozen=True, kw_only=True)
class Details:
    """What is gathered about violations once they are known; made by `details`.

    Attributes:
        observed, expected: What the kernel stored and what it should have stored.
        facts: More that helps to understand each violation.
        claims: The things at fault beside the violation's own folio. A later violation of the same thing is part of the
            same cause.
        depends: Things that explain the violation when they are at fault already.
        transient: bool[n]; violations that locks explain: work in flight, reported as ``info``.
        beyond: bool[n]; violations that are more than the tasks in flight could have brought about.
    """

    observed: Columns
    expected: Columns
    facts: Columns = field(default_factory=dict)
    claims: Things = NOTHING
    depends: Things = NOTHING
    transient: Mask | None = None
    beyond: Mask | None = None


@dataclass(frozen=True)
class Violations:
    """What a rule found.

    Attributes:
        rows: int64[n]; the subjects that break the rule, by the numbers of the rule's kind of subject.
        details: What is known about each.
        checked: How many subjects were checked.
        unread: How many could not be, because data is missing.
        note: A sentence for the coverage: what the rule left out on purpose; "" for none.
    """

    rows: I64
    details: Details
    checked: int
    unread: Unread = Unread()
    note: str = ""

    def __len__(self) -> int:
        return len(self.rows)


class Connected(TypedDict, total=False):
    """What may be given about violations beside their values; as the attributes of `Details`."""

    claims: Things
    depends: Things
    transient: Mask | None
    beyond: Mask | None


def details(
    rows: AnyArray, *, observed: Values, expected: Values, facts: Values | None = None, **connected: Unpack[Connected]
) -> Details:
    """What is known about violations.

    Args:
        rows: [n]; the subjects that break the rule.
        observed: What the kernel stored, by name; a single value is repeated for every violation.
        expected: What it should have stored, by name.
        facts: More about each violation.
        **connected: The rest of `Details`.

    Example: ``details(rows, observed={"in_tree": in_tree[rows]}, expected={"in_tree": True})``.
    """
    n = len(rows)
    return Details(
        observed=_columns(observed, n), expected=_columns(expected, n), facts=_columns(facts or {}, n), **connected
    )


def _columns(values: Values, n: int) -> Columns:
    return {name: x if isinstance(x, np.ndarray) else np.full(n, x) for name, x in values.items()}


def violations(  # noqa: PLR0913  (keywords that read as a sentence)
    rows: I64,
    *,
    observed: Values,
    expected: Values,
    checked: int | Mask,
    unread: Unread = Unread(),  # noqa: B008  (immutable)
    facts: Values | None = None,
    note: str = "",
    **connected: Unpack[Connected],
) -> Violations:
    """What a rule found.

    Args:
        rows: int64[n]; the subjects that break the rule.
        observed: What the kernel stored, by name; a single value is repeated for every violation.
        expected: What it should have stored, by name.
        checked: How many subjects were checked, or a mask of them.
        unread: How many could not be, and why.
        facts: More about each violation.
        note: As `Violations.note`.
        **connected: The rest of `Details`.
    """
    known = details(rows, observed=observed, expected=expected, facts=facts, **connected)
    return Violations(rows, known, checked if isinstance(checked, int) else int(checked.sum()), unread, note)


def connected(found: Violations, *, claims: Things = NOTHING, depends: Things = NOTHING) -> Violations:
    """The same violations, connected with more things."""
    more = replace(found.details, claims=found.details.claims + claims, depends=found.details.depends + depends)
    return replace(found, details=more)


def some_of(found: Violations, keep: I64) -> Violations:
    """The violations at some positions, which ascend."""
    d, n = found.details, len(found)

    def columns(values: Columns) -> Columns:
        return {name: column[keep] for name, column in values.items()}

    kept = Details(
        observed=columns(d.observed),
        expected=columns(d.expected),
        facts=columns(d.facts),
        claims=d.claims.of(keep, n),
        depends=d.depends.of(keep, n),
        transient=None if d.transient is None else d.transient[keep],
        beyond=None if d.beyond is None else d.beyond[keep],
    )
    return replace(found, rows=found.rows[keep], details=kept)


def holds(checked: int | Mask, unread: Unread = Unread(), note: str = "") -> Violations:  # noqa: B008  (immutable)
    """A rule that holds for everything it could check."""
    return violations(np.empty(0, np.int64), observed={}, expected={}, checked=checked, unread=unread, note=note)
