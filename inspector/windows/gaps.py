"""Between which stores of the kernel an mm, its VMAs and what leads to them differ: read from the functions' source.

Each row is a gap: a function of the kernel, the last store before it and the first one after it, as far as a rule can
see them, and what differs in between, for whose mm. The windows of work on VMAs and mms take their functions and
effects from here (`from_gaps`), so that each excuse has its reason. A task that was preempted in a gap holds its locks
on, and counts as much as one that runs.

Read in 6.1.192, 6.12.118 and 7.3.4; `SOURCES` has the files. What windows/folio_windows.py and windows/list_windows.py
say of folios, swap, KSM and the page cache is written there.
"""

from __future__ import annotations

from enum import Enum

from inspector.records import dataclass
from inspector.windows.window import Effect, Scope, Way, Window, named


class Whose(Enum):
    """Which mm is half changed."""

    WORKED_ON = "the mm that it works on"
    MADE = "the mm that it makes, which no task has yet"


@dataclass(frozen=True)
class Gap:
    """One gap.

    Attributes:
        window: Id of the window that it belongs to.
        function: Function of the kernel.
        kernels: Of those read, which have it so.
        after, before: The stores around it.
        differs: What a rule may find out of step.
        whose: In which mm.
    """

    window: str
    function: str
    kernels: str
    after: str
    before: str
    differs: frozenset[Effect]
    whose: Whose = Whose.WORKED_ON


_ALL = "6.1 6.12 7.3"
_NEW = "6.12 7.3"


def _effects(names: str) -> frozenset[Effect]:
    return frozenset(Effect[name.upper()] for name in names.split())


_TREES = _effects("vmas anon_rmap file_rmap")
_RANGE = _effects("vmas anon_rmap file_rmap cover")
"""Where bounds and the maple tree are out of step: entries of part of the range are in no VMA."""

_BUILT = _effects("vmas anon_rmap file_rmap tables cover rss swap hugetlb entries protection ksm refcount")


