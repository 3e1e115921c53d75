"""A table of folios: all large ones, or every page in use, narrowed by kind, order and mappings."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from inspector.text import counted
from tui.places import FoliosPlace
from tui.screens.base import PlaceScreen
from tui.session import Session
from tui.views.folios import folio_rows
from tui.views.rows import Rows
from tui.widgets.column_table import ColumnTable


class FoliosScreen(PlaceScreen[Rows]):
    """The table; the filter of the place is already in the filter line."""

    TAB = "folios"
    COUNTS = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h", "small", "Small too"),
    ]
    HELP: ClassVar[str] = """\
Every large folio, those of users first; `h` adds folios of one page, or hides them. *mapped* is how much of its *size*
anything maps, *wasted* the rest of one that is mapped in part. *entries* counts page-table entries, *huge* those of
them that map it whole; the *owner* has most of them, and *mms* says how many processes have some.

`/` narrows: kinds by name (`anon`, `shmem`), `order>=4`, `mapped=0`, `mms>1`, `refs>10`, `wasted>1M`, `partial`.
"""

    place: FoliosPlace

    def __init__(self, session: Session, place: FoliosPlace) -> None:
        super().__init__(session, place)
        asked = place.filter
        self._small = bool(asked) and ("order" not in asked or "order=0" in asked or "order<" in asked)

    def body(self) -> ComposeResult:
        """A line of sums, and the table."""
        yield Static(id="title", classes="title", markup=False)
        yield ColumnTable(id="folios")

    def load(self) -> Rows:
        """The columns of the folios."""
        rows = folio_rows(self.session, small=self._small)
        rows.filter(self.place.filter)
        return rows

    def show(self, data: Rows) -> None:
        """Fill the table."""
        line = self.query_one("#filter", Input)
        if self.place.filter and not line.value:
            line.value = self.place.filter
            line.remove_class("hidden")
        self.fill(self.query_one(ColumnTable), data)

    def on_column_table_moved(self, _event: ColumnTable.Moved) -> None:
        """How many are shown of how many."""
        if self.data is not None:
            what = counted(self.data.total, "folio") if self._small else counted(self.data.total, "large folio")
            some = f"{len(self.data):,} of " if len(self.data) != self.data.total else ""
            self.query_one("#title", Static).update(some + what)

    def action_small(self) -> None:
        """Folios of one page too, or large ones alone."""
        self._small = not self._small
        self.reload()
