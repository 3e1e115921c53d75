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

_LINES: tuple[tuple[int, str, str, str], ...] = (
    (1, A, "a tail leads to its head", ""),
    (2, A, "heads are aligned to their size", ""),
    (3, A, "the pages behind a head are its tails", ""),
    (4, A, "the cached number of pages is that of the order", ""),
    (5, A, "tails have no references", ""),
    (6, A, "tails carry TAIL_MAPPING", ""),
    (7, A, "tails carry no flags of their own", ""),
    (8, A, "a folio lies in one zone", ""),
    (9, A, "references are not negative", ""),
    (10, A, "a page without references is free, or known to be kept without", "later: informative only"),
    (11, A, "page types are known ones", ""),
    (12, A, "typed pages are not mapped", ""),
    (13, A, "counts of compound pages that nothing maps are at rest", ""),
    (14, A, "uninitialised struct pages are not referred to", _DEBUG),
    (15, A, "a folio with a poisoned page says so", ""),
    (16, B, "mapcount of small pages", ""),
    (17, B, "large mapcount", ""),
    (18, B, "entire mapcount", ""),
    (19, B, "mapcount of a folio's pages", ""),
    (20, B, "number of mapped pages", ""),
    (21, B, "PG_double_map", "partly: by the counts that it moves"),
    (22, B, "hugetlb mapcounts", ""),
    (23, B, "mm-id slots count at most the mappings", ""),
    (24, B, "several mms set the shared flag", ""),
    (25, B, "mm-id slots of unmapped folios are free", ""),
    (26, B, "the mm-id lock is free", ""),
    (27, B, "mm ids are unique", ""),
    (28, B, "zero pages are not counted", ""),
    (29, B, "mapped pages have references", ""),
    (30, B, "entries lie in VMAs", ""),
    (31, B, "normal entries map struct pages", ""),
    (32, B, "special entries lie in special VMAs", ""),
    (33, B, "exclusive pages are mapped once", ""),
    (34, B, "writable anonymous entries map exclusive pages", ""),
    (35, B, "KSM pages are never exclusive", ""),
    (36, B, "exclusive pages have one mm", ""),
    (37, B, "targets of migration entries", ""),
    (38, B, "exclusive migration entries", ""),
    (39, B, "device entries name device pages", "partly: that the page exists and is in use"),
    (40, B, "poison entries name poisoned pages", ""),
    (41, B, "markers stand where they may", ""),
    (42, B, "page_table_check agrees", _DEBUG),
    (43, C, "anonymous index", ""),
    (44, C, "the anon_vma reaches the VMA", ""),
    (45, C, "one root for folio and VMA", ""),
    (46, C, "VMAs with anonymous folios have an anon_vma", ""),
    (47, C, "an anon_vma means chains", ""),
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
    (68, D, "references beyond the known ones", "later: the explain command names them, no rule judges them"),
    (69, D, "pins taken less pins given back", "later: held against the ledger of references in tests only"),
    (70, D, "pins are references", ""),
    (71, D, "pinned anonymous pages are exclusive", ""),
    (72, D, "private data holds a reference", ""),
    (73, E, "VMAs are ordered", ""),
    (74, E, "VMAs name their mm", ""),
    (75, E, "number of VMAs", ""),
    (76, E, "counters of virtual memory", ""),
    (77, E, "VMAs in the tree are attached", ""),
    (78, E, "write-locked VMAs mean a locked mm", "later: locks"),
    (79, E, "flags of VMAs", ""),
    (
        80,
        E,
        "anonymous offsets of VMAs",
        "partly: before 7.3 where folios are mapped, because there an unfaulted VMA may have any",
    ),
    (81, E, "heap and stack pointers", "later: informative only"),
    (82, E, "users of an mm", "partly: too few of them; who else uses an mm is in no table"),
    (
        83,
        E,
        "references of an mm",
        "partly: too few of them; readers of /proc, io_uring and others that hold an mm are in no table",
    ),
    (84, E, "mms are slab objects", ""),
    (85, E, "rss", ""),
    (86, E, "hugetlb usage", ""),
    (87, E, "bytes of page tables", ""),
    (88, E, "page tables are of that type and have one owner", ""),
    (89, E, "no page tables without owner", ""),
    (90, E, "sharers of a page table", ""),
    (91, E, "deposited page tables", ""),
    (92, E, "huge entries are aligned", ""),
    (93, E, "mms with swap entries are on mmlist", ""),
    (94, E, "both halves under page table isolation agree", ""),
    (95, E, "high water marks", "undecidable: they are written lazily, so that none of their values is wrong"),
    (96, F, "lists hold LRU folios", _LRU),
    (97, F, "a folio is on one list once", _LRU),
    (98, F, "flags agree with the list", _LRU),
    (99, F, "a folio is on its cgroup's list", _LRU),
    (100, F, "lengths of LRU lists", _LRU),
    (101, F, "counters of LRU lists", _LRU),
    (102, F, "folios off the LRU are isolated", _LRU),
    (103, F, "counters of isolated pages", "undecidable: they follow isolation late, whatever the state is"),
    (104, F, "mlocked folios lie in locked VMAs", "later: mlock"),
    (105, F, "number of mlocked pages", "later: mlock"),
    (106, F, "mlocked folios are unevictable", "later: mlock"),
    (107, F, "LRU folios are charged", "later: memory cgroups"),
    (108, F, "lengths of split queues", _QUEUE),
    (109, F, "partially mapped folios are queued", _QUEUE),
    (110, F, "folios mapped in part say so", _QUEUE),
    (111, F, "only THPs are queued", _QUEUE),
    (112, F, "queued with the right cgroup", _QUEUE),
    (113, F, "counters of THPs by size", _QUEUE),
    (114, G, "page cache entries and folios name each other", ""),
    (115, G, "file folios are in the page cache", ""),
    (116, G, "number of cached pages", ""),
    (117, G, "counters of cached pages", "partly: huge cached pages and pages under writeback are not added up"),
    (118, G, "xarray marks of dirty pages", "later: a mark may lead its flag, so that only hints can be given"),
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
    (137, G, "pages of page tables", "partly: by process, not for the whole machine"),
    (138, G, "counters of mapped memory", ""),
    (139, G, "batched TLB flushes", "undecidable: TLBs are in no memory image; a pending flag alone is normal"),
    (140, G, "pending TLB flushes", "undecidable: TLBs are in no memory image; a sleeping task may hold a gather"),
    (141, G, "no dirty data is lost", "undecidable: the storage that the data should be on is not in the image"),
    (142, G, "page owners", _DEBUG),
    (143, G, "watched entries lie in watched VMAs", ""),
    (144, G, "soft-dirty bits", "undecidable: a soft-dirty bit may stand or not stand anywhere"),
    (145, G, "shared hugetlb page tables", ""),
    (146, G, "page tables are reached once", ""),
    (147, G, "page tables are not free", ""),
    (148, H, "lost reverse map", ""),
    (149, H, "leaked mapping", ""),
    (150, H, "early free", ""),
    (151, H, "pages of the wrong kind", ""),
)
"""Number, family, what must hold, and why no rule decides it or not wholly."""


def _state(rules: tuple[str, ...], reason: str) -> tuple[State, str]:
    """The state is the first word of the reason; without rules and without a reason nothing is decided."""
    word, _, rest = reason.partition(": ")
    if rules:
        return ("partly", rest) if word == "partly" else ("decided", "")
    return "undecidable" if word == "undecidable" else "later", rest or "no rule checks it yet"


def catalogue(rules: list[Rule] | None = None) -> list[Line]:
    """All lines: the invariants, then the numbered ones.

    Args:
        rules: Those that lines are looked up in; all when None.
    """
    chosen = all_rules() if rules is None else rules
    lines = []
    for name, title, reason in _INVARIANTS:
        slugs = tuple(rule.slug for rule in chosen if name in rule.decides)
        lines.append(Line(name, "invariants", title, slugs, *_state(slugs, reason)))
    for number, family, title, reason in _LINES:
        slugs = tuple(rule.slug for rule in chosen if str(number) in rule.decides)
        lines.append(Line(str(number), family, title, slugs, *_state(slugs, reason)))
    return lines
