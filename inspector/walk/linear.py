"""Where the kernel would look for each mapped page: its index against the address it is mapped at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I32, I64, U8, U64, AnyArray, Mask, Table, take_or
from inspector.layout.flags import MAPPING_ANON, MAPPING_KSM, MAPPING_TAGS
from inspector.layout.kernel import Layout
from inspector.loops import cut_runs
from inspector.model.scheme import Scheme
from inspector.records import dataclass
from inspector.tables.folios import Folios
from inspector.tables.pages import Pages, page_words
from inspector.tables.vmas import Vmas
from inspector.walk.counts import EntryClass
from inspector.walk.rss import entry_pages

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

ANON, KSM, HUGETLB, UNKNOWN = 1, 2, 4, 8
"""Bits of `Links.kind`; none of the first two means a file's folio or a driver's page."""


@dataclass(frozen=True, slots=True)
class Links(Table):
    """One row a stretch of pages that one VMA maps and whose index runs on with the address.

    Attributes:
        mapping_row: int32; row in `Mappings`.
        vma_idx: int32; row of the VMA.
        head_row: int32; row in `Pages` of the first page's folio's head.
        va: uint64; address of the first page.
        page: int32; its place in its folio.
        nr: int32; pages.
        mapping: uint64; the ``mapping`` word of all of their folios.
        delta: int64; index of the pages minus the page offset that they are mapped at: 0 when all is well.
        kind: uint8; bits `ANON`, `KSM`, `HUGETLB`, and `UNKNOWN` where the index could not be read.
    """

    mapping_row: I32
    vma_idx: I32
    head_row: I32
    va: U64
    page: I32
    nr: I32
    mapping: U64
    delta: I64
    kind: U8

    @property
    def is_anon(self) -> Mask:
        """Anonymous folios whose index means something: neither KSM pages nor unreadable ones."""
        return (self.kind & (ANON | KSM | UNKNOWN)) == ANON

    @property
    def page_row(self) -> I64:
        """Row in `Pages` of the first page."""
        return self.head_row.astype(np.int64) + self.page

    @property
    def is_ksm(self) -> Mask:
        """KSM pages."""
        return (self.kind & KSM) != 0

    @property
    def is_file(self) -> Mask:
        """Folios of files, and pages of drivers."""
        return (self.kind & (ANON | KSM | UNKNOWN)) == 0


def linear_index(vmas: Vmas, vma_idx: AnyArray, va: U64, anon: Mask, page_shift: int) -> U64:
    """Page offset of an address in its VMA (linear_page_index(), mm/pagewalk.h; anon_linear_page_index() of 7.3).

    Args:
        vmas: The VMAs.
        vma_idx: Row of the VMA of each address; must be valid.
        va: The addresses.
        anon: Whether the offset that anonymous folios are indexed by is wanted: it differs from 7.3 on.
        page_shift: log2 of the page size.
    """
    offset = (va - vmas.start[vma_idx]) >> np.uint64(page_shift)
    base: U64 = np.where(anon, vmas.anon_pgoff[vma_idx], vmas.pgoff[vma_idx]).astype(np.uint64)
    return base + offset


def vma_address(vmas: Vmas, vma_idx: AnyArray, pgoff: U64, nr: U64, anon: Mask, page_shift: int) -> tuple[U64, Mask]:
    """First address at which a range of page offsets can be mapped in a VMA (vma_address(), mm/internal.h).

    A range that begins before the VMA is clamped to its start; one that does not touch it has no address.

    Args:
        vmas: The VMAs.
        vma_idx: Row of the VMA for each question; must be valid.
        pgoff: First page offset of each range.
        nr: Pages of each range: 1 asks for a single page, more for a folio.
        anon: Which of the VMA's two offsets to use.
        page_shift: log2 of the page size.

    Returns:
        ``(va, valid)``.
    """
    base: U64 = np.where(anon, vmas.anon_pgoff[vma_idx], vmas.pgoff[vma_idx]).astype(np.uint64)
    pages = vmas.nr_pages[vma_idx].astype(np.uint64)
    inside = (pgoff >= base) & (pgoff - base < pages)
    # A folio that began before the VMA did shows from the VMA's first page on. The sum must not wrap around.
    before = (pgoff < base) & (pgoff + nr > base) & (pgoff + nr > pgoff)
    va = vmas.start[vma_idx] + (np.where(inside, pgoff - base, 0).astype(np.uint64) << np.uint64(page_shift))
    return va, inside | before


def build_links(s: Snapshot) -> Links:
    """Every normal mapping beside the index of its folio.

    Args:
        s: The snapshot.
    """
    pages, m = s.pages, s.mappings
    index, known = _page_index(s)
    border = np.zeros(len(pages) + 1, np.bool_)
    mapping = pages.mapping[np.maximum(pages.head_row, 0)]
    border[1:-1] = (index[1:] != index[:-1] + np.uint64(1)) | (mapping[1:] != mapping[:-1]) | (known[1:] != known[:-1])
    rows = np.flatnonzero((m.entry_class == EntryClass.NORMAL) & (m.vma_idx >= 0))
    first = pages.memmap.rows(m.pfn[rows])
    owner, skip, nr = cut_runs(border, first, m.nr[rows].astype(np.int64), 1)
    row, page_row = rows[owner], first[owner] + skip
    huge = m.level[row] != Level.PTE
    nr[huge] = entry_pages(s.layout, m.level[row[huge]])
    head = pages.head_row[page_row]
    va = m.va[row] + (skip.astype(np.uint64) << np.uint64(s.layout.memmap.page_shift))
    kind = _kinds(s, head, known[page_row])
    vma = m.vma_idx[row]
    anon = (kind & ANON) != 0
    linear = linear_index(s.vmas, vma, va, anon, s.layout.memmap.page_shift)
    return Links(
        mapping_row=row.astype(np.int32),
        vma_idx=vma,
        head_row=head,
        va=va,
        page=(page_row - head).astype(np.int32),
        nr=nr.astype(np.int32),
        mapping=mapping[page_row],
        delta=(index[page_row] - linear).astype(np.int64),
        kind=kind,
    )


def _page_index(s: Snapshot) -> tuple[U64, Mask]:
    """The index of every mapped page, and whether it could be read; meaningless for pages that nothing maps."""
    pages, n = s.pages, len(s.pages)
    mapped = np.zeros(n, np.bool_)
    mapped[pages.head_row[s.counts.page_mappings > 0]] = True
    mapped[s.folios.row[s.counts.entire > 0]] = True
    heads = np.flatnonzero(mapped)
    index, known = np.zeros(n, np.uint64), np.zeros(n, np.bool_)
    found, readable = read_index(s.layout, pages, s.folios, heads, s.folio_of_page[heads])
    index[heads], known[heads] = found, readable
    head = np.maximum(pages.head_row, 0)
    return index[head] + (np.arange(n, dtype=np.int32) - head).astype(np.uint64), known[head]


def _kinds(s: Snapshot, head: I32, known: Mask) -> U8:
    """The bits of `Links.kind` for folios of the given heads."""
    pages = s.pages
    hugetlb = take_or(s.folios.is_hugetlb, s.folio_of_page[head], False)
    tag = pages.mapping[head] & np.uint64(MAPPING_TAGS)
    owned = (pages.type_[head] == 0) | hugetlb
    kind = np.where(owned & ((tag & np.uint64(MAPPING_ANON)) != 0), ANON, 0)
    kind |= np.where(owned & (tag == MAPPING_KSM), KSM, 0)
    kind |= np.where(hugetlb, HUGETLB, 0) | np.where(known, 0, UNKNOWN)
    return kind.astype(np.uint8)


def read_index(layout: Layout, pages: Pages, folios: Folios, head: AnyArray, folio: AnyArray) -> tuple[U64, Mask]:
    """``folio->index`` of each folio in base pages, each struct page read once.

    Args:
        layout: The kernel's layout.
        pages: Struct pages.
        folios: Compound pages.
        head: Rows of the heads.
        folio: Row in ``folios`` of each, -1 for small folios.

    Returns:
        ``(index, known)``. Hugetlb counted its index in huge pages until 6.7.
    """
    index, known = page_words(layout, pages, head.astype(np.int64), "__folio_index", "index")
    if layout.scheme.scheme in (Scheme.OLD, Scheme.SUBPAGES):
        hugetlb = take_or(folios.is_hugetlb, folio, False)
        index = np.where(hugetlb, index << take_or(folios.order, folio, 0).astype(np.uint64), index)
    return index, known
