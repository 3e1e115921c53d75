"""Folios under writeback, and the marks that the page cache keeps of those of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, U8, Mask, Table, rows_of, take_or
from inspector.layout.flags import MAPPING_ANON
from inspector.lib.xarray import read_marks
from inspector.records import dataclass
from inspector.tables.files import SWAP
from inspector.tables.pages import page_words
from inspector.walk.swap_cache import is_swap_cached

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot

DIRTY, WRITEBACK, TOWRITE = 1 << 0, 1 << 1, 1 << 2
"""The marks of an entry of the page cache (PAGECACHE_TAG_DIRTY and the others, include/linux/fs.h)."""

_NO_WRITEBACK_TAGS = 1 << 5
"""AS_NO_WRITEBACK_TAGS (include/linux/pagemap.h): set for the address_spaces of the swap cache alone."""


@dataclass(frozen=True, slots=True)
class Writeback(Table):
    """One row a folio with PG_writeback that is anonymous or in the page cache of a file.

    Attributes:
        row: int64; its head in the memory map.
        is_anon: bool; anonymous, KSM's included.
        is_cached: bool; an anonymous one is in the swap cache.
        marks: uint8; of its entry in the page cache: `DIRTY`, `WRITEBACK`, `TOWRITE`.
        known: bool; whether those could be read; that of an anonymous folio is in the struct page.
        in_motion: bool; the address_space's i_pages is locked.
    """

    row: I64
    is_anon: Mask
    is_cached: Mask
    marks: U8
    known: Mask
    in_motion: Mask


def read_writeback(s: Snapshot) -> Writeback:
    """Find them (mm/page-writeback.c, __folio_start_writeback())."""
    words, flags = s.pages.words, s.layout.flags
    wanted = flags.test(words.flags, "writeback") & words.readable & (words.type_ == 0) & (words.refcount > 0)
    row = s.pages.heads_where(wanted & (words.mapping != 0))
    is_anon = (s.pages.mapping[row] & np.uint64(MAPPING_ANON)) != 0
    marks, known, in_motion = cache_marks(s, row)
    found = Writeback(row, is_anon, is_swap_cached(s, row), marks, is_anon | known, in_motion)
    return found.take(np.flatnonzero(found.known))


def cache_marks(s: Snapshot, head_rows: I64) -> tuple[U8, Mask, Mask]:
    """The marks of some folios' entries in the page cache.

    Returns:
        The marks; which are known: of a folio that names an inode's address_space that keeps marks of writeback, and
        that this leads to at its index; and of which the address_space is being changed.
    """
    layout, spaces = s.layout, s.address_spaces
    at = rows_of(spaces.addr, s.pages.mapping[head_rows])
    mine = np.flatnonzero(take_or(spaces.is_inode & (spaces.kind != SWAP), at, False))
    marks, known = np.zeros(len(head_rows), np.uint8), np.zeros(len(head_rows), np.bool_)
    in_motion = take_or(spaces.in_motion, at, False)
    if not len(mine):
        return marks, known, in_motion
    struct = layout.struct("struct address_space")
    raw = layout.memory.gather(spaces.addr[at[mine]], struct.size)
    index, has_index = page_words(layout, s.pages, head_rows[mine], "__folio_index", "index")
    head, flags = struct.field("i_pages.xa_head").column(raw.bytes), struct.field("i_pages.xa_flags").column(raw.bytes)
    found, is_there = read_marks(layout.prog, layout.memory, head, flags, index)
    keeps = (struct.field("flags").column(raw.bytes).astype(np.uint64) & np.uint64(_NO_WRITEBACK_TAGS)) == 0
    marks[mine], known[mine] = found, is_there & has_index & raw.valid & keeps
    return marks, known, in_motion
