"""Which rules one file's or one anon_vma family's links break: the verdict of the commands that show them."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask
from inspector.rules.registry import Violations, all_rules
from inspector.snapshot import Snapshot


def file_damage(s: Snapshot, address_space: int) -> list[str]:
    """Slugs of the rules that the reverse map of a file breaks, beyond what work in flight explains."""
    rmap = s.file_rmap
    spaces = np.flatnonzero(rmap.spaces.addr == np.uint64(address_space))
    vma = np.isin(rmap.space_of_vma, spaces)
    node = np.isin(rmap.nodes.space_idx, spaces)
    inside = rmap.nodes.vma_idx[node & (rmap.nodes.vma_idx >= 0)]
    vma[inside] = True
    space = np.isin(np.arange(len(rmap.spaces)), spaces)
    return _broken(s, "file-rmap", {"vma": vma, "i_mmap": node, "space": space})


def anon_vma_damage(s: Snapshot, members: I64) -> list[str]:
    """Slugs of the rules that the given anon_vmas or their chains break, beyond what work in flight explains.

    Args:
        s: A snapshot.
        members: int64[n]; rows of the anon_vmas of one family.
    """
    avcs = s.anon_rmap.avcs
    avc = np.isin(avcs.tree_idx, members) | np.isin(avcs.anon_vma_idx, members)
    anon_vma = np.isin(np.arange(len(s.anon_rmap.anon_vmas)), members)
    vma = np.isin(s.vmas.anon_vma, s.anon_rmap.anon_vmas.addr[members])
    chained = np.concatenate([avcs.vma_idx[avc], avcs.list_vma_idx[avc]])
    vma[chained[chained >= 0]] = True
    return _broken(s, "anon-rmap", {"vma": vma, "avc": avc, "anon_vma": anon_vma})


def _broken(s: Snapshot, group: str, shown: dict[str, Mask]) -> list[str]:
    """Rules of a group that have a lasting violation among the things shown."""
    rules = [r for r in all_rules() if r.group == group]
    return [r.slug for r in rules if _touches(r.function(s), shown)]


def _touches(v: Violations, shown: dict[str, Mask]) -> bool:
    if v.subject not in shown or not len(v):
        return False
    lasting = np.ones(len(v), np.bool_) if v.transient is None else ~v.transient
    return bool(shown[v.subject][v.rows[lasting]].any())
