"""Compound folios: order, kind and every counter kept in their first struct pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from inspector.columns import I16, I32, I64, U8, U16, U32, U64, AnyArray, Column, Mask, Table, UnknownColumn
from inspector.layout.flags import MAPPING_ANON, MAPPING_TAGS, type_code
from inspector.layout.kernel import Layout
from inspector.layout.offsets import Field
from inspector.model.mm_ids import Slots
from inspector.model.scheme import Scheme
from inspector.records import dataclass
from inspector.tables.page_words import page_type_codes

if TYPE_CHECKING:
    from inspector.tables.pages import Pages

HEAD_PAGES = 4
"""Struct pages that a struct folio may cover (include/linux/mm_types.h)."""


@dataclass(frozen=True, slots=True)
class Folios(Table):
    """One row a compound page of any kind, in the order of page frame numbers.

    Attributes:
        row: int64; row of the head in `Pages`.
        pfn: int64; page frame number of the head.
        order: uint8; log2 of the number of pages, as stored.
        nr_stored: uint32; the cached number of pages, 0 where the kernel keeps none for this folio.
        entire_raw: int32; entire mapcount as stored (-1 based).
        word_raw: int32; ``_nr_pages_mapped`` or ``_subpages_mapcount``; 0 where the kernel has none.
        large_raw: int32; ``_large_mapcount`` as stored; -1 where the kernel has none.
        pincount: int32; ``_pincount``.
        mm_ids: uint64; both mm-id words as one, 0 where the kernel has none.
        mm_id_count0, mm_id_count1: int32; the slots' counts as stored.
        is_hugetlb, is_anon, is_ksm, is_rmappable, double_map, partially_mapped: bool.
        tail_flags: uint64; flags word of the first tail.
        readable: bool; False where the first tail could not be read: order and counters are then meaningless.
    """

    row: I64
    pfn: I64
    order: U8
    nr_stored: U32
    entire_raw: I32
    word_raw: I32
    large_raw: I32
    pincount: I32
    mm_ids: U64
    mm_id_count0: I32
    mm_id_count1: I32
    is_hugetlb: Mask
    is_anon: Mask
    is_ksm: Mask
    is_rmappable: Mask
    double_map: Mask
    partially_mapped: Mask
    tail_flags: U64
    readable: Mask

    @property
    def nr_pages(self) -> I64:
        """Pages of each folio, by its order."""
        return np.int64(1) << self.order.astype(np.int64)

    @property
    def mm_id_slots(self) -> Slots:
        """The mm-id slots of each folio; free where the kernel has none (before 6.15)."""
        return Slots(self.mm_ids, self.mm_id_count0, self.mm_id_count1)


class _Head:
    """Members of struct folio and of struct page[1] taken out of the raw heads."""

    def __init__(self, layout: Layout, raw: U8) -> None:
        self._layout = layout
        self._raw = raw
        self._folio = layout.struct("struct folio")
        self._page = layout.struct("struct page")

    def find(self, folio: tuple[str, ...], tail: tuple[str, ...] = ()) -> Field | None:
        """A member of struct folio, else of the first tail seen as a struct page."""
        field = self._folio.find(*folio) if folio else None
        if field is None and tail:
            field = self._page.find(*tail)
            if field is not None:
                field = Field(field.offset + self._page.size, field.size, field.signed, field.length)
        if field is not None and field.offset + field.size > HEAD_PAGES * self._page.size:
            return None
        return field

    def mapping(self) -> U64:
        """``mapping`` words of the heads."""
        words: U64 = self._page.field("mapping").column(self._raw)
        return words

    def type_codes(self) -> U8:
        """Page types of the heads."""
        flags = self._page.field("flags.f", "flags").column(self._raw)
        word = self._page.field("_mapcount.counter", "_mapcount").column(self._raw)
        return page_type_codes(self._layout, flags, word.view(np.uint32))

    def int32(self, absent: int | None, folio: tuple[str, ...], tail: tuple[str, ...] = ()) -> I32:
        """A counter, or ``absent`` everywhere when this kernel has none; None where it has one that is not known."""
        field = self.find(folio, tail)
        if field is None:
            if absent is None:
                return cast("I32", UnknownColumn(f"struct folio has no member {' or '.join(folio)} in this kernel"))
            return np.full(len(self._raw), absent, np.int32)
        return field.column(self._raw).astype(np.int64).astype(np.uint32).view(np.int32)


def no_folios() -> Folios:
    """The table without a compound page."""
    return Folios.empty()


def decode_heads(layout: Layout, row: I64, pfn: I64, raw: U8) -> Folios:
    """Decode the heads of compound pages.

    The places follow struct folio and, on 6.1, struct page of the first tail (include/linux/mm_types.h).

    Args:
        layout: The kernel's layout.
        row: int64[n]; row of each in `Pages`.
        pfn: int64[n]; page frame of each.
        raw: uint8[n, HEAD_PAGES * sizeof(struct page)]; its first struct pages.

    Returns:
        The compound pages, all of them marked as readable.
    """
    head = _Head(layout, raw)
    n = len(row)
    size = layout.memmap.page_size
    tail_flags = raw[:, size : size + 8].copy().view(np.uint64)[:, 0]
    order = _order(layout, head, raw, tail_flags)
    nr_field = head.find(("_nr_pages", "_folio_nr_pages"), ("compound_nr",))
    nr_stored = np.zeros(n, np.uint32) if nr_field is None else nr_field.column(raw).astype(np.uint32)
    type_, mapping = head.type_codes(), head.mapping()
    hugetlb, rmappable = _kinds(layout, head, raw, type_, tail_flags)
    flags = layout.flags
    scheme = layout.scheme.scheme
    old, with_ids = scheme is Scheme.OLD, scheme in (Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT)
    large = with_ids or scheme is Scheme.LARGE
    word = large or scheme in (Scheme.SUBPAGES, Scheme.RMAP68)
    untyped = (type_ == 0) | hugetlb
    ids = head.find(("_mm_ids",))
    counts = [head.find((f"_mm_id_mapcount[{i}]",)) for i in (0, 1)]
    return Folios(
        row=row,
        pfn=pfn,
        order=order,
        nr_stored=nr_stored,
        entire_raw=head.int32(
            None, ("_entire_mapcount.counter", "_compound_mapcount.counter"), ("compound_mapcount.counter",)
        ),
        word_raw=head.int32(None if word else 0, ("_nr_pages_mapped.counter", "_subpages_mapcount.counter")),
        large_raw=head.int32(None if large else -1, ("_large_mapcount.counter",)),
        pincount=head.int32(0, ("_pincount.counter",), ("compound_pincount.counter",)),
        mm_ids=_ids(ids, raw, kept=with_ids),
        mm_id_count0=_count(counts[0], raw, kept=with_ids),
        mm_id_count1=_count(counts[1], raw, kept=with_ids),
        is_hugetlb=hugetlb,
        is_anon=((mapping & np.uint64(MAPPING_ANON)) != 0) & untyped,
        is_ksm=((mapping & np.uint64(MAPPING_TAGS)) == MAPPING_TAGS) & untyped,
        is_rmappable=rmappable,
        double_map=flags.test(tail_flags, "double_map") if old else np.zeros(n, np.bool_),
        partially_mapped=flags.test(tail_flags, "partially_mapped"),
        tail_flags=tail_flags,
        readable=np.ones(n, np.bool_),
    )


_NO_IDS = "struct folio has no members for mm ids as we know them in this kernel"


def _ids(field: Field | None, raw: U8, *, kept: bool) -> U64:
    if field is None:
        return cast("U64", UnknownColumn(_NO_IDS)) if kept else np.zeros(len(raw), np.uint64)
    return field.column(raw).astype(np.uint64)


def _count(field: Field | None, raw: U8, *, kept: bool) -> I32:
    if field is None:
        return cast("I32", UnknownColumn(_NO_IDS)) if kept else np.full(len(raw), -1, np.int32)
    column: I32 | I16 | U16 = field.column(raw)
    return column.astype(np.int32)


def _order(layout: Layout, head: _Head, raw: U8, tail_flags: U64) -> U8:
    """folio_order(): a byte of its own up to 6.5, then the low byte of the first tail's flags."""
    field = head.find(("_folio_order",), ("compound_order",))
    if field is not None:
        return field.column(raw).astype(np.uint8)
    return (tail_flags & np.uint64(0xFF)).astype(np.uint8)


