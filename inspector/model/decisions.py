"""What the kernel would do with a folio now: reuse or copy it on a write fault, split, collapse, migrate, reclaim it.

All of these depend on one comparison: are there references beyond those that mappings, caches and private data hold?
The kernel's own arithmetic is followed with the stored values, as the kernel would use them.
"""

from __future__ import annotations

from inspector.model.scheme import Scheme
from inspector.records import dataclass


@dataclass(frozen=True)
class FolioSituation:
    """The values of a folio that these decisions depend on.

    Attributes:
        scheme: The kernel's accounting, None when unknown.
        refcount, mapcount: As stored (the mapcount of the folio as a whole, 0-based).
        nr_pages: N.
        cache: References of the page cache; swap: of the swap cache; private: of PG_private; batch: of per-CPU
            batches, which a drain gives back.
        pins: What folio_maybe_dma_pinned() returns.
        is_anon, is_ksm, is_hugetlb: Kind of the folio.
        on_lru, mlocked, unevictable, writeback, locked, dirty, swapbacked: Its flags.
        in_locked_vma: Whether a VMA with VM_LOCKED maps it.
        free_swap: Pages for which there is swap space (get_nr_swap_pages()), None when that is not known.
        maybe_shared: FOLIO_MM_IDS_SHARED (6.15 and later), else None.
        others: What holds references beyond the expected ones, as far as it is known, with their numbers.
        functions: Those of `FUNCTIONS` that this kernel has; empty when that is not known.
        scan_results: Names of its ``enum scan_result``, without ``SCAN_``; empty when that is not known.
        has_mapping: Whether folio->mapping names anything.
        left: By how many the stored mapcount exceeds the entries that the rmap walk leads to, which are all that the
            kernel can unmap; None when that is not known.
        anon_vma_refcount: The refcount of the anon_vma that folio->mapping names; None when that is not known.
        in_tree: Whether the page cache leads to it at its index; None when that is not known.
        space_flags: AS_ flags of its address_space, without ``AS_``.
        min_order: The least order that its file takes (mapping_min_folio_order()).
        migrate_folio: The address_space's operation of that name, by name; "" when it has none, None when that is not
            known.
        migratable: HPG_migratable of a hugetlb folio; None when that is not known.
        poisoned: Whether PG_hwpoison is set on a page of it.
        dirty_entries: Whether an entry that maps it is dirty.
        droppable: Whether all VMAs that map it are VM_DROPPABLE.
        uffd_wp: Whether an entry that maps it is write-protected for userfaultfd.
        not_for_khugepaged: Why no VMA that maps it is one for khugepaged, with its scan result; "" when one is.
        compacts_unevictable: vm.compact_unevictable_allowed; None when that is not known.
    """

    scheme: Scheme | None
    refcount: int
    mapcount: int
    nr_pages: int
    cache: int
    swap: int
    private: int
    batch: int
    pins: bool
    is_anon: bool
    is_ksm: bool
    is_hugetlb: bool
    on_lru: bool
    mlocked: bool
    unevictable: bool
    writeback: bool
    locked: bool
    dirty: bool
    swapbacked: bool
    in_locked_vma: bool
    free_swap: int | None
    maybe_shared: bool | None
    others: tuple[tuple[str, int], ...] = ()
    functions: frozenset[str] = frozenset()
    scan_results: frozenset[str] = frozenset()
    has_mapping: bool = True
    left: int | None = 0
    anon_vma_refcount: int | None = None
    in_tree: bool | None = None
    space_flags: frozenset[str] = frozenset()
    min_order: int = 0
    migrate_folio: str | None = "migrate_folio"
    migratable: bool | None = None
    poisoned: bool = False
    dirty_entries: bool = False
    droppable: bool = False
    uffd_wp: bool = False
    not_for_khugepaged: str = ""
    compacts_unevictable: bool | None = None

    @property
    def expected(self) -> int:
        """folio_expected_ref_count(): mappings, caches and private data."""
        return self.mapcount + self.cache + self.swap + self.private

    @property
    def extra(self) -> int:
        """References beyond the expected ones."""
        return self.refcount - self.expected


@dataclass(frozen=True)
class Decision:
    """One question answered.

    Attributes:
        question: "write fault", "fork", "split", "collapse", "migrate", "reclaim" or "uffd move".
        answer: "reuse", "copy", "share", "yes", "no", or "unknown".
        reason: Why, with the numbers.
        source: The kernel function that decides.
    """

    question: str
    answer: str
    reason: str
    source: str


