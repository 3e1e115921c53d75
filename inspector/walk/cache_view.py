"""A file's page cache: its folios by order, and what is at each index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inspector.columns import I64, U8, U64, AnyArray, Mask, Table
from inspector.records import dataclass
from inspector.tables.files import FOLIO, Files
from inspector.walk.page_cache import folio_pages

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class CacheView(Table):
    """One row an entry of one address_space, by index.

    Attributes:
        index: uint64; first page offset.
        nr: int64; indices it covers.
        kind: uint8; `inspector.tables.files.FOLIO` and its neighbours.
        value: uint64; as stored.
        pfn: int64; of the folio, -1 for other kinds.
        order: int64; of the folio, -1 for other kinds.
        locked, dirty, writeback, uptodate, swapcache: bool; flags of the folio.
    """

    index: U64
    nr: I64
    kind: U8
    value: U64
    pfn: I64
    order: I64
    locked: Mask
    dirty: Mask
    writeback: Mask
    uptodate: Mask
    swapcache: Mask


@dataclass(frozen=True, slots=True)
class OrderView(Table):
    """One row an order of folio that an address_space holds, smallest first.

    Attributes:
        order: int64.
        folios, pages: int64; how many, and their pages.
        dirty, writeback: int64; pages of such folios among them.
    """

    order: I64
    folios: I64
    pages: I64
    dirty: I64
    writeback: I64


def find_address_spaces(files: Files, *, address: int | None = None, ino: int | None = None) -> I64:
    """Rows of address_spaces by their own address, their inode's address or number.

    Args:
        files: The page cache.
        address: Of an address_space or an inode.
        ino: Inode number; several file systems may have one of it.
    """
    spaces = files.address_spaces
    found = np.zeros(len(spaces), np.bool_)
    if address is not None:
        found |= (spaces.addr == np.uint64(address)) | ((spaces.host == np.uint64(address)) & spaces.is_inode)
    if ino is not None:
        found |= spaces.is_inode & (spaces.ino == np.uint64(ino))
    return np.flatnonzero(found)


def cache_of(s: Snapshot, space_row: int) -> CacheView:
    """Everything in the page cache of one address_space."""
    mine, pages, flags = s.files.of_space(space_row), s.pages, s.layout.flags
    row = pages.memmap.rows(mine.pfn)
    folio = (mine.kind == FOLIO) & (row >= 0)
    safe = np.where(folio, row, 0)
    word = np.where(folio, pages.flags[safe], np.uint64(0))
    size = np.where(folio, folio_pages(s, safe), 1)
    swapcache = flags.test(word, "swapcache") & flags.test(word, "swapbacked")
    return CacheView(
        index=mine.index,
        nr=mine.nr,
        kind=mine.kind,
        value=mine.value,
        pfn=mine.pfn,
        order=np.where(folio, np.log2(size).astype(np.int64), -1),
        locked=flags.test(word, "locked"),
        dirty=flags.test(word, "dirty"),
        writeback=flags.test(word, "writeback"),
        uptodate=flags.test(word, "uptodate"),
        swapcache=swapcache,
    )


def cache_by_order(view: CacheView) -> OrderView:
    """The folios of a page cache counted by order."""
    folios = view.take(np.flatnonzero(view.order >= 0))
    order, which = np.unique(folios.order, return_inverse=True)
    pages = np.int64(1) << folios.order

    def total(what: I64) -> I64:
        return np.bincount(which, weights=what.astype(np.float64), minlength=len(order)).astype(np.int64)

    return OrderView(
        order=order,
        folios=total(np.ones(len(folios), np.int64)),
        pages=total(pages),
        dirty=total(pages * folios.dirty),
        writeback=total(pages * folios.writeback),
    )


def mapped_by_order(s: Snapshot, view: CacheView) -> AnyArray:
    """int64[orders, 2]: mapped folios and mapped pages of each order, as `cache_by_order` has them."""
    folios = view.take(np.flatnonzero(view.order >= 0))
    order, which = np.unique(folios.order, return_inverse=True)
    row = s.pages.memmap.rows(folios.pfn)
    end = np.minimum(row + (np.int64(1) << folios.order), len(s.pages))
    mapped = s.counts.page_mappings > 0
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(mapped)])
    pages = running[end] - running[row]
    whole = np.zeros(len(s.pages), np.bool_)
    whole[s.folios.row[s.counts.entire > 0]] = True
    pages = np.where(whole[row], end - row, pages)
    out = np.zeros((len(order), 2), np.int64)
    np.add.at(out[:, 0], which, pages > 0)
    np.add.at(out[:, 1], which, pages)
    return out
