"""How folios begin: each way in which the kernel makes one and maps it for the first time, and the words it leaves.

mm/memory.c, mm/huge_memory.c, mm/khugepaged.c, mm/hugetlb.c, mm/userfaultfd.c, mm/migrate.c, mm/filemap.c and
mm/shmem.c, the functions that each birth names. What happens to a folio later changes most of these words, so a birth
is excluded by words alone that nothing changes any more: what the folio holds, its size, the class of VMA it is in.
What else differs from a folio that was just born is what has happened since.
"""

from __future__ import annotations

from collections.abc import Iterator

from inspector.model.interface import Op
from inspector.model.operations import apply
from inspector.model.preconditions import RefusedError
from inspector.model.scheme import Scheme
from inspector.model.state import Folio, FolioKind, fresh
from inspector.records import dataclass

_ANON = (FolioKind.ANON,)
_HUGETLB = (FolioKind.HUGETLB_ANON,)
_CACHE = (FolioKind.FILE, FolioKind.SHMEM)
_ANY = (*_ANON, *_CACHE, *_HUGETLB, FolioKind.HUGETLB_FILE)
_HUGE = (*_HUGETLB, FolioKind.HUGETLB_FILE)

_SMALL, _MTHP, _PMD, _WHOLE = "one page", "less than a PMD", "a PMD", "any"


@dataclass(frozen=True)
class Birth:
    """One way in which a folio is made.

    Attributes:
        name: In words.
        source: The kernel's file and function.
        kinds: What such a folio holds.
        sizes: "one page", "less than a PMD" (several pages), "a PMD", "any".
        vma: The VMA that it must be in: "anonymous" (no vm_ops), "file" or "any".
        exclusive: Whether its pages are exclusive to the process: True, False, or None where it depends.
        flags: PG_ flags that it leaves set, besides uptodate.
        entry: What it writes to the page table.
        large_since: The first scheme on which it makes folios of several pages less than a PMD; None: on none.
        alike: Why another birth leaves the same words, "" where none does.
    """

    name: str
    source: str
    kinds: tuple[FolioKind, ...]
    sizes: tuple[str, ...]
    vma: str
    exclusive: bool | None
    flags: frozenset[str]
    entry: str
    large_since: Scheme | None = None
    alike: str = ""

    @property
    def takes_over(self) -> bool:
        """Whether it leaves the words of an earlier folio: then another birth came before."""
        return len(self.kinds) > 1 and FolioKind.ANON in self.kinds


_SWAPBACKED = frozenset({"swapbacked"})
_FAULT = "young; dirty and writable where the VMA is; soft-dirty with dirty"

COLLAPSE = Birth(
    "collapse by khugepaged or MADV_COLLAPSE",
    "mm/khugepaged.c, collapse_huge_page()",
    _ANON,
    (_PMD, _MTHP),
    "anonymous",
    True,
    _SWAPBACKED,
    "a PMD, from 7.x on PTEs as well; young, dirty, soft-dirty, writable where the VMA is",
    alike="a fault leaves the same words: it clears what a collapse copies",
)

SWAP_IN = Birth(
    "swap-in",
    "mm/memory.c, do_swap_page(); mm/swapfile.c, unuse_pte() at swapoff",
    _ANON,
    (_SMALL, _MTHP),
    "any",
    None,
    _SWAPBACKED,
    "clean and read-only but for a write to an exclusive page; soft-dirty and uffd-wp as in the swap entry",
    Scheme.LARGE,
)

COPY_ON_WRITE = Birth(
    "copy on write",
    "mm/memory.c, wp_page_copy()",
    _ANON,
    (_SMALL,),
    "any",
    True,
    _SWAPBACKED,
    "young, dirty, soft-dirty, and writable where the VMA is; when it only unshares, clean and read-only",
)

DRIVER = Birth(
    "page of a driver",
    "mm/memory.c, __do_fault(), of a driver that names its file in page->mapping (perf_mmap_fault())",
    (FolioKind.FILE,),
    (_WHOLE,),
    "file",
    None,
    frozenset(),
    "young; writable where the VMA is",
    Scheme.OLD,
)

