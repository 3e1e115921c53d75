"""A snapshot of one folio: its struct pages, and every place that the kernel's reverse map leads to from it.

The way of the rmap walk (mm/rmap.c, rmap_walk(); mm/ksm.c, rmap_walk_ksm()), each step a gather:

- the folio's struct pages; ``folio->mapping`` names an anon_vma, an address_space or a stable node of KSM;
- its interval tree names VMAs; those that overlap the folio's page offsets give addresses in the mms that they name;
- these mms, the VMAs that their trees have at those addresses, and the page-table entries there.

What comes of it is the same as among all page tables as long as the reverse map leads to every mapping. Where it does
not, the folio looks mapped less often than it is: a stored count above what was found proves nothing, one below it is
wrong in any case.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspector.aimed.pages import partial_of_folio, sample_of
from inspector.aimed.snapshot import AimedSnapshot, UserPlaces
from inspector.columns import I32, U64, distinct
from inspector.layout.flags import MAPPING_TAGS
from inspector.layout.memmap import MemMap
from inspector.model.scheme import Scheme
from inspector.records import cached_property
from inspector.snapshot import Needed, Search, Snapshot
from inspector.tables.anon_vmas import read_anon_trees
from inspector.tables.files import Files, read_files
from inspector.tables.i_mmap import FileRmap, build_file_rmap
from inspector.tables.ksm import CHAIN, Ksm, read_stable_node
from inspector.tables.pages import page_words
from inspector.tables.vmas import Vmas, VmaTrees, read_vmas, vma_rows
from inspector.text import counted
from inspector.walk.linear import read_index
from inspector.walk.rmap import ANON, FILE, KSM, Candidates, candidates_of, rmap_kinds
from inspector.walk.rmap_places import ksm_places

_SAMPLE = 1 << 15
"""Struct pages read to find out whether page mapcounts are kept, which no type shows."""


class _FromOneFolio(AimedSnapshot):
    """What leads on from one folio.

    Attributes:
        head_pfn: Page frame of its head.
        kind: Which rmap walk starts from it: `inspector.walk.rmap.ANON`, `FILE`, `KSM`, or 0 for none.
        pointer: What its mapping word points to.
    """

    def __init__(self, whole: Snapshot, memmap: MemMap, pfn: int) -> None:
        super().__init__(whole, np.empty(0, np.uint64), memmap=memmap)
        row = self.pages.memmap.row(pfn)
        head = int(self.pages.head_row[row]) if row >= 0 else row
        self.heads: I32 = np.array([head if head >= 0 else row], np.int32)
        self.kind = int(rmap_kinds(self, self.heads)[0]) if row >= 0 else 0
        self.pointer = int(self.pages.mapping[self.heads[0]]) & ~MAPPING_TAGS if row >= 0 else 0

    @cached_property
    def ksm(self) -> Ksm:
        """The stable node that the folio names, and its rmap_items."""
        return read_stable_node(self.layout, self.pointer)

    @property
    def _named_anon_vmas(self) -> U64:
        if self.kind == KSM:
            return distinct(self.ksm.items.anon_vma)
        return np.array([self.pointer] if self.kind == ANON else [], np.uint64)

    @property
    def _named_spaces(self) -> U64:
        return np.array([self.pointer] if self.kind == FILE else [], np.uint64)

    def places(self) -> Candidates:
        """Where the walk searches."""
        if self.kind == KSM:
            return ksm_places(self, int(self.heads[0]))
        return candidates_of(self, self.heads)[0]


class _LedTo(_FromOneFolio):
    """The first half of the way: its VMAs are those that the trees name, in whatever mm they say they are."""

    @cached_property
    def _vmas(self) -> tuple[Vmas, VmaTrees]:
        chains = read_anon_trees(self.layout, Vmas.empty(), self._named_anon_vmas).avcs
        named = distinct(np.concatenate([chains.vma[chains.tree_idx >= 0], self._of_file.nodes.vma]))
        vmas, readable = read_vmas(self.layout, named)
        self.missing.add("VMAs", int((~readable).sum()))
        none = np.empty(0, np.int32)
        return vmas, VmaTrees(none, none, none, none, none, np.empty(0, np.uint64))

    @cached_property
    def _of_file(self) -> FileRmap:
        return build_file_rmap(self.layout, Vmas.empty(), self._named_spaces)

    @cached_property
    def file_rmap(self) -> FileRmap:
        """The tree of the folio's file; the files of the VMAs in it are not read."""
        found = self._of_file
        nodes = replace(found.nodes, vma_idx=vma_rows(self.vmas, found.nodes.vma))
        self.missing.add("files and address_spaces", found.unreadable)
        return replace(found, nodes=nodes)


