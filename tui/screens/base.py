"""What all screens share: the frame, loading in a worker, the filter line, notices instead of dead screens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Input
from textual.worker import Worker, WorkerState, get_current_worker

from inspector.errors import FolioscopeError, TargetError
from inspector.report.screen import Screen as Paper
from inspector.text import clean
from tui.places import Place
from tui.session import Session, StoppedError
from tui.views.filters import completed
from tui.views.rows import Rows
from tui.widgets.column_table import ColumnTable
from tui.widgets.filter_line import FilterError, FilterLine
from tui.widgets.frame import Crumbs, KeysLine, Notice, TopBar, Working
from tui.widgets.paper import PaperView

if TYPE_CHECKING:
    from tui.app import FolioscopeApp

D = TypeVar("D")

_PATIENCE = 0.15
"""Seconds of loading before progress is shown."""


@dataclass(frozen=True)
class ReportText:
    """What a screen shows as a command prints it.

    Attributes:
        render: Makes text of the report.
        report: It.
    """

    render: Callable[[Paper, Any], Iterable[str]]
    report: Any


class PlaceScreen(Screen[None], Generic[D]):
    """One place. Subclasses say what they need (`load`), what they are made of (`body`) and how it is shown (`show`).

    Args:
        session: The target with its check.
        place: Where.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "leave", "Back", show=False),
    ]
    HELP: ClassVar[str] = ""
    """What the screen shows and how to read it, in Markdown; the keys are listed by themselves."""
    TAB: ClassVar[str] = ""
    """Which tab it belongs to."""
    EARLY: ClassVar[bool] = False
    """Whether it can be loaded before struct pages, mms and VMAs are read."""
    COUNTS: ClassVar[bool] = False
    """Whether it shows counts of all mappings, for which it waits while the check makes them."""
    AUTO_FOCUS = None
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]

    def __init__(self, session: Session, place: Place) -> None:
        super().__init__()
        self.session = session
        self.place = place
        self.data: D | None = None
        self.stale = False
        """Whether the snapshot was read again since this was loaded."""
        self.gone = False
        """Whether what it shows was not there any more when the target was read again."""
        self._loading: tuple[str, int, int] = ("loading", 0, 1)
        self._older: dict[str, tuple[int, Rows, Rows | None]] = {}
        self._clock: Timer | None = None

    @property
    def scope(self) -> FolioscopeApp:
        """The application, by its own type."""
        return cast("FolioscopeApp", self.app)

    def compose(self) -> ComposeResult:
        """The frame that is the same everywhere."""
        top = TopBar(id="top")
        top.here = self.TAB
        yield top
        yield Crumbs(id="crumbs")
        yield Working(id="working")
        with Vertical(id="body"):
            yield from self.body()
        yield Notice()
        yield FilterError()
        yield FilterLine(self._completed, self.scope.filters)
        yield KeysLine(show_command_palette=False, compact=True)

    def body(self) -> ComposeResult:
        """The widgets of this screen."""
        raise NotImplementedError

    def load(self) -> D:
        """Everything to be shown; runs in a thread, must touch no widget."""
        raise NotImplementedError

    def show(self, data: D) -> None:
        """Put what was loaded into the widgets."""
        raise NotImplementedError

    def put(self, table: ColumnTable, rows: Rows, cursor: int = 0, *, order: str = "", name: str = "") -> None:
        """Show rows in a table, in the order that its user last gave it.

        Args:
            table: The table.
            rows: The rows.
            cursor: Where the cursor is.
            order: Column to sort by otherwise, after ``-`` for the largest first.
            name: Of the table, where one widget shows several.
        """
        table.order_name = name or f"{type(self.place).__name__.removesuffix('Place')} {table.id}".lower()
        table.show(rows, cursor, self.scope.order_of(table.order_name) or order)

    def fill(self, table: ColumnTable, rows: Rows, cursor: int = 0, order: str = "") -> None:
        """Show rows in a table.

        When they were loaded again, filter, order and cursor stay; when the target was read again, what became
        different since is marked.
        """
        name = table.id or ""
        refreshes, shown, older = self._older.get(name, (self.session.refreshes, None, None))
        if shown is None:
            self.put(table, rows, cursor, order=order)
        else:
            older = shown if refreshes != self.session.refreshes else older
            if older is not None:
                rows.mark_since(older)
            same = rows.find_same
            here = table.cursor
            table.show_again(rows, self.query_one("#filter", Input).value)
            table.cursor = same(shown, here)
        self._older[name] = self.session.refreshes, rows, older

    def exported(self) -> ColumnTable | None:
        """The table that export writes: the one in focus, else the first that has rows."""
        if isinstance(self.focused, ColumnTable):
            return self.focused
        return next((t for t in self.query(ColumnTable) if t.display and t.rows is not None), None)

    def written(self) -> ReportText | None:
        """The report of the screen, for export as text and as JSON; None where there is none."""
        return None

    def progress(self, what: str, done: int, steps: int) -> None:
        """For `load` to call, from its thread.

        Raises:
            StoppedError: The result is not wanted any more.
        """
        if get_current_worker().is_cancelled:
            raise StoppedError
        self._loading = (what, done, steps)

    def on_mount(self) -> None:
        """Begin to load."""
        self.scope.dress(self)
        self.query_one("#body").display = False
        self.query_one("#working").display = False
        self.reload()

    def reload(self) -> None:
        """Load in a worker; a newer load takes the place of one under way."""
        self.stale = False
        self._clock = self._clock or self.set_interval(_PATIENCE, self._show_progress)
        self.run_worker(self._load, name="load", thread=True, exclusive=True, exit_on_error=False)

    def _load(self) -> D:
        worker = get_current_worker()
        if not self.EARLY:
            self.session.wait_for_tables(lambda: worker.is_cancelled, counts=self.COUNTS)
        with self.session.lock:
            if worker.is_cancelled:
                raise StoppedError
            if self.gone:
                raise TargetError("this was not there any more when the target was read again", self.place.title)
            return self.load()

    def _show_progress(self) -> None:
        if self.data is None:
            waiting = self.session.doing if self._loading == ("loading", 0, 1) else None
            working = self.query_one(Working)
            working.display = True
            working.show(waiting or self._loading)

    def on_screen_resume(self) -> None:
        """The path may have grown since, the target been read again."""
        self.scope.dress(self)
        if self.stale:
            self.reload()

    def on_screen_suspend(self) -> None:
        """What could not be had is no more of interest."""
        self.refuse("")

    def refuse(self, words: str) -> None:
        """Say why something cannot be had, where it stays to be read."""
        self.query_one(Notice).show(words)

    def on_resize(self) -> None:
        """The path is cut to the width."""
        self.call_after_refresh(self.scope.dress, self)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Show what was loaded, or why it could not be."""
        if event.worker.name != "load":
            if event.worker.node is self and event.state is WorkerState.ERROR:
                self.scope.complain(event.worker.error)
            return
        if event.state is WorkerState.SUCCESS:
            self.data = cast("D", event.worker.result)
            self._settle()
            self.show(self.data)
            self._focus_first()
            self.refresh_bindings()
        elif event.state is WorkerState.ERROR and not isinstance(event.worker.error, StoppedError):
            self._settle()
            if self.data is None:
                self.query_one("#body").display = False
                self.query_one("#working").display = True
                self.query_one(Working).fail(known(event.worker.error))
            else:
                self.scope.complain(event.worker.error)

    def _settle(self) -> None:
        if self._clock is not None:
            self._clock.stop()
            self._clock = None
        self.query_one("#working").display = False
        self.query_one("#body").display = True

    def _focus_first(self) -> None:
        if self.focused is None:
            self.focus_next("ColumnTable, CellGrid, Tree")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Filtering is offered where there is a table."""
        return action != "filter" or (self.is_mounted and self.filtered() is not None)

    def session_changed(self) -> None:
        """The check found more, ended, or findings were marked; for screens that show that."""

    def action_filter(self) -> None:
        """Open the filter line."""
        if self.exported() is None:
            self.refuse("nothing here can be filtered")
            return
        line = self.query_one("#filter", Input)
        line.remove_class("hidden")
        line.focus()

    def action_leave(self) -> None:
        """Close the filter line, or go back."""
        line = self.query_one("#filter", Input)
        if line.has_class("hidden"):
            self.workers.cancel_node(self)
            self.scope.go_back()
            return
        line.value = ""
        line.add_class("hidden")
        self.query_one(FilterError).show("")
        self._focus_table()

    def _focus_table(self) -> None:
        table = self.filtered()
        if table is not None:
            table.focus()

    def filtered(self) -> ColumnTable | None:
        """The table that the filter narrows."""
        return next((t for t in self.query(ColumnTable) if t.display and t.rows is not None), None)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Narrow the table with every key; what is not understood hides no row, and the reason is shown."""
        table = self.filtered()
        if event.input.id != "filter" or table is None or table.rows is None:
            return

        def wrong(why: str) -> None:
            event.input.set_class(bool(why), "wrong")
            self.query_one(FilterError).show(why)

        table.filter_by(event.value, wrong)

    def _completed(self, words: str) -> str | None:
        """A filter with the name of a column written out."""
        table = self.filtered()
        return completed(table.rows.fields, words) if table is not None and isinstance(table.rows, Rows) else None

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Back to the table, which stays narrowed."""
        if event.input.id == "filter":
            self.query_one(FilterLine).keep()
            if not event.value:
                event.input.add_class("hidden")
            self._focus_table()

    def on_paper_view_followed(self, event: PaperView.Followed) -> None:
        """Go where a link of a text leads."""
        self.scope.go(event.place)

    def on_column_table_ordered(self, event: ColumnTable.Ordered) -> None:
        """The order is remembered."""
        if event.table.order_name:
            self.scope.keep_order(event.table.order_name, event.table.order)

    def on_column_table_asks_order(self, event: ColumnTable.AsksOrder) -> None:
        """Choose the column to sort by."""
        self.scope.choose_order(event.table)

    def on_column_table_chosen(self, event: ColumnTable.Chosen) -> None:
        """Go where the row leads."""
        place = event.table.rows.place(event.row) if event.table.rows else None
        if place is not None:
            self.scope.go(place)


def known(error: BaseException | None) -> str:
    """An error for people."""
    if isinstance(error, FolioscopeError):
        return clean(str(error))
    return f"this cannot be shown: {clean(type(error).__name__)}: {clean(str(error))}"
