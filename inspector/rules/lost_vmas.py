"""The rule of VMAs that an mm has lost, and what its consequences ask."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, AnyArray
from inspector.rules.registry import Keys, Violations, rule
from inspector.snapshot import Snapshot
from inspector.tables.anon_vmas import rows_of
from inspector.walk.lost_vmas import lost_vma_at


def lost_at(s: Snapshot, mm_idx: AnyArray, va: AnyArray) -> I64:
    """Row of the lost VMA that would hold each address, -1 for none."""
    return lost_vma_at(s.lost_vmas, mm_idx, va)


def lost_rows(s: Snapshot, vma: AnyArray) -> I64:
    """Row of each vm_area_struct among the lost ones, -1 for others."""
    return rows_of(s.lost_vmas.addr, vma.astype(np.uint64)).astype(np.int64)


def lost_in(s: Snapshot, mms: I64) -> Keys:
    """A key for each lost VMA of the given mms."""
    lost = s.lost_vmas.mm_idx
    return tuple(("lost_vma", np.where(mms == lost[row], row, -1)) for row in range(min(len(lost), 64)))


@rule("vma-lost-from-tree", group="vma", invariant="V1", rank=6)
def vma_lost_from_tree(s: Snapshot) -> Violations:
    """A VMA stands in a reverse map although the tree of its mm does not hold it.

    True:  every VMA in an anon_vma's or a file's interval tree is in the maple tree of the mm it names.
    Why:   mm/vma.c, vma_link(); mm/mmap.c, exit_mmap() and munmap take a VMA out of the reverse maps before they free
           it.
    Then:  what it mapped lies outside every VMA: nothing will unmap it. If the VMA was freed, rmap walks freed memory.
           lib/maple_tree.c lost VMAs in spanning stores before 6.12.
    Silent when: mmap_lock is held or the mm is being built or torn down: a VMA leaves the tree first. Also when the
           maple tree of the mm could not be read whole.
    Look further: folioscope vmas PID; folioscope anon-vma ADDRESS
    """
    lost, mms = s.lost_vmas, s.mms
    known = np.ones(len(mms), np.bool_)
    for damaged in (s.vma_trees.unreadable, s.vma_trees.broken, s.vma_trees.missing):
        known[damaged] = False
    rows = np.flatnonzero(known[lost.mm_idx])
    mm = lost.mm_idx[rows].astype(np.int64)
    return Violations(
        "mm",
        mm,
        {"in_tree": np.zeros(len(rows), np.bool_)},
        {"in_tree": np.ones(len(rows), np.bool_)},
        len(lost) + len(s.anon_rmap.avcs) + len(s.file_rmap.nodes),
        facts={"vma": lost.addr[rows], "vm_start": lost.start[rows], "vm_end": lost.end[rows]},
        claims=(("lost_vma", rows),),
        transient=(s.mm_in_motion | mms.read_locked)[mm],
    )
