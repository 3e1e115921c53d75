"""The catalogue of windows: who does what where, which counters that leaves out of step, and which way.

Functions that some builds of a kernel inline are named with those that then hold them. Sources: mm/memory.c,
mm/huge_memory.c, mm/khugepaged.c, mm/rmap.c, mm/migrate.c, mm/vmscan.c, mm/mremap.c, mm/mmap.c, mm/vma.c, mm/ksm.c,
mm/swapfile.c, mm/swap_state.c, mm/shmem.c, mm/truncate.c, mm/hugetlb.c, mm/mlock.c, kernel/fork.c and fs/exec.c of
6.1, 6.12 and 7.3.
"""

from __future__ import annotations

from inspector.windows.folio_windows import FOLIO_WINDOWS
from inspector.windows.list_windows import LIST_WINDOWS
from inspector.windows.window import Window, named

WINDOWS: tuple[Window, ...] = (*FOLIO_WINDOWS, *LIST_WINDOWS)
"""All of them; their numbers are places in here."""

THREADS = named("ksm_scan_thread")
"""Functions of kernel threads that wait for work in themselves: one that called the scheduler waits."""

TABLE_HOLDERS = named(
    "handle_mm_fault __handle_mm_fault do_huge_pmd_anonymous_page __do_huge_pmd_anonymous_page do_fault finish_fault"
    " filemap_map_pages do_set_pmd insert_pmd __pte_alloc __pmd_alloc __pud_alloc __p4d_alloc __pte_alloc_kernel"
    " pgd_alloc copy_page_range copy_huge_pmd move_page_tables move_huge_pmd move_pages_huge_pmd __split_huge_pmd"
    " __split_huge_pmd_locked zap_huge_pmd zap_deposited_table collapse_huge_page collapse_pte_mapped_thp"
    " try_collapse_pte_mapped_thp retract_page_tables collapse_and_free_pmd pte_free_defer pte_free_now"
    " __zap_vma_range zap_pte_range unmap_page_range free_pgd_range free_pgtables tlb_remove_table"
    " tlb_remove_table_rcu __tlb_remove_table_one_rcu tlb_finish_mmu tlb_flush_mmu exit_mmap __mmdrop mm_init"
    " vmemmap_split_pmd pmd_free_pte_page pud_free_pmd_page vmalloc __vmap_pages_range_noflush vmap_range_noflush"
    " ioremap_page_range apply_to_page_range try_to_free_pte"
)
"""Functions that hold a page table for a while that no other table points to: just allocated, or just taken out.

With PT_RECLAIM the zapping functions of mm/memory.c (zap_pte_range(), from 7.x on inlined in __zap_vma_range()) hold a
table that they emptied as nothing but the PMD entry that pointed to it, until free_pte() hands it to the mmu_gather."""

FAULT = "handle_mm_fault"
WAITS_OUTSIDE = named("handle_userfault migration_entry_wait migration_entry_wait_huge pmd_migration_entry_wait")
"""A page fault that waits in one of these has let go of everything: what it was about to do begins anew."""

WAITS = named("schedule schedule_timeout schedule_timeout_interruptible")

BY_FUNCTION: dict[str, tuple[int, ...]] = {}
"""Numbers in `WINDOWS` of the windows that each function opens."""

for _number, _window in enumerate(WINDOWS):
    for _name in _window.functions:
        BY_FUNCTION[_name] = (*BY_FUNCTION.get(_name, ()), _number)
