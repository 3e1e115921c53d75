"""Pools, folios and shared tables of hugetlb to plant faults in."""

from __future__ import annotations

import numpy as np

from inspector.snapshot import Snapshot


def pool_word(s: Snapshot, *names: str) -> int:
    """Address of a member of the pool that has folios."""
    h = s.hugetlb.hstates
    return int(h.addr[np.argmax(h.nr)]) + s.layout.struct("struct hstate").field(*names).offset


def folio_on(s: Snapshot, where: int, at: int = 0) -> int:
    """Page frame of a folio on that list."""
    pool = s.hugetlb.folios
    return int(s.folios.pfn[pool.folio_idx[np.flatnonzero(pool.where == where)[at]]])


def share_count_word(s: Snapshot) -> tuple[int, int]:
    """Address of the count of sharers of the shared table, and its page frame."""
    tables, _ = s.hugetlb_tables
    pfn = int(tables.pfn[np.argmax(tables.nr_sharers)])
    struct = s.layout.struct("struct ptdesc" if s.layout.has_struct("struct ptdesc") else "struct page")
    return s.layout.memmap.page_addr(pfn) + struct.field("pt_share_count.counter").offset, pfn
