"""The rule of VMAs that are missing from the tree of their mm, and what other rules need to know about them."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, AnyArray, Mask, rows_of, take_or
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import MM
from inspector.violations import Things, Violations, one, several, violations
from inspector.walk.lost_vmas import lost_vma_at
from inspector.windows.window import Effect


def lost_vma_covering(s: Snapshot, mm_idx: AnyArray, va: AnyArray) -> I64:
    """Row of the lost VMA that would hold each address, -1 for none."""
    return lost_vma_at(s.lost_vmas, mm_idx, va)


def lost_vma_rows(s: Snapshot, vma: AnyArray) -> I64:
    """Row of each vm_area_struct among the lost ones, -1 for others."""
    return rows_of(s.lost_vmas.addr, vma.astype(np.uint64)).astype(np.int64)


def mm_of_lost_vma(s: Snapshot, vma: AnyArray) -> I64:
    """Row of the mm of each vm_area_struct that is missing from its mm's tree, -1 for others."""
    return take_or(s.lost_vmas.mm_idx, lost_vma_rows(s, vma), -1).astype(np.int64)


def lost_vmas_of(s: Snapshot, mms: I64) -> Things:
    """The lost VMAs of each of the given mms."""
    at, row = np.nonzero(mms[:, None] == s.lost_vmas.mm_idx[None, :])
    return several("lost_vma", at, row)


def mms_changing_vmas(s: Snapshot) -> Mask:
    """Mms whose VMAs may have left the tree before their entries and chains are gone.

    munmap goes on with mmap_lock held for reading only (mm/vma.c, vms_complete_munmap_vmas()).
    """
    return s.mm_in_motion | s.mms.read_locked


def entering_or_leaving_tree(s: Snapshot, vma: AnyArray) -> Mask:
    """Which vm_area_structs are missing from the tree of an mm that is changing its VMAs.

    A VMA has its chains before it enters the tree (mm/vma.c, __split_vma(), copy_vma(); kernel/fork.c, dup_mmap()) and
    keeps them for a while after it left (vms_gather_munmap_vmas()).
    """
    return take_or(mms_changing_vmas(s), mm_of_lost_vma(s, vma), False)


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
    """A VMA is in a reverse map but not in the maple tree of its mm.

    Invariant: every VMA in an anon_vma's or a file's interval tree is in the maple tree of the mm it names.
    Why: mm/vma.c, vma_link(); mm/mmap.c, exit_mmap() and munmap take a VMA out of the reverse maps before they free it.
    Consequence: what it mapped is outside every VMA: nothing will unmap it. If the VMA was freed, rmap walks freed
        memory. lib/maple_tree.c lost VMAs in spanning stores before 6.12.
    Exceptions: mmap_lock is held or the mm is being built or torn down: a VMA leaves the tree first. Also when the
        maple tree of the mm could not be read whole.
    See also: folioscope vmas PID; folioscope anon-vma ADDRESS
    """
    lost = s.lost_vmas
    rows = np.flatnonzero(s.vma_tree_sound[lost.mm_idx])
    mm = lost.mm_idx[rows].astype(np.int64)
    return violations(
        mm,
        observed={"in_tree": False},
        expected={"in_tree": True},
        checked=len(lost) + len(s.anon_rmap.avcs) + len(s.file_rmap.nodes),
        facts={"vma": lost.addr[rows], "vm_start": lost.start[rows], "vm_end": lost.end[rows]},
        claims=one("lost_vma", rows) + one("mm_lost_vmas", mm),
        transient=mms_changing_vmas(s)[mm],
    )
