"""One folio as the rmap code sees it: its counters as stored, its flags, and the mappings that they count.

A state never changes: an operation (`inspector.model.operations`) makes another one. What mm/rmap.c maintains and what
its callers do besides (references, rss, the entries themselves) are kept apart, so that each can be checked by the
other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from enum import Enum
from typing import TypeVar

from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.model.stats import HPAGE_PMD_ORDER
from inspector.records import dataclass

HPAGE_PUD_ORDER = 18
"""Order of a folio that one PUD maps, with 4 KiB pages."""

K = TypeVar("K", bound="int | tuple[int, int]")
Bag = tuple[tuple[K, int], ...]
"""Sorted (what, how often), no zero among them: a multiset that can be hashed."""

Slot = tuple[int, int]
"""An mm id (0: free) and the count as stored (-1: free)."""

FREE: Slot = (0, -1)


class FolioKind(Enum):
    """What a folio holds."""

    ANON = "anonymous"
    FILE = "file"
    SHMEM = "shmem"
    DAX = "dax"
    HUGETLB_ANON = "anonymous hugetlb"
    HUGETLB_FILE = "hugetlb file"

    @property
    def is_anon(self) -> bool:
        """Private memory."""
        return self in (FolioKind.ANON, FolioKind.HUGETLB_ANON)

    @property
    def is_hugetlb(self) -> bool:
        """Counted by the hugetlb_*() family."""
        return self in (FolioKind.HUGETLB_ANON, FolioKind.HUGETLB_FILE)


@dataclass(frozen=True)
class Stats:
    """The folio's share of its node's counters, in pages."""

    nr_anon_mapped: int = 0
    nr_file_mapped: int = 0
    nr_anon_thps: int = 0
    nr_shmem_pmdmapped: int = 0
    nr_file_pmdmapped: int = 0


@dataclass(frozen=True)
class Folio:
    """One folio.

    Attributes:
        scheme: The kernel's accounting.
        order, kind: Size and what it holds.
        pmd_order, pud_order: Orders that one PMD and one PUD map.
        pages: ``_mapcount`` of each page, -1 based.
        entire, large, word: ``_entire_mapcount`` (``compound_mapcount``), ``_large_mapcount``, ``_nr_pages_mapped``;
            those that the scheme does not keep stay as they are in a new folio.
        double_map: PG_double_map (6.1).
        slots, shared: mm ids with their counts, and FOLIO_MM_IDS_SHARED (6.15 and later).
        exclusive: Pages with PG_anon_exclusive.
        anon_mapping: Whether PAGE_MAPPING_ANON is set in ``mapping``: it is after the first mapping.
        locked: Whether the caller holds the folio lock.
        pinned: Whether the folio may be pinned and the mm that forks has pinned before.
        swapcache, mlocked: PG_swapcache, PG_mlocked.
        deferred, partially_mapped: On the deferred split queue; PG_partially_mapped (6.12 and later).
        refcount: References: one of the owner's and one a mapping.
        stats: Share of the node's counters.
        rss: (mm, pages it was charged).
        ptes: ((mm, page), entries); huge: (mm, PMD, PUD or hugetlb entries).
        migration: (mm, pages behind migration entries): no mappings, but rss.
    """

    scheme: Scheme
    order: int
    kind: FolioKind
    pages: tuple[int, ...]
    pmd_order: int = HPAGE_PMD_ORDER
    pud_order: int = HPAGE_PUD_ORDER
    entire: int = -1
    large: int = -1
    word: int = 0
    double_map: bool = False
    slots: tuple[Slot, Slot] = (FREE, FREE)
    shared: bool = False
    exclusive: frozenset[int] = frozenset()
    anon_mapping: bool = False
    locked: bool = True
    pinned: bool = False
    swapcache: bool = False
    mlocked: bool = False
    deferred: bool = False
    partially_mapped: bool = False
    refcount: int = 1
    stats: Stats = Stats()
    rss: Bag[int] = ()
    ptes: Bag[tuple[int, int]] = ()
    huge: Bag[int] = ()
    migration: Bag[int] = ()

    @property
    def nr(self) -> int:
        """Pages (N)."""
        return 1 << self.order

    @property
    def is_large(self) -> bool:
        """More than one page."""
        return self.order > 0

    @property
    def test_anon(self) -> bool:
        """folio_test_anon()."""
        return self.kind.is_anon and self.anon_mapping

    @property
    def total(self) -> int:
        """All mappings (M)."""
        return sum(n for _, n in self.ptes) + sum(n for _, n in self.huge)

    def __repr__(self) -> str:
        """What differs from a new folio, counters first."""
        plain = fresh(self.scheme, self.order, self.kind, self.pmd_order, self.pud_order)
        changed = ", ".join(f"{name} {new}" for name, (_, new) in diff(plain, self).items())
        return f"<{self.kind.value} folio of order {self.order}, {self.scheme.name}: {changed or 'as new'}>"


def fresh(
    scheme: Scheme, order: int, kind: FolioKind, pmd_order: int = HPAGE_PMD_ORDER, pud_order: int = HPAGE_PUD_ORDER
) -> Folio:
    """A folio that nothing has mapped yet, as mm/internal.h, prep_compound_head() leaves it."""
    return Folio(scheme, order, kind, (-1,) * (1 << order), pmd_order, pud_order)


def diff(before: Folio, after: Folio) -> dict[str, tuple[str, str]]:
    """Name of each part that differs, with both values in words."""
    out = {}
    for f in fields(Folio):
        old, new = getattr(before, f.name), getattr(after, f.name)
        if old != new:
            out[f.name] = (_words(f.name, old), _words(f.name, new))
    return out


def _words(name: str, value: object) -> str:
    if name == "word" and isinstance(value, int):
        return f"{value:#x}" if abs(value) >= ENTIRELY_MAPPED else str(value)
    if isinstance(value, Stats):
        return " ".join(f"{f.name} {getattr(value, f.name)}" for f in fields(Stats) if getattr(value, f.name)) or "none"
    if name == "pages" and isinstance(value, tuple):
        return _runs(value)
    if isinstance(value, frozenset):
        return str(sorted(value))
    return str(value)


def _runs(values: tuple[int, ...]) -> str:
    """``-1*3 0*509`` for a long row of few values."""
    out: list[tuple[int, int]] = []
    for value in values:
        if out and out[-1][0] == value:
            out[-1] = value, out[-1][1] + 1
        else:
            out.append((value, 1))
    return " ".join(f"{value}*{times}" if times > 1 else str(value) for value, times in out)


def count(bag: Bag[K], key: K) -> int:
    """How often it is in the bag."""
    return next((n for k, n in bag if k == key), 0)


def bump(bag: Bag[K], keys: Iterable[K], by: int) -> Bag[K]:
    """The bag with so many more (or fewer) of each key."""
    counts = dict(bag)
    for key in keys:
        counts[key] = counts.get(key, 0) + by
    return tuple(sorted((k, n) for k, n in counts.items() if n))


def with_stats(folio: Folio, mapped: int, pmd_mapped: int) -> Folio:
    """The folio's share moved by so many pages.

    mm/rmap.c, __folio_mod_stat(); before 6.10 the same spread over the operations.
    """
    s = folio.stats
    if folio.kind is FolioKind.ANON:
        s = replace(s, nr_anon_mapped=s.nr_anon_mapped + mapped, nr_anon_thps=s.nr_anon_thps + pmd_mapped)
    elif folio.kind is FolioKind.SHMEM:
        s = replace(s, nr_file_mapped=s.nr_file_mapped + mapped, nr_shmem_pmdmapped=s.nr_shmem_pmdmapped + pmd_mapped)
    else:
        s = replace(s, nr_file_mapped=s.nr_file_mapped + mapped, nr_file_pmdmapped=s.nr_file_pmdmapped + pmd_mapped)
    return replace(folio, stats=s)
