"""Faults by name: the patches that plant each in a dump, and the one finding it must give.

A plant changes one thing. What it needs (a page mapped just so, an entry of some kind) is looked up in the dump; a
dump that has no such thing raises `MissingError`, and the test decides whether that kernel may lack it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inspector.arch.base import Kind, Level
from inspector.columns import I64, Mask, rows_of
from inspector.layout.flags import MAPPING_MOVABLE, MAPPING_TAGS, VM_SHARED, type_code
from inspector.layout.offsets import Field
from inspector.model.scheme import ENTIRELY_MAPPED, Scheme
from inspector.rules.entries.exclusive import exclusive_pages
from inspector.rules.page_pieces import PAGE_PIECES
from inspector.rules.pieces import EntryPiece
from inspector.snapshot import Snapshot
from inspector.walk.batches import Kinds
from inspector.walk.counts import EntryClass
from inspector.windows.locks import mm_in_flight
from tests.faults.overlay import Patch, add, page_word, pfn_of, put, word


class MissingError(Exception):
    """This dump has nothing that the fault could be planted in."""


@dataclass(frozen=True)
class Planted:
    """A fault ready to be planted.

    Attributes:
        patches: What to change.
        rules: Slugs of which exactly one must be found, nothing else.
        pfn: The folio or page that the finding must name, None when it names something else.
        severity: How the finding must be graded.
    """

    patches: tuple[Patch, ...]
    rules: tuple[str, ...]
    pfn: int | None
    severity: str = "fail"


Plant = Callable[[Snapshot], Planted]

SIZE = 64


def pick(rows: I64, what: str, nth: int = 0) -> int:
    """One of the candidates: the nth, or the last when there are fewer."""
    if not len(rows):
        raise MissingError(what)
    return int(rows[min(nth, len(rows) - 1)])


def vma_has(s: Snapshot, flag: int) -> Mask:
    """Runs of leaf entries in VMAs with a flag."""
    return EntryPiece(s, 0, len(s.mappings), s.mappings, Kinds.each(s.mappings)).vma_has(flag)


def in_shared_vma(s: Snapshot) -> Mask:
    """Runs of leaf entries in VM_SHARED VMAs."""
    return vma_has(s, VM_SHARED)


def exclusive_rows(s: Snapshot) -> I64:
    """Rows of the pages with PG_anon_exclusive."""
    return np.concatenate([p.subjects(exclusive_pages(p)) for p in PAGE_PIECES.cut(s, PAGE_PIECES.most)])


def swap_pte(s: Snapshot, kind: Kind, offset: int) -> bytes:
    """A non-present x86-64 PTE: the type in the top bits, the offset inverted below it."""
    types = s.layout.arch.swap_types.kinds  # type: ignore[attr-defined]
    number = int(np.flatnonzero(types == kind)[0])
    return ((number << 59) | ((~offset & ((1 << 50) - 1)) << 9)).to_bytes(8, "little")


def calm(s: Snapshot) -> Mask:
    """Page rows whose folio nobody is working on."""
    head = np.maximum(s.pages.head_row, 0)
    busy = s.layout.flags.test(s.pages.flags[head], "locked") | s.layout.flags.test(s.pages.flags[head], "writeback")
    return s.pages.readable & ~busy & (s.pages.type_[head] == 0) & (s.pages.head_row >= 0)


def page_at_rest(s: Snapshot) -> int | None:
    """Row of a small anonymous page of an mm that no task works on, nor on another mm of its family; None for none."""
    m, calm = s.mappings, ~(s.mm_in_motion | mm_in_flight(s))
    for worked_on in s.in_flight.mms:
        calm[worked_on] = False
    small = np.zeros(len(s.pages), np.bool_)
    small[small_anon(s, 1)] = True
    # What reclaim and migration have isolated may be in the hands of any task.
    small &= s.layout.flags.test(s.pages.flags[:], "lru")
    rows = np.flatnonzero(calm[m.mm_idx] & (m.page_row >= 0) & small[np.maximum(m.page_row, 0)])
    # A relative that is being worked on may have an entry of the page in hand.
    anon_vmas, v = s.anon_rmap.anon_vmas, s.vmas
    root = anon_vmas.root[np.maximum(rows_of(anon_vmas.addr, v.anon_vma), 0)]
    busy = np.unique(root[(v.anon_vma != 0) & ~calm[v.mm_idx]])
    rows = rows[~np.isin(root[np.maximum(m.vma_idx[rows], 0)], busy)]
    return int(m.page_row[rows[len(rows) // 2]]) if len(rows) else None


def small_anon(s: Snapshot, mapped: int, *, more: bool = False) -> I64:
    """Rows of small anonymous pages with that many mappings (or more), in no cache."""
    rows = np.arange(len(s.pages))
    plain = (s.folio_of_page < 0) & s.pages.is_anon(rows) & ~s.pages.is_ksm(rows) & calm(s)
    cached = s.layout.flags.test(s.pages.flags, "swapcache")
    count = s.counts.page_mappings
    return np.flatnonzero(plain & ~cached & ((count >= mapped) if more else (count == mapped)))


def small_file(s: Snapshot, mapped: int) -> I64:
    """Rows of small page-cache pages with at least that many mappings."""
    mapping = s.pages.mapping
    plain = (s.folio_of_page < 0) & (mapping != 0) & ((mapping & np.uint64(MAPPING_TAGS)) == 0) & calm(s)
    return np.flatnonzero(plain & (s.counts.page_mappings >= mapped))


def folios(s: Snapshot, wanted: Mask) -> I64:
    """Rows of calm, readable folios among the wanted ones."""
    return np.flatnonzero(wanted & s.folios.readable & (calm(s)[s.folios.row] | s.folios.is_hugetlb))


def pte_mapped_thp(s: Snapshot) -> I64:
    """Large anonymous folios mapped by PTEs alone."""
    f = s.folios
    return folios(s, f.is_anon & ~f.is_hugetlb & (s.counts.entire == 0) & (s.folio_totals > 1) & ~f.is_ksm)


def pmd_mapped(s: Snapshot, *, anon: bool = False, hugetlb: bool = False) -> I64:
    """Folios mapped by huge entries alone."""
    f = s.folios
    return folios(
        s, (s.counts.entire > 0) & (s.folio_totals == s.counts.entire) & (f.is_hugetlb == hugetlb) & (f.is_anon == anon)
    )


def mapcount_at(s: Snapshot, row: int) -> int:
    """Address of a page's _mapcount."""
    return page_word(s, pfn_of(s, row), "_mapcount.counter", "_mapcount")


