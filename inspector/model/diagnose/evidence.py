"""What is known of a folio that is counted wrongly, and in what its counters differ from what they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.columns import I64
from inspector.model.counters import RmapCounter
from inspector.model.expectation import Rebuilt, expect
from inspector.model.scheme import Scheme
from inspector.model.state import HPAGE_PUD_ORDER, Bag, Folio, FolioKind, Slot
from inspector.model.stats import HPAGE_PMD_ORDER
from inspector.records import dataclass


@dataclass(frozen=True)
class RebuiltFolio:
    """One folio as the page tables map it.

    Attributes:
        order, kind: Of the folio.
        ptes: int64[1 << order]; PTEs that map each page (P); of a hugetlb folio all 0.
        entire: Huge entries (E).
        double_map: PG_double_map as stored (6.1).
        mms: (mm id, its mappings), where known; compared with the slots of 6.15 and later.
        pmd_order, pud_order: Orders that one PMD and one PUD map.
    """

    order: int
    kind: FolioKind
    ptes: I64
    entire: int
    double_map: bool = False
    mms: Bag[int] = ()
    pmd_order: int = HPAGE_PMD_ORDER
    pud_order: int = HPAGE_PUD_ORDER


@dataclass(frozen=True)
class StoredCounters:
    """What the struct pages hold, -1 based where the kernel counts so; None where it could not be read.

    Attributes:
        pages: int64[1 << order]; ``_mapcount``. Ignored for a hugetlb folio, whose head holds its page type there.
        entire, large, word: Of a large folio; those that the scheme does not keep are ignored.
        slots, shared: The mm ids with their counts, and FOLIO_MM_IDS_SHARED.
        references: References beyond those that are explained; negative where there are too few.
    """

    pages: I64 | None = None
    entire: int | None = None
    large: int | None = None
    word: int | None = None
    slots: tuple[Slot, Slot] | None = None
    shared: bool | None = None
    references: int | None = None


@dataclass(frozen=True)
class Differences:
    """Stored minus expected, for what could be read and what the scheme keeps; None elsewhere.

    Attributes:
        pages: int64[pages].
        entire, large, word: Of the folio.
    """

    pages: I64 | None
    entire: int | None
    large: int | None
    word: int | None

    @property
    def pages_differ(self) -> bool:
        """Whether the count of a page does."""
        return self.pages is not None and bool(self.pages.any())

    def of_folio(self) -> dict[RmapCounter, int]:
        """The counters of the folio as a whole that differ."""
        found = {RmapCounter.ENTIRE: self.entire, RmapCounter.LARGE: self.large, RmapCounter.NR_PAGES_MAPPED: self.word}
        return {counter: by for counter, by in found.items() if by}

    def counters(self) -> set[RmapCounter]:
        """All that differ."""
        return {*self.of_folio(), *([RmapCounter.PAGE] if self.pages_differ else [])}

    def known(self) -> set[RmapCounter]:
        """Those that could be compared."""
        found = {
            RmapCounter.PAGE: self.pages,
            RmapCounter.ENTIRE: self.entire,
            RmapCounter.LARGE: self.large,
            RmapCounter.NR_PAGES_MAPPED: self.word,
        }
        return {counter for counter, by in found.items() if by is not None}


def at_rest(scheme: Scheme, rebuilt: RebuiltFolio) -> Folio:
    """The folio with the counters that its mappings demand; the mappings themselves are not in the state."""
    nr = 1 << rebuilt.order
    large = rebuilt.order > 0 or rebuilt.kind.is_hugetlb
    rows = 1 if large else 0
    columns = Rebuilt(
        page_mappings=rebuilt.ptes.astype(np.int32),
        head_row=np.zeros(rows, np.int64),
        order=np.full(rows, rebuilt.order, np.uint8),
        entire=np.full(rows, rebuilt.entire, np.int32),
        is_hugetlb=np.full(rows, rebuilt.kind.is_hugetlb),
        is_anon=np.full(rows, rebuilt.kind.is_anon),
        double_map=np.full(rows, rebuilt.double_map),
    )
    expected = expect(scheme, columns, np.full(nr, rows - 1, np.int32))
    pages = tuple(expected.page_mapcount_raw.tolist())
    folio = Folio(scheme, rebuilt.order, rebuilt.kind, pages, rebuilt.pmd_order, rebuilt.pud_order, anon_mapping=True)
    if not large:
        return folio
    return replace(
        folio,
        entire=int(expected.entire_raw[0]),
        large=int(expected.large_raw[0]),
        word=int(expected.word_raw[0]),
        double_map=rebuilt.double_map,
    )


def difference(folio: Folio, stored: StoredCounters) -> Differences:
    """Stored minus the folio's counters."""
    scheme, large = folio.scheme, folio.is_large
    keeps_pages = (scheme.has_page_mapcount or not large) and not folio.kind.is_hugetlb
    pages = stored.pages - np.array(folio.pages, np.int64) if stored.pages is not None and keeps_pages else None
    keeps_large, keeps_word = large and scheme.has_large_mapcount, large and scheme.has_pages_mapped_word
    return Differences(
        pages,
        stored.entire - folio.entire if large and stored.entire is not None else None,
        stored.large - folio.large if keeps_large and stored.large is not None else None,
        stored.word - folio.word if keeps_word and stored.word is not None else None,
    )


Run = tuple[int, int]
"""First page and how many."""

MAX_RUNS = 1024
"""Runs and moves beyond are given up: such counters are garbage."""


def runs_of(difference_of_pages: I64) -> list[Run]:
    """The ranges that, each raised by one, add up to the positive part: level by level, longest reach first.

    A page off by two is in two ranges, so that a batch and a smaller one on top of it stay apart: 0 1 2 2 1 0 is
    (1, 4) and (2, 2).
    """
    out: list[Run] = []
    top = int(difference_of_pages.max(initial=0))
    for level in range(1, min(top, MAX_RUNS) + 1):
        high = np.concatenate(([0], (difference_of_pages >= level).view(np.int8), [0]))
        edges = np.flatnonzero(np.diff(high))
        out += [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        if len(out) > MAX_RUNS:
            break
    return out