def sum_text(s: FolioSituation) -> str:
    """The expected references as a sum: ``36 mapped + 16 in the page cache = 52``."""
    parts = [(s.mapcount, "mapped"), (s.cache, "in the page cache"), (s.swap, "in the swap cache")]
    words = [f"{n} {word}" for n, word in [*parts, (s.private, "private")] if n]
    return f"{' + '.join(words) or 'nothing'} = {s.expected}" if len(words) > 1 else words[0] if words else "0 expected"


def on_shared_write(s: FolioSituation) -> Decision:
    """What a write through a shared mapping of a file does: mm/memory.c, do_shared_fault() and wp_page_shared()."""
    source = "hugetlb_wp()" if s.is_hugetlb else "wp_page_shared()"
    return Decision("write fault", "reuse", "a shared mapping writes to the page of the file itself", source)


def on_write_fault(s: FolioSituation, *, exclusive: bool, huge: bool) -> Decision:
    """What a write to a page through a read-only entry of a writable private VMA leads to.

    mm/memory.c, do_wp_page() and wp_can_reuse_anon_folio(); mm/huge_memory.c, do_huge_pmd_wp_page(); mm/hugetlb.c,
    hugetlb_wp().

    Args:
        s: The folio.
        exclusive: PG_anon_exclusive of the page, or of the head under a huge entry.
        huge: Whether a huge entry maps it.
    """
    question, source = "write fault", "do_wp_page()"
    if s.is_hugetlb:
        source = "hugetlb_wp()"
    elif huge:
        source = "do_huge_pmd_wp_page()"
    if not s.is_anon:
        return Decision(question, "copy", "a page of a file is copied for a private mapping", source)
    if s.is_ksm:
        return Decision(question, "copy", "KSM pages are shared by intention", source)
    if exclusive:
        return Decision(question, "reuse", "the page is marked exclusive to the process", source)
    if s.is_hugetlb:
        if s.mapcount == 1:
            return Decision(question, "reuse", "not marked exclusive, but this is the only mapping", source)
        return Decision(question, "copy", f"{s.mapcount} mappings share it", source)
    if s.nr_pages > 1 and not huge:
        return _large_by_pte(s, question)
    allowed = 1 + s.swap
    what = "the mapping's own" + (f" and {s.swap} of the swap cache, if that can be freed" if s.swap else "")
    if s.refcount - (0 if huge else s.batch) <= allowed:
        drained = f" once {s.batch} in per-CPU batches are drained" if s.batch and not huge else ""
        return Decision(question, "reuse", f"the only reference is {what}{drained}", source)
    reason = f"{_held(s.refcount)}, {allowed} allowed: {what}"
    if huge:
        return Decision(question, "copy", f"{reason}; the PMD is split and one page copied", source)
    return Decision(question, "copy", reason, source)


def _large_by_pte(s: FolioSituation, question: str) -> Decision:
    """A page of a large folio that is not marked exclusive."""
    source = "wp_can_reuse_anon_folio()"
    if s.scheme in (Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT):
        source = "__wp_can_reuse_large_anon_folio()"
        if s.mapcount <= 1:
            return Decision(question, "copy", "only one page is mapped: the folio is let go", source)
        if s.maybe_shared:
            return Decision(question, "copy", "the folio is flagged as shared between processes", source)
        if s.mapcount == s.refcount - s.swap:
            return Decision(question, "reuse", f"all {s.refcount} references are mappings of one process", source)
        return Decision(question, "copy", f"{s.refcount} references, {s.mapcount} of them mappings", source)
    if s.scheme in (Scheme.OLD, Scheme.SUBPAGES):
        if s.refcount == 1 + s.swap:
            return Decision(question, "reuse", "this mapping holds the folio's only reference", "do_wp_page()")
        return Decision(question, "copy", f"{s.refcount} references to the folio, 1 allowed", "do_wp_page()")
    if s.scheme is Scheme.RMAP68 and s.refcount == 1 + s.swap:
        return Decision(question, "unknown", "copied from 6.8 on, reused before", "do_wp_page()")
    return Decision(question, "copy", "pages of large folios are reused only when marked exclusive", source)


def on_fork(s: FolioSituation, *, exclusive: bool) -> Decision:
    """What fork does with a page of private memory.

    include/linux/rmap.h, folio_try_dup_anon_rmap_*() and folio_needs_cow_for_dma(): an exclusive page that may be
    pinned is copied at once, for the child must not share what a device writes to.
    """
    question, source = "fork", "folio_try_dup_anon_rmap_pte()"
    if exclusive and s.pins:
        reason = "it is exclusive and may be pinned; unless the process has never pinned anything (MMF_HAS_PINNED)"
        return Decision(question, "copy", reason, source)
    if exclusive:
        return Decision(question, "share", "parent and child map it read-only, and it is exclusive no more", source)
    return Decision(question, "share", "parent and child map it read-only", source)


