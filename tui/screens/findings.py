"""What the rules found, as a list; where there is room, with the finding under the cursor beside it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Input, Static
from textual.worker import Worker, WorkerState

from tui.places import FindingsPlace
from tui.screens.base import PlaceScreen
from tui.screens.finding import FindingData, copy_json, load_finding
from tui.views.findings import finding_rows, short_subject
from tui.views.rows import Rows
from tui.widgets.column_table import ColumnTable
from tui.widgets.finding_view import FindingView

_SETTLE = 0.08
"""Seconds that the cursor must rest before the finding beside it is loaded."""


class FindingsScreen(PlaceScreen[Rows]):
    """The list and the detail beside it."""

    TAB = "findings"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy_json", "Copy JSON"),
        Binding("s", "seen", "Seen"),
        Binding("w", "note", "Note"),
    ]
    HELP = """
Everything that the rules found. One cause is one finding: the other rules that it breaks are named in it.

* **severity**: `✗ fail` the kernel's own rules forbid it; `! warn` legal but notable; `i info` explained by work in
  flight, or worth knowing.
* **sure**: `exact` an equality, `bound` a one-sided rule, `transient` a change caught half way.
* **seen**: `·` marked by you with `s`; `+` not there before the last refresh.
* **note**: what you wrote with `w`. Marks and notes are remembered for each dump.

Type `/` and words to filter: `mapcount fail times>=2`.
"""

    _resting: Timer | None = None

    def body(self) -> ComposeResult:
        """List and detail."""
        yield Static(id="nothing")
        with Horizontal(id="list-and-detail"):
            yield ColumnTable(id="list")
            yield FindingView(id="detail")

    def load(self) -> Rows:
        """The list as it is now."""
        return finding_rows(self.session)

    def show(self, data: Rows) -> None:
        """Show it, narrowed as the place says."""
        table = self.query_one("#list", ColumnTable)
        self.put(table, data)
        assert isinstance(self.place, FindingsPlace)
        line = self.query_one("#filter", Input)
        if self.place.filter and not line.value:
            line.value = self.place.filter
            line.remove_class("hidden")
        self._say_nothing(data)
        table.focus()

    def session_changed(self) -> None:
        """More was found, or something was marked."""
        if self.data is None:
            return
        table = self.query_one("#list", ColumnTable)
        self.data = finding_rows(self.session)
        table.show_again(self.data, self.query_one("#filter", Input).value)
        self._say_nothing(self.data)

    def _say_nothing(self, rows: Rows) -> None:
        empty = rows.total == 0
        note = self.query_one("#nothing", Static)
        note.display = empty
        self.query_one("#list-and-detail").display = not empty
        if self.session.report is None:
            note.update("Nothing found so far; the check is not done.")
        else:
            note.update("✓ No rule found anything. The overview shows what was checked and what could not be.")

    def on_column_table_moved(self, event: ColumnTable.Moved) -> None:
        """Show the finding under the cursor, once the cursor rests."""
        if event.table.id != "list" or not self.query_one("#detail").display:
            return
        if self._resting is not None:
            self._resting.stop()
        self._resting = self.set_timer(_SETTLE, self._load_detail)

    def _load_detail(self) -> None:
        index = self._index()
        if index < 0:
            return

        def load() -> FindingData:
            with self.session.lock:
                return load_finding(self.session, index)

        self.run_worker(load, name="detail", group="detail", thread=True, exclusive=True, exit_on_error=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Show the detail that was loaded."""
        if event.worker.name == "detail" and event.state is WorkerState.SUCCESS:
            data = event.worker.result
            assert isinstance(data, FindingData)
            self.query_one("#detail", FindingView).show(data.finding, data.links, data.page)

    def on_resize(self) -> None:
        """There may be room for the detail now."""
        self.call_after_refresh(self._load_detail)

    def _index(self) -> int:
        table = self.query_one("#list", ColumnTable)
        return self.data.row(table.cursor) if self.data is not None and len(self.data) else -1

    def action_copy_json(self) -> None:
        """Copy the finding under the cursor."""
        if self._index() >= 0:
            copy_json(self, self.session.findings[self._index()])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is about a finding is offered where there is one."""
        if action in ("copy_json", "seen", "note"):
            return self.data is not None and len(self.data) > 0
        return super().check_action(action, parameters)

    def action_note(self) -> None:
        """Write a note about the finding under the cursor."""
        if self._index() >= 0:
            finding = self.session.findings[self._index()]
            about = f"{finding.rule}: {short_subject(finding)}"
            self.scope.ask_note(finding.key, about, self.session_changed)

    def action_seen(self) -> None:
        """Mark the finding under the cursor and go on to the next."""
        if self._index() >= 0:
            self.session.toggle_seen(self.session.findings[self._index()])
            self.query_one("#list", ColumnTable).cursor += 1