class FolioSnapshot(_FromOneFolio):
    """The rows about one folio.

    Beside what every `AimedSnapshot` has, it has what compares the folio's counters with its mappings: ``rebuilt``,
    ``expected`` and ``folio_totals``, as far as the reverse map leads to the mappings; and the page cache of its own
    file at its own indices (``files``, ``page_cache``).

    Args:
        whole: A snapshot of the target.
        pfn: Any page of the folio, one that has a struct page.
        mms: uint64; further mms that are wanted in the table of mms.

    Attributes:
        search: "reverse map", or "nothing" where the mapping word leads to none.
    """

    _PARTS = (Needed.PAGES, Needed.BLOCKS, Needed.PLACES, Needed.FOLIO)
    # VMAs that the reverse map leads to and the aim has not: of other mms, or in no mm's tree.
    _ALSO = frozenset({"lost_vmas"})

    def __init__(self, whole: Snapshot, pfn: int, mms: U64 | None = None) -> None:
        memmap = partial_of_folio(whole, pfn).pages.memmap
        super().__init__(whole, memmap, pfn)
        self.search: Search = "reverse map" if self.kind else "nothing"
        led = self._led = _LedTo(whole, memmap, pfn)
        found = led.places() if self.kind else Candidates.empty()
        self._wanted = distinct(led.vmas.addr[found.vma_idx]) if len(found) else np.empty(0, np.uint64)
        mm, shift = led.vmas.vm_mm[found.vma_idx] if len(found) else found.va, np.uint64(self.layout.memmap.page_shift)
        self._places = UserPlaces(mm, found.va, found.va + (found.nr.astype(np.uint64) << shift))
        self._mm_addrs = np.concatenate([mm, mms]) if mms is not None else mm

    @cached_property
    def gaps(self) -> list[str]:
        """Why the reverse map does not lead to everything that it should lead to, in sentences; none when it does."""
        if not self.kind:
            return ["folio->mapping leads to none"]
        out = [self._broken()]
        _, known = read_index(self.layout, self.pages, self.folios, self.heads, self.folio_of_page[self.heads])
        if self.kind != KSM and not known[0]:
            out.append("folio->index cannot be read")
        unread = self._led.missing.counts.get("VMAs", 0)
        if unread:
            out.append(f"{counted(unread, 'VMA')} of its tree cannot be read")
        lost = int((vma_rows(self.vmas, self._wanted) < 0).sum())
        if lost:
            out.append(f"{counted(lost, 'VMA')} of its tree are in no mm's tree of VMAs")
        return [x for x in [*out, *super().gaps] if x]

    def _broken(self) -> str:
        """What is wrong with the anon_vma, address_space or stable node itself; "" when nothing is."""
        led = self._led
        if self.kind == FILE:
            spaces = led.file_rmap.address_spaces
            row = np.flatnonzero(spaces.addr == np.uint64(self.pointer))
            if not len(row) or not spaces.readable[row[0]]:
                return f"its address_space {self.pointer:#x} cannot be read"
            if not spaces.owned[row[0]]:
                return f"no inode has its address_space {self.pointer:#x} as its own"
            broken = row[0] in led.file_rmap.broken_trees
            return "the i_mmap tree of its file cannot be followed to its end" if broken else ""
        if self.kind == KSM:
            nodes = led.ksm.nodes
            if not len(nodes) or nodes.kind[0] == CHAIN:
                return f"its stable node {self.pointer:#x} cannot be read, or is none"
            if nodes.broken[0]:
                return "the list of rmap_items of its stable node cannot be followed to its end"
        table = led.anon_rmap
        if not table.anon_vmas.readable[np.isin(table.anon_vmas.addr, self._named_anon_vmas)].all():
            return "its anon_vma cannot be read"
        return "the interval tree of its anon_vma cannot be followed to its end" if len(table.broken_trees) else ""

    @cached_property
    def files(self) -> Files:
        """The address_space that the folio names and its entries there; empty for folios of no file."""
        index, known = page_words(self.layout, self.pages, self.heads.astype(np.int64), "__folio_index", "index")
        folio = int(self.folio_of_page[self.heads[0]])
        nr = int(self.folios.nr_pages[folio]) if folio >= 0 else 1
        first = int(index[0]) if known[0] else 0
        last = min(first + min(nr, 1 << 20) - 1, (1 << 64) - 1)
        files = read_files(self.layout, self._named_spaces, (first, last))
        self.missing.add("page cache trees", files.unreadable)
        return files

    @cached_property
    def _settled(self) -> tuple[Scheme | None, str]:
        if self.layout.scheme.scheme is not Scheme.MM_IDS or (self.folios.word_raw != 0).any():
            return self.layout.scheme.scheme, ""
        sample, _ = sample_of(self.whole, _SAMPLE)
        return sample.scheme, sample.scheme_evidence[-1]