def _kinds(layout: Layout, head: _Head, raw: U8, type_: U8, tail_flags: U64) -> tuple[Mask, Mask]:
    """Which heads are hugetlb and which are kept by the rmap (transparent huge or large file folios)."""
    flags = layout.flags
    destructors = layout.enum("enum compound_dtor_id")
    dtor_field = head.find((), ("compound_dtor",)) or head.find(("_folio_dtor",))
    hugetlb = type_ == type_code("hugetlb")
    rmappable = flags.test(tail_flags, "large_rmappable")
    if destructors and dtor_field is not None:
        dtor = dtor_field.column(raw)
        hugetlb = hugetlb | (dtor == destructors["HUGETLB_PAGE_DTOR"])
        rmappable = rmappable | (dtor == destructors.get("TRANSHUGE_PAGE_DTOR", 255))
    elif flags.has("hugetlb"):
        hugetlb = hugetlb | flags.test(tail_flags, "hugetlb")
    return hugetlb, rmappable & ~hugetlb & (type_ == 0)


def settle_page_mapcount(scheme: Scheme | None, folios: Folios, pages: Pages) -> tuple[Scheme | None, str]:
    """Find CONFIG_NO_PAGE_MAPCOUNT from the data, since no type shows it.

    Without page counts every rmappable folio has ``_nr_pages_mapped`` 0 although some are mapped by PTEs alone.

    Returns:
        The settled scheme and a sentence of evidence ("" when there was nothing to settle).
    """
    unknown = (folios.large_raw, folios.entire_raw, folios.word_raw)
    if scheme is not Scheme.MM_IDS or any(isinstance(column, UnknownColumn) for column in unknown):
        return scheme, ""
    mapped = folios.is_rmappable & folios.readable & (folios.large_raw >= 0) & (folios.entire_raw < 0)
    if not mapped.any():
        return scheme, "no large folio mapped by PTEs alone: page mapcounts assumed to be kept"
    nr, kept = int(mapped.sum()), int((folios.word_raw[mapped] != 0).sum())
    # A majority, so that one damaged word does not change how all others are judged.
    if 2 * kept < nr and 2 * int((pages.mapcount_raw[folios.row[mapped]] == -1).sum()) > nr:
        return Scheme.NO_PAGE_MAPCOUNT, f"_nr_pages_mapped is 0 in {nr - kept} of {nr} PTE-mapped large folios"
    return scheme, f"_nr_pages_mapped is used by {kept} of {nr} PTE-mapped large folios"


