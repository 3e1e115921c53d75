"""Locked folios at which no task is at work: none that could unlock them names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I32, I64, Mask, Table, rows_of, take_or
from inspector.layout.flags import MAPPING_ANON, MAPPING_MOVABLE, MAPPING_TAGS
from inspector.records import dataclass
from inspector.tables.files import SHMEM
from inspector.walk.page_cache import folio_pages
from inspector.walk.writeback import cache_marks
from inspector.windows.catalogue import WINDOWS
from inspector.windows.holders import who_names
from inspector.windows.window import named

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

_SPLITS = "W11"
"""The window of splitting: what was one folio is several, each locked, and the stack names but one of them."""

_AROUND_AN_INODE = 2048
"""Bytes: what file systems keep around their struct inode, which its address_space is a part of."""

_LOCKS_MANY = named(
    "migrate_vma_setup migrate_vma_collect migrate_vma_collect_pmd migrate_device_range migrate_device_pfns"
)
"""Functions that lock folios on the LRU lists and keep them as page frame numbers in an array: mm/migrate_device.c."""


@dataclass(frozen=True, slots=True)
class FolioLocks(Table):
    """One row a locked folio that only a task at work in a kernel function can have locked.

    That is one of user memory that is on an LRU list, whose content is there, and which is not being written: reading
    ends with unlocking in an interrupt, and migration, collapse and reclaim take folios off their list before or just
    after they lock them, and keep them in lists of their own.

    Attributes:
        row: int64; its head in the memory map.
        is_held: bool; a task, or an interrupt's handler, names it, or a task is at work that may have locked it.
    """

    row: I64
    is_held: Mask


def read_folio_locks(s: Snapshot) -> FolioLocks:
    """Find them, and look for those who hold the locks."""
    pages, flags = s.pages, s.layout.flags
    words = pages.words
    wanted = words.readable & (words.type_ == 0) & (words.refcount > 0) & (words.mapping != 0)
    wanted &= (words.mapping & np.uint64(MAPPING_TAGS)) != MAPPING_MOVABLE
    for name, is_set in (("locked", True), ("lru", True), ("uptodate", True), ("writeback", False)):
        wanted &= flags.test(words.flags, name) == is_set
    row = pages.heads_where(wanted)
    if not len(row):
        return FolioLocks.empty()
    spaces = s.address_spaces
    space = rows_of(spaces.addr, pages.mapping[row])
    is_anon = (pages.mapping[row] & np.uint64(MAPPING_ANON)) != 0
    of_memory = is_anon | (take_or(spaces.is_inode & (spaces.kind == SHMEM), space, False))
    clean = ~of_memory & _is_clean(s, row)
    held = _names_them(s, row) | _named_inode(s, space, clean) | _split_apart(s, row) | _some_lock_many(s)
    keep = np.flatnonzero(of_memory | clean)
    return FolioLocks(row, held).take(keep)


def _is_clean(s: Snapshot, rows: I64) -> Mask:
    """Folios of files on disk of which nothing is to be written: file systems lock many that they are about to write.

    fs/ext4/inode.c, mpage_prepare_extent_to_map(); fs/btrfs/inode.c, run_delalloc_compressed(), whose worker threads
    unlock them: the marks in the page cache stay until the folio is under writeback.
    """
    marks, known, in_motion = cache_marks(s, rows)
    private = s.layout.flags.test(s.pages.flags[rows], "private")
    dirty = s.layout.flags.test(s.pages.flags[rows], "dirty")
    return known & (marks == 0) & ~in_motion & ~dirty & ~private


def _names_them(s: Snapshot, rows: I64) -> Mask:
    """Folios that someone names."""
    return _named(s, s.pages.memmap.pfns_of_rows(rows), folio_pages(s, rows))


def _named(s: Snapshot, pfns: I64, nr: I64 | np.int64, tasks: I64 | None = None) -> Mask:
    """Which stretches of so many struct pages someone names, or one of some tasks; they ascend."""
    memmap = s.layout.memmap
    start = memmap.page_addrs(pfns)
    found, who = who_names(s, start, start + np.asarray(nr * memmap.page_size).astype(np.uint64))
    out = np.zeros(len(pfns), np.bool_)
    out[found if tasks is None else found[np.isin(who, tasks)]] = True
    return out


def _named_inode(s: Snapshot, space: I32, which: Mask) -> Mask:
    """Folios, of some, whose file someone is at work on: their address_space or its inode is named."""
    out, addr = np.zeros(len(space), np.bool_), s.address_spaces.addr
    mine = np.unique(space[which])
    if not len(mine):
        return out
    around = np.uint64(_AROUND_AN_INODE)
    start, end = addr[mine] - around, addr[mine] + around
    end[:-1] = np.minimum(end[:-1], start[1:])
    found, _ = who_names(s, start, end)
    return which & np.isin(space, mine[found])


def _split_apart(s: Snapshot, rows: I64) -> Mask:
    """Folios that may just have been split off one that a task at it names (mm/huge_memory.c, __folio_split())."""
    flight = s.in_flight
    splits = np.array([WINDOWS[number].id == _SPLITS for number in flight.window.tolist()], np.bool_)
    tasks = np.unique(flight.task_idx[splits]).astype(np.int64)
    if not len(tasks):
        return np.zeros(len(rows), np.bool_)
    nr = np.int64(1) << s.layout.pmd_order
    pfn = s.pages.memmap.pfns_of_rows(rows) // nr * nr
    blocks, back = np.unique(pfn, return_inverse=True)
    return _named(s, blocks, nr, tasks)[back.reshape(-1)]


def _some_lock_many(s: Snapshot) -> bool:
    """Whether a task is in a function that locks folios which its stack does not name."""
    return s.stacks.any_in(_LOCKS_MANY)
