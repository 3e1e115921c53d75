"""Nodes and items of KSM to plant faults in."""

from __future__ import annotations

import numpy as np

from inspector.snapshot import Snapshot


def node_word(s: Snapshot, *names: str, at: int = 0) -> int:
    """Address of a member of a stable node that has a mapped page; ``at`` counts them."""
    mapped = np.unique(s.ksm_entries.node_idx)
    struct = s.layout.struct("struct ksm_stable_node")
    return int(s.ksm.nodes.addr[mapped[at]]) + struct.field(*names).offset


def item_word(s: Snapshot, row: int, *names: str) -> int:
    return int(s.ksm.items.addr[row]) + s.layout.struct("struct ksm_rmap_item").field(*names).offset
