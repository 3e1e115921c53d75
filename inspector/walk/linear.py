"""Where the kernel would look for each mapped page: its index against the address it is mapped at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I32, I64, U64, AnyArray, Mask, Table
from inspector.layout.kernel import Layout
from inspector.model.scheme import Scheme
from inspector.tables.folios import Folios
from inspector.tables.pages import Pages
from inspector.tables.vmas import Vmas
from inspector.walk.census import Sort
from inspector.walk.parts import Counted


@dataclass(frozen=True, slots=True)
class Links(Table):
    """One row a mapped folio at one place: what the folio says of itself and what its place says.

    A large folio's run of PTEs is one row; small folios have a row each.

    Attributes:
        mapping_row: int64; row in `Mappings`.
        vma_idx: int32; row of the VMA.
        head_row: int32; row of the folio's head in `Pages`.
        va: uint64; address of the first page of the row.
        page: int64; that page's place in its folio.
        nr: int64; pages.
        mapping: uint64; the folio's ``mapping`` word.
        index: uint64; page offset of the folio's page, from its ``index``.
        linear: uint64; page offset of the address in the VMA, of the kind that the folio is indexed by.
        is_anon, is_ksm, is_hugetlb: bool; kind of folio.
        index_known: bool; False where the struct page could not be read again.
    """

    mapping_row: I64
    vma_idx: I32
    head_row: I32
    va: U64
    page: I64
    nr: I64
    mapping: U64
    index: U64
    linear: U64
    is_anon: Mask
    is_ksm: Mask
    is_hugetlb: Mask
    index_known: Mask


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


def build_links(parts: Counted) -> Links:
    """Every normal mapping beside the index of its folio.

    Args:
        parts: The tables of a snapshot.
    """
    layout, pages, folios, vmas = parts.layout, parts.pages, parts.folios, parts.vmas
    folio_of_page, m, census = parts.folio_of_page, parts.mappings, parts.census
    rows = np.flatnonzero((census.sort == Sort.NORMAL) & (m.vma_idx >= 0))
    large = folio_of_page[census.head_row[rows]] >= 0
    single = rows[~large]
    repeat = np.repeat(np.arange(len(single)), m.nr[single])
    skip = np.arange(len(repeat)) - (np.cumsum(m.nr[single]) - m.nr[single])[repeat]
    row = np.concatenate([single[repeat], rows[large]])
    skip = np.concatenate([skip, np.zeros(int(large.sum()), np.int64)]).astype(np.int64)
    head = np.concatenate([census.head_row[single[repeat]] + skip[: len(repeat)], census.head_row[rows[large]]])
    head = head.astype(np.int32)
    nr = np.concatenate([np.ones(len(repeat), np.int64), m.nr[rows[large]].astype(np.int64)])
    va = m.va[row] + (skip.astype(np.uint64) << np.uint64(layout.memmap.page_shift))
    first = pages.memmap.rows(m.pfn[row] + skip)
    page = first - head
    folio = folio_of_page[head]
    index, known = read_index(layout, pages, folios, head, folio)
    hugetlb = (folio >= 0) & folios.is_hugetlb[np.maximum(folio, 0)] if len(folios) else folio >= 0
    anon = ((pages.mapping[head] & np.uint64(1)) != 0) & ((pages.type_[head] == 0) | hugetlb)
    vma = m.vma_idx[row]
    return Links(
        mapping_row=row,
        vma_idx=vma,
        head_row=head,
        va=va,
        page=page,
        nr=np.where(m.level[row] == Level.PTE, nr, np.int64(1) << folios.order[np.maximum(folio, 0)].astype(np.int64))
        if len(folios)
        else nr,
        mapping=pages.mapping[head],
        index=index + page.astype(np.uint64),
        linear=linear_index(vmas, vma, va, anon, layout.memmap.page_shift),
        is_anon=anon,
        is_ksm=((pages.mapping[head] & np.uint64(3)) == 3) & anon,
        is_hugetlb=hugetlb,
        index_known=known,
    )


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
    field = layout.struct("struct page").field("__folio_index", "index")
    unique, back = np.unique(head, return_inverse=True)
    pfns = pages.memmap.pfns_of_rows(unique.astype(np.int64)).astype(np.uint64)
    where = np.uint64(layout.memmap.vmemmap) + pfns * np.uint64(layout.memmap.page_size) + np.uint64(field.offset)
    raw = layout.memory.gather(where, 8)
    index = raw.bytes.view(np.uint64).reshape(-1)[back]
    if layout.scheme.scheme in (Scheme.OLD, Scheme.SUBPAGES) and len(folios):
        safe = np.maximum(folio, 0)
        hugetlb = (folio >= 0) & folios.is_hugetlb[safe]
        index = np.where(hugetlb, index << folios.order[safe].astype(np.uint64), index)
    return index, raw.valid[back]
