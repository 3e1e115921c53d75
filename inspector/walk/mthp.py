"""Large folios of user memory by what maps them: whole, in part, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I32, I64, U8, Mask, Table, take_or
from inspector.records import dataclass
from inspector.walk.kinds import KINDS, kind_codes

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class LargeFolios(Table):
    """One row a large folio of user memory: anonymous, of a file or of shmem; none of hugetlb.

    Attributes:
        folio: int64; row in `inspector.tables.folios.Folios`.
        kind: uint8; place in `inspector.walk.kinds.KINDS`.
        nr_pages: int64.
        mapped: int64; pages of it that anything maps.
        by_pmd: bool; a PMD maps it whole.
    """

    folio: I64
    kind: U8
    nr_pages: I64
    mapped: I64
    by_pmd: Mask

    @property
    def partly(self) -> Mask:
        """Some of its pages are mapped, and some are not."""
        return (self.mapped > 0) & (self.mapped < self.nr_pages)

    @property
    def unmapped_pages(self) -> I64:
        """Pages of a partly mapped folio that nothing maps, 0 for all others: what splitting an anonymous one frees."""
        return np.where(self.partly, self.nr_pages - self.mapped, 0)


def large_folios(s: Snapshot) -> LargeFolios:
    """All of them."""
    folios, expected = s.folios, s.expected
    user = folios.readable & (folios.order > 0) & ~folios.is_hugetlb & (folios.is_anon | folios.is_rmappable)
    rows = np.flatnonzero(user)
    kind = kind_codes(s.layout, s.pages, folios, s.folio_of_page, folios.row[rows])
    of_users = np.isin(kind, [KINDS.index(name) for name in ("anon", "ksm", "shmem", "file")])
    rows, kind = rows[of_users], kind[of_users]
    entire = s.counts.entire[rows] > 0
    mapped = np.zeros(len(rows), np.int64) if expected is None else expected.nr_mapped_pages[rows].astype(np.int64)
    nr = folios.nr_pages[rows]
    return LargeFolios(
        rows,
        kind,
        nr,
        np.where(entire, nr, np.minimum(mapped, nr)),
        entire,
    )


@dataclass(frozen=True, slots=True)
class LargeOfMms(Table):
    """One row an mm, in the order of `Mms`: what it maps of the large folios of user memory.

    Attributes:
        folios: int64; large folios that it maps.
        partly: int64; those of them of which some pages are mapped by no mm.
        unmapped: int64; these pages. Several mms may map the same folio, and each has them in its number.
        entries: int64; page-table entries that map them.
    """

    folios: I64
    partly: I64
    unmapped: I64
    entries: I64

    def by_ptes(self, by_pmd: I64, pmd_order: int) -> I64:
        """int64: pages of large folios that PTEs map, given the pages that PMDs map of them."""
        return np.maximum(self.entries - (by_pmd >> pmd_order), 0)


def large_of_mms(s: Snapshot, large: LargeFolios) -> LargeOfMms:
    """Sum up what each mm maps of them, from the counted mappings of each folio and mm."""
    counts, mms = s.counts, len(s.mms)
    place = np.full(len(s.folios), -1, np.int64)
    place[large.folio] = np.arange(len(large))
    row = place[counts.pair_folio]
    mm, entries, row = counts.pair_mm[row >= 0], counts.pair_count[row >= 0], row[row >= 0]
    is_partly: Mask = take_or(large.partly, row, False)

    def summed(what: I64 | Mask) -> I64:
        out = np.zeros(mms, np.int64)
        np.add.at(out, mm, what.astype(np.int64))
        return out

    return LargeOfMms(
        folios=summed(row >= 0),
        partly=summed(is_partly),
        unmapped=summed(large.unmapped_pages[row]),
        entries=summed(entries),
    )


CONT_ORDER = 4
"""Order of the blocks that arm64 can hold in one TLB entry with pages of 4 KiB (CONT_PTES)."""


@dataclass(frozen=True, slots=True)
class MappedLargeFolios(Table):
    """One row a VMA and a large folio that it maps, once more for each other distance of the two.

    Attributes:
        vma: int32; row of the VMA.
        large: int64; row in `LargeFolios`.
        by_pmd: int64; pages that PMDs map.
        pages: int64; pages that PTEs map.
        cont: int64; of these, pages in whole blocks of 1 << cont_order that begin at a multiple of their size, in
            address and page frame.
        aligned: bool; the folio's first page belongs at an address that is a multiple of the folio's size.
    """

    vma: I32
    large: I64
    by_pmd: I64
    pages: I64
    cont: I64
    aligned: Mask


def mapped_large_folios(s: Snapshot, large: LargeFolios, cont_order: int = CONT_ORDER) -> MappedLargeFolios:
    """What each VMA maps of each large folio, as tools/mm/thpmaps looks for it in pagemap and kpageflags.

    Args:
        s: The snapshot.
        large: Its large folios.
        cont_order: Order of the blocks that are counted.
    """
    place = np.full(len(s.folios), -1, np.int64)
    place[large.folio] = np.arange(len(large))
    m = s.mappings
    of = take_or(place, take_or(s.folio_of_page, m.head_row, -1), -1)
    rows = np.flatnonzero((of >= 0) & (m.vma_idx >= 0))
    of, vma = of[rows], m.vma_idx[rows].astype(np.int64)
    shift = np.uint64(s.layout.memmap.page_shift)
    va = (m.va[rows] >> shift).astype(np.int64)
    huge = m.level[rows] != Level.PTE
    nr = np.where(huge, large.nr_pages[of], m.nr[rows])
    first = va - (m.page_row[rows] - m.head_row[rows])
    order = np.lexsort((va, first, of, vma))
    of, vma, va, nr, first, huge = (column[order] for column in (of, vma, va, nr, first, huge))
    pfn = m.pfn[rows][order]
    new = np.ones(len(of), np.bool_)
    new[1:] = (np.diff(vma) != 0) | (np.diff(of) != 0) | (np.diff(first) != 0)
    # Runs that go on where the one before ends are one stretch, whatever their attributes.
    starts = new.copy()
    starts[1:] |= va[1:] != va[:-1] + nr[:-1]
    group = np.cumsum(new) - 1
    stretch = np.flatnonzero(starts)
    length = np.add.reduceat(np.where(huge, 0, nr), stretch) if len(stretch) else nr[:0]
    block, begin = 1 << cont_order, va[stretch]
    whole = np.maximum((begin + length) // block - -(-begin // block), 0) * block
    whole[(pfn[stretch] - begin) % block != 0] = 0
    n = int(new.sum())

    def summed(at: I64, pages: I64) -> I64:
        return np.bincount(at, pages, n).astype(np.int64)

    return MappedLargeFolios(
        vma[new].astype(np.int32),
        of[new],
        summed(group, np.where(huge, nr, 0)),
        summed(group, np.where(huge, 0, nr)),
        summed(group[stretch], whole),
        first[new] % large.nr_pages[of[new]] == 0,
    )
