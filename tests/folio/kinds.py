"""A page of each kind, looked up in a dump."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inspector.columns import I64
from inspector.layout.flags import type_code
from inspector.snapshot import Snapshot
from inspector.walk.kinds import page_kinds
from tests.faults.overlay import pfn_of
from tests.faults.plants import MissingError, pick, pmd_mapped, pte_mapped_thp, small_anon, small_file


def of_kind(s: Snapshot, kind: str, *, mapped: bool = False) -> int:
    """A small page or head of that kind, mapped if wanted."""
    rows = np.flatnonzero(s.pages.readable & ~s.pages.is_tail & ((s.counts.page_mappings > 0) | (not mapped)))
    found: I64 = rows[page_kinds(s.layout, s.pages, s.folios, s.folio_of_page, rows) == kind]
    return pfn_of(s, pick(found, f"a page of kind {kind}"))


def _head(s: Snapshot, folios: I64, what: str) -> int:
    return int(s.folios.pfn[pick(folios, what)])


def _swapcached(s: Snapshot) -> int:
    terms = s.reference_terms
    return pfn_of(s, int(pick(terms.rows[(terms.terms["swap_cache"] > 0) & (terms.terms["pte"] > 0)], "swap cache")))


def _tail(s: Snapshot) -> int:
    return _head(s, pte_mapped_thp(s), "a THP mapped by PTEs") + 3


def _page_table(s: Snapshot) -> int:
    rows = np.flatnonzero((s.pages.type_ == type_code("table")) & (s.pages.refcount > 0))
    return pfn_of(s, pick(rows, "a page table"))


KINDS: dict[str, Callable[[Snapshot], int]] = {
    "anon": lambda s: pfn_of(s, pick(small_anon(s, 1), "an anonymous page")),
    "shared anon": lambda s: pfn_of(s, pick(small_anon(s, 2, more=True), "a shared anonymous page")),
    "thp by pmd": lambda s: _head(s, pmd_mapped(s, anon=True), "a THP mapped by a PMD"),
    "thp by pte": lambda s: _head(s, pte_mapped_thp(s), "a THP mapped by PTEs"),
    "tail": _tail,
    "hugetlb": lambda s: _head(s, pmd_mapped(s, hugetlb=True), "a hugetlb file folio"),
    "anon hugetlb": lambda s: _head(s, pmd_mapped(s, anon=True, hugetlb=True), "an anonymous hugetlb folio"),
    "file": lambda s: pfn_of(s, pick(small_file(s, 2), "a shared file page")),
    "shmem": lambda s: of_kind(s, "shmem", mapped=True),
    "ksm": lambda s: of_kind(s, "ksm", mapped=True),
    "swap cache": _swapcached,
    "kernel": lambda s: of_kind(s, "kernel", mapped=True),
    "zero": lambda s: s.layout.zero_pfn,
    "slab": lambda s: of_kind(s, "slab"),
    "page table": _page_table,
    "free": lambda s: of_kind(s, "free"),
}

__all__ = ["KINDS", "MissingError", "of_kind"]