def _split() -> tuple[Gap, ...]:
    w = "W19"
    return (
        Gap(w, "__split_vma", "6.1", "anon_vma_clone() links the new VMA's chains", "__vma_adjust()", _TREES),
        Gap(w, "__split_vma", _NEW, "vm_area_dup() copies the VMA, anon_vma included", "anon_vma_clone()", _TREES),
        Gap(
            w,
            "__split_vma",
            _NEW,
            "anon_vma_clone() links the new VMA's chains and counts it in num_active_vmas",
            "vma_iter_store() of the new VMA in vma_complete(): until then it is in no tree of VMAs",
            _TREES,
        ),
        Gap(
            w,
            "__split_vma",
            _NEW,
            "vm_start or vm_end of the old VMA",
            "vma_iter_store() of the new VMA in vma_complete()",
            _RANGE,
        ),
        Gap(
            w,
            "vma_prepare",
            _NEW,
            "anon_vma_interval_tree_pre_update_vma(), vma_interval_tree_remove(): out of both reverse maps",
            "vma_complete() inserts it again",
            _TREES,
        ),
        Gap(
            w,
            "vma_prepare",
            _NEW,
            "__vma_link_file() of the inserted VMA: in the reverse map of its file",
            "vma_iter_store(): in the tree of its mm",
            _TREES,
        ),
        Gap(w, "vma_complete", _NEW, "vma_iter_store() of the inserted VMA", "map_count++", _effects("vmas")),
        Gap(
            w,
            "vma_complete",
            _NEW,
            "__remove_shared_vm_struct() of a removed VMA",
            "unlink_anon_vmas() or anon_vma_merge(), map_count--, vm_area_free()",
            _TREES,
        ),
        Gap(
            w,
            "__vma_adjust",
            "6.1",
            "anon_vma_clone() to a VMA that takes in part of its neighbour",
            "anon_vma_interval_tree_pre_update_vma()",
            _TREES,
        ),
        Gap(
            w,
            "__vma_adjust",
            "6.1",
            "anon_vma_interval_tree_pre_update_vma(), vma_interval_tree_remove(): out of both reverse maps",
            "vma_interval_tree_insert(), anon_vma_interval_tree_post_update_vma()",
            _TREES,
        ),
        Gap(
            w,
            "__vma_adjust",
            "6.1",
            "vm_start, vm_end, vma_mas_szero() of what leaves the VMA",
            "vma_mas_store() of the next or of the inserted VMA: entries there are in no VMA until then",
            _RANGE,
        ),
        Gap(w, "__vma_adjust", "6.1", "vma_mas_store() of the inserted VMA", "map_count++", _effects("vmas")),
        Gap(
            w,
            "__vma_adjust",
            "6.1",
            "vma_mas_store() over a removed VMA",
            "anon_vma_merge(), map_count--, vm_area_free() of it",
            _TREES,
        ),
        Gap(w, "vma_merge", "6.1", "as __vma_adjust(), which it calls", "", _RANGE),
        Gap(
            w,
            "commit_merge",
            _NEW,
            "vma_set_range(), vma_adjust_next...: bounds of the VMAs merged",
            "vma_iter_store() of the target",
            _RANGE,
        ),
        Gap(w, "vma_merge_existing_range", _NEW, "dup_anon_vma()", "vma_complete() in commit_merge()", _RANGE),
        Gap(w, "vma_merge_new_range", _NEW, "vma_expand() until it returns", "", _RANGE),
        Gap(w, "vma_expand", _ALL, "dup_anon_vma(), bounds of the VMA", "vma_complete()", _RANGE),
        Gap(
            w,
            "vma_shrink",
            _NEW,
            "vma_iter_clear() of what leaves the VMA",
            "vma_set_range(), vma_complete()",
            _RANGE,
        ),
        Gap(w, "vma_link", _ALL, "vma_iter_store()", "vma_link_file(), map_count++", _TREES),
        Gap(w, "mmap_region", _ALL, "vma_iter_store()", "map_count++, vma_link_file(), vm_stat_account()", _TREES),
        Gap(
            w,
            "__mmap_region",
            _ALL,
            "vma_iter_store() in __mmap_new_vma(), or vma_merge_new_range()",
            "map_count++, vma_link_file(); vm_stat_account() in __mmap_complete()",
            _TREES,
        ),
        Gap(
            w,
            "do_brk_flags",
            _ALL,
            "bounds of the VMA and its place in the tree",
            "map_count++, total_vm, data_vm",
            _RANGE,
        ),
        Gap(w, "do_brk_munmap", "6.1", "vma->vm_end, vma_mas_remove()", "unmap_region(), total_vm", _RANGE),
        Gap(w, "insert_vm_struct", _ALL, "vma_link()", "total_vm of its caller", _TREES),
        Gap(
            w,
            "expand_downwards",
            _ALL,
            "vm_stat_account(); anon_vma_interval_tree_pre_update_vma(); vm_start, vm_pgoff",
            "vma_iter_store(); anon_vma_interval_tree_post_update_vma()",
            _RANGE,
        ),
        Gap(w, "expand_upwards", _ALL, "as expand_downwards(), with vm_end", "", _RANGE),
        Gap(w, "vma_modify", _NEW, "vma_merge_existing_range() or split_vma()", "", _RANGE),
        Gap(w, "vma_modify_flags", _NEW, "vma_modify()", "the caller's store of the flags", _RANGE),
        Gap(w, "split_vma", _ALL, "as __split_vma(), which it calls", "", _RANGE),
        Gap(
            w,
            "madvise_update_vma",
            _ALL,
            "vma_merge() or split_vma() (vma_modify_flags_name())",
            "vm_flags",
            _RANGE,
        ),
        Gap(w, "mbind_range", _ALL, "vma_merge() or split_vma()", "vma_replace_policy()", _RANGE),
        Gap(
            w,
            "shift_arg_pages",
            "6.1",
            "vma_expand(); move_page_tables() of the stack",
            "free_pgd_range(), vma_shrink()",
            _RANGE,
        ),
        Gap(
            w,
            "relocate_vma_down",
            _NEW,
            "vma_expand(); move_page_tables() of the stack",
            "free_pgd_range(), vma_shrink()",
            _RANGE,
        ),
        Gap(
            w,
            "userfaultfd_register_range",
            _NEW,
            "vma_modify_flags_uffd()",
            "vm_userfaultfd_ctx, vm_flags",
            _RANGE,
        ),
        Gap(
            w,
            "userfaultfd_clear_vma",
            _NEW,
            "uffd_wp_range(), vma_modify_flags_uffd()",
            "vm_userfaultfd_ctx, vm_flags",
            _RANGE | _effects("protection"),
        ),
    )


