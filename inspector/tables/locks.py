"""Spinlocks and rw_semaphores seen from outside: held or not."""

from __future__ import annotations

import numpy as np

from inspector.columns import U8, Mask
from inspector.layout.offsets import Field, Struct


def spinlock_word(struct: Struct, path: str) -> Field | None:
    """The word of a spinlock_t that is 0 while it is not held; None where this kernel has no such word.

    A queued spinlock, debugged or not (include/linux/spinlock_types_raw.h), or the rt_mutex of PREEMPT_RT.
    """
    return struct.find(f"{path}.rlock.raw_lock.val.counter", f"{path}.lock.owner")


def held(struct: Struct, path: str, raw: U8) -> Mask:
    """Which of the structs' spinlocks are held."""
    field = spinlock_word(struct, path)
    if field is None:
        return np.zeros(len(raw), np.bool_)
    taken: Mask = field.column(raw) != 0
    return taken


def held_for_writing(struct: Struct, path: str, raw: U8) -> Mask:
    """Which of the structs' rw_semaphores a writer holds (RWSEM_WRITER_LOCKED, kernel/locking/rwsem.c)."""
    return (struct.field(f"{path}.count.counter").column(raw) & 1) != 0


def held_for_reading(struct: Struct, path: str, raw: U8) -> Mask:
    """Which of the structs' rw_semaphores readers hold: they count above eight flags (RWSEM_READER_MASK)."""
    return (struct.field(f"{path}.count.counter").column(raw).astype(np.int64) >> 8) > 0
