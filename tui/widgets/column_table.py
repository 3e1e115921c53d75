"""A table of any number of rows: only rows in sight are formatted, headings sort, what does not fit is scrolled to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
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

_HINT = 4
"""What says how many columns are behind the right edge."""


class ColumnTable(ScrollView, can_focus=True):
    """The table. Arrows move, Enter opens, ``<`` and ``>`` choose the column to sort by, ``,`` turns the order.

    Where columns do not fit, text shrinks first; then those that matter least go behind the right edge, where the right
    arrow leads. The first column stays.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "jump_to(0)", "First", show=False),
        Binding("end", "jump_to(-1)", "Last", show=False),
        Binding("left", "sideways(-1)", "Columns to the left", show=False),
        Binding("right", "sideways(1)", "Columns to the right", show=False),
        Binding("enter", "choose", "Open"),
        Binding("S", "sort_menu", "Sort by", show=False),
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

    class Ordered(Moved):
        """The rows were given another order: `order` says which."""

    class AsksOrder(Moved):
        """A column to sort by is to be chosen."""

    class AtEdge(Moved):
        """The cursor was to go beyond the first row (-1) or the last (1): `row` says which."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._rows: RowSource | None = None
        self._widths: list[int] = []
        self._measured: list[int] = []
        self._last = 0
        self._shown: list[int] = []
        self._line: list[int] = []
        self._behind = 0
        self._sorted: tuple[int, bool] | None = None
        self._turn = 0
        self._skip = 0
        self._leads = False
        self.order_name = ""
        """Under what its order is remembered; "" for nothing."""
        self.nothing = "no rows"
        """What is shown where there are none, filtered or not."""

    @property
    def rows(self) -> RowSource | None:
        """What is shown."""
        return self._rows

    def show(self, rows: RowSource, cursor: int = 0, order: str = "") -> None:
        """Show other rows.

        Args:
            rows: The rows.
            cursor: Where the cursor is, in the order that they have by themselves.
            order: Title of a column to sort by, after ``-`` for the largest first.
        """
        self._rows, self._sorted, self._skip = rows, None, 0
        column = self._column_called(order.removeprefix("-"))
        if column >= 0 and rows.total < _MANY:
            here = rows.row(cursor) if cursor and len(rows) else -1
            self._sorted = column, order.startswith("-")
            rows.sort(column, descending=self._sorted[1])
            cursor = rows.find(here) if here >= 0 else 0
        self.refill(cursor)
        if column >= 0 and self._sorted is None:
            self.sort_by(column, descending=order.startswith("-"))

    def _column_called(self, title: str) -> int:
        titles = [c.title for c in self._rows.columns] if self._rows is not None else []
        return titles.index(title) if title and title in titles else -1

    @property
    def order(self) -> str:
        """Title of the column that rows are sorted by, after ``-`` for the largest first; "" for none."""
        if self._sorted is None or self._rows is None:
            return ""
        return "-" * self._sorted[1] + self._rows.columns[self._sorted[0]].title

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
        self._say_where()

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
        """Let text shrink, then columns go behind the right edge, until the rest fits."""
        rows = self._rows
        if rows is None:
            return
        room = (self.size.width or 80) - _MARGIN
        self._widths = [*self._measured]
        every = list(range(len(self._widths)))
        self._shrink(every, room)
        shown = [*every]
        if self._wide(shown) > room:
            self._widths = [*self._measured]
            room -= _HINT
        while self._wide(shown) > room:
            worst = max(shown, key=lambda i: rows.columns[i].drop)
            if not rows.columns[worst].drop:
                break
            shown.remove(worst)
            self._widths = [*self._measured]
            self._shrink(shown, room)
        # In the order in which they come into sight: first those that matter, then what went behind the edge.
        line = [*shown, *(i for i in every if i not in shown)]
        self._line = line
        shown = [*line[:1], *takewhile(lambda i: rows.columns[i].stays, line[1:])]
        rest = line[len(shown) :]
        self._skip = max(0, min(self._skip, len(rest) - 1))
        fitting = 0
        for i in rest[self._skip :]:
            if self._wide([*shown, i]) > room and fitting:
                break
            shown.append(i)
            fitting += 1
        self._behind = len(rest) - self._skip - fitting
        self._widths = [*self._measured]
        self._shrink(shown, room)
        self._shown = shown
        if shown and not rows.columns[shown[-1]].right:
            # The last column may have what the others leave.
            taken = sum(self._widths[i] + _GAP for i in shown[:-1])
            self._widths[shown[-1]] = max(self._widths[shown[-1]], min(self._last, room - taken))
        self.virtual_size = Size(min(self._total_width(), room), len(rows) + 1)

    def _wide(self, columns: list[int]) -> int:
        return sum(self._widths[i] + _GAP for i in columns) - _GAP

    def _shrink(self, columns: list[int], room: int) -> None:
        """Take from the widest text columns what is too much, as far as they may shrink."""
        rows = self._rows
        assert rows is not None
        over = self._wide(columns) - room
        while over > 0:
            spare = {i: self._widths[i] - rows.columns[i].least for i in columns if rows.columns[i].least}
            widest = max(spare, key=lambda i: self._widths[i] if spare[i] > 0 else 0, default=-1)
            if widest < 0 or spare[widest] <= 0:
                return
            self._widths[widest] -= 1
            over -= 1

    def _total_width(self) -> int:
        return sum(self._widths[i] + _GAP for i in self._shown)

    def on_resize(self, _event: events.Resize) -> None:
        """Fit the columns into the new width."""
        self._fit()
        if self._sorted is not None and not self._skip:
            self._bring_into_sight(self._sorted[0])
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
            text = "" if len(rows) or y != 1 else "  no rows fit the filter" if rows.total else f"  {self.nothing}"
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
        away = "←" if self._skip else " " * _MARGIN
        segments = [Segment(away, plain + self.get_component_rich_style("table--sorted"))]
        for i in self._shown if rows is not None else []:
            assert rows is not None
            mark = "" if self._sorted is None or self._sorted[0] != i else "▼" if self._sorted[1] else "▲"
            title = _pad(rows.columns[i].title + mark, self._widths[i], right=rows.columns[i].right)
            style = plain + self.get_component_rich_style("table--sorted" if mark else "table--heading")
            segments.append(Segment(title + " " * _GAP, style))
        line = Strip(segments).adjust_cell_length(width, plain)
        if self._behind:
            hint = Segment(f" →{self._behind}", plain + self.get_component_rich_style("table--sorted"))
            seen = self.scrollable_content_region.width or width
            line = Strip([*line.crop(0, seen - cell_width(hint.text)), hint]).adjust_cell_length(width, plain)
        return line.simplify()

    def watch_cursor(self, old: int, new: int) -> None:
        """Keep the cursor in sight and send where it is; only its two lines are painted, unless the rest moves."""
        before = self.scroll_offset
        self._into_view()
        if self.scroll_offset == before:
            for row in (old, new):
                self.refresh_lines(row + 1)
        self._say_where()

    def _say_where(self) -> None:
        """Send where the cursor is; whether Enter opens something is shown below."""
        rows = self._rows
        leads = rows is not None and self.cursor < len(rows) and rows.place(self.cursor) is not None
        if leads != self._leads:
            self._leads = leads
            self.refresh_bindings()
        self.post_message(self.Moved(self, self.cursor))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Opening is offered where the row leads somewhere, turning the order where rows are sorted."""
        if action == "turn":
            return self._sorted is not None
        return action != "choose" or self._leads

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
        self._go(self.cursor + rows)

    def action_page(self, pages: int) -> None:
        """Screens further."""
        self._go(self.cursor + pages * max(1, self.size.height - 2))

    def _go(self, row: int) -> None:
        before, self.cursor = self.cursor, row
        if self.cursor == before:
            self.post_message(self.AtEdge(self, -1 if row < before else 1))

    def action_jump_to(self, row: int) -> None:
        """To the first or the last row."""
        self.cursor = row if row >= 0 else len(self._rows or ()) - 1

    def action_choose(self) -> None:
        """Open the row."""
        if self._rows is not None and len(self._rows):
            self.post_message(self.Chosen(self, self.cursor))

    def action_sort_next(self, step: int) -> None:
        """Sort by another column."""
        if self._line:
            now = self._sorted[0] if self._sorted is not None else -1
            at = self._line.index(now) if now in self._line else min(-step, 0)
            self.sort_by(self._line[(at + step) % len(self._line)])

    def action_sideways(self, columns: int) -> None:
        """Columns further to the right or left."""
        if columns < 0 and not self._skip or columns > 0 and not self._behind:
            return
        self._skip += columns
        self._fit()
        self.refresh()

    def _bring_into_sight(self, column: int) -> None:
        """Go sideways until a column is seen."""
        if column in self._shown:
            return
        self._skip = 0
        self._fit()
        while column not in self._shown and self._behind:
            self._skip += 1
            self._fit()
        self.refresh()

    def action_sort_menu(self) -> None:
        """Ask for the column."""
        if self._rows is not None:
            self.post_message(self.AsksOrder(self, self.cursor))

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
                self._bring_into_sight(column)
                self.post_message(self.Ordered(self, self.cursor))

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
