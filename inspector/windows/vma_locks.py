"""Locks of VMAs, and whether those who hold or want them can be found.

A VMA has a lock of its own from 6.4 on: page faults read-lock it instead of the mm. It is an rw_semaphore of its own
object (``vm_lock``), from 6.15 on a part of ``vm_refcnt``. Writers hold it only for a moment: a task that has the mm
write-locked marks the VMA as locked by storing the mm's sequence number in it (``vm_lock_seq``), and taking the next
number unlocks all of them (include/linux/mmap_lock.h; include/linux/mm.h and mm_types.h before 6.16).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, U32, U64, AnyArray, Mask, Table
from inspector.layout.offsets import Field, Struct
from inspector.records import dataclass
from inspector.tables.locks import RwSemaphore
from inspector.tables.vmas import LOCK_WORD
from inspector.windows.holders import who_names

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_EXCLUDES = 1 << 30
"""VM_REFCNT_EXCLUDE_READERS_FLAG, VMA_LOCK_OFFSET before 7.x: a writer keeps readers out, or waits until they leave."""

_ATTACHED = 1


@dataclass(frozen=True, slots=True)
class VmaLocks(Table):
    """One row a VMA, in the order of `Vmas`.

    Attributes:
        word: int64; vm_refcnt, or the count of the rw_semaphore.
        readers: int32; how many hold it for reading.
        written: bool; a writer holds it, or waits for the last of its readers.
        known: bool; whether the word could be read.
        named_by: int32; how many tasks and CPUs name the VMA or its lock; of VMAs without reader and writer it is not
            asked.
        seq: uint32; vm_lock_seq, 0 where the kernel has none.
        mm_seq: uint32; mm_lock_seq of the mm.
        has_seq: bool; both could be read, and the mm counts in a seqcount: odd while it is write-locked.
    """

    word: I64
    readers: I32
    written: Mask
    known: Mask
    named_by: I32
    seq: U32
    mm_seq: U32
    has_seq: Mask

    @property
    def held(self) -> Mask:
        """Which are locked by readers or a writer."""
        held: Mask = (self.readers > 0) | self.written
        return held


def read_vma_locks(s: Snapshot) -> VmaLocks | None:
    """Read them; None where VMAs have no locks of their own."""
    struct = s.layout.struct("struct vm_area_struct")
    refcnt, lock = struct.find(*LOCK_WORD), struct.find("vm_lock")
    if refcnt is None and lock is None:
        return None
    vmas = s.vmas
    lock_at = np.zeros(len(vmas), np.uint64)
    if refcnt is not None:
        stored, known = _words(s, vmas.addr, refcnt)
        word = stored.astype(np.int64)
        readers = np.maximum((word & (_EXCLUDES - 1)) - _ATTACHED, 0)
        written = (word & _EXCLUDES) != 0
    else:
        semaphore = RwSemaphore.of(s.layout.struct("struct vma_lock"), "lock")
        lock_at, _ = s.layout.memory.words(vmas.addr + np.uint64(struct.field("vm_lock").offset))
        stored, known = _words(s, lock_at, semaphore.word)
        word = stored.astype(np.int64)
        written = (semaphore.written(stored) | semaphore.awaited(stored)) & known
        readers = semaphore.nr_readers(stored)
    readers = np.where(known, readers, 0).astype(np.int32)
    seq, mm_seq, has_seq = _sequences(s, struct)
    named_by = np.zeros(len(vmas), np.int32)
    rows = np.flatnonzero((readers > 0) | written)
    named_by[rows] = _named_by(s, struct, rows, lock_at)
    return VmaLocks(word, readers, written, known, named_by, seq, mm_seq, has_seq)


def _words(s: Snapshot, owners: U64, field: Field) -> tuple[AnyArray, Mask]:
    """A member of objects at some addresses, as stored, and which could be read."""
    raw = s.layout.memory.gather(owners + np.uint64(field.offset), field.size)
    return Field(0, field.size, field.signed).column(raw.bytes), raw.valid


def _sequences(s: Snapshot, struct: Struct) -> tuple[U32, U32, Mask]:
    """``seq``, ``mm_seq`` and ``has_seq`` of `VmaLocks`."""
    vmas, mine = s.vmas, struct.find("vm_lock_seq")
    theirs = s.layout.struct("struct mm_struct").find("mm_lock_seq.sequence")
    none = np.zeros(len(vmas), np.uint32)
    if mine is None or theirs is None:
        return none, none, none != 0
    seq, known = _words(s, vmas.addr, mine)
    mm_seq, mm_known = _words(s, s.mms.addr, theirs)
    return seq.astype(np.uint32), mm_seq.astype(np.uint32)[vmas.mm_idx], known & mm_known[vmas.mm_idx]


def _named_by(s: Snapshot, struct: Struct, rows: I64, locks: U64) -> I32:
    """How many tasks and CPUs name each of some VMAs, or the object of its lock."""
    if not len(rows):
        return np.empty(0, np.int32)
    start, size = s.vmas.addr[rows], np.full(len(rows), struct.size)
    which = np.arange(len(rows))
    apart = np.flatnonzero(locks[rows])
    if len(apart):
        start = np.concatenate([start, locks[rows[apart]]])
        size = np.concatenate([size, np.full(len(apart), s.layout.struct("struct vma_lock").size)])
        which = np.concatenate([which, apart])
    order = np.argsort(start)
    start, end = start[order], (start + size.astype(np.uint64))[order]
    end[:-1] = np.minimum(end[:-1], start[1:])
    found, who = who_names(s, start, end)
    pairs = np.unique(np.stack([which[order][found], who]), axis=1)
    return np.bincount(pairs[0], minlength=len(rows)).astype(np.int32)
