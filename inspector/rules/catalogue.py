"""The catalogue: what must hold in a kernel's memory state, which rules decide it, and why some of it no rule decides.

I1 to I18 are the invariants of the rmap model; the numbered ones are the wider list about folios, address spaces, page
cache, swap and free memory. Each names its rules, or the reason why it has none.
"""

from __future__ import annotations

from typing import Literal

from inspector.records import dataclass
from inspector.rules.registry import Rule, all_rules

Decidability = Literal["decided", "partly", "later", "undecidable"]
"""``decided``: by the rules named. ``partly``: by them, but for what the reason names. ``later``: it could be, but no
rule does yet. ``undecidable``: a memory image does not hold what would decide it."""


@dataclass(frozen=True)
class Invariant:
    """One line of the catalogue.

    Attributes:
        id: ``I1`` ... ``I18``, or the number of the line.
        family: What it belongs to.
        title: What must hold.
        rules: Slugs of the rules that decide it.
        state: Whether they do, and how far.
        reason: Why they do not, or only in part; "" when they do.
    """

    id: str
    family: str
    title: str
    rules: tuple[str, ...]
    state: Decidability
    reason: str = ""


_INVARIANTS: tuple[tuple[str, str, str], ...] = (
    ("I1", "the mapcounts of pages and folios follow from the page tables", ""),
    ("I2", "_nr_pages_mapped is well formed", ""),
    ("I3", "a huge entry maps a folio of its size, aligned", ""),
    ("I4", "rmap walks find the mappings that are in the page tables", ""),
    ("I5", "_refcount is at least the references of mappings, caches and private data", ""),
    ("I6", "each mapping agrees with the anon_vma root or the file of its folio, and with its index", ""),
    ("I7", "exclusive pages belong to one process; writable anonymous entries map exclusive pages", ""),
    ("I8", "hugetlb counts mappings in the entire mapcount alone; hugetlb VMAs hold no swap entries", ""),
    ("I9", "heads and tails agree", ""),
    ("I10", "deferred split queues: membership, length, flag", ""),
    ("I11", "counters of memory nodes are the sums over their folios", ""),
    ("I12", "rss counters are the sums over the page tables", ""),
    (
        "I13",
        "no batched TLB flush is pending outside reclaim",
        "undecidable: a memory image does not hold the TLBs, and a pending generation alone is normal",
    ),
    ("I14", "non-present entries are of kinds that their VMAs may hold", ""),
    (
        "I15",
        "mlocked folios are classified and counted",
        "partly: that a VMA with VM_LOCKED maps each, and that its small folios are mlocked, is not asked yet",
    ),
    ("I16", "mm-id slots count the mappings of the mms that they name", ""),
    ("I17", "anon_vma counters, interval trees and chains agree", ""),
    ("I18", "free pages have no counts", ""),
)
"""Id, what must hold, and why no rule decides it; each rule declares which of them it decides."""

A, B, C, D = "pages and compound pages", "mapping counts", "reverse map", "references"
E, F, G, H = "VMAs and address spaces", "LRU and THP", "cache, swap, free memory, hugetlb, KSM", "combined diagnosis"

_DEBUG = "undecidable: only debug kernels record this, and the supported ones are not debug kernels"