def _protect() -> tuple[Gap, ...]:
    w = "W28"
    late = _effects("protection vmas")
    return (
        Gap(
            w,
            "mprotect_fixup",
            _ALL,
            "vm_flags_reset(), vma_set_page_prot(): the VMA has its new flags",
            "change_protection() has rewritten the entries of the range: they have the old bits until then",
            late,
        ),
        Gap(
            w,
            "mprotect_fixup",
            _ALL,
            "vm_flags_reset()",
            "vm_stat_account(): data_vm, exec_vm and stack_vm count the range by its old flags",
            late,
        ),
        *(
            Gap(w, name, _ALL, "entries up to here", "those behind them", late)
            for name in ("change_protection", "change_protection_range", "change_pmd_range", "change_pte_range")
        ),
        Gap(w, "change_huge_pmd", _ALL, "entries up to here", "this PMD", late),
        Gap(w, "hugetlb_change_protection", _ALL, "entries up to here", "those behind them", late),
        Gap(w, "uffd_wp_range", _ALL, "entries up to here", "those behind them", late),
    )


def _lock() -> tuple[Gap, ...]:
    w = "W26"
    vmas = _effects("vmas")
    return (
        Gap(
            w,
            "mlock_fixup",
            _ALL,
            "locked_vm of the mm",
            "vm_flags of the VMA; where it is only unlocked, the other way round",
            vmas,
        ),
        Gap(
            w,
            "mlock_vma_pages_range",
            _ALL,
            "VM_IO beside VM_LOCKED: rmap shall not mlock pages meanwhile",
            "VM_IO is taken away when the range is done",
            vmas,
        ),
        *(
            Gap(w, name, _ALL, "mlock_fixup() of one VMA", "of the next", vmas)
            for name in ("apply_vma_lock_flags", "apply_mlockall_flags", "do_mlock", "__do_sys_munlock")
        ),
    )


def _fork() -> tuple[Gap, ...]:
    w = "W4"
    rmap = _effects("anon_rmap file_rmap refcount")
    made = Whose.MADE
    counters = _effects("vmas rss tables mm_ids")
    return (
        Gap(w, "dup_mm", _ALL, "memcpy() of the parent's mm_struct", "mm_init()", counters, made),
        Gap(
            w,
            "mm_init",
            _ALL,
            "mm_users, mm_count, map_count, pgtables_bytes, rss_stat of its own",
            "mm_alloc_pgd(), from 6.15 on mm_alloc_id(), percpu_counter_init_many(): page tables, id and per-CPU "
            "counters of its own; total_vm is the parent's",
            counters,
            made,
        ),
        Gap(
            w,
            "dup_mmap",
            _ALL,
            "total_vm, data_vm, exec_vm, stack_vm copied; __mt_dup() copies the tree (from 6.8 on)",
            "vm_area_dup(), vma_iter_bulk_store(), map_count++ for each VMA: those not done are the parent's",
            _BUILT | rmap,
            made,
        ),
        Gap(
            w,
            "dup_mmap",
            _ALL,
            "anon_vma_fork(): the new VMA's chains, in the trees of the parent's anon_vmas, num_children and "
            "num_active_vmas counted",
            "vma_iter_bulk_store(): in the tree of its mm",
            rmap,
        ),
        Gap(
            w,
            "dup_mmap",
            _ALL,
            "vma_iter_bulk_store(), map_count++",
            "vma_interval_tree_insert_after(): in the reverse map of its file",
            rmap,
        ),
        Gap(
            w,
            "copy_page_range",
            _ALL,
            "entries copied, mappings and swap slots counted",
            "add_mm_rss_vec(): the child's rss",
            _effects("rss swap entries protection ksm tables hugetlb"),
        ),
        Gap(w, "copy_pte_range", _ALL, "as copy_page_range()", "", _effects("rss swap entries")),
        Gap(w, "copy_mm", _ALL, "dup_mm()", "tsk->mm", _BUILT, made),
        Gap(
            w,
            "copy_process",
            _ALL,
            "copy_mm(): the mm has its user",
            "attach_pid(): the task is in the namespace, and known",
            _BUILT,
            made,
        ),
    )


