"""One address space: a strip that shows how it is mapped, and its VMAs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from inspector.snapshot import Snapshot
from inspector.text import counted
from inspector.walk.smaps import vma_figures
from tui.places import FolioPlace, MmPlace, VmaPlace
from tui.screens.base import PlaceScreen
from tui.views.entries import pfn_at
from tui.views.rows import Rows
from tui.views.strip import LEGEND, Strip, StripView, build_strip
from tui.views.vmas import mm_alone, names_of, vma_folios, vma_rows_of, vma_table
from tui.widgets.cell_grid import CellGrid
from tui.widgets.column_table import ColumnTable
from tui.widgets.facts import Phrases
from tui.widgets.legend import Legend


@dataclass
class MmData:
    """What the screen shows."""

    rows: Rows
    strip: Strip
    alone: Snapshot
    mm_idx: int
    """Row of the mm in ``alone``."""


class MmScreen(PlaceScreen[MmData]):
    """Strip above, table below; Tab goes from one to the other."""

    TAB = "processes"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign", "zoom(-2)", "Zoom", key_display="+ -"),
        Binding("minus", "zoom(2)", "Out", show=False),
        Binding("z", "zoom_all", "All"),
    ]
    HELP: ClassVar[str] = """\
The strip is the address space, gaps collapsed, every VMA beginning with a cell of its own. The higher a bar, the larger
what is mapped: small folios, large folios by PTEs, huge entries; the colour is the kind, a tinted cell is at least half
full. `+` and `-` zoom around the cursor, `z` shows all, Enter opens the VMA, at single pages the folio.

The table has the same VMAs with their sizes as in smaps; *partial* counts large folios that are mapped in part.
"""

    place: MmPlace
    _whole = True

    def body(self) -> ComposeResult:
        """Strip, what its cursor is on, table."""
        yield Phrases(id="title", classes="title")
        yield CellGrid(id="strip", round_to=16)
        yield Phrases(id="cell", classes="info")
        yield Legend(id="legend", classes="legend")
        yield ColumnTable(id="vmas")

    def load(self) -> MmData:
        """The VMAs, and how each is mapped."""
        s = self.session.snapshot
        vmas = vma_rows_of(s, self.place.mm_idx)
        names = names_of(s, vmas)
        one, mm_idx, rows = mm_alone(s, self.place.mm_idx, vmas)
        figures = vma_figures(one, stored=one is not s).take(rows)
        table = vma_table(self.session, vmas, names, figures, vma_folios(one, rows))
        strip = build_strip(one, mm_idx, rows, tuple(names))
        return MmData(table, replace(strip, vma_rows=vmas), one, mm_idx)

    def show(self, data: MmData) -> None:
        """Fill both; the strip begins with everything in sight."""
        s, mm = self.session.snapshot, self.place.mm_idx
        words = (self.session.process(mm), f"mm {int(s.mms.addr[mm]):#x}", counted(len(data.rows), "VMA"))
        # An mm without a task is called by its address.
        self.query_one("#title", Phrases).show(*dict.fromkeys(words))
        self.query_one(Legend).show(LEGEND)
        self.fill(self.query_one("#vmas", ColumnTable), data.rows)
        self.query_one("#strip").display = len(data.rows) > 0
        self.action_zoom_all()

    def action_zoom_all(self) -> None:
        """Everything in sight, whatever the size of the terminal becomes."""
        self._whole = True
        grid = self.query_one("#strip", CellGrid)
        if self.data is not None and len(self.data.rows):
            if not isinstance(grid.source, StripView) or grid.source.strip is not self.data.strip:
                grid.show(StripView(self.data.strip, 0))
            view = StripView(self.data.strip, 0)
            self._zoom_to(view.fitting(grid.visible_cells()))

    def on_cell_grid_sized(self, _event: CellGrid.Sized) -> None:
        """What was all in sight stays so."""
        if self._whole:
            self.action_zoom_all()

    def action_zoom(self, steps: int) -> None:
        """Closer, or further away."""
        view = self.query_one("#strip", CellGrid).source
        if isinstance(view, StripView):
            self._whole = False
            self._zoom_to(view.shift + steps)

    def _zoom_to(self, shift: int) -> None:
        grid = self.query_one("#strip", CellGrid)
        view = grid.source
        if isinstance(view, StripView):
            zoomed = view.at(shift)
            grid.show(zoomed, zoomed.cell_of(view.address(grid.cursor)))

    def on_cell_grid_moved(self, event: CellGrid.Moved) -> None:
        """Show what the cursor is on."""
        view = event.grid.source
        if isinstance(view, StripView) and view.count:
            zoom = f"  1 cell = {1 << view.shift} pages" if view.shift else "  1 cell = 1 page"
            first, *rest = view.describe(event.cell)
            self.query_one("#cell", Phrases).show_lines([first + zoom, *rest])

    def on_cell_grid_chosen(self, event: CellGrid.Chosen) -> None:
        """Open the folio of a single mapped page, else the VMA."""
        view = event.grid.source
        if not isinstance(view, StripView) or self.data is None:
            return
        va = view.address(event.cell)
        mm = self.place.mm_idx
        pfn = pfn_at(self.data.alone, self.data.mm_idx, va) if view.pages_of(event.cell) == 1 else None
        self.scope.go(FolioPlace(pfn) if pfn is not None else VmaPlace(mm, view.vma(event.cell), va))

    def on_column_table_moved(self, event: ColumnTable.Moved) -> None:
        """The strip follows the table while the table has the focus."""
        grid = self.query_one("#strip", CellGrid)
        if event.table.has_focus and isinstance(grid.source, StripView) and event.table.rows is not None:
            place = event.table.rows.place(event.row) if len(event.table.rows) else None
            if isinstance(place, VmaPlace):
                start = int(self.session.snapshot.vmas.start[place.vma_idx])
                grid.cursor = grid.source.cell_of(start)
