"""All tables of one target, each built once, on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, TypeVar, cast

import numpy as np

from inspector.columns import I32, I64, U64, AnyArray, Builder, Column, Mask, RowSet, take_or
from inspector.coverage import Missing
from inspector.errors import LayoutError
from inspector.layout.flags import MAPPING_TAGS, PAGE_TYPES
from inspector.layout.kernel import Layout
from inspector.layout.memmap import MemMap
from inspector.loops import is_compiled
from inspector.model.expectation import Expected, Rebuilt, expect
from inspector.model.scheme import Scheme
from inspector.records import cached_property
from inspector.scratch import give_back
from inspector.tables.anon_vmas import AnonRmap, build_anon_rmap
from inspector.tables.batches import Batched, read_batches
from inspector.tables.buddy import Buddy, build_buddy
from inspector.tables.charges import odd_charges
from inspector.tables.device_files import is_driver_file
from inspector.tables.files import AddressSpaces, Files, build_address_spaces, build_files, not_in_cache
from inspector.tables.folios import Folios, anon_pages, file_pages, settle_page_mapcount
from inspector.tables.huge_zero import HugeZero, read_huge_zero
from inspector.tables.hugetlb import Hugetlb, build_hugetlb, has_shared_tails, hugetlb_words, optimised
from inspector.tables.i_mmap import FileRmap, build_file_rmap, read_i_mmap_locks
from inspector.tables.kernel_half import KernelHalves, read_kernel_halves, with_named_top_tables
from inspector.tables.ksm import Ksm, build_ksm
from inspector.tables.lru import uses_generations
from inspector.tables.lru_pages import LruPages, read_lru_pages
from inspector.tables.memcg_counters import MemcgCounters, read_memcg_counters
from inspector.tables.memcgs import Lru, read_lru
from inspector.tables.mm_holders import MmHolders, build_mm_holders
from inspector.tables.mms import Mms, build_mms, no_mms, static_mms
from inspector.tables.mmu_gather import Gathered, Gathers, read_gathers
from inspector.tables.mthp_stats import read_mthp_stats
from inspector.tables.node_counters import NodeCounters, read_node_counters
from inspector.tables.node_stats import node_stats
from inspector.tables.notifiers import MmuNotifiers, build_notifiers
from inspector.tables.open_files import OpenFiles, read_open_files
from inspector.tables.overwritten import Stretch
from inspector.tables.pageblocks import BlockTypes, pageblock_types
from inspector.tables.pages import Charges, ClaimedPages, Pages, Sweep, sweep_pages
from inspector.tables.pipes import PipeBuffers, read_pipes
from inspector.tables.ring_buffers import RingBuffers, read_ring_buffers
from inspector.tables.slab_words import SlabWords, read_slab_words, usual_counts
from inspector.tables.slabs import cache_objects, nr_slabs, with_true_caches
from inspector.tables.split_queue_heads import SplitQueueHeads, charged_to, read_split_queues
from inspector.tables.split_queues import SplitLinks, read_split_links
from inspector.tables.stacks import Stacks, build_stacks, no_stacks
from inspector.tables.swap import Swap, build_swap
from inspector.tables.swap_clusters import Clusters, build_clusters
from inspector.tables.tasks import Tasks, build_tasks, no_tasks, tasks_being_dumped
from inspector.tables.tlb_batches import TlbBatches, read_tlb_batches
from inspector.tables.uffd import Uffd, build_uffd
from inspector.tables.vmas import Vmas, VmaTrees, build_vmas, no_vmas, read_page_finders, with_vmas_of_slab
from inspector.tables.vmemmap_entries import VmemmapEntries, read_vmemmap_entries
from inspector.tables.zone_spans import ZoneSpans, read_zone_spans
from inspector.target.target import Target
from inspector.walk.batches import (
    Collector,
    EntryWalk,
    JudgedWalk,
    KeptMappings,
    KnownEntries,
    MakeCollector,
    run_collectors,
)
from inspector.walk.compound import compound_wrong, count_tails
from inspector.walk.counts import Counter, Ground, MappingCounts, count_migration_entries, judge
from inspector.walk.deposits import Deposits, read_deposits
from inspector.walk.ksm_rmap import KsmEntries, KsmRmap
from inspector.walk.linear import Links, Named, PageIndex, links_of, named_by_folios, read_page_index
from inspector.walk.lost_tables import LostTables, find_lost_tables
from inspector.walk.lost_vmas import LostVmas, find_lost_vmas
from inspector.walk.mappings import (
    NOT_FOLLOWED,
    TABLE_UNREADABLE,
    Mappings,
    NonPresent,
    PageTables,
    Walk,
    entry_pages,
)
from inspector.walk.memcg_sums import ChargedFolios, cached_by_vector, charged_folios
from inspector.walk.page_cache import PageCache, compare_cache
from inspector.walk.pagetable import SecondWalk, Sharing, mark_moved, tables_over, walk_page_tables
from inspector.walk.references import ReferenceTerms, break_down, user_folios
from inspector.walk.rss import rebuild_rss
from inspector.walk.shared_tables import HugetlbTables, Sharers, hugetlb_tables
from inspector.walk.swap import SwapRefs, rebuild_swap_refs, referred_entries
from inspector.walk.swap_cache import SwapCache, read_swap_cache
from inspector.walk.table_words import TopTables, read_table_locks, read_top_tables, read_upper_entries
from inspector.walk.unread_tables import pages_behind, tables_not_followed, topless_mms, vmas_behind
from inspector.walk.writeback import Writeback, read_writeback
from inspector.windows.folio_locks import FolioLocks, read_folio_locks
from inspector.windows.in_flight import InFlight, find_in_flight, table_holders
from inspector.windows.lost_pages import LostPages, find_lost_pages
from inspector.windows.vma_locks import VmaLocks, read_vma_locks
from inspector.workers import Share, default_workers, may_fork, share_out, sharing

if TYPE_CHECKING:
    from inspector.rules.page_pieces import PagePiece, PagesPredicate
    from inspector.rules.pieces import Judgement

C = TypeVar("C", bound=Collector)
G = TypeVar("G")

Search = Literal["all page tables", "reverse map", "nothing"]
"""Where mappings are searched for: everywhere; where the reverse map leads; nowhere, for there is none."""


class Found(Protocol[G]):
    """What is found in the pieces of a table, some of which others look through."""

    def gathered(self) -> G:
        """What was found here."""

    def merge(self, gathered: G) -> None:
        """Take in what was found elsewhere."""


class WholeWalkError(Exception):
    """Something asks for a walk of all page tables while others are at one."""


class Aside(Protocol):
    """What other processes do before they take a share of pieces, while this one is at these."""

    def begin(self) -> None:
        """Before the processes start."""

    def do(self, some_left: Callable[[], bool]) -> Any:
        """In each of the others, for as long as pieces are left. `WholeWalkError` is raised by what it cannot do."""

    def done(self, results: list[Any]) -> None:
        """Here, when all of them are through; not called where they did not come to an end."""

    def end(self) -> None:
        """However it went."""


@contextmanager
def _begun(aside: Aside | None) -> Iterator[list[Any]]:
    """While other processes do it, if anything, and take their shares; gives the list that takes their results."""
    results: list[Any] = []
    if aside is None:
        yield results
        return
    aside.begin()
    try:
        yield results
    finally:
        aside.end()
    aside.done(results)


class _WalkShared:
    """The first walk of the page tables in several processes, and what the others do before they take a share of it."""

    def __init__(self, s: Snapshot, counter: Counter, kept: KeptMappings) -> None:
        self._s, self._counter, self._kept = s, counter, kept
        self._aside: Aside | None = None
        self._first: list[Any] = []
        self._running = ExitStack()

    def divide(self) -> None:
        """As in `Sharing`."""
        self._kept.give_up()
        if self._s.aside is not None:
            self._aside, self._s.aside = self._s.aside, None
            self._first = self._running.enter_context(_begun(self._aside))

    def begin(self, some_left: Callable[[], bool]) -> None:
        """As in `Sharing`."""
        if self._aside is not None:
            self._first = [self._s.do_aside(self._aside, some_left)]
        self._counter.begin()

    def gathered(self) -> tuple[Any, list[Any]]:
        """As in `Sharing`."""
        return self._counter.gathered(), self._first

    def merge(self, both: tuple[Any, list[Any]]) -> None:
        """As in `Sharing`."""
        self._counter.merge(both[0])
        self._first += both[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)


class Snapshot:
    """What is read: struct pages, tasks, mms, VMAs, and whatever else the kernel keeps lists of.

    Tables are built when first asked for and kept. What could not be read is counted in ``missing``.

    Args:
        target: An opened target.
        overwritten: Stretches of its memory that hold something else than belongs there: they are not read.
    """

    # -- the kernel and what is missing ------------------------------------------------------------------------------

    def __init__(self, target: Target, overwritten: tuple[Stretch, ...] = ()) -> None:
        self.target = target
        self.overwritten = overwritten
        self.missing = Missing()
        self.judged_pages: dict[PagesPredicate, Judgement[PagePiece]] = {}
        """What rules about pages found that were judged together (`inspector.rules.page_pieces`)."""
        self.between_pieces: Callable[[], None] | None = None
        """Called before each piece of a table that is looked through in this process: it may wait, or end the work."""
        self.aside: Aside | None = None
        """What the next processes that have a share of something do first."""
        self._is_aside = False

    _OWN: ClassVar[frozenset[str]] = frozenset(
        ("target", "overwritten", "missing", "judged_pages", "_collected", "known_entries")
    )
    """What each snapshot has of its own: no table, or one that grows."""

    def has_basics(self) -> bool:
        """Whether struct pages, folios, mms and VMAs are read, which nearly every question needs."""
        return {"_sweep", "_vmas"} <= vars(self).keys()

    def share_with(self, other: Snapshot) -> None:
        """Give another snapshot of the same target each table that it lacks and this one has by now.

        For questions that come while tables are being built here: the other builds what else it needs by itself.
        """
        for name, table in dict(vars(self)).items():
            if name not in self._OWN:
                vars(other).setdefault(name, table)

    _READ_BY: ClassVar[dict[str, str]] = {
        "struct pages": "pages",
        "tasks": "tasks",
        "mms": "mms",
        "VMA tree nodes": "vmas",
        "VMAs": "vmas",
        "page tables": "tables",
        "zones and free lists": "buddy",
        "KSM nodes and items": "ksm",
        "userfaultfd contexts": "uffd",
        "MMU notifiers": "notifiers",
        "holders of mms": "mm_holders",
        "hugetlb pools and files": "hugetlb",
        "page cache trees": "files",
        "per-CPU batches": "batches",
        "kernel stacks": "gathers",
        "open files": "open_files",
        "pipes": "pipes",
        "io_uring buffers": "ring_buffers",
        "anon_vmas and chains": "anon_rmap",
        "files and address_spaces": "file_rmap",
        "swap devices": "swap",
        "swap clusters": "swap_clusters",
    }
    """Which table counts each kind of missing thing when it is read."""

    search: Search = "all page tables"
    """Where mappings are searched for."""

    @property
    def has_walked(self) -> bool:
        """Whether the page tables were walked already, so that nothing is saved by asking for less."""
        return "_walked" in vars(self)

    @property
    def gaps(self) -> list[str]:
        """Why the search for mappings does not lead to everything that it should lead to, in sentences."""
        return [] if self.tables_complete else [self.why_incomplete]

    def knows(self, table: str) -> bool:
        """Whether there is such a table: a snapshot of a part has few."""
        return True

    @property
    def nr_workers(self) -> int:
        """Processes that a long look may use at most.

        One on a live kernel, which each new process changes, on a guest, which answers through one connection, and
        where what is read is noted in this one alone.
        """
        memory = self.layout.memory
        is_noted_here = memory.on_read is not None and not memory.shares_notes
        return 1 if self.target.has_one_reader or is_noted_here or not may_fork() else default_workers()

    def share_out(
        self,
        nr_pieces: int,
        look: Callable[[Iterable[int]], None],
        found: Found[G],
        least: int,
        rehearse: Callable[[], None],
    ) -> None:
        """Look through pieces of a table, in several processes where that is worth it.

        Args:
            nr_pieces: How many there are.
            look: Looks through those of some numbers, in ascending order.
            found: What is found.
            least: How many pieces are worth it.
            rehearse: Builds the tables that are looked into, before there are workers, each of which would build them.
        """
        nr = sharing(nr_pieces, self.nr_workers, least)
        if nr == 1:
            look(self._one_by_one(range(nr_pieces)))
            return
        rehearse()
        aside, self.aside = self.aside, None
        known = set(vars(self))

        def here(numbers: Share) -> None:
            look(self._one_by_one(numbers))

        def there(numbers: Share) -> tuple[list[str], G, Any]:
            first = None if aside is None else self.do_aside(aside, numbers.some_left)
            look(numbers)
            return sorted(set(vars(self)) - known), found.gathered(), first

        with _begun(aside) as done_aside:
            for built, gathered, first in share_out(nr_pieces, here, there, nr):
                for name in built:
                    # What could not be read for a table that only some pieces need counts here.
                    getattr(self, name)
                found.merge(gathered)
                done_aside.append(first)

    def do_aside(self, aside: Aside, some_left: Callable[[], bool]) -> Any:
        """Do it in a process that others are at work beside, and forget the tables that it built."""
        known, self._is_aside = set(vars(self)), True
        try:
            return aside.do(some_left)
        finally:
            self._is_aside = False
            for name in set(vars(self)) - known:
                del vars(self)[name]
            give_back(self.nr_pages)

    def _one_by_one(self, numbers: Iterable[int]) -> Iterator[int]:
        for number in numbers:
            if self.between_pieces is not None:
                self.between_pieces()
            yield number

    def read_whole(self, kinds: frozenset[str]) -> set[str]:
        """Read the tables that the kinds of things are in, and say which kinds are missing by then."""
        for kind, table in self._READ_BY.items():
            if kind in kinds:
                try:
                    getattr(self, table)
                except LayoutError as error:
                    if kind not in self.missing.counts:
                        self.missing.add(kind, 1)
                    self.missing.note(f"{kind}: {error.what}")
        return set(self.missing.counts)

    @cached_property
    def layout(self) -> Layout:
        """What this kernel looks like."""
        layout = Layout.probe(self.target)
        layout.memory.overwritten = tuple(
            (each.address, each.address + each.size, each.physical) for each in self.overwritten
        )
        return layout

    def without(self, stretches: tuple[Stretch, ...]) -> Snapshot:
        """Another snapshot of the target, which does not read some stretches of its memory."""
        other = Snapshot(self.target, self.overwritten + stretches)
        memory, mine = other.layout.memory, self.layout.memory
        memory.on_read, memory.shares_notes = mine.on_read, mine.shares_notes
        other.between_pieces = self.between_pieces
        return other

    @property
    def scheme(self) -> Scheme | None:
        """The accounting scheme; None when the evidence is mixed."""
        return self._settled[0]

    @property
    def scheme_evidence(self) -> list[str]:
        """From which types and members the scheme was determined."""
        return [*self.layout.scheme.evidence, *([self._settled[1]] if self._settled[1] else [])]

    @cached_property
    def _settled(self) -> tuple[Scheme | None, str]:
        return settle_page_mapcount(self.layout.scheme.scheme, self.folios, self.pages)

    # -- struct pages and folios -------------------------------------------------------------------------------------

    @cached_property
    def _sweep(self) -> Sweep:
        sweep = sweep_pages(self.layout, self._caches, self.nr_workers)
        self.missing.add("struct pages", sweep.pages.nr_unreadable - self._nr_overwritten)
        return sweep

    @property
    def _caches(self) -> U64:
        """The slab caches whose slabs are wanted."""
        wanted = (self._mm_cachep, self._rmap_item_cache, self._task_cache, self._vma_cache)
        return np.array([cache for cache in wanted if cache], np.uint64)

    @cached_property
    def _slabs(self) -> Sweep:
        """The sweep, its slabs by what their words must have been."""
        return with_true_caches(self.layout, self._sweep, self._caches)

    @property
    def _nr_overwritten(self) -> int:
        """Struct pages that are not read because something else was written there: they are in the dump."""
        size = self.layout.memmap.page_size
        return sum(each.size // size for each in self.overwritten if not each.physical)

    @property
    def pages(self) -> Pages:
        """One row a struct page."""
        return self._sweep.pages

    @property
    def nr_pages(self) -> int:
        """How many struct pages there are, 0 where they are not read yet."""
        return len(self.pages) if "_sweep" in vars(self) else 0

    @property
    def folios(self) -> Folios:
        """One row a compound page."""
        return self._sweep.folios

    @property
    def folio_of_page(self) -> I32:
        """Row in `folios` of the large folio that each page belongs to, -1 for small pages."""
        return self.pages.folio

    def page_type_names(self, rows: AnyArray) -> AnyArray:
        """The name of each page's type, "none" for pages without."""
        names = np.array(["none", *PAGE_TYPES], dtype=np.str_)
        return names[self.pages.type_[rows]]

    @cached_property
    def anon_pages(self) -> Column[np.bool_]:
        """Pages of anonymous folios, hugetlb and KSM included."""
        return anon_pages(self.pages, self.folios)

    @cached_property
    def file_pages(self) -> Column[np.bool_]:
        """Pages of folios that name an address_space, hugetlb included."""
        return file_pages(self.pages, self.folios)

    @cached_property
    def nr_tails(self) -> I64:
        """How many of the pages that each folio should span are tails, whatever head they name."""
        return count_tails(self.pages, self.folios)

    @cached_property
    def folio_whole(self) -> Mask:
        """Folios all of whose struct pages could be read: entries that map the others lead to no folio."""
        pages, folios = self.pages, self.folios
        if not pages.nr_unreadable:
            return np.ones(len(folios), np.bool_)
        lost = pages.where(~pages.words.readable)
        before = np.searchsorted(lost, np.stack([folios.row, folios.row + folios.nr_pages]))
        return folios.readable & (before[0] == before[1])

    @cached_property
    def compound_wrong(self) -> Mask:
        """Folios whose order, cached size, alignment and tails do not agree."""
        return compound_wrong(self.pages, self.folios, self.nr_tails)

    @cached_property
    def hvo_folio(self) -> Mask:
        """Hugetlb folios whose tail struct pages may be aliases of shared ones (vmemmap optimisation)."""
        return has_shared_tails(self.layout, self.pages, self.folios)

    # -- tasks, mms, VMAs --------------------------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> Tasks:
        """One row a task."""

        def slots(known: U64) -> U64:
            return cache_objects(self.layout, self._slabs, self.folios, self._task_cache, known)

        try:
            tasks, missing = build_tasks(self.layout, slots)
        except LayoutError as error:
            self.missing.note(f"tasks: {error.what}")
            tasks, missing = no_tasks(), 1
        self.missing.add("tasks", missing)
        return tasks

    @cached_property
    def being_dumped(self) -> Mask:
        """Tasks whose process is writing a core dump."""
        return tasks_being_dumped(self.layout, self.tasks)

    @cached_property
    def stacks(self) -> Stacks:
        """The kernel stacks of all tasks as frames."""
        try:
            return build_stacks(self.layout, self.tasks)
        except LayoutError as error:
            self.missing.note(f"kernel stacks: {error.what}")
            return no_stacks(self.tasks)

    @cached_property
    def static_mms(self) -> U64:
        """Addresses of the mms that are variables of the kernel: init_mm and efi_mm."""
        return static_mms(self.layout)

    @cached_property
    def _mm_cachep(self) -> int:
        cache = self.layout.variable("mm_cachep")
        if not cache:
            self.missing.note("the mm_struct slab cache cannot be found: mms without a task are not seen")
        return cache or 0

    @cached_property
    def _task_cache(self) -> int:
        return self.layout.variable("task_struct_cachep") or 0

    @cached_property
    def _vma_cache(self) -> int:
        return self.layout.variable("vm_area_cachep") or 0

    def slots_of_vmas(self, known: U64) -> U64:
        """Addresses of all object slots, in use or free, of the vm_area_struct slab cache; some are known."""
        return cache_objects(self.layout, self._slabs, self.folios, self._vma_cache, known)

    @cached_property
    def mm_slots(self) -> U64:
        """Addresses of all object slots, in use or free, of the mm_struct slab cache, ascending."""
        return np.unique(cache_objects(self.layout, self._slabs, self.folios, self._mm_cachep, self.tasks.mm))

    @property
    def mm_slots_whole(self) -> bool:
        """Whether those are all there are: no struct page is missing that may be of a slab of theirs."""
        return len(self.mm_slots) > 0 and not self.mm_slabs_lost

    @cached_property
    def mm_slabs_lost(self) -> bool:
        """Whether struct pages are missing behind which slabs of mm_structs may be."""
        if not self._mm_cachep:
            return True
        found = int((self._slabs.slab_caches == np.uint64(self._mm_cachep)).sum())
        if not self.pages.nr_unreadable:
            return not found
        nr = nr_slabs(self.layout, self._mm_cachep)
        if nr is None and self.pages.nr_unreadable == self._nr_overwritten:
            # A slab of them is not among a few struct pages where every mm of a task is in one that was found.
            used = self.tasks.mm[(self.tasks.mm != 0) & ~np.isin(self.tasks.mm, self.static_mms)]
            return not found or not np.isin(used, self.mm_slots).all()
        return nr != found

    @cached_property
    def mms(self) -> Mms:
        """One row an mm, those without a task included."""
        try:
            mms, missing = build_mms(self.layout, self.tasks, self.mm_slots, whole=self.mm_slots_whole)
        except LayoutError as error:
            self.missing.note(f"mms: {error.what}")
            mms, missing = no_mms(), 1
        self.missing.add("mms", missing)
        return with_named_top_tables(self.layout, self.pages, mms)

    @property
    def mms_complete(self) -> bool:
        """Whether all mms are known: every task and mm was read, and the slab cache of mm_structs was found."""
        missing = self.read_whole(frozenset(("tasks", "mms")))
        return self._mm_cachep != 0 and not self.mm_slabs_lost and not missing & {"tasks", "mms"}

    @cached_property
    def mm_holders(self) -> MmHolders:
        """Who keeps mms from being freed beside their users."""
        holders, missing = build_mm_holders(self.layout, self.tasks, self.ksm, self.uffd)
        self.missing.add("holders of mms", missing)
        return holders

    @cached_property
    def _vmas(self) -> tuple[Vmas, VmaTrees]:
        try:
            vmas, trees = build_vmas(self.layout, self.mms)
            # Nothing that is mapped can be judged without them.
            np.asarray(vmas.flags)
        except LayoutError as error:
            self.missing.note(f"VMAs: {error.what}")
            vmas, trees = no_vmas(self.mms)
            self.missing.add("VMAs", len(self.mms))
            return vmas, trees
        if len(trees.unreadable):
            vmas = with_vmas_of_slab(self.layout, self.mms, vmas, trees, self.slots_of_vmas(vmas.addr))
        self.missing.add("VMA tree nodes", len(trees.unreadable))
        self.missing.add("VMAs", len(trees.missing))
        return vmas, trees

    @property
    def vmas(self) -> Vmas:
        """One row a VMA, ordered by mm and address."""
        return self._vmas[0]

    @property
    def vma_trees(self) -> VmaTrees:
        """What was odd in the trees of VMAs."""
        return self._vmas[1]

    @cached_property
    def vma_tree_sound(self) -> Mask:
        """Mms all of whose VMAs are known: their maple trees were read whole and have no invalid node."""
        sound = np.ones(len(self.mms), np.bool_)
        for damaged in (self.vma_trees.unreadable, self.vma_trees.broken, self.vma_trees.missing):
            sound[damaged] = False
        return sound

    @cached_property
    def vma_finds_pages(self) -> Mask:
        """VMAs whose operations translate special entries themselves, as Xen's grant tables do."""
        ops, which = np.unique(self.vmas.ops, return_inverse=True)
        return read_page_finders(self.layout, ops)[which]

    @cached_property
    def maps_driver_pages(self) -> Mask:
        """address_spaces of the file rmap whose files map pages of drivers, which belong to no page cache."""
        return is_driver_file(self.layout, self.file_rmap.address_spaces.host)

    @cached_property
    def mm_in_motion(self) -> Mask:
        """Mms whose VMAs may be half changed: locked for writing, without a task yet or any more, or torn down."""
        mms = self.mms
        return mms.locked | (mms.users <= 0) | (mms.nr_tasks == 0)

    @cached_property
    def vma_locks(self) -> VmaLocks | None:
        """The locks of VMAs; None where the kernel has none."""
        return read_vma_locks(self)

    @cached_property
    def in_flight(self) -> InFlight:
        """Tasks that are in a window, where they may have left counters and page tables out of step."""
        return find_in_flight(self)

    @property
    def table_holders(self) -> I32:
        """Rows of the tasks that are in a function that has a page table in hand, unlinked or not linked yet."""
        return table_holders(self)

    # -- page tables and what they map -------------------------------------------------------------------------------

    @cached_property
    def _ground(self) -> Ground:
        shared = self.nr_workers > 1
        return Ground.of(self.layout, self.pages, self.folios, self.folio_of_page, self.vmas, shared=shared)

    @property
    def _walk(self) -> Walk:
        return self._walked[0]

    @cached_property
    def _walked(self) -> tuple[Walk, MappingCounts, KeptMappings]:
        if self._is_aside:
            raise WholeWalkError
        return self._walk_and_count(None)

    def _walk_and_count(self, take: Callable[[Mappings], None] | None) -> tuple[Walk, MappingCounts, KeptMappings]:
        """Find and count everything; ``take`` is given the leaf entries of each batch of tables, in this process."""
        ground = self._ground
        nr_workers = self.nr_workers if take is None and is_compiled() else 1
        counter, kept = Counter(ground, shared=nr_workers > 1), KeptMappings()

        def count(found: Mappings) -> None:
            batch = judge(ground, found)
            counter.take(batch)
            kept.add(batch)
            if take is not None:
                take(batch)

        # While a kernel runs on, tables come and go: what was a table when all struct pages were read may be none now.
        is_live = self.target.is_live
        pages = self._pages_now if is_live else lambda _pfns: self.pages
        with _WalkShared(self, counter, kept) as shared:
            sharing = Sharing(nr_workers, shared.divide, shared.begin, shared.gathered, shared.merge)
            walk = walk_page_tables(self.layout, pages, self.mms, self.vmas, count, sharing=sharing)
        if is_live:
            mark_moved(self.layout, self.mms, walk.tables)
        self.missing.add("page tables", int((walk.tables.state == TABLE_UNREADABLE).sum()))
        return walk, counter.counts(), kept

    def _pages_now(self, pfns: I64) -> Pages:
        """The struct pages of some page frames as they are when this is asked."""
        memmap = self.layout.memmap.around(pfns)
        return sweep_pages(replace(self.layout, memmap=memmap), np.empty(0, np.uint64)).pages

    @property
    def tables(self) -> PageTables:
        """One row a page table."""
        return self._walk.tables

    @property
    def nonpresent(self) -> NonPresent:
        """One row a swap, migration or other non-present entry."""
        return self._walk.nonpresent

    @cached_property
    def migration_entries(self) -> Column[np.int32]:
        """Migration entries that name each page, by page row."""
        return count_migration_entries(self.pages, self.nonpresent)

    @cached_property
    def mappings(self) -> Mappings:
        """One row a run of leaf entries: all of them at once. A check sees them a batch at a time (`entry_batches`)."""
        if self._is_aside:
            raise WholeWalkError
        every: Builder[Mappings] = Builder(Mappings)
        if "_walked" in vars(self):
            for batch in self.entry_batches():
                every.add(batch)
        else:
            self._walked = self._walk_and_count(every.add)
        return every.table() or Mappings.empty()

    def entry_batches(self, tables: AnyArray | None = None) -> Iterator[Mappings]:
        """The leaf entries of all page tables, or of those at some rows of `tables`, a batch of tables at a time."""
        walk = self.entry_walk(tables)
        yield from filter(len, (walk[number] for number in range(len(walk))))

    def entry_walk(self, tables: AnyArray | None = None) -> EntryWalk:
        """The same batches, each when it is asked for by its number, and some that are empty."""
        if self._is_aside and tables is None:
            raise WholeWalkError
        kept = KeptMappings.of(self.mappings) if "mappings" in vars(self) else self._walked[2]
        if kept.whole:
            return list(kept.batches(tables))
        return JudgedWalk(
            self._ground, SecondWalk(self.layout, self.mms, self.vmas, self.tables, tables, self.nr_workers)
        )

    @property
    def counts(self) -> MappingCounts:
        """The mappings counted."""
        return self._walked[1]

    def mappings_of(self, pfn: int, nr: int = 1) -> I64:
        """Rows of the mappings that cover any of the pages [pfn, pfn + nr)."""
        m = self.mappings
        end = m.pfn + m.nr.astype(np.int64) * entry_pages(self.layout, m.level)
        return np.flatnonzero((m.pfn < pfn + nr) & (end > pfn))

    @cached_property
    def _collected(self) -> dict[MakeCollector, Collector]:
        return {}

    def collect(self, makers: Iterable[MakeCollector]) -> None:
        """Let these collectors, but for those that have, see all leaf entries in one walk."""
        new = [make for make in dict.fromkeys(makers) if make not in self._collected]
        if self._is_aside and new:
            raise WholeWalkError
        made = {make: make(self) for make in new}
        give_back(self.nr_pages)
        run_collectors(self, list(made.values()))
        self._collected.update(made)
        if not self._walked[2].whole:
            # Only links need it, and it is the longest of all columns.
            vars(self).pop("page_index", None)
            give_back(self.nr_pages)

    def collected(self, make: Callable[[Snapshot], C]) -> C:
        """The collector that ``make`` makes, once it has seen all leaf entries; in a walk of its own if need be."""
        self.collect([make])
        return cast("C", self._collected[make])

    @cached_property
    def known_entries(self) -> KnownEntries:
        """Leaf entries by number, the few that were asked for."""
        return KnownEntries(self)

    def entries(self, ids: I64) -> Mappings:
        """The runs of leaf entries of some numbers (`Mappings.entry_id`), in that order."""
        return self.known_entries.get(ids)

    def tables_over(self, vma_rows: I64) -> I64:
        """Rows of the page tables that may hold entries of some VMAs."""
        return np.flatnonzero(tables_over(self.layout, self.vmas.take(np.unique(vma_rows)), self.tables))

    @cached_property
    def page_tables_locked(self) -> Mask:
        """Which page tables' own locks are held."""
        return read_table_locks(self.layout, self.tables)

    @cached_property
    def upper_entries(self) -> tuple[U64, Mask]:
        """uint64[tables], bool[tables]; the entry that leads to each page table, and which could be read."""
        return read_upper_entries(self.layout, self.tables)

    @cached_property
    def top_tables(self) -> TopTables:
        """The kernel's and user mode's top page tables under page-table isolation; empty without it."""
        return read_top_tables(self.layout, self.mms)

    @cached_property
    def kernel_halves(self) -> KernelHalves:
        """Where the kernel's half of a top page table is not what it is elsewhere."""
        return read_kernel_halves(self.layout, self.mms)

    @cached_property
    def deposits(self) -> Deposits:
        """Page tables deposited for huge PMDs, and the rings that they hang in."""
        return read_deposits(self.layout, self.pages, self.tables)

    @cached_property
    def tables_complete(self) -> bool:
        """Whether every page table was read, so that a count of mappings is not just a lower bound."""
        return not (len(tables_not_followed(self)) or len(topless_mms(self)) or self._mms_lost)

    @property
    def _mms_lost(self) -> bool:
        return bool(self.missing.counts.get("mms") or self.missing.counts.get("tasks") or self.mm_slabs_lost)

    def may_be_mapped_unseen(self, rows: AnyArray) -> Mask:
        """Which pages entries that are not known may map, so that a count of their mappings is a lower bound."""
        behind, zero = self._behind_unread, self.layout.huge_zero_pfn
        if behind is False:
            return np.zeros(len(rows), np.bool_)
        out = np.full(len(rows), behind) if isinstance(behind, bool) else behind[rows]
        # Mappings of the huge zero folio are never counted.
        pfn = self.pages.memmap.pfns_of_rows(np.asarray(rows, np.int64))
        return out & ~((zero >= 0) & (pfn >= zero) & (pfn < zero + (1 << self.layout.pmd_order)))

    @cached_property
    def _behind_unread(self) -> Mask | bool:
        """The same of all pages; True or False for all alike."""
        rows = tables_not_followed(self)
        if self._mms_lost:
            return True
        if not len(rows) and not len(topless_mms(self)):
            return False
        vmas = vmas_behind(self, rows)
        return True if vmas is None else pages_behind(self, vmas)

    @property
    def why_incomplete(self) -> str:
        """Why that is so, a half sentence."""
        if not self._mm_cachep:
            return "the slab cache of mm_structs cannot be found"
        only_mms = self.mm_slabs_lost and not self.missing.counts.keys() & {"mms", "tasks", "page tables"}
        return (
            "struct pages are missing, and address spaces may be behind them" if only_mms else "page tables are missing"
        )

    @property
    def mappings_whole(self) -> bool:
        """Whether all that was searched for mappings could be read; here that is every page table."""
        return self.tables_complete

    @cached_property
    def mm_tables_complete(self) -> Mask:
        """Which mms' page tables were read whole."""
        whole = self.mms.pgd_pfn >= 0
        whole[self.tables.mm_idx[np.isin(self.tables.state, NOT_FOLLOWED)]] = False
        return whole

    def table_owners(self, rows: I64) -> I64:
        """How many mms reach each of the given tables."""
        pfns, counts = np.unique(self.tables.pfn, return_counts=True)
        return counts[np.searchsorted(pfns, self.tables.pfn[rows])]

    @cached_property
    def lost_tables(self) -> LostTables:
        """Page tables that no mm reaches and no list or task holds."""
        return find_lost_tables(self)

    # -- what the model expects --------------------------------------------------------------------------------------

    @cached_property
    def rebuilt(self) -> Rebuilt:
        """What the page tables say, in the form the model takes."""
        folios, counts = self.folios, self.counts
        return Rebuilt(
            page_mappings=counts.page_mappings,
            head_row=folios.row,
            order=folios.order,
            entire=counts.entire,
            is_hugetlb=folios.is_hugetlb,
            is_anon=folios.is_anon,
            double_map=folios.double_map,
        )

    @cached_property
    def expected(self) -> Expected | None:
        """What the model expects to be stored; None when the scheme is not known."""
        return None if self.scheme is None else expect(self.scheme, self.rebuilt, self.folio_of_page)

    @cached_property
    def folio_totals(self) -> I64:
        """All mappings of each large folio (M)."""
        totals = np.zeros(len(self.folios), np.int64)
        np.add.at(totals, self.counts.pair_folio, self.counts.pair_count)
        return totals

    @cached_property
    def rss(self) -> tuple[I64, I64]:
        """The rss counters rebuilt: int64[mms, 4], and int64[mms] pages whose counter is not known."""
        return rebuild_rss(self)

    # -- reverse maps ------------------------------------------------------------------------------------------------

    @cached_property
    def page_index(self) -> PageIndex:
        """The index of every folio that is mapped in a VMA."""
        return read_page_index(self, self.counts.codes)

    @cached_property
    def links(self) -> Links:
        """Every mapped folio's own index beside its place: all at once. A check sees them a batch at a time."""
        return links_of(self, self.mappings)

    @cached_property
    def named(self) -> Named:
        """What the folios that are mapped in VMAs name."""
        return named_by_folios(self)

    @cached_property
    def anon_rmap(self) -> AnonRmap:
        """anon_vmas, their chains and interval trees."""
        named = self.named.anon & ~np.uint64(MAPPING_TAGS)
        freed = self.mms.users[self.vmas.mm_idx] <= 0
        rmap = build_anon_rmap(self.layout, self.vmas, named, freed, is_every_vma=True)
        self.missing.add("anon_vmas and chains", rmap.unreadable)
        return rmap

    @cached_property
    def anon_vma_locked(self) -> Mask:
        """anon_vmas whose family is locked for writing: its trees may be half changed."""
        table = self.anon_rmap.anon_vmas
        return table.locked | take_or(table.locked, table.root_idx, False)

    @cached_property
    def file_rmap(self) -> FileRmap:
        """address_spaces and their trees of VMAs."""
        named = self.named.file
        named = named[(named & np.uint64(MAPPING_TAGS)) == 0]
        rmap = build_file_rmap(self.layout, self.vmas, named)
        self.missing.add("files and address_spaces", rmap.unreadable)
        return rmap

    @cached_property
    def mapping_of_vma(self) -> U64:
        """Address of the address_space that each VMA maps, 0 for VMAs without a file."""
        return take_or(self.file_rmap.address_spaces.addr, self.file_rmap.address_space_of_vma, 0)

    @cached_property
    def i_mmap_locked(self) -> Mask:
        """address_spaces of the file rmap whose i_mmap_rwsem is held or waited for."""
        return read_i_mmap_locks(self.layout, self.file_rmap.address_spaces.addr)

    @cached_property
    def lost_vmas(self) -> LostVmas:
        """VMAs that a reverse map leads to and that the mm they name does not know."""
        return find_lost_vmas(self)

    @cached_property
    def _rmap_item_cache(self) -> int:
        return self.layout.variable("rmap_item_cache") or 0

    @cached_property
    def ksm(self) -> Ksm:
        """KSM's stable nodes, rmap_items and mm slots."""
        slots = cache_objects(self.layout, self._slabs, self.folios, self._rmap_item_cache)
        ksm = build_ksm(self.layout, slots, self.mms.addr)
        self.missing.add("KSM nodes and items", ksm.unreadable)
        return ksm

    @cached_property
    def ksm_entries(self) -> KsmEntries:
        """Every entry of a KSM page and the rmap_item that leads to it."""
        return KsmRmap(self).entries(self.links)

    @cached_property
    def uffd(self) -> Uffd:
        """Userfaultfd's contexts."""
        uffd = build_uffd(self.layout, self.mms, self.vmas)
        self.missing.add("userfaultfd contexts", uffd.unreadable)
        return uffd

    @cached_property
    def notifiers(self) -> MmuNotifiers:
        """Drivers called back when page tables change."""
        notifiers = build_notifiers(self.layout, self.mms)
        self.missing.add("MMU notifiers", notifiers.unreadable)
        return notifiers

    # -- hugetlb and the huge zero folio -----------------------------------------------------------------------------

    @cached_property
    def hugetlb(self) -> Hugetlb:
        """Hugetlb's pools, folios and VMAs."""
        hugetlb = build_hugetlb(self.layout, self.folios, self.vmas)
        self.missing.add("hugetlb pools and files", hugetlb.unreadable)
        return hugetlb

    @cached_property
    def hugetlb_tables(self) -> tuple[HugetlbTables, Sharers]:
        """PMD tables of hugetlb memory, and the places each is reached from."""
        return hugetlb_tables(self)

    @cached_property
    def huge_zero(self) -> HugeZero:
        """The variables that are kept about the huge zero folio."""
        return read_huge_zero(self.layout)

    @cached_property
    def split_links(self) -> SplitLinks:
        """Large folios of user memory with their links of split queues."""
        return read_split_links(self.layout, self.folios)

    @cached_property
    def split_queues(self) -> SplitQueueHeads:
        """Split queues with the lengths that the kernel keeps."""
        return read_split_queues(self.layout, self.lru)

    @cached_property
    def split_charges(self) -> I32:
        """Rows of the memory cgroups that the folios of `split_links` are charged to, -1 for none, -2 where unknown."""
        return charged_to(self.layout, self.pages, self.lru, self.folios.row[self.split_links.folio])

    @cached_property
    def mthp_stats(self) -> dict[str, list[int]]:
        """Counts of large anonymous folios by item and order; empty where the kernel has none, or one is missing."""
        return read_mthp_stats(self.layout)

    # -- LRU lists ---------------------------------------------------------------------------------------------------

    @cached_property
    def lru(self) -> Lru:
        """Memory cgroups and their LRU vectors."""
        return read_lru(self.layout)

    @cached_property
    def lru_pages(self) -> LruPages | None:
        """Folios on LRU lists; None where it is not known where flags hold node and zone."""
        return read_lru_pages(self.layout, self.pages, self.folios, self.lru)

    # -- page cache and swap -----------------------------------------------------------------------------------------

    @cached_property
    def _found_spaces(self) -> tuple[AddressSpaces, int, U64]:
        return build_address_spaces(self.layout, self.pages, self.vmas)

    @property
    def address_spaces(self) -> AddressSpaces:
        """The address_spaces of `files`, without their entries: whether these can be followed is not known yet."""
        return self._found_spaces[0]

    @cached_property
    def files(self) -> Files:
        """address_spaces and the entries of the page cache, before 6.18 those of the swap cache too."""
        spaces, lost, named = self._found_spaces
        files = build_files(self.layout, spaces)
        lost += not_in_cache(self.pages, files, named)
        files = replace(files, unreadable=files.unreadable + lost)
        self.missing.add("page cache trees", files.unreadable)
        return files

    @cached_property
    def page_cache(self) -> PageCache:
        """Entries of the page cache and the folios they lead to, compared."""
        return compare_cache(self)

    @cached_property
    def writeback(self) -> Writeback:
        """Folios under writeback, and what the caches say of them."""
        return read_writeback(self)

    @cached_property
    def folio_locks(self) -> FolioLocks:
        """Locked folios that only a task at work can have locked, and whether one is."""
        return read_folio_locks(self)

    @cached_property
    def swap(self) -> Swap:
        """Swap devices and their slots."""
        swap = build_swap(self.layout, self.files, referred_entries(self.layout, self.nonpresent, self.files))
        self.missing.add("swap devices", swap.unreadable)
        return swap

    @cached_property
    def swap_totals(self) -> tuple[int | None, int | None]:
        """total_swap_pages and nr_swap_pages; None where they could not be read."""
        return self.layout.variable("total_swap_pages"), self.layout.variable("nr_swap_pages")

    @cached_property
    def swap_clusters(self) -> Clusters:
        """Clusters of the swap devices and the lists that they are on."""
        clusters = build_clusters(self.layout, self.swap)
        self.missing.add("swap clusters", clusters.unreadable)
        return clusters

    @cached_property
    def swap_cache(self) -> SwapCache:
        """Folios with PG_swapcache and what the swap cache holds."""
        return read_swap_cache(self)

    @cached_property
    def swap_refs(self) -> SwapRefs:
        """Who refers to each swap slot."""
        return rebuild_swap_refs(self)

    # -- who holds references ----------------------------------------------------------------------------------------

    @cached_property
    def batches(self) -> Batched:
        """Folios in per-CPU batches."""
        batches, missing = read_batches(self.layout)
        self.missing.add("per-CPU batches", missing)
        return batches

    @cached_property
    def gathers(self) -> Gathers:
        """Unmapped pages and page tables that wait for a TLB flush."""
        gathers = read_gathers(self.layout, self.mms, self.stacks)
        self.missing.add("kernel stacks", gathers.unreadable)
        return gathers

    @property
    def gathered(self) -> Gathered:
        """Unmapped pages that wait for a TLB flush."""
        return self.gathers.pages

    @cached_property
    def open_files(self) -> OpenFiles:
        """File descriptors of all processes."""
        opened, missing = read_open_files(self.layout, self.tasks)
        self.missing.add("open files", missing)
        return opened

    @cached_property
    def pipes(self) -> PipeBuffers:
        """Pages in the buffers of pipes."""
        pipes, missing = read_pipes(self.layout, self.open_files)
        self.missing.add("pipes", missing)
        return pipes

    @cached_property
    def ring_buffers(self) -> RingBuffers:
        """Pages pinned as buffers of io_uring."""
        buffers, missing = read_ring_buffers(self.layout, self.open_files)
        self.missing.add("io_uring buffers", missing)
        return buffers

    @cached_property
    def reference_terms(self) -> ReferenceTerms:
        """What holds the references of every folio of user memory and of the page cache."""
        return break_down(self, user_folios(self))

    # -- free memory and counters ------------------------------------------------------------------------------------

    @cached_property
    def buddy(self) -> Buddy:
        """Zones, free lists and the blocks on them."""
        buddy = build_buddy(self.layout, self.pages, self._sweep.buddy_pages)
        self.missing.add("zones and free lists", buddy.unreadable)
        return buddy

    @cached_property
    def slab_words(self) -> tuple[SlabWords, int]:
        """Words of slabs' struct pages that no allocator left there, and how many slabs there are."""
        return read_slab_words(self.layout, self.pages, self.folios)

    @cached_property
    def slab_counts(self) -> tuple[int, int]:
        """_refcount and _mapcount, as stored, of most slabs."""
        return usual_counts(self.pages)

    @cached_property
    def uses_generations(self) -> bool:
        """Whether folios are on the lists of multi-generation LRU."""
        return uses_generations(self.layout, self.pages)

    @cached_property
    def zone_spans(self) -> ZoneSpans:
        """Which zones span which page frames."""
        return read_zone_spans(self.layout)

    @cached_property
    def lost_pages(self) -> LostPages:
        """Pages without references that are on no free list and can be part of no allocation."""
        return find_lost_pages(self)

    @property
    def in_free_block(self) -> RowSet:
        """Pages inside free blocks of the buddy allocator."""
        return self._sweep.in_free_block

    @property
    def claimed_pages(self) -> ClaimedPages:
        """The pages without references that a memory cgroup or a page pool counts as its own."""
        return self._sweep.claimed

    @property
    def charges(self) -> Charges:
        """What pages in use are charged to: each distinct word once."""
        return self._sweep.charges

    @cached_property
    def odd_charges(self) -> Mask:
        """Which of `charges` name nothing that a page can be charged to."""
        return odd_charges(self.layout, self.pages, self.charges)

    @property
    def buddy_pages(self) -> I64:
        """Rows of all pages inside free blocks of the buddy allocator."""
        return self.in_free_block.rows

    @cached_property
    def free_block_types(self) -> BlockTypes:
        """Migration types of the page blocks that the free blocks of the buddy allocator lie in."""
        return pageblock_types(self.layout, self.pages.memmap.pfns_of_rows(self.buddy.blocks.row))

    @cached_property
    def node_stats(self) -> dict[str, int]:
        """Items of enum node_stat_item by name, summed over nodes and CPUs; empty where one could not be read."""
        return node_stats(self.layout)

    @cached_property
    def vmemmap_entries(self) -> VmemmapEntries:
        """Kernel entries of the struct pages that optimised hugetlb folios share."""
        return read_vmemmap_entries(self.layout, self.folios, optimised(self.layout, self.hugetlb_words[0]))

    @cached_property
    def hugetlb_words(self) -> tuple[U64, Mask]:
        """By folio hugetlb's own flags of it, and where they are known."""
        return hugetlb_words(self.layout, self.pages, self.folios)

    @cached_property
    def charged_folios(self) -> ChargedFolios:
        """What is charged to each memory cgroup."""
        return charged_folios(self)

    @cached_property
    def cached_by_vector(self) -> tuple[dict[str, I64], int]:
        """Pages of page caches and swap cache by LRU vector, and how many charges lead nowhere known."""
        return cached_by_vector(self)

    @cached_property
    def tlb_batches(self) -> TlbBatches:
        """TLB flushes that were put off, by mm and by task."""
        return read_tlb_batches(self.layout, self.mms.addr, self.tasks.addr)

    @cached_property
    def memcg_counters(self) -> MemcgCounters | None:
        """What memory cgroups count; None where there are none, or some of it is not in the dump."""
        return read_memcg_counters(self.layout, self.lru)

    @cached_property
    def node_counters(self) -> NodeCounters:
        """Items of each node and zone, CPUs added; those of which a part could not be read are left out."""
        return read_node_counters(self.layout)


