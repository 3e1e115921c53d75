"""A table of any number of rows: only rows in sight are formatted, headings sort, narrow terminals drop columns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from inspector.errors import FolioscopeError
from inspector.text import cell_width, clean
from tui.views.rows import RowSource
from tui.widgets.palette import shade_style

_SAMPLE = 400
_MAX_WIDTH = 60
_MANY = 50_000
"""Rows from which on sorting and filtering are done in a thread."""

_GAP = 2
_MARGIN = 1
"""Where the cursor has its mark."""


class ColumnTable(ScrollView, can_focus=True):
    """The table. Arrows move, Enter opens, ``<`` and ``>`` choose the column to sort by, ``,`` turns the order."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "jump_to(0)", "First", show=False),
        Binding("end", "jump_to(-1)", "Last", show=False),
        Binding("enter", "choose", "Open"),
        Binding("less_than_sign", "sort_next(-1)", "Sort", key_display="< >", show=False),
        Binding("greater_than_sign", "sort_next(1)", "Sort by next column", show=False),
        Binding("comma", "turn", "Reverse the order", show=False),
    ]

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--cursor",
        "table--cursor-away",
        "table--mark",
        "table--heading",
        "table--sorted",
    }

    cursor: reactive[int] = reactive(0, repaint=False)

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, table: ColumnTable, row: int) -> None:
            self.table, self.row = table, row
            super().__init__()

        @property
        def control(self) -> ColumnTable:
            """Who says so."""
            return self.table

    class Chosen(Moved):
        """The row was chosen."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._rows: RowSource | None = None
        self._widths: list[int] = []
        self._measured: list[int] = []
        self._last = 0
        self._shown: list[int] = []
        self._sorted: tuple[int, bool] | None = None
        self._turn = 0

    @property
    def rows(self) -> RowSource | None:
        """What is shown."""
        return self._rows

    def show(self, rows: RowSource, cursor: int = 0) -> None:
        """Show other rows."""
        self._rows, self._sorted = rows, None
        self.refill(cursor)

    def show_again(self, rows: RowSource, words: str) -> None:
        """Show newer rows of the same kind: filter, order and cursor stay; a filter not understood hides no row."""
        cursor, self._rows = self.cursor, rows
        if words:
            with suppress(FolioscopeError):
                rows.filter(words)
        if self._sorted is not None:
            rows.sort(self._sorted[0], descending=self._sorted[1])
        self.refill(cursor)

    def filter_by(self, words: str, wrong: Callable[[str], None]) -> None:
        """Narrow the rows; a filter that is not understood hides none.

        Args:
            words: The filter.
            wrong: Called with the reason why it is not understood; with "" when it is.
        """
        rows = self._rows
        if rows is None:
            return
        reasons: list[str] = []

        def filtering() -> Callable[[], None]:
            try:
                return rows.filtering(words)
            except FolioscopeError as error:
                reasons.append(clean(str(error)))
                return rows.filtering("")

        def ready(show: Callable[[], None] | None) -> None:
            wrong("".join(reasons))
            if show is not None and rows is self._rows:
                show()
                self.refill()

        self._work(filtering, ready)

    def _work(
        self, prepare: Callable[[], Callable[[], None]], ready: Callable[[Callable[[], None] | None], None]
    ) -> None:
        """Prepare an order, in a thread when there are many rows, and show it unless a newer one was asked for."""
        self._turn += 1
        turn = self._turn

        def prepared() -> Callable[[], None] | None:
            try:
                return prepare()
            except FolioscopeError:
                return None

        if self._rows is None or self._rows.total < _MANY:
            ready(prepared())
            return

        def work() -> None:
            show = prepared()
            if turn == self._turn:
                self.app.call_from_thread(lambda: ready(show) if turn == self._turn else None)

        self.run_worker(work, group="order", thread=True, exclusive=True, exit_on_error=False)

    def refill(self, cursor: int = 0) -> None:
        """The rows were filtered or sorted otherwise."""
        self._measure()
        self.set_reactive(ColumnTable.cursor, max(0, min(cursor, len(self._rows or ()) - 1)))
        self._into_view()
        self.refresh()
        self.post_message(self.Moved(self, self.cursor))

    def _measure(self) -> None:
        rows = self._rows
        if rows is None:
            return
        n = len(rows)
        step = max(1, n // _SAMPLE)
        widths = [cell_width(c.title) + 1 for c in rows.columns]
        last = 0
        for row in [*range(0, n, step)][: _SAMPLE + 1] + list(range(max(0, n - 20), n)):
            cells = rows.cells(row)
            for i, (text, _) in enumerate(cells):
                widths[i] = max(widths[i], min(cell_width(text), _MAX_WIDTH))
            last = max(last, cell_width(cells[-1][0]))
        self._measured = self._widths = widths
        self._last = last
        self._fit()

    def _fit(self) -> None:
        """Drop columns until the rest fits."""
        rows = self._rows
        if rows is None:
            return
        shown, room = list(range(len(self._widths))), (self.size.width or 80) - _MARGIN
        self._widths = [*self._measured]
        while sum(self._widths[i] + _GAP for i in shown) - _GAP > room:
            worst = max(shown, key=lambda i: rows.columns[i].drop)
            if not rows.columns[worst].drop:
                break
            shown.remove(worst)
        self._shown = shown
        if shown and not rows.columns[shown[-1]].right:
            # The last column may have what the others leave.
            taken = sum(self._widths[i] + _GAP for i in shown[:-1])
            self._widths[shown[-1]] = max(self._widths[shown[-1]], min(self._last, room - taken))
        self.virtual_size = Size(min(self._total_width(), room), len(rows) + 1)

    def _total_width(self) -> int:
        return sum(self._widths[i] + _GAP for i in self._shown)

    def on_resize(self, _event: events.Resize) -> None:
        """Fit the columns into the new width."""
        self._fit()
        self._into_view()

    def render_line(self, y: int) -> Strip:
        """The headings, or one row (the line API: called for lines in sight only)."""
        ground, dark = self.background_colors[1].hex6, self.app.current_theme.dark
        plain = shade_style("", ground, dark=dark)
        rows, width = self._rows, self.size.width
        if rows is None:
            return Strip.blank(width, plain)
        if y == 0:
            return self._heading(plain, width)
        row = y - 1 + self.scroll_offset.y
        if row >= len(rows):
            text = "  no rows" if not len(rows) and y == 1 else ""
            return Strip([Segment(text, shade_style("free", ground, dark=dark))]).extend_cell_length(width, plain)
        here = row == self.cursor
        extra = Style()
        if here:
            name = "table--cursor" if self.has_focus else "table--cursor-away"
            ground_here = self.get_component_rich_style(name).bgcolor
            extra = Style(bgcolor=ground_here, bold=self.has_focus, reverse=self.has_focus and self.app.no_color)
        cells = rows.cells(row)
        mark = ("▌" if self.has_focus else "▏") if here else " "
        segments = [Segment(mark, plain + self.get_component_rich_style("table--mark") + extra)]
        for i in self._shown:
            text, shade = cells[i]
            padded = _pad(text, self._widths[i], right=rows.columns[i].right)
            segments.append(Segment(padded + " " * _GAP, shade_style(shade, ground, dark=dark) + extra))
        return Strip(segments).adjust_cell_length(width, plain + extra).simplify()

    def _heading(self, plain: Style, width: int) -> Strip:
        rows = self._rows
        segments = [Segment(" " * _MARGIN, plain)]
        for i in self._shown if rows is not None else []:
            assert rows is not None
            mark = "" if self._sorted is None or self._sorted[0] != i else "▼" if self._sorted[1] else "▲"
            title = _pad(rows.columns[i].title + mark, self._widths[i], right=rows.columns[i].right)
            style = plain + self.get_component_rich_style("table--sorted" if mark else "table--heading")
            segments.append(Segment(title + " " * _GAP, style))
        return Strip(segments).adjust_cell_length(width, plain).simplify()

    def watch_cursor(self, old: int, new: int) -> None:
        """Keep the cursor in sight and send where it is; only its two lines are painted, unless the rest moves."""
        before = self.scroll_offset
        self._into_view()
        if self.scroll_offset == before:
            for row in (old, new):
                self.refresh_lines(row + 1)
        self.post_message(self.Moved(self, self.cursor))

    def validate_cursor(self, row: int) -> int:
        """Never outside."""
        return max(0, min(row, len(self._rows or ()) - 1))

    def _into_view(self) -> None:
        top, height = self.scroll_offset.y, max(1, self.size.height - 1)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True)

    def on_focus(self) -> None:
        """The cursor looks different."""
        self.refresh()

    def on_blur(self) -> None:
        """The cursor looks different."""
        self.refresh()

    def action_move(self, rows: int) -> None:
        """Rows further."""
        self.cursor += rows

    def action_page(self, pages: int) -> None:
        """Screens further."""
        self.cursor += pages * max(1, self.size.height - 2)

    def action_jump_to(self, row: int) -> None:
        """To the first or the last row."""
        self.cursor = row if row >= 0 else len(self._rows or ()) - 1

    def action_choose(self) -> None:
        """Open the row."""
        if self._rows is not None and len(self._rows):
            self.post_message(self.Chosen(self, self.cursor))

    def action_sort_next(self, step: int) -> None:
        """Sort by another of the columns shown."""
        if self._shown:
            now = self._sorted[0] if self._sorted is not None else -1
            at = self._shown.index(now) if now in self._shown else min(-step, 0)
            self.sort_by(self._shown[(at + step) % len(self._shown)])

    def action_turn(self) -> None:
        """Reverse the order."""
        if self._sorted is not None:
            self.sort_by(self._sorted[0], descending=not self._sorted[1])

    def sort_by(self, column: int, *, descending: bool | None = None) -> None:
        """Sort by a column; numbers begin with the largest."""
        if self._rows is None:
            return
        rows = self._rows
        down = rows.columns[column].right if descending is None else descending

        def ready(show: Callable[[], None] | None) -> None:
            if show is not None and rows is self._rows:
                show()
                self._sorted = column, down
                self.refill()

        self._work(lambda: rows.sorting(column, descending=down), ready)

    def on_click(self, event: events.Click) -> None:
        """A click on a heading sorts, on a row moves, on the cursor opens."""
        where = event.get_content_offset(self)
        if where is None or self._rows is None:
            return
        if where.y == 0:
            self._click_heading(where.x)
            return
        row = where.y - 1 + self.scroll_offset.y
        if row < len(self._rows):
            if row == self.cursor:
                self.action_choose()
            self.cursor = row

    def _click_heading(self, x: int) -> None:
        edge = _MARGIN
        for i in self._shown:
            edge += self._widths[i] + _GAP
            if x < edge:
                same = self._sorted is not None and self._sorted[0] == i
                self.sort_by(i, descending=not self._sorted[1] if same and self._sorted else None)
                return


def _pad(text: str, width: int, *, right: bool) -> str:
    space = width - cell_width(text)
    if space < 0:
        return text[: width - 1] + "…" if text.isascii() else text
    return " " * space + text if right else text + " " * space
