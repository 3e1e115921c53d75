"""Screens of processes, VMAs, folios, reverse maps, files and memory, reached by keys and by mouse on real vmcores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inspector.errors import TargetError
from inspector.findings import Evidence, Finding, Subject
from inspector.report.mappings import mapping_rows
from inspector.snapshot import Snapshot
from tests.conftest import SIZES
from tests.fixtures import KERNELS
from tests.tui.driving import at, lines, place_of, press, session_of, settle, snapshot_of, text
from tui.app import FolioscopeApp
from tui.places import (
    AnonVmaPlace,
    FilePlace,
    FolioPlace,
    FoliosPlace,
    MemoryPlace,
    MmPlace,
    ProcessesPlace,
    RmapPlace,
    SlotPlace,
    VmaPlace,
)
from tui.session import Session
from tui.views.map import HeatView
from tui.views.rows import Rows
from tui.views.strip import StripView
from tui.widgets.cell_grid import CellGrid
from tui.widgets.column_table import ColumnTable
from tui.widgets.filter_line import FilterLine
from tui.widgets.paper import PaperView

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=KERNELS)
def session(request: pytest.FixtureRequest) -> Session:
    return session_of(request.param)


@pytest.fixture(params=SIZES, ids=["80x24", "140x45"])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    chosen: tuple[int, int] = request.param
    return chosen


def shared_folio(s: Snapshot) -> int:
    """The large anonymous folio that most address spaces map."""
    return int(s.folios.pfn[np.argmax(s.counts.nr_mms * s.folios.is_anon * ~s.folios.is_hugetlb)])


async def test_processes_lead_to_a_vma_and_its_folio_and_back(session: Session, size: tuple[int, int]) -> None:
    s = session.snapshot
    async with at(session, ProcessesPlace(), size) as pilot:
        await press(pilot, "S", "p", "S", "p")
        shown = lines(pilot)
        assert any("1  keeper" in line for line in shown)
        assert all(len(line) == size[0] for line in shown)
        await press(pilot, "enter")
        mm = int(np.flatnonzero(s.mms.pid == 1)[0])
        assert session.crumb(MmPlace(mm)) in text(pilot)
        assert "/bin/keeper" in text(pilot)
        await press(pilot, "tab", "enter")
        assert isinstance(place_of(pilot), VmaPlace)
        await press(pilot, "backspace", "backspace")
        assert isinstance(place_of(pilot), ProcessesPlace)
        assert lines(pilot)[2:] == shown[2:]


async def test_the_filter_narrows_and_is_left_again(session: Session) -> None:
    async with at(session, ProcessesPlace()) as pilot:
        await press(pilot, "slash", *"keeper")
        table = pilot.app.screen.query_one(ColumnTable)
        assert table.rows is not None
        assert len(table.rows) == 1
        await press(pilot, "escape")
        assert len(table.rows) == table.rows.total


async def test_a_filter_that_is_not_understood_hides_no_row_and_says_so(session: Session) -> None:
    async with at(session, FoliosPlace()) as pilot:
        table = pilot.app.screen.query_one(ColumnTable)
        line = pilot.app.screen.query_one(FilterLine)
        for words, why in {
            "partial>=1": "holds words",
            "foo>3": "no such column",
            "order>=": "needs a value",
            "order>=x": "no number",
            "refs>2M": "no size",
            "size>2X": "no such unit",
            "anon or": "both sides",
            "partial=1": "no row has that: partial=1. There is partial",
            "!": "after it",
        }.items():
            await press(pilot, "slash", *words)
            assert table.rows is not None
            assert "not filtered: " in text(pilot), words
            assert why in " ".join(text(pilot).split()), words
            assert len(table.rows) == table.rows.total, words
            await press(pilot, "escape")
            assert "not filtered" not in text(pilot)
        assert line.value == ""


async def test_a_failure_stays_where_the_result_would_be(session: Session) -> None:
    s = session.snapshot
    pfn = int(s.folios.pfn[np.flatnonzero(s.folios.is_hugetlb & ~s.folios.is_anon)[0]])
    async with at(session, FolioPlace(pfn)) as pilot:
        await press(pilot, "a")
        assert "this folio names no anon_vma" in text(pilot)
        await press(pilot, "down")
        pilot.app._notifications.clear()
        await settle(pilot)
        assert "this folio names no anon_vma" in text(pilot)
        assert isinstance(pilot.app, FolioscopeApp)
        pilot.app.complain(TargetError("the table cannot be read", "0x1"))
        await settle(pilot)
        assert "the table cannot be read: 0x1" in text(pilot)
        await press(pilot, "o", "backspace")
        assert place_of(pilot) == FolioPlace(pfn)
        assert "cannot be read" not in text(pilot)


async def test_names_of_columns_are_completed_and_earlier_filters_come_back(session: Session) -> None:
    async with at(session, FoliosPlace()) as pilot:
        line = pilot.app.screen.query_one(FilterLine)
        await press(pilot, "slash", *"anon !ord", "tab")
        assert line.value == "anon !order"
        await press(pilot, *">4", "enter", "slash")
        assert line.has_focus
        line.value = ""
        await press(pilot, *"shmem", "enter", "escape", "slash", "up")
        assert line.value == "shmem"
        await press(pilot, "up")
        assert line.value == "anon !order>4"
        await press(pilot, "down", "down")
        assert line.value == ""
        await press(pilot, *"zzz")
        assert line._suggestion == ""
        await press(pilot, "tab")
        assert not line.has_focus


async def test_the_strip_zooms_to_single_pages_and_opens_a_folio(session: Session) -> None:
    s = session.snapshot
    pfn = shared_folio(s)
    mapping = mapping_rows(s, pfn, 1, 1)[0][0]
    mm = int(np.searchsorted(s.mms.addr, np.uint64(mapping.mm)))
    async with at(session, MmPlace(mm)) as pilot:
        grid = pilot.app.screen.query_one(CellGrid)
        grid.focus()
        assert isinstance(grid.source, StripView)
        assert grid.source.count <= grid.visible_cells()
        grid.cursor = grid.source.cell_of(mapping.va)
        await press(pilot, "z", *["plus"] * 12)
        assert grid.source.shift == 0
        grid.cursor = grid.source.cell_of(mapping.va)
        await settle(pilot)
        assert f"{mapping.va:#x}-" in text(pilot)
        await press(pilot, "enter")
        assert place_of(pilot) == FolioPlace(pfn)


async def test_a_vma_shows_its_entries_and_leads_to_its_anon_vma(session: Session, size: tuple[int, int]) -> None:
    s = session.snapshot
    mapping = mapping_rows(s, shared_folio(s), 1, 1)[0][0]
    mm = int(np.searchsorted(s.mms.addr, np.uint64(mapping.mm)))
    vma = int(np.flatnonzero(s.vmas.addr == np.uint64(mapping.vma or 0))[0])
    async with at(session, VmaPlace(mm, vma, mapping.va), size) as pilot:
        assert f"{mapping.va:#x}" in text(pilot)
        assert f"{mapping.pfn:#x}" in text(pilot)
        await press(pilot, "a")
        assert place_of(pilot) == AnonVmaPlace(int(s.vmas.anon_vma[vma]))


async def test_a_folio_has_its_ledger_its_pages_and_who_maps_it(session: Session, size: tuple[int, int]) -> None:
    s = session.snapshot
    pfn = shared_folio(s)
    async with at(session, FolioPlace(pfn), size) as pilot:
        assert "_refcount" in text(pilot) or "counters" in text(pilot)
        assert "✓ counters agree" in text(pilot)
        await press(pilot, "v")
        row = s.pages.memmap.row(pfn)
        mapped = int(s.counts.page_mappings[row]) + int(s.counts.entire[s.folio_of_page[row]])
        assert f"page +0  pfn {pfn:#x}" in text(pilot)
        assert (f"mapped {mapped} times" if mapped != 1 else "mapped once") in text(pilot)
        await press(pilot, "v")
        assert f"{mapping_rows(s, pfn, 1, 1)[0][0].va:#x}" in text(pilot)
        await press(pilot, "down", "enter")
        assert isinstance(place_of(pilot), MmPlace)


async def test_a_folio_of_512_pages_fits_80x24(session: Session) -> None:
    s = session.snapshot
    order9 = np.flatnonzero((s.folios.order == 9) & s.folios.is_anon & (s.folio_totals > 1))
    async with at(session, FolioPlace(int(s.folios.pfn[order9[0]]))) as pilot:
        await press(pilot, "v")
        shown = text(pilot)
        assert all(f"+{first} " in shown for first in range(0, 512, 32))
        assert "page +0 " in shown
        await press(pilot, "end")
        assert "page +511" in text(pilot)


async def test_rmap_shows_both_views(session: Session, size: tuple[int, int]) -> None:
    pfn = shared_folio(session.snapshot)
    async with at(session, FolioPlace(pfn), size) as pilot:
        await press(pilot, "x")
        assert place_of(pilot) == RmapPlace(pfn)
        shown = text(pilot)
        assert "✓ both views agree" in shown
        assert "folio->mapping" in shown
        assert " = " in shown
        await press(pilot, "a")
        assert isinstance(place_of(pilot), AnonVmaPlace)
        assert "in the family" in text(pilot)
        assert "●" in text(pilot)
        await press(pilot, "backspace", "enter")
        assert isinstance(place_of(pilot), VmaPlace)


async def test_a_file_shows_who_maps_it_and_its_cache(session: Session, size: tuple[int, int]) -> None:
    s = session.snapshot
    busiest = int(np.argmax(np.bincount(s.file_rmap.address_space_of_vma[s.file_rmap.address_space_of_vma >= 0])))
    address = int(s.file_rmap.address_spaces.addr[busiest])
    async with at(session, FilePlace(address), size) as pilot:
        assert "in the tree" in text(pilot)
        assert "MISSING" not in text(pilot)
        assert "order  0" in text(pilot)
        await press(pilot, "v", "enter")
        assert isinstance(place_of(pilot), FolioPlace)
        await press(pilot, "i")
        assert place_of(pilot) == FilePlace(address)


async def test_the_map_shows_all_memory_zooms_and_opens_a_folio(session: Session, size: tuple[int, int]) -> None:
    s = session.snapshot
    async with at(session, MemoryPlace(), size) as pilot:
        grid = pilot.app.screen.query_one(CellGrid)
        assert isinstance(grid.source, HeatView)
        assert grid.source.count <= grid.visible_cells()
        assert "a anon" in text(pilot)
        for words in ("order 0", "mapped 0", "none"):
            await press(pilot, "v")
            assert words in text(pilot)
        await press(pilot, "v")
        pfn = shared_folio(s)
        grid.cursor = grid.source.cell_of(pfn)
        await press(pilot, *["plus"] * 10)
        assert grid.source.shift == 0
        grid.cursor = grid.source.cell_of(pfn)
        await press(pilot, "enter")
        assert place_of(pilot) == FolioPlace(pfn)
        await press(pilot, "m")
        grid = pilot.app.screen.query_one(CellGrid)
        assert isinstance(grid.source, HeatView)
        assert grid.source.cell_of(pfn) == grid.cursor


async def test_findings_are_marked_in_the_map_and_on_the_folio() -> None:
    s = snapshot_of("7.3")
    clean = session_of("7.3").report
    assert clean is not None
    pfn = shared_folio(s)
    subject = Subject("folio", pfn=pfn, order=int(s.folios.order[s.folio_of_page[s.pages.memmap.row(pfn)]]))
    finding = Finding("large-mapcount-mismatch", "fail", "exact", subject, "A title", {}, {}, Evidence(), "")
    report = type(clean)(clean.schema, clean.target, clean.coverage, clean.summary, [finding], 1)
    async with at(Session(s, report), MemoryPlace()) as pilot:
        grid = pilot.app.screen.query_one(CellGrid)
        await press(pilot, "n")
        assert isinstance(grid.source, HeatView)
        assert grid.source.cell_of(pfn) == grid.cursor
        assert grid.source.paint(grid.cursor, 1)[0][0] == "!"
        assert "with fail findings" in text(pilot)
        await press(pilot, "enter")
        assert "! 1 finding: large-mapcount-mismatch" in text(pilot)


async def test_folios_are_filtered_by_kind_order_and_mappings(session: Session, size: tuple[int, int]) -> None:
    s = session.snapshot
    async with at(session, FoliosPlace("anon order>=9"), size) as pilot:
        table = pilot.app.screen.query_one(ColumnTable)
        wanted = (s.folios.order >= 9) & s.folios.is_anon & ~s.folios.is_hugetlb & ~s.folios.is_ksm
        assert table.rows is not None
        assert table.rows.total == len(s.folios)
        assert abs(len(table.rows) - int(wanted.sum())) <= 1  # the huge zero folio is none
        await press(pilot, "slash", *" mapped=0")
        assert all(table.rows.cells(i)[4][0] == "" for i in range(len(table.rows)))
        await press(pilot, "escape", "h")
        assert table.rows is not None
        assert table.rows.total > len(s.folios)


async def test_cells_are_chosen_with_the_mouse(session: Session) -> None:
    async with at(session, MemoryPlace()) as pilot:
        grid = pilot.app.screen.query_one(CellGrid)
        assert grid.source is not None
        margin = len(grid.source.label(0))
        await pilot.click(CellGrid, offset=(margin + 5, 1))
        await settle(pilot)
        columns = grid.cursor - 5
        assert columns > 0
        assert columns % 16 == 0
        await pilot.click(CellGrid, offset=(margin + 5, 1))
        await settle(pilot)
        assert isinstance(place_of(pilot), FolioPlace)


async def test_a_folio_is_shown_by_its_reverse_map_before_the_page_tables_were_walked(session: Session) -> None:
    s = session.snapshot
    pfn = shared_folio(s)
    young = Session(Snapshot(s.target), session.report)
    async with at(young, FolioPlace(pfn), (140, 45)) as pilot:
        assert "counters agree with its reverse map" in text(pilot)
        assert "found by its reverse map" in text(pilot)
        assert not young.snapshot.has_walked
        await press(pilot, "x")
        assert "the walk finds" in text(pilot)
        assert not young.snapshot.has_walked
        assert "mms" not in vars(young.snapshot)
        await press(pilot, "enter")
        place = place_of(pilot)
        assert isinstance(place, VmaPlace)
        assert int(young.snapshot.mms.addr[place.mm_idx]) in {m.mm for m in mapping_rows(s, pfn, 512, None)[0]}
        await press(pilot, "backspace", "backspace")
        young.snapshot.counts  # noqa: B018
        young.generation += 1
        await pilot.pause(1)
        await settle(pilot)
        assert "counted over all page tables" in text(pilot)
        assert "✓ counters agree" in text(pilot)
        assert "reverse map" not in text(pilot)


async def test_processes_begin_with_the_most_memory_and_are_sorted_by_any_column() -> None:
    session = session_of("7.3")
    async with at(session, ProcessesPlace()) as pilot:
        table = pilot.app.screen.query_one(ColumnTable)
        rows = table.rows
        assert isinstance(rows, Rows)
        titles = [c.title for c in rows.columns]

        def values(title: str) -> list[int]:
            return [-1 if v is None else v for v in (rows.values(i)[titles.index(title)] for i in range(len(rows)))]

        assert values("rss") == sorted(values("rss"), reverse=True)
        assert table.order == "-rss"
        await press(pilot, "S", "e")
        assert values("wasted") == sorted(values("wasted"), reverse=True)
        assert values("wasted")[0] > 0
        await press(pilot, "S", "e")
        known = [v for v in values("wasted") if v >= 0]
        assert known == sorted(known)
        await press(pilot, "S", "escape")
        assert table.order == "wasted"
        # What does not fit is scrolled to; pid and comm stay.
        seen = lines(pilot)[3]
        assert "→" in seen
        headings = set(seen.split())
        for _ in titles:
            await press(pilot, "right")
            assert "pid" in lines(pilot)[3] and "comm" in lines(pilot)[3]
            headings |= set(lines(pilot)[3].split())
        assert {"mTHP", "partly", "VMAs", "mm"} <= headings
        for _ in titles:
            await press(pilot, "left")
        assert lines(pilot)[3] == seen


async def test_an_order_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOLIOSCOPE_STATE", str(tmp_path))
    session = session_of("7.3")
    async with at(session, ProcessesPlace()) as pilot:
        await press(pilot, "S", "v")
    async with at(session, ProcessesPlace()) as pilot:
        assert pilot.app.screen.query_one(ColumnTable).order == "-VMAs"
        assert "VMAs▼" in text(pilot)


async def test_a_process_of_a_file_is_one_row_and_is_opened(session: Session) -> None:
    s = session.snapshot
    busiest = int(np.argmax(np.bincount(s.file_rmap.address_space_of_vma[s.file_rmap.address_space_of_vma >= 0])))
    address = int(s.file_rmap.address_spaces.addr[busiest])
    async with at(session, FilePlace(address)) as pilot:
        table = pilot.app.screen.query_one("#mappers", ColumnTable)
        rows = table.rows
        assert rows is not None
        mms = {int(m) for m in s.vmas.mm_idx[s.file_rmap.address_space_of_vma == busiest]}
        assert len(rows) == len(mms)
        assert f"file {session.file_names[address]}" in lines(pilot)[1]
        several = next(i for i in range(len(rows)) if rows.cells(i)[0][0] == "+")
        table.cursor = several
        await press(pilot, "enter")
        opened = table.rows
        assert opened is not None
        assert len(opened) > len(rows) + 1
        assert table.cursor == several
        await press(pilot, "down", "enter")
        assert isinstance(place_of(pilot), VmaPlace)
        await press(pilot, "backspace", "up", "enter")
        assert table.rows is not None
        assert len(table.rows) == len(rows)


async def test_what_the_ledger_names_can_be_gone_to(session: Session) -> None:
    pfn = shared_folio(session.snapshot)
    async with at(session, FolioPlace(pfn)) as pilot:
        await press(pilot, "right", "enter")
        assert isinstance(place_of(pilot), AnonVmaPlace)
        await press(pilot, "backspace")
        paper = pilot.app.screen.query_one(PaperView)
        seen = set()
        for _ in range(8):
            await press(pilot, "right")
            seen.add(paper.chosen)
        assert RmapPlace(pfn) in seen


async def test_a_swap_slot_is_a_screen() -> None:
    session = session_of("7.3")
    s = session.snapshot
    cached = s.layout.flags.test(s.pages.flags[s.folios.row], "swapcache") & s.folios.is_anon
    pfn = int(s.folios.pfn[np.flatnonzero(cached)[0]]) if cached.any() else -1
    row = int(np.flatnonzero(s.layout.flags.test(s.pages.flags[:], "swapcache"))[0])
    pfn = pfn if pfn >= 0 else int(s.pages.memmap.pfns_of_rows(np.array([row]))[0])
    async with at(session, FolioPlace(pfn)) as pilot:
        paper = pilot.app.screen.query_one(PaperView)
        for _ in range(12):
            await press(pilot, "right")
            if isinstance(paper.chosen, SlotPlace):
                break
        assert isinstance(paper.chosen, SlotPlace)
        await press(pilot, "enter")
        place = place_of(pilot)
        assert isinstance(place, SlotPlace)
        assert f"swap {place.type}:{place.offset:#x}" in lines(pilot)[1]
        assert session.command(place).endswith(f"swap {place.type}:{place.offset:#x}")
        assert f"{pfn:#x}" in text(pilot)
