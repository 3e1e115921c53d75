"""Whether compound pages agree with their heads: order, cached size, alignment, number of tails."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask
from inspector.tables.folios import Folios
from inspector.tables.pages import Pages


def _ends(pages: Pages, folios: Folios) -> tuple[I64, I64]:
    """Pages that each folio should span by its order, and the row behind the last of them."""
    nr = np.int64(1) << np.minimum(folios.order, 40).astype(np.int64)
    return nr, np.minimum(folios.row + nr, len(pages))


def count_tails(pages: Pages, folios: Folios) -> I64:
    """How many of the pages that each folio should span are tails, whatever head they name.

    Returns:
        int64[folios]
    """
    running = np.concatenate([[0], np.cumsum(pages.is_tail)])
    _, end = _ends(pages, folios)
    return (running[end] - running[folios.row + 1]).astype(np.int64)


def compound_wrong(pages: Pages, folios: Folios, nr_tails: I64) -> Mask:
    """Which folios' order, cached size, alignment and tails do not agree (mm/page_alloc.c, prep_compound_page()).

    Args:
        pages: The page table.
        folios: The folio table.
        nr_tails: int64[folios]; see `count_tails`.
    """
    nr, end = _ends(pages, folios)
    wrong = (folios.order == 0) | (folios.pfn % nr != 0)
    wrong |= (folios.nr_stored != 0) & (folios.nr_stored != nr)
    # Only where every page of the folio was read can its tails be counted.
    unread = np.concatenate([[0], np.cumsum(~pages.readable)])
    whole = unread[end] == unread[folios.row]
    wrong |= whole & (nr_tails != nr - 1)
    behind = np.minimum(end, len(pages) - 1)
    wrong |= (end < len(pages)) & pages.is_tail[behind] & (pages.head_row[behind] == folios.row)
    return folios.readable & wrong
