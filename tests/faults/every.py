"""All faults by name, and the kernels that cannot have one, with what they lack."""

from __future__ import annotations

from tests.faults import (
    attribute_catalogue,
    cache_catalogue,
    catalogue,
    cluster_catalogue,
    counter_catalogue,
    cow_catalogue,
    loop_catalogue,
    lru_catalogue,
    mm_catalogue,
    more_catalogue,
    notifier_catalogue,
    page_catalogue,
    pool_catalogue,
    rmap_catalogue,
    split_catalogue,
    state_catalogue,
    swap_catalogue,
    table_catalogue,
    work_catalogue,
)
from tests.faults.plants import Plant

FAMILIES = (
    ("Counters, entries and compound pages", catalogue),
    ("Tables, VMAs and their counters", more_catalogue),
    ("Words of struct pages", page_catalogue),
    ("Split queues", split_catalogue),
    ("LRU lists", lru_catalogue),
    ("Page tables deposited or lost", table_catalogue),
    ("Attributes of entries", attribute_catalogue),
    ("Reverse maps", rmap_catalogue),
    ("Copy-on-write, pins, zero and poisoned pages", cow_catalogue),
    ("Swap and migration", swap_catalogue),
    ("Swap clusters", cluster_catalogue),
    ("Page cache", cache_catalogue),
    ("hugetlb and KSM", pool_catalogue),
    ("What races leave behind", state_catalogue),
    ("Loops", loop_catalogue),
    ("Address spaces and what holds them", mm_catalogue),
    ("MMU notifiers", notifier_catalogue),
    ("Counters of nodes and zones, free lists", counter_catalogue),
    ("Work that nobody does", work_catalogue),
)
"""Families of faults and the modules that plant them."""

UNLIKE = (
    "mapcount-of-a-private-page-raised",
    "mapcount-of-a-shared-file-page-lowered",
    "entire-mapcount-of-an-anon-thp-raised",
    "free-page-released-once-more",
    "file-vma-out-of-its-tree",
    "anonymous-page-left-locked",
    "cache-slot-emptied",
    "only-pte-of-a-page-lost",
    "shared-page-marked-exclusive",
    "swap-count-raised",
)
"""Some of them that every kernel has, no two of one kind."""

CATALOGUE: dict[str, Plant] = catalogue.CATALOGUE

_NO_COUNT = "this kernel keeps no such count"
_NO_EXTENDED = "extend tables"
_NO_HOMES = "lists of clusters in use"
_NO_TYPES = "lists that follow the types of page blocks"
_NO_VMA_LOCKS = "VMAs with locks of their own"
_NO_SHARE = "cached pages that are counted on their node alone"
_NO_OFFSET = "an offset for anonymous pages of its own"

ABSENT: dict[str, dict[str, str]] = {
    "6.1": {
        "anonymous-offset-of-an-unfaulted-vma-shifted": _NO_OFFSET,
        "cluster-kept-for-another-order": _NO_HOMES,
        "continued-count-too-high": _NO_EXTENDED,
        "count-continued-that-is-not-full": _NO_EXTENDED,
        "entire-mapcount-of-an-mthp-raised": "a large folio smaller than a PMD",
        "entirely-mapped-bit-turned": _NO_COUNT,
        "free-block-on-the-list-of-another-type": _NO_TYPES,
        "free-block-on-the-list-of-isolated-ones": _NO_TYPES,
        "free-cluster-with-a-swap-table": "swap tables",
        "full-count-continued-below-its-maximum": _NO_EXTENDED,
        "full-count-without-an-extend-table": _NO_EXTENDED,
        "hugetlb-folio-with-a-mapped-pages-word": _NO_COUNT,
        "large-mapcount-raised": _NO_COUNT,
        "mm-id-given-to-nobody": _NO_COUNT,
        "mm-id-of-two-processes": "mm ids",
        "mm-id-slot-raised": _NO_COUNT,
        "nr-pages-mapped-raised": _NO_COUNT,
        "page-of-a-generation-on-no-lru-list": "pages of generations",
        "partly-used-cluster-marked-as-full": _NO_HOMES,
        "partially-mapped-folio-off-the-queue": "PG_partially_mapped",
        "poisoned-page-of-a-large-folio-unsaid": "PG_hwpoison",
        "poisoned-page-still-mapped": "PG_hwpoison",
        "poisoned-subpage-still-mapped": "PG_hwpoison",
        "queued-folio-that-only-its-neighbours-know": "a queue of three",
        "share-of-a-node-in-cached-pages-raised": _NO_SHARE,
        "shared-flag-left-on-an-unmapped-folio": _NO_COUNT,
        "shared-flag-of-a-shared-folio-cleared": _NO_COUNT,
        "swap-counter-in-the-words-of-another-mm": "per-CPU parts of rss counters",
        "two-offsets-of-an-anonymous-vma-apart": _NO_OFFSET,
        "type-of-a-page-block-changed": _NO_TYPES,
        "mm-whose-sequence-was-not-ended": _NO_VMA_LOCKS,
        "vma-marked-as-write-locked-under-an-unlocked-mm": _NO_VMA_LOCKS,
        "vma-read-locked-by-many-that-are-gone": _NO_VMA_LOCKS,
        "vma-read-locked-by-nobody": _NO_VMA_LOCKS,
        "vma-that-a-writer-waits-for-who-is-gone": _NO_VMA_LOCKS,
        "vma-with-a-sequence-number-that-no-writer-has": _NO_VMA_LOCKS,
        "vma-write-locked-by-nobody": _NO_VMA_LOCKS,
        "vma-marked-as-detached": "VMAs that know whether they are attached",
        "writable-entry-with-the-saved-dirty-bit": "a saved dirty bit",
        "zero-pages-of-ksm-miscounted": "a count of KSM's zero pages",
    },
    "6.12": {
        "continued-count-too-high": _NO_EXTENDED,
        "count-continued-that-is-not-full": _NO_EXTENDED,
        "double-map-flag-turned": "PG_double_map",
        "free-cluster-with-a-swap-table": "swap tables",
        "full-count-continued-below-its-maximum": _NO_EXTENDED,
        "full-count-without-an-extend-table": _NO_EXTENDED,
        "mm-id-given-to-nobody": _NO_COUNT,
        "mm-id-of-two-processes": "mm ids",
        "mm-id-slot-raised": _NO_COUNT,
        "share-of-a-node-in-cached-pages-raised": _NO_SHARE,
        "shared-flag-left-on-an-unmapped-folio": _NO_COUNT,
        "shared-flag-of-a-shared-folio-cleared": _NO_COUNT,
        "anonymous-offset-of-an-unfaulted-vma-shifted": _NO_OFFSET,
        "two-offsets-of-an-anonymous-vma-apart": _NO_OFFSET,
    },
    "7.3": {
        "double-map-flag-turned": "PG_double_map",
        "lru-folio-of-another-memory-cgroup": "memory cgroups in the dump",
        "unused-bit-of-page-flags-set": "unused bits of page flags",
        "swap-map-byte-of-a-free-slot-set": "a mark: a swap table names the folio",
        "swap-slot-marked-as-cached": "a mark: a swap table names the folio",
    },
}
"""By kernel: the faults that its dumps have no place for, and what is missing there."""