BIRTHS: tuple[Birth, ...] = (
    Birth(
        "page fault on anonymous memory",
        "mm/memory.c, do_anonymous_page()",
        _ANON,
        (_SMALL, _MTHP),
        "anonymous",
        True,
        _SWAPBACKED,
        _FAULT,
        Scheme.RMAP68,
    ),
    Birth(
        "huge page fault",
        "mm/huge_memory.c, do_huge_pmd_anonymous_page()",
        _ANON,
        (_PMD,),
        "anonymous",
        True,
        _SWAPBACKED,
        "a PMD; young, dirty, soft-dirty, writable where the VMA is",
        alike="a collapse leaves the same words: it copies what a fault clears",
    ),
    COLLAPSE,
    COPY_ON_WRITE,
    Birth(
        "first write to a private mapping of a file",
        "mm/memory.c, do_cow_fault()",
        _ANON,
        (_SMALL,),
        "file",
        True,
        _SWAPBACKED,
        "young, dirty, soft-dirty, and writable where the VMA is",
    ),
    Birth(
        "copy for a child at fork, of a page that may be pinned",
        "mm/memory.c, copy_present_page()",
        _ANON,
        (_SMALL,),
        "any",
        True,
        _SWAPBACKED,
        "dirty and writable where the child's VMA is; not marked for userfaultfd but where it was",
    ),
    Birth(
        "copy of a KSM page at swap-in",
        "mm/ksm.c, ksm_might_need_to_copy()",
        _ANON,
        (_SMALL,),
        "any",
        True,
        frozenset({"swapbacked", "dirty"}),
        "clean and read-only but for a write; soft-dirty and uffd-wp as in the swap entry",
    ),
    Birth(
        "breakpoint of a uprobe",
        "kernel/events/uprobes.c, __replace_page(), up to 6.15",
        _ANON,
        (_SMALL,),
        "file",
        True,
        _SWAPBACKED,
        "clean and read-only",
    ),
    SWAP_IN,
    Birth(
        "UFFDIO_COPY or UFFDIO_ZEROPAGE",
        "mm/userfaultfd.c, mfill_atomic_install_pte()",
        _ANON,
        (_SMALL,),
        "any",
        True,
        _SWAPBACKED,
        "young, dirty, soft-dirty, and writable where the VMA is; uffd-wp where it was asked for",
    ),
    Birth(
        "migration",
        "mm/migrate.c, folio_migrate_mapping() and remove_migration_pte()",
        _ANY,
        (_WHOLE,),
        "any",
        None,
        frozenset(),
        "as in the migration entry: young and dirty from 6.1 on, soft-dirty, uffd-wp, writable",
        Scheme.OLD,
    ),
    Birth(
        "a split",
        "mm/huge_memory.c, __split_huge_page_tail() (__split_folio_to_order() since 6.15)",
        (*_ANON, *_CACHE),
        (_SMALL, _MTHP),
        "any",
        None,
        frozenset(),
        "as it was for that page",
        Scheme.LARGE,
    ),
    Birth(
        "read or fault of a file",
        "mm/filemap.c, filemap_add_folio() and set_pte_range() (do_set_pte() before 6.6)",
        (FolioKind.FILE,),
        (_WHOLE,),
        "file",
        None,
        frozenset(),
        "young but for fault-around; dirty and writable for a write to a shared mapping",
        Scheme.OLD,
    ),
    DRIVER,
    Birth(
        "fault or write of shmem, or its swap-in",
        "mm/shmem.c, shmem_get_folio_gfp()",
        (FolioKind.SHMEM,),
        (_WHOLE,),
        "file",
        None,
        _SWAPBACKED,
        "as of a file",
        Scheme.OLD,
    ),
    Birth(
        "UFFDIO_COPY of shmem",
        "mm/userfaultfd.c, mfill_atomic_install_pte(), for mm/shmem.c",
        (FolioKind.SHMEM,),
        (_SMALL,),
        "file",
        None,
        _SWAPBACKED,
        "young, dirty, soft-dirty, and writable where the VMA is; uffd-wp where it was asked for",
    ),
    Birth(
        "collapse of a file or of shmem",
        "mm/khugepaged.c, collapse_file()",
        _CACHE,
        (_PMD,),
        "file",
        None,
        frozenset(),
        "none at first: PTEs were taken away, and the next fault maps it",
    ),
    Birth(
        "fault on private hugetlb memory",
        "mm/hugetlb.c, hugetlb_no_page()",
        _HUGETLB,
        (_WHOLE,),
        "any",
        True,
        frozenset(),
        "young, dirty, and writable where the VMA is",
    ),
    Birth(
        "copy of a hugetlb folio: on write, or at fork",
        "mm/hugetlb.c, hugetlb_wp() and hugetlb_install_folio()",
        _HUGETLB,
        (_WHOLE,),
        "any",
        True,
        frozenset(),
        "young, dirty, and writable where the VMA is",
    ),
    Birth(
        "UFFDIO_COPY of hugetlb",
        "mm/hugetlb.c, hugetlb_mfill_atomic_pte()",
        _HUGE,
        (_WHOLE,),
        "any",
        None,
        frozenset(),
        "young, dirty, and writable where the VMA is; uffd-wp where it was asked for",
    ),
    Birth(
        "fault or fallocate() of a hugetlb file",
        "mm/hugetlb.c, hugetlb_no_page(); fs/hugetlbfs/inode.c, hugetlbfs_fallocate()",
        (FolioKind.HUGETLB_FILE,),
        (_WHOLE,),
        "any",
        None,
        frozenset(),
        "young; dirty and writable where the VMA is shared and writable",
    ),
)
"""Every birth of a folio that the rmap counts, but for device memory and for pages of drivers that name no file."""

