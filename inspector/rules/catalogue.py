"""The catalogue: what must hold in a kernel's memory state, which rules decide it, and why some of it none decides.

Invariants I1 to I18 are those of the rmap model; the numbered lines are the wider list of facts about folios, address
spaces, page cache, swap and free memory. Every line names its rules, or says honestly why there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inspector.rules.registry import Rule, all_rules

State = Literal["decided", "partly", "later", "undecidable"]
"""``decided``: by the rules named. ``partly``: by them, but for what the reason says. ``later``: it could be, no rule
does yet. ``undecidable``: a memory image does not hold what would decide it."""


@dataclass(frozen=True)
class Line:
    """One line of the catalogue.

    Attributes:
        id: ``I1`` ... ``I18``, or the number of a line.
        family: What it belongs to.
        title: What must hold.
        rules: Slugs of the rules that decide it.
        state: How far they do.
        reason: Why they do not, or not wholly; "" when they do.
    """

    id: str
    family: str
    title: str
    rules: tuple[str, ...]
    state: State
    reason: str = ""


_INVARIANTS: tuple[tuple[str, str, str], ...] = (
    ("I1", "mapcounts of pages, folios and whole folios follow from the page tables", ""),
    ("I2", "the word of mapped pages is well formed", ""),
    ("I3", "a huge entry maps a folio of its size, aligned", ""),
    ("I4", "the reverse map leads to the same mappings as the page tables", ""),
    ("I5", "references are at least mappings, cache and private data", ""),
    ("I6", "each mapping agrees with the folio's root or file and its index", ""),
    ("I7", "exclusive pages belong to one process; writable anonymous entries map exclusive pages", ""),
    ("I8", "hugetlb's counts are kept apart; its mappings hold no swap entries", ""),
    ("I9", "heads and tails agree", ""),
    ("I10", "deferred split queues: membership, length, flag", "later: the queues are not walked yet"),
    ("I11", "counters of memory nodes are the sums of their folios' shares", ""),
    ("I12", "rss counters are the sums of the page tables", ""),
    (
        "I13",
        "no batched TLB flush is pending outside reclaim",
        "undecidable: the TLBs themselves are in no memory image, and a pending generation alone is normal",
    ),
    ("I14", "non-present entries are legal where they stand", ""),
    ("I15", "mlocked folios are classified and counted", "later: needs the LRU lists, which are not walked yet"),
    ("I16", "mm-id slots", ""),
    ("I17", "anon_vma counters, interval trees and chains", ""),
    ("I18", "freed pages carry no counts", ""),
)
"""Id, what must hold, and why no rule decides it; the rules follow from what each declares."""

A, B, C, D = "pages and compound pages", "mapping counts", "reverse map", "references"
E, F, G, H = "VMAs and address spaces", "LRU and THP", "cache, swap, free memory, hugetlb, KSM", "combined diagnosis"

_DEBUG = "undecidable: only debugging kernels keep this, and none of the kernels supported is built so"
_LRU = "later: the LRU lists are not walked yet"
_QUEUE = "later: the deferred split queues are not walked yet"

_LINES: tuple[tuple[int, str, str, str, str], ...] = (
    (1, A, "a tail leads to its head", "tail-head-invalid", ""),
    (2, A, "heads are aligned to their size", "compound-size-mismatch", ""),
    (3, A, "the pages behind a head are its tails", "compound-size-mismatch tail-head-invalid", ""),
    (4, A, "the cached number of pages is that of the order", "compound-size-mismatch", ""),
    (5, A, "tails have no references", "tail-page-damaged", ""),
    (6, A, "tails carry TAIL_MAPPING", "tail-page-damaged", ""),
    (7, A, "tails carry no flags of their own", "tail-flags-unexpected", ""),
    (8, A, "a folio lies in one zone", "tail-zone-mismatch", ""),
    (9, A, "references are not negative", "refcount-invalid", ""),
    (10, A, "a page without references is free, or known to be kept without", "", "later: informative only"),
    (11, A, "page types are known ones", "page-type-invalid", ""),
    (12, A, "typed pages are not mapped", "typed-page-mapping-unexpected", ""),
    (
        13,
        A,
        "counts of compound pages that nothing maps are at rest",
        "entire-mapcount-mismatch large-mapcount-mismatch nr-pages-mapped-mismatch mm-id-slot-unexpected",
        "",
    ),
    (14, A, "uninitialised struct pages are not referred to", "", _DEBUG),
    (15, A, "a folio with a poisoned page says so", "has-hwpoisoned-missing", ""),
    (16, B, "mapcount of small pages", "mapcount-too-low mapcount-too-high mapcount-mapping-missing", ""),
    (17, B, "large mapcount", "large-mapcount-mismatch", ""),
    (18, B, "entire mapcount", "entire-mapcount-mismatch", ""),
    (19, B, "mapcount of a folio's pages", "mapcount-too-low mapcount-too-high mapcount-mapping-missing", ""),
    (20, B, "number of mapped pages", "nr-pages-mapped-mismatch nr-pages-mapped-invalid", ""),
    (21, B, "PG_double_map", "mapcount-too-low mapcount-too-high", "partly: by the counts that it moves"),
    (22, B, "hugetlb mapcounts", "entire-mapcount-mismatch hugetlb-counts-unexpected", ""),
    (23, B, "mm-id slots count at most the mappings", "mm-id-slot-high mm-id-slot-invalid", ""),
    (24, B, "several mms set the shared flag", "mm-id-shared-flag-missing", ""),
    (25, B, "mm-id slots of unmapped folios are free", "mm-id-slot-unexpected", ""),
    (26, B, "the mm-id lock is free", "mm-id-slot-invalid", ""),
    (27, B, "mm ids are unique", "mm-id-sharing-unexpected", ""),
    (28, B, "zero pages are not counted", "mapcount-mapping-missing rss-mismatch", ""),
    (29, B, "mapped pages have references", "refcount-low", ""),
    (30, B, "entries lie in VMAs", "entry-vma-missing nonpresent-entry-vma-missing", ""),
    (31, B, "normal entries map struct pages", "entry-pfn-invalid", ""),
    (32, B, "special entries lie in special VMAs", "special-entry-unexpected", ""),
    (33, B, "exclusive pages are mapped once", "exclusive-page-mapcount-high", ""),
    (34, B, "writable anonymous entries map exclusive pages", "writable-page-exclusive-missing", ""),
    (35, B, "KSM pages are never exclusive", "ksm-page-exclusive-unexpected", ""),
    (36, B, "exclusive pages have one mm", "exclusive-page-mm-count-high", ""),
    (37, B, "targets of migration entries", "nonpresent-target-invalid migration-target-lock-missing", ""),
    (38, B, "exclusive migration entries", "migration-exclusive-mismatch", ""),
    (
        39,
        B,
        "device entries name device pages",
        "nonpresent-target-invalid",
        "partly: that the page exists and is in use",
    ),
    (40, B, "poison entries name poisoned pages", "poison-entry-target-mismatch poisoned-page-mapping-unexpected", ""),
    (41, B, "markers stand where they may", "marker-unexpected", ""),
    (42, B, "page_table_check agrees", "", _DEBUG),
    (43, C, "anonymous index", "anon-index-mismatch vma-pgoff-mismatch anon-folio-mapping-invalid", ""),
    (44, C, "the anon_vma reaches the VMA", "anon-vma-unreachable", ""),
    (45, C, "one root for folio and VMA", "anon-root-mismatch", ""),
    (46, C, "VMAs with anonymous folios have an anon_vma", "vma-anon-vma-missing", ""),
    (47, C, "an anon_vma means chains", "anon-vma-chain-damaged", ""),
    (48, C, "chains agree with list and tree", "avc-link-missing anon-vma-chain-damaged", ""),
    (49, C, "anon_vma interval trees", "avc-tree-damaged anon-vma-tree-loop-unexpected", ""),
    (50, C, "num_active_vmas", "anon-vma-counters-mismatch", ""),
    (51, C, "num_children", "anon-vma-counters-mismatch", ""),
    (52, C, "anon_vma references", "anon-vma-counters-mismatch", ""),
    (53, C, "anon_vma roots and parents", "anon-vma-root-mismatch", ""),
    (54, C, "a mapped folio's anon_vma is alive", "anon-vma-unreachable anon-vma-counters-mismatch", ""),
    (55, C, "folio and VMA are of one file", "file-mapping-mismatch", ""),
    (56, C, "file index", "file-index-mismatch vma-pgoff-mismatch", ""),
    (57, C, "VMAs of files are in i_mmap", "i-mmap-vma-missing", ""),
    (58, C, "i_mmap holds live VMAs", "i-mmap-tree-damaged vma-unreachable i-mmap-vma-unexpected", ""),
    (59, C, "i_mmap interval trees", "i-mmap-tree-damaged i-mmap-tree-loop-unexpected", ""),
    (60, C, "i_mmap_writable", "i-mmap-writable-low", ""),
    (61, C, "KSM pages and stable nodes name each other", "ksm-node-mismatch", ""),
    (62, C, "a mapped KSM page has its node", "ksm-node-mismatch", ""),
    (63, C, "length of stable nodes' lists", "ksm-list-length-mismatch", ""),
    (64, C, "KSM entries are found", "ksm-mapping-unreachable ksm-item-mm-mismatch ksm-tree-damaged", ""),
    (65, C, "KSM totals", "ksm-totals-mismatch ksm-mm-counters-low", ""),
    (66, C, "reverse map of hugetlb", "anon-index-mismatch anon-vma-unreachable hugetlb-mapping-mismatch", ""),
    (67, D, "lower bound of references", "refcount-low", ""),
    (68, D, "references beyond the known ones", "", "later: the explain command names them, no rule judges them"),
    (69, D, "pins taken less pins given back", "", "later: held against the ledger of references in tests only"),
    (70, D, "pins are references", "pincount-high free-folio-pincount-unexpected", ""),
    (71, D, "pinned anonymous pages are exclusive", "pinned-page-exclusive-missing", ""),
    (72, D, "private data holds a reference", "refcount-low", ""),
    (73, E, "VMAs are ordered", "vma-range-mismatch vma-tree-damaged", ""),
    (74, E, "VMAs name their mm", "vma-mm-mismatch vma-unreachable", ""),
    (75, E, "number of VMAs", "vm-counters-mismatch", ""),
    (76, E, "counters of virtual memory", "vm-counters-mismatch", ""),
    (77, E, "VMAs in the tree are attached", "vma-attached-mark-missing", ""),
    (78, E, "write-locked VMAs mean a locked mm", "", "later: locks"),
    (79, E, "flags of VMAs", "vma-flags-invalid", ""),
    (
        80,
        E,
        "anonymous offsets of VMAs",
        "vma-anon-pgoff-mismatch vma-pgoff-mismatch",
        "partly: before 7.3 where folios are mapped, because there an unfaulted VMA may have any",
    ),
    (81, E, "heap and stack pointers", "", "later: informative only"),
    (82, E, "users of an mm", "mm-users-low", "partly: too few of them; who else uses an mm is in no table"),
    (
        83,
        E,
        "references of an mm",
        "mm-count-low",
        "partly: too few of them; readers of /proc, io_uring and others that hold an mm are in no table",
    ),
    (84, E, "mms are slab objects", "task-mm-invalid", ""),
    (85, E, "rss", "rss-mismatch", ""),
    (86, E, "hugetlb usage", "hugetlb-usage-mismatch", ""),
    (87, E, "bytes of page tables", "pgtables-bytes-mismatch", ""),
    (
        88,
        E,
        "page tables are of that type and have one owner",
        "page-table-type-mismatch page-table-sharing-unexpected table-entry-flags-invalid",
        "",
    ),
    (89, E, "no page tables without owner", "page-table-unreachable", ""),
    (90, E, "sharers of a page table", "hugetlb-share-count-mismatch", ""),
    (91, E, "deposited page tables", "deposited-tables-mismatch deposit-list-damaged", ""),
    (92, E, "huge entries are aligned", "huge-entry-folio-mismatch", ""),
    (93, E, "mms with swap entries are on mmlist", "mmlist-entry-missing", ""),
    (94, E, "both halves under page table isolation agree", "user-page-table-mismatch", ""),
    (
        95,
        E,
        "high water marks",
        "",
        "undecidable: they are written lazily, so that none of their values is wrong",
    ),
    (96, F, "lists hold LRU folios", "", _LRU),
    (97, F, "a folio is on one list once", "", _LRU),
    (98, F, "flags agree with the list", "", _LRU),
    (99, F, "a folio is on its cgroup's list", "", _LRU),
    (100, F, "lengths of LRU lists", "", _LRU),
    (101, F, "counters of LRU lists", "", _LRU),
    (102, F, "folios off the LRU are isolated", "", _LRU),
    (
        103,
        F,
        "counters of isolated pages",
        "",
        "undecidable: they follow isolation late, whatever the state is",
    ),
    (104, F, "mlocked folios lie in locked VMAs", "", "later: mlock"),
    (105, F, "number of mlocked pages", "", "later: mlock"),
    (106, F, "mlocked folios are unevictable", "", "later: mlock"),
    (107, F, "LRU folios are charged", "", "later: memory cgroups"),
    (108, F, "lengths of split queues", "", _QUEUE),
    (109, F, "partially mapped folios are queued", "", _QUEUE),
    (110, F, "folios mapped in part say so", "", _QUEUE),
    (111, F, "only THPs are queued", "", _QUEUE),
    (112, F, "queued with the right cgroup", "", _QUEUE),
    (113, F, "counters of THPs by size", "", _QUEUE),
    (114, G, "page cache entries and folios name each other", "cache-entry-mismatch cache-tree-damaged", ""),
    (115, G, "file folios are in the page cache", "cached-folio-missing", ""),
    (116, G, "number of cached pages", "cache-nrpages-mismatch", ""),
    (
        117,
        G,
        "counters of cached pages",
        "cache-counters-mismatch",
        "partly: huge cached pages and pages under writeback are not added up",
    ),
    (118, G, "xarray marks of dirty pages", "", "later: a mark may lead its flag, so that only hints can be given"),
    (119, G, "counts of swap slots", "swap-count-low swap-count-high", ""),
    (120, G, "swap entries name slots", "swap-entry-slot-invalid", ""),
    (
        121,
        G,
        "swap cache and folios name each other",
        "swapcache-slot-mismatch swapcache-folio-missing swap-slot-user-missing",
        "",
    ),
    (122, G, "swap slots of shmem", "shmem-swap-slot-mismatch", ""),
    (
        123,
        G,
        "swap slots in use",
        "swap-inuse-mismatch swap-free-mismatch swap-cluster-count-mismatch swap-cluster-list-mismatch"
        " swap-cluster-list-damaged",
        "",
    ),
    (124, G, "exclusive swap entries", "exclusive-swap-entry-sharing-unexpected", ""),
    (125, G, "used slots have users", "swap-slot-user-missing", ""),
    (126, G, "extended counts of slots", "swap-extended-count-mismatch swap-count-low swap-count-high", ""),
    (127, G, "shmem pages in swap", "shmem-swapped-mismatch", ""),
    (128, G, "lazily freed folios are not in swap", "lazyfree-swapcache-unexpected", ""),
    (
        129,
        G,
        "free lists of the buddy allocator",
        "free-list-damaged free-block-list-mismatch free-block-type-mismatch free-area-count-mismatch"
        " free-page-state-unexpected",
        "",
    ),
    (130, G, "number of free pages", "zone-free-pages-mismatch cpu-free-list-mismatch", ""),
    (
        131,
        G,
        "free pages are not mapped",
        "free-page-mapping-unexpected cpu-free-page-state-unexpected free-page-mapcount-unexpected",
        "",
    ),
    (132, G, "hugetlb pools", "hugetlb-pool-mismatch", ""),
    (133, G, "free hugetlb folios", "hugetlb-free-folio-state-unexpected", ""),
    (134, G, "reserved hugetlb folios", "hugetlb-reserved-high", ""),
    (135, G, "users of the huge zero folio", "huge-zero-references-low huge-zero-pfn-mismatch", ""),
    (136, G, "KSM zero pages", "ksm-zero-pages-mismatch", ""),
    (137, G, "pages of page tables", "pgtables-bytes-mismatch", "partly: by process, not for the whole machine"),
    (138, G, "counters of mapped memory", "node-mapped-mismatch", ""),
    (139, G, "batched TLB flushes", "", "undecidable: TLBs are in no memory image; a pending flag alone is normal"),
    (140, G, "pending TLB flushes", "", "undecidable: TLBs are in no memory image; a sleeping task may hold a gather"),
    (
        141,
        G,
        "no dirty data is lost",
        "",
        "undecidable: the storage that the data should be on is not in the image",
    ),
    (142, G, "page owners", "", _DEBUG),
    (143, G, "watched entries lie in watched VMAs", "uffd-registration-missing uffd-wp-write-bit-unexpected", ""),
    (144, G, "soft-dirty bits", "", "undecidable: a soft-dirty bit may stand or not stand anywhere"),
    (145, G, "shared hugetlb page tables", "hugetlb-shared-table-mismatch", ""),
    (146, G, "page tables are reached once", "page-table-sharing-unexpected page-table-type-mismatch", ""),
    (147, G, "page tables are not free", "page-table-type-mismatch", ""),
    (
        148,
        H,
        "lost reverse map",
        "anon-vma-unreachable anon-index-mismatch file-mapping-mismatch file-index-mismatch i-mmap-vma-missing",
        "",
    ),
    (149, H, "leaked mapping", "mapcount-too-high large-mapcount-mismatch entire-mapcount-mismatch", ""),
    (150, H, "early free", "mapcount-too-low free-page-mapping-unexpected refcount-low", ""),
    (151, H, "pages of the wrong kind", "shared-vma-anon-page-unexpected private-file-page-write-bit-unexpected", ""),
)
"""Number, family, what must hold, rules, and why they are not all."""


def _state(rules: tuple[str, ...], reason: str) -> tuple[State, str]:
    """The state is the first word of the reason; without rules and without a reason nothing is decided."""
    word, _, rest = reason.partition(": ")
    if rules:
        return ("partly", rest) if word == "partly" else ("decided", "")
    return "undecidable" if word == "undecidable" else "later", rest or "no rule looks at it yet"


def catalogue(rules: list[Rule] | None = None) -> list[Line]:
    """All lines: the invariants, then the numbered ones.

    Args:
        rules: Those that invariants are looked up in; all when None.
    """
    chosen = all_rules() if rules is None else rules
    lines = []
    for name, title, reason in _INVARIANTS:
        slugs = tuple(rule.slug for rule in chosen if rule.invariant == name)
        lines.append(Line(name, "invariants", title, slugs, *_state(slugs, reason)))
    for number, family, title, named, reason in _LINES:
        slugs = tuple(named.split())
        lines.append(Line(str(number), family, title, slugs, *_state(slugs, reason)))
    return lines