FUNCTIONS = (
    "folio_check_splittable",
    "split_huge_page_to_list_to_order",
    "split_huge_page_to_list",
    "can_split_folio",
    "hpage_collapse_scan_pmd",
    "add_to_swap",
    "isolate_hugetlb",
    "folio_isolate_hugetlb",
    "move_pages_ptes",
)
"""Functions that kernels have or lack, by which it is named what decides."""

_LOCKED = "it is locked (PG_locked): the task at work on it has to unlock it first"
_PINNED = "it is pinned (FOLL_PIN): the task or driver that pinned it uses its address"
_TRUNCATED = "folio->mapping is 0: it was truncated, and is freed when its last reference goes"
_RELEASED = "; its private data has to go first (filemap_release_folio())"


def _named(s: FolioSituation, *names: str) -> str:
    """The first of some functions that this kernel has, the last where it has none of them."""
    return next((name for name in names if name in s.functions), names[-1]) + "()"


def may_split(s: FolioSituation) -> Decision:
    """Whether a caller that holds one reference of its own can lock the folio and split it into smaller ones.

    mm/huge_memory.c, deferred_split_scan() and split_huge_pages_pid() try the lock; then in this order
    split_huge_page_to_list() (6.1), split_huge_page_to_list_to_order() (6.12), folio_check_splittable() and
    __folio_split() (7.3): the mapping, writeback, the anon_vma (folio_get_anon_vma() of mm/rmap.c) or the least order
    of the file, references, what unmap_folio() leaves, the page cache.
    """
    question = "split"
    entry = _named(s, "folio_check_splittable", "split_huge_page_to_list_to_order", "split_huge_page_to_list")
    inner = "__folio_split()" if "folio_check_splittable" in s.functions else entry
    if s.nr_pages == 1:
        return Decision(question, "no", "it is one page", "can_split_folio()")
    if s.is_hugetlb:
        return Decision(question, "no", "hugetlb folios are not split", entry)
    if s.locked:
        return Decision(question, "no", _LOCKED, "folio_trylock()")
    if not s.has_mapping:
        return Decision(question, "no", f"{_TRUNCATED} (-EBUSY)", entry)
    if s.writeback:
        return Decision(question, "no", "it is under writeback (-EBUSY)", entry)
    refused = _not_split(s)
    if refused:
        return Decision(question, "no", refused[0], refused[1] or inner)
    source = inner if "folio_check_splittable" in s.functions else "can_split_folio()"
    found = _by_references(s, question, source, "-EAGAIN")
    if found.answer == "no":
        return found
    if s.left:
        reason = f"{_stays_mapped(s)}, and references of mappings remain (-EAGAIN)"
        return Decision(question, "no", reason, "folio_ref_freeze()")
    if s.in_tree is False:
        reason = "the page cache does not lead to it at its index (-EAGAIN)"
        return Decision(question, "no", reason, inner)
    return found


def _not_split(s: FolioSituation) -> tuple[str, str] | None:
    """Why the anon_vma or the file of a large folio forbids splitting it, and which function says so, "" for its own.

    folio_get_anon_vma() of mm/rmap.c; mapping_min_folio_order() of include/linux/pagemap.h.
    """
    if s.is_anon and not s.mapcount:
        return "it is anonymous and not mapped: its anon_vma may be gone (-EBUSY)", "folio_get_anon_vma()"
    if s.is_anon and s.anon_vma_refcount == 0:
        return "the refcount of its anon_vma is 0: it has been freed (-EBUSY)", "folio_get_anon_vma()"
    if not s.is_anon and s.nr_pages <= 1 << s.min_order:
        return f"its file takes no folios below order {s.min_order} (-EINVAL)", ""
    return None


def _stays_mapped(s: FolioSituation) -> str:
    """That unmapping by the rmap leaves a folio mapped, by the counter."""
    reached = s.mapcount - (s.left or 0)
    return f"its mapcount is {s.mapcount}, but the rmap walk leads to {reached}: it stays mapped"


