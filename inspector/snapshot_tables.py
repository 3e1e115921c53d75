"""The tables that are read from one target's memory, each built once, on demand."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from inspector.columns import I32, I64, U64, AnyArray, Mask
from inspector.coverage import Missing
from inspector.layout.flags import PAGE_TYPES
from inspector.layout.kernel import Layout
from inspector.model.scheme import Scheme
from inspector.tables.batches import Batched, read_batches
from inspector.tables.buddy import Buddy, build_buddy
from inspector.tables.files import Files, build_files
from inspector.tables.folios import Folios, build_folios, settle_page_mapcount
from inspector.tables.hugetlb import Hugetlb, build_hugetlb
from inspector.tables.ksm import Ksm, build_ksm
from inspector.tables.mm_holders import MmHolders, build_mm_holders
from inspector.tables.mms import Mms, build_mms
from inspector.tables.mmu_gather import Gathers, read_gathers
from inspector.tables.open_files import OpenFiles, read_open_files
from inspector.tables.pages import Pages, Sweep, sweep_pages
from inspector.tables.pipes import PipeBuffers, read_pipes
from inspector.tables.ring_buffers import RingBuffers, read_ring_buffers
from inspector.tables.slabs import cache_objects
from inspector.tables.stacks import Stacks, build_stacks
from inspector.tables.tasks import Tasks, build_tasks, tasks_being_dumped
from inspector.tables.uffd import Uffd, build_uffd
from inspector.tables.vmas import Vmas, VmaTrees, build_vmas
from inspector.target import Target
from inspector.walk.compound import compound_wrong, count_tails


class SnapshotTables:
    """What is read: struct pages, tasks, address spaces, VMAs, and whatever else the kernel keeps lists of.

    Tables are built when first asked for and kept. What could not be read is told in ``missing``.

    Args:
        target: An opened target.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.missing = Missing()

    @cached_property
    def layout(self) -> Layout:
        """What this kernel looks like."""
        return Layout.probe(self.target)

    @cached_property
    def _mm_cachep(self) -> int:
        cache = self.layout.variable("mm_cachep")
        if not cache:
            self.missing.note("the mm_struct slab cache cannot be found: mms without a task are not seen")
        return cache or 0

    @cached_property
    def _rmap_item_cache(self) -> int:
        return self.layout.variable("rmap_item_cache") or 0

    @cached_property
    def _sweep(self) -> Sweep:
        caches = np.array([c for c in (self._mm_cachep, self._rmap_item_cache) if c], np.uint64)
        sweep = sweep_pages(self.layout, caches)
        self.missing.add("struct pages", int((~sweep.pages.readable).sum()))
        return sweep

    @property
    def pages(self) -> Pages:
        """One row a struct page."""
        return self._sweep.pages

    @cached_property
    def folios(self) -> Folios:
        """One row a compound page."""
        return build_folios(self.layout, self.pages, self._sweep.heads)

    @cached_property
    def _settled(self) -> tuple[Scheme | None, str]:
        return settle_page_mapcount(self.layout.scheme.scheme, self.folios, self.pages)

    @property
    def scheme(self) -> Scheme | None:
        """The accounting scheme; None when the evidence is mixed."""
        return self._settled[0]

    @property
    def scheme_evidence(self) -> list[str]:
        """What tells the scheme."""
        return [*self.layout.scheme.evidence, *([self._settled[1]] if self._settled[1] else [])]

    @cached_property
    def tasks(self) -> Tasks:
        """One row a task."""
        tasks, missing = build_tasks(self.layout)
        self.missing.add("tasks", missing)
        return tasks

    @cached_property
    def being_dumped(self) -> Mask:
        """Tasks whose process is writing a core dump."""
        return tasks_being_dumped(self.layout, self.tasks)

    @cached_property
    def stacks(self) -> Stacks:
        """The kernel stacks of all tasks as frames."""
        return build_stacks(self.layout, self.tasks)

    @cached_property
    def mm_slots(self) -> U64:
        """Addresses of all object slots, in use or free, of the mm_struct slab cache, ascending."""
        return np.unique(cache_objects(self.layout, self._sweep, self.folios, self._mm_cachep))

    @property
    def mm_slots_whole(self) -> bool:
        """Whether those are all there are: no struct page is missing."""
        return len(self.mm_slots) > 0 and self.pages.readable.all().item()

    @cached_property
    def mms(self) -> Mms:
        """One row an mm, those without a task included."""
        mms, missing = build_mms(self.layout, self.tasks, self.mm_slots, whole=self.mm_slots_whole)
        self.missing.add("mms", missing)
        return mms

    @cached_property
    def _vmas(self) -> tuple[Vmas, VmaTrees]:
        vmas, trees = build_vmas(self.layout, self.mms)
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
    def folio_of_page(self) -> I32:
        """Row in `folios` of the large folio that each page belongs to, -1 for small pages."""
        row = np.full(len(self.pages), -1, np.int32)
        row[self.folios.row] = np.arange(len(self.folios), dtype=np.int32)
        head = self.pages.head_row
        return np.where(head >= 0, row[np.maximum(head, 0)], -1).astype(np.int32)

    @cached_property
    def mm_in_motion(self) -> Mask:
        """Mms whose VMAs may be half changed: locked for writing, without a task yet or any more, or torn down."""
        mms = self.mms
        return mms.locked | (mms.users <= 0) | (mms.nr_tasks == 0)

    @cached_property
    def nr_tails(self) -> I64:
        """How many of the pages that each folio should span are tails, whatever head they name."""
        return count_tails(self.pages, self.folios)

    @cached_property
    def compound_wrong(self) -> Mask:
        """Folios whose order, cached size, alignment and tails do not agree."""
        return compound_wrong(self.pages, self.folios, self.nr_tails)

    @cached_property
    def hvo_folio(self) -> Mask:
        """Hugetlb folios whose tail struct pages may be aliases of shared ones (vmemmap optimisation)."""
        return self.folios.is_hugetlb

    @property
    def buddy_pages(self) -> I64:
        """Rows of all pages inside free blocks of the buddy allocator."""
        return self._sweep.buddy_pages

    @cached_property
    def buddy(self) -> Buddy:
        """Zones, free lists and the blocks on them."""
        buddy = build_buddy(self.layout, self.pages)
        self.missing.add("zones and free lists", buddy.unreadable)
        return buddy

    def page_type_names(self, rows: AnyArray) -> AnyArray:
        """The name of each page's type, "none" for pages without."""
        names = np.array(["none", *PAGE_TYPES], dtype=np.str_)
        return names[self.pages.type_[rows]]

    @cached_property
    def ksm(self) -> Ksm:
        """KSM's stable nodes, rmap_items and mm slots."""
        slots = cache_objects(self.layout, self._sweep, self.folios, self._rmap_item_cache)
        ksm = build_ksm(self.layout, slots, self.mms.addr)
        self.missing.add("KSM nodes and items", ksm.unreadable)
        return ksm

    @cached_property
    def uffd(self) -> Uffd:
        """Userfaultfd's contexts."""
        uffd = build_uffd(self.layout, self.mms, self.vmas)
        self.missing.add("userfaultfd contexts", uffd.unreadable)
        return uffd

    @cached_property
    def mm_holders(self) -> MmHolders:
        """Who keeps mms from being freed beside their users."""
        holders, missing = build_mm_holders(self.layout, self.tasks, self.ksm, self.uffd)
        self.missing.add("holders of mms", missing)
        return holders

    @cached_property
    def hugetlb(self) -> Hugetlb:
        """Hugetlb's pools, folios and VMAs."""
        hugetlb = build_hugetlb(self.layout, self.folios, self.vmas)
        self.missing.add("hugetlb pools and files", hugetlb.unreadable)
        return hugetlb

    @cached_property
    def files(self) -> Files:
        """address_spaces and the entries of the page cache, before 6.18 those of the swap cache too."""
        files = build_files(self.layout, self.pages, self.vmas)
        self.missing.add("page cache trees", files.unreadable)
        return files

    @cached_property
    def batches(self) -> Batched:
        """Folios in per-CPU batches."""
        batches, missing = read_batches(self.layout)
        self.missing.add("per-CPU batches", missing)
        return batches

    @cached_property
    def gathers(self) -> Gathers:
        """Unmapped pages and page tables that wait for a TLB flush."""
        gathers = read_gathers(self.layout, self.tasks, self.mms)
        self.missing.add("kernel stacks", gathers.unreadable)
        return gathers

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
