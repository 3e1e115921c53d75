"""The dialog in which a note is written about a finding or a dump."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static


class NoteScreen(ModalScreen[str | None]):
    """One line.

    Args:
        about: What it is about.
        text: The note so far.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Close")]

    def __init__(self, about: str, text: str) -> None:
        super().__init__()
        self._about, self._text = about, text

    def compose(self) -> ComposeResult:
        """The line."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Note"
            dialog.border_subtitle = "enter keeps it, esc does not"
            yield Static(self._about, classes="quiet", markup=False)
            line = Input(self._text, id="note", compact=True)
            line.cursor_blink = False
            yield line

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Kept."""
        self.dismiss(event.value.strip())
