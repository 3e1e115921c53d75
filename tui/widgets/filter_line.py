"""The line in which rows are filtered: names of columns are completed, earlier filters come back, errors are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.suggester import Suggester
from textual.widgets import Input, Static

from tui.views.filters import SYNTAX


class _Completer(Suggester):
    """Gives what the line would be with the name of a column written out."""

    def __init__(self, complete: Callable[[str], str | None]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._complete = complete

    async def get_suggestion(self, value: str) -> str | None:
        return self._complete(value)


class FilterLine(Input):
    """The line. Tab takes what is suggested, up and down go through earlier filters.

    Args:
        complete: The text with the name of a column written out.
        history: Earlier filters, the last one last; this line adds its own.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete", "Complete", show=False, priority=True),
        Binding("up", "earlier(-1)", "Earlier filter", show=False),
        Binding("down", "earlier(1)", "Later filter", show=False),
    ]

    def __init__(self, complete: Callable[[str], str | None], history: list[str]) -> None:
        super().__init__(
            placeholder=SYNTAX, id="filter", classes="hidden", compact=True, suggester=_Completer(complete)
        )
        self.cursor_blink = False
        self._complete = complete
        self._history = history
        self._at: int | None = None

    def keep(self) -> None:
        """The filter was accepted: it comes back with the up key."""
        words = self.value.strip()
        self._at = None
        if words:
            self._history[:] = [one for one in self._history if one != words] + [words]

    def action_complete(self) -> None:
        """Write the name of the column out."""
        whole = self._complete(self.value)
        if whole is not None:
            self.value = whole
            self.cursor_position = len(whole)
        else:
            self.screen.focus_next()

    def action_earlier(self, step: int) -> None:
        """Another of the filters that were used."""
        past: Sequence[str] = self._history
        at = (len(past) if self._at is None else self._at) + step
        if not past or at < 0:
            return
        self._at = at if at < len(past) else None
        self.value = past[at] if at < len(past) else ""
        self.cursor_position = len(self.value)


class FilterError(Static):
    """Why the filter is not understood; all rows are shown meanwhile."""

    def __init__(self) -> None:
        super().__init__(id="filter-error", classes="hidden", markup=False)

    def show(self, why: str) -> None:
        """Show why, or nothing where the filter is understood."""
        self.update(f"not filtered: {why}" if why else "")
        self.set_class(not why, "hidden")
