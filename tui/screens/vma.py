"""One VMA: its strip down to single pages, and everything its page tables hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from inspector.snapshot import Snapshot
from inspector.text import size
from tui.places import AnonVmaPlace, FilePlace, FolioPlace, VmaPlace
from tui.screens.base import PlaceScreen
from tui.views.entries import entry_table, first_at, pfn_at, vma_entries
from tui.views.rows import Rows
from tui.views.strip import LEGEND, Strip, StripView, build_strip
from tui.views.vmas import mm_alone, names_of, vma_facts, vma_rows_of
from tui.widgets.cell_grid import CellGrid
from tui.widgets.column_table import ColumnTable
from tui.widgets.facts import Phrases
from tui.widgets.legend import Legend


@dataclass
class VmaData:
    """What the screen shows."""

    rows: Rows
    strip: Strip
    facts: list[tuple[str, str]]
    title: str
    cursor: int
    alone: Snapshot
    mm_idx: int
    """Row of the mm in ``alone``."""


class VmaScreen(PlaceScreen[VmaData]):
    """Strip above, entries below."""

    TAB = "processes"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "anon_vma", "anon_vma"),
        Binding("i", "file", "File"),
        Binding("plus,equals_sign", "zoom(-2)", "Zoom", key_display="+ -"),
        Binding("minus", "zoom(2)", "Out", show=False),
    ]
    HELP: ClassVar[str] = """\
One VMA. The strip has its pages, the table every run of entries: Enter opens the folio. *mapped* counts the entries of
all processes that map the folio. `a` shows the VMA's anon_vma, `i` its file.
"""

    place: VmaPlace
    _whole = True
    _is_partial = False
    """Whether mappings of other processes are not counted yet."""

    def body(self) -> ComposeResult:
        """Facts, strip, what its cursor is on, table."""
        yield Phrases(id="title", classes="title")
        yield Phrases(id="facts", classes="info")
        yield CellGrid(id="strip", round_to=16)
        yield Phrases(id="cell", classes="info")
        yield Legend(id="legend", classes="legend")
        yield ColumnTable(id="entries")

    def load(self) -> VmaData:
        """Entries and strip of the VMA."""
        s, vma = self.session.snapshot, self.place.vma_idx
        every = vma_rows_of(s, self.place.mm_idx)
        one, mm_idx, rows = mm_alone(s, self.place.mm_idx, every)
        row = rows[every == vma]
        self._is_partial = self.session.is_checking
        entries = vma_entries(one, int(row[0]), None if self._is_partial else s)
        vmas, name = vma_facts(s, vma)
        strip = replace(build_strip(one, mm_idx, row, tuple(names_of(s, vmas))), vma_rows=vmas)
        start, end = int(s.vmas.start[vma]), int(s.vmas.end[vma])
        title = f"{self.session.process(self.place.mm_idx)}  {start:#x}-{end:#x}  {size(end - start)}"
        return VmaData(entry_table(entries), strip, name, title, first_at(entries, self.place.va or start), one, mm_idx)

    def show(self, data: VmaData) -> None:
        """Fill everything; the strip begins with the whole VMA in sight."""
        self.query_one("#title", Phrases).show(*data.title.split("  "))
        self.query_one("#facts", Phrases).show(*(f"{name} {value}" for name, value in data.facts))
        self.query_one(Legend).show(LEGEND)
        entries = self.query_one("#entries", ColumnTable)
        entries.nothing = "no rows: no page of it is mapped, swapped or marked"
        self.put(entries, data.rows, data.cursor)
        self._show_strip()

    def session_changed(self) -> None:
        """When the check is through, what it counted is filled in."""
        if self._is_partial and not self.session.is_checking and self.data is not None:
            self.reload()

    def _show_strip(self) -> None:
        if self.data is None:
            return
        grid = self.query_one("#strip", CellGrid)
        view = StripView(self.data.strip, 0)
        if grid.source is None:
            grid.show(view)
        view = view.at(view.fitting(grid.visible_cells()))
        grid.show(view, view.cell_of(self.place.va) if self.place.va else 0)

    def on_cell_grid_sized(self, _event: CellGrid.Sized) -> None:
        """What was all in sight stays so."""
        if self._whole:
            self._show_strip()

    def action_zoom(self, steps: int) -> None:
        """Closer, or further away."""
        grid = self.query_one("#strip", CellGrid)
        view = grid.source
        if isinstance(view, StripView):
            self._whole = False
            zoomed = view.at(view.shift + steps)
            grid.show(zoomed, zoomed.cell_of(view.address(grid.cursor)))

    def action_anon_vma(self) -> None:
        """To the VMA's anon_vma."""
        address = int(self.session.snapshot.vmas.anon_vma[self.place.vma_idx])
        if address:
            self.scope.go(AnonVmaPlace(address))
        else:
            self.refuse("this VMA has no anon_vma: none of its pages was ever anonymous")

    def action_file(self) -> None:
        """To the file that it maps."""
        self.run_worker(self._find_file, name="file", thread=True, exclusive=True, group="file", exit_on_error=False)

    def _find_file(self) -> None:
        with self.session.lock:
            rmap = self.session.snapshot.file_rmap
        row = int(rmap.address_space_of_vma[self.place.vma_idx])
        if row >= 0:
            self.app.call_from_thread(self.scope.go, FilePlace(int(rmap.address_spaces.addr[row])))
        else:
            self.app.call_from_thread(self.refuse, "this VMA maps no file")

    def on_cell_grid_moved(self, event: CellGrid.Moved) -> None:
        """Show what the cursor is on."""
        view = event.grid.source
        if isinstance(view, StripView) and view.count:
            self.query_one("#cell", Phrases).show_lines(view.describe(event.cell))

    def on_cell_grid_chosen(self, event: CellGrid.Chosen) -> None:
        """Open the folio under the cursor."""
        view = event.grid.source
        if isinstance(view, StripView) and self.data is not None:
            pfn = pfn_at(self.data.alone, self.data.mm_idx, view.address(event.cell))
            if pfn is not None:
                self.scope.go(FolioPlace(pfn))
            else:
                self.refuse("no page with a struct page is mapped here")
