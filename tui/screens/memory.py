"""Physical memory as a heat map: the whole machine at once, any part of it down to single pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from inspector.text import size
from tui.places import FolioPlace, MemoryPlace
from tui.screens.base import PlaceScreen
from tui.views.map import GOES_ON, MODES, HeatView, Layer, MapBorders, build_layer, zone_spans
from tui.views.rows import short
from tui.widgets.cell_grid import CellGrid
from tui.widgets.facts import Phrases
from tui.widgets.legend import Legend, switch


@dataclass
class MapData:
    """What the screen shows."""

    layer: Layer
    marks: Layer
    borders: MapBorders


class MemoryScreen(PlaceScreen[MapData]):
    """The map, what its cursor is on, and what its letters mean."""

    TAB = "memory"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "next_view", "View"),
        Binding("plus,equals_sign", "zoom(-2)", "Zoom", key_display="+ -"),
        Binding("minus", "zoom(2)", "Out", show=False),
        Binding("z", "all", "All"),
        Binding("n", "next_finding", "Next !"),
    ]
    HELP: ClassVar[str] = """\
`v` goes through four ways to see memory: by kind, by order of folio, by mappings, by findings. All memory that has
struct pages, holes left out; every row begins with its page frame. A cell shows what most of its
pages are, as a capital where three quarters are so; `_` goes on with the folio before it. By mappings and findings it
shows the most of any page. Behind the page frame is the zone's letter: `D` DMA, `3` DMA32, `N` Normal, `M` Movable.
**!** marks a cell with a finding in every mode, `n` goes to the next one.

`+` and `-` zoom around the cursor, `z` shows all, Enter opens the folio under the cursor.
"""

    place: MemoryPlace
    _mode = "kind"
    _whole = True
    _zones_later = False

    def body(self) -> ComposeResult:
        """Modes, map, cursor, legend."""
        yield Static(id="tabs", classes="title")
        yield CellGrid(id="map", round_to=16)
        yield Phrases(id="cell", classes="info")
        yield Legend(id="legend", classes="legend")

    def load(self) -> MapData:
        """The layer of the mode; kept, so that each is counted once."""
        s, findings, mode = self.session.snapshot, list(self.session.findings), self._mode
        marks = build_layer(s, "findings", findings, self.progress) if findings else self._no_marks()
        # Zones are read with the free lists, which the check does first.
        self._zones_later = self.session.is_checking
        zones = () if self._zones_later else self.session.keep("zones", lambda: zone_spans(s))
        heads = s.pages.head_row
        borders = MapBorders(lambda rows: heads[rows], int(s.folios.order.max(initial=0)), zones)
        if mode == "findings":
            return MapData(marks, marks, borders)
        layer = self.session.keep(("layer", mode), lambda: build_layer(s, mode, (), self.progress))
        return MapData(layer, marks, borders)

    def _no_marks(self) -> Layer:
        s = self.session.snapshot
        return self.session.keep(("layer", "findings"), lambda: build_layer(s, "findings", (), self.progress))

    def session_changed(self) -> None:
        """Findings are marked when the check is through."""
        through = self.session.report is not None and (self.session.findings or self._zones_later)
        if through and self.data is not None:
            self.reload()

    def show(self, data: MapData) -> None:
        """Show the layer; the first time all memory is in sight, or the page that was asked for."""
        grid = self.query_one("#map", CellGrid)
        before = grid.source
        if isinstance(before, HeatView):
            grid.show(HeatView(data.layer, data.marks, before.memmap, before.shift, data.borders), grid.cursor)
        else:
            view = HeatView(data.layer, data.marks, self.session.snapshot.pages.memmap, 3, data.borders)
            pfn = self.place.pfn
            self._whole = pfn is None
            grid.show(view, max(0, view.cell_of(pfn)) if pfn is not None else 0)
            self.on_cell_grid_sized(CellGrid.Sized(grid, grid.cursor))
        self._write_tabs()

    def on_cell_grid_sized(self, _event: CellGrid.Sized) -> None:
        """What was all in sight stays so."""
        if self._whole:
            self.action_all()

    def _write_tabs(self) -> None:
        view = self.query_one("#map", CellGrid).source
        rest = f"  1 cell = {size(1 << view.shift + 12)}" if isinstance(view, HeatView) else ""
        self.query_one("#tabs", Static).update(switch([(m, m) for m in MODES], self._mode, rest))
        if isinstance(view, HeatView):
            self.query_one(Legend).show(_legend(view))

    def action_view(self, mode: str) -> None:
        """Show memory in another way; the place stays."""
        self._mode = mode
        self.reload()

    def action_next_view(self) -> None:
        """The next way to see memory."""
        self.action_view(MODES[(MODES.index(self._mode) + 1) % len(MODES)])

    def action_all(self) -> None:
        """All memory in sight, whatever the size of the terminal becomes."""
        self._whole = True
        grid = self.query_one("#map", CellGrid)
        if isinstance(grid.source, HeatView):
            self._zoom_to(grid.source.fitting(grid.visible_cells()))

    def action_zoom(self, steps: int) -> None:
        """Closer, or further away, around the cursor."""
        view = self.query_one("#map", CellGrid).source
        if isinstance(view, HeatView):
            self._whole = False
            self._zoom_to(view.shift + steps)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The next finding is offered where there is one."""
        if action == "next_finding":
            view = self.query_one("#map", CellGrid).source if self.data is not None else None
            return isinstance(view, HeatView) and view.next_mark(0) >= 0
        return super().check_action(action, parameters)

    def _zoom_to(self, shift: int) -> None:
        grid = self.query_one("#map", CellGrid)
        view = grid.source
        if isinstance(view, HeatView):
            zoomed = view.at(view.layer, max(0, min(shift, view.fitting(16))))
            grid.show(zoomed, zoomed.cell_of(view.pfns(grid.cursor)[0]))
            self._write_tabs()

    def action_next_finding(self) -> None:
        """To the next marked cell, round the end."""
        grid = self.query_one("#map", CellGrid)
        view = grid.source
        if isinstance(view, HeatView):
            cell = view.next_mark(grid.cursor)
            if cell < 0:
                self.refuse("no finding is about a page of memory")
            else:
                grid.cursor = cell

    def on_cell_grid_moved(self, event: CellGrid.Moved) -> None:
        """Show what the cursor is on."""
        view = event.grid.source
        if isinstance(view, HeatView):
            self.query_one("#cell", Phrases).show_lines(view.describe(event.cell))

    def on_cell_grid_chosen(self, event: CellGrid.Chosen) -> None:
        """Open the folio of the cell: of the page with a finding, else of its first page in use."""
        view = event.grid.source
        if isinstance(view, HeatView):
            self.scope.go(FolioPlace(view.shown_pfn(event.cell)))


def _legend(view: HeatView) -> Iterable[tuple[str, str, str]]:
    for label, glyph, shade, pages in view.layer.totals():
        both = "" if glyph.upper() == glyph or view.layer.look.worst else glyph.upper()
        yield both + glyph, f"{shade}-3", f"{label} {short(pages << 12)}"
    if view.has_edges:
        yield GOES_ON, "free", "same folio"
