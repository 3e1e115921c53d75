"""TLB flushes that reclaim and migration put off: generations of each mm, and what each task still has to flush."""

from __future__ import annotations

import numpy as np

from inspector.columns import I32, U32, U64, AnyArray, Mask
from inspector.layout.kernel import Layout
from inspector.records import dataclass

_FLUSHED_SHIFT = np.uint32(16)
_PENDING = np.uint32((1 << 15) - 1)
"""TLB_FLUSH_BATCH_FLUSHED_SHIFT and TLB_FLUSH_BATCH_PENDING_MASK (mm/rmap.c)."""

MOST_PENDING = 1 << 14
"""The last generation: beyond TLB_FLUSH_BATCH_PENDING_LARGE the next unmapping begins with 1 again."""


@dataclass(frozen=True)
class TlbBatches:
    """What is known of flushes that were put off.

    Attributes:
        batched: uint32[mms]; mm->tlb_flush_batched as stored.
        mm_readable: bool[mms]; all False where the kernel puts off no flushes.
        flush_required: uint8[tasks]; task->tlb_ubc.flush_required as stored.
        writable: uint8[tasks]; task->tlb_ubc.writable: a page that was unmapped may be written to until then.
        task_readable: bool[tasks].
    """

    batched: U32
    mm_readable: Mask
    flush_required: AnyArray
    writable: AnyArray
    task_readable: Mask

    @property
    def pending(self) -> I32:
        """int32[mms]; the generation of the last unmapping whose flush was put off."""
        return (self.batched & _PENDING).astype(np.int32)

    @property
    def flushed(self) -> I32:
        """int32[mms]; the generation that was flushed last."""
        return (self.batched >> _FLUSHED_SHIFT).astype(np.int32)

    @property
    def has_other_bits(self) -> Mask:
        """bool[mms]; bits that are of neither generation."""
        return (self.batched & ~(_PENDING | (_PENDING << _FLUSHED_SHIFT))) != 0


def read_tlb_batches(layout: Layout, mms: U64, tasks: U64) -> TlbBatches:
    """Read them (mm/rmap.c, set_tlb_ubc_flush_pending() and flush_tlb_batched_pending())."""
    mm, task = layout.struct("struct mm_struct"), layout.struct("struct task_struct")
    word = mm.find("tlb_flush_batched.counter", "tlb_flush_batched")
    required, writable = task.find("tlb_ubc.flush_required"), task.find("tlb_ubc.writable")
    batched, known = np.zeros(len(mms), np.uint32), np.zeros(len(mms), np.bool_)
    if word is not None:
        raw = layout.memory.gather(mms + np.uint64(word.offset), 4)
        batched, known = raw.bytes.view(np.uint32)[:, 0], raw.valid
    flags, read = np.zeros((2, len(tasks)), np.uint8), np.zeros(len(tasks), np.bool_)
    if required is not None and writable is not None:
        found = [layout.memory.gather(tasks + np.uint64(field.offset), 1) for field in (required, writable)]
        flags = np.stack([each.bytes[:, 0] for each in found])
        read = found[0].valid & found[1].valid
    return TlbBatches(batched, known, flags[0], flags[1], read)
