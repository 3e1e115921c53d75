"""The counters of the rmap: what each kernel calls them, and what it means that one is too high or too low.

The kernel raises counters before it writes a page-table entry and lowers them after it cleared one, so a count of
mappings may run ahead of the page tables but not fall behind them. The exception is a PMD split, which takes back the
huge mapping before it replaces the invalidated PMD. mm/rmap.c, __folio_add_rmap() and __folio_remove_rmap(), and their
callers in mm/memory.c; mm/huge_memory.c, __split_huge_pmd_locked().
"""

from __future__ import annotations

from enum import Enum, IntEnum

import numpy as np

from inspector.columns import AnyArray
from inspector.model.scheme import Scheme
from inspector.records import dataclass


class Direction(IntEnum):
    """The sign of stored minus expected."""

    TOO_LOW = -1
    EQUAL = 0
    TOO_HIGH = 1

    @property
    def label(self) -> str:
        """The direction in words."""
        return self.name.lower().replace("_", " ")


class RmapCounter(Enum):
    """Counters by the order in which the kernel moves them."""

    PAGE = "page mapcount"
    """``_mapcount`` of a small page or a page of a large folio: never behind the page tables."""
    DOUBLY_MAPPED = "page mapcount under PG_double_map"
    """``_mapcount`` in an anonymous THP with PG_double_map (6.1): the flag is set before the pages are raised."""
    LARGE = "large mapcount"
    """``_large_mapcount``: behind only while a PMD split for migration is between its last two steps."""
    ENTIRE = "entire mapcount"
    """Lowered by every PMD split while the invalidated huge entry is still there."""
    NR_PAGES_MAPPED = "nr_pages_mapped"
    """Moved after the page counts it sums up; and by PMD splits as the entire mapcount is."""
    STATISTIC = "statistic"
    """rss_stat, NR_ANON_MAPPED, NR_FILE_MAPPED: moved last on every path."""


_FIELDS = {
    RmapCounter.PAGE: "_mapcount",
    RmapCounter.DOUBLY_MAPPED: "_mapcount",
    RmapCounter.LARGE: "_large_mapcount",
    RmapCounter.ENTIRE: "_entire_mapcount",
    RmapCounter.NR_PAGES_MAPPED: "_nr_pages_mapped",
}
_OLDER_FIELDS = {
    (Scheme.OLD, RmapCounter.ENTIRE): "compound_mapcount",
    (Scheme.SUBPAGES, RmapCounter.ENTIRE): "_compound_mapcount",
    (Scheme.SUBPAGES, RmapCounter.NR_PAGES_MAPPED): "_subpages_mapcount",
}
_NEWEST = {older: _FIELDS[counter] for (_, counter), older in _OLDER_FIELDS.items()}


def newest_name(field: str) -> str:
    """What the newest kernel calls a counter, by its name on any; other names stay."""
    return _NEWEST.get(field, field)


def field_name(scheme: Scheme, counter: RmapCounter) -> str:
    """The member of struct folio (struct page) that holds a counter, as kernels of that scheme call it.

    A counter that the scheme does not keep has the name that it got later.

    Raises:
        KeyError: Statistics are no members of a folio.
    """
    return _OLDER_FIELDS.get((scheme, counter)) or _FIELDS[counter]


@dataclass(frozen=True)
class Meaning:
    """What a mismatch is.

    Attributes:
        name: "leak", "premature free" or "drift".
        transient: Whether a CPU in the middle of an operation can leave it behind.
        reason: One sentence for people.
    """

    name: str
    transient: bool
    reason: str


_LEAK = Meaning(
    "leak",
    True,
    "a mapping is counted that no page table holds: the pages can never be freed, unless a CPU was about to write the"
    " entry or had just cleared it",
)
_FREE = "a page table holds a mapping that is not counted: the pages are freed while it still maps them"
_PREMATURE = Meaning("premature free", False, f"{_FREE}; no order of the kernel's steps passes through this")
_SPLIT = Meaning(
    "premature free",
    True,
    f"{_FREE}, unless a CPU is splitting a PMD and its invalidated entry is still there",
)
_BEHIND = Meaning(
    "premature free",
    True,
    f"{_FREE}, unless a CPU has raised page counts and not yet their sum, or is splitting a PMD",
)
_DRIFT = Meaning(
    "drift",
    True,
    "the statistic differs from what is mapped; it is moved last, so work in flight can leave it off either way",
)

_TOO_LOW = {
    RmapCounter.PAGE: _PREMATURE,
    RmapCounter.DOUBLY_MAPPED: _SPLIT,
    RmapCounter.LARGE: _SPLIT,
    RmapCounter.ENTIRE: _SPLIT,
    RmapCounter.NR_PAGES_MAPPED: _BEHIND,
    RmapCounter.STATISTIC: _DRIFT,
}


def directions(stored: AnyArray, expected: AnyArray) -> AnyArray:
    """int8; the `Direction` of each row. Both must be signed, or both unsigned of the same meaning."""
    return (stored > expected).astype(np.int8) - (stored < expected).astype(np.int8)


def meaning(counter: RmapCounter, direction: Direction) -> Meaning | None:
    """What it means that a counter is off that way; None when it is not off."""
    if direction == Direction.EQUAL:
        return None
    if direction == Direction.TOO_LOW:
        return _TOO_LOW[counter]
    return _DRIFT if counter is RmapCounter.STATISTIC else _LEAK
