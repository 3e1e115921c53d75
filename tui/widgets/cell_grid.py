"""A field of small cells with a cursor: memory as tiles, millions of them, only those in sight are ever painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.widgets.palette import shade_style


class Cells(Protocol):
    """What the grid shows: cells in reading order, painted on demand."""

    @property
    def count(self) -> int:
        """Cells in all."""

    @property
    def cell_width(self) -> int:
        """Columns of the terminal that a cell takes."""

    @property
    def columns(self) -> int:
        """Cells in a row; 0 for as many as fit."""

    def paint(self, first: int, nr: int) -> list[tuple[str, str]]:
        """Text and shade of ``nr`` cells."""

    def label(self, first: int) -> str:
        """The label before the row that begins with a cell; always of the same width."""


@dataclass
class _Geometry:
    columns: int
    rows: int
    margin: int


class CellGrid(ScrollView, can_focus=True):
    """The grid. Arrows move, Enter or a click on the cursor chooses."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1, 0)", "Left", show=False),
        Binding("right", "move(1, 0)", "Right", show=False),
        Binding("up", "move(0, -1)", "Up", show=False),
        Binding("down", "move(0, 1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "jump_to(0)", "First", show=False),
        Binding("end", "jump_to(-1)", "Last", show=False),
        Binding("enter", "choose", "Open"),
    ]

    cursor: reactive[int] = reactive(0, repaint=False)

    class Moved(Message):
        """The cursor is on another cell."""

        def __init__(self, grid: CellGrid, cell: int) -> None:
            self.grid, self.cell = grid, cell
            super().__init__()

        @property
        def control(self) -> CellGrid:
            """Who says so."""
            return self.grid

    class Chosen(Moved):
        """The cell was chosen."""

    class Sized(Moved):
        """The grid has another size: what was made to fit may be made anew."""

    def __init__(self, *, id: str | None = None, round_to: int = 1) -> None:  # noqa: A002
        """A grid without cells yet.

        Args:
            id: Of the widget.
            round_to: Cells in a row are a power of two where more than this fit, so that rows begin at round numbers.
        """
        super().__init__(id=id)
        self._source: Cells | None = None
        self._round = round_to
        self._at = _Geometry(1, 0, 0)

    @property
    def source(self) -> Cells | None:
        """What is shown."""
        return self._source

    def show(self, source: Cells, cell: int = 0) -> None:
        """Show other cells, the cursor on one of them."""
        self._source = source
        self._measure()
        self.set_reactive(CellGrid.cursor, max(0, min(cell, source.count - 1)))
        self._into_view(center=True)
        self.refresh()
        self.post_message(self.Moved(self, self.cursor))

    def visible_cells(self) -> int:
        """How many cells fit without scrolling; what a view of everything must not exceed."""
        self._measure()
        return max(1, self._at.columns * max(1, self.size.height))

    def _measure(self) -> None:
        source = self._source
        if source is None or not source.count:
            self._at = _Geometry(1, 0, 0)
            return
        margin = len(source.label(0))
        width = max(1, (self.scrollable_content_region.width or self.size.width or 80) - margin)
        columns = source.columns or max(1, width // source.cell_width)
        if not source.columns and columns > self._round:
            columns = 1 << (columns.bit_length() - 1)
        rows = -(-source.count // columns)
        self._at = _Geometry(columns, rows, margin)
        self.virtual_size = Size(margin + columns * source.cell_width, rows)

    def on_resize(self, _event: events.Resize) -> None:
        """Fit the cells into the new width."""
        self._measure()
        self._into_view()
        self.post_message(self.Sized(self, self.cursor))

    def render_line(self, y: int) -> Strip:
        """One row of cells (the line API: called for the rows in sight only)."""
        source, at = self._source, self._at
        row = y + self.scroll_offset.y
        ground = self.background_colors[1].hex6
        dark = self.app.current_theme.dark
        plain = shade_style("", ground, dark=dark)
        if source is None or row >= at.rows:
            return Strip.blank(self.size.width, plain)
        first = row * at.columns
        nr = min(at.columns, source.count - first)
        segments = [Segment(source.label(first), shade_style("free", ground, dark=dark))]
        for i, (text, shade) in enumerate(source.paint(first, nr), first):
            style = shade_style(shade, ground, dark=dark)
            if i == self.cursor:
                style += _cursor_style(focused=self.has_focus)
            segments.append(Segment(text, style))
        strip = Strip(segments).crop(self.scroll_offset.x, self.scroll_offset.x + self.size.width)
        return strip.extend_cell_length(self.size.width, plain).simplify()

    def watch_cursor(self, old: int, new: int) -> None:
        """Keep the cursor in sight and send where it is; only its lines are painted, unless the rest moves."""
        before = self.scroll_offset
        self._into_view()
        if self.scroll_offset == before:
            for row in {old // self._at.columns, new // self._at.columns}:
                self.refresh_lines(row)
        self.post_message(self.Moved(self, self.cursor))

    def validate_cursor(self, cell: int) -> int:
        """Never outside."""
        return max(0, min(cell, self._source.count - 1)) if self._source else 0

    def _into_view(self, *, center: bool = False) -> None:
        row = self.cursor // self._at.columns
        self.scroll_to_region(Region(0, row, 1, 1), animate=False, center=center, force=True, x_axis=False)

    def on_focus(self) -> None:
        """The cursor looks different."""
        self.refresh()

    def on_blur(self) -> None:
        """The cursor looks different."""
        self.refresh()

    def action_move(self, cells: int, rows: int) -> None:
        """One cell further; at the ends of the field nothing happens."""
        target = self.cursor + cells + rows * self._at.columns
        if self._source is not None and 0 <= target < self._source.count:
            self.cursor = target

    def action_page(self, pages: int) -> None:
        """A screen further."""
        self.cursor += pages * max(1, self.size.height - 1) * self._at.columns

    def action_jump_to(self, cell: int) -> None:
        """To the first or the last cell."""
        self.cursor = cell if cell >= 0 else (self._source.count - 1 if self._source else 0)

    def action_choose(self) -> None:
        """Open what the cursor is on."""
        if self._source is not None and self._source.count:
            self.post_message(self.Chosen(self, self.cursor))

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor; a click on the cursor chooses."""
        source, at = self._source, self._at
        where = event.get_content_offset(self)
        if source is None or where is None:
            return
        column = (where.x + self.scroll_offset.x - at.margin) // source.cell_width
        cell = (where.y + self.scroll_offset.y) * at.columns + column
        if not 0 <= column < at.columns or cell >= source.count:
            return
        if cell == self.cursor:
            self.action_choose()
        self.cursor = cell


def _cursor_style(*, focused: bool) -> Style:
    return Style(reverse=True, bold=True) if focused else Style(underline=True, bold=True)
