"""Rules of the locks that VMAs have of their own, and of the sequence numbers that lock them for writers."""

from __future__ import annotations

import numpy as np

from inspector.columns import distinct
from inspector.rules.needs import VMAS
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import MM, VMA
from inspector.text import counted
from inspector.violations import Violations, cannot_check, holds, one, violations
from inspector.windows.holders import runs_on, unknown_holders
from inspector.windows.window import Effect


@rule("vma-lock-holder-missing", VMA, "vma", Phase.STATES, needs=VMAS)
def vma_lock_holder_missing(s: Snapshot) -> Violations:
    """The lock of a VMA is held by readers, or waited for by a writer, that no task can be.

    Invariant: each reader of a VMA's lock, and the writer that holds it or waits for the readers to leave, is a task
        that has the address of the VMA, or of its lock, on its stack or in a register.
    Why: mm/mmap_lock.c, lock_vma_under_rcu() and __vma_start_write() (include/linux/mm.h, vma_start_read() and
        vma_start_write() before 6.15): the lock is let go of before the system call or the page fault ends, or waits
        for something else.
    Consequence: the next task that changes the VMA, in mprotect, munmap, fork or exit, waits for ever, and with it all
        that need the mm's mmap_lock. Where a writer is waited for, page faults fall back to mmap_lock.
    Exceptions: never. Nothing is checked while a kernel runs on, where the stack of a task is not known, or where
        VMAs have no locks of their own (before 6.4).
    See also: folioscope vmas PID
    """
    locks = s.vma_locks
    if locks is None:
        return holds(0)
    if runs_on(s):
        return holds(0, note="which tasks hold the locks of which VMAs changes while the kernel runs")
    lost = int((~locks.known).sum())
    note = f"the locks of {counted(lost, 'VMA')} are not in the dump" if lost else ""
    able = locks.known
    rows = np.flatnonzero(locks.readers + locks.written > locks.named_by)
    if len(rows) and unknown_holders(s):
        why = "the kernel stacks or registers of some tasks are not known, and one of these may hold the VMA's lock"
        return holds(int(able.sum()) - len(rows), cannot_check(len(rows), why), note)
    return violations(
        rows,
        observed={
            "lock": locks.word[rows],
            "readers": locks.readers[rows],
            "writer": locks.written[rows],
            "tasks_that_name_it": locks.named_by[rows],
        },
        expected={"readers": np.minimum(locks.readers, locks.named_by)[rows]},
        checked=able,
        note=note,
        claims=one("vma", rows),
    )


@rule("mm-lock-seq-mismatch", MM, "vma", Phase.STRUCTURES, needs=VMAS, effect=Effect.VMAS)
def mm_lock_seq_mismatch(s: Snapshot) -> Violations:
    """An mm's mm_lock_seq says that it is write-locked, but its mmap_lock is not.

    Invariant: mm_lock_seq is odd only while mmap_lock is held for writing.
    Why: include/linux/mmap_lock.h, mmap_write_lock() and mmap_write_unlock(): the sequence begins after the lock is
        taken, and ends before it is let go of.
    Consequence: VMAs that were locked for writing stay so: no page fault in them gets by without mmap_lock; and the
        next writer's sequence number says that the mm is not locked.
    Exceptions: the mm is being made: its struct was copied, and the lock is not initialised yet. Kernels without such a
        seqcount (before 6.12) are not checked.
    See also: folioscope vmas PID
    """
    locks = s.vma_locks
    if locks is None or not locks.has_seq.any():
        return holds(0)
    first = np.searchsorted(s.vmas.mm_idx, distinct(s.vmas.mm_idx[locks.has_seq]))
    mm, seq = s.vmas.mm_idx[first].astype(np.int64), locks.mm_seq[first]
    bad = ((seq & np.uint32(1)) != 0) & ~s.mms.locked[mm]
    return violations(
        mm[bad],
        observed={"mm_lock_seq": seq[bad].astype(np.int64), "write_locked": False},
        expected={"write_locked": True},
        checked=len(mm),
        claims=one("mm", mm[bad]),
        transient=s.mms.users[mm[bad]] <= 0,
    )


@rule(
    "vma-lock-seq-invalid",
    VMA,
    "vma",
    Phase.STRUCTURES,
    after=("mm-lock-seq-mismatch",),
    needs=VMAS,
    effect=Effect.VMAS,
    decides="78",
)
def vma_lock_seq_invalid(s: Snapshot) -> Violations:
    """A VMA's vm_lock_seq marks it as write-locked under an mm that is not, or is no writer's number.

    Invariant: vm_lock_seq is the mm_lock_seq of the writer that locked the VMA last, which is odd, or UINT_MAX; it is
        the mm's present one only while mmap_lock is held for writing.
    Why: mm/mmap_lock.c, __vma_start_write(), vma_lock_init(); include/linux/mmap_lock.h, vma_end_write_all().
    Consequence: every page fault there takes mmap_lock, or the next writer takes the VMA for locked, and changes it
        while others read it.
    Exceptions: the mm is being built or torn down. Kernels whose mm_lock_seq is no seqcount (before 6.12), where a VMA
        that was not locked for 2^32 turns of mmap_lock looks locked, are not checked.
    See also: folioscope vmas PID
    """
    locks, vmas = s.vma_locks, s.vmas
    if locks is None or not locks.has_seq.any():
        return holds(0)
    now = (locks.seq == locks.mm_seq) & ~s.mms.locked[vmas.mm_idx]
    rows = np.flatnonzero(locks.has_seq & (now | ((locks.seq & np.uint32(1)) == 0)))
    mm = vmas.mm_idx[rows].astype(np.int64)
    return violations(
        rows,
        observed={"vm_lock_seq": locks.seq[rows].astype(np.int64), "write_locked": s.mms.locked[mm]},
        expected={"vm_lock_seq": "an odd number of the past"},
        checked=locks.has_seq,
        facts={"mm_lock_seq": locks.mm_seq[rows].astype(np.int64)},
        claims=one("vma", rows),
        depends=one("mm", mm),
        transient=s.mm_in_motion[mm],
    )
