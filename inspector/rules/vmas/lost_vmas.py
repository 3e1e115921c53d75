"""The rule of VMAs that an mm has lost, and what its consequences ask."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, AnyArray, Mask, rows_of
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import MM
from inspector.violations import Relation, Violations, one, several, violations
from inspector.walk.lost_vmas import lost_vma_at
from inspector.windows.window import Effect


def lost_at(s: Snapshot, mm_idx: AnyArray, va: AnyArray) -> I64:
    """Row of the lost VMA that would hold each address, -1 for none."""
    return lost_vma_at(s.lost_vmas, mm_idx, va)


def lost_rows(s: Snapshot, vma: AnyArray) -> I64:
    """Row of each vm_area_struct among the lost ones, -1 for others."""
    return rows_of(s.lost_vmas.addr, vma.astype(np.uint64)).astype(np.int64)


def lost_in_motion(s: Snapshot, vma: AnyArray) -> Mask:
    """Which VMAs are lost, but of an mm that is changing its VMAs: on their way into or out of its tree.

    A VMA has its chains before it enters the tree (mm/vma.c, __split_vma(), copy_vma(); kernel/fork.c, dup_mmap()) and
    keeps them for a while after it left (vms_gather_munmap_vmas()).
    """
    rows = lost_rows(s, vma)
    mm = s.lost_vmas.mm_idx[np.maximum(rows, 0)] if len(s.lost_vmas) else np.zeros(len(rows), np.int32)
    return (rows >= 0) & vmas_leave(s)[mm]


def vmas_leave(s: Snapshot) -> Mask:
    """Mms whose VMAs may have left the tree before their entries and chains are gone."""
    return s.mm_in_motion | s.mms.read_locked


def lost_mm(s: Snapshot, vma: AnyArray) -> I64:
    """Row of the mm of each vm_area_struct that its mm has lost, -1 for others."""
    row = lost_rows(s, vma)
    if not len(s.lost_vmas):
        return row
    return np.where(row >= 0, s.lost_vmas.mm_idx[np.maximum(row, 0)], -1).astype(np.int64)


def lost_in(s: Snapshot, mms: I64) -> Relation:
    """The lost VMAs of each of the given mms."""
    at, row = np.nonzero(mms[:, None] == s.lost_vmas.mm_idx[None, :])
    return several("lost_vma", at, row)


@rule(
    "vma-unreachable",
    MM,
    "vma",
    Phase.WORDS,
    effect=Effect.VMAS,
    decides="58 74",
    was="vma-lost-from-tree",
)
def vma_unreachable(s: Snapshot) -> Violations:
    """A VMA stands in a reverse map although the tree of its mm does not hold it.

    Invariant: every VMA in an anon_vma's or a file's interval tree is in the maple tree of the mm it names.
    Why: mm/vma.c, vma_link(); mm/mmap.c, exit_mmap() and munmap take a VMA out of the reverse maps before they free it.
    Consequence: what it mapped lies outside every VMA: nothing will unmap it. If the VMA was freed, rmap walks freed
        memory. lib/maple_tree.c lost VMAs in spanning stores before 6.12.
    Exceptions: mmap_lock is held or the mm is being built or torn down: a VMA leaves the tree first. Also when the
        maple tree of the mm could not be read whole.
    See also: folioscope vmas PID; folioscope anon-vma ADDRESS
    """
    lost, mms = s.lost_vmas, s.mms
    known = np.ones(len(mms), np.bool_)
    for damaged in (s.vma_trees.unreadable, s.vma_trees.broken, s.vma_trees.missing):
        known[damaged] = False
    rows = np.flatnonzero(known[lost.mm_idx])
    mm = lost.mm_idx[rows].astype(np.int64)
    return violations(
        mm,
        observed={"in_tree": np.zeros(len(rows), np.bool_)},
        expected={"in_tree": np.ones(len(rows), np.bool_)},
        checked=len(lost) + len(s.anon_rmap.avcs) + len(s.file_rmap.nodes),
        facts={"vma": lost.addr[rows], "vm_start": lost.start[rows], "vm_end": lost.end[rows]},
        claims=one("lost_vma", rows),
        transient=vmas_leave(s)[mm],
    )