class PartialSnapshot(Snapshot):
    """The struct pages of some stretches of the memory map, for questions about few pages.

    It has what struct pages alone make: `pages`, `folios`, `folio_of_page`, `compound_wrong`, `nr_tails`, `hvo_folio`,
    `buddy_pages` and the scheme; rows count the pages of its own stretches. Every other table of a snapshot would be
    made from a part and be wrong without a sign: to ask for one is an error.

    Args:
        whole: A snapshot of the target.
        memmap: The stretches to read.
    """

    search: Search = "nothing"

    def __init__(self, whole: Snapshot, memmap: MemMap) -> None:
        super().__init__(whole.target)
        self.layout = replace(whole.layout, memmap=memmap)

    def knows(self, table: str) -> bool:
        """Whether struct pages alone make the table."""
        return table in _OF_STRUCT_PAGES

    def __getattribute__(self, name: str) -> object:
        if name in TABLES and name not in _OF_STRUCT_PAGES:
            raise AttributeError(f"a partial snapshot has no {name}", name=name, obj=self)
        return super().__getattribute__(name)


class Needed(Enum):
    """The least part of a target that a table can be made from; made from less it would be wrong without a sign."""

    PAGES = "some struct pages, with the heads of their folios"
    BLOCKS = "stretches of struct pages, with the heads of the free blocks that they are in"
    PLACES = "some mms, or some of their addresses, and the struct pages of what is mapped there"
    FOLIO = "a folio, and every place that may map it"
    WHOLE = "all of the target"


