"""What is known of a folio that is counted wrongly, and in what its counters differ from what they should be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.columns import I64
from inspector.model.expectation import Rebuilt, expect
from inspector.model.interface import Op
from inspector.model.scheme import Scheme
from inspector.model.state import HPAGE_PUD_ORDER, Bag, Folio, FolioKind, Slot
from inspector.model.stats import HPAGE_PMD_ORDER


@dataclass(frozen=True)
class Truth:
    """What the page tables say.

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
class Stored:
    """What the struct pages hold, -1 based where the kernel counts so; None where it could not be read.

    Attributes:
        pages: int64[1 << order]; ``_mapcount``. None for a hugetlb folio too, whose head holds its page type there.
        entire, large, word: Of a large folio; those that the scheme does not keep are not looked at.
        slots, shared: The mm ids with their counts, and FOLIO_MM_IDS_SHARED.
    """

    pages: I64 | None = None
    entire: int | None = None
    large: int | None = None
    word: int | None = None
    slots: tuple[Slot, Slot] | None = None
    shared: bool | None = None


@dataclass(frozen=True)
class Step:
    """One thing that went wrong.

    Attributes:
        op: The call; page -1 when nothing tells which pages.
        change: "too many", "missing", "torn", "wrong level", "wrong page" or "short".
        times: How often.
    """

    op: Op
    change: str
    times: int = 1


@dataclass(frozen=True)
class Candidate:
    """One explanation.

    Attributes:
        steps: What was done too much or not at all; empty when no operation is to blame.
        how: "operations", "torn", "bit flip", "mm ids" or "none".
        sentence: In words.
        cost: The lower, the simpler; the list is sorted by it.
        ambiguous: Whether the counters cannot tell which pages.
    """

    steps: tuple[Step, ...]
    how: str
    sentence: str
    cost: float
    ambiguous: bool = False


@dataclass(frozen=True)
class Off:
    """Stored minus what is due, for what could be read and what the scheme keeps; None elsewhere.

    Attributes:
        pages: int64[pages].
        entire, large, word: Of the folio.
    """

    pages: I64 | None
    entire: int | None
    large: int | None
    word: int | None

    @property
    def anything(self) -> bool:
        """Whether any differs."""
        return bool(self.entire or self.large or self.word or self.moved_pages)

    @property
    def moved_pages(self) -> bool:
        """Whether a page differs."""
        return self.pages is not None and bool(self.pages.any())

    def scalars(self) -> dict[str, int]:
        """The folio's counters that differ, by name."""
        found = {"entire": self.entire, "large": self.large, "word": self.word}
        return {name: value for name, value in found.items() if value}


def at_rest(scheme: Scheme, truth: Truth) -> Folio:
    """The folio with the counters that its mappings demand; of its mappings it knows nothing."""
    nr = 1 << truth.order
    large = truth.order > 0 or truth.kind.is_hugetlb
    rows = 1 if large else 0
    rebuilt = Rebuilt(
        page_mappings=truth.ptes.astype(np.int32),
        head_row=np.zeros(rows, np.int64),
        order=np.full(rows, truth.order, np.uint8),
        entire=np.full(rows, truth.entire, np.int32),
        is_hugetlb=np.full(rows, truth.kind.is_hugetlb),
        is_anon=np.full(rows, truth.kind.is_anon),
        double_map=np.full(rows, truth.double_map),
    )
    due = expect(scheme, rebuilt, np.full(nr, rows - 1, np.int32))
    pages = tuple(due.page_mapcount_raw.tolist())
    folio = Folio(scheme, truth.order, truth.kind, pages, truth.pmd_order, truth.pud_order, anon_mapping=True)
    if not large:
        return folio
    return Folio(
        scheme,
        truth.order,
        truth.kind,
        pages,
        truth.pmd_order,
        truth.pud_order,
        entire=int(due.entire_raw[0]),
        large=int(due.large_raw[0]),
        word=int(due.word_raw[0]),
        double_map=truth.double_map,
        anon_mapping=True,
    )


def difference(folio: Folio, stored: Stored) -> Off:
    """Stored minus the folio's counters."""
    keeps_pages = (folio.scheme.has_page_mapcount or not folio.is_large) and not folio.kind.is_hugetlb
    pages = stored.pages - np.array(folio.pages, np.int64) if stored.pages is not None and keeps_pages else None
    if not folio.is_large:
        return Off(pages, None, None, None)
    keeps_word = folio.scheme.has_pages_mapped_word and stored.word is not None
    keeps_large = folio.scheme.has_large_mapcount and stored.large is not None
    return Off(
        pages,
        None if stored.entire is None else stored.entire - folio.entire,
        stored.large - folio.large if keeps_large and stored.large is not None else None,
        stored.word - folio.word if keeps_word and stored.word is not None else None,
    )


Run = tuple[int, int]
"""First page and how many."""


def runs_of(difference_of_pages: I64) -> list[Run]:
    """The ranges that, each raised by one, add up to the positive part: level by level, longest reach first.

    A page off by two is in two ranges, so that a batch and a smaller one on top of it are told apart.
    """
    out: list[Run] = []
    top = int(difference_of_pages.max(initial=0))
    for level in range(1, min(top, _MAX_RUNS) + 1):
        high = np.concatenate(([0], (difference_of_pages >= level).view(np.int8), [0]))
        edges = np.flatnonzero(np.diff(high))
        out += [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        if len(out) > _MAX_RUNS:
            break
    return out


_MAX_RUNS = 64
