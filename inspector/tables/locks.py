"""Spinlocks and rw_semaphores seen from outside: held or not."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, U8, AnyArray, Mask
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Field, Struct
from inspector.records import dataclass


def spinlock_word(struct: Struct, path: str = "") -> Field | None:
    """The word of a spinlock_t, by default the struct itself, that is 0 while it is not held; None where there is none.

    A queued spinlock, debugged or not (include/linux/spinlock_types_raw.h), or the rt_mutex of PREEMPT_RT.
    """
    at = f"{path}." if path else ""
    return struct.find(f"{at}rlock.raw_lock.val.counter", f"{at}lock.owner")


def held(struct: Struct, path: str, raw: U8) -> Mask:
    """Which of the structs' spinlocks are held."""
    field = spinlock_word(struct, path)
    if field is None:
        return np.zeros(len(raw), np.bool_)
    taken: Mask = field.column(raw) != 0
    return taken


def is_held(layout: Layout, name: str) -> bool:
    """Whether a spinlock that is a variable of the kernel is held."""
    word = spinlock_word(layout.struct("struct spinlock"))
    start = layout.target.symbol(name)
    raw = layout.memory.read(start + word.offset, word.size) if start is not None and word is not None else None
    return any(raw or b"")


_READER_SHIFT = 8
"""RWSEM_READER_SHIFT (kernel/locking/rwsem.c): readers count above eight flags."""

_READER_BIAS = 1 << 31
_WRITER_BIAS = 1 << 30
"""include/linux/rwbase_rt.h: the first is there while no writer wants the lock, the second while one has it."""


@dataclass(frozen=True, slots=True)
class RwSemaphore:
    """The word of an rw_semaphore that says who holds it.

    Attributes:
        word: Its place in the struct that holds the semaphore.
        is_rt: Whether it is the ``readers`` of a struct rwbase_rt: that is what PREEMPT_RT makes of the semaphore.
    """

    word: Field
    is_rt: bool

    @classmethod
    def of(cls, struct: Struct, path: str) -> RwSemaphore:
        """The semaphore at a path of a struct."""
        readers = struct.find(f"{path}.rwbase.readers.counter")
        return cls(struct.field(f"{path}.count.counter") if readers is None else readers, readers is not None)

    def written(self, words: AnyArray) -> Mask:
        """Which a writer holds (RWSEM_WRITER_LOCKED, kernel/locking/rwsem.c), or is about to: no reader is left."""
        if not self.is_rt:
            return (words & 1) != 0
        return (words.view(np.uint32) & np.uint32(_READER_BIAS | (_WRITER_BIAS - 1))) == 0

    def read(self, words: AnyArray) -> Mask:
        """Which readers hold: they count above eight flags (RWSEM_READER_MASK), or below the two biases."""
        if not self.is_rt:
            return (words.astype(np.int64) >> _READER_SHIFT) > 0
        return (words.view(np.uint32) & np.uint32(_WRITER_BIAS - 1)) != 0

    def nr_readers(self, words: AnyArray) -> I64:
        """How many readers hold each."""
        if not self.is_rt:
            return np.maximum(words.astype(np.int64) >> _READER_SHIFT, 0)
        return (words.view(np.uint32) & np.uint32(_WRITER_BIAS - 1)).astype(np.int64)

    def awaited(self, words: AnyArray) -> Mask:
        """Which tasks wait for (RWSEM_FLAG_WAITERS, RWSEM_FLAG_HANDOFF); not known of PREEMPT_RT's."""
        waiting: Mask = (words & 6) != 0 if not self.is_rt else np.zeros(len(words), np.bool_)
        return waiting

    def is_free(self, words: AnyArray) -> Mask:
        """Which neither a reader nor a writer holds, and no task waits for."""
        free: Mask = words == 0 if not self.is_rt else words.view(np.uint32) == np.uint32(_READER_BIAS)
        return free


def held_for_writing(struct: Struct, path: str, raw: U8) -> Mask:
    """Which of the structs' rw_semaphores a writer holds."""
    semaphore = RwSemaphore.of(struct, path)
    return semaphore.written(semaphore.word.column(raw))


def held_for_reading(struct: Struct, path: str, raw: U8) -> Mask:
    """Which of the structs' rw_semaphores readers hold."""
    semaphore = RwSemaphore.of(struct, path)
    return semaphore.read(semaphore.word.column(raw))
