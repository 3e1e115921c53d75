"""Rules of the rss counters."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, AnyArray, Mask
from inspector.layout.flags import VM_RAND_READ, VM_SEQ_READ
from inspector.rules.mms.balance import UncountedPages, settle_rss
from inspector.rules.needs import VMAS
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import MM
from inspector.tables.mms import RSS_ANON, RSS_FILE, RSS_SHMEM, RSS_SWAP
from inspector.text import clean_bytes
from inspector.violations import Violations, cannot_check, one, violations
from inspector.walk.rss import PresentPages, rss_differs
from inspector.windows.locks import mm_in_flight
from inspector.windows.window import Effect

_MAX_NAMED = 64
"""Mms for which the owners of their words are named."""

COUNTERS = {"MM_FILEPAGES": RSS_FILE, "MM_ANONPAGES": RSS_ANON, "MM_SWAPENTS": RSS_SWAP, "MM_SHMEMPAGES": RSS_SHMEM}

_NAMES = sorted(COUNTERS, key=COUNTERS.__getitem__)


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
        check_mm() prints "Bad rss-counter state" at exit. Where the per-CPU parts are those of another mm, which only
        copy_mm() has for a moment, the finding names it (`per_cpu_words`).
    Consequence: the OOM killer and cgroup limits act on wrong numbers; a page-table entry or a page was lost.
    Exceptions: the mm is being torn down (mm_users 0), or a page table is not in the dump. Pages whose struct pages are
        missing may count in each counter but MM_SWAPENTS: no more than there are of them is not reported. A task
        inside execve() has the argument pages of its new mm charged to its old one as well (fs/exec.c,
        acct_arg_size()): exactly so many anonymous pages too many are not reported.
    See also: folioscope vmas PID
    """
    mms = s.mms
    rebuilt, unread = s.rss
    able, rows = _able(s), _mismatching(s)
    # Before an mm has a task, mm_init() may not have allocated its counters: nothing is missing from the dump.
    being_built = (mms.nr_tasks == 0) & ~mms.rss_valid
    unchecked = int((~((unread == 0) & mms.rss_valid & s.mm_tables_complete) & ~being_built).sum())
    return violations(
        rows,
        observed={name: mms.rss[rows, i] for name, i in COUNTERS.items()},
        expected={name: rebuilt[rows, i] for name, i in COUNTERS.items()},
        checked=able,
        unread=cannot_check(unchecked, "page tables, struct pages or per-CPU counters of some processes are missing"),
        facts=_shared_words(s, rows) | ({"pages_unread": unread[rows]} if unread[rows].any() else {}),
        depends=one("mm", rows),
        transient=mm_in_flight(s)[rows],
    )


def _able(s: Snapshot) -> Mask:
    """Mms whose sums can be judged."""
    return (s.mms.users > 0) & s.mms.rss_valid & s.mm_tables_complete


def _mismatching(s: Snapshot) -> I64:
    """Mms whose counters differ from what their page tables map."""
    return np.flatnonzero(_able(s) & rss_differs(s) & ~_charged_for_exec(s))


def _sharers(s: Snapshot, mm: int, counter: int) -> list[int]:
    """The mms of other counters that are kept in the words in which one of an mm is."""
    words = s.mms.rss_words
    same = (words == words[mm, counter]) & (words != 0)
    same[mm, counter] = False
    return [int(row) for row in np.nonzero(same)[0]]


def _shared_words(s: Snapshot, rows: I64) -> dict[str, AnyArray]:
    """Whose per-CPU parts those of some mms are, where any are not their own."""
    owners = []
    for row in rows[:_MAX_NAMED].tolist():
        found: dict[int, list[str]] = {}
        for at, name in enumerate(_NAMES):
            for mm in _sharers(s, row, at):
                found.setdefault(mm, []).append(name)
        owners.append("; ".join(_of_mm(s, mm, names) for mm, names in found.items()))
    owners += [""] * (len(rows) - len(owners))
    return {"per_cpu_words": np.array(owners, dtype=np.str_)} if any(owners) else {}


def _of_mm(s: Snapshot, mm: int, names: list[str]) -> str:
    pid, comm = int(s.mms.pid[mm]), clean_bytes(s.mms.comm[mm])
    who = f"pid {pid} ({comm})" if pid >= 0 else f"mm {int(s.mms.addr[mm]):#x}"
    return f"those of {who}" if len(names) == len(_NAMES) else f"{' and '.join(names)} of {who}"