_DIRTY = ("young", "dirty", "a PMD")
"""How the entries begin that a birth leaves dirty where it is for a write."""

_AGES = (Scheme.OLD, Scheme.SUBPAGES, Scheme.RMAP68, Scheme.LARGE, Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT)


@dataclass(frozen=True)
class FolioSeen:
    """What is known of a folio whose birth is in question.

    Attributes:
        state: Its counters and mappings.
        flags: PG_ flags of its head.
        in_file_vma, in_anon_vma: Whether a VMA that maps it has vm_ops, and whether one has none.
        is_ksm: Whether it is a KSM page.
        entry_dirty: Whether an entry that maps it is dirty; None where none maps it.
        collapses_less: Whether this kernel's khugepaged makes folios less than a PMD.
    """

    state: Folio
    flags: frozenset[str]
    in_file_vma: bool
    in_anon_vma: bool
    is_ksm: bool
    entry_dirty: bool | None
    collapses_less: bool = False


@dataclass(frozen=True)
class BirthVerdict:
    """A birth beside a folio as it is.

    Attributes:
        birth: The birth.
        against: Lasting words that contradict it; empty where it may have been this one.
        since: What must have happened since: words that later events change.
    """

    birth: Birth
    against: tuple[str, ...]
    since: tuple[str, ...]


def judge_births(seen: FolioSeen) -> list[BirthVerdict]:
    """All births beside a folio, those that agree first and of them those after which the least has happened."""
    found = [BirthVerdict(birth, tuple(_against(birth, seen)), tuple(_since(birth, seen))) for birth in BIRTHS]
    return sorted(found, key=lambda j: (len(j.against) > 0, j.birth.takes_over, len(j.since)))


def newborn(birth: Birth, like: Folio, mm: int = 1) -> Folio | None:
    """The state that a birth leaves of a folio of the same kernel, size and kind: mapped once, by one mm.

    None where the model has no first mapping for it: page cache that is not mapped yet, a folio that takes over the
    mappings of another.
    """
    if birth.exclusive is not True or like.kind not in birth.kinds:
        return None
    start = fresh(like.scheme, like.order, like.kind, like.pmd_order, like.pud_order)
    name = "hugetlb_add_new_anon_rmap" if like.kind.is_hugetlb else "folio_add_new_anon_rmap"
    try:
        return apply(start, Op(name, mm=mm, exclusive=True)).folio
    except RefusedError:
        return None


def _large(birth: Birth, seen: FolioSeen) -> bool:
    """Whether it makes folios of several pages that are less than a PMD."""
    if birth is COLLAPSE:
        return seen.collapses_less
    return birth.large_since is not None and _AGES.index(seen.state.scheme) >= _AGES.index(birth.large_since)


