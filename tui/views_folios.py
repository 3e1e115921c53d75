"""All folios in columns, and the small language that narrows them: ``anon order>=4 mapped=0 all``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inspector.columns import I64, U8, AnyArray, Mask, Table
from inspector.errors import UsageError
from inspector.snapshot import Snapshot
from inspector.walk.kinds import KINDS, kind_codes


@dataclass(frozen=True, slots=True)
class FolioColumns(Table):
    """One row a folio, by page frame number.

    Attributes:
        row: int64; of the head, in the pages.
        pfn: int64; of the head.
        kind: uint8; place in `inspector.walk.kinds.KINDS`.
        order: int64.
        mapped: int64; entries that map it, all pages and huge entries together.
        huge: int64; huge entries among them.
        mms: int64; address spaces that map it; -1 for a folio of one page, where none is counted.
        refs: int64; ``_refcount``.
        partial: bool; a large folio of which some page is mapped and another is not.
    """

    row: I64
    pfn: I64
    kind: U8
    order: I64
    mapped: I64
    huge: I64
    mms: I64
    refs: I64
    partial: Mask


def folio_columns(s: Snapshot, *, small: bool) -> FolioColumns:
    """The columns of all large folios, or of folios of one page as well (free ones left out)."""
    f = s.folios
    large = f.row
    rows = large
    if small:
        alone = (s.folio_of_page < 0) & (s.pages.refcount > 0) & s.pages.readable
        rows = np.sort(np.concatenate([np.flatnonzero(alone), large]))
    folio = s.folio_of_page[rows].astype(np.int64)
    at = np.maximum(folio, 0)
    one = s.census.page_mappings[rows].astype(np.int64)
    some = len(f) > 0

    def of(column: AnyArray, otherwise: AnyArray | int) -> I64:
        return np.where(folio >= 0, column[at], otherwise).astype(np.int64) if some else np.zeros(len(rows), np.int64)

    touched = _pages_mapped(s)
    return FolioColumns(
        row=rows,
        pfn=s.pages.memmap.pfns_of_rows(rows),
        kind=kind_codes(s.layout, s.pages, f, s.folio_of_page, rows),
        order=of(f.order, 0),
        mapped=of(s.folio_totals, one) if some else one,
        huge=of(s.census.entire, 0),
        mms=of(s.census.nr_mms, -1) if some else np.full(len(rows), -1, np.int64),
        refs=s.pages.refcount[rows].astype(np.int64),
        partial=of((touched > 0) & (touched < f.nr_pages) & (s.census.entire == 0), 0).astype(np.bool_),
    )


def _pages_mapped(s: Snapshot) -> I64:
    """How many pages of each large folio some PTE maps."""
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(s.census.page_mappings > 0)])
    end = np.minimum(s.folios.row + s.folios.nr_pages, len(s.pages))
    return (running[end] - running[s.folios.row]).astype(np.int64)


_TERM = re.compile(r"(order|mapped|huge|mms|refs)(>=|<=|!=|=|>|<)(\d{1,18})")
_COMPARE: dict[str, Callable[[I64, int], Mask]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class FolioFilter:
    """What is wanted: folios of any of the kinds that meet all comparisons.

    Attributes:
        small: Folios of one page as well.
        partial: Partially mapped ones only.
        kinds: Places in `KINDS`; empty for all.
        terms: Column, comparison, number.
    """

    small: bool = False
    partial: bool = False
    kinds: tuple[int, ...] = ()
    terms: tuple[tuple[str, str, int], ...] = ()

    def mask(self, columns: FolioColumns) -> Mask:
        """Which rows are wanted."""
        keep = np.ones(len(columns), np.bool_)
        if self.kinds:
            keep &= np.isin(columns.kind, self.kinds)
        if self.partial:
            keep &= columns.partial
        for name, compare, number in self.terms:
            keep &= _COMPARE[compare](getattr(columns, name), number)
        return keep


def parse_filter(text: str) -> FolioFilter:
    """The filter that words ask for; kinds of two words are written with a dash.

    Raises:
        UsageError: A word is not understood.
    """
    kinds: list[int] = []
    terms: list[tuple[str, str, int]] = []
    words = text.lower().split()
    known = {name.replace(" ", "-"): code for code, name in enumerate(KINDS)}
    for word in words:
        match = _TERM.fullmatch(word)
        if match:
            terms.append((match[1], match[2], int(match[3])))
        elif word in known:
            kinds.append(known[word])
        elif word not in ("all", "partial"):
            raise UsageError("this filter is not understood", word, "Try: anon order>=4 mapped=0 partial all")
    small = "all" in words or any(name == "order" and _COMPARE[how](np.array([0]), n)[0] for name, how, n in terms)
    return FolioFilter(small, "partial" in words, tuple(kinds), tuple(terms))