def head_field(s: Snapshot, *names: str, tail: tuple[str, ...] = ()) -> Field:
    """A member of struct folio, or of the second struct page of kernels that kept it there."""
    found = s.layout.struct("struct folio").find(*names)
    if found is None and tail:
        old = s.layout.struct("struct page").find(*tail)
        found = None if old is None else Field(old.offset + SIZE, old.size, old.signed)
    if found is None:
        raise MissingError(f"{names} in this kernel")
    return found


def folio_at(s: Snapshot, folio: int, field: Field) -> int:
    """Address of a member of a folio."""
    return s.layout.memmap.page_addr(int(s.folios.pfn[folio])) + field.offset


def entry_address(s: Snapshot, row: int, skip: int = 0) -> int:
    """Physical address of an entry of a mapping."""
    m = s.mappings
    return (int(s.tables.pfn[m.table_idx[row]]) << 12) + 8 * (int(m.slot[row]) + skip)


def clear_entry(s: Snapshot, row: int, skip: int = 0) -> Patch:
    """An entry made empty."""
    return Patch(entry_address(s, row, skip), bytes(8), True)


def mapping_of_page(s: Snapshot, row: int) -> tuple[int, int]:
    """A PTE that maps a page: its row in the mappings and its place in the run."""
    m, pfn = s.mappings, pfn_of(s, row)
    hit = (
        (m.level == Level.PTE)
        & (m.pfn <= pfn)
        & (m.pfn + m.nr > pfn)
        & m.counted
        & (s.mappings.entry_class == EntryClass.NORMAL)
    )
    at = pick(np.flatnonzero(hit & ~s.mm_in_motion[m.mm_idx]), "a PTE of the page")
    return at, pfn - int(m.pfn[at])


def empty_slot(s: Snapshot) -> tuple[int, int]:
    """Physical address and mm of an empty PTE inside an anonymous VMA, beside a mapped one."""
    m, v = s.mappings, s.vmas
    beside = (m.level == Level.PTE) & (m.slot + m.nr < 512) & (m.vma_idx >= 0) & m.counted
    vma = np.maximum(m.vma_idx, 0)
    behind = m.va + ((m.nr.astype(np.uint64) + np.uint64(1)) << np.uint64(12))
    beside &= (v.file[vma] == 0) & (v.ops[vma] == 0) & (behind <= v.end[vma]) & ~s.mm_in_motion[m.mm_idx]
    for row in np.flatnonzero(beside).tolist():
        address = entry_address(s, row, int(m.nr[row]))
        if s.layout.memory.read(address, 8, physical=True) == bytes(8):
            return address, int(m.mm_idx[row])
    raise MissingError("an empty PTE in an anonymous VMA")


def pte_to(pfn: int, *, huge: bool = False) -> bytes:
    """A present, writable, accessed, dirty user entry."""
    return ((pfn << 12) | 0x8000000000000067 | (0x80 if huge else 0)).to_bytes(8, "little")


def scheme_has(s: Snapshot, *wanted: Scheme) -> None:
    """Raise `MissingError` on kernels of another scheme."""
    if s.scheme not in wanted:
        raise MissingError("this kernel keeps no such count")


WORD = (Scheme.SUBPAGES, Scheme.RMAP68, Scheme.LARGE, Scheme.MM_IDS)
LARGE = (Scheme.LARGE, Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT)
IDS = (Scheme.MM_IDS, Scheme.NO_PAGE_MAPCOUNT)
BIAS = ENTIRELY_MAPPED
MOVABLE = MAPPING_MOVABLE
SLAB, BUDDY, TABLE = type_code("slab"), type_code("buddy"), type_code("table")

__all__ = ["BIAS", "BUDDY", "IDS", "LARGE", "MOVABLE", "SLAB", "TABLE", "WORD", "add", "put", "word"]
