"""Rules of the users and references that keep an mm alive, and of the pointers that name it."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import AnyArray, rows_of, take_or
from inspector.rules.registry import Phase, rule
from inspector.snapshot import Snapshot
from inspector.subjects import MM, TASK, VMA
from inspector.tables.mm_holders import KINDS, PF_KTHREAD
from inspector.violations import Violations, cannot_check, holds, one, violations
from inspector.windows.window import Effect


@rule(
    "task-mm-invalid",
    TASK,
    "mm-lives",
    Phase.WORDS,
    decides="84",
    was="mm-not-an-mm",
)
def task_mm_invalid(s: Snapshot) -> Violations:
    """task->mm or task->active_mm does not point to an mm_struct.

    Invariant: mm and active_mm of every task are objects of the slab cache mm_struct, but for init_mm and efi_mm, which
        are variables of the kernel.
    Why: kernel/fork.c, mm_init() and dup_mm() take every other mm from mm_cachep.
    Consequence: other memory is used as page tables, locks and counters, and exit frees it. The mm that the task really
        had is never torn down.
    Exceptions: struct pages are missing from the dump, or the cache cannot be found.
    See also: folioscope windows --stack PID; folioscope ps
    """
    tasks = s.tasks
    if not s.mm_slots_whole:
        return holds(0, unread=cannot_check(len(tasks), "the objects of the slab cache mm_struct are not all known"))
    known = np.concatenate([s.mm_slots, s.static_mms, np.zeros(1, np.uint64)])
    wrong = {"mm": ~np.isin(tasks.mm, known), "active_mm": ~np.isin(tasks.active_mm, known)}
    rows = np.flatnonzero(wrong["mm"] | wrong["active_mm"])
    shown = [name for name, bad in wrong.items() if bad.any()]
    stored: dict[str, AnyArray] = {name: getattr(tasks, name)[rows] for name in shown}
    # A process names its mm twice: the pointer that is left names the mm whose counters lack the task's (before 6.2).
    left = np.maximum(rows_of(s.mms.addr, tasks.mm[rows]), rows_of(s.mms.addr, tasks.active_mm[rows]))
    return violations(
        rows,
        observed=stored,
        expected=dict.fromkeys(shown, "an object of the slab cache mm_struct"),
        checked=len(tasks),
        claims=one("mm", left),
    )


@rule(
    "mm-top-table-invalid",
    MM,
    "mm-lives",
    Phase.WORDS,
)
def mm_top_table_invalid(s: Snapshot) -> Violations:
    """The pgd of an mm in use leads to no top page table of its own.

    Invariant: pgd of an mm with users is the address of a page in the kernel's direct map, and that page is its.
    Why: kernel/fork.c, mm_init() allocates the top table before a task can have the mm, and __mmdrop() frees it when
        the last reference is gone; nothing changes pgd in between. On x86, pgd_set_mm() (arch/x86/mm/pgtable.c) notes
        the mm in the struct page of its top table: the one that names this mm is what pgd should lead to.
    Consequence: the CPU that switches to the mm loads another page as its top table.
    Exceptions: never; a task has no mm whose top table is not there yet.
    See also: folioscope ps; folioscope vmas PID
    """
    mms = s.mms
    named = s.layout.direct_map_addrs(mms.pgd_pfn)
    rows = np.flatnonzero((mms.pgd != named) & ((mms.users > 0) | (mms.nr_tasks > 0)))
    known = len(rows) > 0 and bool((mms.pgd_pfn[rows] >= 0).all())
    return violations(
        rows,
        observed={"pgd": mms.pgd[rows]},
        expected={"pgd": named[rows] if known else "the address of a page table"},
        checked=len(mms),
        claims=one("mm_tables", rows),
    )


@rule(
    "mm-users-low",
    MM,
    "mm-lives",
    Phase.STRUCTURES,
    decides="82",
    exactness="bound",
)
def mm_users_low(s: Snapshot) -> Violations:
    """mm_users is lower than the number of threads that use the mm.

    Invariant: mm_users is at least the number of threads whose mm it is. Others may hold it as well (mmget()): readers
        of /proc, io_uring, a kernel thread that works for a process.
    Why: kernel/fork.c, copy_mm() takes a count for each thread before the thread names the mm; exit_mm() gives it back
        after. Kernel threads that borrow an mm (kthread_use_mm()) share the count of the process they work for.
    Consequence: the mm is torn down while threads still run in it: page tables are freed under them.
    Exceptions: never; no work in flight leaves fewer users than threads.
    See also: folioscope ps; folioscope vmas PID
    """
    mms, tasks = s.mms, s.tasks
    own = rows_of(mms.addr, tasks.mm[(tasks.flags & PF_KTHREAD) == 0])
    threads = np.bincount(own[own >= 0], minlength=len(mms))
    rows = np.flatnonzero(mms.users < threads)
    return violations(
        rows, observed={"mm_users": mms.users[rows]}, expected={"at_least": threads[rows]}, checked=len(mms)
    )


@rule(
    "mm-count-low",
    MM,
    "mm-lives",
    Phase.STRUCTURES,
    effect=Effect.MM_COUNT,
    decides="83",
    exactness="bound",
)
def mm_count_low(s: Snapshot) -> Violations:
    """mm_count is lower than the number of known references to the mm.

    Invariant: mm_count is at least one for all users together (mm_users above 0), one for each CPU that runs a kernel
        thread or idles on its page tables (lazy TLB), one for each kernel thread that borrows it, and one each for
        KSM's and khugepaged's slot and for each userfaultfd that watches it. Readers of /proc, io_uring and others may
        hold more.
    Why: include/linux/sched/mm.h, mmgrab() and mmdrop(); kernel/sched/core.c, context_switch(); mm/ksm.c,
        __ksm_enter(); mm/khugepaged.c, __khugepaged_enter(); fs/userfaultfd.c.
    Consequence: the mm_struct and its top page table are freed while a CPU runs on it or a scan goes through it.
    Exceptions: KSM or khugepaged has just listed the mm and not yet counted it. A CPU in the middle of a context
        switch, where the reference is handed on, is not counted.
    See also: folioscope ps; folioscope ksm
    """
    mms, holders = s.mms, s.mm_holders
    of = rows_of(mms.addr, holders.mm)
    each = [np.bincount(of[(of >= 0) & (holders.kind == kind)], minlength=len(mms)) for kind in range(len(KINDS))]
    needed = (mms.users > 0) + np.sum(each, axis=0)
    rows = np.flatnonzero(mms.count < needed)
    return violations(
        rows,
        observed={"mm_count": mms.count[rows]},
        expected={"at_least": needed[rows]},
        checked=len(mms),
        facts={"mm_users": mms.users[rows], **{name: n[rows] for name, n in zip(KINDS, each, strict=True)}},
        transient=(mms.locked | mms.read_locked)[rows],
    )


@rule(
    "vma-mm-mismatch",
    VMA,
    "mm-lives",
    Phase.WORDS,
    decides="74",
    was="vma-of-another-mm",
)
def vma_mm_mismatch(s: Snapshot) -> Violations:
    """A VMA's vm_mm differs from the mm in whose maple tree it is.

    Invariant: vm_mm of each VMA in an mm's tree is that mm.
    Why: mm/vma.c, __mmap_region() and kernel/fork.c, dup_mmap() set it before the VMA enters the tree; nothing changes
        it afterwards.
    Consequence: rmap walks use page tables and locks of the wrong process; the VMA was freed and reused, or
        overwritten.
    Exceptions: no task has the mm yet: dup_mmap() copies the parent's tree as it is and replaces its VMAs one by one,
        with both mmap_locks held.
    See also: folioscope vmas PID
    """
    v = s.vmas
    own = s.mms.addr[v.mm_idx]
    rows = np.flatnonzero(v.vm_mm != own)
    return violations(
        rows, observed={"vm_mm": v.vm_mm[rows]}, expected={"vm_mm": own[rows]}, checked=len(v), claims=one("vma", rows)
    )


@rule(
    "mmlist-entry-missing",
    MM,
    "mm-lives",
    Phase.SUMS,
    decides="93",
    was="mm-with-swap-not-listed",
)
def mmlist_entry_missing(s: Snapshot) -> Violations:
    """An mm with swap entries is not on the list that swapoff searches.

    Invariant: an mm whose page tables hold a swap entry is linked into init_mm.mmlist.
    Why: mm/rmap.c, try_to_unmap_one() and mm/memory.c, copy_nonpresent_pte() list it before they write the entry;
        mm/swapfile.c, drain_mmlist() empties the list when no slot of any device is in use. Entries of shmem are in its
        page cache and do not count.
    Consequence: swapoff never finds the entries: it tries for ever, or the device is removed while entries still name
        its slots.
    Exceptions: the mm is being torn down (mm_users 0): __mmput() takes it off the list for good.
    See also: folioscope swap; folioscope vmas PID
    """
    mms, n = s.mms, s.nonpresent
    # Huge entries and those of hugetlb were not written by unmapping: other rules report them.
    unmapped = (n.kind == Kind.SWAP) & (n.level == Level.PTE) & (n.vma_idx >= 0)
    unmapped &= ~take_or(s.vmas.is_hugetlb, n.vma_idx, False)
    entries = np.bincount(n.mm_idx[unmapped], minlength=len(mms))
    swapped = (entries > 0) & (mms.users > 0)
    rows = np.flatnonzero(swapped & ~mms.on_mmlist)
    return violations(
        rows,
        observed={"on_mmlist": False},
        expected={"on_mmlist": True},
        checked=swapped,
        facts={"swap_entries": entries[rows]},
    )
