"""One of the reports that are lists: CPUs, files, large folios, references, swap, KSM and others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from inspector.text import clean
from tui.places import SubjectPlace
from tui.screens.base import PlaceScreen, ReportText
from tui.views.rows import Rows
from tui.views.subjects import SUBJECTS, table_rows
from tui.widgets.column_table import ColumnTable
from tui.widgets.facts import Phrases
from tui.widgets.legend import switch


@dataclass
class SubjectData:
    """What the screen shows."""

    report: Any
    facts: str
    tables: list[tuple[Sequence[Any], Rows]]


class SubjectScreen(PlaceScreen[SubjectData]):
    """Its numbers, one of its tables, and more about the row under the cursor."""

    TAB = "subjects"
    COUNTS = True
    BINDINGS: ClassVar[list[BindingType]] = [Binding("v", "next_view", "View")]
    HELP: ClassVar[str] = """\
What the command of the same name prints. `v` shows its other lists, Enter opens what the row is about: a process, a
folio, a file. Below the table is more about the row, where there is more.
"""

    place: SubjectPlace
    _at: int | None = None
    """Which of its lists is shown; None before the first is."""

    def body(self) -> ComposeResult:
        """Numbers, lists, the table, the row."""
        yield Phrases(id="title", classes="title")
        yield Static(id="tabs", classes="title")
        yield ColumnTable(id="listed")
        with VerticalScroll(id="more", can_focus=False):
            yield Static(id="row", markup=False)

    def load(self) -> SubjectData:
        """Build the report and its tables."""
        subject = SUBJECTS[self.place.name]
        report = self.session.keep(("report", self.place.name), lambda: subject.build(self.session.snapshot))
        return SubjectData(report, clean(subject.facts(report)), [table_rows(one, report) for one in subject.tables])

    def written(self) -> ReportText | None:
        """The report."""
        return None if self.data is None else ReportText(SUBJECTS[self.place.name].render, self.data.report)

    def show(self, data: SubjectData) -> None:
        """Show one of the tables."""
        self.query_one("#title", Phrases).show(*data.facts.split("  "))
        if self._at is None:
            self._at = next((i for i, (rows, _) in enumerate(data.tables) if len(rows)), 0)
        listed = SUBJECTS[self.place.name].tables
        tabs = self.query_one("#tabs", Static)
        tabs.display = len(listed) > 1
        titles = [f"{one.title} {len(rows):,}" for one, (rows, _) in zip(listed, data.tables, strict=True)]
        tabs.update(switch([(str(i), title) for i, title in enumerate(titles)], str(self._at)))
        self.query_one("#more").display = listed[self._at].detail is not None
        name = f"{self.place.name} {listed[self._at].title}"
        self.put(self.query_one(ColumnTable), data.tables[self._at][1], name=name)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Other lists are offered where there are some."""
        if action == "next_view":
            return len(SUBJECTS[self.place.name].tables) > 1
        return super().check_action(action, parameters)

    def on_column_table_moved(self, event: ColumnTable.Moved) -> None:
        """More about the row."""
        if self.data is None or self._at is None:
            return
        listed = SUBJECTS[self.place.name].tables[self._at]
        if listed.detail is None:
            return
        rows, shown = self.data.tables[self._at]
        lines = listed.detail(rows[shown.row(event.row)]) if len(shown) else []
        self.query_one("#row", Static).update("\n".join(map(clean, lines)))

    def action_next_view(self) -> None:
        """The next of its lists."""
        self.action_view(str(((self._at or 0) + 1) % len(SUBJECTS[self.place.name].tables)))

    def action_view(self, name: str) -> None:
        """One of its lists."""
        self._at = int(name)
        if self.data is not None:
            self.show(self.data)
