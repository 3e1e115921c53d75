"""Files and their cached folios to plant faults in."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.snapshot import Snapshot
from inspector.walk.page_cache import CachedFolios, cached_folios
from tests.faults.overlay import word


def idle_entries(s: Snapshot, kind: int) -> I64:
    """Unmapped, unlocked small folios in the page cache of one file that has at least three of them."""
    entries, c = s.files.entries, CachedFolios.concat(list(cached_folios(s)))
    mapped = s.counts.page_mappings[np.maximum(c.head_row, 0)] > 0
    fine = (s.files.address_spaces.kind[c.space] == kind) & (c.nr == 1) & ~mapped & ~c.locked
    fine &= ~s.layout.flags.test(s.pages.flags[np.maximum(c.head_row, 0)], "swapcache")
    rows = c.entry[fine]
    space, nr = np.unique(entries.address_space_idx[rows], return_counts=True)
    rows = rows[np.isin(entries.address_space_idx[rows], space[nr > 2])]
    assert len(rows), "no such entries in this dump"
    return rows


def slot_address(s: Snapshot, row: int) -> tuple[int, int]:
    """Address of the slot of an entry in its xa_node, and of that node."""
    entries, struct = s.files.entries, s.layout.struct("struct xa_node")
    node, index = int(s.files.address_spaces.head[entries.address_space_idx[row]]), int(entries.index[row])
    while True:
        base = node & ~3
        shift = word(s, base + struct.field("shift").offset, 1)
        at = base + struct.field("slots").offset + 8 * (index >> shift & 63)
        node = word(s, at)
        if node & 3 != 2 or shift == 0:
            assert node == int(entries.value[row])
            return at, base


def space_word(s: Snapshot, row: int, name: str) -> int:
    return int(s.files.address_spaces.addr[row]) + s.layout.struct("struct address_space").field(name).offset
