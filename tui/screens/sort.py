"""The sort dialog: the columns of a table, each with a letter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option


def letters(titles: Sequence[str]) -> list[str]:
    """A letter or digit for each title: one that is in it, else any other; "" when there is none left."""
    taken: set[str] = set()
    out = []
    for title in titles:
        own = [c for c in title.lower() if c.isascii() and c.isalnum()]
        free = [c for c in (*own, *"abcdefghijklmnopqrstuvwxyz0123456789") if c not in taken]
        out.append(free[0] if free else "")
        taken.add(out[-1])
    return out


class SortScreen(ModalScreen[int | None]):
    """Asks which; the column that rows are sorted by turns the order round.

    Args:
        titles: Of the columns.
        order: The present one, as `ColumnTable.order`.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Close")]

    def __init__(self, titles: Sequence[str], order: str) -> None:
        super().__init__()
        self._titles, self._order = titles, order
        self._letters = letters(titles)

    def compose(self) -> ComposeResult:
        """A line a column."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Sort by"
            dialog.border_subtitle = "its letter or enter; once more turns the order"
            yield OptionList(*[Option(self._line(at), str(at)) for at in range(len(self._titles))])

    def on_mount(self) -> None:
        """Begin at the present one."""
        here = self._order.removeprefix("-")
        options = self.query_one(OptionList)
        options.highlighted = self._titles.index(here) if here in self._titles else 0

    def _line(self, at: int) -> Content:
        title = self._titles[at]
        same = self._order.removeprefix("-") == title
        mark = ("  ▼ largest first" if self._order.startswith("-") else "  ▲ smallest first") if same else ""
        return Content.assemble((f"{self._letters[at]}  ", "bold $accent"), title or "(no title)", (mark, "$quiet"))

    def on_key(self, event: events.Key) -> None:
        """A letter chooses."""
        if event.character and event.character in self._letters:
            event.stop()
            self.dismiss(self._letters.index(event.character))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Chosen."""
        self.dismiss(event.option_index)
