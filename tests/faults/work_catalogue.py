"""Faults of work that nobody does: locks without a holder, writeback that nothing ends, pages that nobody owns."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask, rows_of, take_or
from inspector.snapshot import Snapshot
from inspector.tables.files import BLOCK, FILE, SHMEM
from inspector.tables.locks import RwSemaphore
from inspector.tables.vmas import LOCK_WORD
from inspector.walk.writeback import cache_marks
from tests.faults.catalogue import fault
from tests.faults.overlay import add, flags_xor, page_word, pfn_of, put, word
from tests.faults.plants import MissingError, Planted, pick, pmd_mapped, small_anon, small_file
from tests.faults.state_catalogue import quiet_mms, vma_word


def _at_rest(s: Snapshot, rows: I64) -> I64:
    """Those of some heads whose folio is on an LRU list and whose content is there."""
    flags = s.pages.flags[rows]
    return rows[s.layout.flags.test(flags, "lru") & s.layout.flags.test(flags, "uptodate")]


def _of_kind(s: Snapshot, rows: I64, *kinds: int) -> I64:
    """Heads of folios of files of some kind."""
    spaces = s.files.address_spaces
    at = rows_of(spaces.addr, s.pages.mapping[rows])
    return rows[np.isin(take_or(spaces.kind, at, 255), kinds)]


def _clean(s: Snapshot, rows: I64) -> Mask:
    marks, known, _ = cache_marks(s, rows)
    flags = s.pages.flags[rows]
    busy = s.layout.flags.test(flags, "dirty") | s.layout.flags.test(flags, "private")
    return known & (marks == 0) & ~busy


def _locked(s: Snapshot, row: int) -> Planted:
    return Planted((flags_xor(s, pfn_of(s, row), "locked"),), ("folio-lock-holder-missing",), pfn_of(s, row))


def _under_writeback(s: Snapshot, row: int) -> Planted:
    return Planted((flags_xor(s, pfn_of(s, row), "writeback"),), ("folio-writeback-unexpected",), pfn_of(s, row))


@fault
def anonymous_page_left_locked(s: Snapshot) -> Planted:
    """A task went on, or died, with the folio locked."""
    return _locked(s, pick(_at_rest(s, small_anon(s, 1)), "a private page on the LRU", 11))


@fault
def page_of_several_processes_left_locked(s: Snapshot) -> Planted:
    return _locked(s, pick(_at_rest(s, small_anon(s, 2, more=True)), "a page of two processes", 3))


@fault
def thp_left_locked(s: Snapshot) -> Planted:
    heads = s.folios.row[pmd_mapped(s, anon=True)]
    return _locked(s, pick(_at_rest(s, heads), "a THP", 1))


@fault
def shmem_page_left_locked(s: Snapshot) -> Planted:
    return _locked(s, pick(_of_kind(s, _at_rest(s, small_file(s, 1)), SHMEM), "a mapped page of shmem", 4))


@fault
def clean_page_of_a_file_left_locked(s: Snapshot) -> Planted:
    rows = _of_kind(s, _at_rest(s, small_file(s, 1)), FILE, BLOCK)
    return _locked(s, pick(rows[_clean(s, rows)], "a clean page of a file", 6))


@fault
def anonymous_page_left_under_writeback(s: Snapshot) -> Planted:
    """It is not in the swap cache: there is nowhere that it could be written to."""
    return _under_writeback(s, pick(_at_rest(s, small_anon(s, 1)), "a private page on the LRU", 14))


@fault
def thp_left_under_writeback(s: Snapshot) -> Planted:
    heads = s.folios.row[pmd_mapped(s, anon=True)]
    return _under_writeback(s, pick(_at_rest(s, heads), "a THP", 2))


@fault
def page_of_a_file_left_under_writeback(s: Snapshot) -> Planted:
    """The mark in the page cache is gone: sync finds nothing to wait for, truncation waits for ever."""
    rows = _of_kind(s, _at_rest(s, small_file(s, 1)), FILE, BLOCK)
    return _under_writeback(s, pick(rows[_clean(s, rows)], "a clean page of a file", 3))


@fault
def shmem_page_under_writeback_in_the_page_cache(s: Snapshot) -> Planted:
    """mm/shmem.c takes a folio out of the page cache before it is written to swap."""
    return _under_writeback(s, pick(_of_kind(s, _at_rest(s, small_file(s, 1)), SHMEM), "a mapped page of shmem", 7))


def _quiet_vma(s: Snapshot, nth: int) -> int:
    """A VMA whose lock nobody holds."""
    locks = s.vma_locks
    if locks is None:
        raise MissingError("VMAs with locks of their own")
    quiet = quiet_mms(s)[s.vmas.mm_idx] & ~locks.held
    return pick(np.flatnonzero(quiet), "a VMA at rest", nth)


def _vma_lock(s: Snapshot, vma: int, refcnt: int, count: int) -> Planted:
    """The lock of a VMA as vm_refcnt, or the count of its rw_semaphore, says."""
    struct = s.layout.struct("struct vm_area_struct")
    if struct.find(*LOCK_WORD) is not None:
        patch = put(s, vma_word(s, vma, *LOCK_WORD), refcnt, 4)
    else:
        semaphore = RwSemaphore.of(s.layout.struct("struct vma_lock"), "lock")
        patch = put(s, word(s, vma_word(s, vma, "vm_lock")) + semaphore.word.offset, count)
    return Planted((patch,), ("vma-lock-holder-missing",), None)


@fault
def vma_read_locked_by_nobody(s: Snapshot) -> Planted:
    """A page fault came to its end without vma_end_read()."""
    return _vma_lock(s, _quiet_vma(s, 30), 2, 1 << 8)


@fault
def vma_read_locked_by_many_that_are_gone(s: Snapshot) -> Planted:
    return _vma_lock(s, _quiet_vma(s, 71), 6, 5 << 8)


@fault
def vma_that_a_writer_waits_for_who_is_gone(s: Snapshot) -> Planted:
    return _vma_lock(s, _quiet_vma(s, 44), (1 << 30) + 2, (1 << 8) + 2)


@fault
def vma_write_locked_by_nobody(s: Snapshot) -> Planted:
    return _vma_lock(s, _quiet_vma(s, 12), (1 << 30) + 1, 1)


def _seq_at(s: Snapshot, vma: int) -> int:
    locks = s.vma_locks
    if locks is None or not locks.has_seq.any():
        raise MissingError("VMAs with locks of their own")
    return vma_word(s, vma, "vm_lock_seq")


@fault
def vma_marked_as_write_locked_under_an_unlocked_mm(s: Snapshot) -> Planted:
    vma = _quiet_vma(s, 25)
    locks = s.vma_locks
    assert locks is not None
    return Planted((put(s, _seq_at(s, vma), int(locks.mm_seq[vma]), 4),), ("vma-lock-seq-invalid",), None)


@fault
def vma_with_a_sequence_number_that_no_writer_has(s: Snapshot) -> Planted:
    return Planted((put(s, _seq_at(s, _quiet_vma(s, 52)), 0, 4),), ("vma-lock-seq-invalid",), None)


@fault
def mm_whose_sequence_was_not_ended(s: Snapshot) -> Planted:
    """mmap_lock was let go of without vma_end_write_all()."""
    vma = _quiet_vma(s, 90)
    _seq_at(s, vma)
    place = s.layout.struct("struct mm_struct").field("mm_lock_seq.sequence").offset
    patch = add(s, int(s.mms.addr[s.vmas.mm_idx[vma]]) + place, 1, 4)
    return Planted((patch,), ("mm-lock-seq-mismatch",), None)


def _lost_block(s: Snapshot, order: int, *flags: str) -> Planted:
    """A block taken off its free list, with all counters as they are then, and given to nobody."""
    b = s.buddy
    listed = b.blocks.list_idx >= 0
    pages = s.pages
    for at in np.flatnonzero(listed & (b.blocks.order == order)).tolist():
        row = int(b.blocks.row[at])
        # Behind an odd page frame that is in use, or free itself: no allocation of several begins there.
        own = row and (
            pages.refcount[row - 1] > 0 or s.in_free_block[np.array([row - 1])][0] or row - 1 in b.cpu_page_row
        )
        if own and pfn_of(s, row - 1) % 2:
            break
    else:
        raise MissingError("a free block behind a page that is not part of an allocation")
    pfn, on = pfn_of(s, row), int(b.blocks.list_idx[at])
    zone, z = s.layout.struct("struct zone"), int(b.zones.addr[b.lists.zone_idx[on]])
    area, link = s.layout.struct("struct free_area"), page_word(s, pfn, "lru")
    following, before = word(s, link), word(s, link + 8)
    nr_free = z + zone.field("free_area").offset + order * area.size + area.field("nr_free").offset
    free = z + zone.field("vm_stat").offset + 8 * s.layout.enum("enum zone_stat_item")["NR_FREE_PAGES"]
    patches = [
        put(s, following + 8, before),
        put(s, before, following),
        put(s, link, 0xDEAD000000000100),
        put(s, link + 8, 0xDEAD000000000122),
        put(s, page_word(s, pfn, "_mapcount.counter", "_mapcount"), -1, 4),
        put(s, page_word(s, pfn, "private"), 0),
        add(s, nr_free, -1),
        add(s, free, -(1 << order)),
    ]
    if flags:
        patches.append(flags_xor(s, pfn, *flags))
    assert pages.refcount[row] == 0
    return Planted(tuple(patches), ("page-owner-missing",), pfn)


@fault
def free_page_taken_and_given_to_nobody(s: Snapshot) -> Planted:
    return _lost_block(s, 0)


@fault
def free_block_taken_and_given_to_nobody(s: Snapshot) -> Planted:
    return _lost_block(s, 3)


@fault
def page_given_up_in_a_bad_state(s: Snapshot) -> Planted:
    """bad_page() in check_new_page(): the page stays as it was found."""
    return _lost_block(s, 0, "active", "dirty")
