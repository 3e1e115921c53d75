"""View models held against the snapshot's own tables, on real vmcores."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from inspector.columns import I64, U8
from inspector.errors import UsageError
from inspector.folio.account import account_of
from inspector.layout.memmap import MemMap
from inspector.report.anon_vma import Member, build_anon_vma
from inspector.report.mappings import mapping_rows
from inspector.report.mthp import build_mthp
from inspector.report.pages import build_place
from inspector.report.rmap import build_rmap
from inspector.snapshot import Snapshot
from inspector.walk.kinds import KINDS, page_kinds
from inspector.walk.mthp import large_folios, large_of_mms, mapped_large_folios
from inspector.walk.page_numbers import NumberMeaning
from inspector.walk.smaps import vma_figures
from tests.fixtures import KERNELS
from tests.tui.driving import snapshot_of
from tui.screens.anon_vma import _member as anon_vma_line
from tui.screens.file import _bars as page_cache_bars
from tui.session import Session
from tui.views.anon_vma import draw_interval_tree
from tui.views.entries import vma_entries
from tui.views.folio import PageGridView, mapping_tree, page_columns
from tui.views.folios import folio_columns, folio_rows
from tui.views.map import MODES, HeatView, LayerStyle, build_layer, make_layer
from tui.views.processes import process_columns
from tui.views.rmap import side_by_side
from tui.views.strip import StripView, build_strip
from tui.views.vmas import mm_alone, vma_folios, vma_rows_of


@pytest.fixture(params=KERNELS)
def s(request: pytest.FixtureRequest) -> Snapshot:
    return snapshot_of(request.param)


def test_pages_of_each_vma_add_up_to_smaps(s: Snapshot) -> None:
    figures, folios = vma_figures(s), vma_folios(s, np.arange(len(s.vmas)))
    mapped = figures.rss + figures.hugetlb_private + figures.hugetlb_shared
    standing = np.bincount(s.nonpresent.vma_idx[s.nonpresent.pfn >= 0], minlength=len(s.vmas))
    assert (mapped - (folios.huge_pages + folios.pte_pages) <= standing).all()
    assert ((folios.huge_pages + folios.pte_pages)[standing == 0] == mapped[standing == 0]).all()
    assert folios.partial.sum() > 0
    assert (folios.partial <= folios.folios).all()


def test_process_columns_are_the_kernels_counters(s: Snapshot) -> None:
    columns = process_columns(s, vma_figures(s))
    assert (columns.rss == columns.anon + columns.file + columns.shmem).all()
    assert columns.vmas.sum() == len(s.vmas)
    assert (columns.pid == -1).any() == (s.mms.nr_tasks == 0).any()


def test_entries_of_a_vma_are_all_there(s: Snapshot) -> None:
    for vma in range(0, len(s.vmas), 97):
        entries = vma_entries(s, vma, s)
        assert len(entries) == (s.mappings.vma_idx == vma).sum() + (s.nonpresent.vma_idx == vma).sum()
        assert (np.diff(entries.va.astype(np.int64)) >= 0).all()


def test_one_address_space_alone_gives_what_all_together_give(s: Snapshot) -> None:
    figures = vma_figures(s)
    for mm in range(0, len(s.mms), 23):
        rows = vma_rows_of(s, mm)
        one, row, own = mm_alone(s, mm, rows)
        assert one is not s
        mine, all_ = vma_figures(one, stored=True).take(own), figures.take(rows)
        for name in ("rss", "anon", "file", "shmem", "swap", "shmem_swap", "anon_pmd"):
            assert np.array_equal(getattr(mine, name), getattr(all_, name)), name
        folios, wanted = vma_folios(one, own), vma_folios(s, rows)
        assert np.array_equal(folios.order_bits, wanted.order_bits)
        assert np.array_equal(folios.partial, wanted.partial)
        view, want = (StripView(build_strip(*args, ("",) * len(rows)), 4) for args in ((one, row, own), (s, mm, rows)))
        assert [view.describe(cell) for cell in range(view.count)] == [want.describe(c) for c in range(want.count)]
        for i in range(0, len(rows), 5):
            entries, every = vma_entries(one, int(own[i]), s), vma_entries(s, int(rows[i]), s)
            assert np.array_equal(np.repeat(entries.mapped, entries.pages), np.repeat(every.mapped, every.pages))
            assert (vma_entries(one, int(own[i]), None).mapped <= 0).all()


def test_the_strip_counts_every_mapped_page_once_at_every_zoom(s: Snapshot) -> None:
    for mm in range(0, len(s.mms), 17):
        rows = vma_rows_of(s, mm)
        if not len(rows):
            continue
        strip = build_strip(s, mm, rows, ("",) * len(rows))
        inside = (s.mappings.mm_idx == mm) & (s.mappings.vma_idx >= 0)
        want = int(vma_entries_pages(s, inside))
        want += int(((s.nonpresent.mm_idx == mm) & (s.nonpresent.vma_idx >= 0) & (s.nonpresent.level == 1)).sum())
        for shift in (0, 4, 30):
            view = StripView(strip, shift)
            got = sum(_mapped(view, cell) for cell in range(view.count)) if view.count < 3000 else want
            assert got == want
        assert StripView(strip, 30).count == len(rows) + int(strip.gap.sum())


def vma_entries_pages(s: Snapshot, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    pages = np.where(s.mappings.level[rows] == 1, 1, 512) * s.mappings.nr[rows].astype(np.int64)
    return int(pages.sum())


def _mapped(view: StripView, cell: int) -> int:
    words = view.describe(cell)[1]
    if words == "a gap: no VMA":
        return 0
    return sum(int(w.split()[0].replace(",", "")) for w in words.split("; ") if w and "with nothing" not in w)


def test_a_cell_is_found_again_by_its_address(s: Snapshot) -> None:
    mm = int(np.argmax(np.bincount(s.vmas.mm_idx)))
    rows = vma_rows_of(s, mm)
    strip = build_strip(s, mm, rows, ("",) * len(rows))
    view = StripView(strip, StripView(strip, 0).fitting(200))
    assert view.count <= 200
    for cell in range(view.count):
        if view.paint(cell, 1)[0][0] != "│":
            assert view.cell_of(view.address(cell)) == cell


def test_the_map_counts_each_kind_as_page_kinds_does(s: Snapshot) -> None:
    layer, marks = build_layer(s, "kind"), build_layer(s, "findings")
    names, counts = np.unique(
        page_kinds(s.layout, s.pages, s.folios, s.folio_of_page, np.arange(len(s.pages))), return_counts=True
    )
    assert {label: n for label, _, _, n in layer.totals()} == dict(zip(names.tolist(), counts.tolist(), strict=True))
    for shift in (0, 6, 9, 12, 15, 17):
        view = HeatView(layer, marks, s.pages.memmap, shift)
        sums = layer.counts(0, shift, view.count).sum(axis=0)
        assert (sums == np.bincount(layer.codes, minlength=len(KINDS))).all()
        assert len(view.paint(0, min(view.count, 100))) == min(view.count, 100)
    view = HeatView(layer, marks, s.pages.memmap, 0)
    assert view.describe(view.cell_of(0x1000))[0].startswith("pfn 0x1000 ")


def test_every_mode_of_the_map_covers_all_memory(s: Snapshot) -> None:
    for mode in MODES:
        assert sum(n for *_, n in build_layer(s, mode).totals()) == len(s.pages)


def test_a_machine_of_one_terabyte_is_resampled_at_every_zoom() -> None:
    pages = 1 << 28
    memmap = MemMap(0, 64, 12, np.array([0]), np.array([pages]))
    pattern = np.random.default_rng(7).integers(0, 3, 1 << 12).astype(np.uint8)

    def codes(rows: I64) -> U8:
        return pattern[(rows >> 16) & 0xFFF]

    begin = time.perf_counter()
    layer = make_layer(LayerStyle("kind", ("free", "anon", "file"), "·af", ("free", "anon", "file")), codes, pages)
    built = time.perf_counter() - begin
    view = HeatView(layer, layer, memmap, 0)
    took = []
    for shift in (view.fitting(80 * 20), 14, 9, 5, 0):
        zoomed = view.at(layer, shift)
        begin = time.perf_counter()
        middle = zoomed.count // 2
        cells = zoomed.paint(middle, min(1600, zoomed.count - middle))
        took.append(time.perf_counter() - begin)
        assert len(cells) == min(1600, zoomed.count - middle)
    print(f"1 TB: {pages:,} pages counted in {built:.1f} s; painted in {max(took) * 1e3:.0f} ms at the slowest zoom")
    counts = layer.counts(5, 16, 3)
    assert counts.tolist() == [[(1 << 16) * (pattern[i] == k) for k in range(3)] for i in (5, 6, 7)]


def test_the_grid_of_a_folio_is_the_counts(s: Snapshot) -> None:
    folio = int(np.argmax(s.counts.nr_mms))
    pages = page_columns(account_of(s, int(s.folios.pfn[folio]) + 1))
    row, nr = int(s.folios.row[folio]), int(s.folios.nr_pages[folio])
    assert pages.pfn == s.folios.pfn[folio]
    assert (pages.mapped == s.counts.page_mappings[row : row + nr] + s.counts.entire[folio]).all()
    assert not pages.wrong.any()
    assert len(PageGridView(pages).paint(0, nr)) == nr
    tree = mapping_tree(s, mapping_rows(s, pages.pfn, nr, None)[0])
    assert len(tree) == s.counts.nr_mms[folio]
    assert sum(len(v.entries) for mm in tree for v in mm.vmas) == len(s.mappings_of(pages.pfn, nr))


def test_folio_columns_and_filters(s: Snapshot) -> None:
    large, every = folio_columns(s, small=False), folio_columns(s, small=True)
    assert len(large) == len(s.folios)
    assert every.mapped.sum() == s.folio_totals.sum() + s.counts.page_mappings[s.folio_of_page < 0].sum()
    rows = folio_rows(Session(s), small=False)
    rows.filter("anon order>=4 mapped>0")
    kept = large.take(np.array([rows.row(i) for i in range(len(rows))]))
    assert len(kept)
    assert (kept.kind == KINDS.index("anon")).all()
    assert kept.order.min() >= 4
    assert kept.mapped.min() > 0
    with pytest.raises(UsageError, match="no such column"):
        rows.filter("color=4")


def test_filters_know_sizes_alternatives_and_negation(s: Snapshot) -> None:
    large = folio_columns(s, small=False)
    rows = folio_rows(Session(s), small=False)
    anon, order = large.kind == KINDS.index("anon"), large.order
    for words, wanted in {
        "size>=2M": order >= 9,
        "size>=2097152": order >= 9,
        "size >= 512pages": order >= 9,
        "size=64k": order == 4,
        "size<0.5m": order < 7,
        "!anon": ~anon,
        "not anon": ~anon,
        "!order>=4": order < 4,
        "kind=anon or order=9": anon | (order == 9),
        "anon order=9 | order<2": (anon & (order == 9)) | (order < 2),
        "kind!=anon and pfn<0x8000": ~anon & (large.pfn < 0x8000),
        "partial": large.partial,
        "!partial": ~large.partial,
    }.items():
        rows.filter(words)
        assert len(rows) == int(wanted.sum()), words
    rows.filter("")
    assert len(rows) == rows.total
    assert [c.exported for c in rows.columns if c.title == "size"] == ["size (bytes)"]
    place = [c.title for c in rows.columns].index("size")
    assert rows.values(0)[place] == 4096 << int(order[0])


def test_both_views_of_a_folio_stand_side_by_side(s: Snapshot) -> None:
    folio = int(np.argmax(s.counts.nr_mms * s.folios.is_anon))
    pfn = int(s.folios.pfn[folio])
    report = build_rmap(s, build_place(s, hex(pfn), NumberMeaning("pfn", pfn, 0, ""), []))
    rows = side_by_side(report, s.layout.arch.page_shift)
    assert [r.mapping for r in rows if r.mapping] and report.agree
    assert {r.mark for r in rows} <= {"=", "·"}
    assert sum(r.mapping is not None for r in rows) == len(report.mappings)
    assert sum(r.place is not None for r in rows) == len(report.places)


def test_an_interval_tree_is_drawn_whole(s: Snapshot) -> None:
    avcs = s.anon_rmap.avcs
    tree = int(np.argmax(np.bincount(avcs.tree_idx[avcs.tree_idx >= 0])))
    report = build_anon_vma(s, tree)
    lines = draw_interval_tree(report)
    assert sorted(x.chain.address for x in lines) == sorted(c.address for c in report.tree)
    for line in lines:
        assert len(line.branch) == 2 * line.chain.depth
        assert len(line.bar) == 24


def test_what_a_process_maps_of_large_folios_is_what_the_report_says(s: Snapshot) -> None:
    of = large_of_mms(s, large_folios(s))
    row_of = {int(a): i for i, a in enumerate(s.mms.addr)}
    for p in build_mthp(s).processes:
        at_ = row_of[p.mm]
        assert (of.folios[at_], of.partly[at_], of.unmapped[at_] << 12) == (p.folios, p.partly, p.unmapped_bytes)
    by_ptes = of.by_ptes(process_columns(s, vma_figures(s)).huge, s.layout.pmd_order)
    found = mapped_large_folios(s, large_folios(s))
    wanted = np.bincount(s.vmas.mm_idx[found.vma], found.pages, len(s.mms)).astype(np.int64)
    assert np.array_equal(by_ptes, wanted)


def test_a_page_that_nothing_maps_is_not_exclusive(s: Snapshot) -> None:
    folio = int(np.argmax(s.counts.nr_mms))
    pages = page_columns(account_of(s, int(s.folios.pfn[folio])))
    n = len(pages.mapped)
    mapped = np.where(np.arange(n) == 0, 0, np.maximum(pages.mapped, 1))
    view = PageGridView(replace(pages, mapped=mapped, exclusive=np.ones(n, np.bool_), poisoned=np.zeros(n, np.bool_)))
    assert [text[1] for text, _ in view.paint(0, 2)] == ["x", "e"]
    assert "left over" in view.describe(0)[1]
    assert "exclusive" in view.describe(1)[1] and "left over" not in view.describe(1)[1]


def test_what_is_missing_from_a_dump_is_not_called_wrong() -> None:
    """Counts of an anon_vma, pages of a file, counters of a folio: they differ because something was not dumped."""
    member = Member(0x1000, 0x1000, 0, 2, 2, 1, 1, 1, 2, ["153 pins"])
    assert "children 2, found 1" in anon_vma_line(member, 0, is_wrong=False).plain
    assert "!" not in anon_vma_line(member, 0, is_wrong=False).plain
    assert "! children 2, must be 1" in anon_vma_line(member, 0, is_wrong=True).plain
    assert page_cache_bars([], is_lost=True).plain == "none of its pages was found"
    assert page_cache_bars([]).plain == "nothing is cached"
