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
        question: "write fault", "fork", "split", "collapse", "migrate" or "reclaim".
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
    reason = f"{s.refcount} references, {allowed} allowed: {what}"
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


_LOCKED = "it is locked (PG_locked): the task at work on it has to unlock it first"
_PINNED = "it is pinned (FOLL_PIN): the task or driver that pinned it uses its address"


def may_split(s: FolioSituation) -> Decision:
    """Whether a caller that holds one reference of its own can lock the folio and split it into smaller ones.

    mm/huge_memory.c, deferred_split_scan() and split_huge_pages_pid() try the lock; split_huge_page_to_list(), from
    6.15 on folio_check_splittable() and __folio_split(); can_split_folio() leaves private data to
    filemap_release_folio(), which takes it away first.
    """
    question, source = "split", "can_split_folio()"
    if s.nr_pages == 1:
        return Decision(question, "no", "it is one page", source)
    if s.is_hugetlb:
        return Decision(question, "no", "hugetlb folios are not split", "split_huge_page_to_list()")
    if s.locked:
        return Decision(question, "no", _LOCKED, "folio_trylock()")
    if s.writeback:
        return Decision(question, "no", "it is under writeback (-EBUSY)", "__folio_split()")
    return _by_references(s, question, source, "-EAGAIN")


def may_collapse(s: FolioSituation) -> Decision:
    """Whether khugepaged could take the page of a small anonymous folio into a huge page.

    mm/khugepaged.c, hpage_collapse_scan_pmd() and __collapse_huge_page_isolate(). Whether it would depends on the
    other pages of the range, on the VMA and on how recently they were used.
    """
    question, source = "collapse", "hpage_collapse_scan_pmd()"
    if not s.on_lru:
        word = "it waits in a per-CPU batch" if s.batch else "it is on no LRU list"
        # lru_add_drain() comes first when mmap_lock was taken for this (collapse_huge_page()), the scan does not wait.
        return Decision(question, "no", f"{word} (SCAN_PAGE_LRU)", source)
    if s.locked:
        return Decision(question, "no", f"{_LOCKED} (SCAN_PAGE_LOCK)", source)
    return _by_references(s, question, source, "SCAN_PAGE_COUNT")


def may_migrate(s: FolioSituation) -> Decision:
    """Whether migration and compaction can move the folio without waiting.

    mm/compaction.c, isolate_migratepages_block(); mm/migrate.c, __unmap_and_move() (6.1) and migrate_folio_unmap(),
    which leave alone what is locked or under writeback unless the caller may wait (MIGRATE_SYNC), and
    folio_migrate_mapping(); batches are drained before (lru_add_drain_all()).
    """
    question, source = "migrate", "folio_migrate_mapping()"
    if not s.on_lru and not s.is_hugetlb:
        word = "it waits in a per-CPU batch" if s.batch else "it is on no LRU list"
        return Decision(question, "yes" if s.batch and s.extra == s.batch else "no", word, "folio_isolate_lru()")
    unmap = "unmap_and_move_huge_page()" if s.is_hugetlb else "migrate_folio_unmap()"
    if s.locked:
        return Decision(question, "no", f"{_LOCKED}; only a caller that may sleep waits for that", unmap)
    if s.writeback and not s.is_hugetlb:
        reason = "it is under writeback (-EBUSY); only fully synchronous migration waits for its end"
        return Decision(question, "no", reason, unmap)
    if s.pins:
        return Decision(question, "no", _PINNED, source)
    return _by_references(s, question, source, "-EAGAIN", drained=True)


def may_reclaim(s: FolioSituation) -> Decision:
    """Whether reclaim can free it now: swap it out, or drop it from the page cache.

    mm/vmscan.c, shrink_folio_list(), in its order; __remove_mapping(); try_to_unmap_one() in mm/rmap.c for VM_LOCKED.
    How recently it was used is not asked: that only puts it off.
    """
    question, source = "reclaim", "shrink_folio_list()"
    reason = _kept(s)
    if reason:
        return Decision(question, "no", reason, source)
    if s.swapbacked and not s.swap and s.free_swap == 0:
        return Decision(question, "no", "there is no free swap, and its content is nowhere else", "folio_alloc_swap()")
    return _by_references(s, question, "__remove_mapping()", "kept")


def _kept(s: FolioSituation) -> str:
    """Why shrink_folio_list() keeps a folio whatever its references are, "" when it does not."""
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
    if s.writeback:
        return "it is under writeback"
    if s.in_locked_vma:
        return "a VMA with VM_LOCKED maps it: try_to_unmap_one() mlocks it instead"
    if s.pins:
        return "it is pinned (FOLL_PIN)"
    if s.dirty and not s.is_anon and not s.swapbacked:
        return "it is dirty: the flusher has to write it back first"
    return ""


def _by_references(s: FolioSituation, question: str, source: str, error: str, *, drained: bool = False) -> Decision:
    extra = s.extra - (s.batch if drained else 0)
    if extra == 0:
        tail = f", {s.batch} more wait in per-CPU batches, which are drained" if s.batch and drained else ""
        return Decision(question, "yes", f"{s.refcount} references: {sum_text(s)}{tail}", source)
    if extra < 0:
        reason = f"{s.refcount} references, fewer than {sum_text(s)}: the counts are damaged ({error})"
        return Decision(question, "no", reason, source)
    more = f"{extra} more than {sum_text(s)} ({error})"
    if s.others:
        more += f": {', '.join(f'{word} {n}' for word, n in s.others)}"
    return Decision(question, "no", f"{s.refcount} references, {more}", source)
