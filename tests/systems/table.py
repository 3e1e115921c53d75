"""The 29 systems: each thing to show, to check and to find, with the command that shows it and the faults planted.

Rules are not named here: they are those that find the faults.
"""

from __future__ import annotations

from tests.systems.clause import System, bad, check, show

SYSTEMS = (
    System(
        "S1",
        "identity of folios, compound pages",
        (
            show("from a page frame number to struct page, head, index in the folio, order and size", "folio", "page"),
            show("what a page is typed as, and the head or tail bits of each page", "page"),
            show(
                "whether the tail pages of a hugetlb folio are optimised away, and which heads are fake",
                "page",
                "hugetlb",
            ),
            check("every tail leads to its head", "tail-pointing-to-a-foreign-head"),
            check(
                "tails behind the first ones hold the poison of tails",
                "tail-mapping-overwritten",
                "tail-of-hugetlb-without-tail-mapping",
                "far-tail-of-hugetlb-without-tail-mapping",
                "tail-of-optimised-hugetlb-without-tail-mapping",
            ),
            check("order and cached size agree with the extent of the tails", "order-of-a-folio-changed"),
            check(
                "a fake head leads to the real one; 7.x has none",
                "tail-of-optimised-hugetlb-without-tail-mapping",
                "tail-pointing-to-a-foreign-head",
            ),
            bad("a tail that points to another head", "tail-pointing-to-a-foreign-head"),
            bad(
                "flags of a head on a tail",
                "tail-on-the-lru",
                "first-tail-marked-as-swapbacked",
                "tail-of-hugetlb-dirtied",
            ),
            bad("the order of a head is not the extent of its tails", "order-of-a-folio-changed"),
            bad(
                "a writable alias of a shared page of tail struct pages",
                "shared-struct-pages-made-writable",
                see=("page",),
            ),
        ),
    ),
    System(
        "S2",
        "mapped as a whole",
        (
            show("the entire mapcount, the word of mapped pages raw and split into its two parts", "folio", "explain"),
            check(
                "the entire mapcount is the number of huge entries, less one",
                "entire-mapcount-of-an-anon-thp-raised",
                "entire-mapcount-of-a-shmem-thp-raised",
                "entire-mapcount-lowered",
                see=("folio",),
            ),
            check(
                "the word of mapped pages is the pages that PTEs map, and the mark of a whole mapping",
                "nr-pages-mapped-raised",
                "entirely-mapped-bit-turned",
                see=("folio",),
            ),
            check("no more pages are counted than the folio has", "nr-pages-mapped-raised"),
            check("what huge entries map has the size of a PMD, or a PUD", "pmd-to-small-pages"),
            bad("the mark of a whole mapping without one, or one without the mark", "entirely-mapped-bit-turned"),
            bad("the mark twice or more at rest, or a negative word", "entirely-mapped-bit-turned"),
            bad("an entire mapcount on a folio that no huge entry can map", "entire-mapcount-of-an-mthp-raised"),
        ),
    ),
    System(
        "S3",
        "mapcounts rebuilt from the page tables",
        (
            show(
                "stored beside rebuilt for each page, with every process, VMA, address, level and entry",
                "folio",
                "explain --all",
            ),
            check(
                "small pages: the mapcount is the number of entries, less one",
                "mapcount-of-a-private-page-raised",
                "mapcount-of-a-shared-file-page-lowered",
                see=("folio",),
            ),
            check(
                "large folios: each count by the formula of its kernel",
                "mapcount-of-a-thp-subpage-raised",
                "large-mapcount-raised",
                "mm-id-slot-raised",
                "counts-of-a-thp-raised-together",
                see=("folio",),
            ),
            check(
                "the rmap walk and the walk of all page tables find the same",
                "file-vma-out-of-its-tree",
                "folio-given-to-a-foreign-anon-vma",
                see=("rmap --all",),
            ),
            bad(
                "an entry in an mm that the reverse map does not lead to",
                "file-vma-out-of-its-tree",
                "vma-lost-from-its-tree",
                see=("rmap --all",),
            ),
            bad("a count too high: the folio is never freed", "ghost-mapping", "only-pte-of-a-page-lost"),
            bad("a count too low: freed while it is mapped", "partial-mapping-miscounted-by-a-neighbour"),
            bad(
                "a mapcount below -1, or a page type in that of a mapped page",
                "top-byte-of-a-mapcount-made-a-page-type",
            ),
        ),
    ),
    System(
        "S4",
        "rmap operations as a model",
        (
            show("an operation by name on a captured folio, with each field that it changes", "explain --op"),
            show("the shortest operations that lead from sound counts to those stored", "check", "folio"),
            show("the shortest operations that lead from one capture to the next", "compare"),
            check(
                "the model's operations leave the counts that are expected of the page tables",
                "mapcount-of-a-private-page-raised",
                "large-mapcount-raised",
                "counts-of-a-thp-raised-together",
                see=("compare",),
            ),
            bad(
                "an operation that the kernel forbids in that state",
                "folio/test_what_if.py::test_what_the_kernel_forbids_is_refused",
                see=("explain --op",),
                reason="partly: refused where it is tried; a dump does not hold past operations",
            ),
        ),
    ),
    System(
        "S5",
        "generations of the kernel's accounting",
        (
            show("names of operations and counters, old and new", "explain --op", "manual"),
            show("the scheme found and the members that it was found by", "info"),
            check(
                "the scheme is chosen by the members that structs have, never by the version",
                "unit/test_config.py::test_kernel_without_thp",
                reason="partly: of a target, not of its counts; no rule runs where it is not known",
            ),
            bad(
                "mixed evidence",
                reason="legal: a backported kernel; the scheme is unknown, and rules of one scheme do not apply",
            ),
        ),
    ),
    System(
        "S6",
        "hugetlb's own accounting",
        (
            show("sizes of pools, folios, VMAs, shared PMD tables and their sharers", "hugetlb"),
            show("entries, entire mapcount and exclusivity of a hugetlb folio", "folio", "explain"),
            show("the mark that a folio's reservation is to be restored", "hugetlb"),
            check(
                "the entire mapcount counts the slots of page tables, a shared table once",
                "entire-mapcount-of-a-hugetlb-folio-raised",
                "sharers-of-a-hugetlb-table-miscounted",
                see=("hugetlb",),
            ),
            check(
                "no page has a mapcount of its own, and the word of mapped pages is 0",
                "hugetlb-folio-with-a-mapped-pages-word",
            ),
            check(
                "hugetlb adds to no rss and to no counter of mapped memory; the mm has a count of its own",
                "hugetlb-usage-of-a-process-miscounted",
                "total-of-mapped-file-pages-raised",
            ),
            check(
                "mm ids stay unused, and the folio is on no split queue",
                "hugetlb-folio-with-a-mapped-pages-word",
                "file-folio-on-a-split-queue",
                reason="partly: a folio of files is planted on a queue, and not one of hugetlb",
            ),
            check(
                "pools: free, reserved, surplus and the lists of nodes",
                "free-hugetlb-folios-miscounted",
                "hugetlb-folios-of-a-node-miscounted",
                "surplus-hugetlb-folios-miscounted",
                "reserved-hugetlb-folios-never-returned",
                "reserved-hugetlb-folios-underflowed",
                see=("hugetlb",),
            ),
            bad(
                "a cached folio whose reservation is to be restored",
                "reservation-of-a-cached-hugetlb-folio-given-back-again",
            ),
            bad("an entry of another VMA that maps a hugetlb folio", "pte-to-a-hugetlb-folio"),
            bad("a swap entry in a hugetlb VMA", "swap-entry-in-a-hugetlb-vma"),
            bad(
                "entire mapcount and entries differ",
                "entire-mapcount-of-a-hugetlb-folio-raised",
                "sharer-of-a-hugetlb-table-forgotten",
            ),
            bad(
                "the exclusive bit of a shared folio, or on a tail",
                "shared-hugetlb-folio-marked-exclusive",
                "tail-of-hugetlb-exclusive",
            ),
        ),
    ),
    System(
        "S7",
        "contiguous entries of arm64",
        (
            show("sets of contiguous entries as one", reason="absent: page tables of x86-64 alone are read"),
            check("sets are whole, consecutive and alike", reason="absent: x86-64 has no such entries"),
            bad("the bit on a part of a set", reason="absent: x86-64 has no such entries"),
        ),
    ),
    System(
        "S8",
        "from page offset to address",
        (
            show(
                "the address of a page in a VMA by its offset",
                "rmap",
                "va",
                reason="partly: the sum is shown as its result, and not with its operands and limits",
            ),
            check(
                "each mapping is where the offset of its page says, by the offset that counts for its kind",
                "index-of-a-private-page-shifted",
                "index-of-a-file-page-shifted",
                "offset-of-an-anonymous-vma-shifted",
                "offset-of-a-file-vma-shifted",
                "two-offsets-of-an-anonymous-vma-apart",
            ),
            check("ranges end with the VMA and begin with it", "end-of-a-vma-moved"),
            bad("a page taken for its folio", "index-of-a-file-page-shifted", see=("va",)),
            bad("KSM pages judged by an index", "ksm-item-given-to-another-process", "address-of-a-ksm-item-wrong"),
            bad("the other kind of offset on 7.x", "anonymous-offset-of-an-unfaulted-vma-shifted"),
        ),
    ),
    System(
        "S9",
        "the anon_vma of a folio",
        (
            show("tag, anon_vma, root, parent, references and counters", "rmap", "anon-vma --of"),
            show("whether it is the VMA's own or an ancestor's", "anon-vma --of"),
            check(
                "one root for the folio and each VMA that maps it, which has the anon_vma in its chains",
                "folio-given-to-a-foreign-anon-vma",
                "root-of-an-anon-vma-replaced",
                "faults/test_rules_alone.py::folio_given_to_a_foreign_anon_vma",
            ),
            check("the tag says anonymous or KSM", "tag-of-an-anonymous-mapping-lost"),
            check("a mapped folio's anon_vma has references", "references-of-an-anon-vma-too-few"),
            check("the index of S8 for each mapping", "index-of-a-forked-page-shifted"),
            bad(
                "an anon_vma that was freed or given to another",
                "mapping-word-of-an-anonymous-page-wiped",
                "swapped-in-page-of-another-slot",
            ),
            bad("different roots", "root-of-an-anon-vma-replaced"),
            bad("an index that differs", "index-of-a-private-page-shifted"),
            bad("the anonymous tag on a page of the page cache", "page-of-a-file-marked-as-anonymous"),
        ),
    ),
    System(
        "S10",
        "anon_vma trees and chains",
        (
            show("anon_vmas as a tree; the interval tree of one with ranges, VMAs and processes", "anon-vma"),
            show(
                "the list of chains of one VMA",
                "anon-vma",
                reason="partly: chains are listed by anon_vma, and not by VMA",
            ),
            check(
                "the interval tree: order, bounds of subtrees",
                "subtree-last-of-a-leaf-wrong",
                "subtree-last-of-a-top-wrong",
                see=("anon-vma",),
                reason="partly: colours are shown, and no rule asks for them",
            ),
            check(
                "each chain is in the tree of its anon_vma and on the list of its VMA",
                "chain-unlinked-from-its-tree",
                "idle-chain-unlinked-from-its-tree",
                "list-of-chains-emptied",
            ),
            check(
                "active VMAs and children are counted",
                "users-of-an-anon-vma-miscounted",
                "children-of-an-anon-vma-miscounted",
            ),
            check("the root of a parent is one's own", "root-of-an-anon-vma-replaced"),
            check("references are enough", "references-of-an-anon-vma-too-few"),
            bad("a circle", "list-of-chains-in-a-circle", "tree-of-an-anon-vma-in-a-circle"),
            bad(
                "a chain is missing: rmap does not find a mapping", "chain-unlinked-from-its-tree", see=("rmap --all",)
            ),
            bad("an empty anon_vma with active VMAs", "users-of-an-anon-vma-miscounted"),
            bad(
                "chains without bound, as many forks leave them",
                see=("anon-vma",),
                reason="legal: slow and no fault; the command shows depth and width of a family",
            ),
        ),
    ),
    System(
        "S11",
        "reverse map of files",
        (
            show("the address_space, its VMAs over a range, writable mappings, entries by VMA", "file", "rmap"),
            check("order and bounds of the tree", "bound-of-a-file-tree-wrong"),
            check("each VMA of the tree is of this file", "file-of-a-mapped-vma-forgotten"),
            check("each mapping is in a VMA that the tree leads to", "file-vma-out-of-its-tree"),
            check("indexes of large folios are multiples of their size", "index-of-a-cached-folio-shifted"),
            bad(
                "a truncated page that is still mapped",
                "mapped-file-page-truncated",
                "mapped-beyond-the-end-of-its-file",
            ),
            bad("a VMA of another file", "file-page-given-to-another-file"),
            bad(
                "an anonymous page in a shared VMA",
                "faults/test_exclusive_faults.py::test_anonymous_page_in_a_shared_vma",
            ),
        ),
    ),
    System(
        "S12",
        "UFFDIO_MOVE",
        (
            show("contexts, registered VMAs and modes", "uffd"),
            show("whether a folio can be moved, and if not, why", "explain", "va"),
            show("mapping, index and address before and after", "compare"),
            check(
                "a moved page has the index and anon_vma of where it is mapped; exclusive where writable",
                "index-of-a-private-page-shifted",
                "folio-given-to-a-foreign-anon-vma",
                "written-page-no-longer-exclusive",
            ),
            check("moved swap entries and their cached folios agree", "index-of-a-swap-cache-folio-shifted"),
            check(
                "contexts and flags of VMAs agree", "userfaultfd-of-a-vma-forgotten", "userfaultfd-of-another-process"
            ),
            bad("the page is reachable by both VMAs", "shared-page-marked-exclusive"),
            bad("another root than the new VMA's", "folio-given-to-a-foreign-anon-vma"),
            bad("the index of where it was", "index-of-a-private-page-shifted"),
        ),
    ),
    System(
        "S13",
        "exclusive anonymous pages",
        (
            show("page by page: exclusive, maybe shared, left over", "explain"),
            show("the bit in swap and migration entries", "swap", "va"),
            check(
                "an exclusive page is mapped once",
                "shared-page-marked-exclusive",
                "shared-page-taken-for-exclusive-and-written",
            ),
            check(
                "under a huge entry only the head has the bit",
                "faults/test_exclusive_faults.py::test_exclusive_bit_on_a_tail_under_a_pmd",
            ),
            check("of hugetlb only the head has it", "tail-of-hugetlb-exclusive"),
            check(
                "writable anonymous entries map exclusive pages",
                "entry-of-a-shared-page-made-writable",
                "written-page-no-longer-exclusive",
            ),
            check(
                "exclusive swap entries are the only ones of their slot",
                "swap-entry-of-a-shared-slot-exclusive",
                see=("swap",),
            ),
            bad(
                "exclusive and mapped twice, or by two processes",
                "shared-page-marked-exclusive",
                "faults/test_exclusive_faults.py::test_exclusive_bit_on_a_shared_page",
            ),
            bad("writable and not exclusive", "entry-of-a-shared-page-made-writable"),
            bad(
                "exclusive tail of a THP under a PMD",
                "faults/test_exclusive_faults.py::test_exclusive_bit_on_a_tail_under_a_pmd",
            ),
            bad("exclusive KSM page", "ksm-page-marked-exclusive"),
        ),
    ),
    System(
        "S14",
        "pins and references",
        (
            show("pins, and references expected beside stored with their holders", "explain", "references"),
            show("whether a process ever pinned", "ps"),
            check(
                "references are at least those of mappings, caches and private data",
                "refcount-below-mapcount",
                "references-of-a-thp-below-its-mappings",
                "reference-of-a-cached-folio-lost",
                "reference-of-a-large-cached-folio-lost",
                see=("references",),
            ),
            check("pinned anonymous pages are exclusive", "pinned-page-no-longer-exclusive", "shared-page-pinned"),
            check("pins are references", "pins-above-references"),
            check(
                "pins taken less pins given back are the pins of the pages, by node",
                "pins-given-back-twice",
                "pin-of-a-large-folio-lost",
                see=("memory",),
            ),
            bad("fewer references than mappings", "refcount-below-mapcount"),
            bad("pinned and not exclusive", "shared-page-pinned"),
            bad("a process that pinned and is said to have never", "process-that-pinned-pages-said-to-have-never"),
            bad(
                "a page shared by fork that had to be copied",
                "shared-page-pinned",
                reason="partly: as the state that it leaves, a pinned page without the exclusive bit",
            ),
        ),
    ),
    System(
        "S15",
        "large folios by size",
        (
            show("by kind and order: mapped whole, by PTEs, in part, not at all; swap cache, mlocked", "mthp"),
            show("VMA by VMA: whole or in part, aligned or not, what arm64 could hold in one TLB entry", "mthp --vmas"),
            show("by memory cgroup and node", "mthp --memcgs"),
            show("policy of each size, and the kernel's own counts", "mthp"),
            check(
                "only folios of a PMD's size are mapped as a whole",
                "entire-mapcount-of-an-mthp-raised",
                "pmd-to-small-pages",
            ),
            check(
                "the counts by order are the folios",
                "faults/test_lru_faults.py::test_count_of_large_folios",
                see=("mthp",),
            ),
            bad("a huge entry that leads into a smaller folio", "pmd-to-small-pages"),
            bad("the counter of mapped THPs counts smaller ones", "total-of-mapped-thps-raised"),
        ),
    ),
    System(
        "S16",
        "split queues",
        (
            show("queued folios by size, what is mapped of them and what splitting frees", "mthp"),
            show("each queue with its members", "mthp --memcgs"),
            check(
                "length and members agree",
                "faults/test_lru_faults.py::test_length_of_a_split_queue",
                "faults/test_lru_faults.py::test_length_of_a_node_beside_its_lists",
            ),
            check(
                "members are large anonymous folios, on the queue of their memory cgroup and node",
                "file-folio-on-a-split-queue",
                "split-queue-leads-to-a-small-page",
                "faults/test_lru_faults.py::test_queued_folio_of_another_memory_cgroup",
            ),
            check(
                "what is marked as mapped in part is queued and counted",
                "partially-mapped-folio-off-the-queue",
                "faults/test_lru_faults.py::test_count_of_large_folios",
            ),
            bad(
                "a queue that leads to freed memory or to a small page",
                "split-queue-leads-to-poison",
                "split-queue-leads-to-a-small-page",
                "bit-of-a-split-queue-flipped",
                "queued-folio-that-only-its-neighbours-know",
            ),
            bad(
                "a folio mapped in part that is on no queue",
                "partially-mapped-folio-off-the-queue",
                see=("mthp",),
                reason="partly: where the kernel marked it; without the mark it is legal after fork or swap-in",
            ),
        ),
    ),
    System(
        "S17",
        "mlock",
        (
            show(
                "mlocked folios by size; VMAs with VM_LOCKED",
                "mthp",
                "vmas",
                reason="partly: whether a folio is inside a locked VMA or crosses its end is not listed",
            ),
            show("mlock_count and the batches of CPUs", "page", "cpus"),
            check("mlocked pages by zone are counted", "mlocked-pages-miscounted", see=("memory",)),
            check(
                "pages of locked VMAs are mlocked",
                reason="undecidable: mlock marks pages by batches and by try-lock, and a fault may map one unmarked",
            ),
            check("mlocked folios are unevictable", "mlocked-flag-of-an-evictable-folio", "unevictable-flag-lost"),
            check("locked VMAs add up to the mm's locked_vm", "locked-vm-raised", see=("vmas",)),
            bad(
                "mlocked without a locked VMA",
                reason="undecidable: the flag may stay until reclaim finds the folio, after the last munlock",
            ),
            bad(
                "a mlocked page on an evictable list",
                "mlocked-flag-of-an-evictable-folio",
                "unevictable-flag-on-a-list",
            ),
        ),
    ),
    System(
        "S18",
        "counters of nodes, zones and memory cgroups",
        (
            show(
                "each counter stored beside rebuilt, node by node and zone by zone",
                "memory",
                reason="partly: slabs from 7.x on, where large kmalloc() is marked; kernel stacks of the machine",
            ),
            show("memory cgroups: stored beside rebuilt, node by node, and what keeps removed ones", "memcg"),
            check(
                "usage of each memory cgroup is what is charged to it, its swap the slots that name it",
                "faults/test_memcg_faults.py::test_usage",
                "faults/test_memcg_faults.py::test_kernel_memory_counted_twice",
                "faults/test_memcg_faults.py::test_slot_that_lost_its_reference",
                see=("memcg",),
            ),
            check(
                "what each memory cgroup counts on each node",
                "faults/test_memcg_faults.py::test_statistic_of_a_memory_cgroup_alone",
                "faults/test_memcg_faults.py::test_cached_pages_of_a_memory_cgroup",
                see=("memcg",),
                reason="partly: mapped memory is shown beside rebuilt, and only its sums over nodes are checked; before"
                " 7.x of cached pages the swap cache alone, for a collapse leaves counts where they were",
            ),
            check(
                "mapped memory of the machine",
                "total-of-mapped-anonymous-pages-raised",
                "total-of-mapped-file-pages-raised",
                "total-of-mapped-thps-raised",
                "total-of-huge-mapped-shmem-lowered",
                "total-of-huge-mapped-files-raised",
                see=("memory",),
            ),
            check(
                "mapped memory of each node",
                "share-of-a-node-raised",
                "faults/test_lru_faults.py::test_counters_of_two_nodes_whose_sum_is_right",
                see=("memory",),
            ),
            check(
                "cached memory of the machine",
                "total-of-cached-pages-raised",
                "total-of-huge-cached-shmem-raised",
                "total-of-huge-cached-files-lowered",
            ),
            check(
                "cached memory of each node",
                "share-of-a-node-in-the-swap-cache-raised",
                "share-of-a-node-in-cached-pages-raised",
                "faults/test_lru_faults.py::test_other_counters_of_two_nodes_whose_sum_is_right",
                see=("memory",),
                reason="partly: before 7.x the swap cache alone, for a collapse leaves counts on the old node",
            ),
            check("page tables of each node", "page-tables-of-a-node-miscounted", see=("memory",)),
            check(
                "LRU lists of each zone and node",
                "file-pages-on-lru-lists-miscounted",
                "faults/test_lru_faults.py::test_counter_of_a_list_of_one_node",
                "faults/test_lru_faults.py::test_size_of_a_list",
                see=("memory",),
            ),
            check(
                "free pages of each zone",
                "free-pages-of-a-zone-miscounted",
                "number-of-free-blocks-raised",
                see=("memory",),
            ),
            bad("counters beyond what the CPUs have not folded in", "total-of-mapped-anonymous-pages-raised"),
            bad(
                "pages charged to a memory cgroup that is freed",
                "faults/test_memcg_faults.py::test_folio_charged_to_a_memory_cgroup_that_was_freed",
            ),
            bad("negative totals", "total-of-mapped-anonymous-pages-lowered"),
            bad("mapped THPs that are no multiple of a huge page", "total-of-mapped-thps-raised"),
        ),
    ),
    System(
        "S19",
        "rss",
        (
            show("memory of each mm by kind, and of each VMA", "ps", "vmas"),
            check(
                "stored rss is that of the page tables, by kind, the parts of CPUs and tasks added",
                "rss-raised",
                "rss-of-files-off-by-a-huge-page",
                "rss-swapped-between-kinds",
                see=("ps",),
            ),
            bad("a difference beyond the batches", "rss-raised", "swap-counter-in-the-words-of-another-mm"),
        ),
    ),
    System(
        "S20",
        "swap cache",
        (
            show("the swap entry of a folio, slots with their counts, and who refers to them", "swap", "folio"),
            check(
                "slots of a cached folio follow one another from its entry",
                "swap-entry-of-a-cached-folio-wrong",
                "swap-cache-slot-given-to-another-folio",
                see=("swap",),
            ),
            check(
                "the private word of tails",
                "swap-entry-of-a-cached-folio-wrong",
                reason="partly: that of the head; of tails only where entries lead to them",
            ),
            check("cached anonymous folios are swap-backed", "lazyfree-folio-in-the-swap-cache"),
            check(
                "counts of slots are their entries",
                "swap-count-raised",
                "swap-count-lowered",
                "swap-count-of-a-cached-slot-raised",
                see=("swap",),
            ),
            bad("a swap entry whose slot is unused", "last-swap-count-lost"),
            bad("two folios for one slot", "swap-cache-slot-given-to-another-folio"),
            bad(
                "a private word on a tail",
                reason="not yet: no table has private of tails; 6.12 and 7.x want zero but for the first tail of 7.x "
                "(mm ids) and for hugetlb, 6.1 each page's entry in the swap cache",
            ),
        ),
    ),
    System(
        "S21",
        "non-present entries",
        (
            show("kind, target, offset and bits of each entry", "va"),
            check(
                "migration, device and poison entries lead to such pages",
                "migration-entry-to-a-free-page",
                "faults/test_swap_faults.py::test_poison_entry_to_a_sound_page",
                see=("va",),
            ),
            check("targets of migration entries are locked", "migration-entry-left-behind"),
            check(
                "markers are in VMAs that may hold them",
                "faults/test_swap_faults.py::test_markers_in_a_vma_that_nobody_watches",
            ),
            bad("a migration entry to an unlocked folio", "migration-entry-left-behind"),
            bad("a poison entry to a sound page", "faults/test_swap_faults.py::test_poison_entry_to_a_sound_page"),
            bad(
                "a marker or a bit that this kernel does not have",
                "marker-with-an-unknown-mark",
                "swap-entry-with-a-bit-without-meaning",
            ),
            bad(
                "swap entries beyond their device",
                "swap-entry-beyond-the-device",
                "swap-entry-of-a-device-that-is-not-there",
            ),
        ),
    ),
    System(
        "S22",
        "migration in flight",
        (
            show(
                "present and migration entries of a folio, side by side",
                "folio",
                "windows",
                reason="partly: mappings are listed; migration entries are with va",
            ),
            check(
                "counts are those of present entries alone",
                "mapcount-of-a-private-page-raised",
                "oracle/test_stopped.py::test_migration_entries_of_every_kind",
            ),
            check(
                "the exclusive bit of a migration entry is that of its page",
                "faults/test_rules_alone.py::exclusive_migration_of_a_file_page",
            ),
            bad("migration entries of an unlocked folio", "migration-entry-left-behind"),
            bad(
                "a writable migration entry of a shared page",
                "faults/test_rules_alone.py::exclusive_migration_of_a_file_page",
            ),
        ),
    ),
    System(
        "S23",
        "splitting a PMD",
        (
            show(
                "the state of a PMD, and how many tables are deposited",
                "va",
                "windows",
                reason="partly: va decodes the entry; deposits are counted by rules",
            ),
            check(
                "in a split counts may differ only while a task splits",
                "faults/test_windows.py::test_an_entire_count_too_low_is_in_flight_only_where_somebody_splits",
            ),
            check(
                "tables are deposited for each huge anonymous entry",
                "deposited-table-forgotten",
                "deposited-table-left-out",
                "table-deposited-without-need",
            ),
            check("the mark of a double mapping", "double-map-flag-turned"),
            bad(
                "the state of a split with nobody at it",
                "double-map-flag-turned",
                "pmd-of-a-thp-lost",
                "entire-mapcount-lowered",
            ),
        ),
    ),
    System(
        "S24",
        "deferred TLB flushes",
        (
            show("generations of each mm, and tasks with a pending flush", "ps", "cpus"),
            check(
                "flushed is not above pending, and both are in range",
                "flushed-tlb-generation-above-the-pending-one",
                "pending-tlb-generation-beyond-its-end",
                "tlb-generation-with-a-stray-bit",
                see=("ps",),
            ),
            check("writable only with a flush required", "task-that-forgot-a-tlb-flush", see=("cpus",)),
            bad(
                "a task outside reclaim with a flush pending",
                reason="undecidable: it may have just left; only a running task's stack would say",
            ),
            bad("a freed page that a TLB still holds", reason="undecidable: a memory image does not hold the TLBs"),
        ),
    ),
    System(
        "S25",
        "MMU notifiers",
        (
            show("subscriptions with the names of their callbacks, changes under way, ranges", "notifiers"),
            check(
                "no change is under way at rest",
                "invalidation-that-never-ended",
                "invalidation-ended-twice",
                see=("notifiers",),
            ),
            check("the sequence is odd only while there is one", "sequence-left-odd"),
            check(
                "callbacks are in the kernel or in a loaded module",
                "notifier-without-callbacks",
                "notifier-of-a-module-that-is-gone",
            ),
            bad("a change that never ends", "invalidation-that-never-ended"),
            bad(
                "a subscription of an mm that is gone, or freed",
                "notifier-of-another-mm-on-the-list",
                "notifier-freed-and-left-on-the-list",
                "notifier-dropped-once-too-often",
            ),
        ),
    ),
    System(
        "S26",
        "page-table entries",
        (
            show("raw and decoded, with the bits that no kernel writes", "va"),
            check(
                "each bit of an entry has a meaning there",
                "entry-with-a-bit-that-nothing-uses",
                "huge-entry-with-an-address-below-its-size",
                "upper-table-entry-without-the-accessed-bit",
            ),
            check(
                "protection and caching are those of the VMA",
                "entry-made-executable",
                "entry-closed-to-user-space",
                "entry-of-another-protection-key",
                "memory-not-cached",
            ),
            bad("reserved bits", "entry-with-a-bit-that-nothing-uses", "malformed-top-entry"),
            bad(
                "an entry to no struct page that is not special",
                "pte-beyond-memory",
                "entry-of-an-anonymous-page-marked-special",
            ),
        ),
    ),
    System(
        "S27",
        "locks",
        (
            show("who holds a VMA's lock", "vmas"),
            show("who is at work on what: tasks in windows, CPUs, who waits for a folio", "windows", "cpus", "explain"),
            show(
                "holders and waiters of mmap_lock, i_mmap_rwsem and rwsems of anon_vmas",
                "rmap",
                reason="partly: a lock that is held is marked as such; holders are found for VMA locks and folio locks",
            ),
            check(
                "write-locked VMAs have a write-locked mm",
                "vma-marked-as-write-locked-under-an-unlocked-mm",
                "mm-whose-sequence-was-not-ended",
            ),
            check(
                "readers of a VMA are tasks that can be",
                "vma-read-locked-by-nobody",
                "vma-that-a-writer-waits-for-who-is-gone",
            ),
            check("a VMA in its tree is attached", "vma-marked-as-detached"),
            check(
                "locked folios and folios under writeback have somebody at work",
                "anonymous-page-left-locked",
                "anonymous-page-left-under-writeback",
            ),
            bad("sequence numbers that never fit", "vma-with-a-sequence-number-that-no-writer-has"),
            bad(
                "an empty PMD under a reader's lock",
                reason="legal: a fault fills it; only its content would show that something was there",
            ),
        ),
    ),
    System(
        "S28",
        "from process and address to page",
        (
            show("VMA, each level, entry, folio, page and all other mappings", "va"),
            check(
                "the VMA is the one at this address",
                "pte-where-no-vma-is",
                "vma-lost-from-its-tree",
                "end-of-a-vma-moved",
            ),
            check("the page is counted as mapped there", "one-pte-of-a-shared-file-page-lost", see=("va",)),
            bad("a page where no VMA is", "pte-where-no-vma-is", "swap-entry-where-no-vma-is"),
            bad(
                "a tree of VMAs that changes while it is read",
                "tree-of-vmas-in-a-circle",
                reason="partly: of a stopped kernel; of one that runs on, findings of one look alone are dropped",
            ),
        ),
    ),
    System(
        "S29",
        "how folios begin",
        (
            show(
                "folios as they are after a fault, swap-in, copy or collapse: what may have made each",
                "explain",
                "explain --births",
            ),
            check(
                "new anonymous folios are up to date, with the anon_vma and index of where they are mapped",
                "mapped-page-not-up-to-date",
                "mapping-word-of-a-thp-wiped",
                "index-of-a-private-page-shifted",
            ),
            check(
                "what a huge page was collapsed to has no old entries", "page-table-retracted-over-an-anonymous-page"
            ),
            bad(
                "mapped with a mapcount of none",
                "mapcount-of-a-shared-file-page-lowered",
                "zero-page-replaced-as-if-counted",
            ),
            bad("the index of another page than the head", "index-of-a-private-page-shifted"),
        ),
    ),
)