def anon_pages(pages: Pages, folios: Folios) -> Column[np.bool_]:
    """By page row: pages of anonymous folios, hugetlb and KSM included."""
    return _of_head(pages, pages.words.is_anon, folios.is_anon)


def file_pages(pages: Pages, folios: Folios) -> Column[np.bool_]:
    """By page row: pages of folios that name an address_space, hugetlb included."""
    words = pages.words
    head = pages.number[folios.row]
    large = words.names_file[head] & ((words.type_[head] == 0) | folios.is_hugetlb)
    return _of_head(pages, words.names_file & (words.type_ == 0), large)


def _of_head(pages: Pages, small: Mask, large: Mask) -> Column[np.bool_]:
    """By page row what is known of each page's head, where it can be read.

    Args:
        pages: The pages.
        small: bool; by row of `Pages.words`.
        large: bool; by row of `Folios`, for those.
    """
    of_words = small & pages.words.readable
    of_folios = large & pages.words.readable[pages.number[pages.heads[: len(large)]]]

    def take(at: AnyArray | slice) -> Mask:
        compound = pages.compound[at]
        head = pages.head_row[at]
        out = of_words[pages.number[head]] & (head >= 0)
        of_large = np.flatnonzero(compound >= 0)
        out[of_large] = of_folios[compound[of_large]]
        return out

    return Column(take, len(pages))
