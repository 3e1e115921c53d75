"""The catalogue of windows: who does what where, which counters that leaves out of step, and which way.

Functions that some builds of a kernel inline are named with those that then hold them. Sources: mm/memory.c,
mm/huge_memory.c, mm/khugepaged.c, mm/rmap.c, mm/migrate.c, mm/vmscan.c, mm/mremap.c, mm/mmap.c, mm/vma.c, mm/ksm.c,
mm/swapfile.c, mm/swap_state.c, mm/shmem.c, mm/truncate.c, mm/hugetlb.c, mm/mlock.c, kernel/fork.c and fs/exec.c of
6.1, 6.12 and 7.3.
"""

from __future__ import annotations

from inspector.model.windows import Effect, Scope, Way, Window, named


def _effects(high: str = "", either: str = "") -> dict[Effect, Way]:
    out = {Effect[name.upper()]: Way.HIGH for name in high.split()}
    return out | {Effect[name.upper()]: Way.EITHER for name in either.split()}


_ADDED = _effects("page entire large pages_mapped refcount", "mm_ids rss statistic tables entries hugetlb")
"""An entry is about to be written, or was just cleared: counts are ahead of the page tables, their sums anywhere."""

_TREES = _effects("", "vmas anon_rmap file_rmap")
_ADDRESS_SPACE = _effects("refcount", "vmas anon_rmap file_rmap tables rss swap hugetlb entries ksm")

