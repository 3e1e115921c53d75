"""One VMA: its strip down to single pages, and everything its page tables hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import rich.text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from inspector.text import size
from tui.places import AnonVmaPlace, FilePlace, FolioPlace, VmaPlace
from tui.screens.base import PlaceScreen
from tui.views.entries import entry_table, first_at, pfn_at, vma_entries
from tui.views.rows import Rows
from tui.views.strip import LEGEND, Strip, StripView, build_strip
from tui.views.vmas import names_of, vma_facts
from tui.widgets.cell_grid import CellGrid
from tui.widgets.column_table import ColumnTable
from tui.widgets.legend import Legend


@dataclass
class VmaData:
    """What the screen shows."""

    rows: Rows
    strip: Strip
    facts: list[tuple[str, str]]
    title: str
    cursor: int


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

    def body(self) -> ComposeResult:
        """Facts, strip, what its cursor is on, table."""
        yield Static(id="title", classes="title", markup=False)
        yield Static(id="facts", classes="info", markup=False)
        yield CellGrid(id="strip", round_to=16)
        yield Static(id="cell", classes="info", markup=False)
        yield Legend(id="legend", classes="legend")
        yield ColumnTable(id="entries")

    def load(self) -> VmaData:
        """Entries and strip of the VMA."""
        s, vma = self.session.snapshot, self.place.vma_idx
        entries = vma_entries(s, vma)
        vmas, name = vma_facts(s, vma)
        strip = build_strip(s, self.place.mm_idx, vmas, tuple(names_of(s, vmas)))
        start, end = int(s.vmas.start[vma]), int(s.vmas.end[vma])
        title = f"{self.session.process(self.place.mm_idx)}  {start:#x}-{end:#x}  {size(end - start)}"
        return VmaData(entry_table(entries), strip, name, title, first_at(entries, self.place.va or start))

    def show(self, data: VmaData) -> None:
        """Fill everything; the strip begins with the whole VMA in sight."""
        self.query_one("#title", Static).update(data.title)
        self.query_one("#facts", Static).update("  ".join(f"{name} {value}" for name, value in data.facts))
        self.query_one(Legend).show(LEGEND)
        self.query_one("#entries", ColumnTable).show(data.rows, data.cursor)
        self._show_strip()

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
            self.notify("this VMA has no anon_vma: none of its pages was ever anonymous")

    def action_file(self) -> None:
        """To the file that it maps."""
        s = self.session.snapshot
        with self.session.lock:
            row = int(s.file_rmap.address_space_of_vma[self.place.vma_idx])
            address = int(s.file_rmap.address_spaces.addr[row]) if row >= 0 else 0
        if address:
            self.scope.go(FilePlace(address))
        else:
            self.notify("this VMA maps no file")

    def on_cell_grid_moved(self, event: CellGrid.Moved) -> None:
        """Show what the cursor is on."""
        view = event.grid.source
        if isinstance(view, StripView) and view.count:
            self.query_one("#cell", Static).update(rich.text.Text("\n".join(view.describe(event.cell))))

    def on_cell_grid_chosen(self, event: CellGrid.Chosen) -> None:
        """Open the folio under the cursor."""
        view = event.grid.source
        if isinstance(view, StripView):
            pfn = pfn_at(self.session.snapshot, self.place.mm_idx, view.address(event.cell))
            if pfn is not None:
                self.scope.go(FolioPlace(pfn))
            else:
                self.notify("no page with a struct page is mapped here")
