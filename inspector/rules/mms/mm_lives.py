"""Rules of what keeps an mm alive: who uses it, who refers to it, and whether it is one at all."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import AnyArray, rows_of
from inspector.rules.registry import Violations, nothing, rule
from inspector.snapshot import Snapshot
from inspector.tables.mm_holders import KINDS, PF_KTHREAD
from inspector.tables.mms import static_mms


@rule("task-mm-invalid", was="mm-not-an-mm", group="mm-lives", invariant="V2", rank=0)
def mm_not_an_mm(s: Snapshot) -> Violations:
    """A task names an address space that is none.

    True:  mm and active_mm of every task are objects of the slab cache mm_struct, but for init_mm and efi_mm, which
           are variables of the kernel.
    Why:   kernel/fork.c, mm_init() and dup_mm() take every other mm from mm_cachep.
    Then:  whatever lies there is taken for page tables, locks and counters; exit frees it. The address space that the
           task really had is never torn down.
    Silent when: struct pages are missing from the dump, or the cache cannot be found.
    Look further: folioscope windows --stack PID; folioscope ps
    """
    tasks = s.tasks
    if not s.mm_slots_whole:
        return nothing("task", 0, len(tasks), "the objects of the slab cache mm_struct are not all known")
    known = np.concatenate([s.mm_slots, static_mms(s.layout), np.zeros(1, np.uint64)])
    wrong = {"mm": ~np.isin(tasks.mm, known), "active_mm": ~np.isin(tasks.active_mm, known)}
    rows = np.flatnonzero(wrong["mm"] | wrong["active_mm"])
    shown = [name for name, bad in wrong.items() if bad.any()]
    stored: dict[str, AnyArray] = {name: getattr(tasks, name)[rows] for name in shown}
    sound = np.full(len(rows), "an object of the slab cache mm_struct")
    # A process names its mm twice: what the one still says tells whose accounts lack the task (before 6.2).
    left = np.maximum(rows_of(s.mms.addr, tasks.mm[rows]), rows_of(s.mms.addr, tasks.active_mm[rows]))
    return Violations("task", rows, stored, dict.fromkeys(shown, sound), len(tasks), claims=(("mm", left),))


@rule("mm-users-low", group="mm-lives", invariant="V2", rank=10, exactness="bound")
def mm_users_low(s: Snapshot) -> Violations:
    """More tasks use an address space than its mm_users counts.

    True:  mm_users is at least the number of threads whose mm it is. Others may hold it as well (mmget()): readers of
           /proc, io_uring, a kernel thread at work for a process.
    Why:   kernel/fork.c, copy_mm() takes a count for each thread before the thread names the mm; exit_mm() gives it
           back after. Kernel threads that borrow an mm (kthread_use_mm()) share the count of whom they work for.
    Then:  the address space is torn down while threads still run in it: page tables are freed under them.
    Silent when: never; no work in flight leaves fewer users than threads.
    Look further: folioscope ps; folioscope vmas PID
    """
    mms, tasks = s.mms, s.tasks
    own = rows_of(mms.addr, tasks.mm[(tasks.flags & PF_KTHREAD) == 0])
    threads = np.bincount(own[own >= 0], minlength=len(mms))
    rows = np.flatnonzero(mms.users < threads)
    return Violations(
        "mm",
        rows,
        {"mm_users": mms.users[rows]},
        {"at_least": threads[rows]},
        len(mms),
    )


@rule("mm-count-low", group="mm-lives", invariant="V2", rank=12, exactness="bound")
def mm_count_low(s: Snapshot) -> Violations:
    """An mm has fewer references than those who are known to hold it.

    True:  mm_count is at least one for all users together (mm_users above 0), one for each CPU that runs a kernel
           thread or idles on its page tables (lazy TLB), one for each kernel thread that borrows it, and one each for
           KSM's and khugepaged's slot and for each userfaultfd that watches it. Readers of /proc, io_uring and others
           may hold more.
    Why:   include/linux/sched/mm.h, mmgrab() and mmdrop(); kernel/sched/core.c, context_switch(); mm/ksm.c,
           __ksm_enter(); mm/khugepaged.c, __khugepaged_enter(); fs/userfaultfd.c.
    Then:  the mm_struct and its top page table are freed while a CPU runs on it or a scan goes through it.
    Silent when: KSM or khugepaged has just listed the mm and not yet counted it. A CPU in the middle of a context
           switch, where the reference is handed on, is not looked at.
    Look further: folioscope ps; folioscope ksm
    """
    mms, holders = s.mms, s.mm_holders
    of = rows_of(mms.addr, holders.mm)
    each = [np.bincount(of[(of >= 0) & (holders.kind == kind)], minlength=len(mms)) for kind in range(len(KINDS))]
    needed = (mms.users > 0) + np.sum(each, axis=0)
    rows = np.flatnonzero(mms.count < needed)
    return Violations(
        "mm",
        rows,
        {"mm_count": mms.count[rows]},
        {"at_least": needed[rows]},
        len(mms),
        facts={"mm_users": mms.users[rows], **{name: n[rows] for name, n in zip(KINDS, each, strict=True)}},
        transient=(mms.locked | mms.read_locked)[rows],
    )


@rule("vma-mm-mismatch", was="vma-of-another-mm", group="mm-lives", invariant="V2", rank=0)
def vma_of_another_mm(s: Snapshot) -> Violations:
    """A VMA names another mm than the one in whose tree it is.

    True:  vm_mm of each VMA in an mm's tree is that mm.
    Why:   mm/vma.c, __mmap_region() and kernel/fork.c, dup_mmap() set it before the VMA enters the tree; nothing
           changes it afterwards.
    Then:  rmap takes page tables and locks of the wrong process; the VMA was freed and is used anew, or overwritten.
    Silent when: no task has the mm yet: dup_mmap() copies the parent's tree as it is and replaces its VMAs one by one,
           with both mmap_locks held.
    Look further: folioscope vmas PID
    """
    v = s.vmas
    own = s.mms.addr[v.mm_idx] if len(v) else v.vm_mm
    rows = np.flatnonzero(v.vm_mm != own)
    return Violations("vma", rows, {"vm_mm": v.vm_mm[rows]}, {"vm_mm": own[rows]}, len(v), claims=(("vma", rows),))


@rule("mmlist-entry-missing", was="mm-with-swap-not-listed", group="mm-lives", invariant="V2", rank=60)
def mm_with_swap_not_listed(s: Snapshot) -> Violations:
    """An address space has swap entries but is not on the list that swapoff searches.

    True:  an mm whose page tables hold a swap entry is linked into init_mm.mmlist.
    Why:   mm/rmap.c, try_to_unmap_one() and mm/memory.c, copy_nonpresent_pte() list it before they write the entry;
           mm/swapfile.c, drain_mmlist() empties the list when no slot of any device is in use. Entries of shmem are in
           its page cache and do not count.
    Then:  swapoff never finds the entries: it tries for ever, or the device goes while entries still name its slots.
    Silent when: the mm is being torn down (mm_users 0): __mmput() takes it off the list for good.
    Look further: folioscope swap; folioscope vmas PID
    """
    mms, n = s.mms, s.nonpresent
    # Huge entries and those of hugetlb are no swap entries that unmapping has left.
    unmapped = (n.kind == Kind.SWAP) & (n.level == Level.PTE) & (n.vma_idx >= 0)
    if len(s.vmas):
        unmapped &= ~s.vmas.is_hugetlb[np.maximum(n.vma_idx, 0)]
    entries = np.bincount(n.mm_idx[unmapped], minlength=len(mms))
    swapped = (entries > 0) & (mms.users > 0)
    rows = np.flatnonzero(swapped & ~mms.on_mmlist)
    return Violations(
        "mm",
        rows,
        {"on_mmlist": mms.on_mmlist[rows]},
        {"on_mmlist": np.ones(len(rows), np.bool_)},
        int(swapped.sum()),
        facts={"swap_entries": entries[rows]},
    )