WINDOWS: tuple[Window, ...] = (
    Window(
        "W1",
        "installing an entry: counted, not yet written",
        named(
            "do_anonymous_page do_huge_pmd_anonymous_page __do_huge_pmd_anonymous_page map_anon_folio_pmd_nopf"
            " map_anon_folio_pmd_pf map_anon_folio_pte_nopf do_set_pmd set_pte_range do_set_pte finish_fault"
            " filemap_map_pages filemap_map_pmd do_swap_page wp_page_copy do_wp_page do_cow_fault do_fault"
            " __handle_mm_fault handle_pte_fault do_huge_pmd_wp_page insert_page insert_pages vm_insert_page"
            " vm_insert_pages insert_page_into_pte_locked insert_pmd insert_pud mfill_atomic_install_pte mfill_atomic"
            " mfill_atomic_pte mcopy_atomic_install_pte unuse_pte unuse_pte_range do_huge_zero_wp_pmd insert_folio_pmd"
        ),
        _ADDED,
        Scope.MM,
        spinning=True,
        seen=True,
    ),
    Window(
        "W2",
        "removing or rewriting entries: cleared, still counted",
        named(
            "zap_pte_range zap_present_ptes zap_present_folio_ptes zap_huge_pmd zap_huge_pud zap_pmd_range"
            " unmap_page_range unmap_single_vma unmap_vmas __zap_vma_range zap_page_range_single"
            " zap_page_range_single_batched zap_vma_range change_pte_range change_pmd_range change_huge_pmd"
            " change_protection change_protection_range madvise_free_pte_range madvise_free_huge_pmd"
            " madvise_cold_or_pageout_pte_range clear_refs_pte_range wp_page_copy write_protect_page replace_page"
            " ptep_clear_flush pmdp_huge_clear_flush"
        ),
        _ADDED | _effects("", "swap"),
        Scope.MM,
        spinning=True,
        seen=True,
    ),
    Window(
        "W2",
        "unmapping a folio everywhere: an entry cleared, still counted",
        named(
            "try_to_unmap_one try_to_migrate_one page_vma_mkclean_one page_mkclean_one folio_mkclean"
            " make_device_exclusive unmap_poisoned_folio"
        ),
        _ADDED | _effects("", "swap"),
        Scope.LOCKED_FOLIOS,
        spinning=True,
        seen=True,
    ),
    Window(
        "W2",
        "unmapping part of a file everywhere",
        named(
            "unmap_mapping_range unmap_mapping_pages unmap_mapping_folio unmap_mapping_range_tree"
            " unmap_mapping_range_vma"
        ),
        _ADDED,
        Scope.SYSTEM,
        spinning=True,
    ),
    Window(
        "W3",
        "unmapped pages wait for a TLB flush (mmu_gather)",
        named(
            "unmap_vmas unmap_region vms_clear_ptes zap_page_range_single zap_page_range_single_batched exit_mmap"
            " tlb_finish_mmu tlb_flush_mmu __zap_vma_range zap_pte_range unmap_page_range madvise_dontneed_free"
            " tlb_batch_pages_flush __tlb_batch_free_encoded_pages"
        ),
        _effects("refcount", "tables"),
        Scope.MM,
        seen=True,
    ),
    Window(
        "W4",
        "fork: an entry of the child counted, not yet written",
        named("copy_pte_range copy_present_ptes copy_present_pte copy_huge_pmd copy_huge_pud copy_page_range"),
        _ADDED | _effects("", "swap"),
        Scope.MM,
        spinning=True,
    ),
    Window(
        "W4",
        "fork: the child's address space is being built",
        named("dup_mm dup_mmap copy_mm copy_process copy_page_range copy_pte_range mm_init"),
        _ADDRESS_SPACE,
        Scope.MM,
        seen=True,
    ),
    Window(
        "W5",
        "exec: the new address space is being built, its arguments charged to the old one",
        named(
            "do_execveat_common bprm_execve exec_binprm copy_strings copy_string_kernel begin_new_exec alloc_bprm"
            " bprm_mm_init setup_arg_pages load_elf_binary exec_mmap free_bprm kernel_execve"
        ),
        _ADDRESS_SPACE,
        Scope.MM,
        seen=True,
    ),
    Window(
        "W6",
        "exit or munmap: VMAs gone from the reverse maps before their page tables are",
        named(
            "exit_mmap __mmput mmput mmput_async_fn exit_mm free_pgtables unlink_anon_vmas unlink_file_vma"
            " unlink_file_vma_batch_add unlink_file_vma_batch_final tear_down_vmas remove_vma"
            " do_vmi_align_munmap do_vmi_munmap __vm_munmap do_munmap unmap_region vms_complete_munmap_vmas"
            " vms_gather_munmap_vmas vms_clear_ptes do_mas_align_munmap do_mas_munmap oom_reap_task"
            " __oom_reap_task_mm __mmdrop"
        ),
        _ADDRESS_SPACE,
        Scope.MM,
        seen=True,
    ),
    Window(
        "W7",
        "moving entries to another place: in neither, counted",
        named(
            "move_ptes move_huge_pmd move_huge_pud move_normal_pmd move_normal_pud move_pages_pte move_present_ptes"
            " move_present_pte move_swap_pte move_pages_huge_pmd move_page_tables move_pages move_hugetlb_page_tables"
        ),
        _ADDED | _effects("", "swap anon_rmap"),
        Scope.MM,
        spinning=True,
    ),
    Window(
        "W7",
        "mremap or UFFDIO_MOVE: the old and the new place both exist",
        named(
            "move_page_tables move_vma mremap_to copy_vma mremap_at do_mremap __do_sys_mremap __x64_sys_mremap"
            " prep_move_vma unmap_source_vma copy_vma_and_data move_pages move_pages_pte userfaultfd_move"
        ),
        _ADDRESS_SPACE,
        Scope.MM,
        seen=True,
    ),
    Window(
        "W8",
        "collapse: the page table is taken out, its entries still counted",
        named(
            "collapse_huge_page __collapse_huge_page_copy __collapse_huge_page_copy_succeeded"
            " __collapse_huge_page_copy_failed __collapse_huge_page_isolate __collapse_huge_page_swapin mthp_collapse"
        ),
        _ADDED | _effects("", "swap anon_rmap"),
        Scope.MM,
        seen=True,
    ),
    Window(
        "W9",
        "collapse of a file: the new folio in the cache, the old ones still of the file",
        named("collapse_file collapse_scan_file hpage_collapse_scan_file khugepaged_scan_file"),
        _effects("page", "page_cache statistic swap refcount pages"),
        Scope.SYSTEM,
        seen=True,
    ),
    Window(
        "W9",
        "collapse of a file: page tables taken out",
        named(
            "retract_page_tables collapse_pte_mapped_thp try_collapse_pte_mapped_thp collapse_and_free_pmd"
            " pte_free_defer file_backed_vma_is_retractable"
        ),
        _ADDED,
        Scope.MM,
    ),
    Window(
        "W10",
        "splitting a PMD: taken back as a whole before the page table stands in its place",
        named(
            "__split_huge_pmd_locked split_huge_pmd_locked __split_huge_pmd split_huge_pmd_address"
            " split_huge_pmd_if_needed __split_huge_pud_locked __split_huge_pud __split_huge_zero_page_pmd"
        ),
        _ADDED | _effects("", "doubly_mapped entire large pages_mapped"),
        Scope.MM,
        spinning=True,
    ),
    Window(
        "W11",
        "splitting a folio: references frozen, entries replaced, tails becoming heads",
        named(
            "__folio_split folio_split __split_huge_page __split_unmapped_folio __split_folio_to_order"
            " __split_huge_page_tail split_huge_page_to_list split_huge_page_to_list_to_order split_folio_to_list"
            " __folio_freeze_and_split_unmapped __split_frozen_folio split_huge_pages_all split_huge_pages_pid"
            " deferred_split_scan truncate_inode_partial_folio min_order_for_split unmap_folio remap_page"
        ),
        _ADDED | _effects("", "swap page_cache pages anon_rmap refcount"),
        Scope.LOCKED_FOLIOS,
    ),
    Window(
        "W12",
        "migration: entries instead of mappings, old and new folio locked and isolated",
        named(
            "migrate_pages migrate_pages_batch migrate_pages_sync migrate_folio migrate_folio_unmap migrate_folio_move"
            " migrate_folio_extra migrate_folios_move move_to_new_folio move_to_new_page unmap_and_move"
            " unmap_and_move_huge_page migrate_huge_page_move_mapping migrate_hugetlbs try_to_migrate"
            " remove_migration_ptes remove_migration_pte folio_migrate_mapping folio_migrate_flags __migrate_folio"
            " migrate_vma_pages migrate_vma_setup migrate_vma_finalize migrate_device_pages buffer_migrate_folio"
            " compact_zone migrate_misplaced_folio migrate_misplaced_page"
        ),
        _ADDED | _effects("", "swap page_cache anon_rmap ksm refcount"),
        Scope.LOCKED_FOLIOS,
        seen=True,
    ),
    Window(
        "W13",
        "reclaim: isolated, unmapped, leaving the cache step by step",
        named(
            "shrink_folio_list shrink_page_list __remove_mapping remove_mapping reclaim_folio_list reclaim_page_list"
            " reclaim_pages pageout shrink_lruvec evict_folios try_to_unmap add_to_swap try_to_free_swap"
            " madvise_cold_or_pageout_pte_range free_swap_cache"
        ),
        _effects("page entire large pages_mapped", "mm_ids rss statistic refcount entries swap page_cache"),
        Scope.LOCKED_FOLIOS,
        seen=True,
    ),
    Window(
        "W15",
        "KSM: merging, or taking pages apart",
        named(
            "ksm_do_scan ksm_scan_thread cmp_and_merge_page try_to_merge_one_page try_to_merge_with_ksm_page"
            " try_to_merge_two_pages stable_tree_insert stable_tree_append stable_tree_search break_ksm"
            " scan_get_next_rmap_item remove_stable_node unmerge_and_remove_all_rmap_items unmerge_ksm_pages"
            " __ksm_exit __ksm_enter ksm_disable ksm_enable_merge_any ksm_madvise run_store remove_all_stable_nodes"
        ),
        _effects("", "ksm statistic rss"),
        Scope.SYSTEM,
        seen=True,
    ),
    Window(
        "W27",
        "KSM or khugepaged: an mm listed, its reference not yet taken",
        named("__ksm_enter ksm_madvise ksm_enable_merge_any __khugepaged_enter khugepaged_enter_vma"),
        _effects("", "mm_count"),
        Scope.MM,
    ),
    Window(
        "W16",
        "swap: a slot taken or given back, not yet or no longer in the cache",
        named(
            "folio_alloc_swap get_swap_page get_swap_pages swap_cache_alloc_folio __swap_cache_prepare_and_add"
            " swapin_readahead swapin_folio swap_cluster_readahead swap_vma_readahead read_swap_cache_async"
            " __read_swap_cache_async do_swap_page add_to_swap add_to_swap_cache put_swap_folio put_swap_page"
            " delete_from_swap_cache swap_cache_del_folio __swap_cache_del_folio __delete_from_swap_cache"
            " folio_free_swap free_swap_cache free_swap_and_cache free_swap_and_cache_nr swap_free swap_free_nr"
            " swap_put_entries_direct swap_entries_free swap_range_free shmem_swapin_folio shmem_swap_alloc_folio"
            " shmem_writepage shmem_writeout shmem_free_swap try_to_unuse unuse_vma unuse_mm __do_sys_swapoff"
            " __do_sys_swapon copy_nonpresent_pte swap_duplicate swap_dup_entry_direct zap_nonpresent_ptes"
            " swap_writeout swap_writepage zswap_store zswap_load scan_swap_map_slots swap_reclaim_full_clusters"
            " swap_reclaim_work swap_do_scheduled_discard swap_discard_work cluster_alloc_swap_entry"
        ),
        _effects("", "swap page_cache statistic rss"),
        Scope.SYSTEM,
        seen=True,
    ),
    Window(
        "W17",
        "page cache: folios being added or taken out",
        named(
            "truncate_inode_pages_range shmem_undo_range shmem_truncate_range invalidate_inode_pages2_range"
            " invalidate_mapping_pages mapping_try_invalidate filemap_remove_folio __filemap_remove_folio"
            " delete_from_page_cache_batch filemap_add_folio __filemap_add_folio shmem_add_to_page_cache"
            " hugetlb_add_to_page_cache remove_inode_hugepages replace_page_cache_folio shmem_replace_folio"
            " shmem_evict_inode evict truncate_inode_folio truncate_folio_batch_exceptionals shmem_get_folio_gfp"
            " shmem_fallocate shmem_free_swap"
        ),
        _effects("", "page_cache statistic swap refcount hugetlb file_rmap"),
        Scope.SYSTEM,
        seen=True,
    ),
    Window(
        "W18",
        "page tables on their way to be freed",
        named(
            "tlb_remove_table __tlb_remove_table tlb_remove_table_rcu pte_free_defer free_pgd_range free_pgtables"
            " __pte_alloc __pmd_alloc __pud_alloc pgd_alloc zap_deposited_table"
        ),
        _effects("", "tables"),
        Scope.MM,
        seen=True,
    ),
    Window(
        "W19",
        "VMAs being changed: out of the trees for a moment",
        named(
            "vma_prepare vma_complete commit_merge __split_vma split_vma vma_modify vma_modify_flags"
            " vma_modify_flags_name vma_modify_policy vma_modify_flags_uffd vma_merge vma_merge_existing_range"
            " vma_merge_new_range vma_expand vma_shrink expand_downwards expand_upwards expand_stack"
            " expand_stack_locked __vma_adjust mprotect_fixup mmap_region __mmap_region do_brk_flags vma_link"
            " insert_vm_struct madvise_update_vma mbind_range relocate_vma_down shift_arg_pages"
            " userfaultfd_register_range userfaultfd_clear_vma mlock_fixup"
        ),
        _TREES,
        Scope.MM,
    ),
    Window(
        "W20",
        "anon_vmas being built or torn down",
        named(
            "__anon_vma_prepare anon_vma_clone anon_vma_fork unlink_anon_vmas anon_vma_chain_link"
            " cleanup_partial_anon_vmas"
        ),
        _effects("", "anon_rmap"),
        Scope.MM,
        seen=True,
    ),
    Window(
        "W21",
        "hugetlb: a folio between the pool and its place",
        named(
            "hugetlb_fault hugetlb_no_page hugetlb_wp alloc_hugetlb_folio alloc_huge_page huge_pmd_share"
            " huge_pmd_unshare __unmap_hugepage_range __unmap_hugepage_range_final unmap_hugepage_range"
            " hugetlb_unshare_pmds hugetlb_unshare_all_pmds copy_hugetlb_page_range hugetlb_change_protection"
            " move_hugetlb_page_tables hugetlb_mfill_atomic_pte hugetlb_mcopy_atomic_pte free_huge_folio"
            " free_huge_page remove_inode_hugepages hugetlb_reserve_pages hugetlb_unreserve_pages set_max_huge_pages"
            " alloc_pool_huge_folio gather_surplus_pages hugetlb_acct_memory hugetlbfs_fallocate"
            " hugetlb_vm_op_close __nr_hugepages_store_common"
        ),
        _effects("page entire large", "hugetlb refcount tables page_cache statistic"),
        Scope.SYSTEM,
    ),
    Window(
        "W22",
        "a statistic is moved after what it counts",
        named(
            "__lruvec_stat_mod_folio lruvec_stat_mod_folio __mod_lruvec_state mod_lruvec_state __mod_lruvec_page_state"
            " mod_node_page_state __mod_node_page_state __mod_zone_page_state mod_zone_page_state"
            " __mod_memcg_lruvec_state mod_memcg_lruvec_state folio_add_new_anon_rmap folio_remove_rmap_ptes"
            " folio_add_file_rmap_ptes folio_add_anon_rmap_ptes folio_remove_rmap_pmd folio_add_file_rmap_pmd"
            " folio_add_anon_rmap_pmd page_remove_rmap page_add_anon_rmap page_add_file_rmap page_add_new_anon_rmap"
            " folio_remove_rmap_pte folio_add_anon_rmap_pte __folio_add_rmap __folio_remove_rmap"
        ),
        _effects("pages_mapped", "statistic mm_ids"),
        Scope.SYSTEM,
        seen=True,
    ),
    Window(
        "W23",
        "references taken without a mapping",
        named(
            "gup_fast gup_fast_fallback internal_get_user_pages_fast lockless_pages_from_mm filemap_get_entry"
            " damon_pa_access_chk isolate_migratepages_block isolate_migratepages kpagecount_read kpageflags_read"
            " kpage_count_read __get_user_pages"
        ),
        _effects("refcount"),
        Scope.SYSTEM,
    ),
    Window(
        "W24",
        "a memory cgroup goes offline: folios change their list",
        named("mem_cgroup_css_offline memcg_reparent_objcgs memcg_reparent_list_lrus reparent_state_local"),
        _effects("", "statistic"),
        Scope.SYSTEM,
    ),
    Window(
        "W25",
        "struct pages being made or taken away",
        named(
            "offline_pages online_pages memmap_init_range hugetlb_vmemmap_optimize_folio hugetlb_vmemmap_restore_folio"
            " hugetlb_vmemmap_optimize_folios hugetlb_vmemmap_restore_folios hugetlb_vmemmap_optimize"
            " hugetlb_vmemmap_restore prep_compound_page __prep_compound_gigantic_folio"
            " destroy_compound_hugetlb_folio_for_demote demote_free_hugetlb_folios"
        ),
        _effects("", "pages"),
        Scope.SYSTEM,
    ),
    Window(
        "W25",
        "a page between the allocator and its user",
        named(
            "get_page_from_freelist free_unref_page_prepare free_pages_prepare __free_pages_prepare free_unref_folios"
            " free_unref_page free_tail_page_prepare free_frozen_pages __free_frozen_pages rmqueue rmqueue_bulk"
            " free_pcppages_bulk __free_one_page"
        ),
        _effects("", "pages"),
        Scope.SYSTEM,
        seen=True,
    ),
    Window(
        "W26",
        "mlock or munlock of a range: VM_IO stands in until its pages are done",
        named("mlock_vma_pages_range mlock_fixup apply_vma_lock_flags apply_mlockall_flags do_mlock __do_sys_munlock"),
        _effects("", "vmas"),
        Scope.MM,
        seen=True,
    ),
)

