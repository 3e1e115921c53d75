"""What a page-table walk gives: leaf entries, non-present entries and the tables themselves, as columns."""

from __future__ import annotations

import numpy as np

from inspector.arch.base import Level
from inspector.columns import I32, I64, U8, U16, U32, U64, Mask, Table
from inspector.layout.kernel import Layout
from inspector.records import dataclass


@dataclass(frozen=True, slots=True)
class PageTables(Table):
    """One row a table page reached from an mm; a table shared by several mms has a row for each.

    Attributes:
        pfn: int64; the table's page frame.
        level: uint8; `inspector.arch.base.Level` of the entries it holds.
        mm_idx: int32; row of the mm.
        va: uint64; first address it covers.
        parent: int32; row of the table that points to it, -1 for the top.
        slot: uint16; the entry in the parent.
        first: bool; True for the table's first row, False where it was reached again.
        state: uint8; `TABLE_OK` or why it was not entered.
    """

    pfn: I64
    level: U8
    mm_idx: I32
    va: U64
    parent: I32
    slot: U16
    first: Mask
    state: U8


ENTRY_ID_SLOT_BITS = 9
"""Bits of an entry's number that are its slot: no table has more than 512 entries."""


def entry_pages(layout: Layout, levels: U8) -> I64:
    """Base pages that one entry of each level maps."""
    out = np.ones(len(levels), np.int64)
    for shape in layout.arch.shapes:
        if shape.level != Level.PTE:
            out[levels == shape.level] = 1 << (shape.shift - layout.arch.page_shift)
    return out


TABLE_OK, TABLE_NO_PAGE, TABLE_UNREADABLE, TABLE_NOT_A_TABLE, TABLE_TWICE_IN_MM, TABLE_MOVED, TABLE_PARTLY = range(7)
"""States of a table: entered; its pfn has no memory; not in the dump; its page is free or of another kind; a loop; of a
kernel that runs on: no table any more when what led to it was read again; entered, but for entries in which something
else was written (`inspector.memory.Memory.overwritten`)."""

ENTERED = (TABLE_OK, TABLE_PARTLY)
"""States of tables whose entries were followed."""

NOT_FOLLOWED = (TABLE_UNREADABLE, TABLE_NO_PAGE, TABLE_NOT_A_TABLE, TABLE_TWICE_IN_MM, TABLE_PARTLY)
"""States of tables whose entries are not known, all or some. One that has moved is known to be none any more."""


@dataclass(frozen=True, slots=True)
class Mappings(Table):
    """One row a run of leaf entries that are neighbours in one table and map consecutive pages alike.

    Only PTEs are merged into runs; all bits of the entries but the page frame are equal within one. No run crosses the
    border of a VMA, of a large folio or of a stretch of pages of one class. Rows are in the order of a walk: by level,
    then by the page frame of the table, then by slot. `inspector.walk.counts.judge` fills in the last three columns.

    Attributes:
        mm_idx: int32; row of the mm.
        vma_idx: int32; row of the VMA, -1 when the address is in none.
        va: uint64; first address.
        level: uint8; `inspector.arch.base.Level` of the entries.
        nr: uint32; entries in the run.
        pfn: int64; first page frame.
        entry: uint64; the first entry as stored.
        table_idx: int32; row in `PageTables`.
        slot: uint16; index of the first entry in its table.
        counted: bool; False where a shared table was reached again: such entries are no mappings of their own.
        bits: uint16; `inspector.arch.base.Bit`.
        entry_class: uint8; `inspector.walk.counts.EntryClass` of what it maps, the same for all pages of a run.
        page_row: int32; row in `Pages` of the first page, -1 where it has no struct page.
        head_row: int32; row in `Pages` of the folio's head, -1 when there is none.
    """

    mm_idx: I32
    vma_idx: I32
    va: U64
    level: U8
    nr: U32
    pfn: I64
    entry: U64
    table_idx: I32
    slot: U16
    counted: Mask
    bits: U16
    entry_class: U8
    page_row: I32
    head_row: I32

    @property
    def entry_id(self) -> I64:
        """int64; a number for the first entry of each run that no other entry has: its table and its slot."""
        return (self.table_idx.astype(np.int64) << ENTRY_ID_SLOT_BITS) | self.slot


@dataclass(frozen=True, slots=True)
class NonPresent(Table):
    """One row a non-empty entry that is neither a leaf nor a table.

    Attributes:
        kind: uint8; `inspector.arch.base.Kind`.
        pfn: int64; for the kinds that carry one, else -1.
        swap_type: uint8; as stored.
        swap_offset: uint64; as stored.
        mm_idx, vma_idx, va, level, entry, table_idx, slot, counted: as in `Mappings`.
    """

    mm_idx: I32
    vma_idx: I32
    va: U64
    level: U8
    kind: U8
    pfn: I64
    swap_type: U8
    swap_offset: U64
    entry: U64
    table_idx: I32
    slot: U16
    counted: Mask


@dataclass(frozen=True)
class Walk:
    """What a walk of page tables gives.

    Attributes:
        mappings: The leaf entries, not judged yet; empty where they were handed on batch by batch.
        nonpresent, tables: The rest.
    """

    mappings: Mappings
    nonpresent: NonPresent
    tables: PageTables
