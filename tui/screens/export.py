"""The export dialog: the table at hand, the report behind the screen, or its picture, and the file to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from tui.export import free_path

CHOICES = {
    "csv": "the table as CSV: all rows of it, as filtered and sorted",
    "json": "the table as JSON",
    "txt": "all of this as text, as the command prints it",
    "report.json": "all of this as JSON, as the command prints it",
    "svg": "the screen as a picture (SVG)",
}
"""What can be written, by how the file's name ends."""


@dataclass(frozen=True)
class ExportChoice:
    """What is to be written, and where.

    Attributes:
        form: One of `CHOICES`.
        path: The file.
    """

    form: str
    path: Path


class ExportScreen(ModalScreen[ExportChoice | None]):
    """Asks which and where: arrows choose, Tab goes to the file's name, Enter writes.

    Args:
        forms: Those of `CHOICES` that there are.
        stem: What the file is called, without its end.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Close")]

    def __init__(self, forms: Sequence[str], stem: str) -> None:
        super().__init__()
        self._forms = forms
        self._paths = {form: free_path(Path.cwd(), stem, form) for form in forms}
        self._form = forms[0]

    def compose(self) -> ComposeResult:
        """The choices, and the file's name."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Export"
            dialog.border_subtitle = "enter writes; tab: another name"
            yield OptionList(*[Option(CHOICES[c], c) for c in self._forms])
            yield Static("into the file", classes="quiet")
            line = Input(self._paths[self._form].name, id="path", compact=True)
            line.cursor_blink = False
            yield line
            yield Static("", id="export-note", classes="quiet", markup=False)

    def on_mount(self) -> None:
        """Where it is put when a name without a folder is given."""
        self.query_one("#export-note", Static).update(f"in {Path.cwd()}; a file that exists is never overwritten")

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """The name of the file for it; one that was typed stays but for its end."""
        form = event.option_id or self._form
        line = self.query_one("#path", Input)
        if line.value == self._paths[self._form].name:
            line.value = self._paths[form].name
        elif line.value.endswith(f".{self._form}"):
            line.value = line.value.removesuffix(self._form) + form
        self._form = form

    def on_option_list_option_selected(self) -> None:
        """Chosen."""
        self._write()

    def on_input_submitted(self) -> None:
        """The file is named."""
        self._write()

    def _write(self) -> None:
        name = self.query_one("#path", Input).value.strip()
        path = Path(name).expanduser() if name else self._paths[self._form]
        wrong = "there is such a file already" if path.exists() else ""
        if not path.absolute().parent.is_dir():
            wrong = "there is no such directory"
        if wrong:
            self.query_one("#export-note", Static).update(f"{path}: {wrong}")
        else:
            self.dismiss(ExportChoice(self._form, path.absolute()))
