"""Windows: stretches of kernel code in which counters, page tables and lists legally differ.

The kernel moves a page-table entry and the counters behind it one after the other. A stop between the two (a crash, a
frozen guest) shows a difference that is no fault. Each window names the functions that a task is in then, what is out
of step, which way, and for which folios or processes. The windows themselves are in windows/catalogue.py; which task is
in which window is found in windows/in_flight.py, and windows/grading.py decides what they explain.
"""

from __future__ import annotations

from enum import Enum, auto

from inspector.records import dataclass


class Effect(Enum):
    """What a window may put out of step."""

    PAGE = "page mapcounts"
    """``_mapcount`` against the PTEs."""
    DOUBLY_MAPPED = "page mapcounts under PG_double_map"
    ENTIRE = "entire mapcount"
    LARGE = "large mapcount"
    PAGES_MAPPED = "nr_pages_mapped"
    MM_IDS = "mm ids"
    RSS = "rss"
    STATISTIC = "statistics"
    REFCOUNT = "reference counts"
    ENTRIES = "entries"
    """Migration and other non-present entries, exclusive and writable pages."""
    PROTECTION = "protection of entries"
    """Entries against the flags of the VMAs that they are in."""
    COVER = "entries outside VMAs"
    TABLES = "page tables"
    VMAS = "VMAs"
    ANON_RMAP = "anon_vmas"
    FILE_RMAP = "files' VMAs"
    PAGE_CACHE = "page cache"
    SWAP = "swap slots"
    KSM = "KSM"
    HUGETLB = "hugetlb"
    MM_COUNT = "references of mms"
    """mm_count against those who hold an mm."""
    PAGES = "struct pages"
    """Heads, tails and sizes of compound pages, free pages."""
    SPLIT_QUEUE = "split queues"
    """Links of folios that wait to be split, and the flag beside them."""
    LRU = "LRU lists"
    """Links of folios on LRU lists, and PG_lru."""
    LRU_SIZES = "sizes of LRU lists"
    LARGE_FOLIOS = "counts of large folios"
    """The kernel's own counts of large anonymous folios by order."""
    NOTIFIERS = "MMU notifiers"
    """Changes of page tables that have begun, as the subscriptions of an mm count them."""


class Way(Enum):
    """Which way a counter may be off."""

    HIGH = auto()
    EITHER = auto()


class FoliosWorkedOn(Enum):
    """Which folios' counts a task in a window may leave half changed, among those that its scope gives."""

    ANY = auto()
    FILE = auto()
    """Those of files and shmem."""
    HUGETLB = auto()
    IN_HAND = auto()
    """The one that the function has in hand, which its stack or its registers name: by its struct page, or by the entry
    that is about to be written."""


class Scope(Enum):
    """What a task in a window works on."""

    MM = "its mm"
    """Its own mm and those that its stack names."""
    LOCKED_FOLIOS = "folios that it holds locked"
    """Of any process: reached by the reverse map. Reclaim, migration and splitting take a folio off the LRU and lock it
    before they change anything of it (mm/vmscan.c, shrink_folio_list(); mm/migrate.c, migrate_folio_unmap();
    mm/huge_memory.c, __folio_split()): one that is on the LRU and not locked is not theirs."""
    SYSTEM = "anything"
    """Lists and counters of the whole system."""


@dataclass(frozen=True)
class Window:
    """One window.

    Attributes:
        id: In the project's catalogue of windows; rows that share one are parts of the same window.
        title: What the task is doing.
        functions: A task whose stack has one of them is in the window.
        effects: What may be out of step, and which way.
        scope: Of which things.
        folios: Of which folios.
        made: Those of its effects that concern only mms that no task has yet.
        spinning: The task holds a spinlock all the while: only one that was on a CPU can be there (with PREEMPT_RT
            any). Otherwise it may sleep there.
        write_locked: The task holds the mmap_lock of the mm that it changes for writing all the while: other mms that
            its stack names are as they were.
        seen: Whether a real dump has shown it; else it follows from the source alone.
    """

    id: str
    title: str
    functions: frozenset[str]
    effects: dict[Effect, Way]
    scope: Scope
    spinning: bool = False
    write_locked: bool = False
    seen: bool = False
    made: frozenset[Effect] = frozenset()
    folios: FoliosWorkedOn = FoliosWorkedOn.ANY


def named(names: str) -> frozenset[str]:
    """Functions named with spaces between."""
    return frozenset(names.split())


def effects(high: str = "", either: str = "") -> dict[Effect, Way]:
    """Effects by name: those that can only be too high, and those that can be off either way."""
    out = {Effect[name.upper()]: Way.HIGH for name in high.split()}
    return out | {Effect[name.upper()]: Way.EITHER for name in either.split()}