def may_collapse(s: FolioSituation) -> Decision:
    """Whether khugepaged could take the page of a small anonymous folio into a huge page.

    mm/khugepaged.c, hpage_collapse_scan_pmd() (7.3: collapse_scan_pmd()) and __collapse_huge_page_isolate(); for the
    VMA hugepage_vma_check() (6.1), thp_vma_allowable_orders() (later). Whether it would depends on the other pages of
    the range, on what /sys/kernel/mm/transparent_hugepage says, and on how recently they were used.
    """
    question = "collapse"
    source = "hpage_collapse_scan_pmd()"
    if s.functions and "hpage_collapse_scan_pmd" not in s.functions:
        source = "collapse_scan_pmd()"
    if s.not_for_khugepaged:
        return Decision(question, "no", s.not_for_khugepaged, source)
    if s.uffd_wp:
        error = "SCAN_PTE_UFFD" if "PTE_UFFD" in s.scan_results else "SCAN_PTE_UFFD_WP"
        return Decision(question, "no", f"userfaultfd write-protects it ({error})", source)
    given_up = s.is_anon and not s.swapbacked and not s.dirty_entries and not s.droppable
    if given_up and "PAGE_LAZYFREE" in s.scan_results:
        return Decision(question, "no", "it was given up with MADV_FREE (SCAN_PAGE_LAZYFREE)", source)
    if not s.on_lru:
        word = "it waits in a per-CPU batch" if s.batch else "it is on no LRU list"
        # lru_add_drain() comes first when mmap_lock was taken for this (collapse_huge_page()), the scan does not wait.
        return Decision(question, "no", f"{word} (SCAN_PAGE_LRU)", source)
    if s.locked:
        return Decision(question, "no", f"{_LOCKED} (SCAN_PAGE_LOCK)", source)
    return _by_references(s, question, source, "SCAN_PAGE_COUNT")


def may_migrate(s: FolioSituation) -> Decision:
    """Whether migration and compaction can move the folio without waiting.

    mm/migrate.c in its order: folio_isolate_lru() or isolate_hugetlb(), migrate_folio_unmap() or
    unmap_and_move_huge_page(), move_to_new_folio(), folio_migrate_mapping(). What is locked or under writeback is left
    alone unless the caller may wait (MIGRATE_SYNC); batches are drained before (lru_add_drain_all()). What compaction
    leaves alone beside that is from mm/compaction.c, isolate_migratepages_block().
    """
    question, source = "migrate", "folio_migrate_mapping()"
    if s.is_hugetlb and s.migratable is False:
        name = _named(s, "folio_isolate_hugetlb", "isolate_hugetlb")
        return Decision(question, "no", "HPG_migratable is not set: it is isolated, or not in use yet", name)
    if not s.on_lru and not s.is_hugetlb:
        word = "it waits in a per-CPU batch" if s.batch else "it is on no LRU list"
        return Decision(question, "yes" if s.batch and s.extra == s.batch else "no", word, "folio_isolate_lru()")
    unmap = "unmap_and_move_huge_page()" if s.is_hugetlb else "migrate_folio_unmap()"
    if s.locked:
        return Decision(question, "no", f"{_LOCKED}; only a caller that may sleep waits for that", unmap)
    if s.writeback and not s.is_hugetlb:
        reason = "it is under writeback (-EBUSY); only fully synchronous migration waits for its end"
        return Decision(question, "no", reason, unmap)
    if not s.has_mapping and s.private:
        return Decision(question, "no", "truncated, it still has private data, which is only freed (-EAGAIN)", unmap)
    if s.left:
        return Decision(question, "no", f"{_stays_mapped(s)} (-EAGAIN)", unmap)
    refused = _not_moved(s)
    if refused:
        return Decision(question, "no", *refused)
    if s.pins and s.extra - s.batch > 0:
        return Decision(question, "no", _PINNED, source)
    found = _by_references(s, question, source, "-EAGAIN", drained=True)
    if found.answer == "no":
        return found
    return Decision(question, "yes", found.reason + _but_for(s), source)


def _not_moved(s: FolioSituation) -> tuple[str, str] | None:
    """Why the file of a folio forbids moving it, and the function that says so; those of the swap cache can be moved.

    mm/migrate.c, move_to_new_folio() and fallback_migrate_folio(); mm/secretmem.c.
    """
    if s.is_anon or s.swap or not s.has_mapping:
        return None
    if "INACCESSIBLE" in s.space_flags:
        return "its address_space is inaccessible (AS_INACCESSIBLE, -EOPNOTSUPP)", "move_to_new_folio()"
    if s.migrate_folio == "secretmem_migrate_folio":
        return "memory of memfd_secret() is not moved (-EBUSY)", "secretmem_migrate_folio()"
    if s.migrate_folio == "" and s.dirty and not s.is_hugetlb:
        reason = "its file system has no migrate_folio() and it is dirty: it must be written back first (-EBUSY)"
        return reason, "fallback_migrate_folio()"
    return None