_MADE_FROM: dict[Needed, tuple[str, ...]] = {
    Needed.PAGES: (
        *("layout", "has_walked", "nr_pages", "pages", "folios", "folio_of_page", "scheme", "scheme_evidence"),
        *("claimed_pages", "compound_wrong", "folio_whole", "nr_tails", "hvo_folio", "zone_spans"),
    ),
    Needed.BLOCKS: ("buddy_pages", "in_free_block"),
    Needed.PLACES: (
        *("anon_pages", "file_pages", "gaps", "tasks", "being_dumped", "stacks", "static_mms", "batches"),
        *("mms", "vmas", "vma_trees", "vma_tree_sound", "vma_finds_pages", "mm_in_motion", "in_flight"),
        *("table_holders", "tables", "nonpresent", "migration_entries", "mappings", "counts", "page_tables_locked"),
        *("upper_entries", "tables_complete", "why_incomplete", "mappings_whole", "mm_tables_complete", "page_index"),
        *("known_entries", "links", "anon_rmap", "anon_vma_locked", "file_rmap", "i_mmap_locked", "address_spaces"),
        *("maps_driver_pages", "mapping_of_vma", "huge_zero", "swap_totals", "writeback", "vma_locks"),
    ),
    Needed.FOLIO: ("rebuilt", "expected", "folio_totals", "page_cache"),
    Needed.WHOLE: (
        *("buddy", "deposits", "files", "free_block_types", "gathered", "gathers", "hugetlb", "hugetlb_tables", "ksm"),
        *("ksm_entries", "lost_tables", "lost_vmas", "mm_holders", "mm_slabs_lost", "mm_slots", "mm_slots_whole"),
        *(
            "mms_complete",
            "named",
            "kernel_halves",
            "node_stats",
            "open_files",
            "pipes",
            "reference_terms",
            "ring_buffers",
            "rss",
        ),
        *("split_links", "swap", "swap_cache", "swap_clusters", "swap_refs", "top_tables", "uffd", "notifiers"),
        *("folio_locks", "lost_pages", "slab_words", "slab_counts", "charges", "odd_charges", "uses_generations"),
        *(
            "lru",
            "lru_pages",
            "split_queues",
            "split_charges",
            "mthp_stats",
            "node_counters",
            "memcg_counters",
            "tlb_batches",
            "vmemmap_entries",
            "hugetlb_words",
            "charged_folios",
            "cached_by_vector",
        ),
    ),
}
"""Every table of a snapshot, by that part. A snapshot of a part has no other tables than these, and those that it makes
in a way of its own."""

TABLES = frozenset(
    name
    for name, member in vars(Snapshot).items()
    if isinstance(member, (property, cached_property)) and not name.startswith("_") and name != "nr_workers"
)
"""The names of all tables of a snapshot: how many workers there may be is none."""


def tables_made_from(*parts: Needed) -> frozenset[str]:
    """The tables that these parts of a target are enough for."""
    return frozenset(name for part in parts for name in _MADE_FROM[part])


def _require_declared() -> None:
    """Every table is declared, once.

    Raises:
        TypeError: One is not: snapshots of a part would silently do without it.
    """
    declared = [name for names in _MADE_FROM.values() for name in names]
    wrong = (TABLES ^ set(declared)) | {name for name in declared if declared.count(name) > 1}
    if wrong:
        msg = f"inspector.snapshot._MADE_FROM must name each table of Snapshot once: {', '.join(sorted(wrong))}"
        raise TypeError(msg)


_require_declared()
_OF_STRUCT_PAGES = tables_made_from(Needed.PAGES, Needed.BLOCKS)
"""Tables of a snapshot that a part of the memory map makes."""