def _exec() -> tuple[Gap, ...]:
    w = "W5"
    return (
        Gap(
            w,
            "alloc_bprm",
            _ALL,
            "mm_alloc(), the VMA of the arguments' stack: an mm of no task",
            "exec_mmap()",
            _BUILT,
        ),
        Gap(w, "bprm_mm_init", _ALL, "as alloc_bprm(), before 7.x with the VMA", "exec_mmap()", _BUILT),
        Gap(
            w,
            "copy_strings",
            _ALL,
            "get_arg_page(): faults pages of the new mm in; acct_arg_size() adds them to the old mm's anonymous rss",
            "acct_arg_size(bprm, 0) in begin_new_exec() or free_bprm()",
            _BUILT,
        ),
        Gap(w, "copy_string_kernel", _ALL, "as copy_strings()", "", _BUILT),
        Gap(
            w,
            "exec_mmap",
            _ALL,
            "tsk->mm is the new mm",
            "mmput() of the old one: in exec_mmap(), from 7.x on in setup_new_exec(); its tables are in an mmu_gather "
            "on this task's stack",
            _BUILT,
        ),
        *(
            Gap(w, name, _ALL, "bprm->mm is made", "it is the task's, and laid out", _BUILT)
            for name in (
                *("do_execveat_common", "bprm_execve", "exec_binprm", "begin_new_exec", "setup_new_exec"),
                *("free_bprm", "kernel_execve"),
            )
        ),
        Gap(
            w,
            "setup_arg_pages",
            _ALL,
            "mprotect_fixup() and moving of the stack's VMA",
            "expand_stack_locked()",
            _BUILT,
        ),
        Gap(w, "load_elf_binary", _ALL, "begin_new_exec()", "the image is mapped", _BUILT),
    )


def _exit() -> tuple[Gap, ...]:
    w = "W6"
    gone = _BUILT
    return (
        Gap(w, "mmput", _ALL, "mm_users is 0", "exit_mmap() is through", gone),
        Gap(w, "__mmput", _ALL, "mm_users is 0", "exit_mmap() is through", gone),
        Gap(w, "mmput_async_fn", _ALL, "mm_users is 0, in a worker's thread", "as __mmput()", gone),
        Gap(w, "__mmdrop", _ALL, "mm_count is 0", "free_mm()", gone),
        Gap(w, "exit_mm", _ALL, "tsk->mm is NULL", "mmput()", gone),
        Gap(w, "exit_mmap", _ALL, "unmap_vmas(): entries cleared", "free_pgtables(), tlb_finish_mmu()", gone),
        Gap(
            w,
            "exit_mmap",
            _ALL,
            "free_pgtables(): VMAs out of the reverse maps, page tables freed",
            "remove_vma() of each, __mt_destroy(): they are in the tree until then",
            gone,
        ),
        Gap(
            w,
            "free_pgtables",
            _ALL,
            "unlink_anon_vmas(), unlink_file_vma() of some VMAs",
            "of the others; free_pgd_range()",
            gone,
        ),
        Gap(w, "unlink_anon_vmas", _ALL, "chains out of the trees", "anon_vmas put", gone),
        *(
            Gap(w, name, kernels, "VMAs out of the reverse map of their file", "out of the tree of their mm", gone)
            for name, kernels in (
                ("unlink_file_vma", "6.1 6.12"),
                ("unlink_file_vma_batch_add", _NEW),
                ("unlink_file_vma_batch_final", _NEW),
            )
        ),
        Gap(w, "tear_down_vmas", "7.3", "remove_vma() of some VMAs", "of the others", gone),
        Gap(w, "remove_vma", _ALL, "vma->vm_ops->close(), fput()", "vm_area_free()", gone),
        Gap(
            w,
            "do_mas_align_munmap",
            "6.1",
            "mas_store_prealloc(): VMAs out of the tree, map_count",
            "unmap_region(); remove_mt(): total_vm",
            gone,
        ),
        Gap(
            w,
            "vms_gather_munmap_vmas",
            _NEW,
            "__split_vma(); VMAs copied to a tree of their own and marked detached",
            "vma_iter_clear_gfp() in vms_complete_munmap_vmas()",
            gone,
        ),
        Gap(
            w,
            "vms_clear_ptes",
            _NEW,
            "unmap_vmas(): entries cleared",
            "free_pgtables(), tlb_finish_mmu()",
            gone,
        ),
        Gap(
            w,
            "vms_complete_munmap_vmas",
            _NEW,
            "map_count; mmap_lock is held for reading only",
            "vms_clear_ptes(), total_vm and the like, remove_vma()",
            gone,
        ),
        *(
            Gap(w, name, kernels, "VMAs out of the tree", "their entries and tables freed", gone)
            for name, kernels in (
                *(("__vm_munmap", _ALL), ("do_munmap", _ALL), ("unmap_region", _ALL), ("do_mas_munmap", "6.1")),
                *(("do_vmi_align_munmap", _NEW), ("do_vmi_munmap", _NEW)),
            )
        ),
        Gap(
            w,
            "__oom_reap_task_mm",
            _ALL,
            "entries of one VMA cleared, by the OOM reaper's thread",
            "tlb_finish_mmu()",
            gone,
        ),
        Gap(w, "oom_reap_task", _ALL, "as __oom_reap_task_mm()", "", gone),
    )