_LINES: tuple[tuple[int, str, str, str], ...] = (
    (1, A, "a tail leads to its head", ""),
    (2, A, "heads are aligned to their size", ""),
    (3, A, "the pages behind a head are its tails", ""),
    (4, A, "_nr_pages is 1 << order", ""),
    (5, A, "tails have no references", ""),
    (6, A, "tails have TAIL_MAPPING", ""),
    (7, A, "tails have no page flags of their own", ""),
    (8, A, "a folio is in one zone", ""),
    (9, A, "references are not negative", ""),
    (10, A, "a page without references is free or frozen", "partly: part of an allocation may be lost unseen"),
    (11, A, "page types are known", ""),
    (12, A, "typed pages are not mapped", ""),
    (13, A, "counts of unmapped compound pages have their initial values", ""),
    (14, A, "uninitialised struct pages are not referred to", _DEBUG),
    (15, A, "PG_has_hwpoisoned is set on folios with a poisoned page", ""),
    (16, B, "mapcount of small pages", ""),
    (17, B, "large mapcount", ""),
    (18, B, "entire mapcount", ""),
    (19, B, "mapcount of a folio's pages", ""),
    (20, B, "_nr_pages_mapped", ""),
    (21, B, "PG_double_map", "partly: by the counts that it moves"),
    (22, B, "hugetlb mapcounts", ""),
    (23, B, "mm-id slots count at most the mappings", ""),
    (24, B, "several mms set the shared flag", ""),
    (25, B, "mm-id slots of unmapped folios are free", ""),
    (26, B, "the mm-id lock is free", ""),
    (27, B, "mm ids are unique", ""),
    (28, B, "zero pages are not counted", ""),
    (29, B, "mapped pages have references", ""),
    (30, B, "entries are in VMAs", ""),
    (31, B, "normal entries map struct pages", ""),
    (32, B, "special entries are in VMAs that may hold them", ""),
    (33, B, "exclusive pages are mapped once", ""),
    (34, B, "writable anonymous entries map exclusive pages", ""),
    (35, B, "KSM pages are never exclusive", ""),
    (36, B, "exclusive pages have one mm", ""),
    (37, B, "targets of migration entries", ""),
    (38, B, "exclusive migration entries", ""),
    (39, B, "device entries name device pages", "partly: that the page exists and is in use"),
    (40, B, "poison entries name poisoned pages", ""),
    (41, B, "markers are in VMAs that may hold them", ""),
    (42, B, "page_table_check agrees", _DEBUG),
    (43, C, "anonymous index", ""),
    (44, C, "a folio's anon_vma leads to the VMA", ""),
    (45, C, "one root for folio and VMA", ""),
    (46, C, "VMAs with anonymous folios have an anon_vma", ""),
    (47, C, "a VMA with an anon_vma has chains", ""),
    (48, C, "chains agree with list and tree", ""),
    (49, C, "anon_vma interval trees", ""),
    (50, C, "num_active_vmas", ""),
    (51, C, "num_children", ""),
    (52, C, "anon_vma references", ""),
    (53, C, "anon_vma roots and parents", ""),
    (54, C, "a mapped folio's anon_vma is alive", ""),
    (55, C, "folio and VMA are of one file", ""),
    (56, C, "file index", ""),
    (57, C, "VMAs of files are in i_mmap", ""),
    (58, C, "i_mmap holds live VMAs", ""),
    (59, C, "i_mmap interval trees", ""),
    (60, C, "i_mmap_writable", ""),
    (61, C, "KSM pages and stable nodes name each other", ""),
    (62, C, "a mapped KSM page has its node", ""),
    (63, C, "length of stable nodes' lists", ""),
    (64, C, "KSM entries are found", ""),
    (65, C, "KSM totals", ""),
    (66, C, "reverse map of hugetlb", ""),
    (67, D, "lower bound of references", ""),
    (68, D, "references beyond the known ones", "later: the explain command names them, no rule checks them"),
    (69, D, "pins taken minus pins released", "partly: small pages with 1024 references and more may have pins or not"),
    (70, D, "pins are references", ""),
    (71, D, "pinned anonymous pages are exclusive", ""),
    (72, D, "private data holds a reference", ""),
    (73, E, "VMAs are ordered", ""),
    (74, E, "VMAs name their mm", ""),
    (75, E, "number of VMAs", ""),
    (76, E, "counters of virtual memory", ""),
    (77, E, "VMAs in the tree are attached", ""),
    (78, E, "the mm of a write-locked VMA is locked", ""),
    (79, E, "flags of VMAs", ""),
    (
        80,
        E,
        "anonymous offsets of VMAs",
        "partly: before 7.3 only where folios are mapped: an unfaulted VMA may have any offset",
    ),
    (81, E, "heap and stack pointers", "later: informative only"),
    (82, E, "users of an mm", "partly: too few; other users of an mm are in no table"),
    (
        83,
        E,
        "references of an mm",
        "partly: too few; readers of /proc, io_uring and others that hold an mm are in no table",
    ),
    (84, E, "mms are slab objects", ""),
    (85, E, "rss", ""),
    (86, E, "hugetlb usage", ""),
    (87, E, "bytes of page tables", ""),
    (88, E, "page tables are of that type and have one owner", ""),
    (89, E, "every page table has an owner", ""),
    (90, E, "sharers of a page table", ""),
    (91, E, "deposited page tables", ""),
    (92, E, "huge entries are aligned", ""),
    (93, E, "mms with swap entries are on init_mm.mmlist", ""),
    (94, E, "both top tables under page-table isolation agree", ""),
    (95, E, "high water marks", "undecidable: they are updated lazily, so that any value can be right"),
    (96, F, "lists hold LRU folios", ""),
    (97, F, "a folio is on one list once", ""),
    (98, F, "flags agree with the list", ""),
    (99, F, "a folio is on its cgroup's list", ""),
    (100, F, "lengths of LRU lists", ""),
    (101, F, "counters of LRU lists", ""),
    (102, F, "folios off the LRU are isolated", "later: who has isolated a folio is not looked for yet"),
    (103, F, "counters of isolated pages", "undecidable: they are updated after isolation, in no fixed order"),
    (
        104,
        F,
        "mlocked folios are mapped by locked VMAs",
        "undecidable: the flag may stay until reclaim finds the folio, after the last munlock",
    ),
    (105, F, "number of mlocked pages", ""),
    (106, F, "mlocked folios are unevictable", ""),
    (107, F, "LRU folios are charged", "partly: those that are on a list, not the unevictable ones"),
    (108, F, "split queue lengths", ""),
    (109, F, "partially mapped folios are queued", "partly: since 6.12 those that the kernel has marked as such"),
    (110, F, "PG_partially_mapped is set on partially mapped folios", "partly: by the kernel's own count of them"),
    (111, F, "only THPs are queued", ""),
    (112, F, "queued with the right cgroup", ""),
    (113, F, "counters of THPs by size", "partly: how many there are, not the counts of events"),
    (114, G, "page cache entries and folios name each other", ""),
    (115, G, "file folios are in the page cache", ""),
    (116, G, "number of cached pages", ""),
    (117, G, "counters of cached pages", "partly: pages under writeback are not added up"),
    (118, G, "xarray marks of dirty pages", "partly: a mark may lead the flag of a dirty page, and stay without it"),
    (119, G, "counts of swap slots", ""),
    (120, G, "swap entries name slots", ""),
    (121, G, "swap cache and folios name each other", ""),
    (122, G, "swap slots of shmem", ""),
    (123, G, "swap slots in use", ""),
    (124, G, "exclusive swap entries", ""),
    (125, G, "used slots have users", ""),
    (126, G, "extended counts of slots", ""),
    (127, G, "shmem pages in swap", ""),
    (128, G, "lazily freed folios are not in swap", ""),
    (129, G, "free lists of the buddy allocator", ""),
    (130, G, "number of free pages", ""),
    (131, G, "free pages are not mapped", ""),
    (132, G, "hugetlb pools", ""),
    (133, G, "free hugetlb folios", ""),
    (134, G, "reserved hugetlb folios", ""),
    (135, G, "users of the huge zero folio", ""),
    (136, G, "KSM zero pages", ""),
    (137, G, "pages of page tables", ""),
    (138, G, "counters of mapped memory", ""),
    (
        139,
        G,
        "batched TLB flushes",
        "undecidable: a memory image does not hold the TLBs; a pending flag alone is normal",
    ),
    (
        140,
        G,
        "pending TLB flushes",
        "undecidable: a memory image does not hold the TLBs; a sleeping task may have a gather",
    ),
    (141, G, "no dirty data is lost", "undecidable: the storage is not in the memory image"),
    (142, G, "page owners", _DEBUG),
    (143, G, "userfaultfd-wp entries are in VMAs registered for it", ""),
    (144, G, "soft-dirty bits", "undecidable: a soft-dirty bit may be set or clear in any entry"),
    (145, G, "shared hugetlb page tables", ""),
    (146, G, "page tables are reached once", ""),
    (147, G, "page tables are not free", ""),
    (148, H, "lost reverse map", ""),
    (149, H, "leaked mapping", ""),
    (150, H, "early free", ""),
    (151, H, "pages of the wrong kind", ""),
)
"""Number, family, what must hold, and why no rule decides it or only in part."""


