"""Rules of hugetlb folios and of the entries that map them."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import I64, AnyArray, take_or
from inspector.model import mm_ids
from inspector.model.counters import RmapCounter, field_name
from inspector.rules.needs import HUGETLB, PAGES, TABLES, VMAS
from inspector.rules.pieces import EntryPiece, Judged, NonPresentPiece
from inspector.rules.registry import Phase, entry_rule, nonpresent_rule, rule
from inspector.snapshot import Snapshot
from inspector.subjects import FOLIO
from inspector.violations import Details, Violations, one, violations
from inspector.walk.swap_view import find_slot
from inspector.windows.window import Effect


@rule(
    "hugetlb-counts-unexpected",
    FOLIO,
    "hugetlb",
    Phase.FOLIO_COUNTS,
    after=("entire-mapcount-mismatch",),
    effect=Effect.HUGETLB,
    needs=HUGETLB | TABLES,
    decides="I8 22",
    was="hugetlb-counts-touched",
)
def hugetlb_counts_unexpected(s: Snapshot) -> Violations:
    """A hugetlb folio has a count that only transparent huge pages keep.

    Invariant: hugetlb counts mappings in the entire mapcount alone: _nr_pages_mapped is 0, no page has a _mapcount, the
        large mapcount (6.10 and later) counts the huge entries too, and both mm-id slots (6.15 and later) are free.
    Why: mm/rmap.c, hugetlb_add_*_rmap() and hugetlb_remove_rmap() touch nothing else.
    Consequence: the folio went through folio_add_*_rmap_*(), the wrong family: its counts will never balance.
    Exceptions: never on a folio of type hugetlb in the dump.
    See also: folioscope folio PFN
    """
    folios, scheme = s.folios, s.scheme
    able = folios.is_hugetlb & folios.readable
    bad = folios.word_raw != 0
    kept: dict[str, tuple[AnyArray, AnyArray]] = {}
    if scheme is not None and scheme.has_pages_mapped_word:
        kept[field_name(scheme, RmapCounter.NR_PAGES_MAPPED)] = folios.word_raw, np.zeros(len(folios), np.int64)
    if scheme is not None and scheme.has_large_mapcount and s.expected is not None:
        wanted = s.expected.large_raw
        bad = bad | ((folios.large_raw != folios.entire_raw) & (folios.large_raw != wanted))
        kept[field_name(scheme, RmapCounter.LARGE)] = folios.large_raw, wanted
    if scheme is not None and scheme.has_mm_ids:
        bad = bad | mm_ids.in_use(folios.mm_id_slots)
        kept["_mm_ids"] = folios.mm_ids, np.zeros(len(folios), np.int64)
    rows = np.flatnonzero(able & bad)
    return violations(
        rows,
        observed={name: stored[rows] for name, (stored, _) in kept.items()},
        expected={name: expected[rows] for name, (_, expected) in kept.items()},
        checked=int(able.sum()),
    )


def named_slots(s: Snapshot, rows: I64) -> I64:
    """Row of the swap slot that each non-present entry names, -1 where there is none."""
    n = s.nonpresent
    named = zip(n.swap_type[rows].tolist(), n.swap_offset[rows].tolist(), strict=True)
    return np.array([find_slot(s.swap, kind, offset) for kind, offset in named], np.int64)


def _swap_entries(s: Snapshot, rows: I64) -> Details:
    """The slot that such an entry happens to name will look used too often."""
    return Details(
        observed={"entry": s.nonpresent.entry[rows]},
        expected={"entry": np.full(len(rows), "no swap entry")},
        claims=one("swap_slot", named_slots(s, rows)),
    )


@nonpresent_rule(
    "hugetlb-swap-entry-unexpected",
    _swap_entries,
    "hugetlb",
    Phase.WORDS,
    effect=Effect.HUGETLB,
    needs=VMAS,
    decides="I8",
    was="hugetlb-swap-entry",
)
def hugetlb_swap_entry_unexpected(n: NonPresentPiece) -> Judged:
    """A hugetlb VMA holds a swap entry.

    Invariant: hugetlb pages are never swapped: their empty slots hold migration, poison or marker entries only.
    Why: mm/rmap.c, try_to_unmap_one() meets hugetlb only for poisoned pages.
    Consequence: the fault handler takes the entry for something else; the page is lost.
    Exceptions: never.
    See also: folioscope va PID ADDRESS
    """
    inside = n.of_vma(n.s.vmas.is_hugetlb, False)
    return Judged(inside & n.is_one_of(Kind.SWAP), inside)


def _families(s: Snapshot, rows: I64) -> Details:
    """A folio that is no longer known as hugetlb is missing in the pool as well."""
    m = s.entries(rows)
    is_vma = take_or(s.vmas.is_hugetlb, m.vma_idx, False)
    folio = s.folio_of_page[np.maximum(m.head_row, 0)]
    is_folio = take_or(s.folios.is_hugetlb, folio, False)
    return Details(
        observed={"hugetlb_vma": is_vma, "hugetlb_folio": is_folio, "level": m.level},
        expected={"hugetlb_vma": is_folio, "hugetlb_folio": is_vma},
        claims=one("hugetlb_level", np.where(is_vma & ~is_folio, m.level.astype(np.int64), -1)),
    )


@entry_rule(
    "hugetlb-mapping-mismatch",
    _families,
    "hugetlb",
    Phase.WORDS,
    effect=Effect.HUGETLB,
    needs=PAGES | VMAS,
    decides="I8 66",
    was="hugetlb-mapped-by-stranger",
)
def hugetlb_mapping_mismatch(e: EntryPiece) -> Judged:
    """A hugetlb folio is mapped outside a hugetlb VMA or by PTEs, or a hugetlb VMA maps another folio.

    Invariant: hugetlb VMAs map hugetlb folios and nothing else does, always as a whole.
    Why: mm/hugetlb.c, hugetlb_fault() and hugetlb_no_page(); the two families never meet.
    Consequence: the entry is undone by the wrong family of rmap functions: counts underflow.
    Exceptions: the entry is special or maps nothing that is counted.
    See also: folioscope va PID ADDRESS
    """
    normal = e.is_normal & e.in_vma
    is_vma, is_folio = e.of_vma(e.s.vmas.is_hugetlb, False), e.in_hugetlb_folio
    return Judged(normal & ((is_vma != is_folio) | (is_folio & (e.level == Level.PTE))), normal)