def _but_for(s: FolioSituation) -> str:
    """What a folio that can be moved has to wait for, and why compaction leaves it where it is."""
    out = ""
    if not s.is_anon and not s.swap and s.has_mapping and not s.is_hugetlb:
        if s.migrate_folio is None:
            out += "; whether its file has a migrate_folio() is not in the dump"
        elif not s.migrate_folio and s.private:
            out += _RELEASED
    if s.is_hugetlb:
        out += "; compaction leaves hugetlb folios alone"
    elif s.nr_pages > 1:
        out += "; compaction leaves large folios alone unless it wants more than their size"
    elif s.unevictable and s.compacts_unevictable is False:
        out += "; compaction leaves it alone (vm.compact_unevictable_allowed is 0)"
    return out


def may_reclaim(s: FolioSituation) -> Decision:
    """Whether reclaim can free it now: swap it out, or drop it from the page cache.

    mm/vmscan.c, shrink_folio_list(), in its order; __remove_mapping(); try_to_unmap_one() in mm/rmap.c for VM_LOCKED
    and for what MADV_FREE gave up. How recently it was used is not asked: that only puts it off. Nor is whether its
    memory cgroup may swap.
    """
    question, source = "reclaim", "shrink_folio_list()"
    reason = _kept(s)
    if reason:
        return Decision(question, "no", reason, source)
    if s.swapbacked and not s.swap and s.free_swap == 0:
        place = _named(s, "add_to_swap", "folio_alloc_swap")
        return Decision(question, "no", "there is no free swap, and its content is nowhere else", place)
    reason = _kept_once_unmapped(s)
    if reason:
        return Decision(question, "no", reason, source)
    found = _by_references(s, question, "__remove_mapping()", "kept")
    if found.answer == "no" or not s.private:
        return found
    return Decision(question, "yes", found.reason + _RELEASED, found.source)


def _kept(s: FolioSituation) -> str:
    """Why shrink_folio_list() keeps a folio before it unmaps it, "" when it does not."""
    if s.is_hugetlb:
        return "hugetlb is never reclaimed"
    if s.mlocked:
        return "it is mlocked"
    if s.unevictable:
        return "it is on the unevictable list, which reclaim does not scan"
    if not s.on_lru:
        return "it waits in a per-CPU batch" if s.batch else "it is on no LRU list"
    if s.locked:
        return _LOCKED
    if s.poisoned:
        return "a page of it is poisoned (PG_hwpoison): it is never given back"
    if "UNEVICTABLE" in s.space_flags and not s.is_anon and not s.swap:
        return "its address_space is unevictable (AS_UNEVICTABLE, folio_evictable())"
    if s.writeback:
        return "it is under writeback"
    if s.in_locked_vma:
        return "a VMA with VM_LOCKED maps it: try_to_unmap_one() mlocks it instead"
    if s.pins and s.extra > 0:
        return "it is pinned (FOLL_PIN)"
    if s.pins and s.is_anon and s.swapbacked and not s.swap:
        return f"with {s.refcount} references it counts as pinned (folio_maybe_dma_pinned()), though mappings hold them"
    return ""


def _kept_once_unmapped(s: FolioSituation) -> str:
    """Why shrink_folio_list() keeps a folio that it tried to unmap, "" when it does not."""
    if s.is_anon and not s.swapbacked and (s.dirty or s.dirty_entries) and not s.droppable:
        return "it was written to after MADV_FREE gave it up: try_to_unmap_one() makes it swap-backed again"
    if s.left:
        return f"{_stays_mapped(s)} when try_to_unmap() is done"
    if (s.dirty or s.dirty_entries) and not s.is_anon and not s.swapbacked:
        return "it is dirty: the flusher has to write it back first"
    return _TRUNCATED if not s.has_mapping and not s.swap else ""


def _held(references: int) -> str:
    return "1 reference" if references == 1 else f"{references} references"


def _by_references(s: FolioSituation, question: str, source: str, error: str, *, drained: bool = False) -> Decision:
    extra = s.extra - (s.batch if drained else 0)
    if extra == 0:
        tail = f", {s.batch} more wait in per-CPU batches, which are drained" if s.batch and drained else ""
        return Decision(question, "yes", f"{_held(s.refcount)}: {sum_text(s)}{tail}", source)
    if extra < 0:
        reason = f"{_held(s.refcount)}, fewer than {sum_text(s)}: the counts are damaged ({error})"
        return Decision(question, "no", reason, source)
    more = f"{extra} more than {sum_text(s)} ({error})"
    if s.others:
        more += f": {', '.join(f'{word} {n}' for word, n in s.others)}"
    return Decision(question, "no", f"{_held(s.refcount)}, {more}", source)
