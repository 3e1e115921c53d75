"""The table of pages holds the words of each struct page, whatever they are; bit sets and sums over pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.columns import Column, prefix_sums, rows_inside, rows_where
from inspector.errors import LayoutError
from inspector.snapshot import Snapshot
from inspector.tables.page_words import page_type_codes
from inspector.tables.pages import MAX_PAGES, heads_of_tails, sweep_pages
from tests.faults.overlay import KERNELS, core_path, sound
from tests.rules.broken import broken, with_holes

DUMPS: dict[str, Callable[[str], Snapshot]] = {
    "sound": lambda kernel: sound(core_path("fixture", kernel)),
    "broken": broken,
    "with-holes": with_holes,
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dump", DUMPS)
def test_every_page_has_the_words_of_its_struct_page(dump: str, kernel: str) -> None:
    s = DUMPS[dump](kernel)
    pages, memmap, page = s.pages, s.pages.memmap, s.layout.struct("struct page")
    pfn = memmap.pfns_of_rows(np.arange(len(pages)))
    raw = s.layout.memory.gather(memmap.page_addrs(pfn), page.size)

    def word(*names: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        return page.field(*names).column(raw.bytes)

    flags, mapcount = word("flags.f", "flags"), word("_mapcount.counter", "_mapcount").view(np.uint32)
    types = np.where(raw.valid, page_type_codes(s.layout, flags, mapcount), 0)
    link = word("compound_info", "compound_head")
    tail = (link & np.uint64(1)) != 0
    head = np.where(tail, memmap.rows(heads_of_tails(memmap, link, pfn)), np.arange(len(pages)))
    marked = np.flatnonzero(((flags & s.layout.flags.mask("head")) != 0) & ~tail)
    behind = head[np.minimum(marked + 1, len(pages) - 1)]
    alias = (behind >= 0) & (behind != marked) & (behind != np.minimum(marked + 1, len(pages) - 1))
    head[marked[alias]] = behind[alias]
    folio = np.full(len(pages), -1)
    folio[marked[~alias]] = np.arange(len(marked[~alias]))

    wanted = {
        "flags": flags,
        "mapping": word("mapping"),
        "refcount": word("_refcount.counter", "_refcount"),
        "mapcount_raw": mapcount.view(np.int32),
        "readable": raw.valid,
        "type_": types,
        "head_row": head,
        "is_tail": head != np.arange(len(pages)),
    }
    some = np.random.default_rng(0).integers(0, len(pages), 999)
    for name, column in wanted.items():
        ours: Column[np.generic] = getattr(pages, name)
        assert (ours[:] == column).all(), name
        assert (ours[some] == column[some]).all(), name
        assert ours[int(some[0])] == column[some[0]], name
    assert (s.folios.row == marked[~alias]).all()
    assert (s.folio_of_page == np.where(head >= 0, folio[head], -1)).all()
    assert pages.words.nr.sum() == len(pages)
    assert len(pages.words) < len(pages) / 10


@pytest.mark.parametrize("kernel", KERNELS)
def test_pages_of_free_blocks(kernel: str) -> None:
    s = sound(core_path("fixture", kernel))
    inside = np.zeros(len(s.pages), np.bool_)
    for row, order in zip(s.buddy.blocks.row.tolist(), s.buddy.blocks.order.tolist(), strict=True):
        inside[row : row + (1 << order)] = True
    assert (s.in_free_block[:] == inside).all()
    assert (s.buddy_pages == np.flatnonzero(inside)).all()
    assert (s.in_free_block[np.arange(5, 5000, 7)] == inside[5:5000:7]).all()
    assert (s.in_free_block[1234:5678] == inside[1234:5678]).all()


def test_more_pages_than_can_be_numbered_are_one_error() -> None:
    layout = sound(core_path("fixture", KERNELS[0])).layout
    memmap = replace(layout.memmap, starts=np.array([0]), ends=np.array([MAX_PAGES + 1]))
    with pytest.raises(LayoutError, match="more than can be numbered"):
        sweep_pages(replace(layout, memmap=memmap), np.empty(0, np.uint64))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 5))), st.integers(1, 100))
def test_rows_inside_blocks(blocks: list[tuple[int, int]], length: int) -> None:
    blocks = sorted((row, order) for row, order in blocks if row < length)
    found = rows_inside(
        np.array([b[0] for b in blocks], np.int32), np.array([b[1] for b in blocks], np.uint8), length, 5
    )
    wanted = sorted({at for first, log in blocks for at in range(first, min(first + (1 << log), length))})
    assert found.rows.tolist() == wanted


@given(st.lists(st.integers(-9, 9)), st.data(), st.integers(1, 9))
def test_sums_before_rows(numbers: list[int], data: st.DataObject, most: int) -> None:
    at = data.draw(st.lists(st.integers(0, len(numbers))))
    column = np.array(numbers, np.int64)
    assert prefix_sums(len(column), column.__getitem__, np.array(at, np.int64), most).tolist() == [
        sum(numbers[:row]) for row in at
    ]
    assert rows_where(len(column), lambda rows: column[rows] > 0).tolist() == np.flatnonzero(column > 0).tolist()
