"""Rules of TLB flushes that were put off."""

from __future__ import annotations

import numpy as np

from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import MM, TASK
from inspector.tables.tlb_batches import MOST_PENDING
from inspector.violations import Violations, holds, violations
from inspector.windows.holders import runs_on
from inspector.windows.window import named

_FLUSHING = named(
    "try_to_unmap_flush try_to_unmap_flush_dirty arch_tlbbatch_flush set_tlb_ubc_flush_pending try_to_unmap_one"
    " try_to_migrate_one flush_tlb_batched_pending"
)
"""Functions of mm/rmap.c that set and clear the marks of a task."""

_NONE = "this kernel puts off no TLB flushes"


@rule("tlb-batch-invalid", MM, "mm-lives", Phase.WORDS)
def tlb_batch_invalid(s: Snapshot) -> Violations:
    """The generations of TLB flushes that were put off for an mm cannot be.

    Invariant: in mm->tlb_flush_batched the flushed generation is at most the pending one, which is at most 0x4000, and
        no other bit is set.
    Why: mm/rmap.c, set_tlb_ubc_flush_pending() adds to the pending one, or begins with 1 and 0 again when it is above
        0x3fff; flush_tlb_batched_pending() makes the flushed one equal to it. fork copies the word.
    Consequence: where both are equal by chance, mprotect(), munmap() and mremap() leave out the flush, and another
        thread goes on reading and writing a page that is not its own any more.
    Exceptions: never: the word is changed as a whole.
    See also: folioscope ps; folioscope cpus
    """
    found = s.tlb_batches
    if not found.mm_readable.any():
        return holds(0, note=_NONE)
    wrong = (found.flushed > found.pending) | (found.pending > MOST_PENDING) | found.has_other_bits
    rows = np.flatnonzero(wrong & found.mm_readable)
    return violations(
        rows,
        observed={
            "pending": found.pending[rows],
            "flushed": found.flushed[rows],
            "tlb_flush_batched": found.batched[rows],
        },
        expected={
            "pending": f"at most {MOST_PENDING:#x}",
            "flushed": "at most that",
            "tlb_flush_batched": "no other bits",
        },
        checked=found.mm_readable,
    )


@rule("tlb-flush-missing", TASK, "mm-lives", Phase.WORDS)
def tlb_flush_missing(s: Snapshot) -> Violations:
    """A task has unmapped a page that may be written to through a TLB, and has no flush pending.

    Invariant: task->tlb_ubc.writable is set only while flush_required is, and both are 0 or 1.
    Why: mm/rmap.c, set_tlb_ubc_flush_pending() sets both, try_to_unmap_flush() clears both.
    Consequence: try_to_unmap_flush() does nothing while flush_required is clear: the page is written out, and freed,
        while another CPU still writes to it.
    Exceptions: the task is in one of these functions.
    See also: folioscope cpus
    """
    found = s.tlb_batches
    if runs_on(s):
        return holds(0, note="a task clears both marks one after the other while the kernel runs")
    if not found.task_readable.any():
        return holds(0, note=_NONE)
    wrong = ((found.writable != 0) & (found.flush_required == 0)) | (found.writable > 1) | (found.flush_required > 1)
    rows = np.flatnonzero(wrong & found.task_readable)
    return violations(
        rows,
        observed={"writable": found.writable[rows], "flush_required": found.flush_required[rows]},
        expected={"writable": "0, or 1 with a flush required", "flush_required": "0 or 1"},
        checked=found.task_readable,
        transient=np.full(len(rows), len(rows) > 0 and s.stacks.any_in(_FLUSHING), np.bool_),
    )