def _size(order: int, pmd_order: int) -> str:
    return _SMALL if order == 0 else _MTHP if order < pmd_order else _PMD


def _against(birth: Birth, seen: FolioSeen) -> Iterator[str]:
    f = seen.state
    if f.kind not in birth.kinds:
        yield f"it makes {' or '.join(sorted({k.value for k in birth.kinds}))} folios, and this one is {f.kind.value}"
        return
    cached = bool(seen.flags & {"uptodate", "lru"})
    if f.kind is FolioKind.FILE and cached == (birth is DRIVER):
        yield "pages of a file are on an LRU list and up to date, those of a driver are neither"
    size = _size(f.order, f.pmd_order)
    if _WHOLE not in birth.sizes and size not in birth.sizes:
        yield f"it makes folios of the size {' or '.join(birth.sizes)}, and this one has order {f.order}"
    elif size == _MTHP and not f.kind.is_hugetlb and not _large(birth, seen):
        yield f"on this kernel it makes no folios of order {f.order}"
    if birth.vma == "anonymous" and seen.in_file_vma and not seen.in_anon_vma:
        yield "it is for VMAs without vm_ops, and the VMA that maps it has some"
    if birth.vma == "file" and f.kind.is_anon and seen.in_anon_vma and not seen.in_file_vma:
        yield "it is for VMAs of files, and the VMA that maps it has no vm_ops"


def _since(birth: Birth, seen: FolioSeen) -> Iterator[str]:
    f = seen.state
    if f.kind not in birth.kinds:
        return
    if "uptodate" not in seen.flags and birth is not DRIVER:
        yield "PG_uptodate was lost: every birth sets it before the first mapping"
    for flag in sorted(birth.flags - seen.flags):
        why = "by MADV_FREE, or never set in VM_DROPPABLE" if flag == "swapbacked" else "it was written out"
        yield f"PG_{flag} was cleared: {why}"
    if seen.is_ksm:
        yield "ksmd made it the shared page (mm/ksm.c, try_to_merge_one_page())"
    if f.kind is FolioKind.ANON:
        yield from _since_anon(birth, seen)
    born = newborn(birth, f)
    if born is not None:
        yield from _since_mapped(born, f)


def _since_anon(birth: Birth, seen: FolioSeen) -> Iterator[str]:
    """What reclaim and its relatives do to the flags of anonymous folios."""
    f, from_elsewhere = seen.state, birth.exclusive is None
    if "dirty" in seen.flags - birth.flags and not from_elsewhere:
        yield "PG_dirty was set: by reclaim, get_user_pages() or KSM, or when a huge PMD was split"
    if f.swapcache and not from_elsewhere:
        yield "it was put into the swap cache (mm/swap_state.c, add_to_swap())"
    if "workingset" in seen.flags and not from_elsewhere:
        yield "PG_workingset was set: it was active before it was deactivated (mm/vmscan.c, shrink_active_list())"
    if birth is SWAP_IN and not f.swapcache and "dirty" not in seen.flags:
        yield "it was read past the swap cache (zram and its like): leaving that sets PG_dirty (folio_free_swap())"
    if birth.entry.startswith(_DIRTY) and birth is not COPY_ON_WRITE and seen.entry_dirty is False:
        yield "its entries were made clean: by reclaim or migration, or when it was swapped out and in"


def _since_mapped(born: Folio, f: Folio) -> Iterator[str]:
    """How the mappings differ from the first one."""
    if born.huge and not f.huge and f.ptes:
        yield "its PMD was split (mm/huge_memory.c, __split_huge_pmd_locked())"
    if not f.ptes and not f.huge:
        yield "it was unmapped"
        return
    mms = len({mm for (mm, _), _ in f.ptes} | {mm for mm, _ in f.huge})
    if mms > 1:
        yield f"fork shared it: {mms} processes map it"
    mapped = {page for (_, page), _ in f.ptes}
    if not f.huge and len(mapped) < f.nr:
        yield f"{f.nr - len(mapped)} of its {f.nr} pages were unmapped"
    if mms == 1 and not (f.exclusive & (mapped or {0})):
        yield "its pages stopped being exclusive: fork, KSM or swap-out, and the others are gone"