THREADS = named("ksm_scan_thread")
"""Functions of kernel threads that wait for work in themselves: one that called the scheduler waits."""

TABLE_HOLDERS = named(
    "handle_mm_fault __handle_mm_fault do_huge_pmd_anonymous_page __do_huge_pmd_anonymous_page do_fault finish_fault"
    " filemap_map_pages do_set_pmd insert_pmd __pte_alloc __pmd_alloc __pud_alloc __p4d_alloc __pte_alloc_kernel"
    " pgd_alloc copy_page_range copy_huge_pmd move_page_tables move_huge_pmd move_pages_huge_pmd __split_huge_pmd"
    " __split_huge_pmd_locked zap_huge_pmd zap_deposited_table collapse_huge_page collapse_pte_mapped_thp"
    " try_collapse_pte_mapped_thp retract_page_tables collapse_and_free_pmd pte_free_defer pte_free_now"
    " free_pgd_range free_pgtables tlb_remove_table tlb_remove_table_rcu __tlb_remove_table_one_rcu tlb_finish_mmu"
    " tlb_flush_mmu exit_mmap __mmdrop mm_init vmemmap_split_pmd pmd_free_pte_page pud_free_pmd_page vmalloc"
    " __vmap_pages_range_noflush vmap_range_noflush ioremap_page_range apply_to_page_range try_to_free_pte"
)
"""Functions that hold a page table for a while that no other table points to: just allocated, or just taken out."""

FAULT = "handle_mm_fault"
WAITS_OUTSIDE = named("handle_userfault migration_entry_wait migration_entry_wait_huge pmd_migration_entry_wait")
"""A page fault that waits in one of these has let go of everything: what it was about to do begins anew."""

WAITS = named("schedule schedule_timeout schedule_timeout_interruptible")

BY_FUNCTION: dict[str, tuple[int, ...]] = {}
"""Numbers in `WINDOWS` of the windows that each function opens."""

for _number, _window in enumerate(WINDOWS):
    for _name in _window.functions:
        BY_FUNCTION[_name] = (*BY_FUNCTION.get(_name, ()), _number)
