"""Rules of the huge zero folio and of the ids of mms."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.columns import Mask
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import MM, PAGE
from inspector.violations import Violations, cannot_check, holds, one, violations
from inspector.walk.batches import PagesByMm
from inspector.walk.counts import EntryClass
from inspector.walk.mappings import Mappings
from inspector.windows.window import Effect


@rule(
    "huge-zero-pfn-mismatch",
    PAGE,
    "targets",
    Phase.WORDS,
    decides="135",
)
def huge_zero_pfn_mismatch(s: Snapshot) -> Violations:
    """huge_zero_pfn is not the page frame of the huge zero folio.

    Invariant: huge_zero_pfn is the page frame of huge_zero_folio (huge_zero_page before 6.10), and all ones without
        one.
    Why: mm/huge_memory.c, get_huge_zero_folio() and shrink_huge_zero_folio_scan(); is_huge_zero_pmd() compares with the
        number.
    Consequence: entries of the huge zero folio are taken for those of an ordinary one: unmapping one lowers its
        mapcount below -1 and rss by 512 pages.
    Exceptions: the kernel has no such folio at the moment.
    See also: folioscope page PFN
    """
    # No predicate over pages: it is about variables of the kernel, and names the page that one of them points to.
    stored = s.huge_zero
    row = s.pages.memmap.row(stored.pfn) if stored.pfn >= 0 else -1
    if row < 0 or stored.number is None or stored.pfn == stored.number:
        return holds(int(stored.pfn >= 0))
    return violations(
        np.array([row], np.int64),
        observed={"huge_zero_pfn": stored.number},
        expected={"huge_zero_pfn": stored.pfn},
        checked=1,
        claims=one("huge_zero", np.zeros(1, np.int64)),
    )


class _HugeZeroPages(PagesByMm):
    """Entries of the huge zero folio."""

    def some(self, m: Mappings) -> Mask:
        """Which entries count."""
        return (m.entry_class == EntryClass.ZERO) & (m.level == Level.PMD)


@rule(
    "huge-zero-references-low",
    MM,
    "refcount",
    Phase.FOLIO_COUNTS,
    effect=Effect.REFCOUNT,
    decides="135",
    exactness="bound",
    collects=(_HugeZeroPages,),
)
def huge_zero_references_low(s: Snapshot) -> Violations:
    """huge_zero_refcount is lower than the number of mms that map the huge zero folio.

    Invariant: huge_zero_refcount is one for the folio itself and one for each mm that ever mapped it and still lives.
    Why: mm/huge_memory.c, mm_get_huge_zero_folio(): once an mm; shrink_huge_zero_folio_scan() frees the folio at one.
    Consequence: memory pressure frees the folio while entries still map it: user space reads what its next owner
        writes.
    Exceptions: nothing maps it.
    See also: folioscope rules huge-zero-pfn-mismatch
    """
    users = s.huge_zero.users
    mms = np.flatnonzero(s.collected(_HugeZeroPages).pages)
    if not len(mms):
        return holds(0)
    if users is None:
        return holds(0, unread=cannot_check(len(mms), "this kernel's huge zero folio cannot be found"))
    return violations(
        mms[:1] if users < len(mms) + 1 else mms[:0],
        observed={"huge_zero_refcount": users},
        expected={"at_least": len(mms) + 1},
        checked=len(mms),
    )


@rule(
    "mm-id-sharing-unexpected",
    MM,
    "mm-ids",
    Phase.LINKS,
    effect=Effect.MM_IDS,
    decides="I16 27",
    was="mm-id-given-twice",
)
def mm_id_sharing_unexpected(s: Snapshot) -> Violations:
    """Two mms have the same mm_id.

    Invariant: mm->mm_id is unique among living mms.
    Why: kernel/fork.c, mm_alloc_id() takes it from an IDA; mm_free_id() gives it back when the mm is freed.
    Consequence: large folios count the mappings of both as those of one mm: a shared folio is taken for exclusive, and
        is reused in place of a copy.
    Exceptions: the kernel has no mm ids (before 6.15); the mm is being freed (no id) or made: kernel/fork.c, dup_mm()
        copies the parent's struct, id included, mm_init() takes a new one in mm_alloc_id(), and makes the per-CPU
        counters after that (percpu_counter_init_many()), so that an mm without them may still have its parent's.
    See also: folioscope ps
    """
    ids = s.mms.mm_id.astype(np.int64)
    being_made = (s.mms.nr_tasks == 0) & ~s.mms.rss_valid
    used = np.flatnonzero((ids != 0) & (s.mms.users > 0) & ~being_made)
    _, back, counts = np.unique(ids[used], return_inverse=True, return_counts=True)
    rows = used[counts[back] > 1]
    return violations(
        rows,
        observed={"mm_id": ids[rows]},
        expected={"mm_id": "one of its own"},
        checked=len(used),
        claims=one("mm_id", ids[rows]),
    )
