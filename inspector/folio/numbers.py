"""The numbers of one folio, rebuilt and stored, in the form that the model's formulas take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Bit, Level
from inspector.columns import I32, I64, Mask, distinct
from inspector.layout.flags import MAPPING_TAGS, PAGE_TYPES
from inspector.model.formulas import Mapped
from inspector.records import dataclass
from inspector.walk.counts import REJECTED, EntryClass
from inspector.walk.kinds import page_kinds
from inspector.walk.references import ReferenceTerms, break_down

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

MAX_PAGES = 1 << 20
"""Pages of one folio that are read: a corrupt order must not ask for more."""


@dataclass(frozen=True)
class OneFolio:
    """One folio.

    Attributes:
        head: Row of the head in `Pages`.
        folio: Row in `Folios`, -1 for a folio of one page.
        pfn, nr_pages, order: Where it lies and how large it is.
        kind: What it is used for, as `page_kinds` says.
        page_type: Name of its page type, "" for none; hugetlb folios have none in this sense.
        is_anon, is_ksm, is_hugetlb, is_file: What it holds.
        is_counted: Its references can be compared with what holds them: its head is known, its first tail was read,
            and it has no type that gives the counters another meaning.
        mapping_rows: int64; rows of the mappings that the rmap counts.
        rejected: int64; rows of those that map it and may not (`inspector.walk.counts.REJECTED`).
        pte, writable: int32[nr_pages]; PTEs that map each page, and those of them that let user space write.
        exclusive: bool[nr_pages]; PG_anon_exclusive; all False where the bit means something else.
        pmd, pud, huge_writable: Huge entries by level, and those of them that let user space write.
        nr_mms: Address spaces that map it.
    """

    head: int
    folio: int
    pfn: int
    nr_pages: int
    order: int
    kind: str
    page_type: str
    is_anon: bool
    is_ksm: bool
    is_hugetlb: bool
    is_file: bool
    is_counted: bool
    mapping_rows: I64
    rejected: I64
    pte: I32
    writable: I32
    exclusive: Mask
    pmd: int
    pud: int
    huge_writable: int
    nr_mms: int

    @property
    def is_large(self) -> bool:
        """Whether it is more than one page."""
        return self.folio >= 0

    @property
    def total(self) -> int:
        """All mappings (M)."""
        return self.pmd + self.pud + int(self.pte.sum())

    def mapped(self, s: Snapshot) -> Mapped:
        """In the form that `inspector.model.formulas` takes."""
        double = self.is_large and bool(s.folios.double_map[self.folio])
        mapped = int((self.pte > 0).sum())
        return Mapped(
            self.nr_pages, self.pmd, self.pud, int(self.pte.sum()), mapped, self.is_hugetlb, self.is_anon, double
        )


def one_folio(s: Snapshot, pfn: int, *, walked: bool = True) -> OneFolio:
    """The folio that a page belongs to.

    Args:
        s: A snapshot whose memory map covers the page.
        pfn: Any page of the folio, one that has a struct page.
        walked: Whether its mappings are wanted; without them a window on the folio will do for a snapshot.
    """
    pages, folios = s.pages, s.folios
    row = pages.memmap.row(pfn)
    head = int(pages.head_row[row])
    head = head if head >= 0 else row
    at = np.array([head], np.int64)
    folio = int(s.folio_of_page[head])
    lost = folio >= 0 and not folios.readable[folio]
    folio = -1 if lost else folio
    order = int(folios.order[folio]) if folio >= 0 else 0
    nr = min(1 << min(order, 40), MAX_PAGES, len(pages) - head)
    hugetlb = folio >= 0 and bool(folios.is_hugetlb[folio])
    type_ = int(pages.type_[head])
    typed = type_ != 0 and not hugetlb
    mapping = int(pages.mapping[head])
    anon = bool(folios.is_anon[folio]) if hugetlb else bool(pages.is_anon(at)[0])
    first = int(pages.memmap.pfns_of_rows(at)[0])
    rows, pte, writable = np.empty(0, np.int64), np.zeros(nr, np.int32), np.zeros(nr, np.int32)
    rejected = rows
    pmd = pud = huge_writable = 0
    if walked:
        found = s.mappings_of(first, nr)
        classes, own = s.mappings.entry_class[found], s.mappings.counted[found]
        rows, rejected = found[(classes == EntryClass.NORMAL) & own], found[np.isin(classes, REJECTED) & own]
        level, can_write = s.mappings.level[rows], (s.mappings.bits[rows] & Bit.WRITE) != 0
        pte = s.counts.page_mappings[head : head + nr]
        writable = _by_page(s, rows[(level == Level.PTE) & can_write], first, nr)
        pmd, pud = int((level == Level.PMD).sum()), int((level == Level.PUD).sum())
        huge_writable = int((can_write & (level != Level.PTE)).sum())
    exclusive = s.layout.flags.test(pages.flags[head : head + nr], "anon_exclusive") & anon & (not typed)
    return OneFolio(
        head=head,
        folio=folio,
        pfn=first,
        nr_pages=nr,
        order=order,
        kind=str(page_kinds(s.layout, pages, folios, s.folio_of_page, at)[0]),
        page_type=PAGE_TYPES[type_ - 1] if typed else "",
        is_anon=anon and not typed,
        is_ksm=bool(pages.is_ksm(at)[0]),
        is_hugetlb=hugetlb,
        is_file=not typed and mapping != 0 and mapping & MAPPING_TAGS == 0,
        is_counted=not typed and not lost and int(pages.head_row[row]) >= 0,
        mapping_rows=rows,
        rejected=rejected,
        pte=pte,
        writable=writable,
        exclusive=exclusive,
        pmd=pmd,
        pud=pud,
        huge_writable=huge_writable,
        nr_mms=len(distinct(s.mappings.mm_idx[rows])) if walked else 0,
    )


def _by_page(s: Snapshot, rows: I64, first: int, nr: int) -> I32:
    """How many of some runs of PTEs map each of the pages [first, first + nr)."""
    m = s.mappings
    begin = np.clip(m.pfn[rows] - first, 0, nr)
    end = np.clip(m.pfn[rows] + m.nr[rows].astype(np.int64) - first, 0, nr)
    steps = np.zeros(nr + 1, np.int32)
    np.add.at(steps, begin, np.int32(1))
    np.subtract.at(steps, end, np.int32(1))
    return np.cumsum(steps[:-1], dtype=np.int32)


def stored_mapcount(s: Snapshot, f: OneFolio) -> int:
    """folio_mapcount() from the stored counters, as this kernel computes it."""
    pages, folios = s.pages, s.folios
    if f.page_type:
        return 0
    if not f.is_large:
        return max(int(pages.mapcount_raw[f.head]) + 1, 0)
    scheme, entire = s.scheme, int(folios.entire_raw[f.folio]) + 1
    if scheme is not None and scheme.has_large_mapcount:
        return int(folios.large_raw[f.folio]) + 1
    if f.is_hugetlb:
        return entire
    total = entire + int((pages.mapcount_raw[f.head : f.head + f.nr_pages].astype(np.int64) + 1).sum())
    if scheme is not None and scheme.double_map:
        if not f.is_anon:
            return total - entire * f.nr_pages
        return total - f.nr_pages * bool(folios.double_map[f.folio])
    return total


def terms_of(s: Snapshot, f: OneFolio) -> ReferenceTerms:
    """The references of the folio broken down."""
    return break_down(s, np.array([f.head], np.int64))
