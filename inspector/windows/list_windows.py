"""Windows of work on what leads to folios: KSM, swap, page cache, address spaces and trees, hugetlb, statistics."""

from __future__ import annotations

from inspector.windows.gaps import from_gaps
from inspector.windows.window import FoliosWorkedOn, Scope, Window, effects, named

LIST_WINDOWS: tuple[Window, ...] = (
    Window(
        "W15",
        "KSM: merging, or taking pages apart",
        named(
            "ksm_do_scan ksm_scan_thread cmp_and_merge_page try_to_merge_one_page try_to_merge_with_ksm_page"
            " try_to_merge_two_pages stable_tree_insert stable_tree_append stable_tree_search break_ksm"
            " scan_get_next_rmap_item remove_stable_node unmerge_and_remove_all_rmap_items unmerge_ksm_pages"
            " __ksm_exit __ksm_enter ksm_disable ksm_enable_merge_any ksm_madvise run_store remove_all_stable_nodes"
        ),
        effects("", "ksm statistic rss"),
        Scope.SYSTEM,
        seen=True,
    ),
    Window(
        "W27",
        "KSM or khugepaged: an mm listed, its reference not yet taken",
        named("__ksm_enter ksm_madvise ksm_enable_merge_any __khugepaged_enter khugepaged_enter_vma"),
        effects("", "mm_count"),
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
        effects("", "swap page_cache statistic rss"),
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
        effects("", "page_cache statistic swap refcount hugetlb file_rmap"),
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
        effects("", "tables"),
        Scope.MM,
        seen=True,
    ),
    from_gaps("W19", "VMAs being changed: out of the trees for a moment", "expand_stack expand_stack_locked"),
    from_gaps("W28", "mprotect: the VMA has its new protection, not all of its entries do"),
    Window(
        "W20",
        "anon_vmas being built or torn down",
        named(
            "__anon_vma_prepare anon_vma_clone anon_vma_fork unlink_anon_vmas anon_vma_chain_link"
            " cleanup_partial_anon_vmas"
        ),
        effects("", "anon_rmap"),
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
        effects("page entire large", "hugetlb refcount tables page_cache statistic"),
        Scope.SYSTEM,
        folios=FoliosWorkedOn.HUGETLB,
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
        effects("pages_mapped", "statistic mm_ids"),
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
        effects("refcount"),
        Scope.SYSTEM,
    ),
    Window(
        "W24",
        "a memory cgroup goes offline: folios change their list",
        named("mem_cgroup_css_offline memcg_reparent_objcgs memcg_reparent_list_lrus reparent_state_local"),
        effects("", "statistic split_queue lru lru_sizes"),
        Scope.SYSTEM,
    ),
    Window(
        "W29",
        "split queues: a folio is put on one, taken off, or in the hands of the shrinker",
        named(
            "deferred_split_folio deferred_split_huge_page deferred_split_scan deferred_split_isolate"
            " folio_unqueue_deferred_split __folio_unqueue_deferred_split folio_undo_large_rmappable"
            " __folio_undo_large_rmappable free_transhuge_page __list_lru_add __list_lru_del list_lru_add"
            " list_lru_add_irq list_lru_isolate_move mem_cgroup_move_account"
        ),
        effects("", "split_queue large_folios"),
        Scope.SYSTEM,
    ),
    Window(
        "W29",
        "a folio is being split: off the queue, its links not cleared (before 6.9)",
        named("split_huge_page_to_list split_huge_page_to_list_to_order __split_huge_page"),
        effects("", "split_queue"),
        Scope.LOCKED_FOLIOS,
    ),
    Window(
        "W30",
        "mlock or munlock of a folio: PG_mlocked is changed, and counted behind it",
        named(
            "mlock_folio mlock_new_folio mlock_new_page __munlock_folio __munlock_page mlock_folio_batch mlock_pagevec"
            " munlock_folio munlock_vma_folio mlock_vma_folio mlock_vma_page free_pages_prepare __free_pages_prepare"
            " __page_cache_release folio_add_lru_vma folio_migrate_flags migrate_folio_move"
        ),
        effects("", "lru_sizes"),
        Scope.SYSTEM,
    ),
    Window(
        "W31",
        "a large anonymous folio is made, replaced, split or freed: counted before or after",
        named(
            "folio_add_new_anon_rmap page_add_new_anon_rmap do_anonymous_page map_anon_folio_pte_nopf"
            " map_anon_folio_pmd_nopf map_anon_folio_pmd_pf __do_huge_pmd_anonymous_page do_huge_pmd_anonymous_page"
            " do_swap_page wp_page_copy collapse_huge_page mthp_collapse folio_migrate_mapping __folio_migrate_mapping"
            " __migrate_folio migrate_folio migrate_folio_move __split_huge_page __split_unmapped_folio __folio_split"
            " __folio_freeze_and_split_unmapped split_huge_page_to_list_to_order free_pages_prepare"
            " __free_pages_prepare free_unref_page_prepare free_unref_folios free_unref_page free_frozen_pages"
            " __free_frozen_pages __folio_put folios_put_refs free_zone_device_folio"
        ),
        effects("", "large_folios"),
        Scope.SYSTEM,
    ),
    Window(
        "W30",
        "LRU lists: folios are put on one, taken off or moved, under lru_lock",
        named(
            "folio_batch_move_lru pagevec_lru_move_fn lru_add_fn lru_add __page_cache_release release_pages"
            " folios_put_refs page_cache_release folio_activate activate_page __lru_add_drain_all lru_add_drain_cpu"
            " isolate_lru_folios isolate_lru_pages move_folios_to_lru move_pages_to_lru shrink_inactive_list"
            " shrink_active_list isolate_folios scan_folios sort_folio isolate_folio evict_folios inc_min_seq"
            " inc_max_seq try_to_inc_min_seq reset_batch_size lru_gen_change_state fill_evictable drain_evictable"
            " isolate_migratepages_block folio_isolate_lru isolate_lru_page __mlock_folio __mlock_new_folio"
            " __munlock_folio mlock_folio_batch __mlock_page __mlock_new_page __munlock_page mlock_pagevec"
            " check_move_unevictable_folios check_move_unevictable_pages __split_huge_page __split_unmapped_folio"
            " __folio_freeze_and_split_unmapped __folio_split split_huge_page_to_list_to_order lru_add_split_folio"
            " lru_add_page_tail lru_note_cost lru_gen_reparent_memcg lru_reparent_memcg"
        ),
        effects("", "lru lru_sizes"),
        Scope.SYSTEM,
        spinning=True,
    ),
    Window(
        "W30",
        "a folio is about to be taken off its LRU list: PG_lru is cleared, the lock not taken yet",
        named(
            "folio_batch_move_lru pagevec_lru_move_fn folio_activate activate_page isolate_migratepages_block"
            " folio_isolate_lru isolate_lru_page __mlock_folio __munlock_folio mlock_folio_batch __mlock_page"
            " __munlock_page mlock_pagevec check_move_unevictable_folios check_move_unevictable_pages"
        ),
        effects("", "lru"),
        Scope.SYSTEM,
        folios=FoliosWorkedOn.IN_HAND,
    ),
    Window(
        "W30",
        "aging: folios are marked as of the youngest generation, and counted there later",
        named(
            "walk_mm walk_pte_range walk_pmd_range walk_pud_range lru_gen_look_around try_to_inc_max_seq"
            " lru_gen_age_node"
        ),
        effects("", "lru_sizes"),
        Scope.SYSTEM,
    ),
    Window(
        "W32",
        "page tables are being changed: MMU notifiers know that it begins, not yet that it ended",
        named(
            "__migrate_device_pages __mmu_notifier_invalidate_range_start __mmu_notifier_invalidate_range_end"
            " __mmu_notifier_release __oom_reap_task_mm __replace_page __split_huge_pmd __split_huge_pud"
            " __unmap_hugepage_range change_pmd_range change_pud_range change_protection clear_refs_write"
            " collapse_and_free_pmd collapse_huge_page collapse_pte_mapped_thp try_collapse_pte_mapped_thp"
            " copy_hugetlb_page_range copy_page_range do_huge_zero_wp_pmd do_huge_pmd_wp_page do_pagemap_scan"
            " hugetlb_change_protection hugetlb_unshare_pmds hugetlb_wp madvise_free_single_vma make_device_exclusive"
            " migrate_vma_collect move_hugetlb_page_tables move_page_tables move_pages_huge_pmd move_pages_pte"
            " move_pages_ptes page_make_device_exclusive_one page_vma_mkclean_one remove_device_exclusive_entry"
            " replace_page retract_page_tables try_to_migrate_one try_to_unmap_one try_to_unmap_poisoned_hugetlb_one"
            " unmap_hugepage_range unmap_vmas uprobe_write wp_clean_pre_vma wp_page_copy write_protect_page"
            " zap_page_range zap_page_range_single zap_vma_for_reaping zap_vma_range_batched"
        ),
        effects("", "notifiers"),
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
        effects("", "pages"),
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
        effects("", "pages"),
        Scope.SYSTEM,
        seen=True,
    ),
    from_gaps("W26", "mlock or munlock of a range: VM_IO is set until its pages are done"),
)
"""In the order of the catalogue."""
