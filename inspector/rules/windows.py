"""Windows in which a stopped kernel's counts may rightly be ahead of its page tables.

The kernel raises counts before it writes an entry and lowers them after it cleared one, so a count that is too high
may be work in flight, one that is too low never is. While it works it leaves marks: the folio is locked (migration,
split, collapse, reclaim), or an mm that may map it has its mmap_lock taken for writing (collapse, fork, mremap), has
unmappings whose pages wait for a TLB flush (mmu_gather), or is being torn down. A stopped kernel at rest has none.
"""

from __future__ import annotations

import numpy as np

from inspector.columns import AnyArray, Mask
from inspector.layout.flags import MAPPING_ANON, MAPPING_TAGS
from inspector.snapshot import Snapshot
from inspector.tables.anon_vmas import rows_of


def mm_in_flight(s: Snapshot) -> Mask:
    """Mms whose entries and counters may be out of step."""
    mms = s.mms
    return mms.locked | (mms.tlb_flush_pending > 0) | (mms.users <= 0)


def count_in_flight(s: Snapshot, head_rows: AnyArray) -> Mask:
    """Folios whose counts may be ahead of the page tables.

    Args:
        s: The snapshot.
        head_rows: Rows of the folios' heads in the page table; -1 for none.
    """
    if not len(head_rows):
        return np.zeros(0, np.bool_)
    head = np.maximum(head_rows, 0)
    locked: Mask = s.layout.flags.test(s.pages.flags[head], "locked") & (head_rows >= 0)
    busy_vma = mm_in_flight(s)[s.vmas.mm_idx] if len(s.vmas) else np.zeros(0, np.bool_)
    if not busy_vma.any():
        return locked
    mapping = s.pages.mapping[head]
    tag = mapping & np.uint64(MAPPING_TAGS)
    pointer = mapping & ~np.uint64(MAPPING_TAGS)
    anon = _touched(s.anon_rmap.anon_vmas.addr, pointer, _anon_vmas_of(s, busy_vma)) & (tag == MAPPING_ANON)
    file = _touched(s.file_rmap.spaces.addr, pointer, _spaces_of(s, busy_vma)) & (tag == 0)
    return locked | anon | file


def _touched(addrs: AnyArray, wanted: AnyArray, busy: Mask) -> Mask:
    at = rows_of(addrs, wanted)
    return (at >= 0) & busy[np.maximum(at, 0)] if len(addrs) else at >= 0


def _anon_vmas_of(s: Snapshot, vma: Mask) -> Mask:
    """anon_vmas whose interval tree holds one of the marked VMAs."""
    avcs = s.anon_rmap.avcs
    out = np.zeros(len(s.anon_rmap.anon_vmas), np.bool_)
    rows = np.flatnonzero((avcs.vma_idx >= 0) & (avcs.tree_idx >= 0))
    out[avcs.tree_idx[rows[vma[avcs.vma_idx[rows]]]]] = True
    return out


def _spaces_of(s: Snapshot, vma: Mask) -> Mask:
    """address_spaces that one of the marked VMAs maps."""
    space = s.file_rmap.space_of_vma
    out = np.zeros(len(s.file_rmap.spaces), np.bool_)
    out[space[vma & (space >= 0)]] = True
    return out