def _move() -> tuple[Gap, ...]:
    w = "W7"
    return (
        Gap(
            w,
            "move_vma",
            _ALL,
            "copy_vma(): the new VMA is in the trees",
            "vm_stat_account() of it; the old one is unmapped by do_vmi_munmap()",
            _BUILT,
        ),
        Gap(
            w,
            "copy_vma",
            _ALL,
            "vma_merge() or vm_area_dup(), anon_vma_clone()",
            "vma_link()",
            _BUILT,
        ),
        Gap(w, "copy_vma_and_data", "7.3", "copy_vma()", "move_page_tables() is through", _BUILT),
        Gap(
            w,
            "move_page_tables",
            _ALL,
            "ptep_get_and_clear() at the old address, under both tables' locks",
            "set_pte_at() at the new one",
            _BUILT,
        ),
        Gap(w, "prep_move_vma", "7.3", "split_vma(), ksm_madvise(MADV_UNMERGEABLE)", "copy_vma()", _BUILT),
        Gap(w, "unmap_source_vma", "7.3", "VM_ACCOUNT of the old VMA cleared", "do_vmi_munmap()", _BUILT),
        *(
            Gap(w, name, kernels, "move_vma() or vma_expand()", "total_vm, locked_vm", _BUILT)
            for name, kernels in (
                *(("mremap_to", _ALL), ("__do_sys_mremap", _ALL), ("__x64_sys_mremap", _ALL)),
                *(("mremap_at", "7.3"), ("do_mremap", "7.3")),
            )
        ),
        Gap(
            w,
            "move_pages",
            _NEW,
            "the entry at the source cleared; folio->index and its mapping rewritten",
            "the entry at the destination set",
            _BUILT,
        ),
        Gap(w, "move_pages_pte", "6.12", "as move_pages()", "", _BUILT),
        Gap(w, "move_pages_ptes", "7.3", "as move_pages()", "", _BUILT),
        Gap(w, "userfaultfd_move", _NEW, "as move_pages()", "", _BUILT),
    )


GAPS: tuple[Gap, ...] = (*_split(), *_protect(), *_lock(), *_fork(), *_exec(), *_exit(), *_move())
"""All that are written down, by window."""


