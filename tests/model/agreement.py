"""Whether a state is what its own mappings demand: the operations compared with the closed form."""

from __future__ import annotations

from collections import Counter

import numpy as np

from inspector.columns import I32
from inspector.model import mm_ids
from inspector.model.expectation import Rebuilt, expect
from inspector.model.state import Folio, FolioKind, Stats, count
from inspector.model.stats import PagePlacement, RssKind, expect_node_stats, expect_rss
from tests.model.slot_reasons import Credits, violations


def rebuilt_of(folio: Folio) -> tuple[Rebuilt, I32]:
    """What the page tables would say of it, and which folio each of its pages is of (-1 for a small one)."""
    mapped = np.zeros(folio.nr, np.int32)
    for (_, page), n in folio.ptes:
        mapped[page] += n
    rows = 1 if folio.is_large or folio.kind.is_hugetlb else 0
    rebuilt = Rebuilt(
        page_mappings=mapped,
        head_row=np.zeros(rows, np.int64),
        order=np.full(rows, folio.order, np.uint8),
        entire=np.full(rows, sum(n for _, n in folio.huge), np.int32),
        is_hugetlb=np.full(rows, folio.kind.is_hugetlb),
        is_anon=np.full(rows, folio.kind.is_anon),
        double_map=np.full(rows, folio.double_map),
    )
    return rebuilt, np.full(folio.nr, rows - 1, np.int32)


def mappings_by(folio: Folio, mm: int) -> int:
    """Mappings of one mm."""
    return sum(n for (who, _), n in folio.ptes if who == mm) + count(folio.huge, mm)


def disagreements(folio: Folio, *, stats: bool = True) -> list[str]:
    """Each counter that is not what the mappings demand, in words; empty for a sound state.

    Args:
        folio: The state, with no operation under way.
        stats: Compare the node counters too. On 6.1 they are inexact once a PTE was added to a THP that a PMD maps.
    """
    rebuilt, owner = rebuilt_of(folio)
    expected = expect(folio.scheme, rebuilt, owner)
    out = []

    def compare(name: str, stored: object, wanted: object) -> None:
        if stored != wanted:
            out.append(f"{name}: {stored}, but {wanted} by its mappings")

    compare("_mapcount", list(folio.pages), expected.page_mapcount_raw.tolist())
    if len(rebuilt.order):
        compare("entire mapcount", folio.entire, int(expected.entire_raw[0]))
        compare("_large_mapcount", folio.large, int(expected.large_raw[0]))
        compare("_nr_pages_mapped", folio.word, int(expected.word_raw[0]))
    else:
        compare("counters of a large folio", (folio.entire, folio.large, folio.word), (-1, -1, 0))
    out += _slots(folio)
    if stats:
        places = PagePlacement(
            owner,
            np.zeros(folio.nr, np.int8),
            np.full(folio.nr, folio.kind.is_anon),
            np.zeros(len(rebuilt.order), np.int8),
            np.full(len(rebuilt.order), folio.kind is FolioKind.SHMEM),
        )
        found = expect_node_stats(folio.scheme, rebuilt, expected, places, 1, folio.pmd_order)
        for name in Stats.__dataclass_fields__:
            compare(name, getattr(folio.stats, name), int(getattr(found, name)[0]))
    compare("rss", dict(folio.rss), _rss(folio))
    compare("references", folio.refcount, 1 + folio.total)
    return out


def _slots(folio: Folio) -> list[str]:
    if not folio.scheme.has_mm_ids or not folio.is_large:
        return []
    (id0, count0), (id1, count1) = folio.slots
    word = id0 | id1 << 32 | folio.shared << 63
    slots = mm_ids.Slots(np.array([word], np.uint64), np.array([count0]), np.array([count1]))
    mms = sorted({mm for (mm, _), _ in folio.ptes} | {mm for mm, _ in folio.huge})
    found = Credits(
        np.array([folio.kind.is_hugetlb]),
        np.zeros(len(mms), np.int64),
        np.array(mms, np.int64),
        np.array([mappings_by(folio, mm) for mm in mms], np.int64),
        np.array(mms, np.uint64),
    )
    return [f"mm ids: {reason.value}" for reason, mask in violations(slots, found).items() if mask[0]]


def _rss(folio: Folio) -> dict[int, int]:
    """Pages that each mm must be charged, by the closed form."""
    if folio.kind.is_hugetlb:
        return {}
    pages: Counter[int] = Counter()
    for (mm, _), n in folio.ptes:
        pages[mm] += n
    for mm, n in folio.huge:
        pages[mm] += n * folio.nr
    for mm, n in folio.migration:
        pages[mm] += n
    mms = sorted(pages)
    if not mms:
        return {}
    kind = RssKind.ANON if folio.kind.is_anon else RssKind.SHMEM if folio.kind is FolioKind.SHMEM else RssKind.FILE
    rows = np.arange(len(mms))
    sums = expect_rss(rows, np.full(len(mms), kind), np.array([pages[mm] for mm in mms]), len(mms))
    return {mm: int(n) for mm, n in zip(mms, sums.sum(axis=1), strict=True)}
