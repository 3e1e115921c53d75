"""Which rules the reverse map of a file or of an anon_vma family breaks: the verdict of the commands that show it."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64
from inspector.rules.registry import all_rules
from inspector.snapshot import Snapshot
from inspector.subjects import ADDRESS_SPACE, ANON_VMA, AVC, I_MMAP_NODE, VMA, SubjectKind, address_space_ids
from inspector.violations import Violations
from inspector.windows.window import Effect


def file_damage(s: Snapshot, address_space: int) -> list[str]:
    """Slugs of the rules that the reverse map of a file breaks, beyond what work in flight explains."""
    rmap, address = s.file_rmap, np.array([address_space], np.uint64)
    row = np.flatnonzero(rmap.address_spaces.addr == address)
    vma = np.isin(rmap.address_space_of_vma, row)
    node = np.isin(rmap.nodes.address_space_idx, row)
    vma[rmap.nodes.vma_idx[node & (rmap.nodes.vma_idx >= 0)]] = True
    shown = {VMA: np.flatnonzero(vma), I_MMAP_NODE: np.flatnonzero(node), ADDRESS_SPACE: address_space_ids(address)}
    return _broken(s, Effect.FILE_RMAP, shown)


def anon_vma_damage(s: Snapshot, members: I64) -> list[str]:
    """Slugs of the rules that the given anon_vmas or their chains break, beyond what work in flight explains.

    Args:
        s: A snapshot.
        members: int64[n]; rows of the anon_vmas of one family.
    """
    avcs = s.anon_rmap.avcs
    avc = np.isin(avcs.tree_idx, members) | np.isin(avcs.anon_vma_idx, members)
    vma = np.isin(s.vmas.anon_vma, s.anon_rmap.anon_vmas.addr[members])
    named = np.concatenate([avcs.vma_idx[avc], avcs.list_vma_idx[avc]])
    vma[named[named >= 0]] = True
    return _broken(s, Effect.ANON_RMAP, {VMA: np.flatnonzero(vma), AVC: np.flatnonzero(avc), ANON_VMA: members})


def _broken(s: Snapshot, effect: Effect, shown: dict[SubjectKind, I64]) -> list[str]:
    """Rules of a reverse map that have a lasting violation among the subjects shown."""
    rules = [r for r in all_rules() if r.effect is effect and r.about in shown]
    return [r.slug for r in rules if _has(r.run(s), shown[r.about])]


def _has(found: Violations, rows: I64) -> bool:
    transient = found.details.transient
    lasting = found.rows if transient is None else found.rows[~transient]
    return bool(np.isin(lasting, rows).any())
