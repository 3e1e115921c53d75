"""Where the kernel would look for each mapped page: its index against the address it is mapped at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I32, I64, U8, U64, AnyArray, Mask, Table, distinct, spans, take_or
from inspector.layout.flags import MAPPING_ANON, MAPPING_KSM, MAPPING_TAGS
from inspector.layout.kernel import Layout
from inspector.loops import LinkedPages, LinkedRuns, LinkedVmas, LinksByKind, cut_runs, distinct_rows, is_compiled
from inspector.model.scheme import Scheme
from inspector.records import dataclass
from inspector.scratch import is_shared, long_zeros
from inspector.tables.folios import Folios
from inspector.tables.page_words import PageWords
from inspector.tables.pages import Pages, page_words
from inspector.tables.vmas import Vmas
from inspector.walk.counts import INDEX_UNKNOWN, LINK_BORDER, LINKED, EntryClass
from inspector.walk.mappings import Mappings, entry_pages
from inspector.workers import share_out, sharing

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

ANON, KSM, HUGETLB, UNKNOWN = 1, 2, 4, 8
"""Bits of `Links.kind`; none of the first two means a file's folio or a driver's page."""


_PIECE = 1 << 16
"""Pages worked on at a time, so that temporaries are bounded."""

_WORTH_SHARING = 4
"""How many times as many pages take longer to look through than processes to start."""

_TIMES = 64
"""Parts of a large machine's pages that one process takes at a time."""


