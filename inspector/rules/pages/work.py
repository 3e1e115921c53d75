"""Rules of folios that are marked as being worked on while no task is at work."""

from __future__ import annotations

import numpy as np

from inspector.rules.needs import PAGES
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import PAGE
from inspector.violations import Violations, cannot_check, holds, unread_pages, violations
from inspector.walk.writeback import WRITEBACK
from inspector.windows.holders import runs_on, unknown_holders
from inspector.windows.window import Effect


@rule("folio-lock-holder-missing", PAGE, "targets", Phase.STATES, needs=frozenset(("tasks",)))
def folio_lock_holder_missing(s: Snapshot) -> Violations:
    """A folio is locked, and no task is at work that could unlock it.

    Invariant: a folio of user memory that is on an LRU list and locked while its content is there (PG_uptodate) and not
        being written (no PG_writeback) was locked by a task that has its address on its stack or in a register.
    Why: mm/filemap.c, folio_lock() and folio_unlock(): who locks unlocks. A folio that is being read is not uptodate
        yet, one that migration, compaction, collapse or reclaim put aside is on no LRU list (mm/migrate.c,
        mm/khugepaged.c, mm/vmscan.c).
    Consequence: the next task that needs the folio waits for ever, in the page fault, in truncation or in munmap; it is
        neither migrated nor reclaimed.
    Exceptions: the folio was just split off one that a task that splits names (mm/huge_memory.c, __folio_split()); a
        task collects folios to migrate them to a device (mm/migrate_device.c); a file system has work with the folio:
        it is dirty or marked so in the page cache, has private data, or a task names its inode. Folios of hugetlb, and
        those that are on no LRU list, are not checked; nothing is while a kernel runs on, or where the stack of a task
        is not known.
    See also: folioscope folio PFN; folioscope explain PFN
    """
    locks = s.folio_locks
    rows = locks.row[~locks.is_held]
    if runs_on(s):
        return holds(0, note="which tasks hold which folios locked changes while the kernel runs")
    if len(rows) and unknown_holders(s):
        why = "the kernel stacks or registers of some tasks are not known, and one of these may have locked the folio"
        return holds(len(locks) - len(rows), cannot_check(len(rows), why))
    return violations(
        rows,
        observed={"locked": True, "held_by": "no task"},
        expected={"locked": False},
        checked=len(locks),
        unread=unread_pages(s),
        facts={"tasks_searched": len(s.tasks)},
    )


@rule(
    "folio-writeback-unexpected",
    PAGE,
    "targets",
    Phase.STATES,
    needs=PAGES,
    decides="118",
    effect=Effect.PAGE_CACHE,
)
def folio_writeback_unexpected(s: Snapshot) -> Violations:
    """A folio has PG_writeback, but the cache that it would be written from does not say so.

    Invariant: an anonymous folio under writeback is in the swap cache. One of a file carries PAGECACHE_TAG_WRITEBACK at
        its index in the page cache.
    Why: mm/page-writeback.c, __folio_start_writeback() and __folio_end_writeback() change mark and flag together under
        i_pages; mm/page_io.c writes folios of the swap cache, and folio_free_swap() in mm/swapfile.c leaves them there
        until they are written.
    Consequence: nothing ends the writeback: a write fault, truncation or fsync that waits for it does so for ever; the
        folio is neither migrated nor reclaimed.
    Exceptions: i_pages is locked. A mark without the flag, and a writeback that both have, are not checked: what
        devices have in hand is not read.
    See also: folioscope folio PFN; folioscope explain PFN
    """
    found = s.writeback
    bad = np.flatnonzero(np.where(found.is_anon, ~found.is_cached, (found.marks & WRITEBACK) == 0))
    return violations(
        found.row[bad],
        observed={
            "writeback": True,
            "in_swap_cache": found.is_cached[bad],
            "marked": (found.marks[bad] & WRITEBACK) != 0,
        },
        expected={"writeback": False},
        checked=len(found),
        unread=unread_pages(s),
        transient=found.in_motion[bad],
    )