@rule(
    "rss-words-mismatch",
    MM,
    "rss",
    Phase.TOTALS,
    after=("rss-mismatch",),
    effect=Effect.RSS,
    needs=VMAS,
    collects=(PresentPages,),
)
def rss_words_mismatch(s: Snapshot) -> Violations:
    """An mm keeps an rss counter in per-CPU words that are another counter's.

    Invariant: each counter of each mm has words of its own (from 6.2 on).
    Why: lib/percpu_counter.c, __percpu_counter_init_many(), from mm_init() in kernel/fork.c.
    Consequence: what one process maps is counted for another, and the words are freed twice: "Bad rss-counter state"
        when both end, percpu memory that is given out twice.
    Exceptions: no task uses the mm yet: it may be a copy whose counters are made next (dup_mm()). Where the sums are
        wrong as well, rss-mismatch names their owner.
    See also: folioscope ps
    """
    mms = s.mms
    words = mms.rss_words
    used = (words != 0) & (mms.nr_tasks > 0)[:, None]
    values, which, numbers = np.unique(words[used], return_inverse=True, return_counts=True)
    shared = np.zeros(words.shape, np.bool_)
    shared[used] = numbers[which] > 1
    # From 6.6 on the counters of one mm lie side by side: where they do not, that is the mm that was written to.
    steps = np.diff(words.astype(np.int64), axis=1)
    apart = (steps != np.median(steps, axis=0)).any(axis=1) if len(mms) else shared.any(axis=1)
    odd = np.zeros(len(mms), np.bool_)
    if 2 * np.count_nonzero(apart) < len(mms):
        odd |= shared.any(axis=1) & apart
    at_fault, is_wrong = odd.copy(), np.zeros(len(mms), np.bool_)
    is_wrong[_mismatching(s)] = True
    for row in np.flatnonzero(shared.any(axis=1) & ~odd).tolist():
        # Both look alike: the one whose sums are wrong, else any but the first.
        group = {mm for at in np.flatnonzero(shared[row]).tolist() for mm in _sharers(s, row, at)}
        at_fault[row] = not (odd | is_wrong)[list(group)].any() and row > min(group)
    rows = np.flatnonzero(at_fault & ~is_wrong)
    return violations(
        rows,
        observed={"per_cpu_words": _shared_words(s, rows).get("per_cpu_words", np.full(len(rows), ""))},
        expected={"per_cpu_words": "its own"},
        checked=used.any(axis=1),
        depends=one("mm", rows),
        transient=mm_in_flight(s)[rows],
    )


def _charged_for_exec(s: Snapshot) -> Mask:
    """Mms whose anonymous excess is the argument stack of a new mm that execve() is still building.

    The new mm has no task yet; its only VMA is a stack marked both for sequential and random reading
    (VM_STACK_INCOMPLETE_SETUP). The mm of the task that owns it is charged. Kernels without memory cgroups keep no
    owner: there each stack explains one mm, and when more mms differ by its size than there are stacks, all of them are
    reported.
    """
    mms, vmas, (rebuilt, unread) = s.mms, s.vmas, s.rss
    excess = mms.rss - rebuilt
    out = np.zeros(len(mms), np.bool_)
    unfinished = np.flatnonzero((mms.nr_tasks[vmas.mm_idx] == 0) & vmas.has(VM_RAND_READ | VM_SEQ_READ))
    only_more = (mms.nr_tasks > 0) & (excess >= 0).all(axis=1) & (excess[:, RSS_SWAP] == 0)
    for pages in np.unique(vmas.nr_pages[unfinished]).tolist():
        stacks = unfinished[vmas.nr_pages[unfinished] == pages]
        charged = only_more & (excess[:, RSS_ANON] >= pages) & (excess.sum(axis=1) - pages <= unread)
        owners = s.tasks.mm[np.isin(s.tasks.addr, mms.owner[vmas.mm_idx[stacks]])]
        if len(owners):
            out |= charged & np.isin(mms.addr, owners)
        elif int(charged.sum()) <= len(stacks):
            out |= charged
    return out