@dataclass(frozen=True, slots=True)
class Links(Table):
    """One row a stretch of pages that one VMA maps and whose index runs on with the address.

    Attributes:
        mapping_row: int32; row in the `Mappings` that they were made of.
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
        return _is_anon(self.kind)

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
        return _is_file(self.kind)


def _is_anon(kind: U8) -> Mask:
    return (kind & (ANON | KSM | UNKNOWN)) == ANON


def _is_file(kind: U8) -> Mask:
    return (kind & (ANON | KSM | UNKNOWN)) == 0


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


def links_of(s: Snapshot, m: Mappings) -> Links:
    """Every normal entry among some, in a VMA, beside the index of its folio.

    Args:
        s: The snapshot.
        m: Judged entries.
    """
    return _links_at(s, m, *_cut_links(s, m))


_Cut = tuple[AnyArray, AnyArray, AnyArray]
"""Which run each link is of, how many entries into it, and how many it is long."""


def _cut_links(s: Snapshot, m: Mappings) -> _Cut:
    rows = np.flatnonzero((m.entry_class == EntryClass.NORMAL) & (m.vma_idx >= 0))
    first, nr = m.page_row[rows].astype(np.int64), m.nr[rows].astype(np.int64)
    owner, skip, nr = cut_runs(s.page_index.codes, first, nr, LINK_BORDER)
    return rows[owner], skip, nr


def _links_at(s: Snapshot, m: Mappings, row: AnyArray, skip: AnyArray, nr: AnyArray) -> Links:
    pages, index = s.pages, s.page_index
    page_row = m.page_row[row] + skip
    huge = m.level[row] != Level.PTE
    nr = np.where(huge, entry_pages(s.layout, m.level[row]), nr) if huge.any() else nr
    head = pages.head_row[page_row]
    va = m.va[row] + (skip.astype(np.uint64) << np.uint64(s.layout.memmap.page_shift))
    mapping, kind = _words_and_kinds(s, head, index)
    vma = m.vma_idx[row]
    place = page_row - head
    linear = index.linear(s, vma, va, (kind & ANON) != 0)
    return Links(
        mapping_row=row.astype(np.int32),
        vma_idx=vma,
        head_row=head,
        va=va,
        page=place.astype(np.int32),
        nr=nr.astype(np.int32),
        mapping=mapping,
        delta=(index.of_head[head] + place.astype(np.uint64) - linear).astype(np.int64),
        kind=kind,
    )


@dataclass(frozen=True)
class LinkKinds:
    """The links of a batch by kind: those of one kind have VMA, ``mapping``, ``delta`` and ``kind`` in common.

    Attributes:
        examples: The first link of each kind.
        nr: int64 a kind; links.
    """

    examples: Links
    nr: I64
    _cut: Callable[[Mask], _Cut]
    _links: Callable[[_Cut], Links]

    def links(self, some: Mask) -> Links:
        """The links of some kinds."""
        return self._links(self._cut(some)) if some.any() else self.examples.take(slice(0))


def link_kinds(s: Snapshot, m: Mappings) -> LinkKinds:
    """Sort the links of some judged entries by kind."""

    def links(cut: _Cut) -> Links:
        return _links_at(s, m, *cut)

    if is_compiled():
        runs = LinkedRuns(m.entry_class, m.vma_idx, m.page_row, m.nr, m.va, EntryClass.NORMAL)
        vmas = LinkedVmas(s.vmas.start, s.vmas.pgoff, s.vmas.anon_pgoff, s.layout.memmap.page_shift)
        by_kind = LinksByKind(runs, _linked_pages(s), vmas)
        return LinkKinds(links(by_kind.examples()), by_kind.nr, by_kind.links, links)
    table, cut = distinct_rows(3), _cut_links(s, m)
    every = links(cut)
    words = np.empty((len(every), 3), np.uint64)
    words[:, 0] = every.vma_idx | every.kind.astype(np.int64) << 32
    words[:, 1], words[:, 2] = every.mapping, every.delta.view(np.uint64)
    of_link = table.codes(words)

    def of_kinds(some: Mask) -> _Cut:
        rows = np.flatnonzero(some[of_link])
        return cut[0][rows], cut[1][rows], cut[2][rows]

    # Kinds are numbered as they are met, so each number is new just once.
    example = np.flatnonzero(np.diff(np.maximum.accumulate(of_link), prepend=-1))
    return LinkKinds(every.take(example), table.weights, of_kinds, links)


def _linked_pages(s: Snapshot) -> LinkedPages:
    pages, index = s.pages, s.page_index
    return LinkedPages(
        index.codes,
        LINK_BORDER,
        INDEX_UNKNOWN,
        pages.number,
        pages.compound,
        pages.heads,
        index.of_head,
        pages.words.mapping,
        index.kinds,
        s.folios.is_hugetlb,
        np.array([ANON, HUGETLB, UNKNOWN], np.uint8),
    )


@dataclass(frozen=True)
class PageIndex:
    """The index of every folio of which something is mapped in a VMA.

    Attributes:
        of_head: uint64 by page row; index of the folio that each page heads, 0 for all other pages.
        codes: `inspector.walk.counts.Ground.codes`, with `LINK_BORDER` and `INDEX_UNKNOWN`.
        all_known: Whether all of these could be read.
        bases: uint64[2 * vmas]; page offset of address 0 in each VMA, for folios of files and then for anonymous ones;
            None where a damaged VMA begins within a page.
        kinds: uint8 by row of `inspector.tables.pages.Pages.words`; `LinkedPages.kind`.
    """

    of_head: U64
    codes: U8
    all_known: bool
    bases: U64 | None
    kinds: U8

    def linear(self, s: Snapshot, vma_idx: I32, va: U64, anon: Mask) -> U64:
        """`linear_index` of page addresses, by one look-up where all VMAs begin at pages."""
        if self.bases is None:
            return linear_index(s.vmas, vma_idx, va, anon, s.layout.memmap.page_shift)
        out = self.bases[vma_idx + anon * np.int32(len(s.vmas))]
        out += va >> np.uint64(s.layout.memmap.page_shift)
        return out


def read_page_index(s: Snapshot, codes: U8) -> PageIndex:
    """Read the index of all folios marked as `LINKED`, and mark where it does not run on with the page frame."""
    n = len(s.pages)
    # What depends on all of the memory map is worked out before there are workers.
    step, _ = max(_PIECE, n // _TIMES), s.folio_of_page
    nr = sharing(n // step, s.nr_workers if is_shared(codes) else 1, _WORTH_SHARING)
    index = long_zeros(n, np.uint64, shared=nr > 1)

    def read(rows: slice) -> bool:
        known = [_read_indices(s, codes, index, piece) for piece in _cut(rows)]
        return all(known)

    def mark(rows: slice) -> bool:
        for piece in _cut(rows):
            _mark_borders(s, codes, index, piece)
        return True

    all_known = all(_of_spans(spans(n, step), read, nr))
    _of_spans(spans(n, step), mark, nr)
    words = s.pages.words
    kinds = _tagged(words) | np.where(words.type_ != 0, np.uint8(_TYPED), np.uint8(0))
    return PageIndex(index, codes, all_known, _bases(s), kinds)


def _of_spans(rows: list[slice], look: Callable[[slice], bool], nr: int) -> list[bool]:
    """Ask something of each of some stretches of pages, in that many processes; the answers in any order."""

    def there(numbers: Iterable[int]) -> list[bool]:
        return [look(rows[number]) for number in numbers]

    if nr == 1:
        return there(range(len(rows)))
    found: list[bool] = []
    for others in share_out(len(rows), lambda numbers: found.extend(there(numbers)), there, nr):
        found.extend(others)
    return found


def _cut(rows: slice) -> list[slice]:
    """Some rows in pieces of `_PIECE`."""
    return [slice(rows.start + at.start, rows.start + at.stop) for at in spans(rows.stop - rows.start, _PIECE)]


def _read_indices(s: Snapshot, codes: U8, index: U64, rows: slice) -> bool:
    """Read the index of the folios that are headed by some of these pages; gives whether all could be read."""
    heads = rows.start + np.flatnonzero(codes[rows] & np.uint8(LINKED))
    if not len(heads):
        return True
    index[heads], known = read_index(s.layout, s.pages, s.folios, heads, s.folio_of_page[heads])
    codes[heads[~known]] |= np.uint8(INDEX_UNKNOWN)
    return bool(known.all())


def _mark_borders(s: Snapshot, codes: U8, index: U64, rows: slice) -> None:
    """Mark those of some pages whose index does not run on from the page before."""
    pages, first = s.pages, max(rows.start, 1)
    head = np.maximum(pages.head_row[first - 1 : rows.stop], 0)
    linked = (codes[head] & np.uint8(LINKED)) != 0
    at = first + np.flatnonzero(linked[1:] & linked[:-1])
    head, before = head[at - first + 1], head[at - first]
    # Pages of one folio run on; those of two do when nothing but the index differs.
    other = np.flatnonzero(head != before)
    at, head, before = at[other], head[other], before[other]
    runs_on = index[head] + (at - head).astype(np.uint64) == index[before] + (at - before).astype(np.uint64)
    runs_on &= pages.mapping[head] == pages.mapping[before]
    runs_on &= ((codes[head] ^ codes[before]) & np.uint8(INDEX_UNKNOWN)) == 0
    codes[at[~runs_on]] |= np.uint8(LINK_BORDER)


def _bases(s: Snapshot) -> U64 | None:
    vmas, shift = s.vmas, np.uint64(s.layout.memmap.page_shift)
    if ((vmas.start & np.uint64((1 << int(shift)) - 1)) != 0).any():
        return None
    first = vmas.start >> shift
    return np.concatenate([base.astype(np.uint64) - first for base in (vmas.pgoff, vmas.anon_pgoff)])


@dataclass(frozen=True)
class Named:
    """What the folios that are mapped in VMAs name.

    Attributes:
        anon, file: uint64; the ``mapping`` words of anonymous ones and of files, each once, ascending.
        ksm_heads: int64; rows of the KSM pages.
    """

    anon: U64
    file: U64
    ksm_heads: I64


def named_by_folios(s: Snapshot) -> Named:
    """The ``mapping`` words of all folios with links, a piece of the memory map at a time."""
    index = s.page_index
    codes = index.codes
    anon, file, ksm = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for first in range(0, len(codes), _PIECE):
        heads = first + np.flatnonzero(codes[first : first + _PIECE] & np.uint8(LINKED))
        word, kind = _words_and_kinds(s, heads, index)
        anon.append(distinct(word[_is_anon(kind)]))
        file.append(distinct(word[_is_file(kind)]))
        ksm.append(heads[(kind & KSM) != 0])
    return Named(distinct(np.concatenate(anon)), distinct(np.concatenate(file)), np.concatenate(ksm))


_TYPED = 0x80
"""In `LinkedPages.kind`: a page of a type."""


def _tagged(words: PageWords) -> U8:
    """`ANON` and `KSM` of `Links.kind` as the tags of ``mapping`` have them, whatever the page type."""
    tag = words.mapping & np.uint64(MAPPING_TAGS)
    anon = np.where((tag & np.uint64(MAPPING_ANON)) != 0, ANON, 0)
    return (anon | np.where(tag == MAPPING_KSM, KSM, 0)).astype(np.uint8)


def _words_and_kinds(s: Snapshot, head: AnyArray, index: PageIndex) -> tuple[U64, U8]:
    """The ``mapping`` words of folios with the given heads, and the bits of `Links.kind`."""
    number, hugetlb = s.pages.number[head], s.folios.is_hugetlb
    by_word = index.kinds[number]
    kind = np.where((by_word & np.uint8(_TYPED)) == 0, by_word, np.uint8(0))
    if hugetlb.any():
        rows = np.flatnonzero(take_or(hugetlb, s.folio_of_page[head], False))
        kind[rows] = by_word[rows] & np.uint8(~_TYPED & 0xFF) | np.uint8(HUGETLB)
    if not index.all_known:
        kind[(index.codes[head] & np.uint8(INDEX_UNKNOWN)) != 0] |= np.uint8(UNKNOWN)
    return s.pages.words.mapping[number], kind


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
