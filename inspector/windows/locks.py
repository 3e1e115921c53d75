"""Locks that say where work may be going on: of mms, page tables and folios."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import AnyArray, Mask

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


def mm_in_flight(s: Snapshot) -> Mask:
    """Mms whose entries and counters may be out of step."""
    mms = s.mms
    return mms.locked | (mms.tlb_flush_pending > 0) | (mms.users <= 0)


def tables_locked(s: Snapshot, table_rows: AnyArray) -> Mask:
    """Which page tables' own locks are held: an entry of theirs may be half changed."""
    return s.page_tables_locked[table_rows] if len(table_rows) else np.zeros(0, np.bool_)


def entries_in_flight(s: Snapshot, rows: AnyArray) -> Mask:
    """Non-present entries whose mm is being changed or whose page table is locked."""
    n = s.nonpresent
    return mm_in_flight(s)[n.mm_idx[rows]] | tables_locked(s, n.table_idx[rows])


def pages_locked(s: Snapshot, head_rows: AnyArray) -> Mask:
    """Which folios are locked; -1 for none."""
    locked: Mask = s.layout.flags.test(s.pages.flags[np.maximum(head_rows, 0)], "locked")
    return locked & (head_rows >= 0)
