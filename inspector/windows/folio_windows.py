"""Windows of work on folios and mappings: faults, unmapping, fork, mremap, migration, split, collapse, reclaim."""

from __future__ import annotations

from inspector.windows.gaps import from_gaps
from inspector.windows.window import Effect, FoliosWorkedOn, Scope, Way, Window, effects, named

_ADDED = effects(
    "page entire large pages_mapped refcount", "mm_ids rss statistic tables cover entries protection hugetlb"
)
"""An entry is about to be written, or was just cleared: counts are ahead of the page tables, their sums anywhere."""

_MIGRATED = effects(
    "page entire large pages_mapped", "mm_ids statistic entries hugetlb swap page_cache anon_rmap ksm refcount"
)
"""A migration entry takes the place of a mapping and gives it back (mm/rmap.c, try_to_migrate_one(); mm/migrate.c,
remove_migration_pte(), set_pmd_migration_entry() and its reverse): it counts in rss as the page did, and no page table
comes or goes. Splitting a PMD for it is W10, an entry just cleared W2."""


def _without_tables(some: dict[Effect, Way]) -> dict[Effect, Way]:
    return {effect: way for effect, way in some.items() if effect is not Effect.TABLES}


FOLIO_WINDOWS: tuple[Window, ...] = (
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
        folios=FoliosWorkedOn.IN_HAND,
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
        _ADDED | effects("", "swap"),
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
        _ADDED | effects("", "swap"),
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
        folios=FoliosWorkedOn.FILE,
    ),
    Window(
        "W3",
        "unmapped pages wait for a TLB flush (mmu_gather)",
        named(
            "unmap_vmas unmap_region vms_clear_ptes zap_page_range_single zap_page_range_single_batched exit_mmap"
            " tlb_finish_mmu tlb_flush_mmu __zap_vma_range zap_pte_range unmap_page_range madvise_dontneed_free"
            " tlb_batch_pages_flush __tlb_batch_free_encoded_pages"
        ),
        effects("refcount", "tables"),
        Scope.MM,
        seen=True,
    ),
    Window(
        "W4",
        "fork: an entry of the child counted, not yet written",
        named("copy_pte_range copy_present_ptes copy_present_pte copy_huge_pmd copy_huge_pud copy_page_range"),
        _ADDED | effects("", "swap"),
        Scope.MM,
        spinning=True,
        folios=FoliosWorkedOn.IN_HAND,
    ),
    from_gaps("W4", "fork: the child's address space is being built", "copy_present_ptes copy_present_pte"),
    from_gaps("W5", "exec: the new address space is being built, its arguments charged to the old one", ""),
    from_gaps("W6", "exit or munmap: VMAs gone from the reverse maps before their page tables are", ""),
    Window(
        "W7",
        "moving entries to another place: in neither, counted",
        named(
            "move_ptes move_huge_pmd move_huge_pud move_normal_pmd move_normal_pud move_pages_pte move_present_ptes"
            " move_present_pte move_swap_pte move_pages_huge_pmd move_page_tables move_pages move_hugetlb_page_tables"
        ),
        _ADDED | effects("", "swap anon_rmap"),
        Scope.MM,
        spinning=True,
    ),
    from_gaps("W7", "mremap or UFFDIO_MOVE: the old and the new place both exist", ""),
    Window(
        "W8",
        "collapse: the page table is taken out, its entries still counted",
        named(
            "collapse_huge_page __collapse_huge_page_copy __collapse_huge_page_copy_succeeded"
            " __collapse_huge_page_copy_failed __collapse_huge_page_isolate mthp_collapse"
        ),
        _ADDED | effects("tables", "swap anon_rmap"),
        Scope.MM,
        seen=True,
        write_locked=True,
    ),
    Window(
        "W8",
        "collapse: pages are swapped in",
        named("__collapse_huge_page_swapin"),
        _without_tables(_ADDED) | effects("", "swap anon_rmap"),
        Scope.MM,
    ),
    Window(
        "W9",
        "collapse of a file: the new folio in the cache, the old ones still of the file",
        named("collapse_file collapse_scan_file hpage_collapse_scan_file khugepaged_scan_file"),
        effects("page", "page_cache statistic swap refcount pages"),
        Scope.SYSTEM,
        seen=True,
        folios=FoliosWorkedOn.FILE,
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
        "splitting a PMD: counted down as a whole before the page table takes its place",
        named(
            "__split_huge_pmd_locked split_huge_pmd_locked __split_huge_pmd split_huge_pmd_address"
            " split_huge_pmd_if_needed __split_huge_pud_locked __split_huge_pud __split_huge_zero_page_pmd"
        ),
        _ADDED | effects("", "doubly_mapped entire large pages_mapped"),
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
        _ADDED | effects("", "swap page_cache pages anon_rmap refcount"),
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
            " buffer_migrate_folio compact_zone migrate_misplaced_folio migrate_misplaced_page"
        ),
        _MIGRATED,
        Scope.LOCKED_FOLIOS,
        seen=True,
    ),
    Window(
        "W12",
        "migration to or from a device: the new folio's entry and table are installed",
        named(
            "migrate_vma_pages migrate_vma_setup migrate_vma_finalize migrate_device_pages __migrate_device_pages"
            " migrate_vma_insert_page migrate_vma_insert_huge_pmd_page"
        ),
        _MIGRATED | effects("", "rss tables"),
        Scope.LOCKED_FOLIOS,
    ),
    Window(
        "W13",
        "reclaim: isolated, unmapped, leaving the cache step by step",
        named(
            "shrink_folio_list shrink_page_list __remove_mapping remove_mapping reclaim_folio_list reclaim_page_list"
            " reclaim_pages pageout shrink_lruvec evict_folios try_to_unmap add_to_swap try_to_free_swap"
            " madvise_cold_or_pageout_pte_range free_swap_cache"
        ),
        effects("page entire large pages_mapped", "mm_ids rss statistic refcount entries swap page_cache"),
        Scope.LOCKED_FOLIOS,
        seen=True,
    ),
)
"""In the order of the catalogue."""
