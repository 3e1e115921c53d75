"""What entries in page tables that cannot be followed may map: all else is known as if they were there.

A table that is not in the dump, or that a damaged entry above it has lost, covers some addresses of one mm. What may be
mapped there is what the reverse map leads there for: pages of anon_vmas that the VMAs at those addresses are chained to
(mm/rmap.c, rmap_walk_anon()), and of the address_spaces that they map (rmap_walk_file()).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I64, U64, Mask, spans, take_or
from inspector.layout.flags import MAPPING_ANON, MAPPING_KSM, MAPPING_TAGS, VM_MIXEDMAP, VM_PFNMAP, type_code
from inspector.walk.mappings import NOT_FOLLOWED, TABLE_PARTLY

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_PIECE = 1 << 18
"""Pages that are judged at a time."""


def tables_not_followed(s: Snapshot) -> I64:
    """Rows of the page tables whose entries are not known."""
    return np.flatnonzero(np.isin(s.tables.state, NOT_FOLLOWED))


def tables_unknown(s: Snapshot, level: Level) -> I64:
    """Rows of the page tables instead of which, or below which, there may be tables of a level that are not known.

    A table with entries that were overwritten is itself known, and those of the last level lead to no table.
    """
    rows = tables_not_followed(s)
    return rows[s.tables.level[rows].astype(np.int64) - (s.tables.state[rows] == TABLE_PARTLY) >= level]


def topless_mms(s: Snapshot) -> I64:
    """Rows of the mms of which no page table is known, because their pgd names none."""
    return np.flatnonzero(s.mms.pgd_pfn < 0)


def vmas_behind(s: Snapshot, rows: I64) -> I64 | None:
    """Rows of the VMAs at the addresses that some page tables, and those of mms without a top table, cover.

    None where not all VMAs there are known.

    They are not where the mm has no user left, whose VMAs are freed before its tables (mm/mmap.c, exit_mmap()), and
    where its tree of VMAs is damaged.
    """
    tables, vmas, topless = s.tables.take(rows), s.vmas, topless_mms(s)
    known = s.vma_tree_sound & (s.mms.users > 0)
    if not known[tables.mm_idx].all() or not known[topless].all():
        return None
    covered = {shape.level: shape.user_entries << shape.shift for shape in s.layout.arch.shapes}
    out = [np.flatnonzero(np.isin(vmas.mm_idx, topless))]
    for mm, level, va in zip(tables.mm_idx.tolist(), tables.level.tolist(), tables.va.tolist(), strict=True):
        first, stop = np.searchsorted(vmas.mm_idx, [mm, mm + 1])
        begin = first + np.searchsorted(vmas.end[first:stop], np.uint64(va), "right")
        end = first + np.searchsorted(vmas.start[first:stop], np.uint64(va + covered[level]), "left")
        out.append(np.arange(begin, end))
    return np.unique(np.concatenate(out))


def pages_behind(s: Snapshot, vma_rows: I64) -> Mask:
    """Which pages an entry within some VMAs may map; an anonymous page whose owner is not known is one of them.

    KSM pages are too: what leads to their mappings are items of each mm, in no order of VMAs. A page of a file is
    mapped where that file is, and one that names nothing where drivers and the vDSO have their pages.

    Returns:
        bool[pages]
    """
    vmas, anon, files = s.vmas, s.anon_rmap, s.file_rmap
    avcs = anon.avcs
    chained = avcs.anon_vma_idx[np.isin(avcs.list_vma_idx, vma_rows) & (avcs.anon_vma_idx >= 0)]
    families: U64 = np.concatenate([anon.anon_vmas.addr[np.unique(chained)], vmas.anon_vma[vma_rows]])
    known = anon.anon_vmas.addr[anon.anon_vmas.readable]
    space = files.address_space_of_vma[vma_rows]
    spaces = files.address_spaces.addr[np.unique(space[space >= 0])]
    # Of a VMA whose file or driver is not known it is not known either what it maps.
    driver = (vmas.flags[vma_rows] & np.uint64(VM_MIXEDMAP | VM_PFNMAP)) != 0
    driver |= take_or(s.maps_driver_pages, space, False)
    has_file = vmas.file[vma_rows] != 0
    any_file = bool((has_file & ((space < 0) | driver)).any())
    no_owner = bool((driver | ((space < 0) & ((vmas.ops[vma_rows] != 0) | has_file))).any())
    broken = np.isin(vma_rows, anon.broken_lists).any()
    # Nothing but hugetlb maps its folios, whatever a driver maps.
    not_mapped = type_code("hugetlb") if not vmas.is_hugetlb[vma_rows].any() else -1
    out = np.zeros(len(s.pages), np.bool_)
    for rows in spans(len(out), _PIECE):
        head = np.maximum(s.pages.head_row[rows], 0)
        word = s.pages.mapping[head]
        tag, owner = word & np.uint64(MAPPING_TAGS), word & ~np.uint64(MAPPING_TAGS)
        is_anon = tag == np.uint64(MAPPING_ANON)
        is_file = (tag == 0) & (word != 0)
        out[rows] = is_anon & (np.isin(owner, families) | ~np.isin(owner, known) | broken)
        out[rows] |= is_file & (np.isin(word, spaces) | any_file)
        out[rows] |= tag == np.uint64(MAPPING_KSM)
        # What of these counts no mapping has none.
        counts = (s.pages.mapcount_raw[rows] >= 0) | (s.folio_of_page[rows] >= 0)
        out[rows] |= (word == 0) & counts & no_owner
        out[rows] &= s.pages.type_[head] != not_mapped
    return out
