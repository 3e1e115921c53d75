"""Which rules the reverse map of a file or of an anon_vma family breaks: the verdict of the commands that show it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inspector.aimed.snapshot import AimedSnapshot, NotAimedAtError
from inspector.columns import I64
from inspector.rules.registry import all_rules
from inspector.snapshot import Snapshot
from inspector.subjects import ADDRESS_SPACE, ANON_VMA, AVC, I_MMAP_NODE, VMA, SubjectKind, address_space_ids
from inspector.violations import Violations
from inspector.windows.window import Effect


class Damage(NamedTuple):
    """The verdict of some rules on what is shown.

    Attributes:
        broken: Slugs of the rules that have a lasting violation among it.
        unchecked: Slugs of those that need what a snapshot of a part does not have.
    """

    broken: list[str]
    unchecked: list[str]


def file_damage(s: Snapshot, address_space: int) -> Damage:
    """What is wrong with the reverse map of a file, beyond what work in flight explains."""
    rmap, address = s.file_rmap, np.array([address_space], np.uint64)
    row = np.flatnonzero(rmap.address_spaces.addr == address)
    vma = np.isin(rmap.address_space_of_vma, row)
    node = np.isin(rmap.nodes.address_space_idx, row)
    vma[rmap.nodes.vma_idx[node & (rmap.nodes.vma_idx >= 0)]] = True
    shown = {VMA: np.flatnonzero(vma), I_MMAP_NODE: np.flatnonzero(node), ADDRESS_SPACE: address_space_ids(address)}
    return _broken(s, Effect.FILE_RMAP, shown)


def anon_vma_damage(s: Snapshot, members: I64) -> Damage:
    """What is wrong with the given anon_vmas, their chains and VMAs, beyond what work in flight explains.

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


def _broken(s: Snapshot, effect: Effect, shown: dict[SubjectKind, I64]) -> Damage:
    """The rules of a reverse map, asked about the subjects shown."""
    out = Damage([], [])
    for rule in all_rules():
        if rule.effect is not effect or rule.about not in shown:
            continue
        try:
            found = rule.run(s)
        except NotAimedAtError:
            out.unchecked.append(rule.slug)
            continue
        if _has(found, shown[rule.about]):
            out.broken.append(rule.slug)
    if isinstance(s, AimedSnapshot) and s.has_strays:
        return Damage([], out.unchecked + out.broken)
    return out


def _has(found: Violations, rows: I64) -> bool:
    transient = found.details.transient
    lasting = found.rows if transient is None else found.rows[~transient]
    return bool(np.isin(lasting, rows).any())