def _state(rules: tuple[str, ...], reason: str) -> tuple[Decidability, str]:
    """How far the rules decide a line: wholly only where no reason is given why they do not. And the reason itself."""
    word, _, rest = reason.partition(": ")
    if rules:
        return ("partly", rest) if reason else ("decided", "")
    return "undecidable" if word == "undecidable" else "later", rest or "no rule checks it yet"


def catalogue(rules: list[Rule] | None = None) -> list[Invariant]:
    """All lines: the invariants of the model, then the numbered ones.

    Args:
        rules: Those that lines are looked up in; all when None.
    """
    chosen = all_rules() if rules is None else rules
    lines = [(name, "invariants", title, reason) for name, title, reason in _INVARIANTS]
    lines += [(str(number), family, title, reason) for number, family, title, reason in _LINES]
    out = []
    for name, family, title, reason in lines:
        slugs = tuple(rule.slug for rule in chosen if name in rule.decides)
        out.append(Invariant(name, family, title, slugs, *_state(slugs, reason)))
    return out


NOT_AUDITED: dict[str, tuple[str, ...]] = {
    "unexplained references": ("68", "102"),
    "counters of slabs and kernel stacks": (),
    "CPU and TLB state": (),
}
"""Families of counters and structures that no rule checks yet, each with the lines above that it holds. A verdict of
"consistent" says nothing about them, and a check names them."""
