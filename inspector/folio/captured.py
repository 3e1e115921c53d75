"""A folio of the target as a state of the executable model: its counters as stored, and the mappings behind them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64
from inspector.folio.numbers import OneFolio, terms_of
from inspector.folio.situation import situation_of
from inspector.model.state import Folio, FolioKind, Slot, bump
from inspector.records import dataclass

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

MAX_ORDER = 12
"""Larger folios are not played with: a state has a number for each page."""


@dataclass(frozen=True)
class Captured:
    """The folio, and who its mms are.

    Attributes:
        state: For the model.
        mm_of_key: Row in `Mms` by the number of an mm in the state: its mm id where the kernel has them.
        names: What each number is called, where two captures share them; None: by the row.
    """

    state: Folio
    mm_of_key: dict[int, int]
    names: dict[int, str] | None = None

    def key_of(self, mm_idx: int) -> int:
        """The number of an mm in the state; 0 for one that the state does not know."""
        return next((key for key, row in self.mm_of_key.items() if row == mm_idx), 0)


def capture_folio(s: Snapshot, f: OneFolio) -> Captured | None:
    """The state of a folio; None for pages that the rmap does not count, or on an unknown scheme.

    The share of the node's counters is left at zero: only its changes mean something.
    """
    if s.scheme is None or f.page_type or not (f.is_anon or f.is_file) or f.order > MAX_ORDER:
        return None
    situation = situation_of(s, f, terms_of(s, f))
    large, folios = f.is_large, s.folios
    has = s.scheme
    pages = s.pages.mapcount_raw[f.head : f.head + f.nr_pages].tolist()
    keys = mm_keys(s)
    m, rows = s.mappings, f.mapping_rows
    state = Folio(
        scheme=has,
        order=f.order,
        kind=kind_of(s, f),
        pages=(-1,) * f.nr_pages if f.is_hugetlb else tuple(pages),
        pmd_order=s.layout.pmd_order,
        entire=int(folios.entire_raw[f.folio]) if large else -1,
        large=int(folios.large_raw[f.folio]) if large and has.has_large_mapcount else -1,
        word=int(folios.word_raw[f.folio]) if large and has.has_pages_mapped_word else 0,
        double_map=large and bool(folios.double_map[f.folio]),
        slots=slots_of(s, f),
        shared=bool(situation.maybe_shared),
        exclusive=frozenset(np.flatnonzero(f.exclusive).tolist()),
        anon_mapping=f.is_anon,
        pinned=situation.pins,
        swapcache=situation.swap > 0,
        mlocked=situation.mlocked,
        partially_mapped=large and bool(folios.partially_mapped[f.folio]),
        refcount=situation.refcount,
    )
    ptes: list[tuple[int, int]] = []
    huge: list[int] = []
    for row in rows.tolist():
        key = int(keys[m.mm_idx[row]])
        if m.level[row] != Level.PTE:
            huge.append(key)
            continue
        first = int(m.pfn[row]) - f.pfn
        ptes += [(key, page) for page in range(max(first, 0), min(first + int(m.nr[row]), f.nr_pages))]
    rss = [] if f.is_hugetlb else [key for key, _ in ptes] + huge * f.nr_pages
    state = replace(state, ptes=bump((), ptes, 1), huge=bump((), huge, 1), rss=bump((), rss, 1))
    return Captured(state, {key: row for row, key in enumerate(keys.tolist()) if key})


def mm_keys(s: Snapshot) -> I64:
    """int64[mms]; the number of each mm in a state: its mm id, or its row plus one."""
    if s.scheme is not None and s.scheme.has_mm_ids:
        return s.mms.mm_id.astype(np.int64)
    return np.arange(1, len(s.mms) + 1, dtype=np.int64)


def kind_of(s: Snapshot, f: OneFolio) -> FolioKind:
    """What the folio holds; files that are swapbacked are shmem."""
    if f.is_hugetlb:
        return FolioKind.HUGETLB_ANON if f.is_anon else FolioKind.HUGETLB_FILE
    if f.is_anon:
        return FolioKind.ANON
    swapbacked = s.layout.flags.test(s.pages.flags[f.head : f.head + 1], "swapbacked")[0]
    return FolioKind.SHMEM if swapbacked else FolioKind.FILE


def folio_names(s: Snapshot) -> bool | None:
    """Whether this kernel's symbols have the names of 6.8 and later; None where they are unknown."""
    newer = ("folio_remove_rmap_ptes", "folio_remove_rmap_pmd", "folio_add_file_rmap_ptes")
    if any(s.target.symbol(name) is not None for name in newer):
        return True
    return False if s.target.symbol("page_remove_rmap") is not None else None


def slots_of(s: Snapshot, f: OneFolio) -> tuple[Slot, Slot]:
    """The mm ids of the folio with their counts; free where the kernel has none (before 6.15)."""
    if not f.is_large or s.scheme is None or not s.scheme.has_mm_ids:
        return (0, -1), (0, -1)
    slots = s.folios.mm_id_slots.one(f.folio)
    return (int(slots.id0[0]), int(slots.count0[0])), (int(slots.id1[0]), int(slots.count1[0]))
