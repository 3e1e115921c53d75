"""The export dialog: the table at hand as CSV or JSON, the screen as a picture."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

CHOICES = {
    "csv": "the table as CSV: all rows of it, as filtered and sorted",
    "json": "the table as JSON",
    "svg": "the screen as a picture (SVG)",
}


class ExportScreen(ModalScreen[str | None]):
    """Asks which."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Close")]

    def __init__(self, *, table: bool) -> None:
        super().__init__()
        self._choices = [c for c in CHOICES if table or c == "svg"]

    def compose(self) -> ComposeResult:
        """The choices."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Export"
            dialog.border_subtitle = "into the current directory"
            yield OptionList(*[Option(CHOICES[c], c) for c in self._choices])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Chosen."""
        self.dismiss(event.option_id)
