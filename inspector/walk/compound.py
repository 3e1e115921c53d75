"""Whether compound pages agree with their heads: order, cached size, alignment, number of tails."""

from __future__ import annotations

import numpy as np

from inspector.columns import I64, Mask, prefix_sums
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
    _, end = _ends(pages, folios)
    before = prefix_sums(len(pages), pages.is_tail.__getitem__, np.concatenate([folios.row + 1, end]))
    return before[len(folios) :] - before[: len(folios)]


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
    whole = np.ones(len(folios), np.bool_)
    if not pages.words.readable.all():
        missing = ~pages.words.readable
        before = prefix_sums(len(pages), lambda rows: missing[pages.number[rows]], np.concatenate([folios.row, end]))
        whole = before[: len(folios)] == before[len(folios) :]
    wrong |= whole & (nr_tails != nr - 1)
    behind = np.minimum(end, len(pages) - 1)
    wrong |= (end < len(pages)) & pages.is_tail[behind] & (pages.head_row[behind] == folios.row)
    return folios.readable & wrong
