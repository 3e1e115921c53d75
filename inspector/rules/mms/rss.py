"""Rules of the rss counters."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask
from inspector.layout.flags import VM_RAND_READ, VM_SEQ_READ
from inspector.rules.mms.balance import UncountedPages, settle_rss
from inspector.rules.needs import VMAS
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import MM
from inspector.tables.mms import RSS_ANON, RSS_FILE, RSS_SHMEM, RSS_SWAP
from inspector.violations import Violations, cannot_check, one, violations
from inspector.walk.rss import PresentPages
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect

COUNTERS = {"MM_FILEPAGES": RSS_FILE, "MM_ANONPAGES": RSS_ANON, "MM_SWAPENTS": RSS_SWAP, "MM_SHMEMPAGES": RSS_SHMEM}


@rule(
    "rss-mismatch",
    MM,
    "rss",
    Phase.TOTALS,
    effect=Effect.RSS,
    needs=VMAS,
    decides="I12 28 85",
    settle=settle_rss,
    collects=(PresentPages, UncountedPages),
)
def rss_mismatch(s: Snapshot) -> Violations:
    """An mm's rss counters differ from what its page tables map.

    Invariant: MM_ANONPAGES, MM_FILEPAGES and MM_SHMEMPAGES are the pages that the mm's entries map, by the class of
        their folio; migration and device entries count like the page they name; MM_SWAPENTS are its swap entries. Zero
        pages, VM_PFNMAP and hugetlb count nowhere. Per-CPU parts (and, before 6.2, parts kept in tasks) are added, so
        that the sum is exact.
    Why: include/linux/mm.h, mm_counter(); mm/memory.c, zap_present_folio_ptes() and set_pte_range(); kernel/fork.c,
        check_mm() prints "Bad rss-counter state" at exit.
    Consequence: the OOM killer and cgroup limits act on wrong numbers; a page-table entry or a page was lost.
    Exceptions: the mm is being torn down (mm_users 0), or a page table or a mapped page is not in the dump. A task
        inside execve() has the argument pages of its new mm charged to its old one as well (fs/exec.c,
        acct_arg_size()): exactly so many anonymous pages too many are not reported.
    See also: folioscope vmas PID
    """
    mms = s.mms
    rebuilt, known = s.rss
    able = known & (mms.users > 0) & mms.rss_valid & s.mm_tables_complete
    wrong = able & (rebuilt != mms.rss).any(axis=1)
    rows = np.flatnonzero(wrong & ~_charged_for_exec(s, mms.rss - rebuilt))
    # Before an mm has a task, mm_init() may not have allocated its counters: nothing is missing from the dump.
    being_built = (mms.nr_tasks == 0) & ~mms.rss_valid
    unchecked = int((~(known & mms.rss_valid & s.mm_tables_complete) & ~being_built).sum())
    return violations(
        rows,
        observed={name: mms.rss[rows, i] for name, i in COUNTERS.items()},
        expected={name: rebuilt[rows, i] for name, i in COUNTERS.items()},
        checked=able,
        unread=cannot_check(unchecked, "page tables, struct pages or per-CPU counters of some processes are missing"),
        depends=one("mm", rows),
        transient=mm_in_flight(s)[rows],
    )


def _charged_for_exec(s: Snapshot, excess: I64) -> Mask:
    """Mms whose anonymous excess is the argument stack of a new mm that execve() is still building.

    The new mm has no task yet; its only VMA is a stack marked both for sequential and random reading
    (VM_STACK_INCOMPLETE_SETUP). The mm of the task that owns it is charged. Kernels without memory cgroups keep no
    owner: there each stack explains one mm, and when more mms differ by its size than there are stacks, all of them are
    reported.
    """
    mms, vmas = s.mms, s.vmas
    out = np.zeros(len(mms), np.bool_)
    unfinished = np.flatnonzero((mms.nr_tasks[vmas.mm_idx] == 0) & vmas.has(VM_RAND_READ | VM_SEQ_READ))
    alone = (mms.nr_tasks > 0) & ~np.delete(excess, RSS_ANON, axis=1).any(axis=1)
    for pages in np.unique(vmas.nr_pages[unfinished]).tolist():
        stacks = unfinished[vmas.nr_pages[unfinished] == pages]
        charged = alone & (excess[:, RSS_ANON] == pages)
        owners = s.tasks.mm[np.isin(s.tasks.addr, mms.owner[vmas.mm_idx[stacks]])]
        if len(owners):
            out |= charged & np.isin(mms.addr, owners)
        elif int(charged.sum()) <= len(stacks):
            out |= charged
    return out
