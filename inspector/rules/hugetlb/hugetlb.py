"""Rules of hugetlb, which keeps accounts of its own."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import I64
from inspector.model.scheme import Scheme
from inspector.rules.registry import Violations, rule
from inspector.snapshot import Snapshot
from inspector.walk.counts import EntryClass
from inspector.walk.swap_view import find_slot


@rule("hugetlb-counts-unexpected", was="hugetlb-counts-touched", group="hugetlb", invariant="I8", rank=41)
def hugetlb_counts_touched(s: Snapshot) -> Violations:
    """A hugetlb folio carries counts that only transparent huge pages keep.

    True:  hugetlb counts mappings in the entire mapcount alone: _nr_pages_mapped is 0, no page has a _mapcount, the
           large mapcount (6.10 and later) equals the entire one, and both mm-id slots (6.15 and later) are free.
    Why:   mm/rmap.c, hugetlb_add_*_rmap() and hugetlb_remove_rmap() touch nothing else.
    Then:  the folio went through folio_add_*_rmap_*(), the wrong family: its counts will never balance.
    Silent when: never on a folio of type hugetlb in the dump.
    Look further: folioscope folio PFN
    """
    folios = s.folios
    able = folios.is_hugetlb & folios.readable
    bad = folios.word_raw != 0
    if s.scheme in (Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT):
        bad = bad | (folios.mm_ids != 0) | (folios.mm_id_count0 != -1) | (folios.mm_id_count1 != -1)
    if s.scheme in (Scheme.LARGE, Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT):
        bad = bad | (folios.large_raw != folios.entire_raw)
    rows = np.flatnonzero(able & bad)
    zero = np.zeros(len(rows), np.int64)
    return Violations(
        "folio",
        rows,
        {
            "_nr_pages_mapped": folios.word_raw[rows],
            "_large_mapcount": folios.large_raw[rows],
            "_mm_ids": folios.mm_ids[rows],
        },
        {"_nr_pages_mapped": zero, "_large_mapcount": folios.entire_raw[rows], "_mm_ids": zero},
        int(able.sum()),
    )


@rule("hugetlb-swap-entry-unexpected", was="hugetlb-swap-entry", group="hugetlb", invariant="I8", rank=9)
def hugetlb_swap_entry(s: Snapshot) -> Violations:
    """A hugetlb mapping holds a swap entry.

    True:  hugetlb pages are never swapped: their empty slots hold migration, poison or marker entries only.
    Why:   mm/rmap.c, try_to_unmap_one() meets hugetlb only for poisoned pages.
    Then:  the fault handler takes the entry for something else; the page is lost.
    Silent when: never.
    Look further: folioscope va PID ADDRESS
    """
    n, vmas = s.nonpresent, s.vmas
    inside = (n.vma_idx >= 0) & vmas.is_hugetlb[np.maximum(n.vma_idx, 0)] if len(vmas) else np.zeros(len(n), np.bool_)
    rows = np.flatnonzero(inside & (n.kind == Kind.SWAP) & n.counted)
    return Violations(
        "nonpresent",
        rows,
        {"entry": n.entry[rows]},
        {"entry": np.full(len(rows), "no swap entry")},
        int(inside.sum()),
        # The slot that the stray entry happens to name will look used too often.
        claims=(("swap_slot", named_slots(s, rows)),),
    )


def named_slots(s: Snapshot, rows: I64) -> I64:
    """Row of the swap slot that each non-present entry names, -1 where there is none."""
    n = s.nonpresent
    named = zip(n.swap_type[rows].tolist(), n.swap_offset[rows].tolist(), strict=True)
    return np.array([find_slot(s.swap, kind, offset) for kind, offset in named], np.int64)


@rule("hugetlb-mapping-mismatch", was="hugetlb-mapped-by-stranger", group="hugetlb", invariant="I8", rank=9)
def hugetlb_mapped_by_stranger(s: Snapshot) -> Violations:
    """A hugetlb folio is mapped outside a hugetlb VMA or by single PTEs, or a hugetlb VMA maps another folio.

    True:  hugetlb VMAs map hugetlb folios and nothing else does, always as a whole.
    Why:   mm/hugetlb.c, hugetlb_fault() and hugetlb_no_page(); the two families never meet.
    Then:  the entry is undone by the wrong family of rmap functions: counts underflow.
    Silent when: the entry is special or maps nothing that is counted.
    Look further: folioscope va PID ADDRESS
    """
    m, vmas, counts = s.mappings, s.vmas, s.counts
    good = (counts.entry_class == EntryClass.NORMAL) & (m.vma_idx >= 0)
    is_vma = vmas.is_hugetlb[np.maximum(m.vma_idx, 0)] if len(vmas) else np.zeros(len(m), np.bool_)
    folio = s.folio_of_page[np.maximum(counts.head_row, 0)]
    is_folio = (folio >= 0) & s.folios.is_hugetlb[np.maximum(folio, 0)] if len(s.folios) else np.zeros(len(m), np.bool_)
    rows = np.flatnonzero(good & ((is_vma != is_folio) | (is_folio & (m.level == Level.PTE))))
    return Violations(
        "mapping",
        rows,
        {"hugetlb_vma": is_vma[rows], "hugetlb_folio": is_folio[rows], "level": m.level[rows]},
        {"hugetlb_vma": is_folio[rows], "hugetlb_folio": is_vma[rows]},
        int(good.sum()),
        # A folio that is no longer known as hugetlb is missing in the pool as well.
        claims=(("hugetlb_level", np.where(is_vma[rows] & ~is_folio[rows], m.level[rows], -1)),),
    )