SOURCES: dict[str, tuple[str, str, str]] = {
    name: files
    for files, names in (
        (
            ("mm/mmap.c", "mm/vma.c", "mm/vma.c"),
            "__split_vma vma_expand vma_link split_vma remove_vma unmap_region copy_vma",
        ),
        (
            ("", "mm/vma.c", "mm/vma.c"),
            "vma_prepare vma_complete commit_merge vma_merge_existing_range vma_merge_new_range"
            " vma_shrink vma_modify vma_modify_flags unlink_file_vma_batch_add"
            " unlink_file_vma_batch_final vms_gather_munmap_vmas vms_clear_ptes vms_complete_munmap_vmas"
            " do_vmi_align_munmap do_vmi_munmap",
        ),
        (
            ("mm/mmap.c", "", ""),
            "__vma_adjust vma_merge do_brk_munmap do_mas_align_munmap do_mas_munmap",
        ),
        (
            ("mm/mmap.c", "mm/mmap.c", "mm/vma.c"),
            "mmap_region __mmap_region do_brk_flags insert_vm_struct expand_downwards expand_upwards __vm_munmap",
        ),
        (
            ("mm/madvise.c", "mm/madvise.c", "mm/madvise.c"),
            "madvise_update_vma",
        ),
        (
            ("mm/mempolicy.c", "mm/mempolicy.c", "mm/mempolicy.c"),
            "mbind_range",
        ),
        (
            ("fs/exec.c", "", ""),
            "shift_arg_pages",
        ),
        (
            ("", "mm/mmap.c", "mm/vma_exec.c"),
            "relocate_vma_down",
        ),
        (
            ("", "mm/userfaultfd.c", "mm/userfaultfd.c"),
            "userfaultfd_register_range userfaultfd_clear_vma move_pages",
        ),
        (
            ("mm/mprotect.c", "mm/mprotect.c", "mm/mprotect.c"),
            "mprotect_fixup change_protection change_protection_range change_pmd_range change_pte_range",
        ),
        (
            ("mm/huge_memory.c", "mm/huge_memory.c", "mm/huge_memory.c"),
            "change_huge_pmd",
        ),
        (
            ("mm/hugetlb.c", "mm/hugetlb.c", "mm/hugetlb.c"),
            "hugetlb_change_protection",
        ),
        (
            ("mm/userfaultfd.c", "mm/userfaultfd.c", "mm/userfaultfd.c"),
            "uffd_wp_range",
        ),
        (
            ("mm/mlock.c", "mm/mlock.c", "mm/mlock.c"),
            "mlock_fixup mlock_vma_pages_range apply_vma_lock_flags apply_mlockall_flags do_mlock __do_sys_munlock",
        ),
        (
            ("kernel/fork.c", "kernel/fork.c", "kernel/fork.c"),
            "dup_mm mm_init copy_mm copy_process mmput __mmput mmput_async_fn __mmdrop",
        ),
        (
            ("kernel/fork.c", "kernel/fork.c", "mm/mmap.c"),
            "dup_mmap",
        ),
        (
            ("mm/memory.c", "mm/memory.c", "mm/memory.c"),
            "copy_page_range copy_pte_range free_pgtables",
        ),
        (
            ("fs/exec.c", "fs/exec.c", "fs/exec.c"),
            "alloc_bprm bprm_mm_init copy_strings copy_string_kernel exec_mmap do_execveat_common"
            " bprm_execve exec_binprm begin_new_exec setup_new_exec free_bprm kernel_execve"
            " setup_arg_pages",
        ),
        (
            ("fs/binfmt_elf.c", "fs/binfmt_elf.c", "fs/binfmt_elf.c"),
            "load_elf_binary",
        ),
        (
            ("kernel/exit.c", "kernel/exit.c", "kernel/exit.c"),
            "exit_mm",
        ),
        (
            ("mm/mmap.c", "mm/mmap.c", "mm/mmap.c"),
            "exit_mmap do_munmap",
        ),
        (
            ("mm/rmap.c", "mm/rmap.c", "mm/rmap.c"),
            "unlink_anon_vmas",
        ),
        (
            ("mm/mmap.c", "mm/vma.c", ""),
            "unlink_file_vma",
        ),
        (
            ("", "", "mm/mmap.c"),
            "tear_down_vmas",
        ),
        (
            ("mm/oom_kill.c", "mm/oom_kill.c", "mm/oom_kill.c"),
            "__oom_reap_task_mm oom_reap_task",
        ),
        (
            ("mm/mremap.c", "mm/mremap.c", "mm/mremap.c"),
            "move_vma move_page_tables mremap_to __do_sys_mremap __x64_sys_mremap",
        ),
        (
            ("", "", "mm/mremap.c"),
            "copy_vma_and_data prep_move_vma unmap_source_vma mremap_at do_mremap",
        ),
        (
            ("", "mm/userfaultfd.c", ""),
            "move_pages_pte",
        ),
        (
            ("", "", "mm/userfaultfd.c"),
            "move_pages_ptes",
        ),
        (
            ("", "fs/userfaultfd.c", "mm/userfaultfd.c"),
            "userfaultfd_move",
        ),
    )
    for name in names.split()
}
"""The file of each function in 6.1, 6.12 and 7.3; "" where the kernel has none of that name."""


def from_gaps(window: str, title: str, others: str = "") -> Window:
    """The window that the gaps of one id make.

    Args:
        window: Its id.
        title: What the task is doing.
        others: More functions that hold those of the gaps: callers into which some builds inline them.
    """
    gaps = [gap for gap in GAPS if gap.window == window]
    able = {effect for gap in gaps for effect in gap.differs}
    anyone = {effect for gap in gaps if gap.whose is Whose.WORKED_ON for effect in gap.differs}
    return Window(
        window,
        title,
        frozenset(gap.function for gap in gaps) | named(others),
        {effect: Way.HIGH if effect is Effect.REFCOUNT else Way.EITHER for effect in Effect if effect in able},
        Scope.MM,
        seen=True,
        made=frozenset(able - anyone),
    )
