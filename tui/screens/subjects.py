"""What else can be browsed: each report that is a list, with what it shows."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from tui.screens.base import PlaceScreen
from tui.views.rows import Rows
from tui.views.subjects import subject_rows
from tui.widgets.column_table import ColumnTable


class SubjectsScreen(PlaceScreen[Rows]):
    """The list of them."""

    TAB = "subjects"
    EARLY = True
    HELP: ClassVar[str] = """\
Everything that is neither a process nor a folio. Each is what the command of its name prints; `g` and the name goes
there from anywhere.
"""

    def body(self) -> ComposeResult:
        """One table."""
        yield ColumnTable(id="subjects")

    def load(self) -> Rows:
        """Their names."""
        return subject_rows()

    def show(self, data: Rows) -> None:
        """Show them."""
        self.query_one(ColumnTable).show(data)
